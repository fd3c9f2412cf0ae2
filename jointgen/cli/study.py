"""`jointgen study`: trains and scores all models of a study on the same data, budget and seeds, and compares them.

Every row and seed is trained by `jointgen run` and scored by `jointgen eval` in a folder of its own. The tables have
all finished runs of the folder, even if --row asks for a few.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from jointgen.cli.arguments import Arguments, load
from jointgen.cli.study_file import Row, Study
from jointgen.cli.study_runs import Clock, Work, finish_all
from jointgen.cli.study_tables import write_results
from jointgen.errors import ConfigError, Problems, StoppedError, suggest
from jointgen.registry.discovery import load_plugins
from jointgen.runtime.console import log, warn
from jointgen.runtime.signals import handled

UNFINISHED = 3
"""The exit status where the time was up before all was done."""
Runs = list[tuple[Row, int]]
"""Rows and seeds."""
FAILED = 4
"""The exit status where all was tried and some runs failed."""


def study_command(arguments: Arguments) -> None:
    """Run a study, or go on with it, and write its tables.

    Raises:
        ConfigError: The study or an option is wrong, or the folder has runs of other settings.
        StoppedError: A signal came; what is under way has written checkpoints.
        SystemExit: With status 3, where the time was up, and with 4, where all was tried and some runs failed.
    """
    study = Study.read(Path(arguments.study), load_plugins().registry)
    _check(study, arguments)
    out = Path(arguments.out or Path("runs") / study.name)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be made a folder: {error.strerror}", "--out") from None
    clock = Clock(arguments.limit_s)
    work = Work(study, out, (*study.budgets.get(arguments.budget, ()), *arguments.set), clock)
    came: list[int] = []
    failed: Runs = []

    def stop(number: int, frame: Any) -> None:
        came.append(number)
        clock.end()

    with _alone(out), handled(stop):
        if study.search is not None:
            rows = load("jointgen.cli.study_search:run_search")(work, arguments.workers)
            finished, done = not clock.is_up, [(row, 0) for row in rows if work.is_finished(row, 0)]
            total = study.search.trials
        else:
            finished, done, failed, total = _run_rows(work, arguments)
    if came:
        raise StoppedError(f"{out}: stopped; the same command goes on", came[0])
    write_results(work, done, failed, total)
    if failed:
        said = [f"{work.folder(row, seed).name} failed: {work.failure(row, seed)}" for row, seed in failed]
        warn(*said, f"{out}: {len(failed)} of its runs failed; the same command tries them again")
    if clock.is_up and not finished:
        log(f"{out}: the time is up; the same command goes on")
        raise SystemExit(UNFINISHED)
    if failed:
        raise SystemExit(FAILED)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Let one command at a time work in the folder of a study."""
    try:
        held = FileLock(out / "study.lock").acquire(timeout=0)
    except Timeout:
        raise ConfigError(f"{out}: another command is working on this study", "--out") from None
    with held:
        yield


def _run_rows(work: Work, arguments: Arguments) -> tuple[bool, Runs, Runs, int]:
    """Finish the rows that were asked for.

    Returns:
        Whether all of them are finished, all finished runs of the folder, all that failed, and how many there are to
        be.
    """
    study = work.study
    rows = [row for row in study.rows.values() if not arguments.rows or row.name in arguments.rows]
    seeds = range(arguments.seeds or study.seeds)
    runs = [(row, seed) for row in study.rows.values() for seed in range(max(study.seeds, len(seeds)))]
    if changed := [line for row, seed in runs for line in work.changes(row, seed)]:
        raise ConfigError([*changed, "the runs in this folder have other settings; give another --out"])
    finished = list(finish_all(work, rows, seeds, arguments.workers))
    done, failed = [run for run in runs if work.is_finished(*run)], [run for run in runs if work.failure(*run)]
    wanted = [run for run in runs if run[1] in seeds and (run[0].seeds is None or run[1] < run[0].seeds)]
    return all(finished), done, failed, len({*map(repr, wanted), *map(repr, done), *map(repr, failed)})


def _check(study: Study, arguments: Arguments) -> None:
    problems = Problems()
    if arguments.budget not in {None, *study.budgets}:
        problems.add(f"no budget {arguments.budget!r}{suggest(arguments.budget, study.budgets)}", "--budget")
    for name in arguments.rows:
        if name not in study.rows:
            problems.add(f"no row {name!r}{suggest(name, study.rows)}", "--row")
    if study.search is not None and (arguments.rows or arguments.seeds):
        problems.add("--row and --seeds are for studies without [search]", "--row" if arguments.rows else "--seeds")
    problems.raise_any()
