"""Contracts between the core and everything registered: components are configs that build torch modules.

Shape alphabet: B rows, K draws per row, C H W image, Z latent. Everything density-like is (B,) in nats.
A component is an attrs class; its fields are the recipe's keys. Plugins implement these protocols without
inheriting from them. Metrics have contracts of their own, in jointgen.contracts.metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import attrs
from torch import Tensor, nn

from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.noise import NoiseSource
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError

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
class Network(Protocol):
    """A trunk of an encoder or a decoder."""

    def build(self, inputs: Mapping[str, Space], output: tuple[int, ...]) -> nn.Module:
        """A module called with one (B, *space.shape) tensor per input, in order, that returns (B, *output).

        Raises ConfigError (one line, key relative to this table) for shapes it cannot serve.
        """


@runtime_checkable
class Discriminator(Protocol):
    """A critic's network over the variables of its ratio."""

    def build(self, inputs: Mapping[str, Space]) -> nn.Module:
        """A module called with one (B, *space.shape) tensor per input, in order, that returns (B,) logits or scores."""


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


class Rows(Protocol):
    """An opened split of a data source, held in memory or read on demand.

    Optional, for training splits: ``augment(values, noise)``, stored rows on any device -> raw rows that fit the Spaces
    (flips, crops); and ``stored(index)``, what it takes where that is more than `take` shows. A step takes rows as
    they are stored, on the CPU or from a copy of all of them on the accelerator, and augments them where it trains.
    """

    def __len__(self) -> int: ...

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """Rows by (B,) int64 index: raw tensors by variable (uint8 levels, float vectors, int64 labels)."""


@runtime_checkable
class DataSource(Protocol):
    """Named variables with their Spaces, known without reading data.

    A source that has labels which not every model wants has a field ``labels: bool = False`` that asks for them; they
    are then further variables of the same rows.
    """

    def spaces(self) -> dict[str, Space]: ...

    def open(self, split: str) -> Rows:
        """`split` is "train" or "test". Raises ConfigError naming the path when the data is not there."""


class CriticLoss(Protocol):
    """How a critic is trained: two pointwise expressions of the objective language.

    `is_ratio`: whether the critic's output estimates a log ratio (logistic) or is only a score (Wasserstein, hinge).
    Optional, for scores: ``boundary``, the output above which a critic takes a row for one of the numerator's.
    """

    @property
    def is_ratio(self) -> bool: ...

    def positive(self, f: Any) -> Any:
        """Expr maximised under the ratio's numerator, for example log_sigmoid(f)."""

    def negative(self, f: Any) -> Any:
        """Expr maximised under the ratio's denominator, for example log_sigmoid(-f)."""


class Penalty(Protocol):
    """Subtracted from a critic's objective in its own update.

    Optional: ``weight``, a number or a jointgen.objectives.WeightTable, by which the engine multiplies what the penalty
    returns at each step; 1 where there is none.
    """

    @property
    def every(self) -> int:
        """Computed at every such step (and multiplied by it, so that the average weight is unchanged)."""

    def __call__(
        self, critic: Any, positive: tuple[Tensor, ...], negative: tuple[Tensor, ...], noise: NoiseSource
    ) -> Tensor:
        """(B,), without the weight, from a callable critic(*values) -> (B,) and the values on both sides."""


class PointwiseTerm(Protocol):
    """A registered function of values at a point, such as an l1 distance."""

    def __call__(self, *values: Tensor) -> Tensor:
        """(B, *shape) each -> (B,)."""


# --- helpers every network may use ------------------------------------------------------------------------------------


class Dropout(nn.Module):
    """Dropout whose mask is an argument: the engine hands it named noise before every forward pass in training.

    Use it in place of torch's, which reads a global generator and so depends on the number of processes.
    """

    def __init__(self, p: float):
        super().__init__()
        assert 0.0 <= p < 1.0, f"dropout rate {p} is not in [0, 1)"
        self.p = p
        self.noise: NoiseSource | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        assert self.noise is not None, "a training forward pass must go through the engine, which names the noise"
        keep = self.noise.uniform(*x.shape[1:]).to(x.dtype) >= self.p
        return x * keep / (1.0 - self.p)


@runtime_checkable
class Follower(Protocol):
    """A parametrization (torch.nn.utils.parametrize) with buffers that follow its tensor, such as a power iteration's.

    Buffers that a forward pass moved would depend on how many passes there are, in how many micro-batches.
    """

    def follow(self, original: Tensor) -> None:
        """Called once after every update of the tensor, as it stands before it is parametrized."""


def labelled(source: Any) -> Any:
    """The source with its labels, where it can give any; otherwise as it is."""
    if getattr(source, "labels", None) is not False:
        return source
    asked = attrs.evolve(source, labels=True)
    try:
        asked.spaces()
    except ConfigError:  # this data has none
        return source
    return asked


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
