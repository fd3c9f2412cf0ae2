"""A trained model at work: it leaves the parts as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from jointgen.errors import ConfigError
from jointgen.inference.bulk import sample_many
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


@pytest.mark.parametrize("integer", [np.int64, np.uint8, torch.tensor])
def test_numbers_of_any_integer_type_are_taken(integer: Any) -> None:
    model = Model(compiled := tiny(), compiled.parts)
    assert torch.equal(model.sample(integer(2), seed=integer(1)), model.sample(2, seed=1))
    x = model.sample(2)
    assert torch.equal(model.encode(x, seed=integer(3)), model.encode(x, seed=3))


@pytest.mark.parametrize("wrong", [True, np.True_, torch.tensor(True), 2.0, np.float32(2), "2", None, np.array([2, 3])])
def test_what_is_no_integer_is_refused(wrong: Any) -> None:
    model = Model(compiled := tiny(), compiled.parts)
    with pytest.raises(ConfigError, match=r"^n: expected a number of rows >= 1, got "):
        model.sample(wrong)
    with pytest.raises(ConfigError, match=r"^seed: expected a whole number, got "):
        model.sample(2, seed=wrong)


def test_samples_that_no_memory_holds_are_refused_before_they_are_drawn() -> None:
    model = Model(compiled := tiny(), compiled.parts)
    with pytest.raises(ConfigError, match=r"^-n: 1,000,000,000,000 samples of x take [\d,]+ GiB of memory, and this"):
        sample_many(model, 10**12, progress=lambda done, total: pytest.fail("it started"))
