"""Features of a classifier that is trained once on the run's own labelled data and stored in the user's cache."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import attrs
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from jointgen.plugin import (
    CacheFile,
    ConfigError,
    FeatureBatch,
    Noise,
    Rows,
    Space,
    between,
    cached,
    fingerprint,
    log,
    observe,
    pixels,
    valid_count,
)
from jointgen_metrics.classifier_network import TRAINING, Network, accuracy, train

BLOCK_ROWS = 4096
"""Rows that are read at a time."""


@attrs.frozen
class Classifier:
    """An extractor: 128 features of a small convolutional classifier's last layer but one, and its logits.

    It is trained on the labelled training split of the run's own data source, whether or not the run asks for labels.
    Its scores compare with each other only.

    Args:
        steps: Steps of 128 images, but at most 10 passes through the data.
        width: The channels of the first layer.
        rows: Rows of the training split, evenly apart, at the most.
    """

    steps: int = attrs.field(default=2000, validator=between(1, 1_000_000))
    width: int = attrs.field(default=16, validator=between(1, 4096))
    rows: int = attrs.field(default=60_000, validator=valid_count)

    name: ClassVar[str] = "classifier"
    takes: ClassVar[Literal["pixels"]] = "pixels"
    has_classes: ClassVar[bool] = True

    def build(self, space: Space, variable: str, source: Any) -> ClassifierFeatures:
        """See `Extractor.build`."""
        return ClassifierFeatures(self, space, variable, source)


@attrs.define(eq=False)
class ClassifierFeatures:
    """The features of one variable; see `Features`. The classifier is found or trained when it is first needed."""

    config: Classifier
    space: Space
    variable: str
    source: Any
    _trained: Trained | None = None

    @property
    def absent(self) -> str:
        """Explains why no classifier can be trained on this data; empty where one can."""
        try:
            source = labelled(self.source)
            if label := label_of(source):
                return "" if source.spaces()[label].size > 1 else "a classifier needs more than one class"
        except ConfigError as error:
            return f"the data has no labels to train a classifier on ({error})"
        return "the data has no labels to train a classifier on; extractor = { type = 'values' } needs none"

    def identity(self) -> str:
        """See `Features.identity`."""
        return str(self.trained)

    def __call__(self, rows: Tensor) -> FeatureBatch:
        """See `Features`."""
        return self.trained.on(rows.device)(rows)

    @property
    def trained(self) -> Trained:
        """The trained classifier, found in the cache or trained where it is not there."""
        if self._trained is None:
            self._trained = self._find_or_train()
        return self._trained

    def _find_or_train(self) -> Trained:
        """Find the trained classifier in the cache, or train it; one of several processes trains, the others wait."""
        data = Labelled.open(self, "train", self.config.rows)
        file = cached(f"classifier {self.config!r} {TRAINING} {self.space!r} {data.classes} {data.content()}")
        with file.locked():
            if (found := file.read()) is None:
                found = self._train(data, file)
        return Trained(found, self.space, data.classes, self.config.width)

    def _train(self, data: Labelled, file: CacheFile) -> bytes:
        log(f"training a classifier on {len(data)} images, once, to score samples by its features ...")
        began = time.monotonic()
        network = train(self.space, data, self.config.width, self.config.steps)
        right, n = accuracy(network, Labelled.open(self, "test", 10_000))
        packed = save({**network.state_dict(), COUNTS_KEY: torch.tensor([right, n])})
        where = f"; kept in {file.path}" if file.write(packed) else ""
        log(f"trained in {time.monotonic() - began:.0f} s: {right / n:.2%} on test{where}")
        return packed


COUNTS_KEY = "right of rows"
"""The name of (rows that are right, rows) beside the weights."""


class Trained:
    """A finished classifier, from the bytes of its file."""

    def __init__(self, packed: bytes, space: Space, classes: int, width: int):
        tensors = load(packed)
        self.right, self.rows = tensors.pop(COUNTS_KEY).tolist()
        self.hash = hashlib.blake2b(packed, digest_size=4).hexdigest()
        with torch.device("meta"):  # without weights, which would be drawn
            self.network = Network(space, classes, width)
        self.network.load_state_dict(tensors, assign=True)
        self.network.requires_grad_(False).eval()

    def on(self, device: torch.device) -> nn.Module:
        """The network on a device."""
        return self.network.to(device)

    def __str__(self) -> str:
        return f"classifier@{self.hash} ({self.right / self.rows:.2%} on test)"


# --- labelled data ----------------------------------------------------------------------------------------------------


def labelled(source: Any) -> Any:
    """The source with its labels, which a recipe need not ask for. Raises ConfigError where it has none."""
    if "labels" in attrs.fields_dict(type(source)) and not source.labels:
        source = attrs.evolve(source, labels=True)
        source.spaces()
    return source


def label_of(source: Any) -> str:
    """The variable that holds classes; empty where there is none."""
    return next((name for name, space in source.spaces().items() if space.kind == "label"), "")


@attrs.frozen(eq=False)
class Labelled:
    """Labelled images of a split, evenly apart.

    Args:
        split: The opened split.
        rows: How many of its rows are taken.
        space: The Space of the images.
        image: The source's name for the images.
        label: The source's name for the classes.
        classes: The number of classes.
    """

    split: Rows
    rows: int
    space: Space
    image: str
    label: str
    classes: int

    @classmethod
    def open(cls, features: ClassifierFeatures, split: str, most: int) -> Labelled:
        """Open at most so many rows of a split."""
        source = labelled(features.source)
        label, rows = label_of(source), source.open(split)
        classes = source.spaces()[label].size
        return cls(rows, min(most, len(rows)), features.space, features.variable, label, classes)

    def __len__(self) -> int:
        return self.rows

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Take rows (B,): images (B, C, H, W) uint8, 0 to 255, and classes (B,) int64."""
        raw = self.split.take(index * len(self.split) // self.rows)
        noise = Noise(0).named("images", len(index))  # which the mean does not use
        return pixels(observe(self.space, raw[self.image], noise).read("mean"), self.space), raw[self.label]

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Take all rows, block by block."""
        for start in range(0, self.rows, BLOCK_ROWS):
            yield self.take(torch.arange(start, min(start + BLOCK_ROWS, self.rows)))

    def content(self) -> str:
        """A hash of the images and classes."""
        return fingerprint({"images": images, "classes": classes} for images, classes in self.blocks())
