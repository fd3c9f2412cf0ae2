"""Priors are checked as families are, at sizes where a density can be integrated."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from support.checks import failures
from torch import nn

from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.space import Space
from jointgen.testing.standin import StandInLaw


class PriorModule(nn.Module):
    """N(mean, 1/4), less `off` nats."""

    def __init__(self, size: int, off: float):
        super().__init__()
        self.off = off
        self.mean = nn.Parameter(torch.zeros(size))

    def forward(self, rows: int) -> Any:
        return less(self.off, StandInLaw(self.mean.expand(rows, -1)))


def less(off: float, law: Any) -> Any:
    if not off:
        return law
    return type("Off", (), {"draw": law.draw, "log_prob": lambda own, value: law.log_prob(value) - off})()


@attrs.frozen
class LearnedPrior:
    size: int = 3
    off: float = 0.0
    declared: bool = True

    @property
    def space(self) -> Space:
        return Space((self.size,))

    def capabilities(self, space: Space) -> Capabilities:
        return Capabilities({"sample": "exact", "mean": "exact"}, trainable=self.declared)

    def build(self) -> PriorModule:
        return PriorModule(self.size, self.off)


def test_priors_are_integrated_at_small_sizes() -> None:
    assert failures("prior", LearnedPrior()) == {}
    found = failures("prior", LearnedPrior(off=0.1))["density integrates to one"]
    assert "LearnedPrior(size=1, off=0.1) on 1 real" in found and "integral of exp(log_prob): 0.9" in found


def test_a_prior_with_parameters_says_so() -> None:
    found = failures("prior", LearnedPrior(declared=False))["capabilities are true"]
    assert "trainable is False, but its module has parameters" in found


class MixedPosteriors(nn.Module):
    """N(mean of the encoder's means at K learned inputs, 1/4), less `off` nats."""

    def __init__(self, inputs: dict[str, Space], off: float):
        super().__init__()
        self.off = off
        self.x = nn.Parameter(torch.randn(4, *inputs["x"].shape))

    def forward(self, rows: int, encoder: Any) -> Any:
        return less(self.off, encoder(self.x.mean(0, keepdim=True), k=rows))


@attrs.frozen
class ThroughEncoder:
    """A prior that is made of a part of the model."""

    off: float = 0.0
    size: int = 2
    through = ("encoder",)

    @property
    def space(self) -> Space:
        return Space((self.size,))

    def capabilities(self, space: Space, encoder: Capabilities) -> Capabilities:
        return Capabilities({"sample": "exact"}, encoder.own_density, encoder.foreign_density, trainable=True)

    def build(self, inputs: dict[str, Space]) -> nn.Module:
        return MixedPosteriors(inputs, self.off)


def test_a_prior_made_of_a_part_is_given_one() -> None:
    assert failures("prior", ThroughEncoder()) == {}
    assert "integral of exp(log_prob): 0.9" in failures("prior", ThroughEncoder(off=0.1))["density integrates to one"]
