"""log p(x) where it can be had, against closed forms and against sums over a fine grid."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jointgen_ali.objective import ALI
from jointgen_avb.objective import AVB
from jointgen_metrics.exact import Exact, is_quadratic
from jointgen_metrics.latents import codes_of
from jointgen_vae.objective import VAE
from support.linear_gaussian import exact_model
from support.models import small_model
from torch import Tensor

from jointgen.contracts.figures import Estimate
from jointgen.data.split import open_split
from jointgen.evaluation.evaluate import evaluate
from jointgen.inference.model import Model
from jointgen.inference.streams import batches
from jointgen.objectives.recipe_text import Expression

DOUBLE = torch.float64
TWO: dict[str, Any] = {"weights": [[1.0, 0.8], [0.2, 0.9]], "bias": [0.5, -1.0], "scale": 0.7}
NARROW: dict[str, Any] = {**TWO, "scale": 0.003}  # posteriors 0.003 to 0.005 wide, and x as wide as ever
THREE: dict[str, Any] = {"weights": [[1.0, 0.8, 0.1], [0.2, 0.9, -0.5]], "bias": [0.5, -1.0], "scale": 0.7}
LINEAR: dict[str, Any] = {"type": "mlp", "hidden": []}


def found(built: Any, *metrics: Any, rows: int = 40, batch: int = 16) -> dict[str, Estimate]:
    model = Model(built.compiled, built.parts)
    return evaluate(model, open_split(built.compiled.binding, "test").first(rows), metrics, batch=batch)


def by_grid(built: Any, batch: Any, metric: Exact) -> Any:
    """The integral on a grid, also of a model that has a closed form."""
    codes, reason = codes_of(Model(built.compiled, built.parts).view)
    assert codes is not None, reason
    return metric.integral(codes, batch)


def first_batch(built: Any, rows: int) -> Any:
    model = Model(built.compiled, built.parts).view
    return next(iter(batches(model, open_split(built.compiled.binding, "test"), rows, seed=0)))


# --- quadratic in z ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [TWO, THREE], ids=["two codes", "three codes"])
def test_the_gaussian_integral_is_the_closed_form(source: dict[str, Any]) -> None:
    model, truth = exact_model(source)
    x = open_split(model.compiled.binding, "test").take(torch.arange(40))["data"]["x"].double()
    estimate = found(model, Exact())["exact"]
    assert estimate.bound == "exact" and estimate.n == 40 and estimate.split == "test"
    assert estimate.value == pytest.approx(truth.log_density(x).mean().item(), abs=1e-11)
    spread = truth.log_density(x).std().item() / math.sqrt(40)
    assert estimate.standard_error == pytest.approx(spread, abs=1e-11)


def test_single_precision_loses_no_more_than_its_rounding() -> None:
    model, truth = exact_model(TWO)
    model.parts.modules.float()
    x = open_split(model.compiled.binding, "test").take(torch.arange(40))["data"]["x"].double()
    assert found(model, Exact())["exact"].value == pytest.approx(truth.log_density(x).mean().item(), abs=1e-5)


def test_a_label_is_conditioned_on() -> None:
    """p(x|y) of p(y) p(z) p(x|z,y): N(W_y y + b, W_z W_z' + s^2 I), with W = [W_z, W_y] the decoder's weights."""
    joints = {"q": "q(x,y) q(z|x,y)", "p": "p(y) p(z) p(x|z,y)"}
    labelled = Expression(
        joints=joints, parts={"p(y)": "data"}, maximize="E[q(x,y,z)](log p(x|z,y) + log p(z) - log q(z|x,y))"
    )
    decoder = {"network": LINEAR, "family": {"type": "gaussian", "scale": "fixed", "init_scale": 0.5}}
    data = {"type": "ring", "rows": 64, "labels": True}
    built = small_model(labelled.objective(), data=data, decoder=decoder).double()
    rows = open_split(built.compiled.binding, "test").take(torch.arange(40))["data"]
    line = built.parts.modules["decoder"].trunk.layers[0]
    y = torch.nn.functional.one_hot(rows["y"], 8).double()
    error = rows["x"].double() - y @ line.weight[:, 2:].T - line.bias
    covariance = line.weight[:, :2] @ line.weight[:, :2].T + 0.25 * torch.eye(2)
    truth = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=DOUBLE), covariance).log_prob(error)
    assert found(built, Exact())["exact"].value == pytest.approx(truth.mean().item(), abs=1e-11)


def test_a_code_of_any_shape_is_a_vector_of_numbers() -> None:
    """(2, 1, 1) in the place of (2,): the same model, told by a linear decoder with the same weights."""
    model, truth = exact_model(TWO)
    decoder = {"network": LINEAR, "family": {"type": "gaussian", "scale": "fixed", "init_scale": 0.7}}
    data = {"type": "linear_gaussian", **TWO, "rows": 20_000}
    encoder = {"network": LINEAR, "family": {"type": "gaussian"}}
    shaped = small_model(
        VAE().objective(), data=data, decoder=decoder, encoder=encoder, prior={"type": "normal", "size": [2, 1, 1]}
    ).double()
    shaped.parts.modules["decoder"].load_state_dict(model.parts.modules["decoder"].state_dict())
    x = open_split(shaped.compiled.binding, "test").take(torch.arange(40))["data"]["x"].double()
    assert found(shaped, Exact())["exact"].value == pytest.approx(truth.log_density(x).mean().item(), abs=1e-11)


def test_an_encoder_without_a_density_is_no_matter() -> None:
    """AVB's model has no ELBO, and log p(x) all the same."""
    encoder = {"network": LINEAR, "family": {"type": "implicit", "noise": 2}}
    decoder = {"network": LINEAR, "family": {"type": "gaussian", "scale": "fixed"}}
    built = small_model(AVB().objective(), encoder=encoder, decoder=decoder).double()
    line = built.parts.modules["decoder"].trunk.layers[0]
    x = open_split(built.compiled.binding, "test").take(torch.arange(40))["data"]["x"].double()
    law = torch.distributions.MultivariateNormal(line.bias, line.weight @ line.weight.T + torch.eye(2))
    assert found(built, Exact())["exact"].value == pytest.approx(law.log_prob(x).mean().item(), abs=1e-11)


# --- what is not ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_bent_decoder_is_told_from_a_straight_one(activation: str) -> None:
    decoder = {"network": {"type": "mlp", "hidden": [6], "activation": activation}, "family": {"type": "gaussian"}}
    built = small_model(VAE().objective(), decoder=decoder, prior={"type": "normal", "size": 3})
    codes, _ = codes_of(Model(built.compiled, built.parts).view)
    assert codes is not None and not is_quadratic(codes)
    note = found(built, Exact())["exact"].note
    assert note == "log p(x,z) is not quadratic in z, whose 3 numbers are too many to integrate over"


def test_a_straight_decoder_of_bits_is_not_quadratic() -> None:
    data = {"type": "digits", "observe": "binarise"}
    decoder = {"network": LINEAR, "family": {"type": "bernoulli"}}
    built = small_model(VAE().objective(), data=data, decoder=decoder)
    codes, _ = codes_of(Model(built.compiled, built.parts).view)
    assert codes is not None and not is_quadratic(codes)


def test_without_a_likelihood_the_figure_is_absent_and_says_why() -> None:
    decoder = {"network": LINEAR, "family": {"type": "implicit"}}
    estimate = found(small_model(ALI().objective(), decoder=decoder), Exact())["exact"]
    assert estimate.value is None and estimate.note == "decoder has no density at points that it did not draw"


# --- integrals on a grid ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [TWO, NARROW], ids=["wide", "narrow"])
def test_a_grid_gives_the_closed_form(source: dict[str, Any]) -> None:
    """Each row to within what the last refinement changed; posteriors of 0.4 and of 0.004, on a first grid of 0.6."""
    model, truth = exact_model(source)
    batch = first_batch(model, 12)
    integral = by_grid(model, batch, Exact(tolerance=1e-6))
    error = (integral.value - truth.log_density(batch.data["data"]["x"].double())).abs()
    assert (integral.change <= 1e-6).all()
    assert error.max() < 1e-6


def test_one_number_is_integrated_too() -> None:
    model, truth = exact_model({"weights": [[0.9], [-0.4], [0.3]], "bias": [0.5, 0.0, -1.0], "scale": 0.6})
    batch = first_batch(model, 12)
    integral = by_grid(model, batch, Exact(tolerance=1e-8))
    assert torch.allclose(integral.value, truth.log_density(batch.data["data"]["x"].double()), rtol=0, atol=1e-8)


def test_a_posterior_far_outside_the_prior_is_found() -> None:
    """x of 30 standard deviations: its codes lie 20 to 30 out, where the first grid does not reach."""
    model, truth = exact_model({**TWO, "scale": 0.1})
    batch = first_batch(model, 4)
    batch.data["data"]["x"] = torch.tensor([[30.0, -20.0], [-40.0, 0.0], [0.0, 0.0], [20.0, 20.0]])
    integral = by_grid(model, batch, Exact(tolerance=1e-6))
    assert torch.allclose(integral.value, truth.log_density(batch.data["data"]["x"].double()), rtol=0, atol=1e-6)


def brute(logits: Tensor, x: Tensor, z: Tensor, step: float) -> Tensor:
    """(B,) log of the sum over places (N, 2) of N(z; 0, I) Bernoulli(x; logits) step^2."""
    prior = -0.5 * z.square().sum(1) - math.log(2 * math.pi)
    bits = x @ logits.T - torch.nn.functional.softplus(logits).sum(1)  # (B, N)
    return torch.logsumexp(bits + prior, 1) + 2 * math.log(step)


def test_bits_of_a_bent_decoder_against_every_point_of_a_fine_grid() -> None:
    """Digits' 64 bits, two codes, a tanh network with large weights: 701 x 701 points on [-7, 7]^2, beyond which the
    prior leaves less than 1e-11. The sum's own error is far below 1e-6 for a function so smooth."""
    data = {"type": "digits", "observe": "binarise"}
    decoder = {"network": {"type": "mlp", "hidden": [8], "activation": "tanh"}, "family": {"type": "bernoulli"}}
    built = small_model(VAE().objective(), data=data, decoder=decoder).double()
    with torch.no_grad():
        for weight in built.parts.modules["decoder"].parameters():
            weight.mul_(1.5)
    model, batch = Model(built.compiled, built.parts).view, first_batch(built, 8)
    axis = torch.linspace(-7, 7, 701, dtype=DOUBLE)
    places = torch.cartesian_prod(axis, axis)
    x = model.observe(batch)[1]["x"].flatten(1)
    with torch.no_grad():
        logits = built.parts.modules["decoder"].trunk(places).flatten(1)
        truth = brute(logits, x, places, 0.02)
        integral = by_grid(built, batch, Exact(tolerance=1e-6))
    assert (integral.value - truth).abs().max() < 2e-6
    estimates = found(built, Exact(rows=8), rows=8)
    assert estimates["exact"].n == 8
    assert estimates["exact"].value == pytest.approx(truth.mean().item(), abs=1e-3)
    assert 0 <= estimates["exact_error"].value <= 1e-3  # type: ignore[operator]


def test_two_priors_modes_are_both_counted(tmp_path: Path) -> None:
    """A learned prior of two narrow Gaussians 6 apart, and a decoder that is blind: log p(x) = log p(x|0), as p(z)
    integrates to 1."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(40, 2)))
    prior = {"type": "learned", "size": 2, "family": {"type": "mixture", "components": 2}}
    built = small_model(
        VAE().objective(), data={"type": "arrays", "path": str(tmp_path / "x.npy")}, prior=prior
    ).double()
    with torch.no_grad():
        for weight in built.parts.modules["decoder"].trunk.parameters():
            weight.zero_()
        output = built.parts.modules["prior"].output
        output.zero_()
        means = output.view(-1)[2:6]  # logits of two weights, then means, then log-scales
        means.copy_(torch.tensor([-3.0, 0.0, 3.0, 0.0]))
        output.view(-1)[6:].fill_(math.log(0.1))
    batch = first_batch(built, 4)
    x = batch.data["data"]["x"].double()
    integral = by_grid(built, batch, Exact(tolerance=1e-6))
    truth = torch.distributions.Normal(0.0, 0.5).log_prob(x).sum(1)
    assert torch.allclose(integral.value, truth, rtol=0, atol=1e-6)


def test_a_tolerance_is_in_nats_and_no_share() -> None:
    assert [Exact(tolerance=nats).tolerance for nats in (1e-6, 1.0, 2.0)] == [1e-6, 1.0, 2.0]
    for wrong in (0.0, -1.0, 1e9):
        with pytest.raises(ValueError, match=r"^'tolerance' must be "):
            Exact(tolerance=wrong)
