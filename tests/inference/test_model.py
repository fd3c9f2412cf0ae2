"""A trained model at work: it leaves the parts as they are."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.inference.bulk import sample_many
from jointgen.inference.inputs import Input
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


# --- as a torch module -----------------------------------------------------------------------------------------------


def fresh(**tables: Any) -> Model:
    compiled = tiny(tables=tables)
    compiled.parts.modules.eval()
    return Model(compiled, compiled.parts, checkpoint="step-00000007")


def test_gradients_flow_to_values_and_weights_but_from_samples() -> None:
    model = fresh()
    decoder = [*model.parts.modules["decoder"].parameters()]
    for call in (model.encode, model.reconstruct, model, model.elbo):
        x = torch.rand(3, 1, 8, 8, requires_grad=True)
        call(x).sum().backward()
        assert x.grad is not None and x.grad.abs().sum() > 0, call
    assert all(p.grad is not None for p in decoder)
    z = torch.randn(3, 2, requires_grad=True)
    model.decode(z).sum().backward()
    assert z.grad is not None and z.grad.abs().sum() > 0
    assert model.draw("p", {"z": z}, 3, model.noise(0, "x"))["x"].requires_grad
    assert not model.sample(3).requires_grad and not model.view.draw("p", {}, 3, model.noise(0, "x"))["x"].requires_grad


def test_gradient_of_the_elbo_is_that_of_its_terms() -> None:
    """With log p(x|z) and the closed densities by hand, at the z that the ELBO draws."""
    model, x = fresh(), torch.rand(4, 1, 8, 8)
    params = [*model.parameters()]
    found = torch.autograd.grad(model.elbo(x, seed=3).sum(), params, allow_unused=True)
    z = model.draw("q", {"x": x}, 4, model.noise(3, "elbo"))["z"]
    values = {"x": x, "z": z}
    terms = model.log_prob("p(x|z)", values) - model.log_prob("q(z|x)", values)
    by_hand = terms + (-0.5 * z**2 - 0.5 * math.log(2 * math.pi)).sum(1)
    expected = torch.autograd.grad(by_hand.sum(), params, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_log_densities_by_hand() -> None:
    """N(0, I) of the prior, N(mean, 0.5 I) of the decoder where it starts."""
    model = fresh()
    x, z = torch.rand(3, 1, 8, 8), torch.randn(3, 2)
    prior = (-0.5 * z**2 - 0.5 * math.log(2 * math.pi)).sum(1)
    apart = ((x - model.decode(z)) / 0.5).flatten(1)
    likelihood = (-0.5 * apart**2 - math.log(0.5) - 0.5 * math.log(2 * math.pi)).sum(1)
    torch.testing.assert_close(model.log_prob("p(z)", {"z": z.numpy()}), prior)
    torch.testing.assert_close(model.log_prob("p( x | z )", {"x": x, "z": z}), likelihood)
    torch.testing.assert_close(model.log_prob("p(x,z)", {"x": x, "z": z}), prior + likelihood)


@pytest.mark.parametrize("wrong", ["p(x)", "q(z)", "p(z|x)", "q(x,z)", "r(x)", "log p(z)", "", 3])
def test_what_is_no_density_is_refused(wrong: Any) -> None:
    model = fresh()
    with pytest.raises(ConfigError, match=r"^density: .* is no density of this model; .*p\(x,z\) \| p\(x\|z\)"):
        model.log_prob(wrong, {"z": torch.zeros(1, 2)})


def test_values_that_a_density_lacks_or_does_not_take_are_named() -> None:
    with pytest.raises(ConfigError, match=r"(?s)^z: missing.*y: p\(x\|z\) has no such variable; known: x, z"):
        fresh().log_prob("p(x|z)", {"x": torch.rand(1, 1, 8, 8), "y": 3})


def test_it_moves_as_a_module_does_and_copies_its_weights_alone() -> None:
    model = fresh()
    other = copy.deepcopy(model).double()
    assert other.sample(2).dtype == torch.float64 and model.sample(2).dtype == torch.float32
    torch.testing.assert_close(other.sample(2, seed=1).float(), model.sample(2, seed=1))
    assert other.compiled is model.compiled and str(model.to("meta").device) == "meta"
    assert {name.split(".")[:2][1] for name in other.state_dict()} == {"encoder", "decoder"}


def test_it_shows_its_joints_spaces_and_sizes() -> None:
    model = fresh()
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in model.networks.items()}
    assert repr(model).splitlines() == [
        "Model of run, step-00000007, on cpu",
        "  q(x,z) = q(x) q(z|x) by data, encoder",
        "  p(x,z) = p(z) p(x|z) by prior, decoder",
        "  x: 1x8x8 real in [0, 1], 17 levels, data",
        "  z: 2 real",
        f"  parameters: encoder {sizes['encoder']:,}, decoder {sizes['decoder']:,}, in all {sum(sizes.values()):,}",
    ]
    shown = model._repr_html_()
    assert "<i>q</i>(<i>z</i>\u2009|\u2009<i>x</i>)" in shown and "1x8x8 real in [0, 1], 17 levels" in shown


def test_uint8_images_without_levels_have_the_ends_of_the_range_at_0_and_255() -> None:
    image = Input("x", Space((1, 1, 2), low=-1.0, high=1.0), is_data=True)
    assert image.read(np.array([[[[0, 255]]]], np.uint8)).tolist() == [[[[-1.0, 1.0]]]]
    assert image.read(np.array([[[[0, 1]]]])).tolist() == [[[[0.0, 1.0]]]]  # numbers, not levels
    with pytest.raises(
        ConfigError, match=r"values from 0 to 255; x is in \[-1, 1\]; images of 0 to 255 are given as uint8"
    ):
        image.read(np.array([[[[0, 255]]]]))
