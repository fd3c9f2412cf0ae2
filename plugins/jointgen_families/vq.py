"""Vector quantisation: a family whose draw is the nearest vectors of a codebook, and the prior of equal codes.

Van den Oord, Vinyals & Kavukcuoglu, Neural Discrete Representation Learning, NIPS 2017. The codebook belongs to the
family, hence to the encoder's part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import (
    Capabilities,
    ConfigError,
    NoiseSource,
    PartCall,
    ReadyDraw,
    Space,
    at_least_float32,
    positive,
    valid_shape,
    valid_size,
)
from jointgen_families.priors import PriorModule, shape_of


def positions(value: Tensor, dim: int) -> Tensor:
    """Return the vectors of each row, (B, P dim) or (B, dim, H, W) -> (B, P, dim)."""
    return value.unflatten(1, (-1, dim)) if value.ndim == 2 else value.flatten(2).transpose(1, 2)


def together(vectors: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return rows in their shape, (B, P, dim) -> (B, *shape)."""
    flat = vectors.flatten(1) if len(shape) == 1 else vectors.transpose(1, 2)
    return flat.reshape(-1, *shape)


class VQDistribution:
    """B rows that are the nearest codes of what the trunk puts out; nothing is random.

    Args:
        encoded: The trunk's output, (B, *shape).
        book: The codebook, (K, dim).
    """

    def __init__(self, encoded: Tensor, book: Tensor):
        self.encoded, self.book = encoded, book

    def draw(self, noise: NoiseSource) -> ReadyDraw:
        """Return the readings.

        - encoded: the trunk's output;
        - code: the nearest codes, with a gradient to the codebook alone;
        - sample and mean: the same values with the gradient of `encoded` (straight-through), and none to the codebook.
        """
        code = together(self.book[self.nearest()], tuple(self.encoded.shape[1:]))
        sample = code.detach() + (self.encoded - self.encoded.detach())
        return ReadyDraw(sample=sample, mean=sample, encoded=self.encoded, code=code)

    def nearest(self) -> Tensor:
        """Return the number of the nearest code at each position, (B, P)."""
        vectors = positions(self.encoded.detach(), self.book.shape[1])
        book = self.book.detach()
        distances = book.square().sum(1) - 2 * vectors @ book.T  # less |vector|^2, which is the same for all codes
        return distances.argmin(2)


@attrs.frozen
class VQ:
    """The nearest codes of a codebook, for encoders (van den Oord et al. 2017, eq. 1 and 2).

    Its readings are `encoded`, `code` and the straight-through `sample`; the two other terms of the objective (eq. 3)
    are written with them, `l2(stop(encoded z), code z)` and `l2(encoded z, stop(code z))`. It has no density: with
    equal codes the rate is log K at each position, whatever x is.

    Args:
        dim: The numbers of a code. A code vector of P dim numbers has P positions; a map of shape [dim, H, W] H W.
        codes: K, the number of codes.
        init_scale: The standard deviation of the normal distribution that codes start from.
    """

    dim: int = attrs.field(validator=valid_size)
    codes: int = attrs.field(default=128, validator=valid_size)
    init_scale: float = attrs.field(default=1.0, validator=positive)

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do; raise ConfigError for a variable that it does not serve."""
        if space.kind != "real":
            raise ConfigError(f'"vq" is a family of real variables, this one is {space}', "type")
        divides = space.shape[0] % self.dim == 0 if len(space.shape) == 1 else space.shape[0] == self.dim
        if not divides:
            raise ConfigError(f"{self.dim} numbers a code do not divide a variable of shape {list(space.shape)}", "dim")
        paths: dict[str, str] = {"sample": "straight-through", "mean": "straight-through"}
        paths |= {"encoded": "exact", "code": "exact"}
        return Capabilities(paths, own_density="none", foreign_density="none", codes=self.codes)  # type: ignore[arg-type]

    def outputs(self, space: Space) -> tuple[int, ...]:
        """Return the shape of the trunk's output, without the batch axis."""
        return space.shape

    def build(self, space: Space) -> nn.Module:
        """Build the module that turns the trunk's output into a distribution."""
        self.capabilities(space)
        return VQModule(self)


class VQModule(nn.Module):
    """The family's module: (B, *shape) -> VQDistribution; it holds the codebook."""

    def __init__(self, config: VQ):
        super().__init__()
        self.book = nn.Parameter(config.init_scale * torch.randn(config.codes, config.dim))

    def forward(self, params: Tensor) -> VQDistribution:
        """Return the distribution of each row."""
        return VQDistribution(at_least_float32(params), self.book)


# --- the prior -------------------------------------------------------------------------------------------------------


@attrs.frozen
class Codebook:
    """Equal probabilities of the codes of an encoder's codebook, at each position by itself.

    Samples of a VQ-VAE whose prior is not fitted come from it (van den Oord et al. 2017, section 3.1).

    Args:
        size: The size of the code, a number or a shape.
        part: The encoder that holds the codebook.
    """

    size: int | list[int] = attrs.field(default=64, validator=valid_shape)
    part: str = "encoder"

    @property
    def space(self) -> Space:
        """The Space of the code."""
        return Space(shape_of(self.size))

    @property
    def through(self) -> tuple[str, ...]:
        """The encoder's name."""
        return (self.part,)

    def capabilities(self, space: Space, *parts: Capabilities) -> Capabilities:
        """Return what the prior can do."""
        for can in parts:
            if can.paths and "code" not in can.paths and len(can.paths) > 1:
                raise ConfigError(f"{self.part!r} has no codebook; its family must be one such as vq", "part")
        return Capabilities({"sample": "none"}, own_density="none", foreign_density="none")

    def build(self, *inputs: Mapping[str, Space]) -> nn.Module:
        """Build the module; `inputs` are the Spaces of what the encoder is given."""
        return CodebookModule(self.space, [space.shape for space in inputs[0].values()])


class CodebookModule(PriorModule):
    """The prior's module: a number of rows and the encoder -> CodebookRows."""

    def __init__(self, space: Space, inputs: list[tuple[int, ...]]):
        super().__init__(space)
        self.inputs = inputs

    def forward(self, rows: int, encoder: PartCall) -> CodebookRows:
        """Return the distribution of each row."""
        law = encoder(*(self.zeros.new_zeros((1, *shape)) for shape in self.inputs))
        return CodebookRows(law.book.detach(), tuple(self.zeros.shape), rows)  # type: ignore[attr-defined]


class CodebookRows:
    """So many rows of independent codes.

    Args:
        book: (K, dim).
        shape: That of a row.
        rows: The number of rows.
    """

    def __init__(self, book: Tensor, shape: tuple[int, ...], rows: int):
        self.book, self.shape, self.rows = book, shape, rows

    def draw(self, noise: NoiseSource) -> ReadyDraw:
        """Draw a code for each position."""
        count = math.prod(self.shape) // self.book.shape[1]
        number = (noise.uniform(count) * len(self.book)).long().clamp(max=len(self.book) - 1)
        return ReadyDraw(sample=together(self.book[number], self.shape))
