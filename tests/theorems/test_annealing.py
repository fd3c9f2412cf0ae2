"""HMC leaves its density as it is and can be gone back; annealed chains give log p(x) within what they say of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from jointgen_ali.objective import ALI
from jointgen_avb.objective import AVB
from jointgen_metrics.annealing import AIS, BDMC, Annealing, Chains
from jointgen_metrics.exact import Exact
from jointgen_metrics.importance import IWAE
from jointgen_metrics.latents import codes_of
from jointgen_vae.objective import VAE
from support.linear_gaussian import exact_model
from support.models import small_model
from torch import Tensor

from jointgen.contracts.figures import Estimate
from jointgen.contracts.noise import Noise
from jointgen.data.split import open_split
from jointgen.evaluation.evaluate import evaluate
from jointgen.inference.hmc import HMC_TARGET, HMCPath, hmc_move, leapfrog, next_step_sizes
from jointgen.inference.model import Model
from jointgen.inference.streams import Stream, batches
from jointgen.objectives.recipe_text import Expression

DOUBLE = torch.float64
TWO: dict[str, Any] = {"weights": [[1.0, 0.8], [0.2, 0.9]], "bias": [0.5, -1.0], "scale": 0.7}
LINEAR: dict[str, Any] = {"type": "mlp", "hidden": []}


def source(name: str, rows: int) -> Any:
    return Noise(0, name, dtype=DOUBLE).named(name, rows)


def gaussian(precision: Tensor) -> HMCPath:
    """From N(0, I) to N(0, precision^-1), whose density at beta is N(0, ((1 - beta) I + beta precision)^-1)."""
    return HMCPath(lambda z: -0.5 * z.square().sum(1), lambda z: -0.5 * torch.einsum("bi,ij,bj->b", z, precision, z))


# --- HMC --------------------------------------------------------------------------------------------------------------

PRECISION = torch.tensor([[2.0, 0.9], [0.9, 1.0]], dtype=DOUBLE)


def energy(place: Any, momentum: Tensor, beta: float) -> Tensor:
    return 0.5 * momentum.square().sum(1) - place.log_density(beta)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_leapfrog_goes_back_where_it_came_from(beta: float) -> None:
    path, noise = gaussian(PRECISION), source("back", 20)
    place, momentum = path.at(noise.normal(2)), noise.normal(2)
    step = torch.full((20, 1), 0.3, dtype=DOUBLE)
    there, after = leapfrog(path, place, momentum, beta, step, 15)
    back, again = leapfrog(path, there, -after, beta, step, 15)
    assert torch.allclose(back.z, place.z, rtol=0, atol=1e-12)
    assert torch.allclose(again, -momentum, rtol=0, atol=1e-12)
    assert (there.z - place.z).abs().max() > 0.5


def test_leapfrogs_energy_error_is_of_second_order() -> None:
    """Of a trajectory of a given length: a third of the step leaves a ninth of the error."""
    path, noise = gaussian(PRECISION), source("order", 200)
    place, momentum = path.at(noise.normal(2)), noise.normal(2)
    errors = []
    for count in (10, 30, 90):
        step = torch.full((200, 1), 1.5 / count, dtype=DOUBLE)
        there, after = leapfrog(path, place, momentum, 1.0, step, count)
        errors.append((energy(there, after, 1.0) - energy(place, momentum, 1.0)).abs().mean().item())
    assert errors[0] / errors[1] == pytest.approx(9, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(9, rel=0.02)


def test_leapfrog_keeps_volume() -> None:
    """det d(z', r') / d(z, r) = 1, by autograd through a density that is no Gaussian."""

    def there(both: Tensor) -> Tensor:
        def bent(z: Tensor) -> Tensor:
            return -(z.square().sum(1) + 0.3 * z[:, 0] ** 4 + z[:, 0] * z[:, 1])

        z, r = both[None, :2], both[None, 2:]
        for _ in range(5):  # `leapfrog` itself cuts the graph
            for part in (0.5, None, 0.5):
                if part is None:
                    z = z + 0.2 * r
                else:
                    r = r + 0.2 * part * torch.autograd.grad(bent(z).sum(), z, create_graph=True)[0]
        return torch.cat([z, r], 1)[0]

    both = torch.tensor([0.3, -0.7, 1.1, 0.2], dtype=DOUBLE)
    assert torch.linalg.det(torch.autograd.functional.jacobian(there, both)).item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_a_move_leaves_its_density_as_it_is(beta: float) -> None:
    """20 000 exact draws moved five times, with steps so large that many are refused: mean and covariance stay, within
    4.5 standard errors (of a covariance: sqrt((C_ii C_jj + C_ij^2) / n))."""
    path, n = gaussian(PRECISION), 20_000
    covariance = torch.linalg.inv((1 - beta) * torch.eye(2, dtype=DOUBLE) + beta * PRECISION)
    noise = source(f"invariant {beta}", n)
    place = path.at(noise.normal(2) @ torch.linalg.cholesky(covariance).T)
    before, rates = place.z, []
    for _ in range(5):
        place, rate = hmc_move(path, place, beta, torch.full((n,), 1.2, dtype=DOUBLE), 3, noise)
        rates.append(rate.mean().item())
    assert 0.2 < sum(rates) / 5 < 0.95
    assert (place.z != before).all(1).double().mean() > 0.9
    variances = covariance.diagonal()
    assert (place.z.mean(0).abs() < 4.5 * (variances / n).sqrt()).all()
    error = ((variances[:, None] * variances + covariance.square()) / n).sqrt()
    assert ((place.z.T @ place.z / n - covariance).abs() < 4.5 * error).all()


def test_a_move_that_blows_up_is_refused() -> None:
    path, noise = HMCPath(lambda z: -z.square().sum(1), lambda z: -z.pow(4).sum(1)), source("blown", 50)
    place = path.at(noise.normal(3))
    moved, rate = hmc_move(path, place, 1.0, torch.full((50,), 1e3, dtype=DOUBLE), 50, noise)
    assert torch.equal(moved.z, place.z) and (rate == 0).all()
    assert all(torch.isfinite(value).all() for value in (moved.start, moved.end, moved.start_slope, moved.end_slope))


def test_step_sizes_find_the_acceptance_rate() -> None:
    """Ten dimensions, precisions from 1 to 100: from steps far too small and far too large."""
    precision = torch.diag(torch.linspace(1, 10, 10, dtype=DOUBLE).square())
    path, noise = gaussian(precision), source("rate", 400)
    place, step = path.at(0.1 * noise.normal(10)), torch.tensor([0.001, 10.0], dtype=DOUBLE)
    rates = []
    for _ in range(120):
        place, rate = hmc_move(path, place, 1.0, step.repeat_interleave(200), 4, noise)
        rates.append(rate.view(2, 200).mean(1))
        step = next_step_sizes(step, rates[-1])
    assert (torch.stack(rates[-20:]).mean(0) - HMC_TARGET).abs().max() < 0.08


# --- annealing --------------------------------------------------------------------------------------------------------


def test_the_schedule_is_a_sigmoid_from_0_to_1() -> None:
    """By hand, of 4 steps: s(-2) and its mirror image, stretched:
    (s(-2) - s(-4)) / (s(4) - s(-4)) = (0.1192029 - 0.0179862) / (0.9820138 - 0.0179862) = 0.104994."""
    betas = Annealing(steps=4).schedule()
    assert betas[0] == 0.0 and betas[-1] == 1.0
    assert betas == pytest.approx([0.0, 0.104994, 0.5, 0.895006, 1.0], abs=1e-6)


def chains_of(built: Any, how: Annealing, rows: int) -> tuple[Chains, Any]:
    model = Model(built.compiled, built.parts).view
    batch = next(iter(batches(model, open_split(built.compiled.binding, "test"), rows, seed=0)))
    codes, reason = codes_of(model)
    assert codes is not None, reason
    return Chains(how, codes, codes.known(model.observe(batch)[1]), rows, batch.noise), batch


def found(built: Any, *metrics: Any, rows: int = 24) -> dict[str, Estimate]:
    model = Model(built.compiled, built.parts)
    return evaluate(model, open_split(built.compiled.binding, "test").first(rows), metrics, batch=400)


@pytest.mark.parametrize("start", ["prior", "encoder"])
def test_the_mean_weight_is_p_x(start: Any) -> None:
    """Few steps and many chains: w / p(x) has the mean 1, for each of 5 rows, within 4.5 standard errors."""
    built, truth = exact_model(TWO)
    chains, batch = chains_of(built, Annealing(steps=6, chains=2000, start=start, chunk=10**6), 5)
    log_p = truth.log_density(batch.data["data"]["x"].double())
    ratio = (chains.forward(chains.sizes()).log_weight - log_p[:, None]).exp()
    assert ((ratio.mean(1) - 1).abs() < 4.5 * ratio.std(1) / math.sqrt(2000)).all()
    assert (ratio.std(1) > 0.03).all()


def test_backwards_the_mean_weight_is_one_over_p_x() -> None:
    """From exact draws of the posterior, a different one for each of 4000 copies of one row."""
    built, truth = exact_model(TWO)
    chains, batch = chains_of(built, Annealing(steps=6, chains=1), 4000)
    x = batch.data["data"]["x"][:1].double().expand(4000, 2).contiguous()
    mean, covariance = truth.posterior(x)
    z = mean + source("posterior", 4000).normal(2) @ torch.linalg.cholesky(covariance).T
    same = Chains(chains.settings, chains.codes, {"x": x}, 4000, batch.noise)
    ratio = (same.backward(z, same.sizes()).log_weight[:, 0] + truth.log_density(x)).exp()
    assert (ratio.mean() - 1).abs() < 4.5 * ratio.std() / math.sqrt(4000)
    assert ratio.std() > 0.03


def test_annealing_from_the_posterior_itself_needs_no_luck() -> None:
    """Where q(z|x) is p(z|x) every density on the way is the same but for p(x): each chain gives it."""
    built, truth = exact_model({"weights": [[0.9], [-0.4], [0.3]], "bias": [0.5, 0.0, -1.0], "scale": 0.6})
    chains, batch = chains_of(built, Annealing(steps=3, chains=2, start="encoder"), 10)
    log_p = truth.log_density(batch.data["data"]["x"].double())
    annealed = chains.forward(chains.sizes())
    assert torch.allclose(annealed.log_weight, log_p[:, None].expand(-1, 2), rtol=0, atol=1e-10)
    assert torch.allclose(annealed.effective, torch.full((10,), 2.0, dtype=DOUBLE), rtol=0, atol=1e-8)


def test_it_is_near_log_p_x_and_says_how_it_got_there() -> None:
    """Every row: |error| within 4.5 of the error that the effective sample size m tells, sqrt((K / m - 1) / K): the
    standard error of a mean weight relative to the mean, and so of its log."""
    built, truth = exact_model(TWO)
    metric = AIS(steps=30, leapfrog=5, batch=24)
    chains, batch = chains_of(built, metric, 24)
    annealed = chains.forward(chains.sizes())
    log_p = truth.log_density(batch.data["data"]["x"].double())
    told = ((16 / annealed.effective - 1) / 16).sqrt()
    assert ((annealed.log_mean - log_p).abs() < 4.5 * told).all()
    estimates = found(built, metric, Exact(), IWAE(k=1))
    ais, log_p_mean = estimates["ais"], estimates["exact"].value
    assert ais.value == pytest.approx(log_p_mean, abs=0.05) and ais.bound == "lower"
    assert (estimates["iwae_1"].value or 0) < (ais.value or 0)
    assert 0.5 < (estimates["ais_acceptance"].value or 0) <= 1
    assert 8 < (estimates["ais_ess"].value or 0) <= 16
    assert estimates["ais_ess"].unit == "of 16 chains"
    assert ais.estimator == "30 steps from the prior, 16 chains per row, HMC of 5 leapfrog steps"


def test_chunks_do_not_change_it() -> None:
    built, _ = exact_model(TWO)
    weights = []
    for chunk in (1, 24, 10**6):
        chains, _ = chains_of(built, Annealing(steps=5, chains=7, chunk=chunk), 8)
        if chunk == 1:
            sizes = chains.sizes()  # one chain finds them where no more fit
        weights.append(chains.forward(sizes).log_weight)
    assert torch.allclose(weights[0], weights[2], rtol=0, atol=1e-11)
    assert torch.allclose(weights[1], weights[2], rtol=0, atol=1e-11)


def test_no_more_chains_are_moved_at_once_than_a_chunk() -> None:
    built, _ = exact_model(TWO)
    chains, _ = chains_of(built, Annealing(steps=3, chains=7, chunk=24), 8)
    seen: set[int] = set()
    built.parts.modules["decoder"].trunk.register_forward_hook(lambda _, given, out: seen.add(len(given[0])))
    chains.forward(chains.sizes())
    assert seen == {24, 8}  # three chains of 8 rows at a time, and the one that is left


def test_both_ways_bracket_what_is_known() -> None:
    """400 draws of the model: the mean of their closed log p(x) lies between the ends, which are apart by more than
    4.5 standard errors; with more steps the gap falls below a third."""
    built, truth = exact_model(TWO)
    coarse, fine = (found(built, BDMC(steps=steps, chains=4, leapfrog=5, rows=400, batch=400)) for steps in (5, 25))
    drawn = Model(built.compiled, built.parts).view
    x = drawn.sample_batch(Stream("draws", 400, None, 400).batch(drawn, 0, 0), "sample")["x"]
    for estimates in (coarse, fine):
        lower, upper, gap = (estimates[f"bdmc_{name}"] for name in ("lower", "upper", "gap"))
        assert (lower.bound, upper.bound, gap.bound) == ("lower", "upper", None)
        assert lower.split == upper.split == "draws" and lower.n == gap.n == 400
        assert (lower.value or 0) < truth.log_density(x).mean().item() < (upper.value or 0)
        assert gap.value == pytest.approx((upper.value or 0) - (lower.value or 0), abs=1e-10)
    assert (coarse["bdmc_gap"].value or 0) > 4.5 * (coarse["bdmc_gap"].standard_error or 1)
    assert (fine["bdmc_gap"].value or 0) < (coarse["bdmc_gap"].value or 0) / 3


# --- other models -----------------------------------------------------------------------------------------------------


def test_an_encoder_without_a_density_starts_at_the_prior() -> None:
    """AVB, a linear decoder: the closed form once more; from the encoder it cannot start, and says so."""
    encoder = {"network": LINEAR, "family": {"type": "implicit", "noise": 2}}
    decoder = {"network": LINEAR, "family": {"type": "gaussian", "scale": "fixed"}}
    built = small_model(AVB().objective(), encoder=encoder, decoder=decoder).double()
    estimates = found(built, AIS(steps=30, leapfrog=5, batch=24), Exact())
    assert estimates["ais"].value == pytest.approx(estimates["exact"].value, abs=0.05)
    none = found(built, AIS(steps=30, start="encoder"))["ais"]
    assert none.value is None and none.note == "encoder has no density at points that it did not draw"


def test_without_a_likelihood_it_is_absent_and_says_why() -> None:
    built = small_model(ALI().objective(), decoder={"network": LINEAR, "family": {"type": "implicit"}})
    for name, estimate in found(built, AIS(), BDMC()).items():
        assert estimate.value is None and name in ("ais", "bdmc_lower", "bdmc_upper", "bdmc_gap")
        assert estimate.note == "decoder has no density at points that it did not draw"


def test_bits_and_a_bent_decoder_are_bracketed() -> None:
    """Digits' bits from one number z: IWAE below AIS below the integral on a grid, which AIS all but reaches."""
    data = {"type": "digits", "observe": "binarise"}
    decoder = {"network": {"type": "mlp", "hidden": [8], "activation": "tanh"}, "family": {"type": "bernoulli"}}
    built = small_model(VAE().objective(), data=data, decoder=decoder, prior={"type": "normal", "size": 1})
    with torch.no_grad():
        for weight in built.parts.modules["decoder"].parameters():
            weight.mul_(2.0)
    estimates = found(built, AIS(steps=40, leapfrog=5, batch=24), Exact(), IWAE(k=4))
    truth = estimates["exact"].value
    assert truth is not None
    assert (estimates["iwae_4"].value or 0) < truth - 0.1
    assert estimates["ais"].value == pytest.approx(truth, abs=0.05)


def test_a_mixture_prior_and_two_layers_of_codes() -> None:
    """p(v) p(z|v) p(x|z), v a mixture of two Gaussians and all else linear, so that x is a mixture of two as well: of
    N(W (A m_k + a) + b, W (A A' t_k^2 + s^2 I) W' + s^2 I) with the weights of p(v). Both codes are moved at once."""
    layers = Expression(
        joints={"q": "q(x) q(z|x) q(v|z)", "p": "p(v) p(z|v) p(x|z)"},
        parts={"q(v|z)": "top", "p(z|v)": "middle", "p(v)": "prior"},
        maximize="E[q(x,z,v)](log p(x|z) + log p(z|v) + log p(v) - log q(z|x) - log q(v|z))",
    )
    fixed = {"network": LINEAR, "family": {"type": "gaussian", "scale": "fixed", "init_scale": 0.6}}
    built = small_model(
        layers.objective(),
        prior={"type": "learned", "size": 1, "family": {"type": "mixture", "components": 2}},
        latents={"z": 2},
        encoders={"top": {"network": LINEAR, "family": {"type": "gaussian"}}},
        decoder=fixed,
        decoders={"middle": fixed},
    ).double()
    codes, _ = codes_of(Model(built.compiled, built.parts).view)
    assert codes is not None and codes.size == 3
    x = open_split(built.compiled.binding, "test").take(torch.arange(24))["data"]["x"].double()
    with torch.no_grad():
        v = built.parts.modules["prior"](1)
        down, out = (built.parts.modules[name].trunk.layers[0] for name in ("middle", "decoder"))
        of_each = []
        for weight, mean, log_scale in zip(v.log_weights[0], v.means[0], v.log_scales[0], strict=True):
            inner = down.weight @ down.weight.T * torch.exp(2 * log_scale) + 0.36 * torch.eye(2)
            covariance = out.weight @ inner @ out.weight.T + 0.36 * torch.eye(2)
            law = torch.distributions.MultivariateNormal(out(down(mean)), covariance)
            of_each.append(weight + law.log_prob(x))
        truth = torch.logsumexp(torch.stack(of_each), 0).mean().item()
    estimates = found(
        built, BDMC(steps=20, chains=4, leapfrog=4, rows=24, batch=24), AIS(steps=30, leapfrog=4, batch=24)
    )
    assert estimates["ais"].value == pytest.approx(truth, abs=0.1)
    lower, upper = estimates["bdmc_lower"].value, estimates["bdmc_upper"].value
    assert lower is not None and upper is not None and -0.1 < upper - lower < 0.5
