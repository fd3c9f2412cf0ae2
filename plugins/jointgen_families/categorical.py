"""Labels: the categorical family, and the prior over classes with equal or learned probabilities."""

from __future__ import annotations

from typing import Literal, get_args

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jointgen.plugin import (
    Capabilities,
    ConfigError,
    Draw,
    NoiseSource,
    PathKind,
    Space,
    at_least_float32,
    between,
)
from jointgen_families.draws import inner_uniform, straight_through

PathName = Literal["straight-through", "relaxed", "none"]
MAX_CLASSES = 1 << 16


def standard_gumbel(noise: NoiseSource, *shape: int) -> Tensor:
    """Return Gumbel numbers, whose distribution function is exp(-exp(-g)), (B, *shape)."""
    return -torch.log(-torch.log(inner_uniform(noise, *shape)))


class CategoricalDraw:
    """A draw of labels: one Gumbel number g per class, and readings that are computed when they are read.

    - relaxed: softmax((logits + g) / temperature), a Gumbel-softmax draw (Jang, Gu & Poole 2017; Maddison et al. 2017),
      whose gradient is exact for that *concrete* distribution.
    - sample: the one-hot vector of the largest logits + g, which is the class with its probability at any temperature.
      With a straight-through path its gradient is that of the relaxed reading, which is biased. With a relaxed path
      the sample is the relaxed reading itself.
    - mean: the probabilities, without noise.

    Args:
        logits: The logits of the classes, (B, C).
        gumbel: The Gumbel numbers, (B, C).
        temperature: The temperature of the relaxed reading.
        path: The gradient path of the sample.
    """

    def __init__(self, logits: Tensor, gumbel: Tensor, temperature: float, path: PathName):
        self._logits, self._gumbel, self._temperature, self._path = logits, gumbel, temperature, path

    def read(self, reading: str) -> Tensor:
        """Return the reading, (B, C)."""
        if reading == "mean":
            return self._logits.softmax(1)
        assert reading in ("sample", "relaxed"), f"a categorical draw has no reading {reading!r}"
        relaxed = ((self._logits + self._gumbel) / self._temperature).softmax(1)
        if "relaxed" in (reading, self._path):
            return relaxed
        label = one_hot_of_largest(relaxed)
        return label if self._path == "none" else straight_through(label, relaxed)


def one_hot_of_largest(values: Tensor) -> Tensor:
    """Return the one-hot vector of the largest of each row, (B, C) -> (B, C), without a gradient."""
    return F.one_hot(values.detach().argmax(1), values.shape[1]).to(values.dtype)


class CategoricalDistribution:
    """B labels, of class c with probability softmax(logits)_c; logits (B, C)."""

    def __init__(self, logits: Tensor, temperature: float, path: PathName):
        self.logits, self._temperature, self._path = logits, temperature, path

    @property
    def mean(self) -> Tensor:
        """The probabilities of the classes, (B, C)."""
        return self.logits.softmax(1)

    def draw(self, noise: NoiseSource) -> CategoricalDraw:
        """Draw by one Gumbel number per class."""
        gumbel = standard_gumbel(noise, self.logits.shape[1])
        return CategoricalDraw(self.logits, gumbel, self._temperature, self._path)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return sum_c v_c log p_c, the log-probability of a one-hot vector v, (B, C) -> (B,) nats.

        It is linear in v: of soft values, such as probabilities, it is minus a cross-entropy. With a relaxed path,
        values are rounded to the label that they relax, so that the likelihood is always that of labels.
        """
        if self._path == "relaxed":
            value = one_hot_of_largest(value)
        return (value * self.logits.log_softmax(1)).sum(1)

    def kl_to(self, other: CategoricalDistribution) -> Tensor:
        """Return sum_c p_c (log p_c - log other_c), (B,) nats."""
        log_p, log_other = self.logits.log_softmax(1), other.logits.log_softmax(1)
        return (log_p.exp() * (log_p - log_other)).sum(1)

    def values(self) -> Tensor:
        """Return the C one-hot vectors, (C, C)."""
        classes = self.logits.shape[1]
        return torch.eye(classes, dtype=self.logits.dtype, device=self.logits.device)


def _paths(path: PathName) -> dict[str, PathKind]:
    return {"sample": path, "relaxed": "exact", "mean": "exact"}


# --- the family ------------------------------------------------------------------------------------------------------


@attrs.frozen
class Categorical:
    """One of C classes, for labels, which networks see as one-hot vectors.

    Args:
        path: The gradient path of the reading "sample": straight-through, a label with a borrowed gradient, which is
            biased (see `CategoricalDraw`); relaxed, a soft vector with its exact gradient, which is scored as the label
            that it rounds to; or none. An exact sum, E[..; sum y], needs no path.
        temperature: The temperature of the reading "relaxed" and of the straight-through gradient.
    """

    path: PathName = attrs.field(default="straight-through", validator=attrs.validators.in_(get_args(PathName)))
    temperature: float = attrs.field(default=0.5, validator=between(0.001, 1000.0))

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do; raise ConfigError for a variable that it does not serve."""
        self._check(space)
        return Capabilities(_paths(self.path), kl_to=("categorical",), values=space.size)

    def outputs(self, space: Space) -> tuple[int, ...]:
        """Return the shape of the logits that the trunk must output, without the batch axis."""
        self._check(space)
        return space.shape

    def build(self, space: Space) -> nn.Module:
        """Build the module that turns the trunk's output into a distribution."""
        self._check(space)
        return CategoricalModule(self, space)

    def _check(self, space: Space) -> None:
        if space.kind != "label":
            raise ConfigError(f'"categorical" is a family of labels, this one is {space}', "type")


class CategoricalModule(nn.Module):
    """The family's module: (B, C) -> CategoricalDistribution with logits = params + offset."""

    def __init__(self, config: Categorical, space: Space):
        super().__init__()
        self.config = config
        self.offset = nn.Parameter(torch.zeros(space.shape))

    def forward(self, params: Tensor) -> CategoricalDistribution:
        """Return the distribution of each row."""
        logits = at_least_float32(params) + self.offset
        return CategoricalDistribution(logits, self.config.temperature, self.config.path)

    @torch.no_grad()
    def start_at(self, mean: Tensor) -> None:
        """Set the offset to the logarithms of the classes' shares of the data, (C,), at least 0.001 each."""
        self.offset.copy_(mean.clamp(min=0.001).log())

    def view(self, reading: str, draw: Draw, noise: NoiseSource) -> Tensor:
        """Return the relaxed draw of equal classes that an observed label would have come from, (B, C).

        The largest of C Gumbel numbers of mean-zero logits -log C is a standard Gumbel number m; given it, another is
        -log(exp(-m) - C log u) with u uniform (Maddison, Tarlow & Minka, NIPS 2014, section 3).
        """
        assert reading == "relaxed", f"no reading {reading!r} of data here"
        label = draw.read("sample")
        exponential = -torch.log(inner_uniform(noise, label.shape[1]))
        largest = (label * exponential).sum(1, keepdim=True)
        gumbel = -torch.log(largest + (1 - label) * label.shape[1] * exponential)
        return (gumbel / self.config.temperature).softmax(1)


# --- the prior -------------------------------------------------------------------------------------------------------


@attrs.frozen
class CategoricalPrior:
    """A prior over classes.

    Args:
        classes: The number of classes C.
        probabilities: uniform, 1 / C each; or learned, the softmax of C numbers that start at zero.
        path: The gradient path of draws to learned probabilities, as in `Categorical`.
        temperature: Likewise.
    """

    classes: int = attrs.field(default=10, validator=between(2, MAX_CLASSES))
    probabilities: Literal["uniform", "learned"] = "uniform"
    path: PathName = attrs.field(default="straight-through", validator=attrs.validators.in_(get_args(PathName)))
    temperature: float = attrs.field(default=0.5, validator=between(0.001, 1000.0))

    @property
    def space(self) -> Space:
        """The Space of the label."""
        return Space((self.classes,), "label")

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the prior can do."""
        learned = self.probabilities == "learned"
        paths: dict[str, PathKind] = _paths(self.path) if learned else {"sample": "exact", "mean": "exact"}
        return Capabilities(paths, kl_to=("categorical",), values=self.classes, trainable=learned)

    def build(self) -> nn.Module:
        """Build the module that maps a number of rows to a distribution."""
        return CategoricalPriorModule(self)


class CategoricalPriorModule(nn.Module):
    """The prior's module: a number of rows -> CategoricalDistribution."""

    logits: Tensor

    def __init__(self, config: CategoricalPrior):
        super().__init__()
        self.config = config
        if config.probabilities == "learned":
            self.logits = nn.Parameter(torch.zeros(config.classes))
        else:
            self.register_buffer("logits", torch.zeros(config.classes), persistent=False)

    def forward(self, rows: int) -> CategoricalDistribution:
        """Return the distribution of each row."""
        path: PathName = self.config.path if self.config.probabilities == "learned" else "none"
        return CategoricalDistribution(self.logits.expand(rows, -1), self.config.temperature, path)
