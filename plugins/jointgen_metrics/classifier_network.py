"""The classifier's network and its training: small, so that a minute or two on one CPU core is enough."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jointgen.plugin import FeatureBatch, Space

BATCH, MAX_PASSES = 128, 10
"""Images of a step, and passes through the data at the most."""
FEATURES = 128
"""The number of features."""
MIN_SIDE = 8
"""Pixels a side below which convolutions do not halve the image."""
POOLED_SIDE = 4
"""Pixels a side of the last feature map."""
PEAK_RATE, WEIGHT_DECAY = 3e-3, 1e-2
"""The highest learning rate of the one-cycle schedule, and the weight decay of AdamW."""
TRAINING = (BATCH, MAX_PASSES, PEAK_RATE, WEIGHT_DECAY)
"""The settings of the training, which stand in the name of its file."""


class Network(nn.Module):
    """A convolutional classifier: uint8 (B, C, H, W) to features (B, 128) and logits (B, classes).

    Args:
        space: The Space of the images, 8 pixels a side or more.
        classes: The number of classes.
        width: The channels of the first layer.
    """

    def __init__(self, space: Space, classes: int, width: int):
        super().__init__()
        channels, halvings = space.shape[0], max(0, math.ceil(math.log2(min(space.shape[1:]) / MIN_SIDE)))
        blocks: list[nn.Module] = []
        for i in range(max(3, halvings + 1)):
            wide, kernel = width * 2 ** min(i, 2), 5 if i == 0 else 3
            convolution = nn.Conv2d(channels, wide, kernel, 2 if i < halvings else 1, kernel // 2, bias=False)
            blocks += [convolution, nn.BatchNorm2d(wide), nn.ReLU()]
            channels = wide
        pool = [nn.AdaptiveAvgPool2d(POOLED_SIDE), nn.Flatten()]
        self.body = nn.Sequential(*blocks, *pool, nn.Linear(channels * POOLED_SIDE**2, FEATURES), nn.ReLU())
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, images: Tensor) -> FeatureBatch:
        """Compute features and logits."""
        features = self.body(images.float() / 127.5 - 1.0)
        return FeatureBatch(features, self.head(features))


def train(space: Space, data: Any, width: int, steps: int) -> Network:
    """Train a network, always from the same weights and in the same order of images.

    Args:
        space: The Space of the images.
        data: The images, a `jointgen_metrics.classifier.Labelled`.
        width: The channels of the first layer.
        steps: Steps, at the most.

    Returns:
        The network in evaluation mode, on the CPU.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng(devices=[]):  # torch initialises from its global generator
        torch.default_generator.manual_seed(0)
        network = Network(space, data.classes, width).to(device)
    steps = min(steps, math.ceil(MAX_PASSES * len(data) / BATCH))
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        _descend(network, data, steps, device)
    return network.eval().cpu()


def _descend(network: Network, data: Any, steps: int, device: torch.device) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    order = torch.empty(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < BATCH:
            order = torch.cat([order, torch.randperm(len(data), generator=generator)])
        images, classes = data.take(order[:BATCH])
        order = order[BATCH:]
        loss = F.cross_entropy(network(images.to(device)).logits, classes.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def accuracy(network: Network, data: Any) -> tuple[int, int]:
    """Count (rows whose class the network predicts, rows)."""
    right = sum(int((network(images).logits.argmax(1) == classes).sum()) for images, classes in data.blocks())
    return right, len(data)
