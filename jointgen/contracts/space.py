"""The Space of a variable: its shape, kind and range, known without reading any data. Torch-free."""

from __future__ import annotations

import math
from typing import Literal

import attrs

Kind = Literal["real", "binary", "label"]


@attrs.frozen
class Space:
    """The shape, kind and range of one named variable as networks see it.

    - ``real``: continuous values; `low` and `high` bound them where bounds are known.
    - ``binary``: zeros and ones (drawn from grey levels in [0, 1] where the source has those).
    - ``label``: one of `classes`; networks see a one-hot vector of that length, so the shape is (classes,).

    Args:
        shape: The shape without the batch axis, (C, H, W) for images.
        kind: The kind of values.
        low: The lower end of the range of real values, None where it has none.
        high: The upper end, likewise.
        bins: The number of levels of quantised data. A real variable is then dequantised data,
            x = low + (i + u) * (high - low) / bins, with an integer level i in 0..bins-1 and u ~ U[0, 1).

    >>> image = Space((3, 32, 32), low=0.0, high=1.0, bins=256)
    >>> print(image)
    3x32x32 real in [0, 1], 256 levels
    >>> image.size, image.bin_width
    (3072, 0.00390625)
    """

    shape: tuple[int, ...]
    kind: Kind = "real"
    low: float | None = None
    high: float | None = None
    bins: int | None = None

    def __attrs_post_init__(self) -> None:
        if any(axis < 1 for axis in self.shape):
            raise ValueError(f"'shape' must be of axes >= 1: {self.shape}")
        if self.kind == "label" and len(self.shape) != 1:
            raise ValueError(f"'shape' of a label must be (classes,): {self.shape}")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"'low' must be < high = {self.high}: {self.low}")
        if self.bins is not None and (self.bins < 1 or self.range is None):
            raise ValueError(f"'bins' must be >= 1 between a low and a high end: {self.bins}")

    @property
    def size(self) -> int:
        """The number of scalar dimensions D."""
        return math.prod(self.shape)

    @property
    def range(self) -> tuple[float, float] | None:
        """The ends (low, high) of the range of values, or None where it is not known.

        >>> Space((1,), kind="binary").range
        (0.0, 1.0)
        """
        if self.kind in ("binary", "label"):
            return 0.0, 1.0
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def is_image(self) -> bool:
        """Whether values are images, of shape (channels, height, width)."""
        return len(self.shape) == 3 and self.kind != "label"

    @property
    def bin_width(self) -> float | None:
        """The width of one level in model space, or None where the data was never quantised."""
        if self.bins is None:
            return None
        assert self.low is not None and self.high is not None, "quantised data has a range"
        return (self.high - self.low) / self.bins

    @property
    def log_det_to_data(self) -> float:
        """The log-determinant log |dy/dx| in nats for y = i + u, the value in data units.

        It turns a density in model space into one in data units: -log p(y) = -log p(x) + log |dy/dx|.

        For 8-bit images in [0, 1) it is D log 256, that is 8 bits per dimension (docs/concepts/numbers.md).
        """
        width = self.bin_width
        return 0.0 if width is None else -self.size * math.log(width)

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        bounds = f" in [{self.low:g}, {self.high:g}]" if self.low is not None and self.high is not None else ""
        levels = f", {self.bins} levels" if self.bins else ""
        return f"{shape} {self.kind}{bounds}{levels}"
