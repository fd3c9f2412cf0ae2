"""Data sources of which a step takes numbers of rows of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.models import SmallModel, small_model
from torch import Tensor

from jointgen.compiler.compiled_recipe import check_rows, compile_recipe
from jointgen.compiler.nodes import RootNode
from jointgen.config.recipe import read_recipe
from jointgen.contracts.noise import Noise
from jointgen.data.split import open_split
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.gradient_check import check_ownership
from jointgen.engine.torch_compile import FrozenInputs
from jointgen.errors import ConfigError
from jointgen.objectives import E, Objective, joint_from_text, log_ratio, log_sigmoid, p, q
from jointgen.registry.components import Registry

L = joint_from_text("l", "l(x) l(z|x)", {"l(x)": "few", "l(z|x)": "encoder"})
FEW: dict[str, Any] = {"sources": {"few": {"type": "ring", "seed": 3, "batch": 4}}}


def objective() -> Objective:
    """A bound on 16 rows, the reconstruction of 4, and a critic that tells the 4 from draws of the model."""
    f = log_ratio(L.x, p.x, name="f")
    return Objective.of(
        E(q.xz, p.log_x_given_z - q.log_z_given_x) + E(L.xz, 3 * p.log_x_given_z) + E(p.x, log_sigmoid(f))
    )


def model() -> SmallModel:
    return small_model(objective(), **FEW, train={"steps": 1, "batch": 16, "pair_block": 2}).double()


def inputs(small: SmallModel) -> StepInputs:
    split = open_split(small.compiled.binding, "train")
    data = {part: rows.take(torch.arange(4 if part == "few" else 16)) for part, rows in split.sources.items()}
    return StepInputs(data, Noise(0, "0.0", dtype=torch.float64), 16, pair_block=2, batches={4: 4, 16: 16})


def gradient(small: SmallModel, update: str, parts: list[StepInputs]) -> list[Tensor]:
    small.parts.modules.zero_grad()
    runner = small.update(update)
    runner.trained.activate()
    for one in parts:
        runner.add_gradient(one, share=1 / len(parts))
    return [p.grad.clone() for p in small.parts.modules.parameters() if p.grad is not None]


def test_an_expectation_is_the_mean_over_its_own_rows() -> None:
    """E[l] is over 4 rows, E[q] over 16: the terms' rows, and their means by hand from the nodes' values."""
    small = model()
    runner = small.update()
    _, figures, values = runner.loss(inputs(small))
    rows = {
        summand.label: term for (summand, _), term in zip(runner.terms, runner.rows(inputs(small), values), strict=True)
    }
    assert {label: len(term) for label, term in rows.items()} == {
        "model/E[q(x,z)] log p(x|z)": 16,
        "model/E[q(x,z)] log q(z|x)": 16,
        "model/E[l(x,z)] log p(x|z)": 4,
        "model/E[p(x)] log s(f)": 16,
    }
    assert figures["model/E[l(x,z)] log p(x|z)"].item() == pytest.approx(
        rows["model/E[l(x,z)] log p(x|z)"].mean().item()
    )
    whole = -sum(weight * figures[label] for label, weight in zip(rows, (1, -1, 3, 1), strict=True))
    assert runner.loss(inputs(small))[0].item() == pytest.approx(float(whole))


def test_micro_batches_and_processes_divide_every_batch() -> None:
    """Two parts have 8 and 2 rows with the noise of these rows, as two processes have: the gradient is the whole's."""
    small = model()
    parts = inputs(small).split(2)
    assert [len(part.data["few"]["x"]) for part in parts] == [2, 2]
    assert [(part.rows, part.of_batch(4).rows) for part in parts] == [(8, 2), (8, 2)]
    for update in ("model", "f"):
        whole, divided = gradient(small, update, [inputs(small)]), gradient(small, update, parts)
        assert all(
            torch.allclose(one, other, rtol=1e-10, atol=1e-14) for one, other in zip(whole, divided, strict=True)
        )


def test_a_critic_of_unequal_sides_has_its_figures() -> None:
    small = model()
    runner = small.update("f")
    _, _, values = runner.loss(inputs(small))
    outputs = runner.critic_outputs(inputs(small), values)
    assert [len(side) for side in outputs] == [4, 16]
    assert runner.critic_figures(outputs)["f/positive_mean"].item() == pytest.approx(outputs[0].mean().item())


def test_ownership_is_checked_on_as_many_rows_of_each() -> None:
    small = model()
    check_ownership(small.plan, small.parts, small.data(), 8)


def test_draws_of_a_batch_of_its_own_have_their_own_noise() -> None:
    """A prior that is drawn beside few rows has as many, and other numbers than the one beside all the others."""
    c = joint_from_text("c", "c(w) c(z)", {"c(w)": "few", "c(z)": "prior"})
    small = small_model(
        Objective.of(E(q.xz, p.log_x_given_z) + E(c.on("w", "z"), p.log_z)),
        **FEW,
        train={"steps": 1, "batch": 16},
    )
    titles = {node.title: node.batch for node in small.plan.updates[0].nodes if isinstance(node, RootNode)}
    assert titles == {"q(x)": 0, "c(z) in 4 rows": 4}


def test_compiled_updates_have_the_rows_too() -> None:
    frozen = FrozenInputs({}, None, 16, {4: 2}, 0, 2, {})  # type: ignore[arg-type]
    assert (frozen.of_batch(4).rows, frozen.rows) == (2, 16)


def test_a_term_that_would_pair_rows_of_two_batches_is_refused() -> None:
    both = joint_from_text("b", "b(w) b(x) b(z|x,w)", {"b(w)": "few", "b(x)": "data", "b(z|x,w)": "encoder"})
    with pytest.raises(
        ConfigError, match=r"takes different numbers, train\.batch of 'data' and 4 of 'few'; give them one"
    ):
        small_model(Objective.of(E(both.on("x", "z"), p.log_x_given_z)), **FEW)


@pytest.mark.parametrize(
    ("changes", "processes", "problem"),
    [
        ({"sources.few.batch": 6}, 4, "sources.few.batch: few has a batch of 6: 6 does not divide over 4 process"),
        (
            {"sources.few.batch": 6, "train.micro_batches": 4},
            1,
            "sources.few.batch: few has a batch of 6: a batch of 6 does",
        ),
        ({"sources.few.batch": 0}, 1, "sources.few.batch: must be >= 1, got 0"),
    ],
)
def test_a_batch_that_does_not_divide_is_told(
    registry: Registry, changes: dict[str, Any], processes: int, problem: str
) -> None:
    tables = {
        "data": {"type": "ring"},
        "sources": {"few": {"type": "ring", "seed": 3, "batch": 4}},
        "prior": {"type": "normal", "size": 2},
        "encoder": {"network": {"type": "mlp"}, "family": {"type": "gaussian"}},
        "decoder": {"network": {"type": "mlp"}, "family": {"type": "gaussian"}},
        "objective": {
            "type": "expression",
            "joints": {"l": "l(x) l(z|x)"},
            "parts": {"l(x)": "few", "l(z|x)": "encoder"},
            "maximize": "E[q(x,z)](log p(x|z)) + E[l(x,z)](log p(x|z))",
        },
        "train": {"steps": 1, "batch": 16},
    }
    with pytest.raises(ConfigError) as refused:
        recipe = read_recipe(tables, changes, registry=registry)
        compiled = compile_recipe(recipe, registry)
        check_rows(recipe, compiled.plans, processes)
    assert refused.value.lines[0].startswith(problem)
