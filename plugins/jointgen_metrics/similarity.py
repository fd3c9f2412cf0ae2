"""Structural similarity of images and their reconstructions."""

from __future__ import annotations

import attrs
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from jointgen.measures import Batch, Measure, Subject, per_row
from jointgen_metrics.reconstruction import FULL, HOW, levels, rebuilt_of, reconstructed, scale_of

WIDEST, SIGMA = 5, 1.5  # half the window of Wang et al. 2004, and its standard deviation in pixels


@attrs.frozen
class SSIM:
    """Structural similarity of each image and its reconstruction, the mean over images (Wang et al. 2004, eq. 13), on
    levels 0 to 255 and averaged over channels.

    The window is Gaussian, 11 x 11 with a standard deviation of 1.5 pixels, over images mirrored at their borders; an
    image with a side below 11 gets the largest odd window that fits into it, its deviation shrunk alike.
    """

    def measures(self, subject: Subject) -> list[Measure]:
        return reconstructed(subject, "ssim", "similarity", self._measure)

    def _measure(self, subject: Subject, variable: str, name: str) -> Measure:
        shape = subject.spaces[variable].shape
        if len(shape) != 3 or min(shape[1:]) < 3:
            return Measure(name, "similarity", HOW, note=f"{variable} is no image of at least 3x3 pixels")
        if scale_of(subject, variable) is None:
            return Measure(name, "similarity", HOW, note=f"{variable} has no known range")
        half = min(WIDEST, (min(shape[1:]) - 1) // 2)
        sigma = SIGMA * half / WIDEST

        def similarity(batch: Batch) -> Tensor:
            truth, rebuilt = levels(subject, variable, *rebuilt_of(subject, batch, variable))
            found = structural_similarity_index_measure(rebuilt, truth, sigma=sigma, data_range=FULL, reduction="none")
            assert isinstance(found, Tensor), "the map of similarities was not asked for"
            return found

        window = f"Gaussian window of {2 * half + 1}x{2 * half + 1} pixels, sigma {sigma:g}"
        return Measure(name, "similarity", HOW, (per_row(name, similarity),), better="higher", protocol=window)
