"""Trains and scores all models of a study on the same networks, data, budget and seeds, and writes their tables.

    python benchmarks/asvae_table.py STUDY [--set data.root=DIR] [--out DIR] [--budget NAME] [--seeds N]
        [--row NAME]... [--workers N] [--limit-s S]

STUDY is a file of `benchmarks/studies` or its name. It names a recipe, rows (each with some keys that differ) and
metrics. Every row and seed is trained by `jointgen run` and scored by `jointgen eval` in a folder of its own. A row
that starts from the weights of another row is run after it. The results, with samples and reconstructions beside them:

- OUT/table.md (.html, .csv), written by `jointgen compare` together with the published rows;
- OUT/beside.md, which compares every run with the run of the same seed of one row, if the study has the key `beside`;
- OUT/curve.md and OUT/curve.png, the trade-off between two figures, if the study has the key `axes`.

A study that was stopped goes on with the same command; finished runs are not repeated. A folder whose runs have another
budget or other settings is refused, so give each its own --out. The tables have all finished runs of the folder, even
if --row asks for a few. With --limit-s the command stops itself after so many seconds with exit status 3, after a
checkpoint; with 0 it only writes the tables. So a long study fits into short sessions on a GPU:

    until python benchmarks/asvae_table.py cifar10 --budget full --limit-s 540; do [ $? = 3 ] || break; done
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
from matplotlib import figure as pyplot

from jointgen.cli.main import main as jointgen
from jointgen.config.recipe import changed_keys, read_recipe, write_recipe
from jointgen.config.structure import structure
from jointgen.config.toml import load_tables
from jointgen.errors import ConfigError, suggest
from jointgen.registry.components import Registry
from jointgen.registry.discovery import load_plugins
from jointgen.reports.comparison.columns import Column
from jointgen.reports.comparison.runs import ComparedRun, Figure, read_runs

BENCHMARKS = Path(__file__).parent
COMMAND = [sys.executable, "-m", "jointgen"]
STOPPED = {128 + signal.SIGTERM, -signal.SIGTERM}  # the latter before the command listens to signals
UNFINISHED = 3


@attrs.frozen
class Row:
    """A model of the study.

    Args:
        set: the settings that differ, as `--set` takes them.
        start: the row whose weights training starts from.
        curve: whether the row is part of the curve.
        table: whether the row is part of the table.
        seeds: the largest number of seeds.
    """

    name: str
    set: list[str] = attrs.field(factory=list)
    start: str | None = None
    curve: bool = False
    table: bool = True
    seeds: int | None = None

    @property
    def folder(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


def _one_line(text: str) -> str:
    return " ".join(text.split())


@attrs.frozen
class Study:
    """A file of `benchmarks/studies`. Like a recipe, it may have a `base`.

    Args:
        recipe: a file of `recipes`, or an absolute path.
        metrics: the metrics of every run, as `jointgen eval` takes them.
        columns: the columns of the tables, as `jointgen compare` takes them.
        set: settings of every row.
        budgets: further settings, by the name of a budget.
        axes: the two figures of the curve, a bound and a distance.
        beside: the row that every other row is compared with.
        published: the published figures to show.
    """

    name: str
    recipe: str
    metrics: str = attrs.field(converter=_one_line)
    columns: str = attrs.field(converter=_one_line)
    rows: dict[str, Row]
    seeds: int = 1
    set: list[str] = attrs.field(factory=list)
    budgets: dict[str, list[str]] = attrs.field(factory=dict)
    axes: tuple[str, str] | None = None
    beside: str | None = None
    published: str | None = None

    def __attrs_post_init__(self) -> None:
        named = {f"rows.{row.name}.start": row.start for row in self.rows.values()} | {"beside": self.beside}
        unknown = {key: name for key, name in named.items() if name is not None and name not in self.rows}
        if unknown:
            raise ConfigError([f"{key}: no row {name!r}{suggest(name, self.rows)}" for key, name in unknown.items()])

    @classmethod
    def read(cls, name: str, registry: Registry) -> Study:
        """Read a study. Raises ConfigError with every problem of the file."""
        path = Path(name) if name.endswith(".toml") else BENCHMARKS / "studies" / f"{name}.toml"
        if not path.is_file():
            known = [p.stem for p in (BENCHMARKS / "studies").glob("*.toml")]
            raise ConfigError(f"no study {name!r}{suggest(name, known)}")
        tables = load_tables(path)
        rows = {key: {**row, "name": key} for key, row in tables.get("rows", {}).items()}
        try:
            return structure({**tables, "rows": rows, "name": path.stem}, cls, registry)
        except ConfigError as error:
            raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from None

    @property
    def path(self) -> Path:
        """The path of the recipe."""
        return BENCHMARKS.parent / "recipes" / self.recipe


class Clock:
    """Ends all running commands when the time is up; each writes a checkpoint."""

    def __init__(self, seconds: float | None):
        self.ends = None if seconds is None else time.monotonic() + seconds
        self.running: set[subprocess.Popen[str]] = set()
        self.lock = threading.Lock()
        if seconds is not None:
            timer = threading.Timer(seconds, self._end)
            timer.daemon = True
            timer.start()

    @property
    def is_up(self) -> bool:
        return self.ends is not None and time.monotonic() >= self.ends

    def _end(self) -> None:
        with self.lock:
            for command in self.running:
                command.terminate()

    def call(self, arguments: Sequence[str], log: Path) -> bool:
        """ComparedRun a command, and return whether it finished. Raises RuntimeError if it failed."""
        with log.open("a", encoding="utf-8") as file:
            with self.lock:
                if self.is_up:
                    return False
                command = subprocess.Popen(arguments, stdout=file, stderr=subprocess.STDOUT, text=True)
                self.running.add(command)
            status = command.wait()
            with self.lock:
                self.running.discard(command)
        if status and status not in STOPPED:
            raise RuntimeError(f"status {status} of {' '.join(arguments)}; see {log}")
        return status == 0


@attrs.frozen
class Work:
    """The runs of a study in a folder."""

    study: Study
    out: Path
    settings: tuple[str, ...]
    clock: Clock

    def folder(self, row: Row, seed: int) -> Path:
        return self.out / f"{row.folder}-{seed}"

    def finish(self, row: Row, seed: int) -> bool:
        """Train and score one run, and return whether it is finished. Finished work is not repeated."""
        folder = self.folder(row, seed)
        log = self.out / f"{folder.name}.log"
        if not _is_done(folder):
            resume = ["--resume"] if (folder / "recipe.toml").is_file() else []
            command = [*COMMAND, "run", str(self.study.path), "--out", str(folder), *resume]
            for setting in self.settings_of(row, seed):
                command += ["--set", setting]
            began = time.monotonic()
            if not self.clock.call(command, log):
                return False
            _say(f"{folder.name}: trained, {time.monotonic() - began:.0f} s")
        scored = folder / "scored.txt"
        if not scored.is_file() or scored.read_text(encoding="utf-8") != self.study.metrics:
            began = time.monotonic()
            if not self.clock.call([*COMMAND, "eval", str(folder), "--metrics", self.study.metrics], log):
                return False
            scored.write_text(self.study.metrics, encoding="utf-8")
            _say(f"{folder.name}: scored, {time.monotonic() - began:.0f} s")
        return True

    def is_finished(self, row: Row, seed: int) -> bool:
        return _is_done(self.folder(row, seed)) and (self.folder(row, seed) / "scored.txt").is_file()

    def changes(self, row: Row, seed: int, registry: Registry) -> list[str]:
        """List the settings in which an existing run differs from those of this command."""
        path = self.folder(row, seed) / "recipe.toml"
        if not path.is_file():
            return []
        recipe = read_recipe(self.study.path, list(self.settings_of(row, seed)), registry=registry)
        changed = changed_keys(path.read_text(encoding="utf-8"), write_recipe(recipe, registry))
        return [f"{path.parent}: {line}" for line in changed]

    def settings_of(self, row: Row, seed: int) -> Iterator[str]:
        """The settings of a run, as `--set` takes them."""
        yield from self.study.set
        yield from self.settings
        yield from row.set
        yield f"name={json.dumps(row.name)}"
        yield f"seed={seed}"
        if row.start is not None:
            yield f"train.init_from={json.dumps(str(self.folder(self.study.rows[row.start], seed)))}"


def _is_done(folder: Path) -> bool:
    summary = folder / "summary.json"
    return summary.is_file() and json.loads(summary.read_bytes())["status"] == "done"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# --- all of it -------------------------------------------------------------------------------------------------------


def main() -> None:
    given = _arguments()
    registry = load_plugins().registry
    try:
        study = Study.read(given.study, registry)
    except ConfigError as error:
        sys.exit(str(error))
    if given.budget not in {None, *study.budgets}:
        sys.exit(f"no budget {given.budget!r}; {study.name} has: {', '.join(study.budgets) or 'none'}")
    if unknown := [name for name in given.rows if name not in study.rows]:
        sys.exit("\n".join(f"no row {name!r}{suggest(name, study.rows)}" for name in unknown))
    out = Path(given.out or Path("runs") / study.name)
    out.mkdir(parents=True, exist_ok=True)
    work = Work(study, out, (*study.budgets.get(given.budget, ()), *given.set), Clock(given.limit_s))
    rows = [row for row in study.rows.values() if not given.rows or row.name in given.rows]
    seeds = range(given.seeds or study.seeds)
    runs = [(row, seed) for row in study.rows.values() for seed in range(max(study.seeds, len(seeds)))]
    try:
        if changed := [line for row, seed in runs for line in work.changes(row, seed, registry)]:
            sys.exit("\n".join([*changed, "the runs in this folder have other settings; give another --out"]))
        finished = list(_finish_all(work, rows, seeds, given.workers))
    except (RuntimeError, ConfigError) as failure:
        sys.exit(str(failure))
    write_results(work, [(row, seed) for row, seed in runs if work.is_finished(row, seed)])
    if not all(finished):
        sys.exit(UNFINISHED)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every run")
    parser.add_argument("--out", help="default: runs/STUDY")
    parser.add_argument("--budget", help="settings that the study has by this name")
    parser.add_argument("--seeds", type=int, help="in place of the study's number")
    parser.add_argument("--row", action="append", default=[], dest="rows", metavar="NAME", help="only these")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    parser.add_argument("--limit-s", type=float, help="stop after so many seconds, with exit status 3")
    return parser.parse_args()


def _finish_all(work: Work, rows: Sequence[Row], seeds: Iterable[int], workers: int) -> Iterator[bool]:
    """Finish all rows of a seed before the next seed, so that an unfinished study has whole tables."""
    for seed in seeds:
        here = [row for row in rows if row.seeds is None or seed < row.seeds]
        for turn in ([r for r in here if r.start is None], [r for r in here if r.start is not None]):
            with ThreadPoolExecutor(workers) as pool:
                yield from pool.map(lambda row, seed=seed: work.finish(row, seed), turn)  # type: ignore[misc]


def write_results(work: Work, done: Sequence[tuple[Row, int]]) -> None:
    """Write the tables and the curve of the finished runs, in the order of `done`."""
    study = work.study
    published = ["--published", study.published] if study.published else []
    tabled = [str(work.folder(row, seed)) for row, seed in done if row.table]
    if tabled:
        for ending in ("md", "html", "csv"):
            _compare(tabled, work.out / f"table.{ending}", study.columns, *published)
    if not study.axes:
        return
    every = points_of(read_runs([str(work.folder(row, seed)) for row, seed in done]), study.axes)
    if study.beside and (text := beside(every, study.beside)):
        (work.out / "beside.md").write_text(text, encoding="utf-8")
        print(work.out / "beside.md")
    paths = [str(work.folder(row, seed)) for row, seed in done if row.curve]
    if points := [point for point in every if point.run.path in paths]:
        _compare(paths, work.out / "curve.md", study.columns, "--no-published")
        draw_curve(points, work.out / "curve.png")


def _compare(runs: Sequence[str], path: Path, columns: str, *options: str) -> None:
    """Write a table with `jointgen compare`, without the columns that no run has a figure for."""
    have = {name for run in read_runs(runs) for name, figure in run.figures.items() if figure.value is not None}
    shown = [name.strip() for name in columns.split(",") if name.strip() in have]
    if status := jointgen(["compare", *runs, "-o", str(path), "--metrics", ",".join(shown), *options]):
        sys.exit(status)


@attrs.frozen(eq=False)
class Point:
    """The two figures of a run that are the axes of a study, and their titles."""

    run: ComparedRun
    across: float
    up: float
    titles: tuple[str, str]


def points_of(runs: Sequence[ComparedRun], axes: tuple[str, str]) -> list[Point]:
    """Return a point for each run that has both figures."""
    found = []
    for run in runs:
        across, up = (run.figures.get(axis) for axis in axes)
        if across and up and across.value is not None and up.value is not None:
            found.append(Point(run, across.value, up.value, (_title(across), _title(up))))
    return found


def _title(figure: Figure) -> str:
    column = Column.of(figure)
    return f"{column.title} ({column.kind})"


def beside(points: Sequence[Point], name: str) -> str:
    """Make a Markdown table that compares each run with the run of the row `name` that has the same seed.

    A cell has the quotient of the second figures and the difference of the first. The text is empty if that row has no
    run.
    """
    found: dict[str, dict[int, Point]] = {}
    for point in points:
        found.setdefault(point.run.name, {})[point.run.seed] = point
    ground = found.pop(name, {})
    if not ground:
        return ""
    across, up = points[0].titles
    lines = [f"{up} as a share of the {name}'s; {across} less the {name}'s", ""]
    lines += [f"| model | {' | '.join(f'seed {seed}' for seed in ground)} |", f"|---|{'---|' * len(ground)}"]
    for other, of in found.items():
        pairs = ((of.get(seed), least) for seed, least in ground.items())
        cells = [f"{one.up / least.up:.3f}; {one.across - least.across:+.3f}" if one else "" for one, least in pairs]
        lines.append(f"| {other} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw_curve(points: Sequence[Point], path: Path) -> None:
    """Draw the labelled points, and a line through the mean of each row over its seeds."""
    named: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        named.setdefault(point.run.name, []).append((point.across, point.up))
    canvas = pyplot.Figure(figsize=(7.0, 4.5), layout="constrained")
    plot = canvas.subplots()
    means = {name: tuple(sum(each) / len(of) for each in zip(*of, strict=True)) for name, of in named.items()}
    along = sorted(means.values(), key=lambda point: point[1])
    plot.plot(*zip(*along, strict=True), color="0.7", zorder=1)
    for name, of in named.items():
        plot.scatter(*zip(*of, strict=True), s=18, zorder=2)
        plot.annotate(name, means[name], xytext=(5, 5), textcoords="offset points", fontsize=8)
    plot.margins(0.15)  # room for the names
    plot.set(xlabel=points[0].titles[0], ylabel=points[0].titles[1])
    canvas.savefig(path, dpi=130)
    print(path)


if __name__ == "__main__":
    main()
