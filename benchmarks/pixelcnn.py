"""Counts and times how PixelCNN and PixelCNN++ draw: from caches, against one pass of the network for every pixel.

    uv run python benchmarks/pixelcnn.py [--batch 64] [--naive]

Prints a Markdown table for the families of the shipped recipes: multiplications of a draw over those of one pass
(counted), its time over that of one pass (the process's own, one thread), and by how much a pass for every pixel, H W
of them, takes longer. --naive draws in that way, too, which takes minutes, and checks that the images are equal.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from jointgen_families.autoregressive import streams
from jointgen_families.autoregressive.family import PixelCNN, PixelCNNPP, PixelNoise, draw_levels, draw_levels_naively
from torch import Tensor
from torch.nn import functional as F

from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space

MNIST = Space((1, 28, 28), kind="binary", bins=256)
CIFAR10 = Space((3, 32, 32), low=0.0, high=1.0, bins=256)
FAMILIES = {
    "pixelcnn_mnist": (PixelCNN(width=24, blocks=4, kernel=5, context=4), MNIST),
    "pixelvae_mnist": (PixelCNN(width=16, blocks=2, kernel=5, context=32), MNIST),
    "pixelcnnpp_cifar10": (PixelCNNPP(width=32, blocks=2, context=4), CIFAR10),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--naive", action="store_true", help="draw by whole passes, too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| recipe | passes' multiplications of a draw | passes' time of a draw | seconds a batch | H W passes / draw |"
    )
    print("|---|---|---|---|---|")
    for name, (config, space) in FAMILIES.items():
        torch.manual_seed(0)
        print(row(name, config.build(space), space, arguments.batch, naive=arguments.naive), flush=True)


@torch.no_grad()
def row(name: str, module: Any, space: Space, batch: int, *, naive: bool) -> str:
    _, height, width = space.shape
    context = torch.zeros(batch, module.context, 1, 1)
    image = torch.zeros(batch, *space.shape)

    def noise() -> PixelNoise:
        return PixelNoise(Noise(0).named("x", batch), height, width)

    def one_pass() -> Any:
        features = module.network(image, context)
        return module.law.log_mass(features, image)

    passed, drawn = counted(one_pass), counted(lambda: draw_levels(module, context, noise()))
    passing = min(timed(one_pass) for _ in range(3))
    drawing = timed(lambda: draw_levels(module, context, noise()))
    if naive:
        slow = draw_levels_naively(module, context, noise())
        assert torch.equal(slow, draw_levels(module, context, noise())), "the two ways draw other images"
    by_passes = height * width * passing
    return f"| {name} | {drawn / passed:.2f} | {drawing / passing:.1f} | {drawing:.2f} | {by_passes / drawing:.0f} |"


def counted(run: Callable[[], Any]) -> int:
    """Count the multiplications of convolutions and linear maps."""
    total, originals = 0, {name: getattr(F, name) for name in ("conv2d", "linear")}

    def counting(name: str) -> Callable[..., Tensor]:
        def call(x: Tensor, weight: Tensor, *rest: Any, **more: Any) -> Tensor:
            nonlocal total
            out: Tensor = originals[name](x, weight, *rest, **more)
            total += out.numel() * weight[0].numel()
            return out

        return call

    try:
        for name in originals:
            setattr(streams.F, name, counting(name))
        run()
    finally:
        for name, original in originals.items():
            setattr(streams.F, name, original)
    return total


def timed(run: Callable[[], Any]) -> float:
    """Return the seconds of processor time of a call."""
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    main()
