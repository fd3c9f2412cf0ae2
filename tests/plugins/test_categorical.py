"""The categorical family and prior, by hand and in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from jointgen_families.bernoulli import Bernoulli
from jointgen_families.categorical import Categorical, CategoricalPrior

from jointgen.contracts.noise import Noise, NoiseSource
from jointgen.contracts.observation import observe
from jointgen.contracts.space import Space

torch.set_num_threads(1)

LABEL = Space((3,), kind="label")
LOG_SHARES = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log()


def noise(rows: int) -> NoiseSource:
    return Noise(0, dtype=torch.float64).named("n", rows)


def test_log_probabilities_and_kl_by_hand() -> None:
    law = Categorical().build(LABEL).double()(LOG_SHARES)
    assert law.log_prob(torch.tensor([[0.0, 1.0, 0.0]]).double()).item() == pytest.approx(math.log(0.3))
    soft = torch.tensor([[0.5, 0.25, 0.25]]).double()  # scored linearly
    assert law.log_prob(soft).item() == pytest.approx(0.5 * math.log(0.5) + 0.25 * math.log(0.06))
    uniform = CategoricalPrior(classes=3).build().double()(1)
    entropy = -(0.5 * math.log(0.5) + 0.3 * math.log(0.3) + 0.2 * math.log(0.2))
    assert law.kl_to(uniform).item() == pytest.approx(math.log(3) - entropy)
    assert uniform.kl_to(law).item() == pytest.approx(-math.log(3) - math.log(0.5 * 0.3 * 0.2) / 3)


@pytest.mark.parametrize("path", ["straight-through", "none"])
def test_labels_come_with_their_probabilities_at_any_temperature(path: str) -> None:
    law = Categorical(path=path, temperature=2.0).build(LABEL).double()(LOG_SHARES.expand(20_000, 3))  # type: ignore[arg-type]
    shares = law.draw(noise(20_000)).read("sample").mean(0)
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.016)  # 4.5 standard deviations of 0.5


def test_a_straight_through_gradient_is_that_of_the_relaxed_reading() -> None:
    logits = LOG_SHARES.expand(4, 3).clone().requires_grad_()
    draw = Categorical().build(LABEL).double()(logits).draw(noise(4))
    weights = torch.arange(12, dtype=torch.float64).view(4, 3)
    slopes = [torch.autograd.grad((draw.read(r) * weights).sum(), logits)[0] for r in ("sample", "relaxed")]
    assert torch.equal(*slopes) and slopes[0].abs().sum() > 0


def test_a_cold_relaxed_reading_is_the_label_and_a_relaxed_path_is_scored_as_one() -> None:
    logits = LOG_SHARES.expand(50, 3)
    cold = Categorical(path="relaxed", temperature=0.001).build(LABEL).double()(logits)
    draw = cold.draw(noise(50))
    assert (
        draw.read("sample") - Categorical().build(LABEL).double()(logits).draw(noise(50)).read("sample")
    ).abs().max() < 1e-4
    soft = torch.tensor([[0.4, 0.35, 0.25]], dtype=torch.float64)
    law = Categorical(path="relaxed").build(LABEL).double()(LOG_SHARES)
    assert law.log_prob(soft).item() == pytest.approx(math.log(0.5))


def test_a_view_of_labels_is_a_relaxed_draw_of_equal_classes() -> None:
    """Labels of equal classes, viewed, have the law of the relaxed reading under equal logits, in all its moments."""
    rows, family = 40_000, Categorical(temperature=1.0).build(LABEL).double()
    raw = torch.arange(rows) % 3
    seen = family.view("relaxed", observe(LABEL, raw, noise(rows)), Noise(1, dtype=torch.float64).named("v", rows))
    assert torch.equal(seen.argmax(1), raw)
    drawn = family(torch.zeros(rows, 3).double()).draw(Noise(2, dtype=torch.float64).named("d", rows)).read("relaxed")
    for power in (1, 2, 4):
        assert (seen**power).mean(0).tolist() == pytest.approx((drawn**power).mean(0).tolist(), abs=0.01)


def test_a_learned_prior_starts_uniform_and_finds_the_shares() -> None:
    module = CategoricalPrior(classes=3, probabilities="learned").build()
    labels = torch.eye(3)[[0, 0, 0, 0, 0, 1, 1, 1, 2, 2]]
    assert module(10).log_prob(labels).tolist() == pytest.approx([-math.log(3)] * 10)
    optimizer = torch.optim.Adam(module.parameters(), 0.1)
    for _ in range(300):
        optimizer.zero_grad()
        (-module(10).log_prob(labels).mean()).backward()
        optimizer.step()
    assert module(1).mean[0].tolist() == pytest.approx([0.5, 0.3, 0.2], abs=1e-3)


def test_a_few_bits_can_be_listed_and_many_cannot() -> None:
    family = Bernoulli()
    space = Space((2,), kind="binary")
    assert family.capabilities(space).values == 4
    assert family.build(space)(torch.zeros(1, 2)).values().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert family.capabilities(Space((64,), kind="binary")).values == 0
