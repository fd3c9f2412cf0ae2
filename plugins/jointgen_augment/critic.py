"""A critic that sees augmented images: DiffAugment (Zhao et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from torch import Tensor, nn

from jointgen.plugin import AugmentationField, ConfigError, DiscriminatorField, NoisyLayer, Space, augmented_values
from jointgen_augment.augmentations import Colour, Cutout, Translation


@attrs.frozen
class Augmented:
    """A critic before which images are augmented, on both sides of its ratio and whatever is trained.

    The augmentations carry gradients, so that a decoder learns through them. In an evaluation the critic sees images as
    they are.

    Args:
        by: The augmentations, one after the other; by default those of DiffAugment.
        of: The network.
    """

    of: DiscriminatorField
    by: list[AugmentationField] = attrs.field(factory=lambda: [Colour(), Translation(), Cutout()])

    def build(self, inputs: Mapping[str, Space]) -> nn.Module:
        """Build the critic's network; see `jointgen.plugin.Discriminator`."""
        if not any(space.is_image for space in inputs.values()):
            seen = ", ".join(f"{name}: {space}" for name, space in inputs.items())
            raise ConfigError(f"augments images, and this critic sees {seen}", "by")
        for number, one in enumerate(self.by):
            if not one.differentiable:
                raise ConfigError(f"{type(one).__name__} carries no gradient, which a critic needs", "by", number)
        return AugmentedNet(self.of.build(inputs), self.by, [*inputs.values()])


class AugmentedNet(nn.Module):
    """The module.

    Args:
        net: The critic's network.
        by: The augmentations.
        spaces: The Spaces of its inputs.
    """

    def __init__(self, net: nn.Module, by: list[Any], spaces: list[Space]):
        super().__init__()
        self.net = net
        self.layers = nn.ModuleList([AugmentingLayer(by, space) for space in spaces if space.is_image])
        self.images = [number for number, space in enumerate(spaces) if space.is_image]

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the critic's outputs, (B,)."""
        seen = [*inputs]
        for number, layer in zip(self.images, self.layers, strict=True):
            seen[number] = layer(inputs[number])
        return self.net(*seen)


class AugmentingLayer(NoisyLayer):
    """Augments one input while the network trains.

    Args:
        by: The augmentations.
        space: The input's Space.
    """

    def __init__(self, by: list[Any], space: Space):
        super().__init__()
        self.by, self.space = by, space

    def forward(self, images: Tensor) -> Tensor:
        """Return the images (B, *shape) augmented, in their Space's range."""
        return augmented_values(self.by, images, self.space, self.named_noise()) if self.training else images
