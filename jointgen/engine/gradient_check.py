"""Gradient ownership, checked at the start of a run on a perturbed float64 copy of the model.

The plan's table says how each term's gradient reaches each part: not at all, through samples, explicitly. Here
that is compared with what autograd finds, and each update's gradient with a naive sum that shares nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from jointgen.compiler.balanced_weights import balanced_weights
from jointgen.compiler.lowering import Lowering
from jointgen.compiler.nodes import Node, ordered
from jointgen.compiler.parts import Parts
from jointgen.compiler.plan import Plan, Summand, UpdatePlan, nodes_of
from jointgen.contracts.networks import Dropout
from jointgen.contracts.noise import Noise
from jointgen.data.step_inputs import Raw, StepInputs
from jointgen.engine.program import Program
from jointgen.engine.terms import compile_source
from jointgen.engine.update import JointGraph, UpdateRunner
from jointgen.errors import OwnershipError

TOLERANCE = 1e-10
"""Relative to the largest entry of the naive gradient, in float64."""


def check_ownership(plan: Plan, parts: Parts, data: Raw, rows: int, seed: int = 0) -> None:
    """Raises OwnershipError naming the term and the part. `data` holds a few raw rows; `parts` stays as it is."""
    copied = _perturbed_copy(parts, seed)
    noise = Noise(seed, "ownership", dtype=torch.float64)
    one = {weight.name: torch.ones((), dtype=torch.float64) for weight in balanced_weights(plan.objective)}
    moment = StepInputs(data, noise, rows, pair_block=rows, scales=one)  # a balanced weight is a number like any other
    before = {name: p.detach().clone() for name, p in copied.modules.named_parameters()}
    copied.modules.zero_grad(set_to_none=True)
    if plan.one_graph:
        graph = JointGraph(plan, copied)
        graph.gradient([moment])
        for update_plan in plan.updates:
            _compare(plan, update_plan, copied, moment)
        _untouched("all updates", [part for update in plan.updates for part in update.trains], copied, before)
        return
    shared: dict[Node, Any] = {}
    for index, update_plan in enumerate(plan.updates):
        update = UpdateRunner(update_plan, plan, copied, plan.shared(index))
        copied.modules.zero_grad(set_to_none=True)
        _, values = update.gradient(moment, shared)
        later = frozenset().union(*(plan.shared(i) for i in range(index + 1, len(plan.updates))))
        shared.update({node: values[update.program.index[node]] for node in later & set(update_plan.nodes)})
        _compare(plan, update_plan, copied, moment)
        _untouched(f"update {update_plan.name}", update_plan.trains, copied, before)


def _perturbed_copy(parts: Parts, seed: int) -> Parts:
    """Float64, in evaluation mode but for dropout, a little off its start, so that no zero hides a leak."""
    modules = copy.deepcopy(parts.modules).cpu().double().eval()
    noise = Noise(seed, "perturbation", dtype=torch.float64)
    for name, parameter in modules.named_parameters():
        parameter.data += 0.05 * noise.named(name, 1).normal(*parameter.shape)[0]
    for module in modules.modules():
        if isinstance(module, Dropout):
            module.train()
    return attrs.evolve(parts, modules=modules)


def _compare(plan: Plan, update: UpdatePlan, parts: Parts, moment: StepInputs) -> None:
    """The update's gradient against the weighted sum of its terms, each run alone."""
    params = _trained(parts, update)
    total = {key: torch.zeros_like(p) for key, p in params.items()}
    for summand in update.summands:
        gradient = naive_gradient(plan, update, summand, parts, moment)
        _check_row(summand, update, gradient, naive_gradient(plan, update, summand, parts, moment, detach=True))
        for key, value in gradient.items():
            if value is not None:
                total[key] -= summand.weight(moment.at) * value
    scale = max((value.abs().max().item() for value in total.values()), default=0.0) or 1.0
    for (part, name), naive in total.items():
        found = params[part, name].grad
        assert found is not None, "gradient() fills every trained parameter"
        error = (found - naive).abs().max().item() / scale
        if not error <= TOLERANCE:
            raise OwnershipError(
                f"update {update.name}: the gradient of {part}.{name} is not the sum of its terms' "
                f"(relative error {error:.1e}); a network of {part} may not be a function of its inputs alone"
            )


def _trained(parts: Parts, update: UpdatePlan) -> dict[tuple[str, str], torch.nn.Parameter]:
    return {
        (part, name): parameter
        for part in update.trains
        if part in parts.modules
        for name, parameter in parts.modules[part].named_parameters()
    }


def naive_gradient(
    plan: Plan, update: UpdatePlan, summand: Summand, parts: Parts, moment: StepInputs, detach: bool = False
) -> dict[tuple[str, str], Tensor | None]:
    """d mean(term) / d parameters, from a program of this term alone; `detach` cuts every path through samples."""
    lowering = Lowering(plan.objective.joints, plan.traits, update.trains)
    nodes = ordered(nodes_of(summand.source, summand.term, lowering))
    program = Program(nodes, parts, lowering, detach_reads=detach)
    values = program.run(moment)
    mean = torch.as_tensor(compile_source(summand.source, summand.term, program)(moment, values)).double().mean()
    params = _trained(parts, update)
    if not mean.requires_grad:
        return dict.fromkeys(params)
    found: Sequence[Any] = torch.autograd.grad(mean, list(params.values()), allow_unused=True)
    return dict(zip(params, found, strict=True))


def _check_row(
    summand: Summand, update: UpdatePlan, full: Mapping[Any, Tensor | None], explicit: Mapping[Any, Tensor | None]
) -> None:
    """One row of the table, term x part, against what autograd found."""
    for part in {part for part, _ in full}:
        ways = summand.gradient_paths.get(part, frozenset())
        for gradient, expected, how in (
            (full, bool(ways), "at all"),
            (explicit, "explicit" in ways, "explicitly"),
        ):
            own = [g for (owner, _), g in gradient.items() if owner == part and g is not None]
            if not expected and any(bool((g != 0).any()) for g in own):
                raise OwnershipError(
                    f"term {summand.label!r} leaks a gradient into {part!r}: it must not reach it {how}"
                )
            if expected and not own:  # zeros will do: relu(f - 3) may have none to give at these few rows
                raise OwnershipError(f"term {summand.label!r} gives {part!r} no gradient: it should reach it {how}")


def _untouched(who: str, trains: Sequence[str], parts: Parts, before: Mapping[str, Tensor]) -> None:
    """Parts that are not trained have no gradient, and nothing has moved yet."""
    for name, parameter in parts.modules.named_parameters():
        part = name.split(".")[0]
        if part not in trains and parameter.grad is not None and bool((parameter.grad != 0).any()):
            raise OwnershipError(f"{who}: a gradient is left in {name}, which is not trained")
        if not torch.equal(parameter, before[name]):
            raise OwnershipError(f"{who}: {name} changed while a gradient was taken")
