"""Structural similarity of images and their reconstructions."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from jointgen.plugin import Batch, MetricFigure, ModelView, per_row
from jointgen_metrics.reconstruction import (
    AT_MEAN_CODE,
    MAX_LEVEL,
    display_of,
    levels,
    reconstructed,
    reconstruction_of,
    scale_of,
)

MAX_HALF_WIDTH, SIGMA = 5, 1.5
"""Half the window of Wang et al. 2004, and its standard deviation, in pixels."""
C1, C2 = (0.01 * MAX_LEVEL) ** 2, (0.03 * MAX_LEVEL) ** 2


def structural_similarity(a: Tensor, b: Tensor, half: int, sigma: float) -> Tensor:
    """Compare images by Wang et al. 2004, eq. 13. Images are mirrored at their borders.

    torchmetrics has the same, and takes three seconds to import; a test compares the two.

    Args:
        a: (B, C, H, W) levels 0 to 255.
        b: The other images, likewise.
        half: Half the width of the window, in pixels.
        sigma: The standard deviation of the window, in pixels.

    Returns:
        (B,) similarities, averaged over channels.
    """
    at = torch.arange(-half, half + 1, device=a.device, dtype=a.dtype)
    line = torch.softmax(-(at**2) / (2 * sigma**2), 0)
    moments = torch.stack([a, b, a * a, b * b, a * b]).flatten(0, 2).unsqueeze(1)
    moments = F.pad(moments, (half,) * 4, mode="reflect")
    moments = F.conv2d(F.conv2d(moments, line[None, None, None]), line[None, None, :, None])
    mean_a, mean_b, aa, bb, ab = moments.unflatten(0, (5, *a.shape[:2])).squeeze(3)
    spread_a, spread_b, shared = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return (luminance * (2 * shared + C2) / (spread_a + spread_b + C2)).flatten(1).mean(1)


@attrs.frozen
class SSIM:
    """The structural similarity of images and their reconstructions, at most 1 (Wang et al. 2004, eq. 13).

    The mean over images, on levels 0 to 255, averaged over channels. The window is Gaussian, 11 x 11 with a standard
    deviation of 1.5 pixels, over images mirrored at their borders. An image with a side below 11 has the largest odd
    window that fits into it, with its standard deviation shrunk alike.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        return reconstructed(model, "ssim", "similarity", self._figure)

    def _figure(self, model: ModelView, variable: str, name: str) -> MetricFigure:
        shape = model.spaces[variable].shape
        if len(shape) != 3 or min(shape[1:]) < 3:
            return MetricFigure(name, "similarity", AT_MEAN_CODE, note=f"{variable} is no image of at least 3x3 pixels")
        if scale_of(model, variable) is None:
            return MetricFigure(name, "similarity", AT_MEAN_CODE, note=f"{variable} has no known range")
        half = min(MAX_HALF_WIDTH, (min(shape[1:]) - 1) // 2)
        sigma = SIGMA * half / MAX_HALF_WIDTH

        def similarity(batch: Batch) -> Tensor:
            truth, reconstruction = levels(model, variable, *reconstruction_of(model, batch, variable))
            return structural_similarity(reconstruction, truth, half, sigma)

        window = f"Gaussian window of {2 * half + 1}x{2 * half + 1} pixels, sigma {sigma:g}"
        return MetricFigure(
            name,
            "similarity",
            AT_MEAN_CODE,
            (per_row(name, similarity),),
            better="higher",
            protocol=window,
            display=display_of("SSIM", variable, 2),
        )
