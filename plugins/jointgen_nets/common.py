"""Pieces that all networks share: centred inputs, added linear maps, activations, initialisation, spectral norm."""

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

ActivationName = Literal["relu", "leaky_relu", "elu", "silu", "tanh", "gated"]
InitName = Literal["xavier", "torch", "dcgan"]

LEAK = 0.2  # slope of every leaky ReLU (DCGAN)
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": partial(nn.LeakyReLU, LEAK),
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "gated": partial(nn.GLU, 1),  # a times sigmoid(b), a and b the halves of the layer's outputs
}

# --- validators of recipe keys ---------------------------------------------------------------------------------------

one_activation = attrs.validators.in_(get_args(ActivationName))
one_init = attrs.validators.in_(get_args(InitName))

# --- inputs ----------------------------------------------------------------------------------------------------------


def affine_to_unit(space: Space) -> tuple[float, float] | None:
    """Return (a, b) such that a v + b is in [-1, 1] for v in `space`, or None where the range is not known.

    One-hot labels stay as they are, so that a zero means that a class adds nothing.
    """
    if space.kind == "label" or space.range is None:
        return None
    low, high = space.range
    return 2.0 / (high - low), -(high + low) / (high - low)


class Centre(nn.Module):
    """Scale every input whose Space has a known range to [-1, 1]: 2 (v - low) / (high - low) - 1."""

    def __init__(self, spaces: Iterable[Space]):
        super().__init__()
        self.affine = [affine_to_unit(space) for space in spaces]

    def forward(self, *values: Tensor) -> list[Tensor]:
        """Return the inputs in order, (B, *shape) each."""
        assert len(values) == len(self.affine), f"built for {len(self.affine)} inputs, called with {len(values)}"
        pairs = zip(values, self.affine, strict=True)
        return [value if ab is None else ab[0] * value + ab[1] for value, ab in pairs]


class AddedMaps(nn.Module):
    """Add a linear map of each value to a hidden layer h, as AVB brings in noise (Mescheder et al. 2017).

    The map has a weight for every position of h, so that noise need not be the same all over an image.

    Args:
        spaces: The Spaces of the values.
        shape: The shape of h without the batch axis.
    """

    def __init__(self, spaces: Iterable[Space], shape: Sequence[int]):
        super().__init__()
        # without biases: h has one already
        self.maps = nn.ModuleList(nn.Linear(space.size, math.prod(shape), bias=False) for space in spaces)

    def forward(self, h: Tensor, values: Sequence[Tensor]) -> Tensor:
        """Return h + the maps of the values, (B, *shape)."""
        for linear, value in zip(self.maps, values, strict=True):
            h = h + linear(value.flatten(1)).view(h.shape)
        return h


def joined(values: Sequence[Tensor]) -> Tensor:
    """Concatenate along the second axis; return a single value as it is, which torch would copy."""
    return values[0] if len(values) == 1 else torch.cat(list(values), 1)


def total_size(inputs: Mapping[str, Space]) -> int:
    """Return the number of scalars in one row of all inputs."""
    assert inputs, "a network needs at least one input"
    return sum(space.size for space in inputs.values())


# --- features ---------------------------------------------------------------------------------------------------------


def activations(layers: Iterable[nn.Module], h: Tensor) -> tuple[list[Tensor], Tensor]:
    """Run layers one after the other.

    Returns:
        What every layer with weights is given, in order, which are the activations before it, and the output.
    """
    seen = []
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            seen.append(h)
        h = layer(h)
    return seen, h


# --- layers ----------------------------------------------------------------------------------------------------------


def before_activation(activation: str, width: int) -> int:
    """Return how many outputs a layer needs for so many after its activation: a gated one takes two for each.

    Gated layers are those of Dauphin et al. (ICML 2017) and of the VampPrior's networks (Tomczak & Welling 2018).
    """
    return 2 * width if activation == "gated" else width


def activated(activation: str, dropout: float) -> list[nn.Module]:
    """Return the activation, and dropout after it if its rate is not zero."""
    return [ACTIVATIONS[activation](), *([Dropout(dropout)] if dropout else [])]


def initialise(module: nn.Module, how: InitName) -> nn.Module:
    """Set every linear and convolutional weight of `module` in place, and its biases to zero, and return it.

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
    """Divide a weight W by u' W v, an estimate of its largest singular value (Miyato et al., ICLR 2018, eq 9).

    torch's own version iterates in every forward pass, so that its outputs depend on the number of passes. Here u and
    v move once after each update of the weight, as in the paper's Algorithm 1.
    """

    FIRST_ITERATIONS = 15  # as many as torch's version makes
    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.register_buffer("u", F.normalize(weight.new_empty(rows).normal_(), dim=0))
        self.register_buffer("v", F.normalize(weight.new_empty(columns).normal_(), dim=0))
        for _ in range(self.FIRST_ITERATIONS):
            self.follow(weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight divided by its estimated largest singular value."""
        return weight / torch.dot(self.u, weight.flatten(1) @ self.v)

    @torch.no_grad()
    def follow(self, weight: Tensor) -> None:
        """Make one power iteration on the weight as it is before the division."""
        W = weight.flatten(1)
        self.u.copy_(F.normalize(W @ self.v, dim=0))
        self.v.copy_(F.normalize(W.mT @ self.u, dim=0))


def spectrally_normalised(module: nn.Module) -> nn.Module:
    """Divide every weight of `module` by its largest singular value from now on, and return the module.

    Call it after `initialise`, because the iteration starts from the weights that it finds.
    """
    for layer in list(module.modules()):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight.detach()))
    return module
