"""The features of DINOv2 and of CLIP: distances by them follow people's judgement better than Inception's do.

Stein et al., "Exposing flaws of generative model evaluation metrics", 2023. Images are resized as torch-fidelity does
it, so that figures compare with those of that package.
"""

from __future__ import annotations

import functools
import math
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer
from torchvision.transforms.v2.functional import normalize

from jointgen.plugin import FeatureBatch, Space
from jointgen_metrics.published_weights import PublishedWeights

try:
    from torch_fidelity import feature_extractor_clip as clip_graph
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as resize
except ImportError:  # the extra "inception" is not installed
    clip_graph = resize = None

SIDE, PATCH = 224, 14
"""The sides, in pixels, of the images that the networks see and of a patch of DINOv2's."""
HEAD_WIDTH = 64
IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINOV2 = {
    "small": ("vits14", "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9", 88),
    "base": ("vitb14", "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73", 346),
    "large": ("vitl14", "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428", 1218),
}
"""The name, the SHA-256 and the megabytes of each published file."""
CLIP_MEGABYTES = {"b-32": 354, "b-16": 351, "l-14": 933}

Load = Callable[[Path, str], nn.Module]
"""Reads a network from a file of weights; the second argument is the network's published name."""


@attrs.frozen
class DINOv2:
    """An extractor: the class token of DINOv2 (Oquab et al. 2024), 384, 768 or 1024 numbers, and no classes.

    torch-fidelity gets the code and the weights of DINOv2 from its authors' repository as it is on the day. Here the
    published weights, known by their hash, are read into torchvision's vision transformer, which computes the same.

    Args:
        size: "small", "base" or "large", ViT-L/14, which published scores use.
        weights: The file with the weights; None for torch.hub's cache.
        download: Whether to fetch it into that cache (88, 346 or 1,218 MB) where it is not there.
    """

    size: Literal["small", "base", "large"] = attrs.field(
        default="large", validator=attrs.validators.in_(tuple(DINOV2))
    )
    weights: str | None = None
    download: bool = False

    takes: ClassVar[Literal["pixels"]] = "pixels"
    has_classes: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The name in figures."""
        return f"dinov2-{self.size}"

    def build(self, space: Space, variable: str, source: Any) -> VisionFeatures:
        """See `Extractor.build`."""
        name, sha256, megabytes = DINOV2[self.size]
        file = f"dinov2_{name}_pretrain.pth"
        url = f"https://dl.fbaipublicfiles.com/dinov2/dinov2_{name}/{file}"
        published = PublishedWeights("DINOv2", "dinov2", file, sha256, url, megabytes)
        return VisionFeatures(self, space.shape[0], published, name, load_dinov2)


@attrs.frozen
class CLIP:
    """An extractor: the image features of CLIP (Radford et al. 2021), 512 or 768 numbers, and no classes.

    Args:
        size: "b-32" or "b-16", ViT-B with patches of 32 or 16 pixels, or "l-14".
        weights: The file with the weights; None for torch.hub's cache.
        download: Whether to fetch it into that cache (354, 351 or 933 MB) where it is not there.
    """

    size: Literal["b-32", "b-16", "l-14"] = attrs.field(
        default="b-32", validator=attrs.validators.in_(tuple(CLIP_MEGABYTES))
    )
    weights: str | None = None
    download: bool = False

    takes: ClassVar[Literal["pixels"]] = "pixels"
    has_classes: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The name in figures."""
        return f"clip-{self.size}"

    def build(self, space: Space, variable: str, source: Any) -> VisionFeatures:
        """See `Extractor.build`."""
        name = f"clip-vit-{self.size}"
        known = {} if clip_graph is None else clip_graph.MODEL_METADATA
        sha256 = known.get(name, {"hash": ""})["hash"]
        url = "" if clip_graph is None else clip_graph.MODEL_URLS[name]
        published = PublishedWeights("CLIP", "clip", f"{name}-{sha256}.pt", sha256, url, CLIP_MEGABYTES[self.size])
        return VisionFeatures(self, space.shape[0], published, name, load_clip)


@attrs.frozen(eq=False)
class VisionFeatures:
    """The features of images of some channels; see `Features`."""

    config: DINOv2 | CLIP
    channels: int
    published: PublishedWeights
    name: str
    load: Load

    @property
    def file(self) -> Path:
        """The file with the weights."""
        return self.published.place(self.config.weights)

    @property
    def absent(self) -> str:
        """Explains why there are no features and how to get the weights; empty where there are."""
        if self.channels not in (1, 3):
            return f"{self.published.title} takes grey or colour images, not {self.channels} channels"
        if clip_graph is None:
            command = "uv sync --extra inception, or pip install 'jointgen[inception]'"
            return f"{self.published.title} needs torch-fidelity: {command}"
        return self.published.absent(self.file, self.config.download and self.config.weights is None)

    def identity(self) -> str:
        """See `Features.identity`."""
        repeated = ", grey repeated to 3 channels" if self.channels == 1 else ""
        return f"{self.config.name}@{self.published.sha256[:8]} (TF1 bilinear to {SIDE}x{SIDE}{repeated})"

    def __call__(self, rows: Tensor) -> FeatureBatch:
        """See `Features`."""
        self.published.fetch(self.file)
        network = _on_device(self.load, self.name, self.file, os.stat(self.file).st_mtime_ns, rows.device)
        colour = rows.expand(-1, 3, -1, -1) if self.channels == 1 else rows
        return FeatureBatch(network(colour.contiguous()))


@functools.lru_cache(maxsize=2)
def _on_device(load: Load, name: str, file: Path, changed: int, device: torch.device) -> nn.Module:
    return load(file, name).to(device).eval().requires_grad_(False)


# --- DINOv2 -----------------------------------------------------------------------------------------------------------


class _Normalised(nn.Module):
    """A network on images of bytes, (B, 3, H, W), which are resized and normalised as DINOv2's training images were."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, rows: Tensor) -> Tensor:
        resized = resize(rows.float(), size=(SIDE, SIDE), align_corners=False)
        found: Tensor = self.network(normalize(resized / 255, IMAGENET_MEAN, IMAGENET_SD))
        return found


def load_dinov2(file: Path, name: str) -> nn.Module:
    """Read DINOv2's weights into torchvision's vision transformer: (B, 3, H, W) uint8 -> (B, D)."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    converted = as_torchvision(state)
    width = converted["class_token"].shape[-1]
    network = VisionTransformer(
        image_size=SIDE,
        patch_size=PATCH,
        num_layers=_depth(state),
        num_heads=width // HEAD_WIDTH,
        hidden_dim=width,
        mlp_dim=state["blocks.0.mlp.fc1.weight"].shape[0],
    )
    network.heads = nn.Identity()
    network.load_state_dict(converted)
    return _Normalised(network)


def as_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name DINOv2's weights as torchvision's vision transformer names its own.

    DINOv2 scales what each branch adds (its LayerScale): gamma * (W h + b) = (gamma W) h + gamma b, so the scale
    becomes part of the branch's last layer. Its positions, learned for 37 x 37 patches, are interpolated once.
    """
    found = {
        "class_token": state["cls_token"],
        "conv_proj.weight": state["patch_embed.proj.weight"],
        "conv_proj.bias": state["patch_embed.proj.bias"],
        "encoder.pos_embedding": _positions(state["pos_embed"]),
        "encoder.ln.weight": state["norm.weight"],
        "encoder.ln.bias": state["norm.bias"],
    }
    for index in range(_depth(state)):
        theirs, ours = f"blocks.{index}", f"encoder.layers.encoder_layer_{index}"
        for what in ("weight", "bias"):
            attention, mlp = state[f"{theirs}.ls1.gamma"], state[f"{theirs}.ls2.gamma"]
            column = (slice(None), None) if what == "weight" else (slice(None),)
            found |= {
                f"{ours}.ln_1.{what}": state[f"{theirs}.norm1.{what}"],
                f"{ours}.ln_2.{what}": state[f"{theirs}.norm2.{what}"],
                f"{ours}.self_attention.in_proj_{what}": state[f"{theirs}.attn.qkv.{what}"],
                f"{ours}.self_attention.out_proj.{what}": attention[column] * state[f"{theirs}.attn.proj.{what}"],
                f"{ours}.mlp.0.{what}": state[f"{theirs}.mlp.fc1.{what}"],
                f"{ours}.mlp.3.{what}": mlp[column] * state[f"{theirs}.mlp.fc2.{what}"],
            }
    return found


def _depth(state: Mapping[str, Tensor]) -> int:
    return sum(name.endswith(".norm1.weight") for name in state)


def _positions(learned: Tensor) -> Tensor:
    """Interpolate positions, (1, 1 + 37 * 37, D), to those of 16 x 16 patches, with the authors' offset of a tenth."""
    side, wanted = math.isqrt(learned.shape[1] - 1), SIDE // PATCH
    grid = learned[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
    scale = (wanted + 0.1) / side
    scaled = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    assert scaled.shape[2:] == (wanted, wanted), "the offset does not reach the next patch"
    return torch.cat([learned[:, :1], scaled.permute(0, 2, 3, 1).flatten(1, 2)], 1)


# --- CLIP -------------------------------------------------------------------------------------------------------------


class _First(nn.Module):
    """The first of the outputs of torch-fidelity's extractors."""

    def __init__(self, extractor: nn.Module):
        super().__init__()
        self.extractor = extractor

    def forward(self, rows: Tensor) -> Tensor:
        (found,) = self.extractor(rows)
        return found


def load_clip(file: Path, name: str) -> nn.Module:
    """Read CLIP's weights into torch-fidelity's graph: (B, 3, H, W) uint8 -> (B, D)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"`torch\.jit")  # the archives that CLIP was published in are old
        return _First(clip_graph.FeatureExtractorCLIP(name, ["clip"], str(file)))
