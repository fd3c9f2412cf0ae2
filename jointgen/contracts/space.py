"""Spaces: what a variable looks like, known without reading any data. Torch-free."""

from __future__ import annotations

import math
from typing import Literal

import attrs

Kind = Literal["real", "binary", "label"]


@attrs.frozen
class Space:
    """Shape, kind and range of one named variable, as the networks see it (without the batch axis).

    - ``real``: continuous values; `low` and `high` bound them where bounds are known.
    - ``binary``: zeros and ones (drawn from grey levels in [0, 1] where the source has those).
    - ``label``: one of `classes`; networks see a one-hot vector of that length, so shape is (classes,).

    `bins` says that a real variable is dequantised data: x = low + (i + u) * (high - low) / bins with an
    integer level i in 0..bins-1 and u ~ U[0, 1).
    """

    shape: tuple[int, ...]
    kind: Kind = "real"
    low: float | None = None
    high: float | None = None
    bins: int | None = None

    @property
    def size(self) -> int:
        """Number of scalar dimensions D."""
        return math.prod(self.shape)

    @property
    def range(self) -> tuple[float, float] | None:
        """The least and the greatest value, or None where one of them is not known."""
        if self.kind in ("binary", "label"):
            return 0.0, 1.0
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def is_image(self) -> bool:
        """Whether values are images, of shape (channels, height, width)."""
        return len(self.shape) == 3 and self.kind != "label"

    @property
    def bin_width(self) -> float | None:
        """Width of one level in model space, or None where the data was never quantised."""
        if self.bins is None:
            return None
        assert self.low is not None and self.high is not None, "quantised data has a range"
        return (self.high - self.low) / self.bins

    @property
    def log_det_to_data(self) -> float:
        """log|dy/dx| in nats, for y = i + u in data units: what -log p(x) lacks to be -log p(y).

        For 8-bit images in [0, 1) it is D log 256, that is + 8 bits per dimension (docs/numbers.md).
        """
        width = self.bin_width
        return 0.0 if width is None else -self.size * math.log(width)

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        bounds = f" in [{self.low:g}, {self.high:g}]" if self.low is not None and self.high is not None else ""
        levels = f", {self.bins} levels" if self.bins else ""
        return f"{shape} {self.kind}{bounds}{levels}"
