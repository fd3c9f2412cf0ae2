"""Estimators, the way out of the language: terms that run parts of the model themselves."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import attrs
import pytest
import torch
from support.linear_gaussian import exact_model
from support.models import small_model
from torch import Tensor

from jointgen.engine.balance_meter import BalanceMeter
from jointgen.engine.balance_scales import BalanceScales
from jointgen.engine.gradient_check import check_ownership
from jointgen.errors import ConfigError, OwnershipError
from jointgen.objectives import E, Expr, Objective, Update, Weight, estimate, p, parse, q, stop
from jointgen.objectives.recipe_text import Expression
from jointgen.plugin import Law, NoiseSource
from jointgen.registry.discovery import load_plugins
from jointgen.reports.explain.descriptions import describe_estimators
from jointgen.runtime.workers import Workers
from jointgen.testing import checks

TRUTH: dict[str, Any] = {"weights": [[1.0, 0.8], [0.2, 0.9]], "bias": [0.5, -1.0], "scale": 0.7}
LAWS = (q.log_z_given_x, p.log_x_given_z, p.log_z)
ELBO = E(q.xz, p.log_x_given_z + p.log_z - q.log_z_given_x)


@attrs.frozen
class OwnElbo:
    """The ELBO."""

    trains: ClassVar[tuple[str, ...]] = ("posterior", "likelihood")
    reads: ClassVar[tuple[str, ...]] = ("prior",)
    needs: ClassVar[dict[str, tuple[str, ...]]] = {"posterior": ("path",), "likelihood": ("foreign density",)}

    def __call__(
        self, x: Tensor, z: Tensor, *, noise: NoiseSource, posterior: Law, likelihood: Law, prior: Law
    ) -> Tensor:
        """Return log p(x|z) + log p(z) - log q(z|x)."""
        return likelihood(z).log_prob(x) + prior().log_prob(z) - posterior(x).log_prob(z)


@attrs.frozen
class Score:
    """The ELBO with the gradient of REINFORCE, whose draw is made here."""

    trains: ClassVar[tuple[str, ...]] = ("posterior",)
    reads: ClassVar[tuple[str, ...]] = ("likelihood", "prior")
    needs: ClassVar[dict[str, tuple[str, ...]]] = {"posterior": ("foreign density",)}

    def __call__(self, x: Tensor, *, noise: NoiseSource, posterior: Law, likelihood: Law, prior: Law) -> Tensor:
        """Return the ELBO at a draw of its own."""
        law = posterior(x)
        z = law.draw(noise).read("sample").detach()
        log_q = law.log_prob(z)
        bound = (likelihood(z).log_prob(x) + prior().log_prob(z) - log_q).detach()
        return bound * (1 + log_q - log_q.detach())


def linear(maximize: Expr, *updates: Update) -> Any:
    """A linear-Gaussian model a little off its optimum."""
    model, _ = exact_model(TRUTH, Objective((Update("model", maximize), *updates)))
    with torch.no_grad():
        for parameter in model.parts.modules["encoder"].parameters():
            parameter += 0.3
    return model


def own(estimator: Any = None, *values: Any, laws: Any = LAWS, k: int = 1) -> Expr:
    return E(q.xz, estimate(estimator or OwnElbo(), *(values or ("x", "z")), laws=laws), k=k)


def gradient(maximize: Expr, rows: int = 6, seed: int = 0) -> dict[str, Tensor]:
    model = linear(maximize)
    model.update().gradient(model.inputs(rows, seed=seed))
    return {name: -p.grad for name, p in model.parts.modules.named_parameters() if p.grad is not None}


# --- the gradient ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3])
def test_the_elbo_written_as_an_estimator_has_exactly_its_gradient(k: int) -> None:
    found, wanted = gradient(own(k=k)), gradient(E(q.xz, ELBO.term, k=k))  # type: ignore[attr-defined]
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[name], wanted[name], rtol=0, atol=1e-12) for name in wanted)


def test_a_stopped_draw_has_no_path() -> None:
    found = gradient(own(None, "x", stop("z")))
    wanted = gradient(E(q.xz, p.log("x|z", stop="z") + p.log("z", stop="z") - q.log("z|x", stop="z")))
    assert all(torch.allclose(found[name], wanted[name], rtol=0, atol=1e-12) for name in wanted)


def test_reinforce_has_the_gradient_of_the_elbo_on_average() -> None:
    """On draws of its own, from the noise that it is handed."""

    def mean(maximize: Expr) -> tuple[Tensor, Tensor]:
        model, found = linear(maximize), []
        for seed in range(50):
            model.update().gradient(model.inputs(64, seed=seed))
            found.append(torch.cat([p.grad.flatten() for p in model.parts.modules["encoder"].parameters()]))
        every = torch.stack(found)
        return every.mean(0), every.var(0) / len(every)

    (score, score_error), (path, path_error) = mean(own(Score(), "x")), mean(ELBO)
    assert bool(((score - path).abs() <= 4 * (score_error + path_error).sqrt()).all())


def test_reinforce_trains_a_family_without_a_path() -> None:
    tables = {
        "prior": {"type": "bits", "size": 4},
        "encoder": {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "bernoulli", "path": "none"}},
    }
    learned = own(Score(), "x") + E(q.xz, p.log("x|z", stop="z"))
    model = small_model(Objective.of(learned), **tables).double()
    before = [parameter.clone() for parameter in model.parts.modules["encoder"].parameters()]
    check_ownership(model.plan, model.parts, model.data(), 8)
    model.step()(lambda r: model.inputs())
    moved = zip(before, model.parts.modules["encoder"].parameters(), strict=True)
    assert any(not torch.equal(old, new) for old, new in moved)
    with pytest.raises(ConfigError, match=r"a gradient path through the reading 'sample'.*bernoulli"):
        small_model(Objective.of(own()), **tables)


@pytest.mark.parametrize("maximize", [own(), own(Score(), "x"), own(k=2)], ids=str)
def test_two_micro_batches_are_the_whole(maximize: Expr) -> None:
    def after(micro_batches: int) -> list[Tensor]:
        model = linear(maximize)
        model.step(micro_batches=micro_batches)(lambda r: model.inputs())
        return [parameter.detach().clone() for parameter in model.parts.modules.parameters()]

    for whole, parts in zip(after(1), after(2), strict=True):
        assert torch.allclose(whole, parts, rtol=0, atol=1e-12)


def test_dropout_has_named_masks() -> None:
    dropout = {"network": {"type": "mlp", "hidden": [6], "dropout": 0.5}, "family": {"type": "gaussian"}}
    model = small_model(Objective.of(own()), encoder=dropout).double()
    found = [model.update().gradient(model.inputs(seed=seed))[0]["model/loss"] for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    check_ownership(model.plan, model.parts, model.data(), 8)


@attrs.frozen
class Entropy:
    """-log q(z|x)."""

    trains: ClassVar[tuple[str, ...]] = ("posterior",)
    reads: ClassVar[tuple[str, ...]] = ()

    def __call__(self, x: Tensor, z: Tensor, *, noise: NoiseSource, posterior: Law) -> Tensor:
        """Return it at the draw."""
        return -posterior(x).log_prob(z)


def test_a_balanced_weight_measures_it() -> None:
    weight, first = Weight("w", 1.0, against="log p(x|z)"), p.log_x_given_z + p.log_z

    def scale(entropy: Expr) -> float:
        model = linear(E(q.xz, first + weight * entropy))
        meter = BalanceMeter(model.plan, model.parts, Workers.start("cpu"), BalanceScales())
        return float(meter([model.inputs()])["w"])

    estimated = scale(estimate(Entropy(), "x", stop("z"), laws=[q.log_z_given_x]))
    assert estimated == pytest.approx(scale(-1 * q.log("z|x", stop="z")))


# --- ownership -------------------------------------------------------------------------------------------------------


KEPT: list[Law] = []


@attrs.frozen
class Keeps:
    """Keeps the live decoder that it is handed."""

    trains: ClassVar[tuple[str, ...]] = ("likelihood",)
    reads: ClassVar[tuple[str, ...]] = ()

    def __call__(self, x: Tensor, z: Tensor, *, noise: NoiseSource, likelihood: Law) -> Tensor:
        """Return log p(x|z)."""
        KEPT[:] = [likelihood]
        return likelihood(z).log_prob(x)


@attrs.frozen
class Leaks:
    """Trains a law that it is not handed, or not the one that it is."""

    trains: ClassVar[tuple[str, ...]] = ("posterior",)
    reads: ClassVar[tuple[str, ...]] = ("likelihood",)
    how: str = "another's law"

    def __call__(self, x: Tensor, z: Tensor, *, noise: NoiseSource, posterior: Law, likelihood: Law) -> Tensor:
        """Return log p(x|z) - log q(z|x)."""
        law = KEPT[0] if self.how == "another's law" else likelihood
        entropy = posterior(x).log_prob(z)
        return law(z).log_prob(x) - (entropy.detach() if self.how == "nothing" else entropy)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("another's law", "leaks a gradient into 'decoder': it must not reach it"),
        ("nothing", "gives 'encoder' no gradient: it should reach it"),
    ],
)
def test_a_leak_is_caught(how: str, said: str) -> None:
    keeps = estimate(Keeps(), "x", stop("z"), laws=[p.log_x_given_z])
    leaks = estimate(Leaks(how), "x", stop("z"), laws=[q.log_z_given_x, p.log_x_given_z])
    model = linear(E(q.xz, keeps) + E(q.xz, leaks))
    with pytest.raises(OwnershipError, match=said):
        check_ownership(model.plan, model.parts, model.data(8), 8)


def test_what_it_reads_gets_no_gradient() -> None:
    model = linear(E(q.xz, estimate(Leaks("as declared"), "x", "z", laws=[q.log_z_given_x, p.log_x_given_z])))
    assert model.plan.updates[0].trains == ("encoder",)
    check_ownership(model.plan, model.parts, model.data(8), 8)


# --- text ------------------------------------------------------------------------------------------------------------


TEXT = "E[q(x,z)](own(x, stop(z); q(z|x), p(x|z), p(z)))"


def test_text_is_read_back() -> None:
    assert str(parse(TEXT)) == TEXT
    for k, weight in itertools.product(("", "; k=3", "; k=3 logmeanexp"), ("", "0.5*")):
        text = f"E[q(x,z){k}]({weight}own(x, stop(mean p(x|z)); q(z|x)) + log p(z))"
        assert str(parse(text)) == text
    whole = Objective.of(own())
    written = Expression.of(whole, load_plugins().registry)
    again = written.objective()
    assert isinstance(again, Objective)
    assert str(again.updates[0].maximize) == written.updates["model"].maximize


def test_explain_says_what_it_trains_and_reads() -> None:
    assert [*describe_estimators(Update("model", own(Score(), "x")))] == [
        "score computes its own gradient; it trains q(z|x) and reads p(x|z), p(z)"
    ]


MISTAKES = [
    ("E[q(x,z)](own(x; q(z|y)))", r"no factor of q.*did you mean 'q\(z\|x\)'"),
    ("E[q(x,z)](own(x; q(z|stop(x))))", "takes no value in the place of an argument"),
    ("E[q(x,z)](own(x; f))", "unknown joint 'f'"),
    ("E[q(x,z)](own(; q(z|x)))", "expected a value"),
]


@pytest.mark.parametrize(("text", "said"), MISTAKES)
def test_a_mistake_in_text_is_marked(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text)


def test_laws_that_are_missing_or_cannot_be_handed_over_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"handed 2 laws; it takes posterior \(trained\), likelihood"):
        own(laws=LAWS[:2])
    with pytest.raises(ConfigError, match=r"q\(x\) is drawn from a data source, so it can be handed to no estimator"):
        linear(own(laws=(*LAWS[:2], q.log("x"))))
    with pytest.raises(ConfigError, match="says not what it trains and reads"):
        estimate(lambda_free, "x", laws=LAWS)


def lambda_free(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)


# --- the kind --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [*checks("estimator", OwnElbo()), *checks("estimator", Score())], ids=str)
def test_conformance(check: Any) -> None:
    check()


@attrs.frozen
class Mixes:
    """Mixes rows, and forgets what it trains."""

    trains: ClassVar[tuple[str, ...]] = ("posterior",)
    reads: ClassVar[tuple[str, ...]] = ()

    def __call__(self, x: Tensor, *, noise: NoiseSource, posterior: Law) -> Tensor:
        """Return how far each row is from the mean of all."""
        return (x - x.mean(0)).square().sum(1)


def test_a_broken_estimator_fails_its_checks() -> None:
    failed = []
    for check in checks("estimator", Mixes()):
        try:
            check()
        except AssertionError as error:
            failed.append(str(error))
    assert any("among others" in one for one in failed)
    assert any("gives it no gradient" in one for one in failed)
