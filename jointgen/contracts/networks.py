"""Networks: trunks of encoders and decoders, critics, and the dropout that they use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from jointgen.contracts.noise import NoiseSource
from jointgen.contracts.space import Space


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
