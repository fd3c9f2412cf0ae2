"""Parts of a model as plain torch modules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from jointgen.errors import ConfigError
from jointgen.inference.model import Model
from jointgen.testing.evaluation import tiny


def model(objective: Any = "vae", **tables: Any) -> Model:
    chosen = {"type": objective} if isinstance(objective, str) else objective
    compiled = tiny(tables={"objective": chosen, **tables})
    compiled.parts.modules.eval()
    return Model(compiled, compiled.parts)


def test_mean_is_what_the_model_decodes_and_encodes() -> None:
    ours = model()
    z, x = torch.randn(5, 2), torch.rand(5, 1, 8, 8)
    decoder, encoder = ours.module("decoder"), ours.module("encoder", "mean")
    assert torch.equal(decoder(z), ours.decode(z)) and torch.equal(encoder(x), ours.encode(x))
    assert list(decoder.inputs) == ["z"] and decoder.noise == () and decoder.output == ours.spaces["x"]
    assert "decoder: z (2 real) -> mean (1x8x8 real in [0, 1], 17 levels)" in repr(decoder)


def test_sample_is_a_function_of_its_noise() -> None:
    """A Gaussian's is mean + scale * eps (Kingma & Welling 2014, section 2.4); its scale is 0.5 where it starts."""
    ours = model()
    drawing = ours.module("decoder", "sample")
    (eps,) = drawing.noise
    assert (eps.name, eps.kind, eps.shape) == ("eps", "normal", (1, 8, 8))
    z, (numbers,) = torch.randn(3, 2), drawing.draw_noise(3, seed=4)
    torch.testing.assert_close(drawing(z, numbers), ours.decode(z) + 0.5 * numbers)
    assert torch.equal(drawing.draw_noise(3, seed=4)[0], numbers)
    assert not torch.equal(drawing.draw_noise(3, seed=5)[0], numbers)
    prior = ours.module("prior")
    assert prior.reading == "sample" and torch.equal(prior(z), z)  # N(0, I)


def test_parameters_are_what_the_network_returns() -> None:
    ours = model()
    encoder = ours.module("encoder", "parameters")
    x = torch.rand(3, 1, 8, 8)
    trunk: Any = ours.parts.modules["encoder"].trunk
    assert torch.equal(encoder(x), trunk(x))
    assert encoder.output is None


def test_noise_of_the_network_itself_is_an_argument_of_every_reading() -> None:
    implicit = {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "implicit", "noise": 3}}
    for reading in ("mean", "sample", "parameters"):
        encoder = model("avb", encoder=implicit).module("encoder", reading)
        assert [(one.name, one.shape) for one in encoder.noise] == [("eps", (3,))]
        x, eps, other = torch.rand(2, 1, 8, 8), torch.randn(2, 3), torch.randn(2, 3)
        assert not torch.equal(encoder(x, eps), encoder(x, other))


def test_several_values_come_in_the_order_of_its_inputs() -> None:
    text = {
        "type": "expression",
        "maximize": "E[q(x,y,z)](log p(x|z,y) + log p(z) - log q(z|x,y))",
        "joints": {"q": "q(x,y) q(z|x,y)", "p": "p(y) p(z) p(x|z,y)"},
        "parts": {"q(x,y)": "data", "p(y)": "data"},
    }
    ours = model(text, data={"type": "digits", "labels": True})
    decoder = ours.module("decoder")
    assert list(decoder.inputs) == ["z", "y"]
    z, y = torch.randn(2, 2), torch.eye(10)[[3, 1]]
    assert torch.equal(decoder(z, y), ours.decode(z, {"y": [3, 1]}))
    with pytest.raises(TypeError, match="decoder: expected z, y, got 1 arguments"):
        decoder(z)


def test_critic_returns_its_value_of_each_row() -> None:
    ours = model("ali")
    critic = ours.module("f")
    x, z = torch.rand(4, 1, 8, 8), torch.randn(4, 2)
    assert torch.equal(critic(x, z), ours.parts.modules["f"](x, z)) and critic(x, z).shape == (4,)


def test_gradients_reach_weights_and_values_and_training_it_trains_the_model() -> None:
    ours = model()
    decoder, z = ours.module("decoder"), torch.randn(3, 2, requires_grad=True)
    decoder(z).sum().backward()
    assert z.grad is not None and z.grad.abs().sum() > 0
    used = ours.module("decoder", "parameters")
    (first, *_) = used.parameters()
    assert first.grad is not None and first is next(ours.parts.modules["decoder"].parameters())
    alone = copy.deepcopy(decoder)
    with torch.no_grad():
        first.add_(1.0)
    assert torch.equal(decoder(z), ours.module("decoder")(z)) and not torch.equal(alone(z), decoder(z))


def test_parts_that_it_is_merged_with_come_with_it() -> None:
    """A ladder's q(z1|x,z) goes through p(z1|z) (Soenderby et al. 2016), so it needs the decoder's weights."""
    mlp = {"type": "mlp", "hidden": [6]}
    gaussian = {"network": mlp, "family": {"type": "gaussian"}}
    text = {
        "type": "expression",
        "maximize": "E[q(x,z,z1)](log p(x|z1) - KL(q(z1|x,z) : p(z1|z)) - KL(q(z|x) : p(z)))",
        "joints": {"q": "q(x) q(z|x) q(z1|x,z)", "p": "p(z) p(z1|z) p(x|z1)"},
        "parts": {"q(z|x)": "top", "q(z1|x,z)": "encoder", "p(z1|z)": "down", "p(x|z1)": "decoder"},
    }
    ours = model(
        latents={"z1": 3},
        encoder={"network": mlp, "family": {"type": "ladder", "through": "down"}},
        encoders={"top": gaussian},
        decoders={"down": gaussian},
        objective=text,
    )
    bottom = ours.module("encoder")
    assert list(bottom.inputs) == ["x", "z"] and set(bottom.networks) == {"encoder", "down"}
    x, z = torch.rand(4, 1, 8, 8), torch.randn(4, 2)
    drawn = ours.draw("q", {"x": x, "z": z}, 4, ours.noise(0, "z1"), "mean")
    assert torch.equal(bottom(x, z), drawn["z1"])


def test_dropout_reads_torchs_generator_in_training_mode_alone() -> None:
    trunk = {"type": "conv", "widths": [4], "dropout": 0.5}
    encoder = model(encoder={"network": trunk, "family": {"type": "gaussian"}}).module("encoder")
    x = torch.rand(3, 1, 8, 8)
    whole = encoder(x)
    encoder.train()
    torch.manual_seed(1)
    first = encoder(x)
    assert not torch.equal(first, whole) and not torch.equal(encoder(x), first)
    torch.manual_seed(1)
    assert torch.equal(encoder(x), first) and torch.equal(encoder.eval()(x), whole)


def test_a_critic_that_augments_draws_in_training_mode() -> None:
    """Its noise is not dropout's, and in evaluation it sees the images as they are."""
    critic = {"type": "augmented", "of": {"type": "mlp", "hidden": [4]}, "by": [{"type": "cutout"}]}
    seen = model("ali", discriminator=critic).module("f")
    values = seen.example(3)
    assert torch.equal(seen(*values), seen(*values))
    seen.train()
    torch.manual_seed(0)
    assert not torch.equal(seen(*values), seen(*values))


def test_what_is_not_there_is_refused_by_its_nearest_name() -> None:
    ours = model()
    with pytest.raises(ConfigError, match=r"^part: 'decodr' is no part .*; did you mean 'decoder'\?"):
        ours.module("decodr")
    with pytest.raises(ConfigError, match=r"^reading: decoder has no 'means'; did you mean 'mean'\?"):
        ours.module("decoder", "means")
    with pytest.raises(ConfigError, match=r"^reading: prior has no 'mean'; known: sample"):
        ours.module("prior", "mean")
