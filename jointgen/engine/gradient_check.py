"""Checks at the start of a run, on a perturbed float64 copy of the model, that gradients go where the plan says.

The plan says how the gradient of each term reaches each part: not at all, through samples, explicitly. Here that is
compared with what autograd finds, and the gradient of each update with a naive sum that shares nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from jointgen.compiler.balanced_weights import measured_weights
from jointgen.compiler.nodes import Node
from jointgen.compiler.parts import Parts
from jointgen.compiler.plan import Plan, Summand, UpdatePlan
from jointgen.contracts.networks import NoisyLayer
from jointgen.contracts.noise import Noise
from jointgen.data.step_inputs import RawRows, StepInputs
from jointgen.engine.program import Program
from jointgen.engine.terms import as_tensor, summand_function
from jointgen.engine.update import JointGraph, UpdateRunner
from jointgen.errors import OwnershipError

TOLERANCE = 1e-10
"""The largest difference that is allowed in float64, relative to the largest entry of the naive gradient."""

Gradients = Mapping[tuple[str, str], Tensor | None]
"""(part, name of the parameter) -> its gradient; None where there is none."""


def check_ownership(plan: Plan, parts: Parts, data: RawRows, rows: int, seed: int = 0) -> dict[str, int]:
    """Check the gradients of every update of a plan. `parts` stays as it is.

    Args:
        plan: The plan whose gradients are checked.
        parts: The modules.
        data: A few raw rows.
        rows: How many.
        seed: Of the noise and of the perturbation.

    Returns:
        The parameters that an update trains and no term of any update depends on: their size, by name.

    Raises:
        OwnershipError: A gradient leaks, is missing or is wrong; it names the term and the part.
    """
    copied = _perturbed_copy(parts, seed)
    noise = Noise(seed, "ownership", dtype=torch.float64)
    one = {weight.name: torch.ones((), dtype=torch.float64) for weight in measured_weights(plan.objective)}
    inputs = StepInputs(data, noise, rows, pair_block=rows, scales=one)  # a balanced weight is a number like any other
    before = {name: p.detach().clone() for name, p in copied.modules.named_parameters()}
    copied.modules.zero_grad(set_to_none=True)
    reached: dict[tuple[str, str], bool] = {}
    if plan.one_graph:
        JointGraph(plan, copied).gradient([inputs])
        for update_plan in plan.updates:
            _check_update(update_plan, copied, inputs, reached)
        _check_others("all updates", [part for update in plan.updates for part in update.trains], copied, before)
        return _unreached(reached, copied)
    known: dict[Node, Any] = {}
    for index, update_plan in enumerate(plan.updates):
        update = UpdateRunner(update_plan, copied, plan.handed_over(index))
        copied.modules.zero_grad(set_to_none=True)
        _, values = update.gradient(inputs, known)
        later = frozenset().union(*(plan.handed_over(i) for i in range(index + 1, len(plan.updates))))
        known.update({node: values[update.program.index[node]] for node in later & set(update_plan.nodes)})
        _check_update(update_plan, copied, inputs, reached)
        _check_others(f"update {update_plan.name}", update_plan.trains, copied, before)
    return _unreached(reached, copied)


def double_copy(parts: Parts) -> Parts:
    """Copy parts to float64 on the CPU, in evaluation mode but for dropout."""
    modules = copy.deepcopy(parts.modules).cpu().double().eval()
    for module in modules.modules():
        if isinstance(module, NoisyLayer):
            module.train()
    return attrs.evolve(parts, modules=modules)


def _perturbed_copy(parts: Parts, seed: int) -> Parts:
    """Copy parts to float64, a little off their start, so that no zero hides a leak."""
    copied = double_copy(parts)
    noise = Noise(seed, "perturbation", dtype=torch.float64)
    for name, parameter in copied.modules.named_parameters():
        parameter.data += 0.05 * noise.named(name, 1).normal(*parameter.shape)[0]
    return copied


def _unreached(reached: Mapping[tuple[str, str], bool], parts: Parts) -> dict[str, int]:
    names = [f"{part}.{name}" for (part, name), is_reached in reached.items() if not is_reached]
    sizes = {name: parameter.numel() for name, parameter in parts.modules.named_parameters()}
    return {name: sizes[name] for name in names}


def _check_update(update: UpdatePlan, parts: Parts, inputs: StepInputs, reached: dict[tuple[str, str], bool]) -> None:
    """Compare the gradient of an update with the weighted sum of its terms' gradients, each term run alone.

    `reached` is filled with whether a term depends on each trained parameter.
    """
    params = _trained_parameters(parts, update)
    for key in params:
        reached.setdefault(key, False)
    total = {key: torch.zeros_like(p) for key, p in params.items()}
    for summand in update.summands:
        gradient = naive_gradient(update, summand, parts, inputs)
        _check_paths(summand, gradient, naive_gradient(update, summand, parts, inputs, detach=True))
        for (part, name), value in gradient.items():
            if value is not None:
                reached[part, name] = True
                if not bool(value.isfinite().all()):
                    raise OwnershipError(f"the gradient of term {summand.label!r} to {part}.{name} is not finite")
                total[part, name] -= summand.weight(inputs.at) * value
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


def _trained_parameters(parts: Parts, update: UpdatePlan) -> dict[tuple[str, str], nn.Parameter]:
    return {
        (part, name): parameter
        for part in update.trains
        if part in parts.modules
        for name, parameter in parts.modules[part].named_parameters()
    }


def naive_gradient(
    update: UpdatePlan, summand: Summand, parts: Parts, inputs: StepInputs, detach: bool = False
) -> Gradients:
    """Return d mean(term) / d parameters, from a program of this term alone.

    Args:
        update: The update that has the term.
        summand: The term.
        parts: The modules.
        inputs: The data and the noise.
        detach: Cut every path through samples.
    """
    program = Program(summand.nodes, parts, update.differentiable, detach_reads=detach)
    values = program.run(inputs)
    mean = as_tensor(summand_function(summand.lowered, program)(inputs, values), inputs).double().mean()
    params = _trained_parameters(parts, update)
    if not mean.requires_grad:
        return dict.fromkeys(params)
    found = torch.autograd.grad(mean, list(params.values()), allow_unused=True)
    return dict(zip(params, found, strict=True))


def _check_paths(summand: Summand, full: Gradients, explicit: Gradients) -> None:
    """Compare how a term's gradient reaches each part, by the plan, with what autograd found."""
    for part in {part for part, _ in full}:
        ways = summand.gradient_paths.get(part, frozenset())
        for gradients, is_expected, manner in (
            (full, bool(ways), "at all"),
            (explicit, "explicit" in ways, "explicitly"),
        ):
            found = [g for (owner, _), g in gradients.items() if owner == part and g is not None]
            if not is_expected and any(bool((g != 0).any()) for g in found):
                raise OwnershipError(
                    f"term {summand.label!r} leaks a gradient into {part!r}: it must not reach it {manner}"
                )
            if is_expected and not found:  # zeros will do: relu(f - 3) may have none to give at these few rows
                raise OwnershipError(f"term {summand.label!r} gives {part!r} no gradient: it should reach it {manner}")


def _check_others(updates: str, trains: Sequence[str], parts: Parts, before: Mapping[str, Tensor]) -> None:
    """Check that parts that are not trained have no gradient, and that nothing has moved yet."""
    for name, parameter in parts.modules.named_parameters():
        part = name.split(".")[0]
        if part not in trains and parameter.grad is not None and bool((parameter.grad != 0).any()):
            raise OwnershipError(f"{updates}: a gradient is left in {name}, which is not trained")
        if not torch.equal(parameter, before[name]):
            raise OwnershipError(f"{updates}: {name} changed while a gradient was taken")
