"""Live progress: a bar on a terminal or in a notebook where messages are printed, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import rich.progress

from jointgen.runtime.console import note, prints_progress, stderr_is_terminal
from jointgen.runtime.notebook import Place, bar_in_html, in_notebook
from jointgen.runtime.terminal import Terminal, styled, terminal
from jointgen.text import visible

SHOWN_EVERY_S = 0.5
"""Seconds between changes of a bar in a notebook."""
MAX_NOTES = 8
"""So many notes stand below it, the last ones."""
_moving: list[rich.progress.Progress] = []
"""The bar on the terminal, if there is one: two would write over each other, so what begins meanwhile adds a line."""


class Progress:
    """Shows how far a run is.

    Args:
        total: Steps in all.
        start: Steps that are done already, in a run that is resumed.
        every_s: Seconds between lines where there is no terminal.
        quiet: Whether to show nothing, as in all processes but the main one.

    >>> with Progress(total=1000, start=0) as bar:                                     # doctest: +SKIP
    ...     bar.update(10, 5120.0, {"elbo_nats": -101.3})
    ...     bar.note("wrote samples/step-00000010.png")
    """

    def __init__(self, total: int, start: int = 0, *, every_s: float = 10.0, quiet: bool = False):
        self._total, self._start, self._every_s, self._quiet = total, start, every_s, quiet
        self._console = terminal(stderr=True, quiet=quiet)
        self._bar = _bar(self._console) if _is_terminal(self._console) and not quiet else None
        self._place = Place() if in_notebook() and prints_progress() and not quiet else None
        self._began = self._printed = time.monotonic()
        self._line, self._step = "", start
        self._notes: list[str] = []
        self._picture: Path | None = None

    def __enter__(self) -> Self:
        self._began = self._printed = time.monotonic()
        if self._bar is not None:
            self._bar.start()
            _moving.append(self._bar)
            self._task = self._bar.add_task("", total=self._total, completed=self._start, status="")
        return self

    def update(self, step: int, images_per_s: float, figures: Mapping[str, float]) -> None:
        """Show that `step` steps are done, the speed and some figures.

        The figures are plain numbers: to read them off the device costs time, so this is for log events only.
        """
        done = step - self._start
        left = _clock((time.monotonic() - self._began) / done * (self._total - step)) if done > 0 else "?"
        numbers = [f"{name} {value:.4g}" for name, value in figures.items()]
        shown = "  ".join([f"{images_per_s:,.0f} images/s", f"{left} left", *numbers])
        if self._bar is not None:
            self._bar.update(self._task, completed=step, status=visible(shown))
            return
        self._line, self._step = f"step {step}/{self._total}  {shown}", step
        if time.monotonic() - self._printed >= (SHOWN_EVERY_S if self._place else self._every_s):
            self._print_line()

    def show_pictures(self, pictures: Sequence[Path]) -> None:
        """Show the first of some pictures, where pictures can be shown."""
        self._picture = pictures[0] if pictures else self._picture

    def note(self, text: str) -> None:
        """Print a line of its own, above the bar where there is one."""
        if self._bar is not None:
            self._console.print(styled(text), soft_wrap=True)
        elif self._place is not None:
            self._notes = [*self._notes, text][-MAX_NOTES:]
            self._show()
        elif not self._quiet:
            note(text)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            _moving.remove(self._bar)
            self._bar.stop()
        else:
            self._print_line()

    def _print_line(self) -> None:
        if self._place is not None:
            self._show()
        elif self._line and not self._quiet:
            note(self._line)
            self._line = ""
        self._printed = time.monotonic()

    def _show(self) -> None:
        assert self._place is not None
        page = bar_in_html(self._step, self._total, self._line, self._notes, self._picture)
        self._place.show("\n".join(filter(None, [self._line, *self._notes])), page)


class Counter:
    """Shows how far a long command is: call it with (done, total). The bar disappears when it is full.

    Within a run, or within another Counter, it is one more line of their bar.

    Args:
        what: What the command does, such as "encoding".
        every_s: Seconds between lines where there is no terminal; a shorter command shows nothing.

    >>> with Counter("encoding") as count:
    ...     count(128, 10000)
    """

    def __init__(self, what: str, *, every_s: float = 10.0):
        self._what, self._every_s = what, every_s
        console = terminal(stderr=True)
        self._bar = rich.progress.Progress(console=console, transient=True) if _is_terminal(console) else None
        self._printed = time.monotonic()

    def __enter__(self) -> Self:
        self._printed = time.monotonic()
        if self._bar is not None:
            self._is_within = bool(_moving)
            if self._is_within:
                self._bar = _moving[-1]
            else:
                self._bar.start()
                _moving.append(self._bar)
            self._task = self._bar.add_task(self._what, total=None, status=self._what)
        return self

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif time.monotonic() - self._printed >= self._every_s:
            note(f"{self._what}: {done} of {total}")
            self._printed = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is None:
            return
        if self._is_within:
            self._bar.remove_task(self._task)
        else:
            _moving.remove(self._bar)
            self._bar.stop()


def _is_terminal(console: Terminal) -> bool:
    # the file is asked: with FORCE_COLOR, rich takes a log file for a terminal too
    return prints_progress() and stderr_is_terminal() and not console.is_dumb_terminal


def _bar(console: Terminal) -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[status]}", markup=False),
        console=console,
        transient=False,
        redirect_stdout=False,  # a command prints its answer there, perhaps to a pipe
    )


def _clock(seconds: float) -> str:
    """Write seconds as minutes and hours.

    >>> _clock(59.6), _clock(3725)
    ('1:00', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
