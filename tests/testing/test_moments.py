"""Every check of moments can fail: Gaussians of a mean and a covariance that are not the draws', or not their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from jointgen_families.correlated import CorrelatedGaussian
from jointgen_families.gaussian import DiagonalGaussian, Gaussian
from jointgen_families.location_scale import LocationScaleModule
from support.checks import failures
from torch import Tensor, nn

from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.space import Space

LINE, PLANE = Space((1,)), Space((2,))


@attrs.frozen
class WithMoments(Gaussian):
    """The Gaussian family with `moments` replaced by a function of the distribution."""

    of: Callable[[DiagonalGaussian], Any] = DiagonalGaussian.moments
    declared: bool = True

    def capabilities(self, space: Space) -> Capabilities:
        return attrs.evolve(super().capabilities(space), kl_to=(), moments=self.declared)

    def build(self, space: Space) -> nn.Module:
        law = type("Law", (DiagonalGaussian,), {"moments": lambda law: self.of(law)})
        return LocationScaleModule(self, space, law)


def moved(mean: float = 0.0, log_scale: float = 0.0, **methods: Any) -> Callable[[DiagonalGaussian], Any]:
    """Its own moments with these added, and with methods of the Gaussian replaced."""
    cls: Any = type("Moved", (DiagonalGaussian,), methods)
    return lambda law: cls(law.mean.detach() + mean, law.log_scale.detach() + log_scale, law.space)


def correlated(law: DiagonalGaussian) -> CorrelatedGaussian:
    rho = torch.tensor([[1.0, 0.6], [0.6, 1.0]], dtype=law.mean.dtype).expand(len(law.mean), -1, -1)
    return CorrelatedGaussian(law.mean.detach(), law.log_scale.detach(), rho, law.space)


def half(self: DiagonalGaussian, value: Tensor) -> Tensor:
    return 0.5 * DiagonalGaussian.log_prob(self, value)


def summed(self: DiagonalGaussian, value: Tensor) -> Tensor:
    return DiagonalGaussian.log_prob(self, value).sum()


def wide(self: DiagonalGaussian, noise: Any) -> Any:
    return DiagonalGaussian(self.mean, self.log_scale + 0.2, self.space).draw(noise)


NUMBERS = "moments are numbers without a gradient"
DRAWS = "moments are those of many draws"
UNITS = "moments are a gaussian in its own units"

FAULTS: dict[str, tuple[Callable[[DiagonalGaussian], Any], str, str]] = {
    "moments with a gradient": (lambda law: law, NUMBERS, "has a gradient to offset; moments are numbers"),
    "a density of the batch": (moved(log_prob=summed), NUMBERS, "log_prob(value) of 5 rows has shape ()"),
    "units that are cut from the value": (
        moved(standardize=lambda self, value: DiagonalGaussian.standardize(self, value.detach())),
        NUMBERS,
        "standardize(value) of 5 rows has no gradient to the value",
    ),
    "another mean": (moved(mean=0.3), DRAWS, "mean of 8000 draws and of their moments()"),
    "another variance": (moved(log_scale=0.1), DRAWS, "variance of 8000 draws in the units of their moments()"),
    "correlations that are not there": (correlated, DRAWS, "covariance of 8000 draws in the units of their moments()"),
    "a density of another scale": (moved(log_prob=half), UNITS, "log_prob of moments(), and log N(u; 0, I) + log|det"),
    "draws of another scale": (moved(draw=wide), UNITS, "variance of 8000 draws of moments() in its own units"),
}


def test_moments_that_are_right_pass() -> None:
    assert failures("family", WithMoments(), spaces=[LINE, PLANE]) == {}


@pytest.mark.parametrize("fault", FAULTS)
def test_moments_that_break_a_promise_are_told_which(fault: str) -> None:
    of, promise, message = FAULTS[fault]
    assert message in failures("family", WithMoments(of=of), spaces=[PLANE])[promise]


def test_moments_that_are_not_declared_are_not_asked_for() -> None:
    assert failures("family", WithMoments(of=lambda law: law, declared=False), spaces=[LINE]) == {}
