"""Columns of a table: which figures are of one kind, in which order they stand, and how they are headed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import attrs

from jointgen.errors import ConfigError, suggest
from jointgen.reports.comparison.runs import Figure, Run

TITLES = {
    "elbo": "ELBO",
    "elbo_matched": "matched ELBO",
    "iwae_*_bits_per_dim": "bits/dim, IWAE-*",
    "iwae_*": "IWAE-*",
    "ais": "AIS",
    "ais_*": "AIS *",
    "exact": "exact",
    "exact_*": "exact, *",
    "bdmc_*": "BDMC, *",
    "elbo_*": "ELBO *",
    "bits_per_dim": "bits/dim",
    "*bits_per_dim": "",
    "rmse*": "RMSE *",
    "psnr*": "PSNR *",
    "ssim*": "SSIM *",
    "reconstruction_*": "reconstruction of *",
    "code_rmse*": "code RMSE *",
    "is/*": "IS, *",
    "is_*": "IS, *",
    "fid/*": "FID, *",
    "fid*": "FID *",
    "kid/*": "KID, *",
    "kid*": "KID *",
    "precision*": "",
    "recall*": "",
    "density*": "",
    "coverage*": "",
    "sw_*": "sliced Wasserstein of *",
    "mmd_*": "MMD of *",
    "kl_qz_pz": "KL(q(z) : p(z))",
    "active_units*": "",
    "probe_*": "* probe",
    "mutual_information": "",
    "rate": "",
    "distortion": "",
}
"""Figures by name, in the order of columns: likelihood, reconstruction, generation, codes; all others come after.

The value is how a figure is headed, the * being what the name has there; by its name where nothing is said.
"""
OF_CRITICS = ("*/positive_log_mean_exp", "*/negative_log_mean_exp", "*/accuracy")
"""Figures of one model's critics, which tell other things apart than another model's: shown where they are named."""
KINDS = {"lower": "lower bound", "upper": "upper bound", "exact": "exact", "estimate": "estimate"}


@attrs.frozen
class Column:
    """What figures have in common that may be compared; see `Figure` for the fields.

    A critic's estimate never is in a bound's column, nor nats of bits beside nats of grey levels.
    """

    name: str
    unit: str = ""
    bound: str | None = None
    split: str = ""
    nll: bool = False
    observed: str = ""

    @classmethod
    def of(cls, figure: Figure) -> Column:
        return cls(figure.name, figure.unit, figure.bound, figure.split, figure.nll, figure.observed)

    @property
    def title(self) -> str:
        own = _title(self.name)
        return f"NLL ({own})" if self.nll else own

    @property
    def kind(self) -> str:
        """Unit, and how the figures stand to what they are named for: "nats, upper bound"."""
        return ", ".join(filter(None, (self.unit, KINDS.get(self.bound or "", ""))))

    @property
    def observation(self) -> str:
        """As recipes say it."""
        return f"observe = {self.observed}" if self.observed else ""

    @property
    def identity(self) -> str:
        """All of it: "NLL elbo [nats, upper bound, test, observe = binarise]"."""
        about = ", ".join(filter(None, (self.kind, self.split, self.observation)))
        return f"{'NLL ' if self.nll else ''}{self.name} [{about}]"

    def holds(self, figure: Figure | None) -> bool:
        return figure is not None and figure.value is not None and Column.of(figure) == self


def choose(runs: Sequence[Run], published: Iterable[Column], names: str | None) -> list[Column]:
    """The columns of the figures that have a value in some run, and of published ones.

    names: only those of these figures, in this order; "rmse, iwae" has every iwae_K, "*fid*" every FID. Without names,
    those OF_CRITICS are left out. Raises ConfigError with every name that no run has a figure of.
    """
    own = dict.fromkeys(Column.of(f) for run in runs for f in run.figures.values() if f.value is not None)
    unheld = [column for column in published if where(column, list(own)) is None]
    found = sorted([*own, *dict.fromkeys(unheld)], key=lambda column: (_place(column.name), _natural(column.name)))
    if names is None:
        return [c for c in found if not any(fnmatchcase(c.name, pattern) for pattern in OF_CRITICS)]
    chosen: dict[Column, None] = {}
    problems = []
    for wanted in (name.strip() for name in names.split(",")):
        exact = [column for column in found if column.name == wanted]
        if meant := exact or [column for column in found if _means(wanted, column.name)]:
            chosen.update(dict.fromkeys(meant))
        else:
            problems.append(f"--metrics: no run has a figure {wanted!r}{suggest(wanted, {c.name for c in found})}")
    if problems:
        raise ConfigError(problems)
    return list(chosen)


def where(published: Column, columns: Sequence[Column]) -> int | None:
    """The place of the column that a published figure belongs in, whatever its split is called."""
    alike = [attrs.evolve(column, split=published.split) for column in columns]
    return alike.index(published) if published in alike else None


def check_alike(columns: Iterable[Column], runs: Sequence[Run], metrics: Iterable[str]) -> list[str]:
    """A line for every column whose figures were made in ways that must not be compared.

    metrics: the names of those that there are, for the advice.
    """
    known = list(metrics)
    return [line for column in columns for line in _check(column, runs, known)]


def _check(column: Column, runs: Sequence[Run], metrics: Sequence[str]) -> Iterable[str]:
    held = [(run, run.figures[column.name]) for run in runs if column.holds(run.figures.get(column.name))]
    for what, ways in (
        ("protocol", [(run, repr(figure.protocol)) for run, figure in held]),
        ("number of rows", [(run, f"n = {figure.n}") for run, figure in held]),
    ):
        by_way: dict[str, list[str]] = {}
        for run, way in ways:
            by_way.setdefault(way, []).append(run.path)
        if len(by_way) > 1:
            told = "; ".join(f"{way} ({', '.join(paths)})" for way, paths in by_way.items())
            yield f"{column.name}: unequal {what}: {told}. {_advice(column.name, metrics)}"


def _advice(name: str, metrics: Sequence[str]) -> str:
    metric = max((m for m in metrics if name == m or name.startswith((f"{m}_", f"{m}/"))), key=len, default=None)
    how = f"jointgen eval RUN --metrics {metric}" if metric else "jointgen eval RUN"
    return f"Make them equal with `{how}` and the same settings on each run, or leave the column out with --metrics"


def _means(wanted: str, name: str) -> bool:
    return name.startswith((f"{wanted}_", f"{wanted}/")) or fnmatchcase(name, wanted)


def _pattern(name: str) -> str | None:
    return next((pattern for pattern in TITLES if fnmatchcase(name, pattern)), None)


def _place(name: str) -> int:
    pattern = _pattern(name)
    return len(TITLES) if pattern is None else list(TITLES).index(pattern)


def _natural(name: str) -> list[tuple[int, str]]:
    """Orders iwae_64 before iwae_5000."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _title(name: str) -> str:
    pattern = _pattern(name)
    if pattern is None or not TITLES[pattern]:
        return name.replace("_", " ")
    head, _, tail = pattern.partition("*")
    rest = name.removeprefix(head).removesuffix(tail).replace("_", " ").strip()
    return TITLES[pattern].replace("*", rest).strip()
