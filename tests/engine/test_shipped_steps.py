"""Steps of every shipped recipe, on small networks and random images: they do not wait for the device, nor send it
numbers from the host, counted on the CPU by the operations that would (log events, checkpoints and evaluation do read
figures, and are not part of a step); and under autocast their losses are float32."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from jointgen_families.flows import recursion
from support.paths import SHIPPED
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from jointgen.compiler.balanced_weights import balanced_weights
from jointgen.compiler.compiled_recipe import CompiledRecipe, compile_recipe
from jointgen.compiler.nodes import ClosedKLNode, CriticNode, DensityNode
from jointgen.compiler.parts import Parts
from jointgen.config.recipe import read_recipe
from jointgen.config.toml import load_tables
from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.ema import EMA
from jointgen.engine.step import Step
from jointgen.engine.update import UpdateRunner
from jointgen.registry.discovery import load_plugins
from jointgen.runtime.workers import Workers
from jointgen.training.log_window import LogWindow

RECIPES = sorted(SHIPPED.glob("*.toml"))
ROWS = 4
SCORES = (DensityNode, ClosedKLNode, CriticNode)

READS = {"_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount"}
"""Their results, or the sizes of them, are known on the host."""
SENDS = {"lift_fresh"}
"""Python numbers made a tensor: on an accelerator, a copy from the host."""


class Waits(TorchDispatchMode):
    """Counts operations for which the host would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function._schema.name.removeprefix("aten::")
        masks = isinstance(args[1], list | tuple) if name in ("index", "index_put", "index_put_") else False
        by_mask = masks and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if name in READS | SENDS or by_mask or function is torch.ops.aten.repeat_interleave.Tensor:
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


def test_what_would_wait_is_counted() -> None:
    x = torch.arange(3.0)
    with Waits() as waits:
        x.sum().item(), bool(x.any()), torch.equal(x, x), x[x > 1], x.nonzero(), torch.tensor(2.0), x * 2.0, x[1:]
        x[torch.arange(2)], x.repeat_interleave(2)
    assert waits.counts == {"_local_scalar_dense": 2, "equal": 1, "index": 1, "nonzero": 1, "lift_fresh": 1}


# --- small ones of the shipped recipes --------------------------------------------------------------------------------

SMALLER = {"hidden": [8], "widths": [4, 4], "length": 3, "basis": 3, "features": 8}


def smaller(table: Any) -> Any:
    """The same recipe with small networks: every size that its tables or their defaults have."""
    if not isinstance(table, dict):
        return table
    made = {key: smaller(value) for key, value in table.items()}
    if made.get("type") in ("mlp", "conv"):
        made |= {"hidden": [8]} if made["type"] == "mlp" else {"widths": [4, 4]}
    return made | {key: SMALLER[key] for key in made.keys() & SMALLER.keys()}


@functools.cache
def compiled(path: Path) -> CompiledRecipe:
    registry = load_plugins().registry
    tables = smaller(load_tables(path))
    return compile_recipe(read_recipe({**tables, "name": path.stem}, registry=registry), registry)


def raw(of: CompiledRecipe, rows: int = ROWS) -> dict[str, dict[str, Tensor]]:
    """Raw rows as the sources would give them, whether their data is here or not: grey levels, and labels."""
    declared, generator = of.binding, torch.Generator().manual_seed(0)

    def made(space: Space) -> Tensor:
        if space.kind == "label":
            return torch.randint(space.shape[0], (rows,), generator=generator)
        return torch.randint(space.bins or 256, (rows, *space.shape), generator=generator, dtype=torch.uint8)

    found: dict[str, dict[str, Tensor]] = {}
    for part in declared.data_parts:
        shapes = {name: declared.spaces[name] for name in declared.variables_of(part)}
        found[part] = {name: made(space) for name, space in shapes.items()}
    return found


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_no_step_waits(path: Path, micro_batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage, at a step with penalties and at one without, with what an accelerator has: fused optimizers, and
    loops that do not look at their values. As the loop takes it: step, figures, average."""
    monkeypatch.setattr(recursion, "may_look", lambda x: False)
    made = compiled(path)
    parts: Parts = made.parts
    parts.modules.train()
    data, window = raw(made), LogWindow()
    average = EMA(parts, 0.9)
    for plan in made.plans:
        by_update = {u.name: [torch.optim.Adam(parts.parameters(u.trains), fused=True)] for u in plan.updates}
        stepper = Step(plan, parts, Workers.start("cpu"), by_update, clip=1.0, micro_batches=micro_batches)
        take_steps(stepper, [3, 4], data, window, average, Counter())  # the first makes Adam's state
        counts: Counter[str] = Counter()
        take_steps(stepper, [7, 8], data, window, average, counts)
        assert counts == {}


def take_steps(
    stepper: Step,
    numbers: list[int],
    data: Any,
    window: LogWindow,
    average: EMA,
    counts: Counter[str],
) -> None:
    for number in numbers:

        def moment(r: int, number: int = number) -> StepInputs:
            return StepInputs(data, Noise(0, f"{number}.{r}"), ROWS, number, number / 10, 2)

        with Waits() as waits:
            window.add(stepper(moment), number)
            average.update(number)
        counts.update(waits.counts)


# --- half precision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_densities_logits_and_losses_are_float32_under_autocast(path: Path) -> None:
    """Networks multiply in bfloat16; what they put out is scored, judged and averaged in float32."""
    made = compiled(path)
    workers = Workers.start("cpu", "bf16")
    for plan in made.plans:
        scales = {weight.name: torch.tensor(2.0) for weight in balanced_weights(plan.objective)}
        moment = StepInputs(raw(made), Noise(0, "4.0"), ROWS, 4, 0.5, 2, scales)  # a step with penalties
        for own in plan.updates:
            update = UpdateRunner(own, made.parts)
            update.trained.activate()
            with workers.autocast(), Multiplied() as multiplied:
                loss, means, values = update.loss(moment)
            assert torch.bfloat16 in multiplied.dtypes
            scores = [v for n, v in zip(update.program.nodes, values, strict=True) if isinstance(n, SCORES)]
            assert {value.dtype for value in (loss, *means.values(), *scores)} == {torch.float32}
            loss.backward()
            assert {p.grad.dtype for p in update.params if p.grad is not None} == {torch.float32}


class Multiplied(TorchDispatchMode):
    """The dtypes that matrices are multiplied and images convolved in."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function._schema.name in ("aten::mm", "aten::addmm", "aten::convolution"):
            self.dtypes.add(args[-1].dtype if isinstance(args[-1], Tensor) else args[0].dtype)
        return function(*args, **(kwargs or {}))
