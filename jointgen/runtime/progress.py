"""Live progress on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import rich.console
import rich.progress
import rich.text


class Progress:
    """Where a run is: a bar on a terminal, and a plain line every `every_s` seconds elsewhere. Writes to stderr.

    `total` and `start` are steps; a resumed run starts later. `quiet` is for all processes but the main one.

    >>> with Progress(total=1000, start=0) as bar:                                     # doctest: +SKIP
    ...     bar.update(10, 5120.0, {"elbo_nats": -101.3})
    ...     bar.note("wrote samples/step-00000010.png")
    """

    def __init__(self, total: int, start: int = 0, *, every_s: float = 10.0, quiet: bool = False):
        self._total, self._start, self._every_s, self._quiet = total, start, every_s, quiet
        self._console = rich.console.Console(stderr=True, quiet=quiet)
        self._bar = _bar(self._console) if _is_terminal(self._console) and not quiet else None
        self._began = self._printed = time.monotonic()
        self._line = ""

    def __enter__(self) -> Self:
        self._began = self._printed = time.monotonic()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, completed=self._start, status="")
        return self

    def update(self, step: int, images_per_s: float, figures: Mapping[str, float]) -> None:
        """Shows that `step` steps are done. Cheap, but the figures must be plain numbers: read them off rarely."""
        shown = "  ".join([f"{images_per_s:,.0f} images/s", f"{self._left(step)} left", *map(_figure, figures.items())])
        if self._bar is not None:
            self._bar.update(self._task, completed=step, status=shown)
            return
        self._line = f"step {step}/{self._total}  {shown}"
        if time.monotonic() - self._printed >= self._every_s:
            self._print_line()

    def note(self, text: str) -> None:
        """Prints a line of its own, above the bar where there is one."""
        if self._bar is not None:
            self._console.print(rich.text.Text(text), soft_wrap=True)
        elif not self._quiet:
            print(text, file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            self._print_line()

    def _print_line(self) -> None:
        if self._line and not self._quiet:
            print(self._line, file=sys.stderr, flush=True)
        self._line, self._printed = "", time.monotonic()

    def _left(self, step: int) -> str:
        done = step - self._start
        if done <= 0:
            return "?"
        return _clock((time.monotonic() - self._began) / done * (self._total - step))


class Counter:
    """How far a long command is: call it with (done, total). The bar goes when it is full; without a terminal it is
    silent for what takes less than `every_s`.

    >>> with Counter("encoding") as count:
    ...     count(128, 10000)
    """

    def __init__(self, what: str, *, every_s: float = 10.0):
        self._what, self._every_s = what, every_s
        console = rich.console.Console(stderr=True)
        self._bar = rich.progress.Progress(console=console, transient=True) if _is_terminal(console) else None
        self._printed = time.monotonic()

    def __enter__(self) -> Self:
        self._printed = time.monotonic()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=None)
        return self

    def __call__(self, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif time.monotonic() - self._printed >= self._every_s:
            print(f"{self._what}: {done} of {total}", file=sys.stderr, flush=True)
            self._printed = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _is_terminal(console: rich.console.Console) -> bool:
    # asked of the file: rich also says yes to a log file when FORCE_COLOR is set
    return sys.stderr.isatty() and not console.is_dumb_terminal


def _bar(console: rich.console.Console) -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[status]}", markup=False),
        console=console,
        transient=False,
        redirect_stdout=False,  # what a command prints there is its answer, perhaps to a pipe
    )


def _figure(item: tuple[str, float]) -> str:
    name, value = item
    return f"{name} {value:.4g}"


def _clock(seconds: float) -> str:
    """
    >>> _clock(59.6), _clock(3725)
    ('1:00', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
