"""Contracts between the core and everything registered: components are configs that build torch modules.

Shape alphabet: B rows, K draws per row, C H W image, Z latent. Everything density-like is (B,) in nats.
A component is an attrs class; its fields are the recipe's keys. Plugins implement these protocols without
inheriting from them. Metrics have contracts of their own, in jointgen.contracts.metrics.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.critics import CriticLoss, Penalty, PointwiseTerm
from jointgen.contracts.networks import Discriminator, Dropout, Follower, Network
from jointgen.contracts.noise import NoiseSource
from jointgen.contracts.sources import DataSource, Rows, labelled
from jointgen.contracts.space import Space

# --- distributions ---------------------------------------------------------------------------------------------------


class Draw(Protocol):
    """One draw of a distribution: several readings of the same noise.

    Optional: ``log_prob()``, (B,) nats, the distribution's density at this draw's sample, where the draw knows it by
    a shorter way than `Distribution.log_prob` (a flow need not be inverted). Its gradient is the whole one, through
    the sample and through the parameters.
    """

    def read(self, reading: str) -> Tensor:
        """(B, *shape). "sample" is the draw itself, made when it was drawn: parameters that move later do not
        change it. The family's Capabilities list the others."""


class Distribution(Protocol):
    """B independent distributions over one variable."""

    def draw(self, noise: NoiseSource) -> Draw:
        """Takes its randomness from `noise` and from nowhere else."""

    def log_prob(self, value: Tensor) -> Tensor:
        """(B, *shape) -> (B,) nats, summed over event dimensions. Only where the family declares a density."""


class Matched(Distribution, Protocol):
    """The Gaussian that has the mean and the variance or covariance of another distribution, without a gradient.

    It holds tensors, and its draws have the readings "sample" and "mean".
    """

    def standardize(self, value: Tensor) -> Tensor:
        """The value in this Gaussian's units, (B, *shape): (value - mean) / scale, N(0, I) for its own draws."""


class FamilyModule(Protocol):
    """What a family builds: an nn.Module that turns the trunk's output into a distribution.

    Optional methods, used where the Capabilities or the plan ask for them:

    - ``start_at(mean)``: called once before training with the data's mean, (*shape), so that a decoder begins there.
    - ``view(reading, draw, noise)``: the `reading` of *observed* data that matches this family's own reading of
      that name (so that a critic sees the same kind of thing on both sides); "sample" and "mean" never come here.
    - on its distributions: ``kl_to(other)`` (B,) nats and ``log_prob_bins(value)`` (B,) nats, the log of the exact
      probability of the quantisation bin that each value lies in; ``moments()``, a Matched.
    """

    def __call__(self, params: Tensor) -> Distribution: ...


# --- components: what a recipe's tables become -----------------------------------------------------------------------


@runtime_checkable
class Family(Protocol):
    """A parametric family of distributions; serves q(z|x) and p(x|z) alike."""

    def capabilities(self, space: Space) -> Capabilities: ...

    def outputs(self, space: Space) -> tuple[int, ...]:
        """Shape (without B) of the parameters that the trunk must output for a variable in `space`."""

    def build(self, space: Space) -> nn.Module:
        """A FamilyModule."""


@runtime_checkable
class Prior(Protocol):
    """A root distribution with a density, p(z).

    Optional attributes of the component:

    - ``family``: the family whose distribution it is, by whose name closed forms are known;
    - ``through``: names of conditional parts that draw the same variable and that it is made of ("encoder", for a
      mixture of posteriors). Then `capabilities` gets their Capabilities after the Space, `build` the Spaces of each
      one's inputs by variable, and the module after the number of rows each one as a callable
      ``part(*inputs, k=1, rows=None) -> Distribution`` (see `ConditionalPart`). A density of the prior asks the parts
      for one at foreign points, and its gradients reach them.

    Optional method of its module: ``start_at_rows(rows)``, called once before training with some rows of data by
    variable, (N, *shape) each.
    """

    @property
    def space(self) -> Space: ...

    def capabilities(self, space: Space) -> Capabilities: ...

    def build(self) -> nn.Module:
        """A module called with the number of rows B that returns a Distribution over B rows."""


# --- helpers every network may use ------------------------------------------------------------------------------------


def sum_event(x: Tensor) -> Tensor:
    """(B, *shape) -> (B,): sums everything but the batch axis."""
    return x.flatten(1).sum(1) if x.ndim > 1 else x


__all__ = [
    "CriticLoss",
    "DataSource",
    "Discriminator",
    "Distribution",
    "Draw",
    "Dropout",
    "Family",
    "FamilyModule",
    "Follower",
    "Matched",
    "Network",
    "Penalty",
    "PointwiseTerm",
    "Prior",
    "Rows",
    "labelled",
    "sum_event",
]
