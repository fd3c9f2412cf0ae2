"""Figures of codes against closed forms: what codes carry and cost, which units vary, what is read from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from jointgen_metrics.codes import ActiveUnits
from jointgen_metrics.distances import MMD, SlicedWasserstein
from jointgen_metrics.information import MutualInformation, RateDistortion
from jointgen_metrics.likelihood import ELBO
from jointgen_metrics.moments import Moments
from jointgen_metrics.probes import LinearProbe, NeighborProbe
from jointgen_metrics.reconstruction import PSNR, RMSE, CodeRMSE
from jointgen_metrics.similarity import SSIM
from jointgen_vae.objective import VAE
from support.models import small_model

from jointgen.compiler.compiled_recipe import compile_recipe as prepare_recipe
from jointgen.config.recipe import read_recipe
from jointgen.contracts.figures import Estimate
from jointgen.contracts.statistics import KeptRows
from jointgen.data.split import open_split
from jointgen.evaluation.evaluate import evaluate
from jointgen.inference.model import Model
from jointgen.inference.streams import batches
from jointgen.objectives import Objective, elbo, joint_from_text
from jointgen.registry.components import Registry
from jointgen.testing.evaluation import TABLES, tiny

LINEAR: dict[str, Any] = {"type": "mlp", "hidden": []}
LINEAR_GAUSSIAN = {"network": LINEAR, "family": {"type": "gaussian"}}
ONE = {"type": "linear_gaussian", "weights": [[0.8]], "scale": 0.6, "rows": 4000}  # x ~ N(0, 1)


def found(model: Model, *metrics: Any, rows: int | None = None, batch: int = 500) -> dict[str, Estimate]:
    split = open_split(model.compiled.binding, "test")
    return evaluate(model, split if rows is None else split.first(rows), metrics, batch=batch)


@pytest.fixture(scope="session")
def linear() -> Callable[..., Model]:
    """(slopes, log scale) -> q(z_i|x) = N(slope_i x, exp(log scale)^2) and p(x|z) = N(0.5 sum_i z_i, 0.7^2)."""

    def make(slopes: list[float], log_scale: float) -> Model:
        fixed = {"network": LINEAR, "family": {"type": "gaussian", "scale": "fixed", "init_scale": 0.7}}
        parts = {"prior": {"type": "normal", "size": len(slopes)}, "encoder": LINEAR_GAUSSIAN, "decoder": fixed}
        made = small_model(VAE().objective(), data=ONE, **parts).double()
        encoder, decoder = (made.parts.modules[name].trunk.layers[0] for name in ("encoder", "decoder"))
        with torch.no_grad():
            encoder.weight.copy_(torch.tensor([[slope] for slope in slopes] + [[0.0]] * len(slopes)))
            encoder.bias.copy_(torch.tensor([0.0] * len(slopes) + [log_scale] * len(slopes)))
            decoder.weight.fill_(0.5)
            decoder.bias.zero_()
        return Model(made.compiled, made.parts)

    return make


# --- rate, distortion, mutual information ----------------------------------------------------------------------------


def test_rate_and_distortion_of_a_linear_gaussian(linear: Any) -> None:
    """z = x + 0.5 eps with x ~ N(0, 1): KL(q(z|x) : p(z)) = 1/2 (x^2 + 0.25 - 1 - log 0.25), whose mean is 0.8181.
    x - z/2 = x/2 - eps/4 has variance 0.3125, so -log p(x|z) = 1/2 log(2 pi 0.49) + 0.3125 / 0.98 = 0.8811 on average.
    """
    figures = found(linear([1.0], math.log(0.5)), RateDistortion())
    rate, distortion = 0.5 * (0.25 - math.log(0.25)), 0.5 * math.log(2 * math.pi * 0.49) + 0.3125 / 0.98
    assert (rate, distortion) == (pytest.approx(0.8181, abs=1e-4), pytest.approx(0.8811, abs=1e-4))
    for name, wanted in (("rate", rate), ("distortion", distortion)):
        assert abs(figures[name].value - wanted) < 4 * figures[name].standard_error < 0.1


def test_rate_and_distortion_are_of_the_bits_that_the_elbo_is_of() -> None:
    bits = {"network": LINEAR, "family": {"type": "bernoulli"}}
    made = tiny(tables={"data": {"type": "digits", "observe": "binarise"}, "decoder": bits})
    figures = found(Model(made, made.parts), RateDistortion(), ELBO())
    assert figures["rate"].value + figures["distortion"].value == pytest.approx(-figures["elbo"].value, abs=1e-4)
    assert figures["distortion"].note == figures["elbo"].note != ""


@pytest.mark.parametrize("labelled", [False, True])
def test_rate_and_distortion_are_minus_the_elbo_of_the_same_draws(labelled: bool) -> None:
    q = joint_from_text("q", "q(x,y) q(z|x,y)" if labelled else "q(x) q(z|x)")
    p = joint_from_text("p", "p(y) p(z) p(x|z,y)" if labelled else "p(z) p(x|z)", {"p(y)": "data"} if labelled else {})
    data = {"type": "ring", "rows": 64, "labels": labelled}
    made = small_model(Objective.of(elbo(q, p)), data=data).double()
    figures = found(Model(made.compiled, made.parts), RateDistortion(), ELBO())
    assert figures["rate"].value + figures["distortion"].value == pytest.approx(-figures["elbo"].value, abs=1e-9)


def test_mutual_information_of_a_linear_gaussian(linear: Any) -> None:
    """z = x + 0.5 eps: I(x; z) = 1/2 log(1 + 1/0.25) = 0.8047, and q(z) = N(0, 1.25) has
    KL(q(z) : p(z)) = 1/2 (1.25 - 1 - log 1.25) = 0.0134. The N rows are draws of x, too: their variance has an error of
    sqrt(2/N), which the second feels."""
    figures = found(linear([1.0], math.log(0.5)), MutualInformation())
    information, divergence = figures["mutual_information"], figures["kl_qz_pz"]
    assert 0.5 * math.log(5) == pytest.approx(0.8047, abs=1e-4)
    assert abs(information.value - 0.5 * math.log(5)) < 4 * information.standard_error < 0.1
    assert divergence.value == pytest.approx(0.5 * (0.25 - math.log(1.25)), abs=0.02)
    assert (information.bound, divergence.bound, information.n) == ("lower", "upper", 2000)
    assert information.protocol == divergence.protocol == "2000 rows"


def test_a_code_without_information_has_none(linear: Any) -> None:
    """Every posterior is N(0, 0.25), so every density of a code is the same: exactly 0; and KL = the rate, whose mean
    over draws is 1/2 (0.25 - 1 - log 0.25) = 0.3181."""
    figures = found(linear([0.0], math.log(0.5)), MutualInformation(), RateDistortion())
    assert figures["mutual_information"].value == pytest.approx(0.0, abs=1e-12)
    assert figures["kl_qz_pz"].value == pytest.approx(0.5 * (0.25 - 1 - math.log(0.25)), abs=0.05)


def test_a_code_that_says_all_is_held_at_log_n(linear: Any) -> None:
    """Posteriors of 50 rows that do not touch: log q(z_i|x_i) - log (q(z_i|x_i) / 50), however fine the code. The
    closed form is 1/2 log(1 + 1e6 exp(12)) = 12.9."""
    value = found(linear([1000.0], -6.0), MutualInformation(rows=50))["mutual_information"].value
    assert math.log(50) - 0.1 < value <= math.log(50) + 1e-9


def test_the_divergence_is_the_rate_less_the_mutual_information(linear: Any) -> None:
    """On the same rows and draws, term by term."""
    figures = found(linear([1.0, -0.5], -0.3), MutualInformation(rows=300), RateDistortion(), rows=300)
    left = figures["rate"].value - figures["mutual_information"].value
    assert figures["kl_qz_pz"].value == pytest.approx(left, abs=1e-9)


def test_what_has_no_density_says_so(linear: Any) -> None:
    implicit = {"network": LINEAR, "family": {"type": "implicit", "noise": 0}}
    made = tiny(tables={"decoder": implicit, "objective": {"type": "ali"}})
    figures = found(Model(made, made.parts), RateDistortion(), MutualInformation(rows=20), rows=40)
    assert figures["distortion"].note == "decoder has no density at points that it did not draw"
    assert figures["rate"].value is not None
    assert figures["mutual_information"].value is not None
    made = tiny(tables={"encoder": {"network": LINEAR, "family": {"type": "implicit"}}, "objective": {"type": "avb"}})
    figures = found(Model(made, made.parts), RateDistortion(), MutualInformation(), SlicedWasserstein(), MMD(), rows=40)
    assert figures["rate"].note == "encoder has no density at its own draws"
    assert figures["mutual_information"].note == figures["kl_qz_pz"].note == "q(z|x) has no density"
    assert all(figures[name].value is not None for name in ("distortion", "sw_z", "sw_z_floor", "mmd_z"))


# --- distances of a model --------------------------------------------------------------------------------------------


def test_an_aggregate_posterior_beside_the_prior(linear: Any) -> None:
    """z = 2x + 0.5 eps ~ N(0, 4.25) is sqrt(4.25) - 1 = 1.0616 from N(0, 1); two sets of draws of that are close."""
    figures = found(linear([2.0], math.log(0.5)), SlicedWasserstein(), MMD(rows=1000))
    assert figures["sw_z"].value == pytest.approx(math.sqrt(4.25) - 1, abs=0.08)
    assert 0 < figures["sw_z_floor"].value < 0.08
    assert figures["sw_z"].protocol == "4000 draws, 256 directions"
    assert figures["mmd_z"].value > 5 * figures["mmd_z"].standard_error


def test_an_aggregate_posterior_that_is_the_prior(linear: Any) -> None:
    """z = 0.8x + 0.6 eps ~ N(0, 1)."""
    figures = found(linear([0.8], math.log(0.6)), SlicedWasserstein(), MMD(rows=1000))
    assert figures["sw_z"].value < 0.08
    assert abs(figures["mmd_z"].value) < 4 * figures["mmd_z"].standard_error


EVERY_PRIOR = (SlicedWasserstein(), MMD(), ActiveUnits(), RateDistortion(), MutualInformation(), CodeRMSE())


@pytest.mark.parametrize(
    "tables",
    [
        {
            "prior": {"type": "normal", "size": [3, 2, 2]},
            "encoder": {"network": {"type": "conv", "widths": [4, 8]}, "family": {"type": "gaussian"}},
            "decoder": {"network": {"type": "conv", "widths": [8, 4]}, "family": {"type": "gaussian"}},
        },
        {"prior": {"type": "vamp", "size": 2, "components": 5}},
        {"prior": {"type": "learned", "size": 2}},
    ],
    ids=["codes that are images", "a mixture of posteriors", "a learned prior"],
)
def test_every_figure_is_there(tables: dict[str, Any]) -> None:
    made = tiny(tables=tables)
    figures = found(Model(made, made.parts), *EVERY_PRIOR, rows=40)
    assert all(math.isfinite(estimate.value) for estimate in figures.values())


def test_a_prior_that_is_data(registry: Registry) -> None:
    """x are digits, z other digits in negative: distances need draws of p(z) alone, and it has no density."""
    images = {"network": LINEAR, "family": {"type": "gaussian"}}
    tables = {name: table for name, table in TABLES.items() if name != "prior"}
    tables |= {"encoder": images, "decoder": images, "objective": {"type": "ali"}}
    tables |= {"sources": {"prior": {"type": "digits", "negative": True}}}
    made = prepare_recipe(read_recipe(tables, registry=registry), registry)
    figures = found(Model(made, made.parts), *EVERY_PRIOR, rows=40)
    assert figures["rate"].note == figures["kl_qz_pz"].note == "p(z) is data, whose density is not known"
    assert figures["sw_z_floor"].note == "p(z) is data, of which there is one set"
    values = [figures[name].value for name in ("sw_z", "mmd_z", "mutual_information", "code_rmse", "distortion")]
    assert all(math.isfinite(value) for value in values)


# --- active units ----------------------------------------------------------------------------------------------------


def test_units_are_active_by_the_variance_of_their_means(linear: Any) -> None:
    """x ~ N(0, 1), so the variances are 1, 0.04, 0.0025 and 0, whatever the posterior's own variance of 1."""
    model = linear([1.0, -0.2, 0.05, 0.0], 0.0)
    assert found(model, ActiveUnits())["active_units"].value == 2
    assert found(model, ActiveUnits(threshold=0.001))["active_units"].value == 3
    assert found(model, ActiveUnits(threshold=2.0))["active_units"].value == 0
    assert found(model, ActiveUnits(), rows=1)["active_units"].value is None


def test_a_network_with_noise_has_no_mean_code() -> None:
    for noise, note in ((3, "q(z|x) has no mean that can be read"), (0, "")):
        encoder = {"network": LINEAR, "family": {"type": "implicit", "noise": noise}}
        made = tiny(tables={"encoder": encoder, "objective": {"type": "avb"}})
        assert ActiveUnits().figures(Model(made, made.parts).view)[0].note == note


def test_moments_merge_to_those_of_all_rows() -> None:
    values = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 100
    merged = Moments.of(values[:7]).merge(Moments.from_tensors(Moments.of(values[7:]).tensors()))
    assert merged.variance is not None
    assert merged.n == 50
    assert torch.allclose(merged.mean, values.mean(0), rtol=0, atol=1e-12)
    assert torch.allclose(merged.variance, values.var(0), rtol=0, atol=1e-12)


# --- probes ----------------------------------------------------------------------------------------------------------

PROBES = [LinearProbe(), NeighborProbe()]


def ring(weight: float, labels: bool = True) -> Model:
    """Eight modes around a circle, in order; the mean code is weight * x."""
    data = {"type": "ring", "rows": 800, "labels": labels}
    made = small_model(VAE().objective(), data=data, encoder=LINEAR_GAUSSIAN).double()
    with torch.no_grad():
        layer = made.parts.modules["encoder"].trunk.layers[0]
        layer.weight.zero_()
        layer.weight[:2] = weight * torch.eye(2)
        layer.bias.zero_()
    return Model(made.compiled, made.parts)


@pytest.mark.parametrize("labels", [True, False])
def test_codes_that_separate_the_classes(labels: bool) -> None:
    """The ring's modes are 0.1 wide and 1.53 apart, and each is cut off by a line. The recipe need not read labels."""
    figures = found(ring(1.0, labels), *(attrs.evolve(probe, train_rows=300) for probe in PROBES))
    for name in ("probe_linear", "probe_knn"):
        assert figures[name].value > 0.995
        assert (figures[name].n, figures[name].split) == (800, "test")


def test_labels_that_the_run_does_not_read_are_those_of_the_rows() -> None:
    """Also where rows are picked from a split, evenly apart: 300 of 800, and of these every third."""
    model, picked = ring(1.0, labels=False), torch.arange(100) * 3 * 800 // 300
    split = open_split(model.compiled.binding, "train").spread(300).spread(100)
    (labels,) = split.labels(torch.arange(100)).values()
    assert torch.equal(labels, ring(1.0).view.sources["data"].open("train").take(picked)["y"])
    for estimate in found(model, LinearProbe(train_rows=300), NeighborProbe(train_rows=300), rows=100).values():
        assert estimate.value > 0.99


def test_codes_that_say_nothing_are_right_by_chance() -> None:
    """All codes are 0, so all rows get one class of eight."""
    for estimate in found(ring(0.0), *PROBES).values():
        assert abs(estimate.value - 1 / 8) < 0.05


def test_labels_are_needed(linear: Any) -> None:
    figures = found(linear([1.0], 0.0), *PROBES)
    for estimate in figures.values():
        assert estimate.value is None
        assert estimate.note == "the data has no labels"


def test_rows_without_labels_are_not_scored() -> None:
    """As a user's own images have none: the rest of an evaluation goes on."""
    (measure,) = NeighborProbe().figures(ring(1.0).view)
    unlabelled = KeptRows.of(torch.arange(3), codes=torch.zeros(3, 2))
    assert measure.finish(unlabelled, unlabelled) == (None, None)
    assert measure.note == "needs labels of the rows that are evaluated"


def test_one_class_is_all_that_is_foretold() -> None:
    """Fitted on the first row alone, of class 0: an eighth of the rows are."""
    for probe in (LinearProbe(train_rows=1), NeighborProbe(train_rows=1)):
        (estimate,) = found(ring(1.0), probe).values()
        assert estimate.value == pytest.approx(1 / 8, abs=0.05)


# --- batches and processes -------------------------------------------------------------------------------------------

EVERY: list[Any] = [
    RMSE(),
    PSNR(),
    SSIM(),
    CodeRMSE(),
    SlicedWasserstein(),
    MMD(),
    ActiveUnits(),
    RateDistortion(),
    MutualInformation(),
    *PROBES,
]


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: type(metric).__name__)
def test_it_is_the_same_however_batches_are_shared_out(metric: Any) -> None:
    """One process merges them in order, two take every second one each, and exchange tensors."""
    made = tiny(tables={"data": {"type": "digits", "labels": True}})
    model = Model(made, made.parts).view
    split = open_split(made.binding, "test").first(70)
    for measure in metric.figures(model):
        alone, shared = [], []
        for collect in measure.statistics:
            with torch.no_grad():
                parts = [collect.compute(batch) for batch in batches(model, split, 16, seed=0)]
            alone.append(merged(parts))
            halves = [merged(parts[1::2]), merged(parts[::2])]
            shared.append(merged([collect.kind.from_tensors(half.tensors()) for half in halves]))
        (value, error), (value_, error_) = measure.finish(*alone), measure.finish(*shared)
        assert value == pytest.approx(value_, rel=1e-9, abs=1e-12)
        assert error == (None if error is None else pytest.approx(error_, rel=1e-6))


def merged(parts: list[Any]) -> Any:
    first, *rest = parts
    for part in rest:
        first = first.merge(part)
    return first
