"""A long evaluation that may be killed: what each process has collected so far, in files of its own.

    FOLDER/STREAM-ATTEMPT-RANK.safetensors     the statistics of the batches whose first rows it lists

An attempt leaves out what the files of earlier ones have, so that all files of a stream together count each row once,
whatever the number of processes of each attempt.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs
import torch
from safetensors.torch import load

from jointgen.contracts.statistics import Statistic, merge_into, packed, unpacked
from jointgen.runtime.atomic_files import replace_bytes, writing

EVERY_S = 30.0
SHARE = 0.05  # of the time, at the most, that goes into writing
DONE = "done"


@attrs.frozen
class Partial:
    """The folder of one evaluation: of one checkpoint, with these metrics and settings."""

    folder: Path

    def open(self, stream: str, kinds: Mapping[str, type[Statistic]]) -> Past:
        """What earlier attempts have of a stream."""
        files = sorted(self.folder.glob(f"{stream}-*-*.safetensors"))
        attempts = [int(file.stem.split("-")[-2]) for file in files]
        past = Past(self.folder / f"{stream}-{max(attempts, default=-1) + 1}")
        for file in files:
            data = file.read_bytes()
            past.done.update(load(data)[DONE].tolist())
            merge_into(past.statistics, unpacked(data, kinds))
        return past

    def discard(self) -> None:
        """Once the evaluation is done."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # there is another one's
            self.folder.parent.rmdir()


@attrs.frozen
class Past:
    """What was done of a stream before, and where this attempt's goes."""

    _path: Path
    done: set[int] = attrs.field(factory=set)
    statistics: dict[str, Statistic] = attrs.field(factory=dict)

    @contextlib.contextmanager
    def adding(self, mine: Mapping[str, Statistic], rank: int) -> Iterator[Callable[[int], None]]:
        """Gives a function to call with each batch's first row once `mine` has it. Writes now and then, and where it is
        stopped; what takes seconds is done again sooner than looked for."""
        path, done = self._path.with_name(f"{self._path.name}-{rank}.safetensors"), list[int]()
        began = time.monotonic()
        due = began + EVERY_S

        def write() -> None:
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_bytes(path, packed(mine, **{DONE: torch.tensor(done)}))

        def note(start: int) -> None:
            nonlocal due
            done.append(start)
            if time.monotonic() >= due:
                writing_since = time.monotonic()
                write()
                due = time.monotonic() + max(EVERY_S, (time.monotonic() - writing_since) / SHARE)

        try:
            yield note
        except BaseException:
            if done:
                write()
            raise
        if done and time.monotonic() - began >= EVERY_S:
            write()
