"""`jointgen.losses`: a loop of one's own trains what a run trains."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.paths import QUICKSTART
from support.runs import SMALL, train_small, weights
from torch import Tensor

import jointgen
from jointgen.runs import checkpoint
from jointgen.testing.evaluation import TABLES

VAE = {**TABLES, "format": 1, "train": {"steps": 6, "batch": 16}}
TWO_PLAYERS = {**SMALL, "train.steps": 10, "train.micro_batches": 2, "train.clip": 0.5, "objective.critic.steps": 2}
BALANCED = {
    "type": "expression",
    "maximize": "E[q(x,z)](log p(x|z) + lambda*f) + E[p(x,z)](log q(z|stop(x)))",
    "ratios": {"f": "q(x,z) : p(x,z)"},
    "updates": {"f": {"every": 2}},
    "weights": {"lambda": {"r": 0.5}},
    "constraints": {"f": [{"type": "clip", "bound": 0.01}]},
}


def train(losses: Any, steps: int | None = None) -> list[str]:
    """The loop of docs/tutorials/in-python.md; the names of the updates that it made."""
    made = []
    for _ in range(losses.steps if steps is None else steps):
        for update in losses():
            update.loss.backward()
            update.step()
            made.append(update.name)
    return made


def saved(run: Path) -> dict[str, Tensor]:
    """The parameters of a run's last checkpoint, without their averages."""
    newest = checkpoint.latest(run / "checkpoints")
    assert newest is not None
    return {key: tensor for key, tensor in weights(newest).items() if not key.startswith("ema.")}


def of(losses: Any) -> dict[str, Tensor]:
    parts = losses.model.networks
    return {f"{part}/{key}": tensor for part, module in parts.items() for key, tensor in module.state_dict().items()}


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [key for key in found if not torch.equal(found[key], expected[key])] == []


@pytest.mark.parametrize(
    ("recipe", "changes", "per_step"),
    [(VAE, {}, 1), (QUICKSTART, TWO_PLAYERS, None), ({**VAE, "objective": BALANCED}, {}, 1.5)],
    ids=["VAE", "two players, times, micro-batches, clip", "balanced weights, every, constraints"],
)
def test_the_loop_trains_what_a_run_trains_to_the_last_bit(
    recipe: Any, changes: dict[str, Any], per_step: float | None, tmp_path: Path
) -> None:
    run = jointgen.run(recipe, {**changes, "eval.rows": 16, "eval.quick_rows": 16}, out=tmp_path / "run", quiet=True)
    losses = jointgen.losses(recipe, changes)
    made = train(losses)
    assert per_step is None or len(made) == per_step * losses.steps
    assert_same(of(losses), saved(run.path))
    with pytest.raises(jointgen.ConfigError, match=r"all .* steps of the recipe have been made"):
        next(losses())


def test_gradients_reach_the_parameters_of_an_update_alone_and_may_be_scaled() -> None:
    first, second = (jointgen.losses({**VAE, "objective": {"type": "ali"}}) for _ in range(2))
    for update, doubled in zip(first(), second(), strict=True):
        ours = {id(p) for p in update.parameters}
        others = [(p, p.grad) for p in first.parameters() if id(p) not in ours]
        update.loss.backward()
        (2 * doubled.loss).backward()
        assert all(p.grad is before for p, before in others)
        for p, q in zip(update.parameters, doubled.parameters, strict=True):
            assert p.grad is not None and q.grad is not None and torch.equal(2 * p.grad, q.grad)
        assert torch.equal(update.loss.detach(), update.figures[f"{update.name}/loss"])
        update.step(), doubled.step()
    assert all(p.requires_grad for p in first.parameters()) and first.step == 1


def test_own_rows_and_optimizers() -> None:
    """A VAE's loss falls on rows of the caller's, by an optimizer of the caller's."""
    losses = jointgen.losses(VAE, {"train.steps": 60})
    assert list(losses.trained) == ["model"]
    assert {id(p) for p in losses.trained["model"]} == {id(p) for p in losses.parameters()}
    optimizer = torch.optim.SGD(losses.trained["model"], 1e-4)
    rows = np.random.default_rng(0).integers(0, 17, (20, 1, 8, 8), np.uint8)
    found = []
    for _ in range(losses.steps):
        for update in losses(rows):
            optimizer.zero_grad()
            update.loss.backward()
            optimizer.step()
            found.append(float(update.figures["model/loss"]))
    assert sum(found[-10:]) < sum(found[:10])


def test_levels_and_the_values_that_they_stand_for_are_the_same_rows() -> None:
    levels = torch.randint(0, 17, (5, 1, 8, 8), dtype=torch.uint8)
    found = [
        next(jointgen.losses(VAE)(rows)).loss.detach()
        for rows in (levels, {"x": (levels.double() + 0.5) / 17}, {"x": levels.numpy()})
    ]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_rows_that_do_not_fit_are_refused_all_at_once() -> None:
    losses = jointgen.losses(VAE)
    with pytest.raises(jointgen.ConfigError, match=r"^x: expected shape \(B, 1, 8, 8\), got \(3, 7\)$"):
        next(losses(torch.zeros(3, 7)))
    with pytest.raises(jointgen.ConfigError, match=r"(?s)^x: missing.*y: is no variable of the data; known: x"):
        next(losses({"y": [1]}))
    assert losses.step == 0


def test_data_that_is_given_is_what_a_run_takes(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), np.uint8)
    run = jointgen.run(VAE, {"eval.rows": 4, "eval.quick_rows": 4}, data=images, out=tmp_path / "run", quiet=True)
    losses = jointgen.losses(VAE, data=images)
    train(losses)
    assert losses.model.spaces["x"].bins == 256
    assert_same(of(losses), saved(run.path))


@pytest.mark.parametrize(
    ("recipe", "options", "refused"),
    [
        ([1], {}, r"^recipe: expected the path of a recipe, .* got \[1\]$"),
        (VAE, {"device": "gpu"}, "^device: 'gpu' is not a device; allowed: 'auto'"),
        (VAE, {"objective": 3}, "^objective: must be an Objective or a list of Stages, got 3$"),
    ],
)
def test_wrong_arguments_are_refused(recipe: Any, options: dict[str, Any], refused: str) -> None:
    with pytest.raises(jointgen.ConfigError, match=refused):
        jointgen.losses(recipe, **options)


def test_a_loop_goes_on_from_what_it_has_saved() -> None:
    """Plain gradient descent has no state of its own, so the weights and the losses' state are all."""
    recipe = {**VAE, "objective": BALANCED, "optimizer": {"model": {"type": "sgd", "lr": 1e-3}}}
    whole, half = jointgen.losses(recipe), jointgen.losses(recipe)
    train(whole, 3)
    train(half, 3)
    rest = jointgen.losses(recipe)
    rest.load_state_dict(copy.deepcopy(half.state_dict()))
    rest.optimizers.load_state_dict(copy.deepcopy(half.optimizers.state_dict()))
    train(whole, 3)
    train(rest, 3)
    assert whole.step == rest.step == 6
    assert_same(of(rest), of(whole))


def test_the_model_is_there_to_be_looked_at() -> None:
    losses = jointgen.losses(VAE)
    next(losses())
    assert losses.model.sample(2).shape == (2, 1, 8, 8)
    assert {name for name, _ in losses.named_children()} == {"model"}


def test_double_precision_moves_with_it(tmp_path: Path) -> None:
    run = train_small(tmp_path / "run", {"train.steps": 2, "train.precision": "fp64"})
    losses = jointgen.losses(QUICKSTART, {**SMALL, "train.steps": 2, "train.precision": "fp64"})
    train(losses.to("cpu"))
    assert_same(of(losses), saved(run.path))
