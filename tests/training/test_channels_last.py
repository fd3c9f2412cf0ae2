"""Images and convolutions in NHWC memory: the same numbers, through checkpoints, averages and exchanges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from jointgen_asvae.objective import ASVAE
from jointgen_vae.objective import VAE
from support.models import small_model
from torch import Tensor

import jointgen
from jointgen.errors import StoppedError
from jointgen.runs import checkpoint
from jointgen.runtime.workers import exchange_flat
from jointgen.training.trainer import Trainer

CONV: dict[str, Any] = {
    "data": {"type": "digits"},
    "prior": {"type": "normal", "size": 3},
    "encoder": {"network": {"type": "conv", "widths": [4, 6]}, "family": {"type": "gaussian"}},
    "decoder": {
        "network": {"type": "conv", "widths": [6, 4]},
        "family": {"type": "gaussian", "scale": "per_channel", "mean": "sigmoid"},
    },
    "discriminator": {"type": "conv", "widths": [4, 6], "features": 5, "spectral_norm": True},
}
DECODERS = {
    "gaussian": {"type": "gaussian"},
    "logistics": {"type": "discretized_logistic", "mean": "sigmoid"},
    "mixture of logistics": {"type": "logistic_mixture", "components": 2},
    "mixture": {"type": "mixture", "components": 2},
    "laplace": {"type": "laplace", "scale": "global"},
}


def is_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last)


def trained(objective: Any, channels_last: bool, **changes: Any) -> Any:
    model = small_model(objective, **{**CONV, **changes}).double()
    parts = model.parts.in_channels_last() if channels_last else model.parts
    parts.modules.train()
    model = attrs.evolve(model, compiled=attrs.evolve(model.compiled, parts=parts))
    step = model.step(lr=0.1, clip=1.0)
    for number in range(4):
        step(lambda r, number=number: model.inputs(step=number, repetition=r))
    return model


def close(one: Any, other: Any) -> None:
    expected = other.parts.modules.state_dict()
    for name, value in one.parts.modules.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-11)


@pytest.mark.parametrize("ratio", ["d", "T"])
def test_the_layout_does_not_change_the_numbers(ratio: Any) -> None:
    objective = ASVAE(ratio=ratio, critic=jointgen.objectives.CriticTable(penalties=["r1"])).objective()
    laid_out = trained(objective, True)
    close(laid_out, trained(objective, False))
    weights = [w for w in laid_out.parts.modules.parameters() if w.ndim == 4]
    assert weights
    assert all(is_channels_last(w) and is_channels_last(w.grad) for w in weights)


@pytest.mark.parametrize("family", DECODERS)
def test_every_likelihood_takes_the_layout(family: str) -> None:
    changes = {"decoder": {"network": CONV["decoder"]["network"], "family": DECODERS[family]}}
    made = [trained(ASVAE(ratio="T").objective(), laid_out, **changes) for laid_out in (True, False)]
    close(*made)


def test_networks_see_images_in_the_layout() -> None:
    model = small_model(VAE().objective(), **CONV)
    seen: list[bool] = []
    model.parts.modules["encoder"].trunk.stages[1].register_forward_hook(
        lambda module, args, out: seen.append(is_channels_last(args[0]))
    )
    compiled = attrs.evolve(model.compiled, parts=model.parts.in_channels_last())
    attrs.evolve(model, compiled=compiled).update().gradient(model.inputs())
    assert seen == [True]


def test_an_exchange_keeps_the_layout() -> None:
    """Numbers go by their place in the tensor, not in memory."""
    plain = torch.arange(24.0).reshape(1, 2, 3, 4).expand(2, 2, 3, 4).contiguous()
    laid_out = plain.contiguous(memory_format=torch.channels_last)
    exchange_flat([laid_out, torch.ones(2)], lambda flat: flat.mul_(2))
    assert is_channels_last(laid_out)
    assert torch.equal(laid_out, 2 * plain)


def test_a_run_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the moments of Adam come back in the layout of their weights; the average has it from the start."""
    tables = {
        **CONV,
        "objective": {"type": "asvae", "vae_first": 0.0},
        "train": {"steps": 8, "batch": 8, "pair_block": 4, "channels_last": True},
        "eval": {"rows": 16, "samples": 4},
    }
    trainers: list[Trainer] = []
    fit = Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda self: (trainers.append(self), fit(self))[1])
    jointgen.run(tables, out=tmp_path / "whole", quiet=True)
    calls = iter(range(100))
    with pytest.raises(StoppedError):
        jointgen.run(tables, out=tmp_path / "cut", quiet=True, stop=lambda: 15 if next(calls) == 3 else 0)
    jointgen.run(tables, out=tmp_path / "cut", quiet=True, resume=True)
    whole, cut = (checkpoint.find(tmp_path / name / "checkpoints").parts for name in ("whole", "cut"))
    assert all(torch.equal(value, cut[part][name]) for part, named in whole.items() for name, value in named.items())
    for trainer in trainers:
        for parts in (trainer.state.parts, trainer.state.ema.parts):
            assert all(is_channels_last(w) for w in parts.modules.parameters() if w.ndim == 4)
        for optimizer in trainer.state.optimizers.of(trainer.state.parts.modules):
            assert all(m["exp_avg"].stride() == w.stride() for w, m in optimizer.state.items())
