"""Reads the runs to be compared: their recipes and the figures that they stand for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from jointgen.config.documents import as_document
from jointgen.config.values import show
from jointgen.contracts.data_keys import KeyRole, key_roles
from jointgen.contracts.figures import Display, Estimate
from jointgen.errors import ConfigError, FileError, PluginError, Problem
from jointgen.registry.discovery import load_plugins
from jointgen.reports.run_figures import figures_of_run
from jointgen.runs.folder import RunFolder
from jointgen.runs.records import Summary, describe_progress
from jointgen.runtime.console import log_once

MAY_DIFFER = {
    "name": None,
    "seed": None,
    "train": (
        "device",
        "threads",
        "resident",
        "log_every",
        "sample_every",
        "checkpoint_every",
        "keep_checkpoints",
        "trackers",
    ),
    "eval": ("metrics", "samples"),
}
"""The keys of a recipe that may differ between runs of one row; None: the whole table or value."""

DENSITY_UNITS = ("nats", "bits")
"""The units of figures that depend on how data is read."""
_NEGATED: dict[Any, Any] = {"lower": "upper", "upper": "lower", "higher": "lower"}


@attrs.frozen
class Figure(Estimate):
    """A figure as comparisons show it: of log p(x), its bounds and its estimates, they show the negative (NLL).

    Args:
        name: The figure's name.
        nll: Whether the value is a negative log likelihood.
        observed: How the data was read ("observe = binarise"), for densities: nats of bits and nats of grey levels are
            different quantities.
    """

    name: str = ""
    nll: bool = False
    observed: str = ""

    @classmethod
    def of(cls, name: str, estimate: Estimate, observed: str) -> Figure:
        """Make a figure of one that stands in a run's files; `observed` is how the run's data was read."""
        figure = cls(**attrs.asdict(estimate, recurse=False), name=name)
        if figure.unit in DENSITY_UNITS:
            figure = attrs.evolve(figure, observed=observed)
        if not figure.display.nll:
            return figure
        value = None if figure.value is None else -figure.value
        bound, better = (_NEGATED.get(word, word) for word in (figure.bound, figure.better))
        return attrs.evolve(figure, value=value, bound=bound, better=better, nll=True)


@attrs.frozen(eq=False)
class ComparedRun:
    """A run that is compared.

    Args:
        path: Its folder as the user wrote it.
        recipe: Its resolved recipe.
        figures: The figures that it stands for, by name.
        key_roles: The roles of the keys of its data sources, by source and key.
        doubts: Why its figures should be read with care: it is not finished, or a critic cannot be trusted.
    """

    path: str
    recipe: Mapping[str, Any]
    figures: Mapping[str, Figure]
    key_roles: Mapping[str, Mapping[str, KeyRole]] = attrs.Factory(dict)
    doubts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of its recipe, or else of its folder."""
        return str(self.recipe.get("name") or os.path.basename(os.path.abspath(self.path)))

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.recipe.get("seed", 0))

    def data_keys(self, *roles: KeyRole | None) -> dict[str, Any]:
        """Select the keys of its data sources that have one of these roles (None: no role), by "source.key"."""
        return {
            f"{source}.{key}": value
            for source, table in source_tables(self.recipe).items()
            for key, value in table.items()
            if self.key_roles.get(source, {}).get(key) in roles
        }


def source_tables(recipe: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Collect the tables of a recipe's data sources by the sources' names."""
    return {"data": recipe.get("data", {}), **recipe.get("sources", {})}


def settings_of(recipe: Mapping[str, Any], within: tuple[str, ...] = ()) -> dict[str, Any]:
    """Copy a recipe without what may differ between runs of one row.

    The run whose weights it starts from is replaced by the settings of that run, where it is still there: seeds that
    start from seeds belong in one row.

    Args:
        recipe: The recipe.
        within: The folders of the runs that start from this one, which end a circle.
    """
    kept = {key: value for key, value in recipe.items() if MAY_DIFFER.get(key, ()) is not None}
    for table in ("train", "eval"):
        kept[table] = {k: value for k, value in kept.get(table, {}).items() if k not in (MAY_DIFFER[table] or ())}
    if start := kept["train"].get("init_from"):
        start = {"run": start} if isinstance(start, str) else dict(start)
        folder = os.path.realpath(start["run"])
        if folder not in within:
            with contextlib.suppress(ConfigError):  # a run that is gone is named by its path
                start["run"] = settings_of(_read_recipe(RunFolder(start["run"])), (*within, folder))
        kept["train"]["init_from"] = start
    return kept


def read_runs(paths: Iterable[str]) -> list[ComparedRun]:
    """Read runs. Those that have no figures, as one that is under way, are left out beside others, which is said.

    Args:
        paths: Their folders.

    Raises:
        ConfigError: Some are no runs or given twice, or none has figures; it names all of these problems.
    """
    runs: list[ComparedRun] = []
    problems: list[str | Problem] = []
    bare: list[Problem] = []
    seen: dict[str, str] = {}
    for path in paths:
        real = os.path.realpath(path)
        if real in seen:
            problems.append(f"{path}: is given twice" + ("" if path == seen[real] else f", also as {seen[real]}"))
            continue
        seen[real] = path
        try:
            runs.append(_read_run(path))
        except _BareRunError as error:
            bare += error.problems
        except ConfigError as error:
            problems += error.problems
    if problems or not runs:
        raise ConfigError([*problems, *bare])
    log_once(*(f"left out: {problem}" for problem in bare))
    return runs


class _BareRunError(ConfigError):
    """A run has no figures."""


def _read_run(path: str) -> ComparedRun:
    folder = RunFolder.open(path)
    recipe, summary = _read_recipe(folder), folder.read_summary()
    figures = figures_of_run(summary, folder.read_evaluation()).figures
    if not figures:
        raise _BareRunError(f"{path}: has no figures ({describe_progress(summary)}); find them: jointgen eval {path}")

    run = ComparedRun(path, recipe, {}, _key_roles(recipe, summary), tuple(_doubts(recipe, summary)))
    readings: dict[str, list[str]] = {}
    for key, value in run.data_keys("reading").items():
        readings.setdefault(key.rpartition(".")[2], []).append(str(value))
    observed = "; ".join(f"{key} = {', '.join(values)}" for key, values in readings.items())
    figures = {**figures, **dict(_costs(summary))}
    return attrs.evolve(run, figures={name: Figure.of(name, estimate, observed) for name, estimate in figures.items()})


def _costs(summary: Summary | None) -> Iterable[tuple[str, Estimate]]:
    """Yield what a run took: its time and its parameters, as figures that are asked for by name."""
    if summary is not None and summary.wall_s is not None:
        shown = Display("training time", "cost", 0)
        yield "train_s", Estimate(summary.wall_s, "s", "wall time of training", "", 0, better="lower", display=shown)
    if summary is not None and summary.parameters is not None:
        yield "parameters", Estimate(summary.parameters, "", "of all parts", "", 0, display=Display("", "cost", 1))


@attrs.frozen
class _Tables:
    """The tables of a recipe, as far as comparisons look into them."""

    data: dict[str, Any]
    objective: dict[str, Any]
    train: dict[str, Any]
    eval: dict[str, Any] = attrs.Factory(dict)
    sources: dict[str, dict[str, Any]] = attrs.Factory(dict)
    name: str = ""
    seed: int = 0


def _read_recipe(folder: RunFolder) -> dict[str, Any]:
    """Read a run's recipe without its components, whose plugins need not be here."""
    recipe = folder.read_tables()
    try:
        tables = as_document({key: recipe[key] for key in attrs.fields_dict(_Tables) if key in recipe}, _Tables)
        start = tables.train.get("init_from", "")
        if not isinstance(start["run"] if isinstance(start, dict) and "run" in start else start, str):
            raise ValueError(f"train.init_from: expected the folder of a run, got {show(start)}")
    except ValueError as error:
        raise FileError(folder.recipe, f"is no recipe of a run ({error})") from None
    return recipe


def _key_roles(recipe: Mapping[str, Any], summary: Summary | None) -> Mapping[str, Mapping[str, KeyRole]]:
    """Read the roles of data keys from the summary; without one, asks the data sources, which may import torch."""
    if summary is not None and summary.data_keys is not None:
        return summary.data_keys
    roles = {}
    for source, table in source_tables(recipe).items():
        with contextlib.suppress(ConfigError, PluginError):  # without its plugin, every key decides what the data is
            roles[source] = key_roles(load_plugins().registry.get("data", str(table.get("type"))).load())
    return roles


def _doubts(recipe: Mapping[str, Any], summary: Summary | None) -> Iterable[str]:
    if summary is None or not summary.is_done:
        yield f"not finished ({describe_progress(summary, recipe.get('train', {}).get('steps', '?'))})"
    for name, critic in summary.critics.items() if summary is not None else ():
        if critic.trusted is False:
            yield critic.note or f"critic {name} cannot be trusted"
