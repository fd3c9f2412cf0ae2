"""Any transform of torchvision.transforms.v2 as an augmentation."""

from __future__ import annotations

from functools import cached_property
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor
from torchvision.transforms import v2

from jointgen.plugin import ConfigError, NoiseSource, suggest

SEEDS = 1 << 24
"""A uniform number of 32 bits tells so many seeds apart."""


def _names() -> list[str]:
    transforms = (name for name in dir(v2) if isinstance(getattr(v2, name), type))
    return [name for name in transforms if issubclass(getattr(v2, name), v2.Transform)]


@attrs.frozen(slots=False)
class TorchVision:
    """A transform of torchvision.transforms.v2, such as RandomAffine. Each row has its own draw.

    Torchvision draws from the global generator and once for a whole batch. So rows are transformed one by one, each
    after the generator has been seeded by the row's own noise, and the generator is put back. On a GPU the host
    waits for it once.

    Args:
        transform: The class's name.
        arguments: Its arguments by name.
    """

    differentiable: ClassVar[bool] = False
    transform: str = "RandomHorizontalFlip"
    arguments: dict[str, Any] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if self.transform not in _names():
            raise ConfigError(f"torchvision has no transform {self.transform!r}{suggest(self.transform, _names())}",
                              "transform")  # fmt: skip
        try:
            _ = self._built
        except Exception as error:  # whatever torchvision says of the arguments
            raise ConfigError(f"{self.transform} does not take them: {error}", "arguments") from None

    @cached_property
    def _built(self) -> v2.Transform:
        return getattr(v2, self.transform)(**self.arguments)

    def __call__(self, images: Tensor, noise: NoiseSource) -> Tensor:
        """Return the images, transformed one by one."""
        seeds = (noise.uniform() * SEEDS).long().tolist()
        devices = [images.device] if images.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            return torch.stack([self._of_row(image, seed) for image, seed in zip(images, seeds, strict=True)])

    def _of_row(self, image: Tensor, seed: int) -> Tensor:
        torch.default_generator.manual_seed(
            seed
        )  # torch.manual_seed queues a call for each accelerator that is not in use
        if image.device.type == "cuda":
            torch.cuda.manual_seed_all(seed)
        return self._built(image)
