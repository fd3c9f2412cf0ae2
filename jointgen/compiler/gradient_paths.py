"""The ways in which a gradient reaches the parameters of a part: explicitly, or through samples. Torch-free.

The nodes of a plan (`jointgen.compiler.nodes`) say which paths lead from them, given the traits of the parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import attrs

if TYPE_CHECKING:
    from jointgen.objectives.distributions import Conditional
    from jointgen.objectives.values import Argument

GradientPaths = Mapping[str, frozenset[str]]
"""part -> how a gradient reaches its parameters: "explicit", "samples" or both. A part that is absent gets none."""


@attrs.frozen
class PartTraits:
    """The traits of a part that the compiler needs before the part is built.

    Args:
        kind: What sort of part it is.
        paths: By reading of the part's draws ("sample", "mean", ...), whether a gradient flows from the reading to
            the parameters: "none", or the name of the way (see `jointgen.contracts.capabilities`).
        noise_input: How many numbers of noise the network takes as a further input; 0 for none.
        trainable: Whether the part has parameters.
        any_path: Treat every reading as if it had a path. This finds what an objective would train if the families
            allowed it.
        through: The conditionals that a prior is computed with, besides its own parameters.
        input: What the network of a conditional sees in the place of the variables that it is given; () for these.
        values: How many values its draws can take, where a sum over them is possible; 0 where it is not.
        merged: The conditionals whose distributions at the same point a conditional is made of, besides its own trunk.
        batch: How many rows of a data source a step takes; 0 for as many as of others, `train.batch`.
    """

    kind: Literal["data", "prior", "conditional", "critic"]
    paths: Mapping[str, str] = attrs.field(factory=dict)
    noise_input: int = 0
    trainable: bool = True
    any_path: bool = False
    through: tuple[str, ...] = ()
    values: int = 0
    input: tuple[Argument, ...] = ()
    batch: int = 0
    merged: tuple[Conditional, ...] = ()

    def seen(self, given: Sequence[str]) -> tuple[str, ...]:
        """Return the variables that the trunk sees: those that it is given and no merged part is."""
        others = {variable for factor in self.merged for variable in factor.given}
        return tuple(variable for variable in given if variable not in others)

    def has_path(self, reading: str) -> bool:
        """Whether a gradient flows from this reading of a draw to the parameters."""
        return self.any_path or self.paths.get(reading, "none") != "none"


Traits = Mapping[str, PartTraits]
"""The traits of every part, by name."""


def merge_paths(found: Iterable[GradientPaths]) -> GradientPaths:
    """Unite the paths of several values.

    >>> merged = merge_paths([{"encoder": frozenset({"samples"})}, {"encoder": frozenset({"explicit"})}])
    >>> sorted(merged["encoder"])
    ['explicit', 'samples']
    """
    merged: dict[str, frozenset[str]] = {}
    for paths in found:
        for part, ways in paths.items():
            merged[part] = merged.get(part, frozenset()) | ways
    return merged
