"""What a family declares that it can do; matched against what an objective requires. Torch-free."""

from __future__ import annotations

from typing import Literal

import attrs

DensityKind = Literal["analytic", "numeric", "D passes", "none"]
PathKind = Literal["exact", "straight-through", "relaxed", "none"]


@attrs.frozen
class Capabilities:
    """Declared abilities of a family on a given Space.

    paths: for each *reading* that a draw offers, how its gradient reaches the parameters.
        Every draw has the reading "sample"; others are "mean", "relaxed" and "smoothed".
    own_density: can it score its own draws?  foreign_density: and points that it did not draw?
    kl_to: names of the families or priors to which it has KL in closed form.
    bin_mass: has it the exact probability of a quantisation bin (`log_prob_bins`)?
    moments: has it the mean and (co)variance of its draws (`moments`), as adaptive contrast needs?
    noise_input: size of the noise vector eps that the trunk takes as one more input (implicit families); 0: none.
    """

    paths: dict[str, PathKind] = attrs.field(factory=lambda: {"sample": "exact"})
    own_density: DensityKind = "analytic"
    foreign_density: DensityKind = "analytic"
    kl_to: tuple[str, ...] = ()
    bin_mass: bool = False
    noise_input: int = 0
    moments: bool = False

    def __str__(self) -> str:
        paths = ", ".join(f"{reading} ({how})" for reading, how in self.paths.items())
        rest = [f"own density {self.own_density}", f"foreign density {self.foreign_density}"]
        if self.kl_to:
            rest.append(f"KL to {', '.join(self.kl_to)} in closed form")
        if self.bin_mass:
            rest.append("exact bin mass")
        if self.moments:
            rest.append("moments of its draws")
        return f"readings {paths}; " + "; ".join(rest)
