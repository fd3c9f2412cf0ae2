"""A part of a model as a program for other software: it gives what the model gives, for any number of rows."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import jointgen
from jointgen.inference.export import PROGRAM, export_part


def test_a_program_gives_what_the_model_gives(trained: Path, say: Any, here: Path) -> None:
    said = say("export", trained, "-o", "decoder.pt2")
    assert said.out.splitlines()[0].startswith("decoder.pt2: decoder, ") and said.out.endswith("the model: 0\n")
    about = {"jointgen": ""}
    program = torch.export.load("decoder.pt2", extra_files=about)
    model, z = jointgen.load(trained), torch.randn(7, 4)
    with torch.no_grad():
        assert torch.equal(program.module()(z), model.decode(z))
    held = json.loads(about["jointgen"])
    assert held["inputs"]["z"]["shape"] == [4] and held["output"]["bins"] == 17
    assert (held["part"], held["reading"], held["checkpoint"]) == ("decoder", "mean", "step-00000020")
    assert len(held["recipe_sha256"]) == 64


def test_noise_is_an_argument(trained: Path) -> None:
    """q(z|x) = mean + scale eps: at eps = 0 the sample is the mean, and it is linear in eps."""
    model = jointgen.load(trained)
    found = export_part(model, "encoder", "sample", PROGRAM, {})
    assert found.inputs == {"x": (1, 8, 8), "eps": (4,)}
    module = torch.export.load(io.BytesIO(found.data)).module()
    x, one = torch.rand(3, 1, 8, 8), torch.ones(3, 4)
    with torch.no_grad():
        at = {eps: module(x, eps * one) for eps in (0.0, 1.0, 2.0)}
        assert torch.allclose(at[0.0], model.encode(x), atol=1e-6)
    assert torch.allclose(at[2.0] - at[0.0], 2 * (at[1.0] - at[0.0]), atol=1e-5)


def test_onnx_gives_what_the_model_gives(trained: Path, say: Any, here: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the extra 'onnx' is not installed")
    reference = pytest.importorskip("onnx.reference", reason="the extra 'onnx' is not installed")
    pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    assert say("export", trained, "-o", "decoder.onnx").status == 0
    z = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    (found,) = reference.ReferenceEvaluator("decoder.onnx").run(None, {"z": z})
    assert np.abs(found - jointgen.load(trained).decode(z).detach().numpy()).max() < 1e-5
    held = {entry.key: entry.value for entry in onnx.load("decoder.onnx").metadata_props}
    assert json.loads(held["jointgen"])["part"] == "decoder"


def test_what_cannot_be_exported_is_refused(trained: Path, say: Any, here: Path, monkeypatch: Any) -> None:
    words = ["export", trained, "-o", "a.pt2", "--part"]
    assert say(*words, "decodr").refusal.startswith("--part: 'decodr' is no part that computes something; did you mean")
    assert say(*words, "decoder", "--reading", "men").refusal.startswith("--reading: decoder has no 'men'")

    def untraceable(*_: object, **__: object) -> None:
        raise RuntimeError("data-dependent branching\nin a loop")

    monkeypatch.setattr("jointgen.inference.export.torch.export.export", untraceable)
    assert say(*words, "decoder").refusal == (
        "--part: the mean of decoder cannot be traced by torch.export (RuntimeError: data-dependent branching)"
    )
    monkeypatch.setattr("jointgen.inference.export.importlib.util.find_spec", lambda name: None)
    missing = say("export", trained, "-o", "a.onnx").refusal
    assert missing == "-o: ONNX needs onnx and onnxscript: uv sync --extra onnx, or pip install 'jointgen[onnx]'"
    assert list(here.iterdir()) == []


def test_a_file_that_gives_other_numbers_is_not_written(trained: Path, monkeypatch: Any) -> None:
    real = torch.export.load

    def other(file: Any) -> Any:
        program = real(file)
        weight = next(iter(program.state_dict.values()))
        weight.data.add_(0.1)
        return program

    monkeypatch.setattr("jointgen.inference.export.torch.export.load", other)
    with pytest.raises(jointgen.JointgenError, match="decoder: the file gives other numbers than the model, by up to"):
        export_part(jointgen.load(trained), "decoder", None, PROGRAM, {})


@pytest.mark.parametrize(
    ("family", "reading"),
    [
        ({"type": "planar", "length": 2}, "sample"),
        pytest.param({"type": "mixture"}, "sample", marks=pytest.mark.slow),
        pytest.param({"type": "zuko", "flow": "MAF"}, "mean", marks=pytest.mark.slow),
    ],
    ids=lambda value: value if isinstance(value, str) else value["type"],
)
def test_draws_of_flows_and_mixtures_are_programs(family: dict[str, Any], reading: str) -> None:
    """They have loops that stop early, counts of rows and switches of precision, of which a program can hold none."""
    mlp = {"type": "mlp", "hidden": [4]}
    recipe = {
        "name": "exported",
        "data": {"type": "digits", "observe": "binarise"},
        "prior": {"type": "normal", "size": 2},
        "encoder": {"network": mlp, "family": family},
        "decoder": {"network": mlp, "family": {"type": "bernoulli"}},
        "objective": {"type": "vae"},
        "train": {"steps": 1, "batch": 4},
    }
    assert export_part(jointgen.losses(recipe).model.eval(), "encoder", reading, PROGRAM, {}).difference < 1e-5
