"""The features of published scores: the TensorFlow Inception graph of 2015-12-05, through torch-fidelity."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import FeatureBatch, Space
from jointgen_metrics.published_weights import PublishedWeights

try:
    from torch_fidelity import feature_extractor_inceptionv3 as graph
except ImportError:  # the extra "inception" is not installed
    graph = None

FILE = "weights-inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d"
"""The beginning of the file's SHA-256, as its name says."""
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"


@attrs.frozen
class Inception:
    """An extractor: 2048 features after the last pooling of Inception, and 1008 logits without the bias.

    Published inception scores and Fréchet distances are those of this graph (Szegedy et al. 2016), with images resized
    as TensorFlow 1 did; torchvision's Inception gives others.

    Args:
        weights: The file with the weights; None for torch.hub's cache.
        download: Whether to fetch it into that cache (91 MB) where it is not there.
    """

    weights: str | None = None
    download: bool = False

    name: ClassVar[str] = "inception-2015"
    takes: ClassVar[Literal["pixels"]] = "pixels"
    has_classes: ClassVar[bool] = True

    def build(self, space: Space, variable: str, source: Any) -> InceptionFeatures:
        """See `Extractor.build`."""
        return InceptionFeatures(self, space.shape[0])


@attrs.frozen(eq=False)
class InceptionFeatures:
    """The features of images of some channels; see `Features`."""

    config: Inception
    channels: int

    @property
    def file(self) -> Path:
        """The file with the weights."""
        return _published().place(self.config.weights)

    @property
    def absent(self) -> str:
        """Explains why there are no features and how to get the weights; empty where there are."""
        if self.channels not in (1, 3):
            return f"Inception takes grey or colour images, not {self.channels} channels"
        if graph is None:
            command = "uv sync --extra inception, or pip install 'jointgen[inception]'"
            return f"the Inception graph needs torch-fidelity: {command}"
        return _published().absent(self.file, self.config.download and self.config.weights is None)

    def identity(self) -> str:
        """See `Features.identity`."""
        repeated = ", grey repeated to 3 channels" if self.channels == 1 else ""
        return f"inception-2015@{SHA256} (TF1 bilinear to 299x299, logits without bias{repeated})"

    def __call__(self, rows: Tensor) -> FeatureBatch:
        """See `Features`."""
        _published().fetch(self.file)
        network = _load(self.file, os.stat(self.file).st_mtime_ns, rows.device)
        colour = rows.expand(-1, 3, -1, -1) if self.channels == 1 else rows
        features, logits = network(colour.contiguous())
        return FeatureBatch(features, logits)


def _published() -> PublishedWeights:
    return PublishedWeights("Inception", "inception", FILE, SHA256, URL, 91)


@functools.lru_cache(maxsize=1)
def _load(file: Path, changed: int, device: torch.device) -> nn.Module:
    torch.load(
        file, map_location="cpu", weights_only=True
    )  # torch-fidelity loads it without: only once this has passed
    network: nn.Module = graph.FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(file))
    return network.to(device)
