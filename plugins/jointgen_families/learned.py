"""Priors with parameters: any family with learned numbers as its input, and the mixture of posteriors (VampPrior)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs
import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from jointgen.plugin import (
    Capabilities,
    ConfigError,
    Distribution,
    FamilyField,
    NoiseSource,
    PartCall,
    ReadyDraw,
    Space,
    StartsAtMean,
    StartsAtValues,
    placing,
    valid_shape,
    valid_size,
)
from jointgen_families.mixture import Mixture
from jointgen_families.priors import shape_of

# --- any family ------------------------------------------------------------------------------------------------------


@attrs.frozen
class Learned:
    """A prior of any family, whose parameters are learned numbers in place of a network's output.

    The mixture makes a mixture-of-Gaussians prior, the Gaussian one with a learned mean and scale, and a flow makes a
    flow prior. It can do what its family can. With `like` it models the data itself, without a code
    (docs/concepts/no-code.md).

    Args:
        like: The variable whose shape, kind, range and levels it takes in place of a size, such as "x".
        size: The size of the code, a number or a shape such as [8, 4, 4]; 16 unless `like` says it.
        family: A family with a density, of a variable like that.
    """

    like: str = ""
    size: int | list[int] | None = attrs.field()
    family: FamilyField = attrs.field(factory=Mixture)

    @size.default
    def _usual_size(self) -> int | None:
        return None if self.like else 16

    @size.validator
    def _one_of_both(self, attribute: attrs.Attribute[int | list[int] | None], value: int | list[int] | None) -> None:
        if self.like and value is not None:
            raise ValueError(f"'size' must be left out beside like = {self.like!r}, which says it, got {value}")
        if not self.like and value is None:
            raise ValueError("'size' must be given, or a variable that the prior is 'like'")
        if value is not None:
            valid_shape(self, attribute, value)

    def __attrs_post_init__(self) -> None:
        if not self.like:
            try:
                self.capabilities(self.space)
            except ConfigError as error:
                hint = '; a prior that models data has like = "x" in place of a size'
                problem = error.problems[0]
                raise ConfigError(problem.message + hint * bool(problem.path[1:]), *problem.path) from None

    @property
    def space(self) -> Space:
        """The Space of the code; where the prior is like a variable, that variable has it."""
        assert self.size is not None, f"the Space is that of {self.like!r}"
        return Space(shape_of(self.size))

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the prior can do; raise ConfigError where the family cannot be a prior of this variable."""
        with placing("family"):
            can = self.family.capabilities(space)
            if can.own_density == "none" or can.noise_input:
                raise ConfigError("a prior is a distribution with a density, and this family has none")
        return attrs.evolve(can, trainable=True)

    def build(self) -> nn.Module:
        """Build the module that maps a number of rows to a distribution."""
        return self.build_for(self.space)

    def build_for(self, space: Space) -> nn.Module:
        """Build the module for a variable in `space`."""
        return LearnedModule(self, space)


class LearnedModule(nn.Module):
    """The prior's module: a number of rows -> the distribution, repeated. It starts near a zero output."""

    def __init__(self, config: Learned, space: Space):
        super().__init__()
        self.family = config.family.build(space)
        self.output = nn.Parameter(0.01 * torch.randn(1, *config.family.outputs(space)))

    def forward(self, rows: int) -> Distribution:
        """Return the distribution of each row."""
        distribution: Distribution = self.family(self.output.expand(rows, *self.output.shape[1:]))
        return distribution

    def start_at(self, mean: Tensor) -> None:
        """Start at the mean of the data, (*shape), where the prior models data and the family can."""
        if isinstance(self.family, StartsAtMean):
            self.family.start_at(mean)

    def start_at_values(self, values: Tensor) -> None:
        """Start at rows of the data, (N, *shape), where the prior models data and the family can."""
        if isinstance(self.family, StartsAtValues):
            self.family.start_at_values(values)


# --- the mixture of posteriors ---------------------------------------------------------------------------------------


@attrs.frozen
class VampPrior:
    """The mixture of the encoder's posteriors at K learned pseudo-inputs, p(z) = 1/K sum_k q(z|u_k).

    Tomczak & Welling 2018, eq. 9. The pseudo-inputs start at rows of the training data. They stay in the Space of the
    encoder's inputs: bounded values by a sigmoid, labels as soft one-hot vectors by a softmax. A density of B rows
    takes memory O(B K D).

    Args:
        size: The size of the code, as the encoder draws it.
        components: The number of pseudo-inputs K.
        encoder: The name of the part whose posteriors are mixed.
    """

    size: int | list[int] = attrs.field(default=16, validator=valid_shape)
    components: int = attrs.field(default=100, validator=valid_size)
    encoder: str = "encoder"

    @property
    def space(self) -> Space:
        """The Space of the code."""
        return Space(shape_of(self.size))

    @property
    def through(self) -> tuple[str, ...]:
        """The parts that the prior is made of."""
        return (self.encoder,)

    def capabilities(self, space: Space, encoder: Capabilities = Capabilities()) -> Capabilities:  # noqa: B008
        """Return what the prior can do. All components score what one draws, a foreign point for the others."""
        density = encoder.foreign_density
        return Capabilities({"sample": encoder.paths["sample"]}, density, density, trainable=True)

    def build(self, inputs: Mapping[str, Space]) -> nn.Module:
        """Build the module for an encoder with these inputs."""
        return VampModule(self.components, inputs)


class VampModule(nn.Module):
    """The prior's module: (number of rows, encoder) -> VampDistribution.

    `free` holds K unbounded pseudo-inputs of each variable, which `inside` maps into its Space.
    """

    def __init__(self, components: int, inputs: Mapping[str, Space]):
        super().__init__()
        self.inputs = dict(inputs)
        free = {name: nn.Parameter(torch.randn(components, *space.shape)) for name, space in inputs.items()}
        self.free = nn.ParameterDict(free)

    def forward(self, rows: int, encoder: PartCall) -> VampDistribution:
        """Return the distribution of each row."""
        return VampDistribution(self.pseudo_inputs(), encoder, rows)

    def pseudo_inputs(self) -> list[Tensor]:
        """Return the pseudo-inputs, (K, *shape) for each variable that the encoder is given, in order."""
        return [inside(self.free[name], space) for name, space in self.inputs.items()]

    @torch.no_grad()
    def start_at_rows(self, rows: Mapping[str, Tensor]) -> None:
        """Set the pseudo-inputs to rows of data, (N, *shape), spread over them and a little apart where rows repeat."""
        for name, space in self.inputs.items():
            if name in rows:
                free, data = self.free[name], rows[name]
                index = torch.arange(len(free)) * len(data) // len(free)
                free.mul_(0.01).add_(outside(data[index], space))


def inside(free: Tensor, space: Space) -> Tensor:
    """Map any numbers into the Space, (K, *shape)."""
    if space.kind == "label":
        return free.softmax(1)
    bounds = space.range
    return free if bounds is None else bounds[0] + (bounds[1] - bounds[0]) * torch.sigmoid(free)


def outside(values: Tensor, space: Space) -> Tensor:
    """Invert `inside`, up to 1 % from the ends of a range, where a sigmoid still has a slope."""
    if space.kind == "label":
        return values.clamp(min=0.01).log()
    bounds = space.range
    return values if bounds is None else torch.logit((values - bounds[0]) / (bounds[1] - bounds[0]), eps=0.01)


class VampDistribution:
    """The mixture 1/K sum_k q(z|u_k), repeated for each row.

    Args:
        inputs: The pseudo-inputs u, (K, *shape) for each variable that the encoder is given.
        encoder: The part whose posteriors are mixed.
        rows: The number of rows.
    """

    def __init__(self, inputs: list[Tensor], encoder: PartCall, rows: int):
        self._inputs, self._encoder, self._rows = inputs, encoder, rows
        self._components = len(inputs[0])
        self._every: Distribution | None = None

    def draw(self, noise: NoiseSource) -> ReadyDraw:
        """Draw a component for each row, all equally likely, and a point of it.

        The component's own draw is not returned, because it would give the component's density.
        """
        chosen = (noise.uniform() * self._components).long().clamp(max=self._components - 1)
        return ReadyDraw(sample=self._encoder(*self._inputs, rows=chosen).draw(noise).read("sample"))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return logsumexp_k log q(z|u_k) - log K, (B, *shape) -> (B,) nats."""
        every = repeat(value, "b ... -> (k b) ...", k=self._components)
        scores = rearrange(self._posteriors.log_prob(every), "(k b) -> k b", k=self._components)
        return torch.logsumexp(scores, 0) - math.log(self._components)

    @property
    def _posteriors(self) -> Distribution:
        """The posteriors, K * B rows, each component B times; the encoder runs once."""
        if self._every is None:
            self._every = self._encoder(*self._inputs, k=self._rows)
        return self._every
