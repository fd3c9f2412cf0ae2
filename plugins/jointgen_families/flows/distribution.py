"""Flow distributions: z = f(z0) for a draw z0 of a diagonal Gaussian q0, log q(z) = log q0(z0) - log|det df/dz0|."""

from __future__ import annotations

import math
from typing import ClassVar, Protocol, cast

import attrs
from torch import Tensor, nn

from jointgen.plugin import Capabilities, DensityKind, NoiseSource, Space, at_least_float32, placing
from jointgen_families.gaussian import DiagonalGaussian, Gaussian
from jointgen_families.location_scale import check_real
from jointgen_families.means import MeanModule
from jointgen_families.precision import without_autocast


class Transform(Protocol):
    """An invertible map of R^D for each of B rows."""

    def forward(self, z0: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(z0), (B, D), and log|det df/dz0|, (B,) nats, for z0 (B, D)."""

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return z0 with f(z0) = z, (B, D), and log|det df/dz0| at z0, (B,) nats, as `forward` gives it."""


class FlowDraw:
    """A draw z = f(z0) that keeps log|det df/dz0|, so that its own density needs no inverse.

    Args:
        distribution: The distribution that makes the draw.
        noise: The noise of the base's draw z0.
    """

    def __init__(self, distribution: FlowDistribution, noise: NoiseSource):
        self._distribution = distribution
        self._z0 = distribution.base.draw(noise).read("sample")
        self._z, self._log_det = distribution.forward(self._z0)

    def read(self, reading: str) -> Tensor:
        """Return "sample", f(z0), or "mean", f(E z0), a central point that is not the expectation of z, (B, *shape)."""
        if reading == "mean":
            return self._distribution.mean
        assert reading == "sample", f"a draw of a flow has no reading {reading!r}"
        return self._z

    def log_prob(self) -> Tensor:
        """Return the log-density at the sample, (B,) nats (Rezende & Mohamed 2015, eq 13)."""
        return self._distribution.base.log_prob(self._z0) - self._log_det


class FlowDistribution:
    """B flows from `base` through `transform`, which sees variables of any shape as vectors.

    They are computed in float32 at least, also under autocast, because a product of K determinants needs it.

    Args:
        base: The Gaussian q0.
        transform: The map f.
    """

    def __init__(self, base: DiagonalGaussian, transform: Transform):
        self.base, self.transform = base, transform

    @property
    def mean(self) -> Tensor:
        """f(E z0), see `FlowDraw.read`, (B, *shape)."""
        return self.forward(self.base.mean)[0]

    def draw(self, noise: NoiseSource) -> FlowDraw:
        """Draw from the base and transform it."""
        return FlowDraw(self, noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density at any points, by the inverse, (B, *shape) -> (B,) nats."""
        with without_autocast(value):
            z0, log_det = self.transform.inverse(at_least_float32(value).flatten(1))
            return self.base.log_prob(z0.view_as(value)) - log_det

    def forward(self, z0: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(z0), (B, *shape), and log|det df/dz0|, (B,)."""
        with without_autocast(z0):
            z, log_det = self.transform.forward(z0.flatten(1))
            return z.view_as(z0), log_det


@attrs.frozen
class Flow:
    """The base of the flow families: the trunk outputs the base's parameters, then the flow's context.

    Args:
        base: The Gaussian that the flow starts from, with the keys of the family "gaussian".
    """

    name: ClassVar[str]
    foreign_density: ClassVar[DensityKind]

    base: Gaussian = attrs.field(factory=Gaussian)

    def context_size(self, size: int) -> int:
        """Return how many numbers the trunk outputs for the flow of a variable of `size` dimensions."""
        raise NotImplementedError

    def flow(self, size: int) -> nn.Module:
        """Build a module that maps the context, (B, C), to the Transform of (B, size)."""
        raise NotImplementedError

    def check(self, space: Space) -> None:
        """Raise ConfigError for a variable that this flow cannot serve."""
        check_real(self.name, space)  # the base would name itself, by a key that its table does not have
        with placing("base"):
            self.base.capabilities(space)

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do; raise ConfigError for a variable that it does not serve."""
        self.check(space)
        return Capabilities({"sample": "exact", "mean": "exact"}, foreign_density=self.foreign_density)

    def outputs(self, space: Space) -> tuple[int, ...]:
        """Return the base's shape, or with a context that of one vector, the base's parameters first."""
        self.check(space)
        base, context = self.base.outputs(space), self.context_size(space.size)
        return (math.prod(base) + context,) if context else base

    def build(self, space: Space) -> nn.Module:
        """Build the module that turns the trunk's output into a distribution."""
        self.check(space)
        return FlowModule(self, space)


class FlowModule(nn.Module):
    """The family's module: (B, *outputs) -> FlowDistribution."""

    def __init__(self, config: Flow, space: Space):
        super().__init__()
        self.base, self.flow = config.base.build(space), config.flow(space.size)
        self.base_shape, self.context_size = config.base.outputs(space), config.context_size(space.size)

    def forward(self, params: Tensor) -> FlowDistribution:
        """Return the distribution of each row."""
        params = at_least_float32(params)
        base, context = params.flatten(1).split([math.prod(self.base_shape), self.context_size], 1)
        with without_autocast(params):
            start = self.base(base.reshape(-1, *self.base_shape))
            return FlowDistribution(start, self.flow(context))

    def start_at(self, mean: Tensor) -> None:
        """Set the base to where the flow leads to `mean`, (*shape), for a zero output of the trunk."""
        base = cast(MeanModule, self.base)
        mean = mean.to(base.offset)
        z0, _ = self.flow(mean.new_zeros(1, self.context_size)).inverse(mean.reshape(1, -1))
        base.start_at(z0.view_as(mean))
