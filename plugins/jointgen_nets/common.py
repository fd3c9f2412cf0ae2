"""What every network here shares: centred inputs, added linear maps, activations, initialisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Literal, get_args

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from jointgen.plugin import Dropout, Space

ActivationName = Literal["relu", "leaky_relu", "elu", "silu", "tanh"]
InitName = Literal["xavier", "torch", "dcgan"]

LEAK = 0.2  # slope of every leaky ReLU (DCGAN)
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, LEAK),
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}

# --- validators of recipe keys ---------------------------------------------------------------------------------------

one_activation = attrs.validators.in_(get_args(ActivationName))
one_init = attrs.validators.in_(get_args(InitName))
dropout_rate = attrs.validators.and_(attrs.validators.ge(0.0), attrs.validators.lt(1.0))
layer_widths = attrs.validators.deep_iterable(attrs.validators.ge(1))

# --- inputs ----------------------------------------------------------------------------------------------------------


def affine_to_unit(space: Space) -> tuple[float, float] | None:
    """(a, b) such that a v + b is in [-1, 1] for v in `space`; None where the range is unknown.

    One-hot labels stay as they are: a zero then means that a class adds nothing.
    """
    if space.kind == "label" or space.range is None:
        return None
    low, high = space.range
    return 2.0 / (high - low), -(high + low) / (high - low)


class Centre(nn.Module):
    """Brings every input whose Space has a known range to [-1, 1]: 2 (v - low) / (high - low) - 1."""

    def __init__(self, spaces: Iterable[Space]):
        super().__init__()
        self.affine = [affine_to_unit(space) for space in spaces]

    def forward(self, *values: Tensor) -> list[Tensor]:
        assert len(values) == len(self.affine), f"built for {len(self.affine)} inputs, called with {len(values)}"
        pairs = zip(values, self.affine, strict=True)
        return [value if ab is None else ab[0] * value + ab[1] for value, ab in pairs]


class AddedMaps(nn.Module):
    """h + a linear map of each value, in the shape of h: how AVB's `add_linear` brings in noise.

    The map has a weight for every position of h, so that noise need not be the same all over an image.
    """

    def __init__(self, spaces: Iterable[Space], shape: Sequence[int]):
        super().__init__()
        # without biases: h has one already
        self.maps = nn.ModuleList(nn.Linear(space.size, math.prod(shape), bias=False) for space in spaces)

    def forward(self, h: Tensor, values: Sequence[Tensor]) -> Tensor:
        for linear, value in zip(self.maps, values, strict=True):
            h = h + linear(value.flatten(1)).view(h.shape)
        return h


def joined(values: Sequence[Tensor]) -> Tensor:
    """Concatenated along the second axis; a single one as it is, which torch would copy."""
    return values[0] if len(values) == 1 else torch.cat(list(values), 1)


def total_size(inputs: Mapping[str, Space]) -> int:
    """Number of scalars in one row of all inputs."""
    assert inputs, "a network needs at least one input"
    return sum(space.size for space in inputs.values())


# --- layers ----------------------------------------------------------------------------------------------------------


def activated(activation: str, dropout: float) -> list[nn.Module]:
    """The activation and, where there is any, dropout after it."""
    return [ACTIVATIONS[activation](), *([Dropout(dropout)] if dropout else [])]


def initialise(module: nn.Module, how: InitName) -> nn.Module:
    """Sets every linear and convolutional weight of `module` in place, and its biases to zero. Returns it.

    - ``xavier``: uniform with variance 2 / (fan in + fan out) (Glorot & Bengio, AISTATS 2010; the AS-VAE paper);
    - ``dcgan``: N(0, 0.02^2);
    - ``torch``: leaves torch's own.

    Reads torch's global generator, which the engine seeds around every build.
    """
    if how == "torch":
        return module
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            _initialise_layer(layer, how)
    return module


def _initialise_layer(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, how: InitName) -> None:
    if how == "xavier":
        nn.init.xavier_uniform_(layer.weight)
    else:
        nn.init.normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class SpectralNorm(nn.Module):
    """weight / sigma, sigma an estimate u' W v of its largest singular value (Miyato et al., ICLR 2018, eq 9).

    torch's own iterates in every forward pass, so that its outputs depend on how many there have been; here u and v
    move once after each update of the weight, as in Algorithm 1.
    """

    START = 15  # iterations, as torch's
    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.register_buffer("u", F.normalize(weight.new_empty(rows).normal_(), dim=0))
        self.register_buffer("v", F.normalize(weight.new_empty(columns).normal_(), dim=0))
        for _ in range(self.START):
            self.follow(weight)

    def forward(self, weight: Tensor) -> Tensor:
        return weight / torch.dot(self.u, weight.flatten(1) @ self.v)

    @torch.no_grad()
    def follow(self, weight: Tensor) -> None:
        """One power iteration. weight: not divided."""
        W = weight.flatten(1)
        self.u.copy_(F.normalize(W @ self.v, dim=0))
        self.v.copy_(F.normalize(W.mT @ self.u, dim=0))


def spectrally_normalised(module: nn.Module) -> nn.Module:
    """Divides every weight of `module` by its largest singular value. Returns it.

    Call it after `initialise`: the iteration starts from the weights it finds.
    """
    for layer in list(module.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight.detach()))
    return module
