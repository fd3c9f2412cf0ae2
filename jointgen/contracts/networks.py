"""Networks: trunks of encoders and decoders, critics' networks, and the dropout that they use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from jointgen.contracts.noise import NoiseSource
from jointgen.contracts.space import Space


@runtime_checkable
class Network(Protocol):
    """The trunk of an encoder or a decoder."""

    def build(self, inputs: Mapping[str, Space], output: tuple[int, ...]) -> nn.Module:
        """Return the trunk's module.

        Args:
            inputs: The Spaces of the variables that the trunk sees, by name, in the order of the module's arguments.
            output: The shape of its output without the batch axis, which its family asks for.

        Returns:
            A module called with one (B, *space.shape) tensor for each input that returns (B, *output).

        Raises:
            ConfigError: The network cannot serve these shapes. The message is one line, and the key in it is
                relative to the network's table.
        """


@runtime_checkable
class Discriminator(Protocol):
    """The network of a critic."""

    def build(self, inputs: Mapping[str, Space]) -> nn.Module:
        """Return the critic's module.

        Args:
            inputs: The Spaces of the variables of its ratio, by name, in the order of the module's arguments.

        Returns:
            A module called with one (B, *space.shape) tensor for each input that returns (B,) log-ratios or scores.

        Raises:
            ConfigError: As `Network.build` raises it.
        """


@runtime_checkable
class OffersFeatures(Protocol):
    """A network whose module has `features`: it shows what its layers make of its inputs.

    `features(*inputs)` of the module (of an encoder or decoder: of its trunk) takes what the module is called with and
    returns the activations of its layers in order, (B, ...) each. Rows do not mix. The last are what the output is
    computed from.
    """

    @property
    def feature_layers(self) -> int:
        """How many layers `features` shows, at the most."""


class NoisyLayer(nn.Module):
    """A layer that draws at random while it trains, from noise that the engine names before every forward pass.

    A module that draws from a global generator instead makes a run depend on the number of processes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.noise: NoiseSource | None = None

    @property
    def is_noisy(self) -> bool:
        """Whether it draws at all, with its settings."""
        return True

    def named_noise(self) -> NoiseSource:
        """Return the noise of this forward pass, which has as many rows as its inputs."""
        assert self.noise is not None, "a training forward pass must go through the engine, which names the noise"
        return self.noise


def noisy_layers(module: nn.Module) -> list[NoisyLayer]:
    """Return the layers of a module, itself included, that draw while they train."""
    return [inner for inner in module.modules() if isinstance(inner, NoisyLayer)]


class Dropout(NoisyLayer):
    """Dropout whose mask comes from named noise, which the engine provides before every forward pass in training.

    Use it in place of torch.nn.Dropout, which reads a global generator: a run would then depend on the number of
    processes.

    Args:
        p: The probability that an entry is set to zero, in [0, 1). The others are divided by 1 - p.
    """

    def __init__(self, p: float):
        super().__init__()
        assert 0.0 <= p < 1.0, f"dropout rate {p} is not in [0, 1)"
        self.p = p

    @property
    def is_noisy(self) -> bool:
        """Whether anything is dropped."""
        return self.p > 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Drop entries of x, (B, ...), while training."""
        if not self.training or self.p == 0.0:
            return x
        keep = self.named_noise().uniform(*x.shape[1:]).to(x.dtype) >= self.p
        return x * keep / (1.0 - self.p)


@runtime_checkable
class Follower(Protocol):
    """A parametrization (torch.nn.utils.parametrize) with buffers that follow its tensor, such as a power iteration.

    If a forward pass updated these buffers, a run would depend on how many passes there are in a step, and so on the
    number of micro-batches.
    """

    def follow(self, original: Tensor) -> None:
        """Update the buffers. Called once after every update of the tensor.

        Args:
            original: The tensor before it is parametrized.
        """
