"""What is compared: the figures of finished runs, as they stand in their folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import attrs

from jointgen.config.toml import read_toml
from jointgen.errors import ConfigError
from jointgen.reports.run_figures import figures_of_run
from jointgen.runs.folder import RunFolder

UNTRAINED = {
    "name": None,
    "seed": None,
    "train": ("device", "threads", "resident", "log_every", "sample_every", "checkpoint_every", "keep_checkpoints"),
    "eval": ("metrics", "samples"),
}
"""Keys of a recipe that may differ between runs of one row (None: the whole key), `train.trackers` besides."""

DENSITIES = ("nats", "bits")  # units of figures that depend on how data is read
_TURNED: dict[Any, Any] = {"lower": "upper", "upper": "lower", "higher": "lower"}


@attrs.frozen
class Figure:
    """A number that a run reported; the fields are jointgen.contracts.statistics.Estimate's, and two more.

    nll: whether it is -log p(x).  observed: how the data was read ("binarise"), of densities; nats of bits and nats of
    grey levels are different things.
    """

    name: str
    value: float | None
    unit: str = ""
    estimator: str = ""
    split: str = ""
    n: int = 0
    standard_error: float | None = None
    bound: Literal["lower", "upper", "exact", "estimate"] | None = None
    note: str = ""
    protocol: str = ""
    better: Literal["higher", "lower"] | None = None
    nll: bool = False
    observed: str = ""

    @classmethod
    def of(cls, name: str, fields: Mapping[str, Any], observed: str) -> Figure:
        """As tables show it: of log p(x), a bound on it or an estimate of it, the negative (NLL).

        observed: how the run's data is read, which densities depend on.
        """
        known = {field.name for field in attrs.fields(cls)} - {"name", "nll", "observed"}
        figure = cls(name, **{key: value for key, value in fields.items() if key in known})
        figure = attrs.evolve(figure, observed=observed if figure.unit in DENSITIES else "")
        return figure._turned() if figure._is_log_likelihood() else figure

    def _is_log_likelihood(self) -> bool:
        bounded = self.bound is not None and self.better == "higher"
        return self.unit == "nats" and (bounded or self.name.startswith("elbo"))

    def _turned(self) -> Figure:
        value = None if self.value is None else -self.value
        bound, better = _TURNED.get(self.bound, self.bound), _TURNED.get(self.better, self.better)
        return attrs.evolve(self, value=value, bound=bound, better=better, nll=True)


@attrs.frozen(eq=False)
class Run:
    """One run: its folder as the user wrote it, its resolved recipe, figures by name, and what is to be said of it.

    doubts: why its figures should be read with care (it is not finished, a critic cannot be trusted).
    """

    path: str
    recipe: dict[str, Any]
    figures: dict[str, Figure]
    doubts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.recipe.get("name") or os.path.basename(os.path.abspath(self.path)))

    @property
    def seed(self) -> int:
        return int(self.recipe.get("seed", 0))

    @property
    def data(self) -> dict[str, Any]:
        """The tables of its data sources, by part."""
        return {"data": self.recipe.get("data", {}), **self.recipe.get("sources", {})}

    def settings(self) -> dict[str, Any]:
        """See `settings_of`."""
        return settings_of(self.recipe)


def settings_of(recipe: Mapping[str, Any], within: tuple[str, ...] = ()) -> dict[str, Any]:
    """A recipe but for what may differ between the runs of one row.

    A run whose weights it starts with, where it is still there, is named by its own settings, not by its folder: seeds
    that start from seeds are one row. within: folders of the runs that start from this one.
    """
    kept = {key: value for key, value in recipe.items() if UNTRAINED.get(key, ()) is not None}
    for table in ("train", "eval"):
        apart = (*(UNTRAINED[table] or ()), "trackers")
        kept[table] = {key: value for key, value in kept.get(table, {}).items() if key not in apart}
    if asked := kept["train"].get("init_from"):
        more = {"run": asked} if isinstance(asked, str) else dict(asked)
        kept["train"]["init_from"] = {**more, "run": _origin(more["run"], within)}
    return kept


def _origin(path: str, within: tuple[str, ...]) -> dict[str, Any] | str:
    real = os.path.realpath(path)
    if real in within:
        return path
    try:
        return settings_of(read_toml(RunFolder(path).recipe), (*within, real))
    except ConfigError:
        return path


def read_runs(paths: Iterable[str]) -> list[Run]:
    """Raises ConfigError with every problem: what is no run, what has no figures, what is given twice."""
    found, problems = [], []
    seen: dict[str, str] = {}
    for path in paths:
        real = os.path.realpath(path)
        if real in seen:
            problems.append(f"{path}: is given twice" + ("" if path == seen[real] else f", also as {seen[real]}"))
            continue
        seen[real] = path
        try:
            found.append(_read(path))
        except ConfigError as error:
            problems += error.lines
    if problems:
        raise ConfigError(problems)
    return found


def _read(path: str) -> Run:
    folder = RunFolder.open(path)
    recipe = read_toml(folder.recipe)
    summary = folder.read_summary()
    figures = _figures(folder, summary, recipe)
    if not figures:
        status = f"status {summary['status']}" if "status" in summary else "no summary.json that can be read"
        raise ConfigError(f"{path}: has no figures ({status}); find them: jointgen eval {path}")
    return Run(path, recipe, figures, tuple(_doubts(recipe, summary)))


def _figures(folder: RunFolder, summary: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Figure]:
    found = figures_of_run(summary, folder.read_evaluation()).figures
    sources = [recipe.get("data", {}), *recipe.get("sources", {}).values()]
    observed = ", ".join(str(table["observe"]) for table in sources if "observe" in table)
    return {name: Figure.of(name, fields, observed) for name, fields in found.items()}


def _doubts(recipe: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterable[str]:
    if summary.get("status") != "done":
        total = recipe.get("train", {}).get("steps", "?")
        yield f"not finished (status {summary.get('status', 'unknown')}, step {summary.get('step', '?')} of {total})"
    for name, critic in summary.get("critics", {}).items():
        if critic.get("trusted") is False:
            yield critic.get("note") or f"critic {name} cannot be trusted"
