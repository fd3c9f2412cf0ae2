"""The compiled step against loops of plain torch written out here, in double precision."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from jointgen_ali.objective import ALI
from jointgen_asvae.objective import ASVAE
from jointgen_avb.objective import AVB
from jointgen_critics.penalties import R1
from jointgen_vae.objective import IWAE, VAE
from support.models import assemble, make_step, small_model
from support.networks import Line, Polynomial, StandardNormal, WatchedCritic
from support.noise import WrittenNoise
from torch import Tensor
from torch.nn import functional as F

from jointgen.compiler.plan import lower_expression
from jointgen.contracts.noise import Noise
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.terms import PerRow
from jointgen.engine.update import UpdateRunner
from jointgen.errors import ConfigError
from jointgen.objectives import (
    Constant,
    CriticTable,
    E,
    Expr,
    Objective,
    Pace,
    Update,
    Weight,
    WeightTable,
    absolute,
    clip,
    cycle,
    elbo,
    exp,
    log,
    log_ratio,
    log_sigmoid,
    p,
    q,
    relu,
    score,
    sigmoid,
    softplus,
    square,
    stop,
    tanh,
)

Tensors = list[Tensor]

ROWS = 6
NAMES = ("q(z|x)", "p(z)", "p(x|z)", "p1(z)", "p'(x|z)", "R1(d)")
F1, F2 = (0.1, 0.3, -0.2, 0.5, -0.1, 0.2), (-0.1, 0.2, 0.3, -0.4, 0.1, -0.3)


def numbers(name: str, rows: int = ROWS) -> Tensor:
    """(rows, 1) fixed standard normal numbers."""
    return Noise(7, dtype=torch.float64).named(name, rows).normal(1)


def lines(**critics: Any) -> dict[str, Any]:
    """q(z|x) = N(0.6 x + 0.1, 0.8^2), p(x|z) = N(0.9 z - 0.2, 0.6^2), about."""
    own = {"encoder": Line(0.6, 0.1, -0.2), "decoder": Line(0.9, -0.2, -0.5), "prior": StandardNormal()}
    return own | critics


def written(step: int = 0) -> tuple[dict[str, Tensor], Any]:
    """Noise by name, and the same for the engine."""
    values = {name: numbers(f"{step} {name}") for name in NAMES}
    return values, WrittenNoise(values)


def moment_of(noise: Any, x: Tensor, **more: Any) -> StepInputs:
    return StepInputs({"data": {"x": x}}, noise, len(x), **more)


# --- plain torch -----------------------------------------------------------------------------------------------------


def line(params: Sequence[Tensor], given: Tensor, eps: Tensor) -> Tensor:
    slope, offset, log_scale = params
    return slope * given + offset + log_scale.exp() * eps


def log_line(params: Sequence[Tensor], value: Tensor, given: Tensor) -> Tensor:
    """(B,) log N(value; slope given + offset, exp(log_scale)^2)."""
    slope, offset, log_scale = params
    standard = (value - slope * given - offset) * (-log_scale).exp()
    return (-0.5 * standard**2 - log_scale - 0.5 * math.log(2 * math.pi))[:, 0]


def polynomial(w: Tensor, x: Tensor, z: Tensor) -> Tensor:
    return (w[0] + w[1] * x + w[2] * z + w[3] * x * z + w[4] * x * x + w[5] * z * z)[:, 0]


def start() -> tuple[Tensors, Tensors]:
    def leaves(*values: float) -> Tensors:
        return [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]

    return leaves(0.6, 0.1, -0.2), leaves(0.9, -0.2, -0.5)


def critic_leaf(weights: Sequence[float]) -> Tensor:
    return torch.tensor(weights, dtype=torch.float64, requires_grad=True)


def descend(loss: Tensor, params: Sequence[Tensor], lr: float) -> None:
    for param, grad in zip(params, torch.autograd.grad(loss, list(params)), strict=True):
        param.data -= lr * grad


def flat(module: Any) -> list[float]:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).tolist()


def close(module: Any, params: Sequence[Tensor]) -> None:
    assert flat(module) == pytest.approx([v for param in params for v in param.detach().flatten().tolist()], abs=1e-12)


# --- ALI, at the same point ------------------------------------------------------------------------------------------


def test_ali_takes_both_gradients_at_the_same_point() -> None:
    """Three steps against Dumoulin et al.'s loop: L_D = sp(-f_q) + sp(f_p), L_G = sp(f_q) + sp(-f_p), both gradients
    taken before anything moves."""
    modules = lines(f=Polynomial(*F1))
    plan, parts = assemble(ALI().objective(), modules)
    step = make_step(plan, parts, 0.1)
    (encoder, decoder), w, x = start(), critic_leaf(F1), numbers("x")
    for number in range(3):
        values, noise = written(number)
        step(lambda r, noise=noise: moment_of(noise, x))
        zq = line(encoder, x, values["q(z|x)"])
        xp = line(decoder, values["p(z)"], values["p(x|z)"])
        fq, fp = polynomial(w, x, zq), polynomial(w, xp, values["p(z)"])
        model = [*encoder, *decoder]
        for_model = torch.autograd.grad((F.softplus(fq) + F.softplus(-fp)).mean(), model, retain_graph=True)
        (for_critic,) = torch.autograd.grad((F.softplus(-fq) + F.softplus(fp)).mean(), [w])
        for param, grad in zip([*model, w], [*for_model, for_critic], strict=True):
            param.data -= 0.1 * grad
        close(modules["encoder"], encoder)
        close(modules["decoder"], decoder)
        close(modules["f"], [w])


# --- AS-VAE, literal: the order of updates ---------------------------------------------------------------------------


def asvae_loop(order: str, noises: list[dict[str, Tensor]], x: Tensor, lr: float) -> dict[str, Tensors]:
    """Equations 5, 6 and 11 in plain torch. "model, critics": the critics see the draws that the model just learned
    from, as they were. "critics, model": they go first, and the model sees them as they have become."""
    (encoder, decoder), w1, w2 = start(), critic_leaf(F1), critic_leaf(F2)

    def draws(noise: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return line(encoder, x, noise["q(z|x)"]), line(decoder, noise["p(z)"], noise["p(x|z)"])

    def model(noise: dict[str, Tensor]) -> None:
        (zq, xp), z = draws(noise), noise["p(z)"]
        first = log_line(decoder, x, zq) - polynomial(w1, x, zq)
        second = log_line(encoder, z, xp) - polynomial(w2, xp, z)
        descend(-(first.mean() + second.mean()), [*encoder, *decoder], lr)

    def critics(noise: dict[str, Tensor], zq: Tensor, xp: Tensor) -> None:
        zq, xp, z, another = zq.detach(), xp.detach(), noise["p(z)"], noise["p1(z)"]
        others = x.roll(1, 0)  # one block of six rows
        loss1 = F.softplus(-polynomial(w1, x, zq)).mean() + F.softplus(polynomial(w1, xp, another)).mean()
        loss2 = F.softplus(-polynomial(w2, xp, z)).mean() + F.softplus(polynomial(w2, others, zq)).mean()
        descend(loss1, [w1], lr)
        descend(loss2, [w2], lr)

    for noise in noises:
        if order == "model, critics":
            before = draws(noise)
            model(noise)
            critics(noise, *before)
        else:
            critics(noise, *draws(noise))
            model(noise)
    return {"encoder": encoder, "decoder": decoder, "f1": [w1], "f2": [w2]}


@pytest.mark.parametrize("order", ["model, critics", "critics, model"])
def test_the_literal_asvae_follows_its_order(order: Any) -> None:
    modules = lines(f1=Polynomial(*F1), f2=Polynomial(*F2))
    plan, parts = assemble(Objective(ASVAE(form="literal").objective().updates, order), modules)
    step, x = make_step(plan, parts, 0.2), numbers("x")
    noises = [written(number) for number in range(3)]
    for _, noise in noises:
        step(lambda r, noise=noise: moment_of(noise, x))
    by_hand = asvae_loop(order, [values for values, _ in noises], x, 0.2)
    for name, params in by_hand.items():
        close(modules[name], params)


def test_the_two_orders_end_elsewhere() -> None:
    """What the test above tells apart."""
    noises = [{name: numbers(f"{i} {name}") for name in ("q(z|x)", "p(z)", "p(x|z)", "p1(z)")} for i in range(3)]
    ends = [asvae_loop(order, noises, numbers("x"), 0.2) for order in ("model, critics", "critics, model")]
    assert all((ends[0][part][0] - ends[1][part][0]).abs().max() > 1e-3 for part in ("encoder", "decoder"))


# --- who is trained --------------------------------------------------------------------------------------------------


def snapshot(model: Any) -> dict[str, dict[str, Tensor]]:
    return {name: copy.deepcopy(module.state_dict()) for name, module in model.parts.modules.items()}


def moved(model: Any, before: dict[str, dict[str, Tensor]]) -> set[str]:
    """Parts of which any number changed at all."""
    now = {name: module.state_dict() for name, module in model.parts.modules.items()}
    return {n for n, state in before.items() if any(not torch.equal(state[k], now[n][k]) for k in state)}


@pytest.mark.parametrize(
    ("update", "trained"),
    [("model", {"encoder", "decoder"}), ("f1", {"f1"}), ("f2", {"f2"})],
)
def test_an_update_moves_what_it_trains_and_nothing_else(update: str, trained: set[str]) -> None:
    """Bit for bit: neither the critics by the model's update, nor the model by the critics'."""
    model = small_model(ASVAE(form="literal").objective())
    step, before = model.step(), snapshot(model)
    step.optimizers = {name: own if name == update else [] for name, own in step.optimizers.items()}
    step(lambda r: model.inputs(repetition=r))
    assert moved(model, before) == trained


def test_an_update_leaves_no_gradient_where_it_does_not_train() -> None:
    model = small_model(ASVAE(form="literal").objective())
    for name, trained in (("model", {"encoder", "decoder"}), ("f1", {"f1"}), ("f2", {"f2"})):
        model.parts.modules.zero_grad(set_to_none=True)
        model.update(name).gradient(model.inputs())
        given = {
            part for part, module in model.parts.modules.items() for w in module.parameters() if w.grad is not None
        }
        assert given == trained


def test_an_update_that_names_one_part_leaves_the_other() -> None:
    model = small_model(Objective((Update("encoder", elbo(q, p), trains="encoder"),)))
    before = snapshot(model)
    model.step()(lambda r: model.inputs(repetition=r))
    assert moved(model, before) == {"encoder"}


def test_a_parameter_that_nothing_reaches_gets_zeros() -> None:
    """Every process must send the same list of gradients. A critic that sees means never moves the decoder's scale."""
    d = log_ratio(q.x, p.x, name="d", view={"x": "mean"})
    model = small_model(Objective.of(E(p.x, log_sigmoid(d))))
    model.update().gradient(model.inputs())
    grads = {name: w.grad for name, w in model.parts.modules["decoder"].named_parameters()}
    assert not grads.pop("family.log_scale").any()
    assert all(grad.any() for grad in grads.values())


# --- every, times, clip ----------------------------------------------------------------------------------------------


def test_every_third_step() -> None:
    d = log_ratio(q.x, p.x, name="d")
    model = small_model(Objective((Update("model", E(p.x, log_sigmoid(d)), every=3),)))
    step, due = model.step(), []
    for number in range(7):
        before = snapshot(model)
        stats = step(lambda r, number=number: model.inputs(step=number, repetition=r))
        found = moved(model, before)
        assert ("model/loss" in stats) == ("decoder" in found)
        assert "d" in found
        due.append("decoder" in found)
    assert due == [True, False, False, True, False, False, True]


def test_draws_of_an_update_that_is_not_due_are_still_the_parts_own() -> None:
    d = score(q.x, p.x, name="d", loss="wasserstein")
    critic = WatchedCritic(0.3)
    modules = {"prior": StandardNormal(), "decoder": Line(0.9, -0.2, -0.5), "d": critic}
    plan, parts = assemble(Objective((Update("model", E(p.x, d), every=2),)), modules)
    step = make_step(plan, parts, 0.1)
    for number in range(2):
        values, noise = written(number)
        critic.calls.clear()
        slope, offset, log_scale = (w.detach().clone() for w in modules["decoder"].parameters())
        step(lambda r, noise=noise, number=number: moment_of(noise, numbers("x"), step=number))
        (positive,), (negative,) = critic.calls[-2:]
        assert torch.equal(positive, numbers("x"))
        assert torch.allclose(negative, slope * values["p(z)"] + offset + log_scale.exp() * values["p(x|z)"])


def test_repetitions_have_data_and_noise_of_their_own() -> None:
    """A Wasserstein critic w x moves by lr (mean x - mean xp) in each repetition, whatever w is. The model's gradient
    here is lr w mean(dxp), taken once, before."""
    d = score(q.x, p.x, name="d", loss="wasserstein", times=3)
    critic, lr = WatchedCritic(0.5), 0.1
    decoder = Line(0.9, -0.2, -0.5)
    modules = {"prior": StandardNormal(), "decoder": decoder, "d": critic}
    plan, parts = assemble(Objective.of(E(p.x, d)), modules)
    data = [numbers(f"x {r}") for r in range(3)]
    noises = [written(r) for r in range(3)]
    asked: list[int] = []

    def moment(r: int) -> StepInputs:
        asked.append(r)
        return moment_of(noises[r][1], data[r])

    before = [w.detach().clone() for w in decoder.parameters()]
    make_step(plan, parts, lr)(moment)
    after = [w.detach() for w in decoder.parameters()]
    z0 = noises[0][0]["p(z)"]
    grads = [z0.mean(), torch.ones((), dtype=torch.float64), before[2].exp() * noises[0][0]["p(x|z)"].mean()]
    for old, new, grad in zip(before, after, grads, strict=True):
        assert new.item() == pytest.approx((old + lr * 0.5 * grad).item(), abs=1e-12)
    w = 0.5
    for r, (values, _) in enumerate(noises):
        params = before if r == 0 else after  # the first shares the model's draws, taken before it moved
        w += lr * (data[r].mean() - line(params, values["p(z)"], values["p(x|z)"]).mean()).item()
    assert critic.weight.item() == pytest.approx(w, abs=1e-12)
    assert asked == [0, 1, 2]


def test_clipping_is_by_the_norm_over_all_that_an_update_trains() -> None:
    """Plain descent at rate 1 moves by the clipped gradient: by 0.01 in all, in the direction of the unclipped one."""

    def moves(clip: float | None) -> tuple[Tensor, float]:
        model = small_model(VAE().objective()).double()
        before = torch.cat([w.detach().flatten().clone() for w in model.parts.modules.parameters()])
        stats = model.step(lr=1.0, clip=clip)(lambda r: model.inputs(repetition=r), until_log=0)
        after = torch.cat([w.detach().flatten() for w in model.parts.modules.parameters()])
        return after - before, float(stats["model/grad_norm"])

    whole, norm = moves(None)
    clipped, reported = moves(0.01)
    assert norm > 0.1
    assert norm == pytest.approx(whole.norm().item(), rel=1e-10)
    assert reported == pytest.approx(norm, rel=1e-10)  # as it was before clipping
    assert clipped.norm().item() == pytest.approx(0.01, rel=1e-4)
    assert torch.nn.functional.cosine_similarity(whole, clipped, 0).item() == pytest.approx(1.0, abs=1e-12)
    assert torch.equal(moves(1e6)[0], whole)


# --- randomness ------------------------------------------------------------------------------------------------------


def trained(seed: int, **changes: Any) -> dict[str, Tensor]:
    model = small_model(ASVAE(form="literal").objective(), **changes)
    model.parts.modules.train()
    step = model.step()
    for number in range(3):
        step(lambda r, number=number: model.inputs(seed=seed, step=number, repetition=r))
    return {name: value.clone() for name, value in model.parts.modules.state_dict().items()}


DROPPING: dict[str, Any] = {
    "encoder": {"network": {"type": "mlp", "hidden": [6], "dropout": 0.5}, "family": {"type": "gaussian"}},
    "discriminator": {"type": "mlp", "hidden": [6], "dropout": 0.5},
}


@pytest.mark.parametrize("changes", [{}, DROPPING], ids=["plain", "dropout"])
def test_a_seed_decides_everything(changes: dict[str, Any]) -> None:
    """Same seed, same bits, and no global generator is read; another seed gives other numbers."""
    first = trained(0, **changes)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    again = trained(0, **changes)
    assert torch.equal(torch.get_rng_state(), state)
    other = trained(1, **changes)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_dropout_is_one_mask_for_one_run() -> None:
    """log q(z|x) held, stopped or live is one number: that of the network, thinned as when z was drawn."""
    model = small_model(VAE().objective(), **DROPPING).double()
    model.parts.modules.train()
    live = q.log("z|x")
    differences = E(q.xz, live - q.log("z|x", hold=True)) + E(q.xz, live - q.log("z|x", stop="x"))
    other = small_model(Objective.of(differences + 0 * elbo(q, p)), **DROPPING).double()
    other.parts.modules.load_state_dict(model.parts.modules.state_dict())
    other.parts.modules.train()
    loss, means, _ = other.update().loss(other.inputs())
    assert loss.item() == pytest.approx(0.0, abs=1e-12)
    other.parts.modules.eval()
    assert float(means["model/E[q(x,z)] log q(z|x)"]) != float(
        other.update().loss(other.inputs())[1]["model/E[q(x,z)] log q(z|x)"]
    ), "there is dropout to tell apart"


def test_dropout_is_another_mask_for_another_run() -> None:
    """The encoder at x and at xp, and the same network in the next step."""
    model = small_model(ASVAE(form="literal").objective(), **DROPPING)
    model.parts.modules.train()
    masks: list[Tensor] = []
    trunk: Any = model.parts.modules["encoder"].trunk
    dropout = next(module for module in trunk.modules() if type(module).__name__ == "Dropout")
    dropout.register_forward_hook(lambda module, args, out: masks.append((out != 0) | (args[0] == 0)))
    step = model.step()
    for number in range(2):
        step(lambda r, number=number: model.inputs(rows=32, step=number, repetition=r))
    assert len(masks) == 4
    assert all(not torch.equal(masks[i], masks[j]) for i in range(4) for j in range(i))


# --- weights and penalties -------------------------------------------------------------------------------------------


def test_a_weight_is_taken_where_the_stage_stands() -> None:
    """lambda goes from 0 to 10 over half the stage: at 0.125 it is 2.5, outside a function and inside one."""
    lam, f = Weight("lambda", 10.0, start=0.0, over=0.5), log_ratio(q.xz, p.xz, name="f")
    objective = Objective.of(E(q.xz, p.log_x_given_z - lam * f + square(lam * f)) - lam * (2 * E(q.xz, exp(f))))
    plan, parts = assemble(objective, lines(f=Polynomial(*F1)))
    values, noise = written()
    x = numbers("x")
    zq = line(start()[0], x, values["q(z|x)"])
    f_value = polynomial(critic_leaf(F1), x, zq)
    for progress, weight in ((0.0, 0.0), (0.125, 2.5), (0.5, 10.0), (1.0, 10.0)):
        loss, _, _ = UpdateRunner(plan.updates[0], parts).loss(moment_of(noise, x, progress=progress))
        log_p = log_line(start()[1], x, zq)
        expected = log_p - weight * f_value + (weight * f_value) ** 2 - weight * 2 * f_value.exp()
        assert loss.item() == pytest.approx(-expected.mean().item(), abs=1e-12)


def test_a_penalty_due_at_every_third_step_weighs_three_times() -> None:
    """For f = w x, R1 is w^2 / 2 at every row, with slope w. Plain descent moves w by -lr 3 weight w more
    than without the penalty at steps 0 and 3, and not at all more at the others."""
    lr, weight = 0.1, 0.7
    moves: dict[bool, list[float]] = {True: [], False: []}
    for penalised in (True, False):
        penalties = (R1(weight=weight, every=3),) if penalised else ()
        d = score(q.x, p.x, name="d", loss="wasserstein", penalties=penalties)
        for number in range(4):
            critic = WatchedCritic(0.5)
            modules = {"prior": StandardNormal(), "decoder": Line(0.9, -0.2, -0.5), "d": critic}
            plan, parts = assemble(Objective.of(E(p.x, d)), modules)
            noise = written()[1]
            stats = make_step(plan, parts, lr)(
                lambda r, noise=noise, number=number: moment_of(noise, numbers("x"), step=number)
            )
            moves[penalised].append(critic.weight.item() - 0.5)
            if penalised:
                due = number % 3 == 0
                assert float(stats["d/R1(d)"]) == pytest.approx(3 / 2 * 0.25 if due else 0.0, abs=1e-12)
    extra = [a - b for a, b in zip(moves[True], moves[False], strict=True)]
    assert extra == pytest.approx([-lr * 3 * weight * 0.5, 0.0, 0.0, -lr * 3 * weight * 0.5], abs=1e-12)


PACES = [(1, 4, [0, 4, 8]), (4, 4, [0, 16]), (2, 3, [0, 6, 12]), (3, 1, [0, 3, 6])]


@pytest.mark.parametrize(("pace", "every", "due"), PACES)
def test_a_penalty_counts_the_steps_of_its_update(pace: int, every: int, due: list[int]) -> None:
    """An update that runs at every nth step has its penalty at every mth of these, m times; at all of them on average
    once. R1 of f = w x at w = 0.5 is 1/8."""
    d = score(q.x, p.x, name="d", loss="wasserstein", penalties=(R1(weight=0.7, every=every),))
    modules = {"prior": StandardNormal(), "decoder": Line(0.9, -0.2, -0.5), "d": WatchedCritic(0.5)}
    plan, parts = assemble(Objective.of(E(p.x, d), paces=(Pace("d", every=pace),)), modules)
    step, found = make_step(plan, parts, 0.0), {}
    for number in range(due[-1] + 1):
        moment = moment_of(written()[1], numbers("x"), step=number)
        if (penalty := step(lambda r, moment=moment: moment).get("d/R1(d)")) is not None:
            found[number] = penalty.item()
    assert sorted(found) == list(range(0, due[-1] + 1, pace))
    assert {number for number, value in found.items() if value} == {*due}
    assert [found[number] for number in due] == pytest.approx([every / 8] * len(due))


def test_a_term_that_stands_twice_has_one_figure() -> None:
    """Its mean: the weights are in the loss alone."""
    model = small_model(Objective.of(E(q.xz, p.log_x_given_z) + E(q.xz, 2 * p.log_x_given_z)))
    figures, _ = model.update().gradient(model.inputs())
    once, _ = small_model(Objective.of(E(q.xz, p.log_x_given_z))).update().gradient(model.inputs())
    name = "model/E[q(x,z)] log p(x|z)"
    assert figures[name].item() == pytest.approx(once[name].item())
    assert figures["model/loss"].item() == pytest.approx(-3 * once[name].item())


def test_a_penalty_weighs_what_its_schedule_says() -> None:
    """R1 at f = w x has slope w = 0.5. Its weight falls from 2 to 1 over half of the stage: 2, 1.5, 1, 1 at 0, 1/4, 1/2
    and 1, so plain descent moves w by -0.1 * 0.5 times that more than without it; a second R1 adds 3 throughout."""
    falling, moves = WeightTable(start=2.0, to=1.0, over=0.5), {}
    for penalties in ((), (R1(falling, every=1),), (R1(falling, every=1), R1(3.0, every=1))):
        for progress in (0.0, 0.25, 0.5, 1.0):
            critic = WatchedCritic(0.5)
            d = score(q.x, p.x, name="d", loss="wasserstein", penalties=penalties)
            modules = {"prior": StandardNormal(), "decoder": Line(0.9, -0.2, -0.5), "d": critic}
            plan, parts = assemble(Objective.of(E(p.x, d)), modules)
            moment = moment_of(written()[1], numbers("x"), progress=progress)
            make_step(plan, parts, 0.1)(lambda r, moment=moment: moment)
            moves.setdefault(len(penalties), []).append(critic.weight.item() - 0.5)
    without, one, two = moves.values()
    extra = [a - b for a, b in zip(one, without, strict=True)]
    assert extra == pytest.approx([-0.05 * weight for weight in (2.0, 1.5, 1.0, 1.0)], abs=1e-12)
    assert [a - b for a, b in zip(two, one, strict=True)] == pytest.approx([-0.05 * 3.0] * 4, abs=1e-12)


def test_a_known_part_is_added_to_the_logit() -> None:
    """f = g + rho, rho = log q(z|x) - log p(z), in the critic's update and in the model's."""
    rho = q.log_z_given_x - p.log_z
    f = log_ratio(q.xz, p.xz, name="f", known=rho)
    plan, parts = assemble(Objective.of(E(q.xz, f)), lines(f=Polynomial(*F1)))
    values, noise = written()
    x, (encoder, decoder), w = numbers("x"), start(), critic_leaf(F1)
    zq, xp, z = line(encoder, x, values["q(z|x)"]), line(decoder, values["p(z)"], values["p(x|z)"]), values["p(z)"]

    def logit(x: Tensor, z: Tensor) -> Tensor:
        log_prior = log_line([torch.zeros(())] * 3, z, x)
        return polynomial(w, x, z) + log_line(encoder, z, x) - log_prior

    losses = {
        "model": -logit(x, zq).mean(),
        "f": F.softplus(-logit(x, zq)).mean() + F.softplus(logit(xp, z)).mean(),
    }
    for update in plan.updates:
        loss, _, _ = UpdateRunner(update, parts).loss(moment_of(noise, x))
        assert loss.item() == pytest.approx(losses[update.name].item(), abs=1e-12)


@pytest.mark.parametrize("known", [q.log_z_given_x - p.log_z, p.log_x_given_z], ids=["of q", "of p"])
def test_a_known_part_is_of_the_parts_as_they_have_become(known: Expr) -> None:
    """After the model's step the critic learns from the model's old draws, with the densities of the new parts on both
    sides: a logit of one function, not of an old and a new one. The model scores log p(x|z) at these draws itself."""
    f = log_ratio(q.xz, p.xz, name="f", known=known)
    modules = lines(f=Polynomial(*F1))
    plan, parts = assemble(Objective.of(E(q.xz, p.log_x_given_z - f)), modules)
    values, noise = written()
    x, (encoder, _), w, z = numbers("x"), start(), critic_leaf(F1), values["p(z)"]
    zq = line(encoder, x, values["q(z|x)"])
    stats = make_step(plan, parts, 0.3)(lambda r: moment_of(noise, x))
    new_q, new_p = ([w.detach() for w in modules[name].parameters()] for name in ("encoder", "decoder"))
    assert abs(new_q[0].item() - 0.6) > 0.01
    assert abs(new_p[0].item() - 0.9) > 0.01
    xp = line(new_p, z, values["p(x|z)"])  # the model did not draw it, so the new decoder does

    def logit(x: Tensor, z: Tensor) -> Tensor:
        if known == p.log_x_given_z:
            return polynomial(w, x, z) + log_line(new_p, x, z)
        return polynomial(w, x, z) + log_line(new_q, z, x) - log_line([torch.zeros(())] * 3, z, x)

    loss = F.softplus(-logit(x, zq)).mean() + F.softplus(logit(xp, z)).mean()
    assert float(stats["f/loss"]) == pytest.approx(loss.item(), abs=1e-12)


# --- values of terms -------------------------------------------------------------------------------------------------


def rows_of(expr: Expr, noise: Any, x: Tensor) -> list[float]:
    """(B,) numbers of an expression with the lines above and the critic F1."""
    resolvable = Objective.of(expr + 0 * elbo(q, p))
    plan, parts = assemble(resolvable, lines(f=Polynomial(*F1)))
    found = lower_expression(plan.updates[0].update.maximize, plan.objective.joints, plan.traits)
    return PerRow(found, parts)(moment_of(noise, x)).tolist()


f = log_ratio(q.xz, p.xz, name="f")


@pytest.mark.parametrize(
    ("term", "by_hand"),
    [
        (log_sigmoid(-f), lambda v: -F.softplus(v)),
        (exp(f), torch.exp),
        (absolute(f), torch.abs),
        (square(f - 1), lambda v: (v - 1) ** 2),
        (softplus(2 * f), lambda v: torch.log1p(torch.exp(2 * v))),
        (relu(f), lambda v: v.clamp(min=0)),
        (sigmoid(-f), lambda v: 1 / (1 + torch.exp(v))),
        (tanh(f), lambda v: (torch.exp(v) - torch.exp(-v)) / (torch.exp(v) + torch.exp(-v))),
        (log(softplus(f)), lambda v: torch.log(torch.log1p(torch.exp(v)))),
        (clip(f, -0.25, 0.5), lambda v: torch.where(v < -0.25, -0.25, torch.where(v > 0.5, 0.5, v))),
        (f - Weight("C", 3.0), lambda v: v - 3),
        (1 - f, lambda v: 1 - v),
        (stop(f), lambda v: v),
        (square(Constant(3.0)) + 0 * f, lambda v: torch.full_like(v, 9.0)),
    ],
)
def test_pointwise_functions(term: Expr, by_hand: Callable[[Tensor], Tensor]) -> None:
    values, noise = written()
    x = numbers("x")
    logits = polynomial(critic_leaf(F1), x, line(start()[0], x, values["q(z|x)"]))
    assert logits.min() < 0 < logits.max()
    found = rows_of(E(q.xz, term), noise, x)
    assert found == pytest.approx(by_hand(logits).tolist(), abs=1e-12)


@pytest.mark.parametrize("reduce", ["mean", "logmeanexp"])
def test_k_draws_of_a_row_are_reduced_together(reduce: Any) -> None:
    """Three codes for each of six rows: rows 3i to 3i + 2 are of x_i."""
    eps = numbers("eps", 18)
    noise = WrittenNoise({"q(z|x) k=3": eps, "q(z|x)": numbers("other")})
    x, (encoder, decoder) = numbers("x"), start()
    log_w = p.log_x_given_z + p.log_z - q.log_z_given_x
    found = rows_of(E(q.xz, log_w, k=3, reduce=reduce), noise, x)
    each = []
    for i in range(6):
        xi = x[i].expand(3, 1)
        z = line(encoder, xi, eps[3 * i : 3 * i + 3])
        log_prior = log_line([torch.zeros(())] * 3, z, xi)
        w = log_line(decoder, xi, z) + log_prior - log_line(encoder, z, xi)
        each.append((w.exp().mean().log() if reduce == "logmeanexp" else w.mean()).item())
    assert found == pytest.approx(each, abs=1e-12)


def test_a_cycle_is_the_distance_to_the_mean_of_the_way_back() -> None:
    values, noise = written()
    x, (encoder, decoder) = numbers("x"), start()
    back = decoder[0] * line(encoder, x, values["q(z|x)"]) + decoder[1]
    found = rows_of(E(q.xz, cycle(p, "x|z")), noise, x)
    assert found == pytest.approx((x - back).abs()[:, 0].tolist(), abs=1e-12)


def test_stop_and_hold_change_gradients() -> None:
    """Under p(x,z), by hand: log q(z|x) pulls on the encoder (explicitly) and on the decoder (through x).

    stop(x): the encoder only.  hold: the decoder only. With mean(z - a x - c) = m over the rows and
    s the encoder's scale, the gradient of the mean is m / s^2 for the encoder's offset and a m / s^2 for the decoder's.
    """
    values, noise = written()
    encoder, decoder = start()
    xp = line(decoder, values["p(z)"], values["p(x|z)"]).detach()
    slope, offset, log_scale = (w.detach() for w in encoder)
    error = (values["p(z)"] - slope * xp - offset).mean().item() / math.exp(2 * log_scale.item())
    for stops, hold in [((), False), (("x",), False), ((), True)]:
        term = E(p.xz, q.log("z|x", stop=stops, hold=hold))
        modules = lines()
        update = Update("model", term, trains=("encoder", "decoder"))
        plan, parts = assemble(Objective((update,)), modules)
        compiled = UpdateRunner(plan.updates[0], parts)
        compiled.gradient(moment_of(noise, numbers("x")))
        expected = {"encoder": 0.0 if hold else -error, "decoder": 0.0 if stops else -slope.item() * error}
        for name, gradient in expected.items():
            assert modules[name].offset.grad.item() == pytest.approx(gradient, abs=1e-12)


def test_stop_on_what_is_scored_leaves_the_score() -> None:
    """Under q(x,z), z = a x + c + s eps: d/dc log q(z|x) is (z - a x - c) / s^2 = eps / s with z stopped, its negative
    through z alone with the parameters held, and the two together are zero."""
    values, noise = written()
    score_of_c = values["q(z|x)"].mean().item() / math.exp(-0.2)
    for term, expected in [
        (q.log("z|x", stop="z"), score_of_c),
        (q.log("z|x", hold=True), -score_of_c),
        (q.log("z|x"), 0.0),
    ]:
        modules = lines()
        del modules["decoder"], modules["prior"]
        plan, parts = assemble(Objective.of(E(q.xz, term)), modules)
        UpdateRunner(plan.updates[0], parts).gradient(moment_of(noise, numbers("x")))
        assert modules["encoder"].offset.grad.item() == pytest.approx(-expected, abs=1e-12)


def test_a_view_is_what_the_critic_sees() -> None:
    """The mean reading of xp: the decoder's line without its noise. The likelihood still sees the draw."""
    d = score(q.x, p.x, name="d", loss="wasserstein", view={"x": "mean"})
    critic = WatchedCritic()
    plan, parts = assemble(Objective.of(E(p.xz, d + q.log("z|x", hold=True))), lines(d=critic))
    values, noise = written()
    compiled = UpdateRunner(plan.updates[0], parts)
    _, means, _ = compiled.loss(moment_of(noise, numbers("x")))
    (encoder, decoder), z = start(), values["p(z)"]
    assert len(critic.calls) == 1
    assert torch.allclose(critic.calls[0][0], decoder[0] * z + decoder[1])
    sampled = log_line(encoder, z, line(decoder, z, values["p(x|z)"])).mean().item()
    assert means["model/E[p(x,z)] hold(log q(z|x))"].item() == pytest.approx(sampled, abs=1e-12)


def test_a_priors_draw_has_one_reading() -> None:
    """A critic that sees the mean of z sees the encoder's under q, and under p the draw: its mean says nothing."""
    t = log_ratio(q.xz, p.xz, name="t", view={"z": "mean"})
    critic = WatchedCritic(1.0)
    plan, parts = assemble(Objective.of(E(q.xz, t) + E(p.xz, t)), lines(t=critic))
    values, noise = written()
    x, (encoder, _) = numbers("x"), start()
    UpdateRunner(plan.updates[0], parts).loss(moment_of(noise, x))
    (_, under_q), (_, under_p) = critic.calls
    assert torch.allclose(under_q, encoder[0] * x + encoder[1])
    assert torch.equal(under_p, values["p(z)"])


# --- figures ---------------------------------------------------------------------------------------------------------


def test_a_critics_health_is_that_of_its_two_sides() -> None:
    """f = x on data -1, 1, 1, 1, 1, 1 against draws of N(-1, 0.4), of which most are negative."""
    d = log_ratio(q.x, p.x, name="d")
    modules = {"prior": StandardNormal(), "decoder": Line(0.1, -1.0, -0.5), "d": WatchedCritic(1.0)}
    plan, parts = assemble(Objective.of(E(p.x, d)), modules)
    values, noise = written()
    x = torch.ones(6, 1, dtype=torch.float64)
    x[0] = -1
    xp = 0.1 * values["p(z)"] - 1 + math.exp(-0.5) * values["p(x|z)"]
    assert (xp < 0).double().mean() > 0.6
    stats = make_step(plan, parts)(lambda r: moment_of(noise, x), until_log=0)
    assert float(stats["d/positive_log_mean_exp"]) == pytest.approx(math.log((math.e + 5 / math.e) / 6))
    assert float(stats["d/negative_log_mean_exp"]) == pytest.approx(math.log(xp.exp().mean().item()))
    assert float(stats["d/positive_mean"]) == pytest.approx(4 / 6)
    assert float(stats["d/positive_accuracy"]) == pytest.approx(5 / 6)
    assert float(stats["d/negative_mean"]) == pytest.approx(xp.mean().item())
    assert float(stats["d/negative_accuracy"]) == pytest.approx((xp < 0).double().mean().item())


def test_a_critics_health_is_that_of_its_whole_logit() -> None:
    """A network that says 0 and a known part that says log q(z|x) - log p(z): the classifier says the latter."""
    f = log_ratio(q.xz, p.xz, name="f", known=q.log_z_given_x - p.log_z)
    plan, parts = assemble(Objective.of(E(q.xz, f)), lines(f=WatchedCritic(0.0)))
    values, noise = written()
    x, (encoder, _) = numbers("x"), start()
    zq = line(encoder, x, values["q(z|x)"])
    rho = log_line(encoder, zq, x) - log_line([torch.zeros(())] * 3, zq, x)
    stats = make_step(plan, parts, 0.0)(lambda r: moment_of(noise, x), until_log=0)
    assert float(stats["f/positive_mean"]) == pytest.approx(rho.mean().item(), abs=1e-12)
    assert float(stats["f/positive_accuracy"]) == pytest.approx((rho > 0).double().mean().item())


def test_a_step_reports_each_term_and_each_loss() -> None:
    model = small_model(AVB().objective())
    stats = model.step()(lambda r: model.inputs(repetition=r))
    assert set(stats) == {
        "model/E[q(x,z)] log p(x|z)",
        "model/E[q(x,z)] t",
        "model/loss",
        "t/E[q(x,z)] log s(t)",
        "t/E[q(x)p(z)] log s(-t)",
        "t/loss",
    }
    more = model.step()(lambda r: model.inputs(repetition=r), until_log=0)
    health = {f"t/{side}_{what}" for side in ("positive", "negative") for what in ("mean", "accuracy", "log_mean_exp")}
    health |= {"t/max_abs", "t/saturation"}
    assert set(more) == {*stats, "model/grad_norm", "t/grad_norm", *health}
    terms = [float(stats[f"model/E[q(x,z)] {name}"]) for name in ("log p(x|z)", "t")]
    assert float(stats["model/loss"]) == pytest.approx(terms[1] - terms[0], rel=1e-5)
    assert not any(value.requires_grad for value in stats.values())


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (
            lambda: Objective.of(E(q.xz, log_ratio(q.xz, p.xz, name="f", times=2)), order="same point"),
            "'same point' runs each update once a step, f asks otherwise",
        ),
        (
            lambda: Objective((Update("a", elbo(q, p), every=2),), "same point"),
            "'same point' runs each update once a step, a asks otherwise",
        ),
        (
            lambda: Objective((Update("a", elbo(q, p)), Update("b", elbo(q, p), trains="encoder")), "same point"),
            "at the 'same point', a and b both train encoder",
        ),
    ],
)
def test_what_has_no_meaning_at_the_same_point_is_refused(objective: Callable[[], Objective], message: str) -> None:
    with pytest.raises(ConfigError, match=message):  # before anything is built, so by explain, too
        small_model(objective())


def test_two_updates_may_train_one_part_in_turns() -> None:
    """The second starts from where the first left the encoder."""
    first, second = Update("a", elbo(q, p), trains="encoder"), Update("b", elbo(q, p), trains="encoder")
    both, one = (small_model(Objective(updates)).double() for updates in ((first, second), (first,)))
    both.step()(lambda r: both.inputs(repetition=r))
    step = one.step()
    step(lambda r: one.inputs(repetition=r))
    step(lambda r: one.inputs(repetition=r))
    for name, value in one.parts.modules.state_dict().items():
        assert torch.allclose(both.parts.modules.state_dict()[name], value, atol=1e-12)


def test_evaluation_of_an_expression_builds_no_graph() -> None:
    model = small_model(IWAE(k=3).objective())
    found = model.rows(elbo(q, p))(model.inputs(rows=5))
    assert found.shape == (5,)
    assert not found.requires_grad


def test_critic_steps_of_a_recipe_are_repetitions() -> None:
    model = small_model(ASVAE(critic=CriticTable(steps=4)).objective())
    assert [(u.name, u.update.times) for u in model.plan.updates] == [("model", 1), ("T", 4)]
