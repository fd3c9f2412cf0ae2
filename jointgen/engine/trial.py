"""A trial of every component before a run, on a few rows: what it returns must have the right shape and be finite.

Without it a log-density of a wrong shape would train, by broadcasting, to a wrong number. `try_parts` needs no data;
`try_terms` runs every term on rows of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from jointgen.compiler.aggregates import AggregateNode
from jointgen.compiler.balanced_weights import measured_weights
from jointgen.compiler.binding import Binding
from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.compiler.estimators import EstimatorNode
from jointgen.compiler.feature_nodes import FeaturesNode
from jointgen.compiler.nodes import (
    ClosedKLNode,
    CriticNode,
    DensityNode,
    ForwardNode,
    Node,
    PastNode,
    ReadNode,
    RootNode,
    SampleNode,
    StandardizedNode,
    TermNode,
)
from jointgen.compiler.parts import Parts
from jointgen.compiler.plan import Plan, Summand, UpdatePlan
from jointgen.compiler.sums import SpreadNode, ValuesNode
from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.distributions import log_prob_of_draw
from jointgen.contracts.noise import Noise
from jointgen.contracts.observation import example
from jointgen.contracts.space import Space
from jointgen.data.step_inputs import RawRows, StepInputs
from jointgen.engine.gradient_check import double_copy
from jointgen.engine.program import Program, Values
from jointgen.engine.terms import summand_function
from jointgen.errors import ComponentError
from jointgen.registry.faults import attributing, described

ROWS = 3
"""Made-up rows on which a part is tried."""


# --- each part by itself, without data -------------------------------------------------------------------------------


@torch.no_grad()
def try_parts(compiled: CompiledRecipe) -> None:
    """Run every network, family, prior and critic on made-up rows, and check the shapes of what they return.

    Raises:
        ComponentError: A line for each part with a component that raises or returns something else than it must.
    """
    binding = compiled.binding
    trials = {"conditional": _try_conditional, "prior": _try_prior, "critic": _try_critic}
    faults = []
    for name, trait in binding.traits.items():
        if trait.kind in trials:
            try:
                trials[trait.kind](binding, compiled.parts, name)
            except ComponentError as error:
                faults.append(str(error))
    if faults:
        raise ComponentError("\n".join(faults))


def _try_conditional(binding: Binding, parts: Parts, name: str) -> None:
    table, (_, factor) = binding.recipe.all_conditionals()[name], binding.factor_of(name)
    space = binding.spaces[factor.out[0]]
    network, family = binding.named(name, "network"), binding.named(name, "family")
    trait = binding.traits[name]
    inputs = _seen(binding, parts, name, trait.seen(factor.given))
    if size := binding.traits[name].noise_input:
        inputs.append(_noise("eps").normal(size))
    part = _copied(binding, parts, name)
    with attributing(network):
        outputs = part.trunk(*inputs)
    _expect_numbers(network, "its output", outputs, tuple(table.family.outputs(space)))
    others = [
        _copied(binding, parts, other.part)(*_seen(binding, parts, other.part, other.given)) for other in trait.merged
    ]
    _try_law(family, lambda: part.family(outputs, *others), space, binding.capabilities[name])


def _try_prior(binding: Binding, parts: Parts, name: str) -> None:
    copies = {part: _copied(binding, parts, part) for part in (name, *binding.traits[name].through)}
    noise = Noise(0, "trial")
    law = lambda: parts.prior(name, ROWS, noise, copies)  # noqa: E731
    space = binding.spaces[binding.factor_of(name)[1].out[0]]
    _try_law(binding.named(name), law, space, binding.capabilities[name])


def _try_critic(binding: Binding, parts: Parts, name: str) -> None:
    named, inputs = binding.named(name), _seen(binding, parts, name, binding.ratios[name].variables)
    critic = _copied(binding, parts, name)
    with attributing(named):
        outputs = critic(*inputs)
    _expect_numbers(named, f"the output of critic {name!r}", outputs, ())


def _try_law(named: str, make: Callable[[], Any], space: Space, can: Capabilities) -> None:
    """Draw from distributions and take the densities that are declared."""
    with attributing(named):
        law = make()
        draw = law.draw(_noise("draw"))
        readings = {reading: draw.read(reading) for reading in dict.fromkeys(["sample", *can.paths])}
    for reading, value in readings.items():
        _expect_numbers(named, f"the reading {reading!r} of a draw", value, space.shape)
    densities = {}
    with attributing(named):
        if can.own_density != "none":
            densities["the log_prob of a draw of its own"] = log_prob_of_draw(law, draw)
        if can.foreign_density != "none":
            densities["log_prob"] = law.log_prob(readings["sample"])
        if can.bin_mass:
            densities["log_prob_bins"] = law.log_prob_bins(example(space, _noise("value")))
    for what, value in densities.items():
        _expect_numbers(named, what, value, ())


def _copied(binding: Binding, parts: Parts, name: str) -> Any:
    with attributing(binding.named(name)):
        return copy.deepcopy(parts.modules[name]).eval()


def _noise(name: str) -> Any:
    return Noise(0, "trial").named(name, ROWS)


def _seen(binding: Binding, parts: Parts, name: str, variables: Sequence[str]) -> list[Tensor]:
    """Examples of what a network sees: the variables, or features of other networks."""
    spaces = parts.seen_spaces.get(name) or [binding.spaces[variable] for variable in variables]
    names = variables if name not in parts.seen_spaces else [f"input {nth}" for nth in range(len(spaces))]
    return [example(space, _noise(shown)) for shown, space in zip(names, spaces, strict=True)]


def _expect(named: str, what: str, value: Any, shape: tuple[int, ...], rows: int = ROWS) -> None:
    if not isinstance(value, Tensor):
        raise ComponentError(f"{named}: {what} is a {type(value).__name__}, it must be a tensor")
    if tuple(value.shape) != (rows, *shape):
        raise ComponentError(
            f"{named}: {what} has shape {tuple(value.shape)} for {rows} rows, it must be {(rows, *shape)}"
        )
    if not value.is_floating_point():
        raise ComponentError(f"{named}: {what} is {value.dtype}, it must be floating")


def _expect_numbers(named: str, what: str, value: Any, shape: tuple[int, ...]) -> None:
    """Expect a tensor without NaN. Infinite values pass: a density of made-up rows may be."""
    _expect(named, what, value, shape)
    if bool(value.isnan().any()):
        raise ComponentError(f"{named}: {what} {_count(value)} that are made up to try it")


# --- every term, on rows of the data ---------------------------------------------------------------------------------


@torch.no_grad()
def try_terms(plan: Plan, parts: Parts, binding: Binding, data: RawRows, rows: int, seed: int = 0) -> None:
    """Compute every term of a plan in float64, and check that it is one finite number for each row.

    Args:
        plan: The plan.
        parts: The modules, which stay as they are.
        binding: What they are.
        data: A few raw rows.
        rows: How many.
        seed: Of the noise.

    Raises:
        ComponentError: The first node at which something is wrong: what computes it, and how it is wrong.
    """
    copied = double_copy(parts)
    noise = Noise(seed, "trial", dtype=torch.float64)
    one = {weight.name: torch.ones((), dtype=torch.float64) for weight in measured_weights(plan.objective)}
    inputs = StepInputs(data, noise, rows, pair_block=rows, scales=one)
    for update in plan.updates:
        for summand in update.summands:
            _try_summand(update, summand, copied, binding, inputs)


def _try_summand(update: UpdatePlan, summand: Summand, parts: Parts, binding: Binding, inputs: StepInputs) -> None:
    program = Program(summand.nodes, parts, update.differentiable)

    def watch(node: Node) -> AbstractContextManager[None]:
        return attributing(f"{_named(binding, node)}: {node.title}")

    values = program.run(inputs, watch=watch)
    for node, value in zip(program.nodes, values, strict=True):
        if isinstance(node, DensityNode | ClosedKLNode | CriticNode | TermNode | EstimatorNode | AggregateNode):
            _expect(_named(binding, node), node.title, value, (), inputs.rows * node.rows)
    with torch.enable_grad(), attributing(f"term {summand.label!r}"):  # a penalty takes gradients of its critic
        term = summand_function(summand.lowered, program)(inputs, values)
    if not isinstance(term, Tensor):
        return
    if summand.is_of_batch and term.ndim:
        raise ComponentError(f"term {summand.label!r}: its value has shape {tuple(term.shape)}, it must be one number")
    if term.ndim:
        _expect(f"term {summand.label!r}", "its value", term, (), inputs.rows)
    if not bool(term.isfinite().all()):
        raise ComponentError(_where_not_finite(summand, program, values, binding, inputs, term))


def _where_not_finite(
    summand: Summand, program: Program, values: Values, binding: Binding, inputs: StepInputs, term: Tensor
) -> str:
    """Name the first node whose value is not finite; what it is computed from is."""
    for node, value in zip(program.nodes, values, strict=True):
        for variable, tensor in _tensors(node, value).items():
            if bool(tensor.isfinite().all()):
                continue
            named, what = _named(binding, node), f"{node.title}{f'.{variable}' if variable else ''}"
            if isinstance(node, RootNode) and node.is_data:
                return f"{named}: {what} {_count(tensor)} of the data"
            law = getattr(node, "law", None)
            if isinstance(law, ForwardNode):
                outputs = _network_outputs(law, program, values, inputs)
                if not bool(outputs.isfinite().all()):
                    named, what = binding.named(law.part, "network"), f"the output of {law.title}"
                    tensor = outputs
            return f"{named}: {what} {_count(tensor)} at the start, though all that it is computed from is finite"
    return f"term {summand.label!r} {_count(term)} at the start, though all that it is computed from is finite"


def _network_outputs(law: ForwardNode, program: Program, values: Values, inputs: StepInputs) -> Tensor:
    part: Any = program.parts.modules[law.part]
    arguments = [values[program.index[node]] for node in law.inputs]
    if law.noise:
        rows = len(arguments[0])
        arguments.append(inputs.noise.named(law.noise, rows).normal(law.noise_size))
    outputs: Tensor = part.trunk(*arguments)
    return outputs


def _tensors(node: Node, value: Any) -> Mapping[str, Tensor]:
    """The tensors of a node's value, by variable where there are several; a distribution has none."""
    if isinstance(value, Tensor):
        return {"": value}
    return {variable: draw.read("sample") for variable, draw in value.items()} if isinstance(value, dict) else {}


def _count(tensor: Tensor) -> str:
    rows = tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None] if tensor.ndim else tensor[None, None]
    bad = ~rows.isfinite().all(1)
    kind = "NaN" if bool(rows.isnan().any()) else "infinite"
    return f"is {kind} in {int(bad.sum())} of {len(rows)} rows"


def _named(binding: Binding, node: Node) -> str:
    """Name the component that computes a node."""
    if isinstance(node, TermNode):
        return described(binding.registry, "term", node.term)
    if isinstance(node, EstimatorNode):
        return described(binding.registry, "estimator", node.estimator)
    if isinstance(node, ReadNode):
        return _named(binding, node.source)
    if isinstance(node, StandardizedNode):
        return _named(binding, node.moments)
    if isinstance(node, FeaturesNode):
        return _named(binding, node.layers)
    if isinstance(node, SpreadNode):
        return _named(binding, node.node)
    if isinstance(node, PastNode):
        return _named(binding, node.value)
    if isinstance(node, SampleNode | DensityNode | ClosedKLNode | ValuesNode):
        part = node.law.part
        return binding.named(part, "family" if part in binding.recipe.all_conditionals() else "")
    assert hasattr(node, "part"), f"{node.title} is computed by no part"
    return binding.named(node.part)
