"""Lists the runs of a folder: what each trains, how far it is, and what it reached. Torch-free.

Nothing is compared, so nothing is refused: a run whose files are damaged is listed with what is wrong.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import attrs

from jointgen.config.values import show
from jointgen.contracts.figures import Estimate
from jointgen.errors import ConfigError, FileError, Problems, suggest
from jointgen.reports.run_figures import figures_of_run
from jointgen.runs.folder import RunFolder

FIELDS = ("name", "objective", "data", "status", "seed", "step", "steps", "time_s", "bytes", "path")
"""What a run can be sorted and chosen by, besides its figures and the keys of its recipe."""
_CONDITION = re.compile(r"(?P<key>[^=!<>]+)(?P<sign>!=|=|<|>)(?P<value>.*)", re.DOTALL)


@attrs.frozen
class ListedRun:
    """A run as it is listed.

    Args:
        path: Its folder.
        name: The name of its recipe.
        objective: The type of its objective.
        data: The types of its data sources.
        status: running (also where it was killed), done, stopped or failed; "damaged" where that cannot be read.
        seed: Its seed.
        step: The steps that it has made.
        steps: The steps of its budget.
        time_s: The seconds of training.
        bytes: The size of its folder.
        best: The name of its first figure: the one by which it keeps its best checkpoint, or a headline of its page.
        figures: Its figures by name, those that have a value.
        problem: What is wrong with its files; empty where nothing is.
        recipe: The tables of its recipe.
    """

    path: str
    name: str
    objective: str = ""
    data: str = ""
    status: str = ""
    seed: int | None = None
    step: int | None = None
    steps: int | None = None
    time_s: float | None = None
    bytes: int = 0
    best: str = ""
    figures: Mapping[str, Estimate] = attrs.Factory(dict)
    problem: str = ""
    recipe: Mapping[str, Any] = attrs.field(factory=dict, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON: without the recipe, and with the bare values of figures."""
        table = attrs.asdict(self, recurse=False, filter=attrs.filters.exclude("recipe", "figures"))
        return {**table, "figures": {name: figure.value for name, figure in self.figures.items()}}

    def figure(self, name: str) -> Estimate | None:
        """Return a figure by its name, or by the part of it before a slash: "fid" for "fid/inception-2015"."""
        found = self.figures.get(name)
        return found or next((one for key, one in self.figures.items() if key.partition("/")[0] == name), None)

    def value(self, key: str) -> Any:
        """Return what a key of `--sort` or `--where` means for this run; None where the run has no such thing."""
        if key in FIELDS:
            return getattr(self, key)
        if (figure := self.figure(key)) is not None:
            return figure.value
        table: Any = self.recipe
        for name in key.split("."):
            table = table.get(name) if isinstance(table, Mapping) else None
        return table


def find_runs(folder: Path) -> list[ListedRun]:
    """List the runs in a folder and in the folders within it, by path.

    Raises:
        ConfigError: It is not a folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; expected one that holds runs")
    return [_listed(path) for path in _run_folders(folder)]


def _run_folders(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs; nothing inside a run is another run."""
    for path, folders, files in os.walk(folder):
        if "recipe.toml" in files and ({"summary.json", "metrics.jsonl"} & {*files} or "checkpoints" in folders):
            yield Path(path)
            folders.clear()
        folders.sort()


def _listed(path: Path) -> ListedRun:
    folder, problems = RunFolder(path), list[str]()

    def read(what: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return what()
        except FileError as error:
            problems.append(str(error))
            return otherwise

    recipe = read(folder.read_tables, {})
    summary = read(folder.read_summary, None)
    evaluation = read(folder.read_evaluation, {})
    figures = {
        name: figure for name, figure in figures_of_run(summary, evaluation).figures.items() if figure.value is not None
    }
    train = _table(recipe.get("train"))
    sources = [recipe.get("data"), *_table(recipe.get("sources")).values()]
    return ListedRun(
        path=str(path),
        name=str(recipe.get("name") or path.name),
        objective=str(_table(recipe.get("objective")).get("type", "")),
        data=", ".join(dict.fromkeys(str(_table(table).get("type", "")) for table in sources)),
        status="damaged" if problems and summary is None else summary.status if summary is not None else "running",
        seed=recipe.get("seed"),
        step=summary.step if summary is not None else None,
        steps=_steps(train),
        time_s=summary.wall_s if summary is not None else None,
        bytes=_size(path),
        best=_first_figure(figures, summary.best.metric if summary is not None and summary.best else None),
        figures=figures,
        problem="; ".join(problems),
        recipe=recipe,
    )


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _steps(train: Mapping[str, Any]) -> int | None:
    if isinstance(train.get("steps"), int):
        return int(train["steps"])
    images, batch = train.get("images"), train.get("batch", 128)
    return max(1, images // batch) if isinstance(images, int) and isinstance(batch, int) and batch > 0 else None


def _size(path: Path) -> int:
    total = 0
    for where, _, files in os.walk(path):
        for file in files:
            with contextlib.suppress(OSError):  # a run under way removes its older checkpoints
                total += os.lstat(os.path.join(where, file)).st_size
    return total


def _first_figure(figures: Mapping[str, Estimate], kept_by: str | None) -> str:
    """Choose the figure that is shown: of the best checkpoint, of the page's headlines, or the first of all."""
    if kept_by in figures:
        return str(kept_by)

    def place(name: str) -> tuple[Any, ...]:
        display = figures[name].display
        return not display.headline, display.sort_key(name)

    return min(figures, key=place, default="")


# --- choosing and sorting --------------------------------------------------------------------------------------------


def chosen(runs: Sequence[ListedRun], conditions: Iterable[str]) -> list[ListedRun]:
    """Keep the runs that fulfil every condition, such as "status=stopped", "fid<20" or "train.batch!=128".

    Text may have * and ?. A run that lacks the key fulfils "!=" alone.

    Raises:
        ConfigError: With every condition that cannot be read, or whose key no run has.
    """
    problems, kept = Problems(), list(runs)
    for text in conditions:
        found = _CONDITION.fullmatch(text)
        if found is None:
            problems.add(f"expected KEY=VALUE (or !=, <, >), got {show(text)}", "--where")
            continue
        key, sign, value = (found[name].strip() for name in ("key", "sign", "value"))
        problems += Problems(_unknown(runs, key, "--where"))
        if sign in "<>" and _number(value) is None:
            problems.add(f"{key}{sign}: expected a number, got {show(value)}", "--where")
        kept = [run for run in kept if _fulfils(run.value(key), sign, value)]
    problems.raise_any()
    return kept


def _fulfils(value: Any, sign: str, wanted: str) -> bool:
    if sign in "<>":
        number, bound = _number(value), _number(wanted)
        return number is not None and bound is not None and (number < bound if sign == "<" else number > bound)
    number = _number(wanted)
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    equal = value is not None and (fnmatchcase(text, wanted) or (number is not None and _number(value) == number))
    return equal if sign == "=" else not equal


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def in_order(runs: Sequence[ListedRun], key: str | None) -> list[ListedRun]:
    """Sort runs: by a figure, the best first; by another number, the largest first; by text, in its order.

    Runs that lack the key come last.

    Raises:
        ConfigError: No run has the key.
    """
    if key is None:
        return list(runs)
    if problems := _unknown(runs, key, "--sort"):
        raise ConfigError(problems)
    having = [run for run in runs if run.value(key) is not None]
    figure = next((figure for run in runs if key not in FIELDS and (figure := run.figure(key)) is not None), None)
    if all(_number(run.value(key)) is not None for run in having):
        sign = 1 if figure is not None and figure.better == "lower" else -1
        having.sort(key=lambda run: sign * (_number(run.value(key)) or 0.0))
    else:
        having.sort(key=lambda run: str(run.value(key)))
    return having + [run for run in runs if run.value(key) is None]


def _unknown(runs: Sequence[ListedRun], key: str, option: str) -> Problems:
    problems = Problems()
    if key not in FIELDS and runs and all(run.value(key) is None for run in runs):
        known = [*FIELDS, *dict.fromkeys(name for run in runs for name in run.figures)]
        problems.add(f"no run has {key!r}, a figure or a key of its recipe{suggest(key, known)}", option)
    return problems
