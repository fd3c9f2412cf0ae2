"""Distributions, and the families and priors that build them.

A recipe's table becomes a *component*: an attrs class whose fields are the table's keys, such as `Family` or `Prior`.
A component builds a torch module, and the module, when called, returns a `Distribution` over the rows of a batch.
A component implements these protocols without inheriting from them.

Shapes: B is the number of rows and ``*shape`` the shape of the variable without the batch axis. A log-density is
``(B,)``, in nats.

What only some families can do has a protocol of its own, such as `ClosedFormKL`. The `Capabilities` say which ones a
family has, so that jointgen can refuse an objective before anything is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.noise import NoiseSource
from jointgen.contracts.space import Space

# --- draws -----------------------------------------------------------------------------------------------------------


class Draw(Protocol):
    """One draw of a distribution, offered as several readings of the same noise."""

    def read(self, reading: str) -> Tensor:
        """Return one reading of the draw.

        Args:
            reading: "sample", which every draw has, or another reading that the family's Capabilities list.

        Returns:
            The values, (B, *shape). The sample is fixed when it is drawn: parameters that change later do not change
            it.
        """


@runtime_checkable
class ScoredDraw(Draw, Protocol):
    """A draw that knows its own log-density by a shorter way than `Distribution.log_prob`.

    A flow, for example, need not be inverted at a point that it has just drawn.
    """

    def log_prob(self) -> Tensor:
        """Return the log-density at the sample, (B,) nats.

        Its gradient is the total one: through the sample and through the parameters.
        """


class ReadyDraw:
    """A draw whose readings are all computed when it is drawn.

    Args:
        readings: The values of each reading by its name, (B, *shape) each.

    >>> import torch
    >>> draw = ReadyDraw(sample=torch.tensor([[1.5]]), mean=torch.tensor([[1.0]]))
    >>> draw.read("mean")
    tensor([[1.]])
    """

    def __init__(self, **readings: Tensor):
        self._readings = readings

    def read(self, reading: str) -> Tensor:
        """Return the reading, (B, *shape)."""
        assert reading in self._readings, f"this draw has the readings {sorted(self._readings)}, not {reading!r}"
        return self._readings[reading]


# --- distributions ---------------------------------------------------------------------------------------------------


class Distribution(Protocol):
    """B independent distributions over one variable."""

    def draw(self, noise: NoiseSource) -> Draw:
        """Draw once from each of the B distributions.

        Args:
            noise: The only source of randomness that a draw may use; it has B rows.
        """

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density, summed over the variable's dimensions.

        Only families that declare a density have this method.

        Args:
            value: The points, (B, *shape).

        Returns:
            (B,) nats.
        """


@runtime_checkable
class HasDensity(Protocol):
    """A distribution with a log-density, as distinct from an implicit one, which can only be drawn from."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at `value`, (B, *shape) -> (B,) nats."""


@runtime_checkable
class ClosedFormKL(Protocol):
    """A distribution with a KL divergence in closed form; its family declares ``kl_to``."""

    def kl_to(self, other: Distribution) -> Tensor:
        """Return KL(self || other), (B,) nats, for a distribution of a family that ``kl_to`` names."""


@runtime_checkable
class HasBinMass(Protocol):
    """A distribution that knows the exact probability of a quantisation bin; its family declares ``bin_mass``."""

    def log_prob_bins(self, value: Tensor) -> Tensor:
        """Return the log-probability of the bin that each value lies in, (B, *shape) -> (B,) nats."""


@runtime_checkable
class ScoresEachDimension(Protocol):
    """A distribution of independent dimensions; its family declares ``each_density``."""

    def log_prob_each(self, value: Tensor) -> Tensor:
        """Return the log-density of every dimension, (B, *shape) -> (B, *shape) nats; it sums to ``log_prob``."""


@runtime_checkable
class HasMoments(Protocol):
    """A distribution that knows its mean and its (co)variance; its family declares ``moments``."""

    def moments(self) -> MatchedGaussian:
        """Return the Gaussian with the same mean and (co)variance, without a gradient."""


@runtime_checkable
class HasValues(Protocol):
    """A distribution over finitely many values, which it can list; its family declares how many as ``values``."""

    def values(self) -> Tensor:
        """Return every value that the variable can take, (C, *shape), the same ones in every row and at every call.

        `Distribution.log_prob` gives the probability of each, and the C probabilities of a row have the sum 1.
        """


@runtime_checkable
class HasCodebook(Protocol):
    """A distribution whose draws are vectors of a codebook; its family declares how many there are as ``codes``."""

    def nearest(self) -> Tensor:
        """Return the number of the vector that is drawn at each of a row's P positions, (B, P) int64, from 0."""


class MatchedGaussian(Distribution, Protocol):
    """The Gaussian that has the mean and the variance or covariance of another distribution.

    It carries no gradient to the other distribution's parameters. Its draws have the readings "sample" and "mean".
    Adaptive contrast compares with it (Mescheder et al., ICML 2017, section 3.3).
    """

    def standardize(self, value: Tensor) -> Tensor:
        """Return (value - mean) / scale, (B, *shape) -> (B, *shape): N(0, I) for this Gaussian's own draws."""


def log_prob_of_draw(distribution: Distribution, draw: Draw) -> Tensor:
    """Return the log-density of a draw under the distribution that made it, (B,) nats.

    The draw answers where it is a `ScoredDraw`, and its distribution otherwise.
    """
    # not isinstance(draw, ScoredDraw): that takes 10 us in every step, and torch.compile cannot trace it
    if hasattr(draw, "log_prob"):
        own: Tensor = draw.log_prob()
        return own
    return distribution.log_prob(draw.read("sample"))


# --- families --------------------------------------------------------------------------------------------------------


class FamilyModule(Protocol):
    """The torch module that a family builds: it turns the trunk's output into a distribution."""

    def __call__(self, params: Tensor) -> Distribution:
        """Return B distributions from the trunk's output, (B, *outputs)."""


@runtime_checkable
class StartsAtMean(Protocol):
    """A family module that can start at the mean of the data, so that a decoder begins there."""

    def start_at(self, mean: Tensor) -> None:
        """Set the module so that a zero output of the trunk gives this mean, (*shape).

        Called once before training, for a part that models a variable of the data.
        """


@runtime_checkable
class StartsAtValues(Protocol):
    """A module, of a family or of a prior, that can start at rows of the data that it models."""

    def start_at_values(self, values: Tensor) -> None:
        """Set the module from rows of its variable without the noise of observing them, (N, *shape).

        Called once before training, after `StartsAtMean.start_at`, for a part that models a variable of the data.
        """


@runtime_checkable
class ViewsData(Protocol):
    """A family module that can show *observed* data in the family's own readings.

    A critic that names such a reading then sees the same kind of values on both sides of its ratio.
    """

    def view(self, reading: str, draw: Draw, noise: NoiseSource) -> Tensor:
        """Return observed data as `reading`, (B, *shape).

        Called in each step for a critic that sees this reading.

        Args:
            reading: A reading of the family other than "sample" and "mean", which observed data has anyway.
            draw: The observed data, with the readings "sample" and "mean".
            noise: The only source of randomness that the view may use.
        """


@runtime_checkable
class Family(Protocol):
    """A parametric family of distributions, for encoders q(z|x) and decoders p(x|z) alike."""

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do for a variable in `space`.

        Raises:
            ConfigError: The family does not serve such a variable. The message is one line, and the key in it is
                relative to the family's table.
        """

    def outputs(self, space: Space) -> tuple[int, ...]:
        """Return the shape, without the batch axis, of the parameters that the trunk must output."""

    def build(self, space: Space) -> nn.Module:
        """Return a `FamilyModule` for a variable in `space`."""


@runtime_checkable
class FamilyThroughParts(Protocol):
    """A family that merges the trunk's output with the distributions of other parts at the same point.

    A ladder's q(z1|x,z2) is made through p(z1|z2). The trunk then sees only what these parts are not given: x. The
    gradient of a density or a draw reaches their parameters, too. The family's module is called with the trunk's
    output and a `Distribution` of each part.
    """

    @property
    def merged_parts(self) -> tuple[str, ...]:
        """The names of the parts, which draw the same variable and are given less."""

    def check_merged(self, families: Sequence[Family]) -> None:
        """Raise ConfigError where it cannot merge distributions of these families, one for each part."""


# --- priors ----------------------------------------------------------------------------------------------------------


@runtime_checkable
class Prior(Protocol):
    """A distribution p(z) without inputs, at the root of a joint."""

    @property
    def space(self) -> Space:
        """The Space of the variable that the prior draws. Where data has the variable too, the data's levels count."""

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the prior can do for a variable in `space`."""

    def build(self) -> nn.Module:
        """Return a module that maps a number of rows B to a `Distribution` over B rows."""


@runtime_checkable
class PriorOfVariable(Protocol):
    """A prior that can take the Space of a variable in place of one of its own, to model the data itself.

    Such a prior has no `build()` of its own: it is built for the Space that its variable has in the recipe, which is
    that of the data where the data has the variable too.
    """

    @property
    def like(self) -> str:
        """The variable whose Space it takes; "" where it has one of its own."""

    def build_for(self, space: Space) -> nn.Module:
        """Return the module that `Prior.build` returns, for a variable in `space`."""


@runtime_checkable
class PriorOfFamily(Protocol):
    """A prior that is a family with parameters of its own, by whose name closed-form KLs are found."""

    @property
    def family(self) -> Family:
        """The family whose distribution the prior is."""


@runtime_checkable
class PriorThroughParts(Protocol):
    """A prior that is made of conditional parts which draw the same variable, such as a mixture of posteriors.

    A density of the prior needs the density of these parts at points that they did not draw, and the gradients of
    the prior reach them.
    """

    @property
    def through(self) -> tuple[str, ...]:
        """The names of the parts, such as ``("encoder",)``."""

    def capabilities(self, space: Space, *parts: Capabilities) -> Capabilities:
        """Return what the prior can do, given what each of the parts can do."""

    def build(self, *inputs: Mapping[str, Space]) -> nn.Module:
        """Return the prior's module.

        Args:
            inputs: For each part, the Spaces of its inputs by variable.

        Returns:
            A module called with the number of rows B and then with each part as a `PartCall`; it returns a
            `Distribution` over B rows.
        """


class PartCall(Protocol):
    """A conditional part as a prior calls it."""

    def __call__(self, *inputs: Tensor, k: int = 1, rows: Tensor | None = None) -> Distribution:
        """Return the part's distributions at these inputs.

        Args:
            inputs: One tensor for each variable that the part is given, (N, *shape).
            k: How often each row's distribution is repeated: N * k distributions.
            rows: In place of `k`, the rows to return, (M,) int64, any number of times each: M distributions.
        """


@runtime_checkable
class StartsAtRows(Protocol):
    """A prior's module that can start at rows of data, as the pseudo-inputs of a VampPrior do."""

    def start_at_rows(self, rows: Mapping[str, Tensor]) -> None:
        """Set the module from rows of data by variable, (N, *shape) each. Called once before training."""


# --- helpers ---------------------------------------------------------------------------------------------------------


def sum_event(x: Tensor) -> Tensor:
    """Sum over everything but the batch axis, (B, *shape) -> (B,).

    >>> import torch
    >>> sum_event(torch.ones(2, 3, 4))
    tensor([12., 12.])
    """
    return x.flatten(1).sum(1) if x.ndim > 1 else x
