"""Critics' health: the figures of their two sides, and what is said of ratios that can no longer be trusted.

The exact log-ratio of N(m, 1) to N(0, 1) is m x - m^2 / 2. Under N(0, 1), exp of it has mean 1 and variance
exp(m^2) - 1; by symmetry so has exp of its negative under N(m, 1).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from jointgen_critics.losses import Hinge, LeastSquares, Wasserstein
from support.models import assemble, make_step, resolve, small_model
from support.networks import Line, StandardNormal
from support.paths import QUICKSTART
from support.runs import SMALL, stop_after, train_small
from torch import Tensor

import jointgen
from jointgen.contracts.noise import Noise
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.critic_statistics import critic_figures
from jointgen.errors import StoppedError
from jointgen.objectives import E, Objective, Update, log_ratio, log_sigmoid, p, q, score
from jointgen.objectives.objective import resolved
from jointgen.runs.records import Summary
from jointgen.training.critic_trust import CriticTrust

ROWS = 128
F = resolved(log_ratio(q.x, p.x, name="f"), resolve)


@pytest.fixture
def watching() -> Callable[..., CriticTrust]:
    """watching(ratio, rows=128) -> CriticTrust that watches it."""

    def make(ratio: Any = F, rows: int = ROWS) -> CriticTrust:
        health = CriticTrust(rows)
        health.watch(plan_of(ratio))
        return health

    return make


def plan_of(ratio: Any) -> Any:
    return assemble(Objective.of(E(p.xz, ratio)), {})[0]


def sides(m: float, event: int, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    """Draws of N(m, 1) and of N(0, 1)."""
    source = Noise(event, dtype=torch.float64).named("x", rows).normal(2)
    return source[:, 0] + m, source[:, 1]


def figures(positive: Tensor, negative: Tensor, ratio: Any = F) -> dict[str, float]:
    found = critic_figures(ratio, {"positive": [(1.0, positive)], "negative": [(1.0, negative)]})
    return {name: value.item() for name, value in found.items()}


def events(f: Callable[[Tensor], Tensor], m: float, count: int, start: int = 0) -> Iterable[dict[str, float]]:
    for event in range(start, start + count):
        a, b = sides(m, event)
        yield figures(f(a), f(b))


def said(health: CriticTrust, figures_of_events: Iterable[dict[str, float]], start: int = 0) -> list[str]:
    steps = enumerate(figures_of_events, start + 1)
    return [line for number, values in steps for line in health.add(100 * number, values)]


def exact(m: float) -> Callable[[Tensor], Tensor]:
    return lambda x: m * x - m * m / 2


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures_of_a_log_ratio_by_hand() -> None:
    """Saturated rows: 5 and 6 of the positives and -10 of the negatives, with sigmoids beyond 0.99 = s(4.595)."""
    found = figures(torch.tensor([5.0, -7.0, 1.0, 6.0]), torch.tensor([4.0, -10.0, -1.0, 2.0]))
    assert found == pytest.approx(
        {
            "f/positive_mean": 5 / 4,
            "f/positive_accuracy": 3 / 4,
            "f/positive_log_mean_exp": math.log((math.exp(-5) + math.exp(7) + math.exp(-1) + math.exp(-6)) / 4),
            "f/negative_mean": -5 / 4,
            "f/negative_accuracy": 2 / 4,
            "f/negative_log_mean_exp": math.log((math.exp(4) + math.exp(-10) + math.exp(-1) + math.exp(2)) / 4),
            "f/max_abs": 10.0,
            "f/saturation": 3 / 8,
        },
        rel=1e-6,
    )


def test_figures_are_finite_where_their_exponentials_are_not() -> None:
    found = figures(torch.tensor([1e30, -1e30]), torch.tensor([-2e4, -3e4]))
    assert found["f/positive_log_mean_exp"] == pytest.approx(1e30, rel=1e-6)
    assert found["f/negative_log_mean_exp"] == pytest.approx(-2e4 - math.log(2), rel=1e-6)
    assert all(map(math.isfinite, found.values()))


@pytest.mark.parametrize(
    ("loss", "accuracies"),
    [(Hinge(), {"positive": 2 / 3, "negative": 1 / 3}), (LeastSquares(), {"positive": 1 / 3, "negative": 2 / 3})],
)
def test_a_scores_accuracy_is_by_its_own_boundary(loss: Any, accuracies: dict[str, float]) -> None:
    """0.2 is a positive to the hinge, which is indifferent at 0, and not to least squares, which is so at 1/2.

    At the boundary both sides' losses are equal, which is what it means."""
    d = score(q.x, p.x, name="d", loss=loss)
    found = figures(torch.tensor([0.2, 0.9, -0.3]), torch.tensor([0.7, 0.2, -0.1]), d)
    expected = {f"d/{side}_accuracy": pytest.approx(value) for side, value in accuracies.items()}
    assert {name: value for name, value in found.items() if "accuracy" in name} == expected
    assert {*found} == {*expected, "d/positive_mean", "d/negative_mean", "d/max_abs"}


def test_a_wasserstein_score_has_no_accuracy() -> None:
    """It may be shifted by any number."""
    w = score(q.x, p.x, name="w", loss=Wasserstein())
    found = figures(torch.tensor([1.0, 5.0]), torch.tensor([-7.0, 1.0]), w)
    assert found == {"w/positive_mean": 3.0, "w/negative_mean": -3.0, "w/max_abs": 7.0}


def test_a_step_finds_them_of_the_exact_ratio() -> None:
    """Data from N(1, 1), a decoder that draws N(0, 1), and the critic x - 1/2: both identities within four standard
    errors of n = 20000 rows, sqrt((e - 1) / n) each."""
    n = 20_000
    decoder = Line(0.0, 0.0, 0.0)
    plan, parts = assemble(Objective.of(E(p.x, F)), {"prior": StandardNormal(), "decoder": decoder, "f": Shifted()})
    noise = Noise(0, dtype=torch.float64)
    x = 1 + noise.named("data", n).normal(1)
    stats = make_step(plan, parts, 0.0)(lambda r: StepInputs({"data": {"x": x}}, noise, n), until_log=0)
    error = 4 * math.sqrt((math.e - 1) / n)
    for side in ("positive", "negative"):
        assert math.exp(float(stats[f"f/{side}_log_mean_exp"])) == pytest.approx(1.0, abs=error)
    assert 0.01 < error < 0.05


class Shifted(torch.nn.Module):
    """x - 1/2 of the one thing that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0] - self.shift


@pytest.mark.parametrize(("every", "log_every"), [(1, 4), (2, 4), (3, 4), (4, 2)])
def test_every_log_event_has_the_last_run_of_each_update(every: int, log_every: int) -> None:
    """A critic that runs at steps 0, 2, 4, ... has run at none of 3, 7, 11, ..., where the log is written."""
    own = Update("f", E(q.x, log_sigmoid(F)) + E(p.x, log_sigmoid(-F)), trains="f", every=every)
    model = small_model(Objective((Update("model", E(p.x, F)), own)))
    step = model.step()
    had = []
    for number in range(12):
        made: dict[str, Any] = {"step": number}
        found = step(lambda r, made=made: model.inputs(repetition=r, **made), until_log=-(number + 1) % log_every)
        had += [number] if "f/max_abs" in found else []
        assert ("f/grad_norm" in found) == ("f/max_abs" in found)
    due = [number for number in range(12) if number % every == 0]
    ends = range(log_every - 1, 12, log_every)
    assert had == sorted({max(number for number in due if number <= end) for end in ends})


def summary_with(health: CriticTrust) -> Summary:
    return Summary(status="running", step=0, critics=health.summary())


# --- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [0.0, 0.5, 1.0])
def test_nothing_is_said_of_an_exact_ratio(m: float, watching: Callable[..., CriticTrust]) -> None:
    """Over 200 log events of 128 rows; and the last of them know the identities within their error."""
    health = watching()
    assert said(health, events(exact(m), m, 200)) == []
    found = health.summary()["f"]
    assert (found.trusted, found.distrusted_since, found.note) == (True, None, "")
    assert (found.ratio, found.rows, found.step) == ("log q(x)/p(x)", 5 * ROWS, 20000)
    error = 4 * math.sqrt((math.exp(m * m) - 1) / (5 * ROWS)) + 1e-9
    for side in ("positive", "negative"):
        assert math.exp(found.figures[f"{side}_log_mean_exp"]) == pytest.approx(1.0, abs=error)


def test_a_ratio_of_what_lies_apart_is_not_trusted(watching: Callable[..., CriticTrust]) -> None:
    """20 standard deviations: exact, and beyond what rows can tell, E log a/b being 200 nats. Said once, after 5."""
    health = watching()
    (line,) = said(health, events(exact(20.0), 20.0, 20))
    assert line.startswith(
        "step 500: critic f cannot be trusted as log q(x)/p(x): over 640 rows E[p(x)] exp(f) is exp(-1"
    )
    assert line.endswith(
        "where both should be 1; accuracy 100.0%, 100.0% of rows are saturated: nearly every row is told apart, so "
        "the log-ratio is more than so many rows can tell (about log 640 = 6.5 nats)"
    )
    found = health.summary()["f"]
    assert (found.trusted, found.distrusted_since, found.step) == (False, 500, 2000)
    assert summary_with(health).distrusted() == [f"step 2000: {found.note}"]
    json.dumps(attrs.asdict(found), allow_nan=False)


def test_a_ratio_that_overstates_is_not_trusted(watching: Callable[..., CriticTrust]) -> None:
    """f = log a/b + log 8: E_b exp(f) = 8 and E_a exp(-f) = 1/8."""
    (line,) = said(watching(), events(lambda x: exact(1.0)(x) + math.log(8), 1.0, 20))
    assert "it overstates the log-ratio (accuracy" in line and "it is off, or the log-ratio is more than" in line


@pytest.mark.parametrize(("off", "lines"), [(2.5, 0), (6.4, 1)])
def test_a_mean_may_be_off_by_less_than_four(off: float, lines: int, watching: Callable[..., CriticTrust]) -> None:
    assert len(said(watching(), events(lambda x: exact(0.3)(x) + math.log(off), 0.3, 20))) == lines


def test_one_bad_event_among_good_ones_says_nothing(watching: Callable[..., CriticTrust]) -> None:
    """E_b exp(f) = 20 at every tenth event: 20 < 4^5, which a product of five means passes by chance 1 time in 1024."""
    good, bad = events(exact(0.3), 0.3, 40), events(lambda x: exact(0.3)(x) + math.log(20), 0.3, 40)
    mixed = [b if number % 10 == 7 else a for number, (a, b) in enumerate(zip(good, bad, strict=True))]
    assert said(watching(), mixed) == []


def test_trust_begins_anew(watching: Callable[..., CriticTrust]) -> None:
    """One line when it ends; and one when the last five log events together have been right for five log events."""
    health = watching()
    far, near = events(lambda x: exact(1.0)(x) * 0 - 9, 1.0, 8), events(exact(1.0), 1.0, 12, start=8)
    ended, began = said(health, [*far, *near])
    assert ended.startswith("step 500: critic f cannot be trusted")
    assert began.startswith("step 1700: critic f can be trusted again: E[p(x)] exp(f) is ")
    assert health.summary()["f"].trusted is True
    assert summary_with(health).distrusted() == []


def test_small_batches_take_more_log_events(watching: Callable[..., CriticTrust]) -> None:
    """500 rows at least: 50 log events of 10."""
    health = watching(rows=10)
    wrong = {"f/positive_log_mean_exp": -9.0, "f/negative_log_mean_exp": -9.0, "f/saturation": 0.0}
    wrong |= {"f/positive_accuracy": 0.5, "f/negative_accuracy": 0.5}
    (line,) = said(health, [wrong] * 60)
    assert line.startswith("step 5000: ")


def test_a_critic_that_looks_at_one_side_is_judged_by_it(watching: Callable[..., CriticTrust]) -> None:
    found = {name: value for name, value in next(iter(events(exact(20.0), 20.0, 1))).items() if "negative" not in name}
    (line,) = said(watching(), [found] * 5)
    assert "over 640 rows E[q(x)] exp(-f) is exp(-1" in line and ", where it should be 1; " in line


def test_scores_are_not_judged(watching: Callable[..., CriticTrust]) -> None:
    d = score(q.x, p.x, name="f", loss="hinge")
    health = watching(d)
    d = attrs.evolve(d, loss=Hinge())
    assert said(health, [figures(torch.full((4,), 99.0), torch.full((4,), -99.0), d)] * 9) == []
    found = health.summary()["f"]
    assert (found.trusted, found.ratio, found.figures["max_abs"]) == (None, "score q(x) : p(x)", 99.0)


def test_a_stage_keeps_what_it_knows_of_the_same_ratio(watching: Callable[..., CriticTrust]) -> None:
    """Another ratio of the same name is judged afresh; one that is no longer trained stays as it was last seen."""
    health = watching()
    said(health, events(exact(20.0), 20.0, 8))
    health.watch(plan_of(F))
    assert health.summary()["f"].trusted is False
    health.watch(plan_of(log_ratio(q.x, p.x, name="g")))
    assert health.summary()["f"].step == 800
    health.watch(plan_of(log_ratio(p.x, q.x, name="f")))
    assert health.summary() == {}
    assert health.add(900, next(iter(events(exact(20.0), 20.0, 1)))) == []
    assert health.summary()["f"].trusted is None


# --- runs -------------------------------------------------------------------------------------------------------------

RUN: dict[str, Any] = {
    "encoder.network.hidden": [32],
    "discriminator.hidden": [64],
    "objective.critic.penalties": [],
    "objective.form": "literal",
    "optimizer.critics.lr": 0.02,
    "train.batch": 128,
    "train.pair_block": None,
    "train.steps": 100,
    "train.log_every": 10,
    "train.checkpoint_every": 60,
}


def train(out: Path, **options: Any) -> dict[str, Any]:
    train_small(out, RUN, quiet=False, **options)
    return json.loads((out / "summary.json").read_text())["critics"]


def test_a_run_says_so_once_and_a_resumed_one_goes_on_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], say: Any
) -> None:
    """AS-VAE's literal objective asks critics for the mutual information. Nothing of it is forgotten by a stop."""
    whole = train(tmp_path / "whole")
    spoken = [line for line in capsys.readouterr().err.splitlines() if "trusted" in line]
    assert whole["f1"]["trusted"] is False and whole["f1"]["ratio"] == "log q(x,z)/p(x)p(z)"
    since = whole["f1"]["distrusted_since"]
    assert [line for line in spoken if " f1 " in line][-1].startswith(f"step {since}: critic f1 cannot be trusted as ")

    with pytest.raises(StoppedError):
        train(tmp_path / "cut", stop=stop_after(78))
    assert train(tmp_path / "cut", resume=True) == whole
    again = [line for line in capsys.readouterr().err.splitlines() if "trusted" in line]
    assert again == spoken

    found = say("eval", tmp_path / "whole")
    assert f"jointgen: step 100: {whole['f1']['note']}" in found.problems


def test_a_run_without_critics_has_none(tmp_path: Path) -> None:
    changes = {"objective": {"type": "vae"}, "discriminator": None, "train.steps": 2}
    run = jointgen.run(QUICKSTART, {**SMALL, **changes}, out=tmp_path / "run", quiet=True)
    assert run.summary["critics"] == {}
