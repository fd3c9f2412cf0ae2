"""DINOv2 and CLIP as extractors, with random weights in the form of the published files, which are not at hand here."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from jointgen_metrics import vision_transformers
from jointgen_metrics.vision_transformers import CLIP, DINOV2, DINOv2
from torch import Tensor, nn
from torch.nn import functional as F
from torch_fidelity import feature_extractor_clip
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as tf1_bilinear

from jointgen.contracts.space import Space

COLOUR, GREY = Space((3, 8, 8), "real", 0.0, 1.0, 256), Space((1, 8, 8), "real", 0.0, 1.0, 256)
WIDTH, LAYERS = 64, 2


@pytest.fixture(autouse=True)
def no_weights_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOINTGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def random_dinov2() -> dict[str, Tensor]:
    """Weights by the names of dinov2_vits14_pretrain.pth, of two layers that are 64 wide."""
    torch.manual_seed(0)
    linear = {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH)}
    linear |= {"mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "mask_token": (1, WIDTH),
        "pos_embed": (1, 1 + 37 * 37, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 14, 14),
        "patch_embed.proj.bias": (WIDTH,),
    }
    for prefix in (*(f"blocks.{index}." for index in range(LAYERS)), ""):
        for norm in ("norm1", "norm2") if prefix else ("norm",):
            shapes |= {f"{prefix}{norm}.weight": (WIDTH,), f"{prefix}{norm}.bias": (WIDTH,)}
        if prefix:
            shapes |= {f"{prefix}{name}.weight": shape for name, shape in linear.items()}
            shapes |= {f"{prefix}{name}.bias": shape[:1] for name, shape in linear.items()}
            shapes |= {f"{prefix}ls1.gamma": (WIDTH,), f"{prefix}ls2.gamma": (WIDTH,)}
    return {name: torch.randn(shape) / math.sqrt(shape[-1]) for name, shape in shapes.items()}


def dinov2_by_hand(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The class token of a vision transformer with LayerScale on (B, 3, 224, 224), from its formula; one head of 64."""

    def norm(h: Tensor, name: str) -> Tensor:
        return F.layer_norm(h, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def linear(h: Tensor, name: str) -> Tensor:
        return h @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    patches = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=14)
    tokens = torch.cat([state["cls_token"].expand(len(images), -1, -1), patches.flatten(2).mT], 1)
    grid = state["pos_embed"][:, 1:].view(1, 37, 37, WIDTH).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic")
    h = tokens + torch.cat([state["pos_embed"][:, :1], grid.flatten(2).mT], 1)
    for block in (f"blocks.{index}" for index in range(LAYERS)):
        q, k, v = linear(norm(h, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, -1)
        attended = (q @ k.mT / math.sqrt(WIDTH)).softmax(-1) @ v
        h = h + state[f"{block}.ls1.gamma"] * linear(attended, f"{block}.attn.proj")
        inner = F.gelu(linear(norm(h, f"{block}.norm2"), f"{block}.mlp.fc1"))
        h = h + state[f"{block}.ls2.gamma"] * linear(inner, f"{block}.mlp.fc2")
    return norm(h, "norm")[:, 0]


@pytest.fixture
def dinov2_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights that pass for the published ones."""
    path = tmp_path / "dinov2.pth"
    torch.save(random_dinov2(), path)
    monkeypatch.setitem(DINOV2, "small", ("vits14", hashlib.sha256(path.read_bytes()).hexdigest(), 88))
    return path


def test_features_of_dinov2_are_those_of_its_formula(dinov2_file: Path) -> None:
    """Its scales of branches have become weights, and its positions are those of 16 x 16 patches."""
    found = DINOv2("small", str(dinov2_file)).build(COLOUR, "x", None)
    assert found.absent == "" and found.identity().startswith("dinov2-small@")
    rows = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    resized = tf1_bilinear(rows.float(), size=(224, 224), align_corners=False) / 255
    mean, sd = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = dinov2_by_hand(random_dinov2(), (resized - mean) / sd)
    torch.testing.assert_close(found(rows).features, expected, rtol=1e-3, atol=1e-4)
    grey = DINOv2("small", str(dinov2_file)).build(GREY, "x", None)
    repeated = rows[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(grey(rows[:, :1]).features, found(repeated).features)
    assert "grey repeated" in grey.identity()


def test_the_size_is_in_the_name_of_a_figure() -> None:
    assert [one.name for one in (DINOv2(), DINOv2("small"), CLIP())] == ["dinov2-large", "dinov2-small", "clip-b-32"]
    assert not DINOv2.has_classes and not CLIP.has_classes, "there is no inception score by them"


class Published(nn.Module):
    """What of CLIP's archive torch-fidelity reads: names of weights, and no program."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = feature_extractor_clip.VisionTransformer(32, 16, 64, 2, 1, 8)
        self.text_projection = nn.Parameter(torch.zeros(4, 8))

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.filterwarnings(r"ignore:`torch.jit")
def test_features_of_clip_are_torch_fidelitys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, path = Published(), tmp_path / "clip.pt"
    torch.jit.trace(network, torch.zeros(1, 3, 32, 32)).save(str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(feature_extractor_clip.MODEL_METADATA, "clip-vit-b-32", {"hash": digest, "filename": "any"})
    found = CLIP(weights=str(path)).build(COLOUR, "x", None)
    assert found.absent == "" and found.identity().startswith(f"clip-b-32@{digest[:8]} (TF1 bilinear to 224x224")
    rows = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    theirs = feature_extractor_clip.FeatureExtractorCLIP("clip-vit-b-32", ["clip"], str(path))
    torch.testing.assert_close(found(rows).features, theirs(rows)[0])


@pytest.mark.parametrize(("extractor", "file"), [(DINOv2(), "dinov2_vitl14_pretrain.pth"), (CLIP(), "clip-vit-b-32-")])
def test_weights_that_are_not_there_or_are_others(extractor: Any, file: str, tmp_path: Path) -> None:
    """And nothing is fetched for the asking."""
    kind, name = type(extractor), type(extractor).__name__
    absent = extractor.build(COLOUR, "x", None).absent
    assert absent.startswith(f"no {name} weights") and f"hub/checkpoints/{file}" in absent
    (tmp_path / "other").write_bytes(b"another file")
    other = kind(weights=str(tmp_path / "other")).build(COLOUR, "x", None).absent
    assert other.startswith(f"{tmp_path}/other is not the published file: its sha256 begins with ")
    assert kind(download=True).build(COLOUR, "x", None).absent == ""
    assert "not 4 channels" in kind(download=True).build(Space((4, 8, 8), "real", 0.0, 1.0, 256), "x", None).absent


def test_without_torch_fidelity_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision_transformers, "clip_graph", None)
    for extractor in (DINOv2(), CLIP()):
        assert "uv sync --extra inception" in extractor.build(COLOUR, "x", None).absent
