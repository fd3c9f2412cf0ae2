"""Studies: files that name recipes, settings and seeds to be trained, scored and compared. Torch-free."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from jointgen.config.fields import valid_count, valid_seed
from jointgen.config.shipped import shipped_recipes
from jointgen.config.structure import structure
from jointgen.config.toml import load_tables, read_toml
from jointgen.errors import ConfigError, Problem, Problems, suggest
from jointgen.registry.components import Registry
from jointgen.text import listed

RECIPE = "recipe"
"""The key of a grid that chooses the recipe itself."""


@attrs.frozen
class Row:
    """A model of a study: a recipe with some keys that differ.

    Args:
        name: Its name in tables.
        set: The settings that differ, as `--set` takes them.
        recipe: Its recipe; None: the study's.
        start: The row whose weights training starts from; it is trained after that row.
        curve: Whether the row is part of the curve.
        table: Whether the row is part of the table.
        seeds: The largest number of seeds.
    """

    name: str
    set: list[str] = attrs.field(factory=list)
    recipe: str | None = None
    start: str | None = None
    curve: bool = False
    table: bool = True
    seeds: int | None = attrs.field(default=None, validator=valid_count)

    @property
    def folder(self) -> str:
        """The beginning of the names of its run folders."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-") or "run"


@attrs.frozen
class Parameter:
    """What a search may choose for a key: one of some values, or a number in a range.

    Args:
        choices: The values.
        low, high: The ends of the range; whole numbers where both are.
        log: Whether the logarithm is searched evenly.
        step: The distance between numbers that are tried.
    """

    choices: list[Any] | None = None
    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None

    def __attrs_post_init__(self) -> None:
        if (self.choices is None) != (self.low is not None and self.high is not None):
            raise ConfigError("give choices, or low and high")
        if self.choices is not None:
            if not self.choices:
                raise ConfigError("must list a value", "choices")
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ConfigError("goes without low, high, log and step", "choices")
        if self.step is not None and not self.step > 0:
            raise ConfigError(f"must be > 0, got {self.step}", "step")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ConfigError(f"must be > low = {self.low}, got {self.high}", "high")
        if self.log and (self.step is not None or (self.low is not None and self.low <= 0)):
            raise ConfigError("goes with low > 0, and without step", "log")


@attrs.frozen
class Search:
    """The table `[search]`: a search for the settings with the best figure, by Optuna's TPE.

    Args:
        metric: The figure, such as "elbo"; it is one of the recipe's evaluations; one of `metrics` alone
            needs `direction`.
        space: What may be chosen, by the recipe's key.
        trials: How many settings are tried.
        direction: What is best; None: what the figure's metric says.
        prune: "median" stops a trial whose figure is, at an evaluation during training, worse than the median of the
            earlier trials there; "none" trains all to the end.
        startup: The first trials, which are chosen at random and not stopped.
        seed: Another search for each seed.
    """

    metric: str
    space: dict[str, Parameter]
    trials: int = attrs.field(default=20, validator=valid_count)
    direction: Literal["maximize", "minimize"] | None = None
    prune: Literal["median", "none"] = "median"
    startup: int = attrs.field(default=5, validator=valid_count)
    seed: int = attrs.field(default=0, validator=valid_seed)


def _one_line(text: str) -> str:
    return " ".join(text.split())


@attrs.frozen
class Study:
    """A study as its file has it. Like a recipe, the file may have a `base`.

    Args:
        name: The name of the file.
        folder: The folder of the file.
        recipe: A file, relative to the study's, or the name of a shipped recipe.
        metrics: What `jointgen eval` evaluates of every run; empty: the recipe's own evaluation is enough.
        columns: The columns of the tables, as `jointgen compare` takes them; empty: all.
        rows: The models by name.
        grid: Values by the key of the recipe; every row is trained with each combination. The key "recipe" chooses
            among recipes.
        search: A search, in place of rows and a grid.
        seeds: So many seeds of each row, from 0 on.
        set: Settings of every run.
        budgets: Further settings, by the name of a budget.
        axes: The pairs of figures of its curves, such as a bound and a distance; in a file one pair may stand alone.
        beside: The row that every other row is compared with.
        published: The published figures to show.
    """

    name: str
    folder: str
    recipe: str = ""
    metrics: str = attrs.field(default="", converter=_one_line)
    columns: str = attrs.field(default="", converter=_one_line)
    rows: dict[str, Row] = attrs.field(factory=dict)
    grid: dict[str, list[Any]] = attrs.field(factory=dict)
    search: Search | None = None
    seeds: int = attrs.field(default=1, validator=valid_count)
    set: list[str] = attrs.field(factory=list)
    budgets: dict[str, list[str]] = attrs.field(factory=dict)
    axes: list[tuple[str, str]] = attrs.field(factory=list)
    beside: str | None = None
    published: str | None = None

    def __attrs_post_init__(self) -> None:
        problems = Problems()
        named: dict[tuple[str, ...], str | None] = {
            ("rows", row.name, "start"): row.start for row in self.rows.values()
        }
        for path, name in {**named, ("beside",): self.beside}.items():
            if name is not None and name not in self.rows:
                problems.add(f"no row {name!r}{suggest(name, self.rows)}", *path)
        if self.search is not None and (self.rows or self.grid or self.seeds > 1):
            problems.add("takes the place of rows, a grid and seeds; leave them out", "search")
        problems += Problems(Problem("lists no value", "grid", key) for key, values in self.grid.items() if not values)
        space: Mapping[str, Any] = self.search.space if self.search is not None else {}
        chosen: dict[str, Mapping[str, Any]] = {"grid": self.grid, "search.space": space}
        for table, keys in chosen.items():
            for key in {"seed", "name"} & keys.keys():
                problems.add("is what tells the runs apart; `seeds` says how many there are", *table.split("."), key)
        problems.raise_any()

    @classmethod
    def read(cls, path: Path, registry: Registry) -> Study:
        """Read a study, with its grid written out as rows. Raises ConfigError with every problem of the file."""
        tables = _tables_of(path)
        try:
            study = structure(_with_names(tables, path), cls, registry).written_out()
            study.check_recipes()
        except ConfigError as error:
            raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from None
        return study

    def written_out(self) -> Study:
        """Return the study with every combination of its grid as a row; one of a single recipe has one row."""
        if self.search is not None:
            return self
        rows = list(self.rows.values()) or [Row("" if self.grid else self.name, curve=bool(self.axes))]
        points = [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]
        written = [_at(row, point) for row in rows for point in points]
        folders = [row.folder for row in written]
        if alike := [row.name for row in written if folders.count(row.folder) > 1]:
            raise ConfigError(f"rows whose runs would share a folder: {listed(map(repr, alike))}")
        return attrs.evolve(self, rows={row.name: row for row in written}, grid={})

    def check_recipes(self) -> None:
        """Raise ConfigError where a row has no recipe, or one that is not there."""
        problems = Problems()
        for row in self.rows.values() or [Row("")]:
            with problems.collect():
                self.recipe_of(row)
        problems.raise_any()

    def recipe_of(self, row: Row) -> Path:
        """Return the path of a row's recipe. Raises ConfigError where it is not there."""
        named = row.recipe or self.recipe
        if not named:
            raise ConfigError("missing; expected a file or the name of a shipped recipe", "recipe")
        if (path := Path(self.folder) / named).is_file():
            return path
        name, shipped = named.removesuffix(".toml"), shipped_recipes()
        if name not in shipped:
            raise ConfigError(
                f"no file {str(path)!r}, and no shipped recipe {name!r}{suggest(name, shipped)}", "recipe"
            )
        return shipped[name]


def _tables_of(path: Path) -> dict[str, Any]:
    """Read the tables of a study with those of its base. The name of a shipped recipe as the base is its recipe."""
    own = read_toml(path)
    base = own.get("base")
    if isinstance(base, str) and base in shipped_recipes() and not (path.parent / base).exists():
        return {RECIPE: base, **{key: value for key, value in own.items() if key != "base"}}
    return load_tables(path)


def _with_names(tables: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Add what a study and its rows take from the names of files and tables, which nothing in them may say."""
    problems, rows = Problems(), tables.get("rows", {})
    for key in ("name", "folder"):
        if key in tables:
            problems.add("unknown key", key)
    if isinstance(rows, Mapping):
        named = {key: row for key, row in rows.items() if isinstance(row, Mapping)}
        problems += Problems(Problem("unknown key", "rows", key, "name") for key, row in named.items() if "name" in row)
        rows = {**rows, **{key: {**row, "name": key} for key, row in named.items()}}
    problems.raise_any()
    axes = tables.get("axes", [])
    if isinstance(axes, list) and axes and all(isinstance(one, str) for one in axes):
        axes = [axes]
    return {**tables, "axes": axes, "rows": rows, "name": path.stem, "folder": str(path.parent)}


def _at(row: Row, point: Mapping[str, Any]) -> Row:
    """Return a row at a point of the grid."""
    recipe = point.get(RECIPE)
    given = {key: value for key, value in point.items() if key != RECIPE}
    words = [row.name, str(recipe).removesuffix(".toml") if recipe is not None else "", point_name(given)]
    return attrs.evolve(
        row,
        name=", ".join(filter(None, words)) or "run",
        recipe=recipe if recipe is not None else row.recipe,
        set=[*row.set, *settings_at(given)],
    )


def point_name(point: Mapping[str, Any]) -> str:
    """Name a point by its keys, each as short as can be.

    >>> point_name({"optimizer.model.lr": 0.1, "optimizer.critics.lr": 0.2, "prior.size": 4})
    'model.lr=0.1, critics.lr=0.2, size=4'
    """
    names = dict[str, str]()
    for key in point:
        parts = key.split(".")
        ends = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        alike = [other for other in point if other != key]
        names[key] = next((end for end in ends if not any(f".{o}".endswith(f".{end}") for o in alike)), key)
    return ", ".join(
        f"{names[key]}={value if isinstance(value, str) else toml_of(value)}" for key, value in point.items()
    )


def settings_at(point: Mapping[str, Any]) -> list[str]:
    """Write a point as settings.

    >>> settings_at({"train.steps": 5, "objective": {"type": "vae", "beta": 0.5}})
    ['train.steps=5', 'objective={type = "vae", beta = 0.5}']
    """
    return [f"{key}={toml_of(value)}" for key, value in point.items()]


def toml_of(value: Any) -> str:
    """Write a value as TOML has it within a line."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key} = {toml_of(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_of, value))}]"
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def settings_of(study: Study, row: Row, seed: int, more: Iterable[str], start: Path | None) -> Iterator[str]:
    """The settings of a run, as `--set` takes them.

    Args:
        study: The study.
        row: The row.
        seed: The seed.
        more: Settings of the command, after the study's own and before the row's.
        start: The run whose weights it starts from.
    """
    yield from study.set
    yield from more
    yield from row.set
    yield f"name={toml_of(row.name)}"
    yield f"seed={seed}"
    if start is not None:
        yield f"train.init_from={toml_of(str(start))}"
