"""Reductions: bounds of K draws, estimators of their gradient, and Stein's direction, against closed forms."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from jointgen_vae.reductions import CIWAE, MIWAE, VIMCO, DReG, LogMeanExp, Renyi, Stein
from support.linear_gaussian import exact_model
from support.models import small_model
from torch import Tensor

from jointgen.contracts.reductions import TermDraws
from jointgen.engine.gradient_check import check_ownership
from jointgen.errors import ConfigError
from jointgen.objectives import E, Expr, Objective, Update, elbo, joint_from_text, kl, p, parse, q
from jointgen.objectives.recipe_text import Expression
from jointgen.registry.discovery import load_plugins
from jointgen.reports.explain.descriptions import describe_reductions

DOUBLE = torch.float64
TRUTH: dict[str, Any] = {"weights": [[1.0, 0.8], [0.2, 0.9]], "bias": [0.5, -1.0], "scale": 0.7}
LOG_W = p.log_x_given_z + p.log_z - q.log_z_given_x
LOG_P = p.log_x_given_z + p.log_z
TERMS = torch.tensor([[0.3, -1.0, 0.7, 2.0], [0.0, 0.0, -4.0, 1.0]], dtype=DOUBLE)


def linear(maximize: Expr, *, perturbed: bool = True) -> Any:
    """A linear-Gaussian model whose encoder is the exact posterior, or a little off it."""
    model, _ = exact_model(TRUTH, Objective.of(maximize))
    if perturbed:
        with torch.no_grad():
            for parameter in model.parts.modules["encoder"].parameters():
                parameter += 0.3
    return model


def gradient(maximize: Expr, rows: int = 6, **options: Any) -> dict[str, Tensor]:
    """The gradient of an objective, to be ascended, by parameter."""
    model = linear(maximize, **options)
    model.update().gradient(model.inputs(rows))
    return {name: -p.grad for name, p in model.parts.modules.named_parameters() if p.grad is not None}


def expect_equal(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert found.keys() == wanted.keys()
    for name in found:
        assert torch.allclose(found[name], wanted[name], rtol=0, atol=tolerance), name


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_bounds_by_hand() -> None:
    iwae = TERMS.exp().mean(1).log()
    assert torch.allclose(LogMeanExp()(TERMS), iwae)
    assert torch.allclose(CIWAE(beta=0.25)(TERMS), 0.25 * TERMS.mean(1) + 0.75 * iwae)
    pairs = [(0.5 * (math.exp(a) + math.exp(b)), 0.5 * (math.exp(c) + math.exp(d))) for a, b, c, d in TERMS.tolist()]
    wanted = [0.5 * (math.log(first) + math.log(second)) for first, second in pairs]
    assert MIWAE(groups=2)(TERMS).tolist() == pytest.approx(wanted)
    assert torch.allclose(Renyi(alpha=0.5)(TERMS), 2 * (0.5 * TERMS).exp().mean(1).log())


def test_renyi_goes_from_the_elbo_to_iwae_and_to_the_largest_weight() -> None:
    """Li & Turner 2016, theorem 1: the bound falls in alpha; 0 is IWAE, 1 the ELBO, -infinity the maximum."""
    assert torch.allclose(Renyi(alpha=0.0)(TERMS), TERMS.exp().mean(1).log())
    assert torch.allclose(Renyi(alpha=1.0)(TERMS), TERMS.mean(1))
    assert torch.allclose(Renyi(alpha=1 - 1e-7)(TERMS), TERMS.mean(1), atol=1e-6)
    assert torch.allclose(Renyi(alpha=-900.0)(TERMS), TERMS.max(1).values, atol=2e-3)
    orders = [Renyi(alpha=alpha)(TERMS) for alpha in (-1.0, 0.0, 0.5, 1.0, 2.0)]
    assert all(bool((higher > lower).all()) for higher, lower in itertools.pairwise(orders))


EDGES = [
    (Renyi(alpha=0.0), "logmeanexp"),
    (Renyi(alpha=1.0), "mean"),
    (CIWAE(beta=0.0), "logmeanexp"),
    (MIWAE(groups=4), "mean"),
]


@pytest.mark.parametrize(("reduction", "wanted"), EDGES, ids=str)
def test_edges_of_bounds_are_the_known_objectives_with_their_gradients(reduction: Any, wanted: str) -> None:
    expect_equal(gradient(E(q.xz, LOG_W, k=4, reduce=reduction)), gradient(E(q.xz, LOG_W, k=4, reduce=wanted)))


# --- estimators of the gradient of IWAE's bound ----------------------------------------------------------------------


def gaussian_gradients(estimator: Any, nodes: int = 48) -> tuple[Tensor, Tensor]:
    """The expected gradient in (mean, log scale) of q and in theta, and that of IWAE's bound, by quadrature.

    K = 2, log p(x, z) = -(z - theta)^2 - log cosh z, q = N(mean, scale^2): the expectation over the two draws is a
    product of Gauss-Hermite rules.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    eps = torch.tensor(list(itertools.product(points, points)), dtype=DOUBLE)
    mass = torch.tensor([a * b for a, b in itertools.product(weights, weights)], dtype=DOUBLE) / (2 * math.pi)
    parameters = torch.tensor([0.4, -0.3, 0.9], dtype=DOUBLE, requires_grad=True)

    def log_w(z: Tensor, mean: Tensor, log_scale: Tensor, theta: Tensor) -> Tensor:
        log_q = -0.5 * ((z - mean) * torch.exp(-log_scale)).square() - log_scale
        return -(z - theta).square() - torch.log(torch.cosh(z)) - log_q

    mean, log_scale, theta = parameters
    path = mean + log_scale.exp() * eps
    leaf = path.detach().reshape(-1, 1).requires_grad_()
    at = leaf.reshape(-1, 2)
    held = (mean.detach(), log_scale.detach()) if estimator.holds_draws else (mean, log_scale)
    log_q = -0.5 * ((at - mean) * torch.exp(-log_scale)).square() - log_scale
    draws = TermDraws(log_w(at, *held, theta), {"z": leaf}, {"z": path.reshape(-1, 1)}, log_q)
    (found,) = torch.autograd.grad((mass * estimator.surrogate(draws)).sum(), parameters, retain_graph=True)
    bound = torch.logsumexp(log_w(path, mean, log_scale, theta), 1)
    (wanted,) = torch.autograd.grad((mass * bound).sum(), parameters)
    return found, wanted


@pytest.mark.parametrize("estimator", [DReG(), VIMCO()], ids=str)
def test_estimators_have_the_expected_gradient_of_iwae(estimator: Any) -> None:
    """Tucker et al. 2019, eq. 8, and Mnih & Rezende 2016, eq. 11: another estimator of the same gradient."""
    found, wanted = gaussian_gradients(estimator)
    assert torch.allclose(found, wanted, rtol=0, atol=1e-8)
    assert bool((wanted.abs() > 0.05).all())  # so a zero would be seen


def test_vimco_is_unbiased_for_a_bit_by_enumeration() -> None:
    """z is a bit with q(z = 1) = s(a), K = 3: the gradient in a over all 8 draws, with the exact one."""
    logit = torch.tensor(0.3, dtype=DOUBLE, requires_grad=True)
    log_joint = torch.tensor([-1.0, 0.4], dtype=DOUBLE)
    bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)), dtype=DOUBLE)
    log_q = bits * torch.nn.functional.logsigmoid(logit) + (1 - bits) * torch.nn.functional.logsigmoid(-logit)
    log_w = log_joint[bits.long()] - log_q
    probability = log_q.sum(1).exp()
    surrogate = VIMCO().surrogate(TermDraws(log_w, {}, {}, log_q))
    (found,) = torch.autograd.grad((probability.detach() * surrogate).sum(), logit, retain_graph=True)
    (wanted,) = torch.autograd.grad((probability * (torch.logsumexp(log_w, 1) - math.log(3))).sum(), logit)
    assert found.item() == pytest.approx(wanted.item(), abs=1e-12)


def test_dreg_has_no_variance_at_the_exact_posterior_and_iwae_has() -> None:
    """There log w is the same for every z, so its slope in z is zero; the score that IWAE keeps is not."""
    source = {"weights": [[0.9], [-0.4], [0.3]], "bias": [0.5, 0.0, -1.0], "scale": 0.6}
    for reduce, is_zero in (("dreg", True), ("logmeanexp", False)):
        model, _ = exact_model(source, Objective.of(E(q.xz, LOG_W, k=4, reduce=reduce)))
        model.update().gradient(model.inputs(6))
        largest = max(float(p.grad.abs().max()) for p in model.parts.modules["encoder"].parameters())  # type: ignore[union-attr]
        assert (largest < 1e-12) is is_zero


def test_estimators_give_the_decoder_the_gradient_of_iwae_and_report_its_bound() -> None:
    wanted = gradient(E(q.xz, LOG_W, k=4, reduce="logmeanexp"))
    for reduce in ("dreg", "vimco"):
        found = gradient(E(q.xz, LOG_W, k=4, reduce=reduce))
        expect_equal(*({n: g for n, g in all_of.items() if n.startswith("decoder")} for all_of in (found, wanted)))
    model = linear(E(q.xz, LOG_W, k=4, reduce="dreg"))
    (figures, _), inputs = model.update().gradient(model.inputs(6)), model.inputs(6)
    bound = model.rows(E(q.xz, LOG_W, k=4, reduce="logmeanexp"))(inputs).mean()
    assert figures["model/loss"].item() == pytest.approx(-bound.item(), abs=1e-12)


# --- Stein -----------------------------------------------------------------------------------------------------------


def test_stein_of_one_draw_is_plain_ascent() -> None:
    """With K = 1 the kernel is 1 and its slope 0: the gradient of log p(x, z), to encoder and decoder."""
    expect_equal(gradient(E(q.xz, LOG_P, k=1, reduce="stein", wrt="z")), gradient(E(q.xz, LOG_P)))


def test_direction_of_two_draws_by_hand() -> None:
    """h = 1, z = 0 and 1, slopes -z: k = 1/e; phi_0 = (0 - 1/e - 2/e) / 2 and phi_1 = (-1 + 0 + 2/e) / 2."""
    z = torch.tensor([[[0.0], [1.0]]], dtype=DOUBLE)
    assert Stein(width=1.0).direction(z, -z).flatten().tolist() == pytest.approx([-1.5 / math.e, -0.5 + 1 / math.e])
    median = Stein().direction(z, -z)  # the median of squared distances is 1, so that h = 1 / log 3 and k = 1/3
    assert median.flatten().tolist() == pytest.approx(
        [0.5 * (-1 - 2 * math.log(3)) / 3, 0.5 * (2 * math.log(3) / 3 - 1)]
    )


def test_steinvae_moves_the_encoder_along_phi_and_the_decoder_by_the_mean() -> None:
    """Both gradients by hand, in loops over draws, from the draws that the program made."""
    k, rows, stein = 3, 4, Stein(width=0.7, repulsion=2.0)
    model = linear(E(q.xz, LOG_P, k=k, reduce=stein, wrt="z"))
    update, inputs = model.update(), model.inputs(rows)
    update.gradient(inputs)
    found = {name: -p.grad.clone() for name, p in model.parts.modules.named_parameters() if p.grad is not None}
    values = update.program.run(inputs)
    (summand,) = update.plan.summands
    drawn: Any = summand.lowered
    z = values[update.program.index[drawn.draws.paths[0]]].unflatten(0, (rows, k))
    x = next(
        v for node, v in zip(update.program.nodes, values, strict=True) if node.title == "q.x" and v.shape[0] == rows
    )

    def log_joint(x: Tensor, z: Tensor) -> Tensor:
        law, prior = model.parts.modules["decoder"](z[None]), model.parts.modules["prior"](1)
        return law.log_prob(x[None])[0] + prior.log_prob(z[None])[0]

    moved: Any = 0.0
    plain: Any = 0.0
    for b in range(rows):
        leaf = [z[b, j].detach().requires_grad_() for j in range(k)]
        slope = [torch.autograd.grad(log_joint(x[b], one), one)[0] for one in leaf]
        for i in range(k):
            phi = torch.zeros(2, dtype=DOUBLE)
            for j in range(k):
                kernel = torch.exp(-(leaf[j] - leaf[i]).square().sum() / 0.7)
                (push,) = torch.autograd.grad(kernel, leaf[j])
                phi += (kernel.detach() * slope[j] + 2.0 * push) / k
            moved = moved + (z[b, i] * phi).sum() / (k * rows)
            plain = plain + log_joint(x[b], z[b, i].detach()) / (k * rows)
    encoder, decoder = (list(model.parts.modules[name].parameters()) for name in ("encoder", "decoder"))
    wanted = [*torch.autograd.grad(moved, encoder), *torch.autograd.grad(plain, decoder)]
    names = [f"encoder.{n}" for n, _ in model.parts.modules["encoder"].named_parameters()]
    names += [f"decoder.{n}" for n, _ in model.parts.modules["decoder"].named_parameters()]
    expect_equal(found, dict(zip(names, wanted, strict=True)))


def test_svgd_matches_the_moments_of_a_gaussian() -> None:
    """40 particles from N(-4, 0.25) to N(1, 4): the mean within 0.01, the variance, known to be low, within 10 %."""
    z = -4 + 0.5 * torch.tensor(np.random.default_rng(0).standard_normal((1, 40, 1)))
    for _ in range(1500):
        z = z + 0.5 * Stein().direction(z, -(z - 1.0) / 4.0)
    assert z.mean().item() == pytest.approx(1.0, abs=0.01)
    assert z.var().item() == pytest.approx(4.0, rel=0.1)


# --- what the mechanism promises --------------------------------------------------------------------------------------

ALL = ("logmeanexp", "renyi", "ciwae", "miwae", "dreg", "vimco", "stein")


@pytest.mark.parametrize("name", ALL)
def test_gradients_go_where_the_plan_says(name: str) -> None:
    model = small_model(Objective.of(E(q.xz, LOG_W, k=8, reduce=name)))
    assert check_ownership(model.plan, model.parts, model.data(6), 6) == {}
    (summand,) = model.plan.updates[0].summands
    ways = {"dreg": {"samples"}, "stein": {"samples", "explicit"}, "vimco": {"explicit"}}
    assert summand.gradient_paths["encoder"] == ways.get(name, {"samples", "explicit"})


@pytest.mark.parametrize("name", ["dreg", "vimco", "stein"])
def test_the_encoder_alone_has_the_same_gradient(name: str) -> None:
    """Where the decoder is not trained, the term's slope in the draw still goes through it."""
    whole = gradient(E(q.xz, LOG_W, k=8, reduce=name))
    model, _ = exact_model(TRUTH, Objective((Update("model", E(q.xz, LOG_W, k=8, reduce=name), trains="encoder"),)))
    with torch.no_grad():
        for parameter in model.parts.modules["encoder"].parameters():
            parameter += 0.3
    model.update().gradient(model.inputs(6))
    for key, parameter in model.parts.modules["encoder"].named_parameters():
        assert parameter.grad is not None
        assert torch.allclose(-parameter.grad, whole[f"encoder.{key}"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["dreg", "vimco", "stein"])
def test_micro_batches_equal_the_whole(name: str) -> None:
    def after(micro_batches: int) -> list[Tensor]:
        model = small_model(Objective.of(E(q.xz, LOG_W, k=4, reduce=name))).double()
        model.step(micro_batches=micro_batches)(lambda r: model.inputs())
        return [p.detach() for p in model.parts.modules.parameters()]

    for one, four in zip(after(1), after(4), strict=True):
        assert torch.allclose(one, four, rtol=0, atol=1e-12)


def test_text_and_python_are_the_same_objective() -> None:
    registry = load_plugins().registry
    composed = E(q.xz, LOG_P, k=5, reduce="stein", wrt="z")
    assert str(composed) == "E[q(x,z); k=5 stein(z)](log p(x|z) + log p(z))"
    assert parse(str(composed)) == composed
    assert Expression.of(Objective.of(composed), registry).objective() == Objective.of(composed)
    assert parse("E[q(x,z); k=5 mean](log p(z))") == E(q.xz, p.log_z, k=5)


def test_explain_says_what_the_gradient_is() -> None:
    model = small_model(Objective.of(E(q.xz, LOG_W, k=4, reduce="vimco") + E(q.xz, LOG_W)))
    (line,) = describe_reductions(model.plan.updates[0].update)
    assert line.startswith("E[q(x,z); k=4 vimco]: the draws' parts get the score of each draw times what the draw adds")


KL_Z = kl(q.log_z_given_x, p.log_z)
WRONG = [
    (E(q.xz, LOG_W, k=4, reduce="drag"), "unknown reduction 'drag'; did you mean 'dreg'?"),
    (E(q.xz, LOG_W, k=1, reduce="vimco"), "k must be at least 2"),
    (E(q.xz, LOG_W, k=6, reduce="miwae"), "6 draws do not divide into groups = 8"),
    (E(q.xz, LOG_P - 0.5 * q.log_z_given_x, k=4, reduce="dreg"), "log q(z|x) once, with the weight -1"),
    (E(q.xz, p.log_x_given_z - KL_Z, k=4, reduce="dreg"), "log q(z|x) once, with the weight -1"),
    (E(q.xz, LOG_W, k=4, reduce="stein", wrt="x"), "'x' is drawn from data"),
    (E(q.xz, LOG_W, k=4, reduce="logmeanexp", wrt="z"), "looks at the term's values only"),
    (E(q.x, p.log("x|z", stop="z") * 0.0, k=4, reduce="stein"), "no conditional draws x"),
]


@pytest.mark.parametrize(("maximize", "message"), WRONG, ids=[message for _, message in WRONG])
def test_mistakes_are_one_line(maximize: Expr, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        small_model(Objective.of(maximize))
    assert message in str(caught.value)


def test_a_prior_scores_its_draw_at_each_of_the_rows_that_repeat_it() -> None:
    """z is a root, drawn once for a row: k draws of x given z repeat it, and so does E[p(z); k=2]."""
    for text in ("E[p(x,z); k=3](log p(z))", "E[p(z); k=2 logmeanexp](log p(z))"):
        model = small_model(Objective.of(elbo(q, p)))
        found = model.rows(parse(text))(model.inputs())
        once = model.rows(parse("E[p(z)](log p(z))"))(model.inputs())
        torch.testing.assert_close(found, once)


def test_dreg_is_of_all_codes_at_once() -> None:
    """The path of z2 through z1 would keep weights that are not squared."""
    q2 = joint_from_text("q", "q(x) q(z1|x) q(z2|z1)", {"q(z2|z1)": "top"})
    p2 = joint_from_text("p", "p(z2) p(z1|z2) p(x|z1)", {"p(z1|z2)": "down"})
    log_w = p2.log("x|z1") + p2.log("z1|z2") + p2.log("z2") - q2.log("z1|x") - q2.log("z2|z1")
    network = {"network": {"type": "mlp", "hidden": [4]}, "family": {"type": "gaussian"}}
    more = {"latents": {"z1": 2}, "encoders": {"top": network}, "decoders": {"down": network}}
    small_model(Objective.of(E(q2.everything, log_w, k=3, reduce="dreg")), **more)
    with pytest.raises(ConfigError, match="all draws of conditionals at once; name z2 too, or none"):
        small_model(Objective.of(E(q2.everything, log_w, k=3, reduce="dreg", wrt="z1")), **more)


def test_a_variable_that_is_not_drawn_is_marked() -> None:
    with pytest.raises(ConfigError, match=r"q\(x,z\) has no 'w'"):
        parse("E[q(x,z); k=4 stein(w)](log p(z))")


IMPLICIT = {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "implicit", "noise": 3}}


def test_requirements_are_those_of_the_reduction() -> None:
    """Stein needs a path and no density, DReG the density at the draw cut from its path."""
    small_model(Objective.of(E(q.xz, LOG_P, k=4, reduce="stein")), encoder=IMPLICIT)
    with pytest.raises(ConfigError, match=r"a density at points that it did not draw for q\(z\|x\)"):
        small_model(Objective.of(E(q.xz, LOG_W, k=4, reduce="dreg")), encoder=IMPLICIT)


def test_settings_stand_in_a_table_and_are_read_back() -> None:
    registry = load_plugins().registry
    written = Expression(
        maximize="E[q(x,z); k=4 near(z)](log p(x|z) + log p(z))",
        reductions={"near": Stein(width=2.0)},
    )
    objective: Any = written.objective()
    (update,) = objective.updates
    assert str(update.maximize) == written.maximize
    assert "near = Stein(width=2.0)" in str(objective)
    assert Expression.of(objective, registry).reductions == {"near": Stein(width=2.0)}
    with pytest.raises(ConfigError, match="no update and no report uses it"):
        Expression(maximize="E[q(x,z)](log p(x|z))", reductions={"near": Stein()}).objective()
