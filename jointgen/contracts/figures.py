"""Describes the figures that a run reports: value, meaning, and how tables and pages show them. Torch-free.

A figure stands in `summary.json` and `evaluation.json` with all of this, so that a reader needs no metric to show it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import attrs

Bound = Literal["lower", "upper", "exact", "estimate"]
"""How a figure stands to the quantity that it is named for."""
Better = Literal["higher", "lower"]

BOUND_WORDS: Mapping[str | None, str] = {
    None: "",
    "lower": "lower bound",
    "upper": "upper bound",
    "exact": "exact",
    "estimate": "estimate",
}
Group = Literal["likelihood", "reconstruction", "samples", "codes", "other", "cost", "critics"]
"""What a figure is about. Tables and pages show the groups in this order."""


@attrs.frozen
class Display:
    """The way in which tables and pages show a figure.

    It is stored beside the value, so that a reader needs no metric to show it.

    Args:
        title: The heading, such as "IWAE-64"; without one, the figure's name with spaces in place of underscores.
        group: What the figure is about. Figures of "critics" describe one model's own critics, and those of "cost" what
            it took, so that comparisons of models show them only where they are asked for by name.
        order: The place within the group; lower numbers come first, and equal ones are ordered by name.
        headline: Whether the figure is one of the few that a run's page shows at its top.
        nll: Whether the figure estimates or bounds log p(x), of which comparisons show the negative, as papers do.
    """

    title: str = ""
    group: Group = "other"
    order: int = 100
    headline: bool = False
    nll: bool = False

    def heading(self, name: str) -> str:
        """The title, or the figure's name in words where it has none.

        >>> Display("FID, inception").heading("fid/inception"), Display().heading("active_units")
        ('FID, inception', 'active units')
        """
        return self.title or name.replace("_", " ")

    def sort_key(self, name: str) -> tuple[int, int, list[tuple[int, str]]]:
        """Orders figures by group, order and name, with numbers in names by value: iwae_64 before iwae_5000."""
        parts = re.split(r"(\d+)", name)
        natural = [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
        return get_args(Group).index(self.group), self.order, natural


@attrs.frozen
class Estimate:
    """A number as reported: never without its unit, how it was estimated, on which split and over how many rows.

    Args:
        value: The number; None where it does not exist for this model, and `note` then says why.
        unit: Its unit, such as "nats".
        estimator: How it was estimated.
        split: The split, or "draws", that the rows are of.
        n: The number of rows.
        standard_error: The standard error of `value`, where there is one.
        bound: How `value` stands to the quantity that it is named for; None where that is not a question (an FID).
        note: What a reader should know besides.
        protocol: What else must be equal for two figures of one name to be compared.
        better: Which way is better; None where that is not a question.
        display: How tables and pages show it. A figure that an older version wrote has none: it is shown by its name
            and unit, in the group "other", and counts as a log likelihood where it is a bound or an estimate in nats
            of which more is better.
    """

    value: float | None
    unit: str
    estimator: str
    split: str
    n: int = attrs.field(validator=attrs.validators.ge(0))
    standard_error: float | None = None
    bound: Bound | None = None
    note: str = ""
    protocol: str = ""
    better: Better | None = None
    display: Display = attrs.Factory(lambda figure: figure._undisplayed(), takes_self=True)

    def _undisplayed(self) -> Display:
        return Display(nll=self.unit == "nats" and self.bound is not None and self.better == "higher")

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain values, as they stand in `summary.json` and `evaluation.json`."""
        return attrs.asdict(self)

    def describe(self, name: str) -> str:
        """Write the figure as one line: elbo: -101.3 nats +- 0.4 (lower bound; ...; test, n = 10000)."""
        if self.value is None:
            return f"{name}: none ({self.note})"
        error = f" +- {self.standard_error:.2g}" if self.standard_error is not None else ""
        kind = f"{BOUND_WORDS[self.bound]}{', no bound' if self.bound == 'estimate' else ''}; " if self.bound else ""
        return f"{name}: {self.value:.4f} {self.unit}{error} ({kind}{self.estimator}; {self.split}, n = {self.n})"


def table_of(estimates: Mapping[str, Estimate]) -> str:
    """Write a line for each figure."""
    return "\n".join(estimate.describe(name) for name, estimate in estimates.items())
