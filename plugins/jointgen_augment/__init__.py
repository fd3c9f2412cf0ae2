"""Augmentations of images, in the rows of data and in front of critics.

DiffAugment's colour, translation and cutout (Zhao et al. 2020), mirror images, and torchvision's transforms.
"""

from jointgen import Registrar, hookimpl


@hookimpl
def jointgen_register(registry: Registrar) -> None:
    """Register the augmentations, and the critic that sees augmented images."""
    augmentations, diffaugment = "jointgen_augment.augmentations", "Zhao et al. 2020 (DiffAugment)"
    registry.augmentation("mirror", f"{augmentations}:Mirror", summary="left to right, with a probability")
    registry.augmentation(
        "translation", f"{augmentations}:Translation", paper=diffaugment, summary="moved by a share of the sides"
    )
    registry.augmentation("cutout", f"{augmentations}:Cutout", paper=diffaugment, summary="a square is left out")
    registry.augmentation(
        "colour", f"{augmentations}:Colour", paper=diffaugment, summary="brightness, saturation and contrast"
    )
    registry.augmentation(
        "torchvision", "jointgen_augment.torchvision:TorchVision", summary="any of torchvision.transforms.v2, by name"
    )
    registry.discriminator(
        "augmented",
        "jointgen_augment.critic:Augmented",
        paper=diffaugment,
        summary="a critic that sees augmented images on both sides, while it trains",
    )
