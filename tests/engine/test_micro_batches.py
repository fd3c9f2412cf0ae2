"""A batch in several parts: the same step as the whole batch's, with less memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from jointgen_ali.objective import ALI, ALICE
from jointgen_asvae.objective import ASVAE
from jointgen_avb.objective import AVB
from jointgen_critics.penalties import R1, GradientPenalty
from jointgen_vae.objective import IWAE, VAE
from support.models import small_model
from support.runs import train_small
from torch import Tensor

from jointgen.compiler.compiled_recipe import check_rows
from jointgen.contracts.noise import Noise
from jointgen.data.step_inputs import StepInputs
from jointgen.errors import ConfigError
from jointgen.objectives import BalanceTable, CriticTable, E, Objective, Update, log_ratio, log_sigmoid, p, q
from jointgen.runs import checkpoint

ROWS, BLOCK = 8, 2


def not_always_due() -> Objective:
    """The critic's draws are the model's, also at steps at which the model is not due."""
    return Objective((Update("model", E(p.x, log_sigmoid(log_ratio(q.x, p.x, name="d"))), every=2),))


def penalised() -> CriticTable:
    return CriticTable(penalties=[R1(every=2), GradientPenalty()], steps=2)


OBJECTIVES: dict[str, Callable[[], Any]] = {
    "vae": lambda: VAE(warm_up=0.5).objective(),
    "vae, closed KL": lambda: VAE(analytic=True).objective(),
    "iwae": lambda: IWAE(k=3).objective(),
    "avb": lambda: AVB().objective(),
    "avb, turns": lambda: AVB(critic=penalised()).objective(),
    "avb, contrast": lambda: AVB(adaptive_contrast=True).objective(),
    "ali": lambda: ALI(critic=CriticTable(penalties=[R1(every=2)])).objective(),
    "alice": lambda: ALICE(distance="l2").objective(),
    "asvae, literal": lambda: ASVAE(form="literal").objective(),
    "asvae, d": lambda: ASVAE(ratio="d", critic=penalised()).objective(),
    "asvae, balanced": lambda: ASVAE(lambda_=BalanceTable(0.5), ratio="d", critic=penalised()).objective(),
    "asvae, T": lambda: ASVAE(ratio="T").objective(),
    "not always due": not_always_due,
    "mixture": lambda: Objective.of(E(p.x, log_sigmoid(log_ratio(q.x, 0.25 * p.x + 0.75 * q.x, name="d")))),
}

DROPPING: dict[str, Any] = {
    "encoder": {"network": {"type": "mlp", "hidden": [6], "dropout": 0.5}, "family": {"type": "gaussian"}},
    "discriminator": {"type": "mlp", "hidden": [6], "dropout": 0.5, "spectral_norm": True},
}


def trained(objective: Any, parts: int, **changes: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(the model's numbers after three steps, the figures of the last)."""
    model = small_model(objective, **changes).double()
    model.parts.modules.train()
    step = model.step(micro_batches=parts, clip=1.0)
    figures = {}
    for number in range(3):
        made = {"rows": ROWS, "step": number, "pair_block": BLOCK, "progress": number / 4}
        figures = step(lambda r, made=made: model.inputs(repetition=r, **made), until_log=0)
    return model.parts.modules.state_dict(), figures


@pytest.mark.parametrize("changes", [{}, DROPPING], ids=["plain", "dropout, spectral norm"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_parts_of_a_batch_make_the_step_of_the_whole(name: str, changes: dict[str, Any]) -> None:
    """Parameters and every figure. Noise, masks and re-pairings are those that the rows have in the whole batch."""
    whole, expected = trained(OBJECTIVES[name](), 1, **changes)
    parts, figures = trained(OBJECTIVES[name](), 4, **changes)
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, rtol=0, atol=1e-12)
    assert figures.keys() == expected.keys()
    for key, value in expected.items():
        assert float(figures[key]) == pytest.approx(float(value), abs=1e-11), key


def test_a_run_in_parts_is_the_run(tmp_path: Path) -> None:
    """From the recipe's key to the checkpoint, in double precision."""
    changes = {"train.steps": 6, "train.precision": "fp64"}
    ends = []
    for parts in (1, 2):
        out = tmp_path / str(parts)
        train_small(out, {**changes, "train.micro_batches": parts})
        ends.append(checkpoint.find(out / "checkpoints").parts)
    for part, tensors in ends[0].items():
        for name, value in tensors.items():
            torch.testing.assert_close(ends[1][part][name], value, rtol=0, atol=1e-9)  # Adam divides by small numbers


def test_a_part_has_the_rows_and_the_noise_that_it_has_in_the_whole() -> None:
    """Also where this process has but a share of the batch: two parts of process 1 of 2 are rows 4-5 and 6-7 of 8."""
    whole = Noise(0).named("a", 8).normal(3)
    mine = StepInputs({"data": {"x": torch.arange(4.0, 8.0)}}, Noise(0, rank=1, world=2), 4, step=3)
    parts = mine.split(2)
    assert [part.data["data"]["x"].tolist() for part in parts] == [[4.0, 5.0], [6.0, 7.0]]
    assert [(part.rows, part.step) for part in parts] == [(2, 3), (2, 3)]
    found = torch.cat([part.noise.named("a", part.rows).normal(3) for part in parts])
    assert torch.equal(found, whole[4:])


def test_an_update_is_reduced_and_stepped_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(ASVAE(ratio="d").objective())
    step = model.step(micro_batches=4)
    exchanged: list[int] = []
    monkeypatch.setattr(step.workers, "all_reduce_mean_", lambda tensors: exchanged.append(len(tensors)))
    stepped: list[str] = []
    for name, (optimizer,) in step.optimizers.items():
        optimizer.register_step_post_hook(lambda *_, name=name: stepped.append(name))
    step(lambda r: model.inputs(rows=ROWS, repetition=r, pair_block=BLOCK))
    assert len(exchanged) == 2
    assert stepped == ["model", "d"]


# --- memory ----------------------------------------------------------------------------------------------------------


@contextmanager
def bytes_saved() -> Iterator[list[int]]:
    """What autograd keeps for backward passes: [now, at most]. Parameters count too, in every graph anew."""
    held = [0, 0]

    class Saved:
        def __init__(self, tensor: Tensor):
            self.tensor, self.size = tensor.detach(), tensor.numel() * tensor.element_size()
            held[0] += self.size
            held[1] = max(held)

        def __del__(self) -> None:
            held[0] -= self.size

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        yield held


@pytest.mark.parametrize("name", ["vae", "avb", "asvae, T"])
def test_a_part_keeps_a_part_of_the_memory(name: str) -> None:
    """256 rows of 64 hidden numbers outweigh the weights: four parts keep less than a third at any time."""
    net = {"type": "mlp", "hidden": [64, 64]}
    peaks = {}
    for parts in (1, 4):
        gaussian = {"type": "gaussian"}
        tables = {"encoder": {"network": net, "family": gaussian}, "decoder": {"network": net, "family": gaussian}}
        model = small_model(OBJECTIVES[name](), data={"type": "ring", "rows": 1024}, discriminator=net, **tables)
        step = model.step(micro_batches=parts)
        moment = model.inputs(rows=1024, step=1, pair_block=16)
        with bytes_saved() as held:
            step(lambda r, moment=moment: moment)
        peaks[parts] = held[1]
    assert peaks[4] < peaks[1] / 3


# --- what cannot be divided ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "processes", "problem"),
    [
        ({"batch": 8, "micro_batches": 3}, 1, "train.micro_batches: a batch of 8 does not divide into 3 micro-batches"),
        (
            {"batch": 24, "micro_batches": 4, "pair_block": 2},
            4,
            "train.micro_batches: a batch of 24 does not divide into 4 micro-batches in each of 4 processes",
        ),
        (
            {"batch": 16, "micro_batches": 4, "pair_block": 8},
            1,
            "train.pair_block: 8 does not divide the 4 rows that 16 make in 4 micro-batches, in which the objective "
            "re-pairs rows",
        ),
        (
            {"batch": 16, "pair_block": 16},
            2,
            "train.pair_block: 16 does not divide the 8 rows that 16 make in 2 processes, in which the objective "
            "re-pairs rows",
        ),
        ({"batch": 16, "micro_batches": 2, "pair_block": 4}, 2, None),
        ({"batch": 12, "pair_block": 8}, 1, None),  # alone, a batch that no block divides is one block
    ],
)
def test_batches_that_do_not_divide_are_refused(train: dict[str, int], processes: int, problem: str | None) -> None:
    def checked() -> None:
        compiled = small_model(ASVAE(form="literal").objective(), train={"steps": 1, **train}).compiled
        check_rows(compiled.recipe, compiled.plans, processes)

    if problem is None:
        checked()
        return
    with pytest.raises(ConfigError) as error:
        checked()
    assert error.value.lines == [problem]


def test_blocks_do_not_matter_where_nothing_is_re_paired() -> None:
    small_model(VAE().objective(), train={"steps": 1, "batch": 6, "micro_batches": 2, "pair_block": 16})
