"""A trained model at work: it leaves the parts as they are."""

from __future__ import annotations

import torch

from jointgen.inference.model import Model
from jointgen.testing.evaluation import tiny


def test_parts_keep_their_mode_and_run_in_evaluation_mode() -> None:
    """Also where they are being trained: making a model changes nothing, and using it nothing that lasts."""
    compiled = tiny()
    modes: list[bool] = []
    compiled.parts.modules.train()
    compiled.parts.modules["decoder"].register_forward_pre_hook(lambda module, inputs: modes.append(module.training))
    model = Model(compiled, compiled.parts)
    assert compiled.parts.modules.training
    x = model.sample(3)
    model.elbo(model.reconstruct(x))
    assert modes and not any(modes)
    assert all(module.training for module in compiled.parts.modules.modules())
    compiled.parts.modules.eval()
    model.sample(3)
    assert not compiled.parts.modules.training


def test_samples_depend_on_the_seed_alone() -> None:
    model = Model(compiled := tiny(), compiled.parts)
    first = model.sample(4, seed=1)
    torch.manual_seed(5)
    assert torch.equal(model.sample(4, seed=1), first)
    assert not torch.equal(model.sample(4, seed=2), first)
