"""The classifier's network, and how it is trained: small, so that a minute or two on one CPU core is enough."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jointgen.plugin import FeatureBatch, Space

BATCH, PASSES = 128, 10
FEATURES = 128
SMALLEST = 8  # pixels a side, below which convolutions do not halve the image
POOLED = 4
PEAK, DECAY = 3e-3, 1e-2  # highest learning rate, and weight decay
HOW = (BATCH, PASSES, PEAK, DECAY)


class Network(nn.Module):
    """uint8 (B, C, H, W), 8 pixels a side and more -> features (B, 128) and logits (B, classes)."""

    def __init__(self, space: Space, classes: int, width: int):
        super().__init__()
        channels, halvings = space.shape[0], max(0, math.ceil(math.log2(min(space.shape[1:]) / SMALLEST)))
        blocks: list[nn.Module] = []
        for i in range(max(3, halvings + 1)):
            wide, kernel = width * 2 ** min(i, 2), 5 if i == 0 else 3
            convolution = nn.Conv2d(channels, wide, kernel, 2 if i < halvings else 1, kernel // 2, bias=False)
            blocks += [convolution, nn.BatchNorm2d(wide), nn.ReLU()]
            channels = wide
        pool = [nn.AdaptiveAvgPool2d(POOLED), nn.Flatten()]
        self.body = nn.Sequential(*blocks, *pool, nn.Linear(channels * POOLED**2, FEATURES), nn.ReLU())
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, images: Tensor) -> FeatureBatch:
        features = self.body(images.float() / 127.5 - 1.0)
        return FeatureBatch(features, self.head(features))


def train(space: Space, data: Any, width: int, steps: int) -> Network:
    """In evaluation mode, on the CPU. data: see `jointgen_metrics.classifier.Labelled`."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng(devices=[]):  # torch initialises from its global generator
        torch.manual_seed(0)
        network = Network(space, data.classes, width).to(device)
    steps = min(steps, math.ceil(PASSES * len(data) / BATCH))
    with torch.enable_grad(), torch.autocast(device.type, enabled=False):
        _descend(network, data, steps, device)
    return network.eval().cpu()


def _descend(network: Network, data: Any, steps: int, device: torch.device) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=steps)
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
    """(rows that it is right about, rows)."""
    right = sum(int((network(images).logits.argmax(1) == classes).sum()) for images, classes in data.blocks())
    return right, len(data)
