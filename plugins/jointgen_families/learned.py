"""Priors with parameters: a family of its own, and the mixture of posteriors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import Capabilities, ConfigError, Distribution, FamilyField, NoiseSource, ReadyDraw, Space, placing
from jointgen_families.mixture import Mixture
from jointgen_families.priors import shape_of, valid_size

Encoder = Callable[..., Distribution]

# --- any family ------------------------------------------------------------------------------------------------------


@attrs.frozen
class Learned:
    """A family whose parameters are learned numbers in the place of a network's output.

    A mixture makes a mixture-of-Gaussians prior, a Gaussian one with a learned mean and scale, a flow a flow prior.
    It can do what its family can.

    size: of the code, a number or a shape such as [8, 4, 4].
    family: of a real variable of that size, with a density.
    """

    size: int | list[int] = attrs.field(default=16, validator=valid_size)
    family: FamilyField = attrs.field(factory=Mixture)

    def __attrs_post_init__(self) -> None:
        with placing("family"):
            can = self.family.capabilities(self.space)
            if can.own_density == "none" or can.noise_input:
                raise ConfigError("a prior is a distribution with a density, and this family has none")

    @property
    def space(self) -> Space:
        return Space(shape_of(self.size))

    def capabilities(self, space: Space) -> Capabilities:
        return attrs.evolve(self.family.capabilities(space), trainable=True)

    def build(self) -> nn.Module:
        return LearnedModule(self)


class LearnedModule(nn.Module):
    """rows -> that many times the one distribution. Starts close to what a zero output gives, not at a saddle of it."""

    def __init__(self, config: Learned):
        super().__init__()
        self.family = config.family.build(config.space)
        self.output = nn.Parameter(0.01 * torch.randn(1, *config.family.outputs(config.space)))

    def forward(self, rows: int) -> Distribution:
        distribution: Distribution = self.family(self.output.expand(rows, *self.output.shape[1:]))
        return distribution


# --- the mixture of posteriors ---------------------------------------------------------------------------------------


@attrs.frozen
class VampPrior:
    """p(z) = 1/K sum_k q(z|u_k), the mixture of the encoder's posteriors at K learned pseudo-inputs (Tomczak & Welling
    2018, eq. 9), which start as rows of the training data spread over it.

    Pseudo-inputs stay in the Space of what the encoder is given, one for each variable: bounded values by a sigmoid,
    labels as soft one-hot vectors by a softmax. A density of B rows takes memory O(B K D).

    size: of the code, as the encoder makes it.
    components: K.
    encoder: the part whose posteriors are mixed.
    """

    size: int | list[int] = attrs.field(default=16, validator=valid_size)
    components: int = attrs.field(default=100, validator=attrs.validators.ge(1))
    encoder: str = "encoder"

    @property
    def space(self) -> Space:
        return Space(shape_of(self.size))

    @property
    def through(self) -> tuple[str, ...]:
        return (self.encoder,)

    def capabilities(self, space: Space, encoder: Capabilities = Capabilities()) -> Capabilities:  # noqa: B008
        """Both densities are the encoder's at foreign points: what one component draws, all the others score."""
        density = encoder.foreign_density
        return Capabilities({"sample": encoder.paths["sample"]}, density, density, trainable=True)

    def build(self, inputs: Mapping[str, Space]) -> nn.Module:
        return VampModule(self.components, inputs)


class VampModule(nn.Module):
    """(rows, encoder) -> VampDistribution. `free`: K pseudo-inputs of each variable, before they are brought inside."""

    def __init__(self, components: int, inputs: Mapping[str, Space]):
        super().__init__()
        self.inputs = dict(inputs)
        free = {name: nn.Parameter(torch.randn(components, *space.shape)) for name, space in inputs.items()}
        self.free = nn.ParameterDict(free)

    def forward(self, rows: int, encoder: Encoder) -> VampDistribution:
        return VampDistribution(self.pseudo_inputs(), encoder, rows)

    def pseudo_inputs(self) -> list[Tensor]:
        """(K, *shape) for each variable that the encoder is given, in order."""
        return [inside(self.free[name], space) for name, space in self.inputs.items()]

    @torch.no_grad()
    def start_at_rows(self, rows: Mapping[str, Tensor]) -> None:
        """Pseudo-inputs begin at rows of data, (N, *shape), spread over them, a little apart where rows come twice."""
        for name, space in self.inputs.items():
            if name in rows:
                free, data = self.free[name], rows[name]
                index = torch.arange(len(free)) * len(data) // len(free)
                free.mul_(0.01).add_(outside(data[index], space))


def inside(free: Tensor, space: Space) -> Tensor:
    """(K, *shape) of any numbers -> values in the Space."""
    if space.kind == "label":
        return free.softmax(1)
    bounds = space.range
    return free if bounds is None else bounds[0] + (bounds[1] - bounds[0]) * torch.sigmoid(free)


def outside(values: Tensor, space: Space) -> Tensor:
    """What `inside` brings to these values, up to 1 % from the ends of a range, where a sigmoid still has a slope."""
    if space.kind == "label":
        return values.clamp(min=0.01).log()
    bounds = space.range
    return values if bounds is None else torch.logit((values - bounds[0]) / (bounds[1] - bounds[0]), eps=0.01)


class VampDistribution:
    """`rows` times 1/K sum_k q(z|u_k); inputs: u, (K, *shape) for each variable that the encoder is given."""

    def __init__(self, inputs: list[Tensor], encoder: Encoder, rows: int):
        self._inputs, self._encoder, self._rows = inputs, encoder, rows
        self._components = len(inputs[0])
        self._every: Distribution | None = None

    def draw(self, noise: NoiseSource) -> ReadyDraw:
        """A component for each row, all equally likely, and a point of it.

        Not that component's own draw: its density is another.
        """
        chosen = (noise.uniform() * self._components).long().clamp(max=self._components - 1)
        return ReadyDraw(sample=self._encoder(*self._inputs, rows=chosen).draw(noise).read("sample"))

    def log_prob(self, value: Tensor) -> Tensor:
        """(B, *shape) -> (B,) nats: logsumexp_k log q(z|u_k) - log K."""
        every = value.repeat(self._components, *[1] * (value.ndim - 1))  # (K * B, *shape)
        scores = self._posteriors.log_prob(every).view(self._components, self._rows)
        return torch.logsumexp(scores, 0) - math.log(self._components)

    @property
    def _posteriors(self) -> Distribution:
        """K * B rows, each component B times; the encoder runs once."""
        if self._every is None:
            self._every = self._encoder(*self._inputs, k=self._rows)
        return self._every
