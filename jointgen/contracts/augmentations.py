"""Augmentations of images: random changes that keep what an image shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from jointgen.contracts.noise import NoiseSource
from jointgen.contracts.space import Space
from jointgen.errors import ComponentError


class Augmentation(Protocol):
    """A random change of images, the same for rows of data and in front of a critic.

    An image's change depends on its own pixels and its own noise alone. Values are in [0, 1] where the variable has a
    range, whatever that is, and otherwise as they are; what leaves the range is clipped in rows of data.
    """

    @property
    def differentiable(self) -> bool:
        """Whether the result has a gradient with respect to the images: a critic needs it."""

    def __call__(self, images: Tensor, noise: NoiseSource) -> Tensor:
        """Return the changed images.

        Args:
            images: (B, C, H, W), floating.
            noise: The only source of randomness; it has B rows.

        Returns:
            (B, C, H, W), of the same type.
        """


def augmented_values(by: Sequence[Augmentation], values: Tensor, space: Space, noise: NoiseSource) -> Tensor:
    """Augment images in model space, (B, C, H, W), one augmentation after the other; gradients pass."""
    if space.range is None:
        return _augmented(by, values, noise)
    low, high = space.range
    return low + (high - low) * _augmented(by, (values - low) / (high - low), noise)


def augmented_rows(by: Sequence[Augmentation], raw: Tensor, space: Space, noise: NoiseSource) -> Tensor:
    """Augment raw rows of an image variable as a data source yields them, and return such rows."""
    if space.bins is not None:
        top = space.bins - 1
        images = _augmented(by, raw.to(noise.dtype) / max(top, 1), noise)
        return (images.clamp(0.0, 1.0) * top).round().to(raw.dtype)
    values = augmented_values(by, raw, space, noise)
    return values if space.range is None else values.clamp(*space.range)


def _augmented(by: Sequence[Augmentation], images: Tensor, noise: NoiseSource) -> Tensor:
    for one in by:
        found = one(images, noise)
        if not isinstance(found, Tensor) or found.shape != images.shape:
            made = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise ComponentError(f"{type(one).__name__} returns {made}, it must be {tuple(images.shape)}")
        images = found
    return images
