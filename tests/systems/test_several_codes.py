"""Encoding and reconstruction with several codes: two layers, and a label beside a code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.models import small_model
from torch.nn import functional as F

from jointgen.contracts.noise import Noise
from jointgen.data.split import open_split
from jointgen.errors import ConfigError
from jointgen.inference.bulk import encoded_variable, reconstruct_many
from jointgen.inference.model import Model
from jointgen.inference.row_batches import reconstructed_variable
from jointgen.objectives import Objective, Vocabulary, joint_from_text, parse

LINEAR = {"type": "mlp", "hidden": []}
GAUSSIAN = {"network": LINEAR, "family": {"type": "gaussian"}}


def two_layers() -> Any:
    q = joint_from_text("q", "q(x) q(z1|x) q(z2|z1)", {"q(z1|x)": "encoder", "q(z2|z1)": "top"})
    p = joint_from_text("p", "p(z2) p(z1|z2) p(x|z1)", {"p(z1|z2)": "down", "p(x|z1)": "decoder"})
    text = "E[q(x,z1,z2)](log p(x|z1) + log p(z1|z2) + log p(z2) - log q(z1|x) - log q(z2|z1))"
    built = small_model(
        Objective.of(parse(text, Vocabulary({"q": q, "p": p}))),
        latents={"z1": 2},
        prior={"type": "normal", "size": 1},
        encoder=GAUSSIAN,
        decoder=GAUSSIAN,
        encoders={"top": GAUSSIAN},
        decoders={"down": GAUSSIAN},
        discriminator=None,
    ).double()
    return Model(built.compiled, built.parts)


def mean(model: Model, part: str, *inputs: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = model.parts.modules[part](*inputs).mean
    return found


def test_two_layers_encode_mean_by_mean_and_decode_from_the_lower_code_or_from_the_top() -> None:
    model = two_layers()
    x = Noise(0, dtype=torch.float64).named("x", 5).normal(2)
    with torch.no_grad():
        z1 = mean(model, "encoder", x)
        z2 = mean(model, "top", z1)
        codes = model.view.mean_codes({"x": x}, 5, Noise(0, dtype=torch.float64))
        assert torch.equal(codes["z1"], z1) and torch.equal(codes["z2"], z2)
        assert model.binding.can_reconstruct("x") and reconstructed_variable(model) == encoded_variable(model) == "x"
        assert torch.equal(model.view.reconstruct_values("x", {"x": x}), mean(model, "decoder", z1))
        from_top = mean(model, "decoder", mean(model, "down", z2))
        assert torch.equal(model.view.reconstruct_values("x", {"x": x}, ["z2"]), from_top)


def test_a_code_that_is_none_is_named() -> None:
    model = two_layers()
    split = open_split(model.binding, "test").first(4)
    truth, rebuilt = reconstruct_many(model, split, codes_from=["z2"], progress=lambda done, of: None)
    assert truth.shape == rebuilt.shape == (4, 2)
    with pytest.raises(ConfigError, match="--from: 'z3' is no code; known: z1, z2"):
        reconstruct_many(model, split, codes_from=["z3"], progress=lambda done, of: None)


def test_a_label_takes_its_most_probable_value_before_a_code_is_given_it() -> None:
    """M2 (Kingma et al. 2014): z is encoded, and x decoded, at the argmax of q(y|x)."""
    q = joint_from_text("q", "q(x) q(y|x) q(z|x,y)", {"q(y|x)": "classifier", "q(z|x,y)": "encoder"})
    p = joint_from_text("p", "p(y) p(z) p(x|y,z)", {"p(y)": "classes", "p(z)": "prior", "p(x|y,z)": "decoder"})
    text = "E[q(x,y,z)](log p(x|y,z) + log p(y) + log p(z) - log q(y|x) - log q(z|x,y))"
    built = small_model(
        Objective.of(parse(text, Vocabulary({"q": q, "p": p}))),
        encoder=GAUSSIAN,
        decoder=GAUSSIAN,
        encoders={"classifier": {"network": LINEAR, "family": {"type": "categorical"}}},
        priors={"classes": {"type": "categorical", "classes": 3}},
        discriminator=None,
    ).double()
    model = Model(built.compiled, built.parts)
    x = Noise(0, dtype=torch.float64).named("x", 6).normal(2)
    with torch.no_grad():
        probabilities = mean(model, "classifier", x)
        label = F.one_hot(probabilities.argmax(1), 3).double()
        z = mean(model, "encoder", x, label)
        codes = model.view.mean_codes({"x": x}, 6, Noise(0, dtype=torch.float64))
        assert torch.equal(codes["y"], probabilities) and torch.equal(codes["z"], z)
        assert encoded_variable(model) == "x"
        assert torch.equal(model.view.reconstruct_values("x", {"x": x}), mean(model, "decoder", label, z))
