"""Gradient ownership: every shipped objective passes with every family that it accepts, and leaks are caught."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from jointgen_ali.objective import ALI, ALICE
from jointgen_asvae.objective import ASVAE
from jointgen_avb.objective import AVB
from jointgen_critics.penalties import R1, GradientPenalty
from jointgen_vae.objective import IWAE, VAE
from support.models import assemble, small_model
from support.networks import GaussianDraw, Line, Polynomial
from torch import Tensor, nn

from jointgen.compiler.gradient_paths import PartTraits
from jointgen.engine.gradient_check import check_ownership
from jointgen.engine.program import held_twin
from jointgen.errors import ConfigError, OwnershipError
from jointgen.objectives import (
    CriticTable,
    E,
    Objective,
    Update,
    elbo,
    joint_from_text,
    log_ratio,
    log_sigmoid,
    p,
    q,
    relu,
    score,
    square,
    stop,
)
from jointgen.objectives.objective import as_stages

MLP: dict[str, Any] = {"type": "mlp", "hidden": [6]}
DROPPING: dict[str, Any] = {"type": "mlp", "hidden": [6], "dropout": 0.3}


def check(model: Any, rows: int = 4) -> None:
    check_ownership(model.plan, model.parts, model.data(rows), rows)


# --- what ships passes -----------------------------------------------------------------------------------------------


def views(name: str) -> CriticTable:
    return CriticTable(view={"x": name}, penalties=[R1(), GradientPenalty()])


OBJECTIVES: dict[str, Callable[[], Any]] = {
    "vae": lambda: VAE().objective(),
    "vae, weighted": lambda: VAE(beta=0.5, warm_up=0.2).objective(),
    "vae, closed KL": lambda: VAE(analytic=True).objective(),
    "iwae": lambda: IWAE(k=3).objective(),
    "avb": lambda: AVB().objective(),
    "avb, turns": lambda: AVB(critic=CriticTable(steps=2)).objective(),
    "avb, contrast": lambda: AVB(adaptive_contrast=True).objective(),
    "ali": lambda: ALI().objective(),
    "alice": lambda: ALICE(distance="l2").objective(),
    "asvae, literal": lambda: ASVAE(form="literal").objective(),
    "asvae-r, literal": lambda: ASVAE(form="literal", weight_g=0.0).objective(),
    "asvae-g, literal": lambda: ASVAE(form="literal", weight_r=0.0).objective(),
    "asvae, T": lambda: ASVAE(ratio="T").objective(),
    "asvae, T, e": lambda: ASVAE(ratio="T", gamma=3.0).objective(),
    "asvae, d, penalties": lambda: ASVAE(ratio="d", critic=views("sample")).objective(),
    "asvae, T, means": lambda: ASVAE(ratio="T", critic=views("mean")).objective(),
    "asvae, T, relaxed": lambda: ASVAE(ratio="T", critic=views("relaxed")).objective(),
    "asvae, T, smoothed": lambda: ASVAE(ratio="T", critic=views("smoothed")).objective(),
}

REAL: dict[str, Any] = {"data": {"type": "digits"}, "prior": {"type": "normal", "size": 2}}
BITS: dict[str, Any] = {**REAL, "data": {"type": "digits", "observe": "binarise"}}
GAUSSIAN = {"type": "gaussian"}

FAMILIES: dict[str, dict[str, Any]] = {
    "gaussian": {"encoder": GAUSSIAN, "decoder": GAUSSIAN, **REAL},
    "gaussian, global": {"encoder": GAUSSIAN, "decoder": {"type": "gaussian", "scale": "global"}, **REAL},
    "gaussian, per channel": {
        "encoder": {"type": "gaussian", "scale": "per_channel"},
        "decoder": {"type": "gaussian", "scale": "per_channel", "mean": "sigmoid"},
        **REAL,
    },
    "gaussian, fixed": {"encoder": GAUSSIAN, "decoder": {"type": "gaussian", "scale": "fixed"}, **REAL},
    "bits": {"encoder": GAUSSIAN, "decoder": {"type": "bernoulli"}, **BITS},
    "bits without a path": {"encoder": GAUSSIAN, "decoder": {"type": "bernoulli", "path": "none"}, **BITS},
    "implicit encoder": {"encoder": {"type": "implicit", "noise": 3}, "decoder": {"type": "bernoulli"}, **BITS},
    "implicit basis": {
        "encoder": {"type": "implicit_basis", "basis": 3, "hidden": [4]},
        "decoder": {"type": "bernoulli"},
        **BITS,
    },
    "implicit both": {
        "encoder": {"type": "implicit", "noise": 0},
        "decoder": {"type": "implicit", "noise": 2, "mean": "sigmoid"},
        **REAL,
    },
    "uniform prior": {"encoder": GAUSSIAN, "decoder": GAUSSIAN, **REAL, "prior": {"type": "uniform", "size": 2}},
}

# by hand: what each pair of families can serve
ACCEPTED: dict[str, set[str]] = {
    "gaussian": {*OBJECTIVES} - {"asvae, T, relaxed", "asvae, T, smoothed"},
    "gaussian, global": {*OBJECTIVES} - {"asvae, T, relaxed"},
    "gaussian, per channel": {*OBJECTIVES} - {"asvae, T, relaxed"},
    "gaussian, fixed": {*OBJECTIVES} - {"asvae, T, relaxed"},
    "bits": {*OBJECTIVES} - {"asvae, T, smoothed"},
    # x has no path: nothing that looks at generated bits themselves
    "bits without a path": {
        *("vae", "vae, weighted", "vae, closed KL", "iwae", "avb", "avb, turns", "avb, contrast"),
        "asvae-r, literal",
        *("asvae, T, means", "asvae, T, relaxed"),
    },
    "implicit encoder": {"avb", "avb, turns", "ali", "alice", "asvae-r, literal"},
    "implicit basis": {"avb", "avb, turns", "avb, contrast", "ali", "alice", "asvae-r, literal"},
    "implicit both": {"ali", "alice"},
    # codes drawn by the encoder can lie outside the cube: nothing that scores them by log p(z)
    "uniform prior": {
        *("avb", "avb, turns", "ali", "alice"),
        *("asvae, literal", "asvae-r, literal", "asvae-g, literal"),
    },
}


@pytest.mark.parametrize("families", FAMILIES)
def test_every_objective_passes_with_the_families_that_it_accepts(families: str) -> None:
    tables = dict(FAMILIES[families])
    for part in ("encoder", "decoder"):
        tables[part] = {"network": MLP, "family": tables[part]}
    accepted = set()
    for name, make in OBJECTIVES.items():
        try:
            model = small_model(make(), **tables)
        except ConfigError:
            continue
        check(model)
        accepted.add(name)
    assert accepted == ACCEPTED[families]


def test_both_stages_pass() -> None:
    stages = ASVAE(vae_first=0.5).objective()
    model = small_model(stages)
    assert len(model.compiled.plans) == len(as_stages(stages)) == 2
    for plan in model.compiled.plans:
        check_ownership(plan, model.parts, model.data(4), 4)


def known_part() -> Objective:
    f1 = log_ratio(q.xz, p.x * p.z, name="f1", known=q.log_z_given_x - p.log_z)
    return Objective.of(E(q.xz, p.log_x_given_z - f1))


def three_players() -> Objective:
    d = log_ratio(q.x, p.x, name="d")
    encoder = Update("encoder", elbo(q, p), trains="encoder")
    decoder = Update("decoder", E(q.xz, p.log_x_given_z) + E(p.x, log_sigmoid(d)), trains="decoder")
    return Objective((encoder, decoder))


def everything() -> Objective:
    """Marks of all kinds on one network: live, held, stopped, under both joints, inside functions."""
    live, held, stopped = q.log("z|x"), q.log("z|x", hold=True), q.log("z|x", stop=("x", "z"))
    f = log_ratio(q.xz, p.xz, name="f", known=p.log("x|z") - p.log_z)
    return Objective.of(
        E(q.xz, square(live - 2 * held) - stop(live) + 2 * p.log("x|z", stop="z") - log_sigmoid(f))
        + E(p.xz, held - 0.5 * stopped + square(f - 1)),
        order="critics, model",
    )


COMPOSED: dict[str, Callable[[], Objective]] = {
    "known part": known_part,
    "three players": three_players,
    "everything": everything,
    "wgan": lambda: Objective.of(
        E(p.x, score(q.x, p.x, name="c", loss="wasserstein", penalties=("gradient_penalty",), times=2))
    ),
}


@pytest.mark.parametrize("name", COMPOSED)
def test_composed_objectives_pass(name: str) -> None:
    check(small_model(COMPOSED[name]()))


@pytest.mark.parametrize("name", ["vae", "iwae", "asvae, literal", "asvae, d, penalties", "alice"])
def test_dropout_is_no_leak(name: str) -> None:
    """Masks are named noise: the same in the step and in the sum of terms that it is compared with."""
    table = {"network": DROPPING, "family": GAUSSIAN}
    check(small_model(OBJECTIVES[name](), encoder=table, decoder=table, discriminator=DROPPING))


def test_the_check_drops_out() -> None:
    """Everything else is in evaluation mode, but a mask is part of what must be the same."""
    table = {"network": DROPPING, "family": GAUSSIAN}
    model = small_model(VAE().objective(), encoder=table)
    seen: list[bool] = []
    for module in model.parts.modules["encoder"].modules():
        if type(module).__name__ in ("Dropout", "Linear"):
            module.register_forward_hook(lambda module, args, out: seen.append(module.training))
    model.parts.modules.eval()
    check(model)
    assert seen.count(True) * 2 == seen.count(False) > 0  # two linear maps, one dropout


def test_dropout_with_held_and_stopped_runs_is_no_leak() -> None:
    table = {"network": DROPPING, "family": GAUSSIAN}
    check(small_model(everything(), encoder=table, decoder=table, discriminator=DROPPING))


def test_the_model_stays_as_it_is() -> None:
    model = small_model(ASVAE(form="literal").objective())
    before = copy.deepcopy(model.parts.modules.state_dict())
    model.parts.modules.train()
    check(model)
    assert all(torch.equal(before[name], value) for name, value in model.parts.modules.state_dict().items())
    assert all(
        w.grad is None and w.requires_grad and w.dtype == torch.float32 for w in model.parts.modules.parameters()
    )
    assert model.parts.modules.training


def test_a_term_whose_gradient_is_zero_for_now_is_no_missing_one() -> None:
    """Free bits: nothing to pay below 1000 nats, and none of the few rows is above."""
    rate = q.log_z_given_x - p.log_z
    model = small_model(Objective.of(E(q.xz, p.log_x_given_z - relu(rate - 1000))))
    check(model)


class LearnedNormal(nn.Module):
    """A prior with parameters."""

    def __init__(self, gaussian: Any):
        super().__init__()
        self.mean, self.log_scale, self.gaussian = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1)), gaussian

    def forward(self, rows: int) -> Any:
        return self.gaussian(self.mean.expand(rows, 1), self.log_scale)


def test_a_learned_prior_is_owned_too() -> None:
    """Explicitly in log p(z), through samples of p, and not at all where it is held at the encoder's draws."""
    f = log_ratio(q.xz, p.xz, name="f", known=q.log_z_given_x - p.log_z)
    held = E(q.xz, p.log("z", hold=True)) + E(p.xz, q.log_z_given_x - p.log("z", hold=True))
    modules = {
        "encoder": Line(0.6, 0.1, -0.2),
        "decoder": Line(0.9, -0.2, -0.5),
        "prior": LearnedNormal(GaussianDraw),
        "f": Polynomial(0.1, 0.3, -0.2, 0.5, -0.1, 0.2),
    }
    traits = {"prior": PartTraits("prior", {"sample": "exact"})}
    plan, parts = assemble(Objective.of(elbo(q, p) + held - E(p.xz, f)), modules, traits)
    check_ownership(plan, parts, {"data": {"x": torch.randn(4, 1, dtype=torch.float64)}}, 4)
    ways = {s.label.partition("/")[2]: s.gradient_paths.get("prior", frozenset()) for s in plan.updates[0].summands}
    assert ways == {
        "E[q(x,z)] log p(x|z)": frozenset(),
        "E[q(x,z)] log p(z)": {"explicit"},
        "E[q(x,z)] log q(z|x)": frozenset(),
        "E[q(x,z)] hold(log p(z))": frozenset(),
        "E[p(x,z)] log q(z|x)": {"samples"},
        "E[p(x,z)] hold(log p(z))": {"samples"},
        "E[p(x,z)] f": {"samples"},
    }


@pytest.mark.parametrize("penalties", [(), ("r1", "gradient_penalty")])
def test_a_spectrally_normalised_critic_is_no_leak(penalties: tuple[str, ...]) -> None:
    """Its power iteration moves buffers in training, which the check leaves alone; and it trains."""
    f = log_ratio(q.xz, p.xz, name="f", penalties=penalties)
    objective = Objective.of(elbo(q, p) - E(p.xz, log_sigmoid(-f)))
    model = small_model(objective, discriminator={"type": "mlp", "hidden": [6], "spectral_norm": True})
    check(model)
    model.parts.modules.train()
    model.step()(lambda r: model.inputs(repetition=r))


# --- leaks -----------------------------------------------------------------------------------------------------------


class LazyNormal:
    """Looks its scale up in the module when it is used: by then nobody holds it."""

    def __init__(self, mean: Tensor, module: nn.Module):
        self.mean, self.module = mean, module

    def draw(self, noise: Any) -> Any:
        return Sample(self.mean + self.module.log_scale.exp() * noise.normal(*self.mean.shape[1:]))

    def log_prob(self, value: Tensor) -> Tensor:
        log_scale = self.module.log_scale
        return -(0.5 * ((value - self.mean) / log_scale.exp()).square() + log_scale).sum(1)


class Sample:
    def __init__(self, sample: Tensor):
        self.sample = sample

    def read(self, reading: str) -> Tensor:
        return self.sample


class LazyFamily(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, params: Tensor) -> LazyNormal:
        return LazyNormal(params[:, :2], self)


@pytest.mark.parametrize(
    "objective",
    [Objective.of(E(q.xz, p.log_x_given_z + q.log("z|x", hold=True))), known_part()],
    ids=["hold", "known part"],
)
def test_a_distribution_that_reads_parameters_late_cannot_leak_them(objective: Objective) -> None:
    """A held network is a twin without gradients, so whatever its distributions look up later has none either."""
    model = small_model(objective)
    model.parts.modules["encoder"].family = LazyFamily()
    check(model)


def test_a_held_twin_follows_its_parameters_and_gives_them_no_gradient() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    twin = held_twin(module)
    with torch.no_grad():
        module[0].weight.fill_(3.0)
    module.load_state_dict({**module.state_dict(), "0.bias": torch.tensor([0.5])})
    x = torch.ones(2, 1, requires_grad=True)
    assert torch.equal(twin[0](x), torch.full((2, 1), 3.5))
    assert torch.autograd.grad(twin[0](x).sum(), x)[0].tolist() == [[3.0], [3.0]]
    assert not any(p.requires_grad for p in twin.parameters())
    twin(x + torch.tensor([[0.0], [1.0]]))  # 3.5 and 6.5; the running mean moves from 0 by a tenth of 5, for both
    assert module[1].running_mean.item() == pytest.approx(0.5)


def test_the_same_family_is_fine_where_nothing_is_held() -> None:
    model = small_model(VAE().objective())
    model.parts.modules["encoder"].family = LazyFamily()
    check(model)


class Counting(nn.Module):
    """A network that remembers how often it ran."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, *inputs: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(*inputs) * (1 + 0.01 * self.calls)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_network_that_carries_state_between_calls_is_caught(part: str) -> None:
    model = small_model(VAE().objective())
    model.parts.modules[part].trunk = Counting(model.parts.modules[part].trunk)
    with pytest.raises(OwnershipError, match=r"may not be a function of its inputs alone") as error:
        check(model)
    assert "update model: the gradient of " in str(error.value)


class NoPath(nn.Module):
    """Declares the sample path that its draw does not have."""

    def forward(self, params: Tensor) -> Any:
        outer = params

        class Normal:
            def draw(self, noise: Any) -> Sample:
                with torch.no_grad():
                    return Sample(outer[:, :2] + noise.normal(2))

            def log_prob(self, value: Tensor) -> Tensor:
                return -0.5 * (value - outer[:, :2]).square().sum(1)

        return Normal()


def test_a_term_without_its_gradient_is_caught() -> None:
    model = small_model(VAE().objective())
    model.parts.modules["encoder"].family = NoPath()
    with pytest.raises(OwnershipError) as error:
        check(model)
    message = "term 'model/E[q(x,z)] log p(x|z)' gives 'encoder' no gradient: it should reach it at all"
    assert str(error.value) == message


class Borrowing(nn.Module):
    """A network that also uses a weight of another part."""

    def __init__(self, inner: nn.Module, other: nn.Module):
        super().__init__()
        self.inner = inner
        self.others = [other]  # a list hides it from torch

    def forward(self, *inputs: Tensor) -> Tensor:
        borrowed = next(iter(self.others[0].parameters()))
        return self.inner(*inputs) + borrowed.sum()


def test_a_term_that_reaches_a_part_which_it_must_not_is_caught() -> None:
    """The critic's term under p(x) is the decoder's alone; this decoder borrows from the encoder."""
    d = log_ratio(q.x, p.x, name="d")
    model = small_model(Objective.of(elbo(q, p) - E(p.x, log_sigmoid(-d))))
    encoder, decoder = model.parts.modules["encoder"], model.parts.modules["decoder"]
    decoder.trunk = Borrowing(decoder.trunk, encoder)
    with pytest.raises(OwnershipError) as error:
        check(model)
    assert "'encoder'" in str(error.value)
    assert "term 'model/E[" in str(error.value)
    assert "must not reach it" in str(error.value)


class Tying(nn.Module):
    """A critic that learns from the encoder's own weight."""

    def __init__(self, weight: nn.Parameter):
        super().__init__()
        self.weight, self.own = weight, nn.Parameter(torch.ones(()))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.own * self.weight.sum() * inputs[0].sum(1)


def test_a_critic_that_shares_a_weight_with_the_model_is_caught() -> None:
    model = small_model(ALI().objective())
    model.parts.modules["f"] = Tying(next(iter(model.parts.modules["encoder"].parameters())))
    with pytest.raises(OwnershipError, match="leaks a gradient into 'encoder'"):
        check(model)


class Idle(nn.Module):
    """A network with parameters that it does not use."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner, self.idle = inner, nn.Linear(3, 2)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.inner(*inputs)


def test_parameters_that_no_term_depends_on_are_told() -> None:
    model = small_model(VAE().objective())
    assert check_ownership(model.plan, model.parts, model.data(4), 4) == {}
    model.parts.modules["encoder"].trunk = Idle(model.parts.modules["encoder"].trunk)
    unused = {"encoder.trunk.idle.weight": 6, "encoder.trunk.idle.bias": 2}
    assert check_ownership(model.plan, model.parts, model.data(4), 4) == unused


# --- other joints ----------------------------------------------------------------------------------------------------


def test_a_learned_path_through_two_layers_of_codes() -> None:
    qq = joint_from_text("q", "q(x) q(z|x) q(w|z)", {"q(w|z)": "encoder_w"})
    pp = joint_from_text("p", "p(w) p(z|w) p(x|z)", {"p(z|w)": "decoder_z"})
    table = {"network": MLP, "family": GAUSSIAN}
    check(
        small_model(
            Objective.of(elbo(qq, pp)),
            encoders={"encoder_w": table},
            decoders={"decoder_z": table},
            latents={"z": 2},
        )
    )
