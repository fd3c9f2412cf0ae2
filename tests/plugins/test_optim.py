"""Schedules by their closed forms, and optimizers that are more than torch's class of the same name."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from jointgen_optim.optimizers import Adagrad, Adam, Muon
from jointgen_optim.schedules import Cosine, Exponential, InverseSqrt, Polynomial, Steps
from support.paths import QUICKSTART
from support.runs import SMALL
from torch import nn

from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.optimizers import Rate
from jointgen.config.recipe import read_recipe, write_recipe
from jointgen.engine.optimizers import Optimizers
from jointgen.errors import ComponentError, ConfigError
from jointgen.registry.components import Component, Registry


def rates(schedule: Any, *steps: int, **keys: Any) -> list[float]:
    return [Rate(lr=2.0, schedule=schedule, **keys).rate(step, 100) for step in steps]


def test_schedules_by_hand() -> None:
    """Of a full rate of 2, over 100 steps without a warm-up."""
    assert rates(Exponential(to=0.01), 0, 50, 100) == pytest.approx([2.0, 0.2, 0.02])
    assert rates(Polynomial(power=2.0), 0, 50, 100) == pytest.approx([2.0, 0.5, 0.0])
    assert rates(Steps(at=(0.5, 0.75), factor=0.1), 49, 50, 80) == pytest.approx([2.0, 0.2, 0.02])
    assert rates(InverseSqrt(after=20), 0, 20, 60) == pytest.approx([2.0, math.sqrt(2.0), 1.0])
    # two cycles: a quarter of the run is half of one, and the second begins at the full rate
    assert rates(Cosine(cycles=2), 0, 25, 50, 75, 100) == pytest.approx([2.0, 1.0, 2.0, 1.0, 0.0])


def test_every_restart_of_many_cycles_is_at_the_full_rate() -> None:
    """100 cycles of 10 steps: 0.29 * 100 is 28.999999999999996 in floats."""
    cosine = Rate(lr=2.0, schedule=Cosine(cycles=100))
    assert [cosine.rate(step, 1000) for step in range(0, 1000, 10)] == pytest.approx([2.0] * 100)


def test_a_table_of_a_schedule_knows_warm_up_place_and_end() -> None:
    """From half on to a tenth: at three quarters a half of the way, 0.1 + 0.9 * (1 - 1/2)^2."""
    assert rates(Polynomial(), 9, 75, 100, warmup=0.2, decay_from=0.5, final=0.1) == pytest.approx([1.0, 0.65, 0.2])


def test_a_schedule_stands_by_its_name_or_as_a_table(registry: Registry) -> None:
    changes = {**SMALL, "optimizer.model": {"schedule": "cosine"}}
    text = write_recipe(read_recipe(QUICKSTART, changes, registry=registry), registry)
    assert 'schedule = "cosine"' in text  # as recipes of earlier runs have it
    table = {**changes, "optimizer.model": {"schedule": {"type": "steps", "at": [0.5]}}}
    recipe = read_recipe(QUICKSTART, table, registry=registry)
    assert recipe.optimizer.model.schedule == Steps(at=(0.5,)) and type(recipe.optimizer.model) is Adam


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ({"schedule": "cosin"}, "optimizer.model.schedule: unknown schedule 'cosin'; did you mean 'cosine'?"),
        ({"schedule": {"type": "constant"}, "final": 0.5}, "optimizer.model.schedule: 'Constant' never falls"),
        ({"type": "adm"}, "optimizer.model.type: unknown optimizer 'adm'; did you mean 'adam'?"),
        ({"schedule": {"type": "steps", "at": []}}, "optimizer.model.schedule.at: must name a place"),
    ],
)
def test_what_cannot_be_is_one_line(table: dict[str, Any], problem: str, registry: Registry) -> None:
    with pytest.raises(ConfigError) as caught:
        read_recipe(QUICKSTART, {**SMALL, "optimizer.model": table}, registry=registry)
    (line,) = caught.value.lines
    assert line.startswith(problem)


def test_muon_steps_are_orthogonal_and_the_rest_is_adamws() -> None:
    """The step of a matrix has equal singular values, near 0.2 sqrt(max(rows, columns)) times the rate."""
    torch.manual_seed(0)
    matrix, bias = nn.Parameter(torch.randn(8, 4)), nn.Parameter(torch.zeros(3))
    muon, adamw = Muon(lr=0.1, weight_decay=0.0, momentum=0.0, nesterov=False).build([matrix, bias])
    assert (type(muon), type(adamw)) == (torch.optim.Muon, torch.optim.AdamW)
    before = matrix.detach().clone()
    matrix.grad, bias.grad = torch.randn(8, 4), torch.tensor([3.0, -2.0, 0.5])
    muon.step(), adamw.step()
    sizes = torch.linalg.svdvals(before - matrix.detach()) / (0.1 * 0.2 * math.sqrt(8))
    assert (sizes > 0.6).all() and (sizes < 1.3).all()  # Newton-Schulz in five steps is no exact root
    torch.testing.assert_close(bias.detach(), torch.tensor([-0.1, 0.1, -0.1]))  # Adam's first step is the sign


def test_an_optimizer_of_a_later_stage_begins_with_it(registry: Registry) -> None:
    """Adagrad keeps numbers from the start, which forgetting must not take away."""
    changes = {**SMALL, "objective.vae_first": 0.5, "optimizer.stages.asvae.model": {"type": "adagrad", "lr": 0.25}}
    compiled = compile_recipe(read_recipe(QUICKSTART, changes, registry=registry), registry)
    optimizers = Optimizers(compiled, compiled.parts)
    for stage in (0, 1):
        optimizers.begin(stage)
    (adagrad,) = optimizers.of(["encoder", "decoder"])
    assert type(adagrad) is torch.optim.Adagrad
    held = compiled.parts.parameters(["encoder", "decoder"])
    before = held[0].detach().clone()
    for one in held:
        one.grad = torch.full_like(one, 4.0)
    adagrad.step()
    torch.testing.assert_close(held[0].detach(), before - 0.25)  # 4 / sqrt(4^2) at the first step
    assert Adagrad().moments == 1


class Broken(Adam):
    """Raises where it is built."""

    def build(self, parameters: Any) -> Any:
        raise RuntimeError("no kernel")


def test_an_optimizer_that_raises_is_named(registry: Registry) -> None:
    own = Registry()
    own.update(registry)
    own.add(Component("optimizer", "broken", Broken, provider="mine 1.0"))
    changes = {**SMALL, "optimizer.critics": {"type": "broken"}}
    compiled = compile_recipe(read_recipe(QUICKSTART, changes, registry=own), own)
    with pytest.raises(ComponentError, match=r"optimizer 'broken' of mine 1.0, of T, raises RuntimeError: no kernel"):
        Optimizers(compiled, compiled.parts)
