"""Trains and scores the runs of a study, several at a time, within a time limit, going on where it was stopped."""

from __future__ import annotations

import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs

from jointgen.cli.study_file import Row, Study, settings_of
from jointgen.config.plugin_files import kept_in_run, registry_of
from jointgen.config.recipe import Recipe, changed_keys, read_recipe, read_tables, write_recipe
from jointgen.errors import JointgenError
from jointgen.registry.components import Registry
from jointgen.runs.folder import RunFolder
from jointgen.runtime.atomic_files import replace_text
from jointgen.runtime.console import debug, note, warn

COMMAND = [sys.executable, "-m", "jointgen"]
STOPPED = {128 + signal.SIGTERM, -signal.SIGTERM}  # the latter before the command listens to signals
LOOK_S = 1.0
"""Seconds between looks at a run that is watched."""


class Clock:
    """Ends all running commands when the time is up, or when this process is left; each writes a checkpoint.

    Args:
        seconds: How long commands may run; None: as long as they need.
    """

    def __init__(self, seconds: float | None):
        self.ends = None if seconds is None else time.monotonic() + seconds
        self.running: set[subprocess.Popen[bytes]] = set()
        self.lock = threading.Lock()
        self.is_over = False
        if seconds is not None:
            timer = threading.Timer(seconds, self.end)
            timer.daemon = True
            timer.start()

    @property
    def is_up(self) -> bool:
        """Whether no command may begin any more."""
        return self.is_over or (self.ends is not None and time.monotonic() >= self.ends)

    def end(self) -> None:
        """Stop all commands, and let none begin."""
        with self.lock:
            self.is_over = True
            for command in self.running:
                command.terminate()

    def call(self, arguments: Sequence[str], log: Path, stop: Callable[[], bool] | None = None) -> bool:
        """Run a command, and return whether it finished.

        Args:
            arguments: The command.
            log: The file that its output is added to.
            stop: Asked now and then; the command is stopped where it says so.

        Raises:
            JointgenError: It failed.
        """
        with log.open("ab") as file:
            before = file.tell()
            with self.lock:
                if self.is_up:
                    return False
                # in a session of its own: Ctrl-C reaches it once, through `end`
                command = subprocess.Popen(arguments, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
                self.running.add(command)
            try:
                status = _wait(command, stop)
            finally:
                with self.lock:
                    self.running.discard(command)
        if status and status not in STOPPED:
            raise JointgenError(f"{last_line(log, before) or f'exit status {status}'} ({log})")
        return status == 0


def last_line(log: Path, start: int) -> str:
    """Return the last line of a log behind a position, which is the error that a command ended with."""
    with log.open("rb") as file:
        file.seek(start)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return next((line.removeprefix("jointgen: ") for line in reversed(lines) if line), "")


def _wait(command: subprocess.Popen[bytes], stop: Callable[[], bool] | None) -> int:
    while stop is not None:
        try:
            return command.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            is_enough = True
            try:
                is_enough = stop()
            finally:  # also where it raises: nothing is left behind
                if is_enough:
                    command.terminate()
            if is_enough:
                break
    return command.wait()


@attrs.frozen
class Work:
    """The runs of a study in a folder.

    Args:
        study: The study.
        out: The folder.
        settings: Settings of every run, besides the study's.
        clock: What starts and ends commands.
    """

    study: Study
    out: Path
    settings: tuple[str, ...]
    clock: Clock

    def folder(self, row: Row, seed: int) -> Path:
        """Return the run folder of a row and seed."""
        return self.out / f"{row.folder}-{seed}"

    def failure_file(self, row: Row, seed: int) -> Path:
        """Return the file that keeps the reason why a run failed when it was last tried."""
        return self.out / f"{self.folder(row, seed).name}.failed"

    def failure(self, row: Row, seed: int) -> str:
        """Return why a run failed when it was last tried; empty where it did not."""
        kept = self.failure_file(row, seed)
        return kept.read_text(encoding="utf-8").strip() if kept.is_file() and not self.is_finished(row, seed) else ""

    def settings_of(self, row: Row, seed: int) -> list[str]:
        """Return the settings of a run, as `--set` takes them."""
        start = self.folder(self.study.rows[row.start], seed) if row.start is not None else None
        return list(settings_of(self.study, row, seed, self.settings, start))

    def finish(self, row: Row, seed: int, stop: Callable[[], bool] | None = None) -> bool:
        """Train and score one run, and return whether it is finished. Finished work is not repeated.

        Raises:
            JointgenError: Training or scoring failed.
        """
        folder = self.folder(row, seed)
        log = self.out / f"{folder.name}.log"
        if not is_done(folder):
            command = [*COMMAND, "run", str(self.study.recipe_of(row)), "--out", str(folder), "--resume", "auto"]
            command += [word for setting in self.settings_of(row, seed) for word in ("--set", setting)]
            began = time.monotonic()
            if not self.clock.call(command, log, stop):
                return False
            debug(f"{folder.name}: trained, {time.monotonic() - began:.0f} s")
        if self._is_scored(folder):
            return True
        began = time.monotonic()
        if not self.clock.call([*COMMAND, "eval", str(folder), "--metrics", self.study.metrics], log):
            return False
        (folder / "scored.txt").write_text(self.study.metrics, encoding="utf-8")
        debug(f"{folder.name}: scored, {time.monotonic() - began:.0f} s")
        return True

    def _is_scored(self, folder: Path) -> bool:
        scored = folder / "scored.txt"
        metrics = self.study.metrics
        return not metrics or (scored.is_file() and scored.read_text(encoding="utf-8") == metrics)

    def is_finished(self, row: Row, seed: int) -> bool:
        """Return whether a run is trained and scored."""
        folder = self.folder(row, seed)
        return is_done(folder) and self._is_scored(folder)

    def recipe_of(self, row: Row, seed: int) -> tuple[Recipe, Registry]:
        """Read the recipe of a run, as its folder has it, with the components of its plugin files."""
        tables = read_tables(self.study.recipe_of(row), self.settings_of(row, seed))
        registry = registry_of(tables)
        return kept_in_run(read_recipe(tables, registry=registry), registry), registry

    def changes(self, row: Row, seed: int) -> list[str]:
        """List the settings in which an existing run differs from those of this command."""
        path = self.folder(row, seed) / "recipe.toml"
        if not path.is_file():
            return []
        recipe, registry = self.recipe_of(row, seed)
        changed = changed_keys(path.read_text(encoding="utf-8"), write_recipe(recipe, registry))
        return [f"{path.parent}: {line}" for line in changed]


def is_done(folder: Path) -> bool:
    """Return whether a run came to its end. Raises FileError where its summary is damaged."""
    summary = RunFolder(folder).read_summary()
    return summary is not None and summary.is_done


class Progress:
    """Says when runs begin and end, how many are done, and about how long the rest will take.

    Args:
        total: The number of runs.
        done: How many of them were finished before.
        workers: Runs at a time.
    """

    def __init__(self, total: int, done: int, workers: int):
        self.total, self.done, self.workers = total, done, workers
        self.times: list[float] = []  # of those that did not fail, which says nothing about the others
        self.lock = threading.Lock()

    def begins(self, run: str) -> None:
        """Say that a run begins."""
        with self.lock:
            note(f"[{self.done}/{self.total}] {run} begins")

    def ends(self, run: str, seconds: float, failure: str = "") -> None:
        """Say that a run ended, and how much time is left by the mean time of those that ended."""
        with self.lock:
            self.done += 1
            self.times += [] if failure else [seconds]
            what = f"failed after {readable(seconds)}: {failure}" if failure else f"done in {readable(seconds)}"
            (warn if failure else note)(f"[{self.done}/{self.total}] {run} {what}{self._left()}")

    def _left(self) -> str:
        rest = self.total - self.done
        if not self.times or not rest:
            return ""
        return f"; about {readable(rest / min(self.workers, rest) * statistics.fmean(self.times))} left"


def readable(seconds: float) -> str:
    """Write a time in two units.

    >>> readable(41.7), readable(119.8), readable(7980)
    ('42 s', '2 min 0 s', '2 h 13 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole // 60 % 60} min"


def finish_all(work: Work, rows: Sequence[Row], seeds: Sequence[int], workers: int) -> Iterator[bool]:
    """Finish all rows of a seed before the next seed, so that an unfinished study has whole tables.

    A run that fails keeps no other from being finished; `Work.failure` has its reason.

    Yields:
        For each run, whether it is finished.
    """
    runs = [(row, seed) for seed in seeds for row in rows if row.seeds is None or seed < row.seeds]
    before = sum(work.is_finished(*run) for run in runs)
    progress = Progress(len(runs), before, workers)
    for seed in seeds:
        here = [row for row, of in runs if of == seed]
        for turn in ([r for r in here if r.start is None], [r for r in here if r.start is not None]):
            with ThreadPoolExecutor(workers) as pool:
                yield from pool.map(lambda row, seed=seed: _finish_one(work, row, seed, progress), turn)


def _finish_one(work: Work, row: Row, seed: int, progress: Progress) -> bool:
    """Finish one run, and return whether it is finished; where it fails, its reason is kept and said."""
    if work.is_finished(row, seed):
        return True
    if work.clock.is_up:
        return False
    name, began = work.folder(row, seed).name, time.monotonic()
    progress.begins(name)
    kept = work.failure_file(row, seed)
    kept.unlink(missing_ok=True)
    try:
        if row.start is not None and work.failure(work.study.rows[row.start], seed):
            raise JointgenError(f"it starts from the weights of {row.start!r}, which failed")
        finished = work.finish(row, seed)
    except JointgenError as error:
        replace_text(kept, f"{error}\n")
        progress.ends(name, time.monotonic() - began, str(error))
        return False
    if finished:
        progress.ends(name, time.monotonic() - began)
    return finished
