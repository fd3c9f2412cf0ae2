"""Observations: from raw rows of data to the values that a model sees, and from those back to pixels.

Observing is a draw with named noise, such as Bernoulli bits from grey levels, or dequantisation. The variable's Space
alone decides what happens, so that everything behind it is known without reading data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from jointgen.contracts.distributions import ReadyDraw
from jointgen.contracts.noise import NoiseSource
from jointgen.contracts.space import Space
from jointgen.runtime.devices import in_float64


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
    """An observation of a quantised variable; its mean, the middle of each level's bin, is computed when it is read.

    Args:
        sample: The dequantised values, (B, *shape).
        level: Their levels, (B, *shape).
        space: The variable's Space.
    """

    def __init__(self, sample: Tensor, level: Tensor, space: Space):
        self._sample, self._level, self._space = sample, level, space

    def read(self, reading: str) -> Tensor:
        """Return the reading, (B, *shape)."""
        assert reading in ("sample", "mean"), f"an observation has the readings sample and mean, not {reading!r}"
        return self._sample if reading == "sample" else affine(self._level + 0.5, self._space)


def observe(space: Space, raw: Tensor, noise: NoiseSource) -> Observation:
    """Observe raw rows of a variable.

    - Labels become one-hot vectors, without noise.
    - Levels of a binary variable become Bernoulli bits; level / (bins - 1) is the probability of a one.
    - Levels of a real variable with bins are dequantised: low + (level + u) * bin width with u ~ U[0, 1).
    - Real values without bins stay as they are.

    Args:
        space: The variable's Space.
        raw: Raw rows as `Rows.take` returns them, (B, *shape); labels, (B,) int64.
        noise: The noise of the observation; its dtype is that of the result.

    >>> from jointgen.contracts.noise import Noise
    >>> labels = Space((3,), kind="label")
    >>> observe(labels, torch.tensor([2]), Noise(0).named("y", 1)).read("sample")
    tensor([[0., 0., 1.]])
    """
    if space.kind == "label":
        one_hot = raw.new_zeros(len(raw), *space.shape, dtype=noise.dtype).scatter_(1, raw[:, None], 1.0)
        return Observation(one_hot, one_hot)  # F.one_hot looks at the labels, for which some devices' host would wait
    if space.kind == "binary":
        assert space.bins is not None, "a binary variable comes from grey levels, two at the least"
        grey = raw.to(noise.dtype) / (space.bins - 1)
        return Observation((noise.uniform(*space.shape) < grey).to(grey.dtype), grey)
    if space.bins is None:
        values = raw.to(noise.dtype)
        return Observation(values, values)
    level = raw.to(noise.dtype)
    x = affine(place_in_bin(level, noise.uniform(*space.shape)), space)
    return Dequantised(x, level, space)


def raw_of(values: Tensor, space: Space) -> Tensor:
    """Return raw rows whose observations are these values, or the values of the levels that they lie in.

    Args:
        values: (B, *shape) in model space; labels one-hot, or as probabilities.
        space: The variable's Space.

    Returns:
        Rows as `Rows.take` returns them.
    """
    if space.kind == "label":
        return values.argmax(1)
    if space.bins is None:
        return values
    if space.kind == "binary":
        return (values * (space.bins - 1)).round().long()
    assert space.low is not None and space.bin_width is not None, "quantised data has a range"
    return ((values - space.low) / space.bin_width).floor().clamp(0, space.bins - 1).long()


def place_in_bin(level: Tensor, u: Tensor) -> Tensor:
    """Return level + u, kept below the next level, to which float32 can round it up. u is in [0, 1)."""
    return torch.minimum(level + u, torch.nextafter(level + 1, level))


def affine(level: Tensor, space: Space) -> Tensor:
    """Return the value of a level, or of a place between two levels, in model space."""
    assert space.low is not None and space.bin_width is not None
    from_low = level * space.bin_width
    return space.low + from_low if space.low else from_low


def has_pixels(space: Space) -> bool:
    """Return whether values in a Space are images (C, H, W) whose range is known."""
    return space.is_image and space.range is not None


def pixels(values: Tensor, space: Space) -> Tensor:
    """Return images in model space as pixels, as a file with these images would hold them.

    The levels of quantised values are laid evenly on 0..255. Bits, their probabilities and values without bins are
    rounded. A value outside the range becomes the end of the range, and NaN becomes black.

    Args:
        values: Images in model space, (B, C, H, W).
        space: Their Space, for which `has_pixels` holds.

    Returns:
        (B, C, H, W) uint8, 0 to 255.
    """
    assert has_pixels(space) and space.range is not None, f"{space} is not of images"
    low, high = space.range
    share = ((in_float64(values).nan_to_num(low) - low) / (high - low)).clamp(0.0, 1.0)
    if space.kind == "real" and space.bins is not None:
        share = (share * space.bins).floor().clamp(max=space.bins - 1) / (space.bins - 1)
    return (share * 255.0).round().to(values.device, torch.uint8)


def example(space: Space, noise: NoiseSource) -> Tensor:
    """Return made-up values in model space, (B, *shape), to try components on where there is no data yet."""
    if space.kind == "label":
        return torch.eye(space.size, dtype=noise.dtype)[torch.arange(noise.rows) % space.size]
    if space.kind == "binary":
        return (noise.uniform(*space.shape) > 0.5).to(noise.dtype)
    if space.range is not None:
        low, high = space.range
        return low + (high - low) * noise.uniform(*space.shape)
    return noise.normal(*space.shape)


def fault_of_raw(raw: object, space: Space, rows: int) -> str:
    """Say what is wrong with raw rows of a variable, as a verb and what follows it; "" if nothing is.

    Args:
        raw: The rows as `Rows.take` returns them.
        space: The variable's Space.
        rows: How many there should be.
    """
    shape = (rows,) if space.kind == "label" else (rows, *space.shape)
    if not isinstance(raw, Tensor):
        return f"is a {type(raw).__name__}, it must be a tensor"
    if tuple(raw.shape) != shape:
        return f"has shape {tuple(raw.shape)}, it must be {shape}"
    if space.kind == "label" or space.bins is not None:
        top = space.size if space.bins is None or space.kind == "label" else space.bins
        if space.kind == "label" and raw.dtype != torch.int64:
            return f"is {raw.dtype}, labels are int64"
        if raw.is_floating_point():
            return f"is {raw.dtype}, levels are whole numbers"
        levels = raw.long()  # torch compares uint8 with 256 as with 0
        return "" if bool(((levels >= 0) & (levels < top)).all()) else f"is not in 0..{top - 1}"
    if not raw.is_floating_point():
        return f"is {raw.dtype}, real values without bins are floating"
    if not bool(raw.isfinite().all()):
        return f"has the value {raw[~raw.isfinite()][0].item()}, it must be finite"
    low, high = (-torch.inf if space.low is None else space.low), (torch.inf if space.high is None else space.high)
    return "" if bool(((raw >= low) & (raw <= high)).all()) else f"is not in [{low}, {high}]"
