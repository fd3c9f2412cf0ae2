"""Observing data is a draw too: raw rows become model-space variables, with readings, through named noise.

What happens is decided by the Space alone, so that everything downstream knows it without reading data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from jointgen.contracts.distributions import ReadyDraw
from jointgen.contracts.noise import NoiseSource
from jointgen.contracts.space import Space


class Observation(ReadyDraw):
    """A draw of q(x) given raw rows of the data.

    Args:
        sample: The values that encoders and likelihoods see, (B, *shape).
        mean: Their expectation given the raw rows, (B, *shape).
    """

    def __init__(self, sample: Tensor, mean: Tensor):
        super().__init__(sample=sample, mean=mean)

    def rearranged(self, function: Callable[[Tensor], Tensor]) -> Observation:
        """Return an observation with the function applied to both readings."""
        return Observation(function(self.read("sample")), function(self.read("mean")))


class Dequantised(Observation):
    """A draw of a quantised variable: its mean, the middle of each level's bin, is seldom read and made only then."""

    def __init__(self, sample: Tensor, level: Tensor, space: Space):
        self._sample, self._level, self._space = sample, level, space

    def read(self, reading: str) -> Tensor:
        assert reading in ("sample", "mean"), f"an observation has no reading {reading!r}"
        return self._sample if reading == "sample" else affine(self._level + 0.5, self._space)


def observe(space: Space, raw: Tensor, noise: NoiseSource) -> Observation:
    """Raw (B, *shape) rows in `space`.

    - labels, int64 (B,): one-hot, no noise;
    - binary, levels 0..bins-1: Bernoulli bits with grey = level / (bins - 1) as the probability of a one;
    - real with bins, levels: dequantised, low + (level + u) * bin width with u ~ U[0, 1);
    - real without bins: as they are.
    """
    if space.kind == "label":
        one_hot = F.one_hot(raw, space.shape[0]).to(noise.dtype)
        return Observation(one_hot, one_hot)
    if space.kind == "binary":
        assert space.bins is not None, "a binary variable comes from grey levels, two at the least"
        grey = raw.to(noise.dtype) / (space.bins - 1)
        return Observation((noise.uniform(*space.shape) < grey).to(grey.dtype), grey)
    if space.bins is None:
        values = raw.to(noise.dtype)
        return Observation(values, values)
    level = raw.to(noise.dtype)
    inside = torch.nextafter(level + 1, level)  # level + u can round up to the next level in float32
    x = affine(torch.minimum(level + noise.uniform(*space.shape), inside), space)
    return Dequantised(x, level, space)


def affine(level: Tensor, space: Space) -> Tensor:
    """Where on the variable's axis a level, or a place between two, lies."""
    assert space.low is not None and space.bin_width is not None
    return space.low + level * space.bin_width


def has_pixels(space: Space) -> bool:
    """Whether values in a Space are images (C, H, W) whose range is known."""
    bounded = space.kind == "binary" or (space.low is not None and space.high is not None)
    return len(space.shape) == 3 and space.kind != "label" and bounded


def pixels(values: Tensor, space: Space) -> Tensor:
    """Model-space values (B, C, H, W) -> uint8, 0 to 255: what a file with this image would hold.

    A quantised value is its bin's level, and levels are laid on 0..255, ends on ends; bits, their probabilities and
    values without bins are rounded. What lies outside the range is at its end, and NaN is black.
    """
    assert has_pixels(space), f"{space} is not of images"
    low, high = (space.low, space.high) if space.low is not None and space.high is not None else (0.0, 1.0)
    share = ((values.double().nan_to_num(low) - low) / (high - low)).clamp(0.0, 1.0)
    if space.kind == "real" and space.bins is not None:
        share = (share * space.bins).floor().clamp(max=space.bins - 1) / (space.bins - 1)
    return (share * 255.0).round().to(torch.uint8)
