"""Reads `metrics.jsonl`, and says what it has lost: damaged lines, and events that the run is known to have logged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from jointgen.config.values import show
from jointgen.errors import MissingFileError
from jointgen.runs.records import valid_rows, valid_seconds, valid_step
from jointgen.runtime.regular_files import read_regular
from jointgen.runtime.strict_json import read_json
from jointgen.text import listed

MAX_BYTES = 1 << 30
"""The largest log that is read."""
CLOCKS = ("step", "images_seen", "wall_s")
"""The keys of an event that say when it was; all others are figures."""


@attrs.frozen
class LogEvent:
    """A line of `metrics.jsonl`.

    Args:
        step: The steps made so far.
        images_seen: The rows of training data seen so far.
        wall_s: The seconds of training so far.
        values: The figures by name; None stands for NaN and infinities.
    """

    step: int = attrs.field(validator=valid_step)
    images_seen: int = attrs.field(validator=valid_rows)
    wall_s: float = attrs.field(validator=valid_seconds)
    values: Mapping[str, float | None]

    @classmethod
    def parse(cls, line: bytes) -> LogEvent:
        """Read a line. Raises ValueError where it is not one of a log."""
        held = read_json(line)
        if not isinstance(held, dict):
            raise ValueError(f"expected a table, got {show(held)}")
        for key, value in held.items():
            kinds: Any = int if key in CLOCKS[:2] else int | float if key == "wall_s" else int | float | None
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise ValueError(f"{key}: expected a number, got {show(value)}")
        if absent := [key for key in CLOCKS if key not in held]:
            raise ValueError(f"{absent[0]}: missing")
        return cls(**{key: held.pop(key) for key in CLOCKS}, values=held)

    def as_dict(self) -> dict[str, Any]:
        """Return the event as the keys of its line; NaN and infinities, which JSON does not have, become None."""
        whole = {"step": self.step, "images_seen": self.images_seen, "wall_s": self.wall_s, **self.values}
        return {key: None if value is None or not math.isfinite(value) else value for key, value in whole.items()}


@attrs.frozen
class LogLine:
    """A whole line of the log.

    Args:
        number: Its number, from 1 on.
        text: The line without its end.
        event: The event in it; None where the line is damaged.
        damage: What is wrong with it; empty where nothing is.
    """

    number: int
    text: bytes
    event: LogEvent | None
    damage: str = ""


@attrs.frozen
class LogFile:
    """The log of a run as it was read.

    Args:
        path: Its file.
        data: All of it.
        lines: The whole lines. What follows the last line end is torn, as a killed run can leave it, and is no line.
    """

    path: Path
    data: bytes
    lines: tuple[LogLine, ...]

    @classmethod
    def read(cls, path: Path) -> LogFile:
        """Read a log; one that is not there has no lines.

        Raises:
            FileError: It is not a regular file, or cannot be read.
        """
        try:
            data = read_regular(path, MAX_BYTES)
        except MissingFileError:
            data = b""
        *whole, _ = data.split(b"\n")
        return cls(path, data, tuple(_parsed(number, text) for number, text in enumerate(whole, 1)))

    @property
    def events(self) -> list[LogEvent]:
        """The events, in the order in which they were logged."""
        return [line.event for line in self.lines if line.event is not None]

    def up_to(self, step: int) -> bytes:
        """Return the text of the log without the events after a step. Damaged lines stay, as they are."""
        kept = (line.text for line in self.lines if line.event is None or line.event.step <= step)
        return b"".join(text + b"\n" for text in kept)

    def losses(self, step: int, logged: int | None, every: int | None) -> list[str]:
        """Say what is damaged or lost, a line each.

        Args:
            step: The step up to which the run is known to have logged.
            logged: How many events it had logged by then; None if that is not known.
            every: The steps between two events, `train.log_every`; None if they have changed.
        """
        damaged = [f"line {line.number} ({line.damage})" for line in self.lines if line.event is None]
        lines = [f"{self.path}: damaged and left as it is: {listed(damaged, '; ', 5)}"] if damaged else []
        if logged is None:
            return lines
        steps = [event.step for event in self.events if event.step <= step]
        if len(steps) > logged:
            lines.append(f"{self.path}: has {len(steps):,} events up to step {step:,}, and the run logged {logged:,}")
        if len(steps) < logged:
            gaps = _gaps(steps, step, every) if every else []
            known = gaps and sum(gap.events for gap in gaps) <= logged - len(steps)
            which = f", those of steps {listed(gaps)}" if known else ""
            lost = f"{logged - len(steps):,} of the {logged:,} events that the run logged up to step {step:,}"
            lines.append(f"{self.path}: has lost {lost}{which}")
        return lines


def _parsed(number: int, text: bytes) -> LogLine:
    try:
        return LogLine(number, text, LogEvent.parse(text))
    except ValueError as error:
        return LogLine(number, text, None, str(error))


@attrs.frozen
class _Gap:
    """Events that are missing in a row, one every so many steps."""

    first: int
    last: int
    every: int

    @property
    def events(self) -> int:
        return (self.last - self.first) // self.every + 1

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


def _gaps(steps: Iterable[int], end: int, every: int) -> list[_Gap]:
    """Find the multiples of `every` up to `end` that are not among these steps; of each gap, its ends only.

    >>> [str(gap) for gap in _gaps([40, 45], 55, 10)]
    ['10 to 30', '50']
    """
    there = sorted({step for step in steps if step % every == 0 and 0 < step <= end})
    around = itertools.pairwise([0, *there, end - end % every + every])
    return [_Gap(one + every, other - every, every) for one, other in around if other - one > every]
