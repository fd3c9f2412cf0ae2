"""Adaptive contrast (Mescheder et al. 2017, section 3.3): r(x,z) = q(x) r(z|x), r(z|x) the Gaussian of q's moments.

log q(z|x) - log p(z) = t + log r(z|x) - log p(z) with t = log q(z|x) / r(z|x), seen in r's units. Since
E_q grad log q(z|x) = 0, the model's gradient is that of the ELBO, whatever r is, as long as t is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from jointgen_avb.objective import AVB
from support.models import assemble, small_model
from support.networks import Line, Polynomial, StandardNormal, WatchedCritic, WrittenCritic
from support.noise import WrittenNoise
from torch import Tensor, nn

import jointgen
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.gradient_check import check_ownership
from jointgen.engine.update import UpdateRunner
from jointgen.errors import ConfigError, OwnershipError
from jointgen.objectives import (
    CriticTable,
    E,
    Objective,
    Update,
    cycle,
    elbo,
    joint_from_text,
    kl,
    log_ratio,
    p,
    parse_view,
    q,
    standardized,
)
from jointgen.objectives.objective import as_stages
from jointgen.objectives.recipe_text import Expression

DOUBLE = torch.float64
AC = AVB(adaptive_contrast=True).objective()
R = q.matched("z|x", name="r")


def log_normal(value: Tensor, mean: Tensor | float = 0.0, scale: Tensor | float = 1.0) -> Tensor:
    return -0.5 * ((value - mean) / scale) ** 2 - torch.as_tensor(scale).log() - 0.5 * math.log(2 * math.pi)


# --- an encoder whose density is known, and which is no Gaussian -----------------------------------------------------

SINH = math.sqrt((math.e**2 - 1) / 2)
"""The standard deviation of sinh(eps): E sinh^2 = (E cosh 2 eps - 1) / 2 = (exp(2) - 1) / 2."""


class Matched:
    """N(mean, scale^2), (B, 1) each, or nothing of a gradient where the test leaves it out."""

    def __init__(self, mean: Tensor, scale: Tensor):
        self.mean, self.scale = mean, scale

    def draw(self, noise: Any) -> Any:
        return Readings(self.mean + self.scale * noise.normal(1), self.mean)

    def standardize(self, value: Tensor) -> Tensor:
        return (value - self.mean) / self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        return log_normal(value, self.mean, self.scale).sum(1)


class Readings:
    def __init__(self, sample: Tensor, mean: Tensor):
        self.readings = {"sample": sample, "mean": mean}

    def read(self, reading: str) -> Tensor:
        return self.readings[reading]


class Warped:
    """z = mean + scale g(eps), g the identity or sinh: log q(z|x) = log N(eps; 0, 1) - log g'(eps) - log scale."""

    leaks = False

    def __init__(self, mean: Tensor, scale: Tensor, warped: bool):
        self.mean, self.scale, self.warped = mean, scale, warped

    def draw(self, noise: Any) -> Readings:
        eps = noise.normal(1)
        return Readings(self.mean + self.scale * (eps.sinh() if self.warped else eps), self.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        u = (value - self.mean) / self.scale
        eps = u.asinh() if self.warped else u
        slope = eps.cosh().log() if self.warped else 0.0
        return (log_normal(eps) - slope - self.scale.log()).sum(1)

    def moments(self) -> Matched:
        scale = self.scale * (SINH if self.warped else 1.0)
        return Matched(self.mean, scale) if self.leaks else Matched(self.mean.detach(), scale.detach())


class Encoder(nn.Module):
    """mean = a x + b, scale = exp(c + d x)."""

    def __init__(self, warped: bool, law: type = Warped):
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor([0.6, 0.2, -0.5, 0.3], dtype=DOUBLE))
        self.warped, self.law = warped, law

    def forward(self, x: Tensor, k: int = 1) -> Warped:
        a, b, c, d = self.numbers
        return self.law(a * x + b, torch.exp(c + d * x), self.warped)


def t_star(x: Tensor, u: Tensor, warped: bool = True) -> Tensor:
    """log q / r at z whose standardised value is u: with z = mean + scale g(eps), u = g(eps) / sd of g."""
    if not warped:
        return torch.zeros_like(u)
    eps = (u * SINH).asinh()
    return log_normal(eps) - eps.cosh().log() + math.log(SINH) - log_normal(u)


@pytest.fixture
def model() -> Callable[..., tuple[Any, Any]]:
    """(objective, warped, critic) -> (plan, parts) with p(z) = N(0, 1) and p(x|z) a line."""

    def make(objective: Objective, warped: bool = False, critic: Any = None, law: type = Warped) -> tuple[Any, Any]:
        modules = {
            "encoder": Encoder(warped, law),
            "decoder": Line(0.9, 0.1, -0.4),
            "prior": StandardNormal(),
        }
        shown = critic or WrittenCritic(lambda x, u: t_star(x, u, warped))
        return assemble(objective, modules | dict.fromkeys(objective.ratios, shown))

    return make


def gradient(made: tuple[Any, Any], moment: StepInputs) -> Tensor:
    plan, parts = made
    UpdateRunner(plan.updates[0], parts).gradient(moment)
    return torch.cat([w.grad.flatten() for part in ("encoder", "decoder") for w in parts.modules[part].parameters()])


@pytest.fixture
def at_random() -> StepInputs:
    """64 rows of x and eps."""
    x, eps, other = torch.randn(3, 64, 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    return StepInputs({"data": {"x": x}}, WrittenNoise({"q(z|x)": eps, "r(z|x)": other}), 64)


# --- the theorem -----------------------------------------------------------------------------------------------------

PATHWISE = Objective.of(E(q.xz, p.log_x_given_z + p.log_z - q.log("z|x", hold=True)))
"""The ELBO without the score of q, whose expectation is 0: one draw of it is one of adaptive contrast's."""


@pytest.mark.parametrize("warped", [False, True], ids=["gaussian", "sinh"])
def test_the_models_gradient_is_the_bounds(warped: bool, model: Any, at_random: StepInputs) -> None:
    """Row by row at 64 draws, with t in its closed form: 0 where q(z|x) is a Gaussian."""
    found = gradient(model(AC, warped), at_random)
    expected = gradient(model(PATHWISE, warped), at_random)
    assert expected.norm() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)


def test_where_the_scores_cancel_it_is_the_elbos_own(model: Any) -> None:
    """At eps = +-1 the score of a Gaussian, (eps / s, eps^2 - 1), sums to 0: no gradient is left out."""
    x = torch.tensor([[-0.7], [-0.7], [1.2], [1.2]], dtype=DOUBLE)
    eps = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]], dtype=DOUBLE)
    moment = StepInputs({"data": {"x": x}}, WrittenNoise({"q(z|x)": eps}), 4)
    torch.testing.assert_close(
        gradient(model(AC), moment), gradient(model(Objective.of(elbo(q, p))), moment), rtol=0, atol=1e-13
    )


def test_a_critic_that_is_not_the_ratio_gives_another_gradient(model: Any, at_random: StepInputs) -> None:
    """t = 0 for an encoder that is no Gaussian: the theorem can fail."""
    off = gradient(model(AC, True, WrittenCritic(lambda x, u: 0.0 * u)), at_random)
    expected = gradient(model(PATHWISE, True), at_random)
    assert (off - expected).norm() > 0.01 * expected.norm()


def test_the_value_is_the_elbos_where_t_is_known(model: Any, at_random: StepInputs) -> None:
    """t + log r(z|x) = log q(z|x) at every draw, for both encoders: the estimate is then the bound."""
    for warped in (False, True):
        (plan, parts), (bound, same) = model(AC, warped), model(Objective.of(elbo(q, p)), warped)
        with torch.no_grad():
            found = UpdateRunner(plan.updates[0], parts).loss(at_random)[0]
            expected = UpdateRunner(bound.updates[0], same).loss(at_random)[0]
        assert found.item() == pytest.approx(expected.item(), abs=1e-12)


def test_the_rate_of_a_gaussian_is_its_kl(model: Any) -> None:
    """E_q[log r - log p] over eps = +-1, which has a Gaussian's second moments, at x = 0.5 by hand:

    mean = 0.6 0.5 + 0.2 = 0.5, log s = -0.5 + 0.3 0.5 = -0.35; KL = 1/2 (s^2 + mean^2 - 1) - log s
    = 1/2 (0.496585 + 0.25 - 1) + 0.35 = 0.223293
    """
    objective = Objective.of(E(q.xz, R.log_z_given_x - p.log_z))
    plan, parts = model(objective)
    eps = torch.tensor([[1.0], [-1.0]], dtype=DOUBLE)
    moment = StepInputs({"data": {"x": torch.full((2, 1), 0.5, dtype=DOUBLE)}}, WrittenNoise({"q(z|x)": eps}), 2)
    assert -UpdateRunner(plan.updates[0], parts).loss(moment)[0].item() == pytest.approx(0.223293, abs=1e-6)


def test_the_matched_bound_of_a_gaussian_is_the_elbo(model: Any, at_random: StepInputs) -> None:
    """E_r[log p(x|z) + log p(z) - log r(z|x)] draws z ~ r: with q's noise and q a Gaussian, the ELBO itself."""
    noise = at_random.noise.values
    same = StepInputs(at_random.data, WrittenNoise({"q(z|x)": noise["q(z|x)"], "r(z|x)": noise["q(z|x)"]}), 64)
    values = []
    for expr in (dict(AC.reports)["elbo_matched"], elbo(q, p)):
        plan, parts = model(Objective.of(expr))
        with torch.no_grad():
            values.append(UpdateRunner(plan.updates[0], parts).loss(same)[0].item())
    assert values[0] == pytest.approx(values[1], abs=1e-12)


# --- what the critic sees --------------------------------------------------------------------------------------------


def test_the_critic_sees_the_same_x_and_standardized_codes(model: Any, at_random: StepInputs) -> None:
    """For a Gaussian q both sides are the noise itself; for sinh, sinh(eps) over its standard deviation."""
    eps, other, x = at_random.noise.values["q(z|x)"], at_random.noise.values["r(z|x)"], at_random.data["data"]["x"]
    for warped, expected in ((False, eps), (True, eps.sinh() / SINH)):
        critic = WatchedCritic()
        plan, parts = model(AC, warped, critic)
        UpdateRunner(plan.updates[1], parts).loss(at_random)
        (x_q, z_q), (x_r, z_r) = critic.calls
        assert torch.equal(x_q, x) and torch.equal(x_r, x)
        torch.testing.assert_close(z_q, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(z_r, other, rtol=0, atol=1e-12)


def test_a_view_stands_without_a_third_joint(model: Any, at_random: StepInputs) -> None:
    """z in units of q(z|x) itself, for a ratio of plain AVB."""
    critic = WatchedCritic()
    t = log_ratio(q.xz, q.x * p.z, name="t", view={"z": standardized(q, "z|x")})
    plan, parts = model(Objective.of(E(q.xz, -t)), False, critic)
    UpdateRunner(plan.updates[0], parts).loss(at_random)
    torch.testing.assert_close(critic.calls[0][1], at_random.noise.values["q(z|x)"], rtol=0, atol=1e-12)


def test_every_network_runs_once_for_each_law() -> None:
    """The encoder once in a step, for its draws, its moments and r's draws; the critic at q and at r."""
    built = small_model(AC)
    assert built.plan.runs() == {"encoder": 1, "decoder": 1, "t": 2}
    with built.forwards_counted() as counts:
        built.step()(lambda r: built.inputs())
    assert counts == {"encoder": 1, "decoder": 1, "t": 2}


def test_moments_are_not_taken_over_by_an_update_that_moves_them() -> None:
    """Two updates that train the encoder in turns: the second draws and measures anew, though r has no gradient."""
    term = E(q.xz, p.log_x_given_z + p.log_z - R.log_z_given_x)
    updates = (Update("one", term), Update("two", term))
    plan = small_model(Objective(updates)).plan
    assert plan.runs()["encoder"] == 2
    assert not any("moments" in node.title for node in plan.handed_over(1))


def test_a_joint_and_its_matched_one_are_not_independent() -> None:
    """q(x)r(z): the code is of another row, because r's x is q's."""
    f = log_ratio(q.x * R.z, q.xz, name="f")
    critic = small_model(Objective.of(E(q.x * R.z, f) + elbo(q, p))).plan
    assert critic.furthest_pairing() == 1


# --- gradients and requirements --------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("family", ["gaussian", "implicit_basis"])
def test_ownership_holds(family: str, steps: int) -> None:
    encoder = {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": family}}
    objective = AVB(adaptive_contrast=True, critic=CriticTable(steps=steps)).objective()
    built = small_model(objective, encoder=encoder)
    check_ownership(built.plan, built.parts, built.data(4), 4)
    reach = {s.label: s.gradient_paths for s in built.plan.updates[0].summands}
    assert reach["model/E[q(x,z)] log r(z|x)"] == {"encoder": frozenset({"samples"})}
    assert reach["model/E[q(x,z)] t"] == {"encoder": frozenset({"samples"}), "t": frozenset({"explicit"})}


def test_moments_that_carry_a_gradient_are_caught(model: Any) -> None:
    leaking = type("Leaking", (Warped,), {"leaks": True})
    plan, parts = model(AC, False, Polynomial(0.1, 0.2, 0.3, 0.4, 0.5, 0.6), leaking)
    x = torch.randn(4, 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    with pytest.raises(OwnershipError, match=r"leaks a gradient into 'encoder'"):
        check_ownership(plan, parts, {"data": {"x": x}}, 4)


def test_a_family_without_moments_is_refused_by_name() -> None:
    encoder = {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "implicit"}}
    with pytest.raises(ConfigError) as error:
        small_model(AC, encoder=encoder)
    (problem,) = error.value.lines
    assert problem.startswith("encoder.family: the objective needs the moments of its draws for q(z|x), in the term ")
    assert "the family 'implicit' as set here does not have it" in problem
    assert problem.endswith("families that do: gaussian, implicit_basis")


# --- how it is written -----------------------------------------------------------------------------------------------


def test_it_prints_as_the_paper_writes_it() -> None:
    assert str(R) == "r(x,z) = q(x) r(z|x)"
    assert str(AC).split("\n") == [
        "maximise E[q(x,z)](log p(x|z) + log p(z) - log r(z|x) - t)",
        "t = log-ratio q(x,z) : r(x,z)",
    ]
    assert str(standardized(R, "z|x")) == "standardized r(z|x)"


TEXT: dict[str, Any] = {
    "type": "expression",
    "maximize": "E[q(x,z)](log p(x|z) + log p(z) - log r(z|x) - t)",
    "order": "same point",
    "joints": {"r": "q(x) r(z|x)"},
    "parts": {"r(z|x)": "moments of encoder"},
    "ratios": {"t": {"of": "q(x,z) : r(x,z)", "view": {"z": "standardized r(z|x)"}}},
}


def test_text_says_the_same(registry: Any) -> None:
    keys = {key: value for key, value in TEXT.items() if key not in ("type", "ratios")}
    from_text = Expression(**keys, ratios={"t": "q(x,z) : r(x,z)"}).all_joints()["r"]
    assert from_text == R
    (stage,) = as_stages(Expression.of(AC, registry).objective())
    assert stage.objective.ratios["t"].view == AC.ratios["t"].view == (("z", standardized(R, "z|x")),)
    assert str(stage.objective) == str(AC)


def test_what_depends_on_a_matched_code_is_drawn_anew() -> None:
    deep = joint_from_text("q", "q(x) q(h|x) q(z|h) q(w|z) q(v|x)")
    assert str(deep.matched("z|h", name="r")) == "r(h,v,w,x,z) = q(x) q(h|x) r(z|h) r(w|z) q(v|x)"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda: p.matched("z", name="r"), "z is a root; moments are matched to a conditional"),
        (lambda: q.matched("x|z", name="r"), r"q\(x\|z\) is no factor of q"),
        (
            lambda: log_ratio(q.xz, R.xz, name="t", view={"x": standardized(R, "z|x")}),
            r"standardized r\(z\|x\) is a view of z, not x",
        ),
        (lambda: cycle(R, "z|x", reading="relaxed"), "a matched Gaussian has the readings"),
        (lambda: parse_view("standardised q(z|x)"), "did you mean 'standardized'\\? at character 1"),
        (
            lambda: joint_from_text("r", "s(x) r(z|x)", {}, {"q": q}),
            r"expected r\(...\) at 's\(x\)",
        ),
    ],
)
def test_mistakes_are_named(write: Callable[[], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write()


@pytest.mark.parametrize("term", [kl(R.log_z_given_x, p.log_z), R.log("z|x", mass=True)], ids=str)
def test_only_a_log_density_of_a_matched_gaussian_is_known(term: Any) -> None:
    with pytest.raises(ConfigError, match="is a matched Gaussian, of which only the log-density is known"):
        small_model(Objective.of(elbo(q, p) - E(q.xz, term)))


# --- a run -----------------------------------------------------------------------------------------------------------

MLP = {"type": "mlp", "hidden": [16]}


@pytest.mark.parametrize("objective", [{"type": "avb", "adaptive_contrast": True}, TEXT], ids=["avb", "text"])
def test_it_trains_and_its_figure_is_an_estimate(objective: Any, tmp_path: Any) -> None:
    tables = {
        "data": {"type": "ring", "rows": 256},
        "prior": {"type": "normal", "size": 2},
        "encoder": {"network": MLP, "family": {"type": "implicit_basis", "basis": 4, "hidden": [8]}},
        "decoder": {"network": MLP, "family": {"type": "gaussian", "init_scale": 0.3}},
        "discriminator": MLP,
        "objective": objective,
        "optimizer": {"model": {"lr": 5e-3}, "critics": {"lr": 5e-3}},
        "train": {"steps": 60, "batch": 64, "log_every": 10},
        "eval": {"rows": 128, "samples": 4},
    }
    run = jointgen.run(tables, out=tmp_path / "run", quiet=True)
    assert run.summary["status"] == "done"
    assert run.metrics["elbo"]["value"] is None
    z = run.model.draw("r", {"x": torch.zeros(3, 2)}, 3, run.model.noise(0, "r"))["z"]
    assert z.shape == (3, 2) and z.isfinite().all()
    if objective["type"] == "avb":
        estimate, matched = run.metrics["elbo_estimate"], run.metrics["elbo_matched"]
        assert math.isfinite(estimate["value"]) and math.isfinite(matched["value"])
        assert estimate["bound"] == "estimate" and matched["bound"] is None
