"""Capabilities: what a family declares that it can do, which is matched against what an objective requires.

Torch-free, so that `jointgen explain` can plan without building anything.
"""

from __future__ import annotations

from typing import Literal

import attrs

DensityKind = Literal["analytic", "numeric", "D passes", "none"]
"""How a log-density is computed: in closed form, by solving equations, one dimension after the other, or not at all."""
PathKind = Literal["exact", "straight-through", "relaxed", "none"]
"""How the gradient of a reading reaches the parameters.

- "exact": the gradient of its expectation, by reparameterisation;
- "straight-through": the gradient of another value, which is biased;
- "relaxed": exact for a continuous stand-in of the discrete value;
- "none": not at all.
"""


@attrs.frozen
class Capabilities:
    """The declared abilities of a family, or of a prior, for a variable in a given Space.

    Args:
        paths: For each reading that a draw offers, how its gradient reaches the parameters. Every draw has the reading
            "sample"; others are "mean", "relaxed" and "smoothed".
        own_density: How the density at its own draws is computed.
        foreign_density: How the density at points that it did not draw is computed.
        kl_to: Names of the families or priors to which it has a KL in closed form, see `ClosedFormKL`.
        bin_mass: Whether it knows the exact probability of a quantisation bin, see `HasBinMass`.
        moments: Whether it knows the mean and the (co)variance of its draws, see `HasMoments`.
        draws: How a draw is made: in one pass of the module, or in one for each of the variable's D numbers in turn.
        trainable: Of a prior, whether its module has parameters of its own, which are then learned.
        values: How many values the variable can take, where the family can list them, see `HasValues`, so that an
            expectation can be summed over them; 0 where it cannot.
        each_density: Whether its density is a product over dimensions that it can score one by one, see
            `ScoresEachDimension`.
        codes: How many vectors its codebook has, where its draws are vectors of one, see `HasCodebook`; 0 without one.
        noise_input: The size of a noise vector eps ~ N(0, I) that the trunk takes as one more input, as implicit
            families do; 0 for none.

    >>> print(Capabilities({"sample": "exact"}, kl_to=("normal",)))
    readings sample (exact); own density analytic; foreign density analytic; KL to normal in closed form
    """

    paths: dict[str, PathKind] = attrs.field(factory=lambda: {"sample": "exact"})
    own_density: DensityKind = "analytic"
    foreign_density: DensityKind = "analytic"
    kl_to: tuple[str, ...] = ()
    bin_mass: bool = False
    noise_input: int = 0
    moments: bool = False
    trainable: bool = False
    values: int = 0
    draws: Literal["one pass", "D passes"] = "one pass"
    each_density: bool = False
    codes: int = 0

    def __str__(self) -> str:
        paths = ", ".join(f"{reading} ({path})" for reading, path in self.paths.items())
        rest = [f"own density {self.own_density}", f"foreign density {self.foreign_density}"]
        if self.kl_to:
            rest.append(f"KL to {', '.join(self.kl_to)} in closed form")
        if self.bin_mass:
            rest.append("exact bin mass")
        if self.moments:
            rest.append("moments of its draws")
        if self.each_density:
            rest.append("a density of each dimension")
        if self.draws != "one pass":
            rest.append(f"draws in {self.draws}")
        if self.codes:
            rest.append(f"a codebook of {self.codes:,} codes")
        if self.values:
            rest.append(f"{self.values:,} values that can be summed over")
        return f"readings {paths}; " + "; ".join(rest)
