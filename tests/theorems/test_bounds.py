"""The bounds on the linear-Gaussian model, where log p(x) is known (jointgen_data's `linear_gaussian`)."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from jointgen_vae.objective import IWAE, VAE
from support.linear_gaussian import exact_model
from support.noise import WrittenNoise
from torch import Tensor

from jointgen.data.step_inputs import StepInputs
from jointgen.objectives import E, elbo, p, q

DOUBLE = torch.float64

ONE: dict[str, Any] = {
    "weights": [[0.9], [-0.4], [0.3]],
    "bias": [0.5, 0.0, -1.0],
    "scale": 0.6,
}  # a code of one number
TWO: dict[str, Any] = {"weights": [[1.0, 0.8], [0.2, 0.9]], "bias": [0.5, -1.0], "scale": 0.7}  # a correlated posterior


def corners(size: int) -> Tensor:
    """(2^Z, Z): a quadratic's mean over them is its mean under N(0, I)."""
    return torch.tensor(list(itertools.product((1.0, -1.0), repeat=size)), dtype=DOUBLE)


def log_weights(model: Any, x: Tensor, eps: Tensor) -> Tensor:
    """(B, K): log p(x|z) + log p(z) - log q(z|x) at K given draws for each x."""
    rows = len(x) * len(eps)
    noise = WrittenNoise({"q(z|x)": eps.repeat(len(x), 1)})
    moment = StepInputs({"data": {"x": x.repeat_interleave(len(eps), 0)}}, noise, rows)
    return model.rows(elbo(q, p))(moment).unflatten(0, (len(x), len(eps)))


def test_at_the_optimum_the_weight_is_log_p_x_for_every_z() -> None:
    """p(x, z) / q(z|x) = p(x) p(z|x) / q(z|x): with the exact posterior, p(x), even four standard deviations out."""
    model, truth = exact_model(ONE)
    x = model.data(50)["data"]["x"].double()
    eps = torch.tensor([[-4.0], [-1.0], [0.0], [0.3], [4.0]], dtype=DOUBLE)
    found = log_weights(model, x, eps)
    assert torch.allclose(found, truth.log_density(x)[:, None].expand(-1, 5), rtol=0, atol=1e-10)


def test_a_diagonal_posterior_keeps_exactly_its_gap() -> None:
    """1/2 (sum_i log P_ii - log det P) of the posterior's precision P, for every x.

    By hand, with s^2 = 0.49: W'W = [[1.04, 0.98], [0.98, 1.45]], so P = [[3.122449, 2], [2, 3.959184]] and the gap is
    1/2 log(P_11 P_22 / (P_11 P_22 - 4)) = 1/2 log(12.362349 / 8.362349) = 0.195459.
    """
    model, truth = exact_model(TWO)
    x = model.data(50)["data"]["x"].double()
    p11, p22 = 1 + 1.04 / 0.49, 1 + 1.45 / 0.49
    gap = 0.5 * math.log(p11 * p22 / (p11 * p22 - 4))
    assert gap == pytest.approx(0.195459, abs=1e-6)
    assert truth.elbo_gap_diagonal() == pytest.approx(gap, abs=1e-12)
    bound = log_weights(model, x, corners(2)).mean(1)
    assert torch.allclose(truth.log_density(x) - bound, torch.full((50,), gap, dtype=DOUBLE), rtol=0, atol=1e-10)


def test_with_correlated_codes_the_weight_still_varies_with_z() -> None:
    model, _ = exact_model(TWO)
    x = model.data(50)["data"]["x"].double()
    spread = log_weights(model, x, corners(2)).std(1)
    assert (spread > 0.1).all()


@pytest.mark.parametrize("source", [ONE, TWO], ids=["one code", "two codes"])
def test_the_elbo_is_below_log_p_x_for_any_encoder(source: dict[str, Any]) -> None:
    """Exactly, row by row: its mean over eps is over the corners, a quadratic's."""
    size = len(source["weights"][0])
    for seed in range(5):
        model, truth = exact_model(source)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for w in model.parts.modules["encoder"].parameters():
                w += 0.3 * torch.randn(w.shape, generator=generator, dtype=DOUBLE)
        x = model.data(200)["data"]["x"].double()
        gap = truth.log_density(x) - log_weights(model, x, corners(size)).mean(1)
        assert gap.min() > 0


def test_the_bound_of_k_draws_rises_with_k_and_stays_below() -> None:
    """20 000 rows of the source: from 1 draw to 4, to 16, to log p(x), every gain is positive by more than five of its
    standard errors."""
    model, truth = exact_model(TWO)
    with torch.no_grad():
        for w in model.parts.modules["encoder"].parameters():
            w += 0.2  # a poor encoder has more to gain
    rows = 20_000
    moment = model.inputs(rows)
    log_w = p.log_x_given_z + p.log_z - q.log_z_given_x
    bounds = [model.rows(E(q.xz, log_w, k=k, reduce="logmeanexp"))(moment) for k in (1, 4, 16)]
    bounds.append(truth.log_density(moment.data["data"]["x"].double()))
    for looser, tighter in itertools.pairwise(bounds):
        gain = tighter - looser
        assert gain.mean() > 5 * gain.std() / math.sqrt(rows)


def test_one_draw_is_the_elbo_itself() -> None:
    """IWAE with k = 1 is the VAE's own bound, draw by draw; the mean over k draws is its mean, and no tighter."""
    model, _ = exact_model(TWO)
    moment = model.inputs(64)
    (one,) = IWAE(k=1).objective().updates
    assert torch.allclose(model.rows(one.maximize)(moment), model.rows(elbo(q, p))(moment), rtol=0, atol=1e-12)
    log_w = p.log_x_given_z + p.log_z - q.log_z_given_x
    rows = 4000
    averaged = model.rows(E(q.xz, log_w, k=8))(model.inputs(rows))
    single = model.rows(elbo(q, p))(model.inputs(rows))
    difference = (averaged - single).mean().abs()
    assert difference < 5 * (averaged - single).std() / math.sqrt(rows)
    assert averaged.std() < single.std()


def test_the_closed_kl_is_the_mean_of_the_sampled_rate() -> None:
    model, _ = exact_model(TWO, VAE(analytic=True).objective())
    x = model.data(50)["data"]["x"].double()
    (update,) = VAE(analytic=True).objective().updates
    eps = corners(2)
    noise = WrittenNoise({"q(z|x)": eps.repeat(50, 1)})
    moment = StepInputs({"data": {"x": x.repeat_interleave(4, 0)}}, noise, 200)
    closed = model.rows(update.maximize)(moment).unflatten(0, (50, 4)).mean(1)
    assert torch.allclose(closed, log_weights(model, x, eps).mean(1), rtol=0, atol=1e-12)
