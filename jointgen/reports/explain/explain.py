"""Writes the explanation of a recipe: equations, parts, the plan of a step, gradients, optimizers, sizes, families.

Everything is read off the plan that training follows. Torch is needed to count parameters, an accelerator is not.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from jointgen.compiler.balanced_weights import STEPS_BETWEEN, balances_of
from jointgen.compiler.nodes import DrawNode, ForwardNode, Node, PriorNode, RootNode, SampleNode, ViewNode
from jointgen.compiler.plan import Plan, Summand
from jointgen.compiler.requirements import Requirement, is_met, law_names, requirements
from jointgen.compiler.sums import ValuesNode
from jointgen.objectives.algebra import Weight
from jointgen.objectives.components import summary_of
from jointgen.objectives.typesetting import split_sum
from jointgen.reports.explain.advice import advice_on
from jointgen.reports.explain.descriptions import (
    component_names,
    describe_constraints,
    describe_critic,
    describe_estimators,
    describe_order,
    describe_reductions,
    describe_schedule,
)
from jointgen.reports.explain.sizes import sizes_of
from jointgen.reports.explain.training import training_lines

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe

WIDTH = 110
"""Prose is wrapped to this width; equations and tables are not."""

Lines = Iterator[str]


def explain(compiled: CompiledRecipe) -> str:
    """Write the whole explanation for a terminal."""
    return "\n\n".join("\n".join([title.upper()] * bool(title) + lines) for title, lines in explained(compiled))


def explained(compiled: CompiledRecipe) -> list[tuple[str, list[str]]]:
    """Write the explanation as sections.

    Returns:
        (title, lines) of each section that has lines. The first section has no title.
    """
    sections: list[tuple[str, Iterable[str]]] = [("", _head(compiled))]
    for number, (stage, plan) in enumerate(zip(compiled.stages, compiled.plans, strict=True)):
        title = f" of stage {number + 1}, {stage.name}" if len(compiled.stages) > 1 else ""
        sections.append((f"objective{title}", _objective(compiled, number)))
        if number == 0:  # what all stages share is explained once, after the first equation
            sections += [("joints", _joints(compiled)), ("variables", _variables(compiled))]
        sections += [(f"one step{title}", _step(plan)), (f"gradients{title}", _gradients(plan))]
    sections += [
        ("training", training_lines(compiled)),
        ("sizes", _sizes(compiled)),
        ("families", _families(compiled)),
        ("advice", _advice(compiled)),
    ]
    written = [(title, list(lines)) for title, lines in sections]
    return [(title, lines) for title, lines in written if lines]


def explanation(compiled: CompiledRecipe) -> dict[str, Any]:
    """Return what the explanation says as JSON values, for scripts.

    Returns:
        name, objective, steps, batch; `stages`: for each its name, steps, equations, order, weights and ratios, the
        updates with what they train, draw and run, and the gradients of terms by part; `joints` with the part of each
        factor; `variables`; `parameters` by part; `memory_bytes` by purpose; `requirements` of each part, with
        whether its family meets them; `advice`.
    """
    recipe, binding, sizes = compiled.recipe, compiled.binding, sizes_of(compiled)
    return {
        "name": recipe.name,
        "objective": compiled.registry.component_of("objective", type(recipe.objective)).name,
        "steps": recipe.train.total_steps,
        "batch": recipe.train.batch,
        "stages": [_stage(compiled, number) for number in range(len(compiled.stages))],
        "joints": {
            str(joint): {joint.written(factor): factor.part for factor in joint.factors}
            for joint in binding.joints.values()
        },
        "components": {part: component_names(compiled, part) for part in _built_parts(compiled)},
        "variables": {name: {"space": str(space), "size": space.size} for name, space in binding.spaces.items()},
        "parameters": dict(sizes.parameters),
        "memory_bytes": dict(sizes.memory),
        "requirements": [
            {"part": need.part, "needs": str(need), "met": is_met(need, binding)} for need in _needs(compiled)
        ],
        "advice": _advice_texts(compiled),
    }


def _built_parts(compiled: CompiledRecipe) -> list[str]:
    """The data sources, priors, encoders and decoders that the joints use, and the critics."""
    used = [factor.part for joint in compiled.binding.joints.values() for factor in joint.factors]
    recipe, critics = compiled.recipe, [name for stage in compiled.stages for name in stage.objective.ratios]
    known = {*recipe.all_sources(), *recipe.all_priors(), *recipe.all_conditionals(), *critics}
    return [part for part in dict.fromkeys([*used, *critics]) if part in known]


def _stage(compiled: CompiledRecipe, number: int) -> dict[str, Any]:
    stage, plan = compiled.stages[number], compiled.plans[number]
    objective = stage.objective
    return {
        "name": stage.name,
        "ends_at_step": compiled.boundaries()[number],
        "maximize": {update.name: str(update.maximize) for update in objective.updates},
        "order": objective.order,
        "weights": {name: weight.describe() for name, weight in objective.weights.items()},
        "ratios": {ratio.name: str(ratio.definition) for ratio in objective.ratios.values()},
        "updates": [
            {
                "name": update.name,
                "trains": list(update.trains),
                "draws": [_describe_draw(node) for node in update.nodes if isinstance(node, DrawNode)],
                "runs": [_describe_run(node) for node in update.nodes if node.networks],
                "reused": [node.title for node in update.nodes if node in plan.reused(index)],
                "terms": [
                    {
                        "term": summand.label,
                        "weight": _weight_text(summand),
                        "gradients": {part: sorted(paths) for part, paths in summand.gradient_paths.items()},
                    }
                    for summand in update.summands
                ],
            }
            for index, update in enumerate(plan.updates)
        ],
        "forward_runs": dict(plan.runs()),
    }


def _head(compiled: CompiledRecipe) -> Lines:
    recipe, registry = compiled.recipe, compiled.registry
    component = registry.component_of("objective", type(recipe.objective))
    train = recipe.train
    yield f"{recipe.name}: objective {component.name!r}" + (f" ({component.paper})" if component.paper else "")
    yield f"{train.total_steps:,} steps of {train.batch:,} rows, {train.total_steps * train.batch:,} rows in all"


def _objective(compiled: CompiledRecipe, number: int) -> Lines:
    """Write what each update of a stage maximises, its weights and its critics."""
    stage, plan, ends = compiled.stages[number], compiled.plans[number], compiled.boundaries()
    objective = stage.objective
    if len(compiled.stages) > 1:
        begin = ends[number - 1] + 1 if number else 1
        steps = f"steps {begin:,} to {ends[number]:,}" if begin <= ends[number] else "no step"
        yield f"  {stage.share:.0%} of the run, {steps}"

    for update in objective.updates:
        head = f"  {update.name} maximises "
        first, *rest = split_sum(str(update.maximize))
        yield head + first
        yield from (" " * (len(head) - 2) + line for line in rest)
        yield from (f"    {line}" for line in (*describe_reductions(update), *describe_estimators(update)))
        yield from (f"    {line}" for line in describe_schedule(update))

    balanced_at = {balance.weight.name: balance.part for balance in balances_of(plan)}
    for name, weight in objective.weights.items():
        yield f"  {weight.describe()}"
        if name in balanced_at:
            outputs = f"the outputs of {balanced_at[name]}'s network"
            yield f"    both with respect to {outputs}, measured every {STEPS_BETWEEN} steps"
            yield "    (after 1, 2, 4, ... steps at first)"

    for ratio in objective.ratios.values():
        yield f"  {ratio.definition}"
        yield from (f"    {line}" for line in describe_critic(ratio))
    for one in objective.components.values():
        yield f"  {one.describe()}: {summary_of(one.component)}"
    yield from (f"  {line}" for line in describe_constraints(objective))
    yield f"  order: {describe_order(objective)}"
    yield from (f"  reported as {name}: {expr}" for name, expr in objective.reports)


def _joints(compiled: CompiledRecipe) -> Lines:
    """Write each joint, and the part and the components that compute each factor of it."""
    for joint in compiled.binding.joints.values():
        yield f"  {joint}"
        rows = [[f"    {joint.written(f)}", f.computed_by, component_names(compiled, f.part)] for f in joint.factors]
        yield from _table(rows)
    if unused := compiled.binding.unused:
        yield f"  not built: {', '.join(unused)}, which the objective neither draws from nor scores"


def _variables(compiled: CompiledRecipe) -> Lines:
    binding = compiled.binding
    factors = [factor for joint in binding.joints.values() for factor in joint.factors]
    observed = {v for factor in factors if binding.traits[factor.part].kind == "data" for v in factor.out}
    for name, space in sorted(binding.spaces.items()):
        count = f"{space.size:,} number{'s' if space.size > 1 else ''}"
        yield f"  {name}  {space}: {count}, {'observed' if name in observed else 'latent'}"


# --- one step --------------------------------------------------------------------------------------------------------


def _step(plan: Plan) -> Lines:
    """Write what each update draws and runs, and what it takes over from an earlier update of the step."""
    if plan.one_graph:
        yield "  all updates are losses on one graph, which is run once"
    for index, update in enumerate(plan.updates):
        yield f"  {index + 1}. {update.name} trains {', '.join(update.trains) or 'nothing'}"
        earlier = plan.updates[:index]
        reused = {
            node: f"reused from {next(other.name for other in earlier if node in other.nodes)}"
            for node in plan.reused(index)
        }
        draws = [[_describe_draw(node), reused.get(node, "")] for node in update.nodes if isinstance(node, DrawNode)]
        runs = [[_describe_run(node), reused.get(node, "")] for node in update.nodes if node.networks]
        penalties = []
        for penalty in (summand.penalty for summand in update.summands):
            if penalty is not None:
                every = f", every {penalty.every} steps" if penalty.every > 1 else ""
                penalties.append([f"{penalty.title}: runs the critic again{every}"])
        for title, rows in (("draws", draws), ("runs", runs), ("penalties", penalties)):
            for number, row in enumerate(_table(rows)):
                yield f"     {title if number == 0 else '':<9} {row}"
    counts = ", ".join(f"{part} {n}" for part, n in sorted(plan.runs().items())) or "none"
    has_penalty = any(summand.penalty for update in plan.updates for summand in update.summands)
    yield f"  forward runs when every update is due once: {counts}" + (", penalties not counted" if has_penalty else "")


def _describe_draw(node: DrawNode) -> str:
    if isinstance(node, RootNode):
        return f"{node.title} from {node.part}"
    if isinstance(node, ViewNode):
        return f"{node.title}, as {node.part}'s family shows it"
    if isinstance(node, ValuesNode):
        return f"{node.variable}: each of its {node.count:,} values, weighed by {node.title}"
    assert isinstance(node, SampleNode)
    noise = " with noise" if isinstance(node.law, ForwardNode) and node.law.noise else ""
    return f"{node.title} by {node.law.title}{noise}"


def _describe_run(node: Node) -> str:
    if isinstance(node, RootNode | PriorNode):
        return f"{', '.join(node.through)} within {node.title}, on its own inputs"
    return node.title


# --- gradients -------------------------------------------------------------------------------------------------------


def _gradients(plan: Plan) -> Lines:
    """Write the table of terms and parts that the check at the start of a run compares with autograd."""
    summands = [(update, summand) for update in plan.updates for summand in update.summands]
    reached = {part for _, summand in summands for part in summand.gradient_paths}
    parts = [
        part for part, trait in plan.traits.items() if trait.kind != "data" and trait.trainable and part in reached
    ]
    rows = [["  how a term's gradient reaches a part", "weight", *parts]]
    for update, summand in summands:
        row = [f"  {summand.label}", _weight_text(summand)]
        for part in parts:
            if part not in summand.gradient_paths:
                row.append("none")
            elif part not in update.trains:
                row.append("(held)")
            else:
                row.append(" + ".join(sorted(summand.gradient_paths[part])))
        rows.append(row)
    yield from _table(rows)
    if any("(held)" in row for row in rows):
        yield "  (held): the update does not train this part"


def _weight_text(summand: Summand) -> str:
    """Write the product of a term's weights: numbers multiplied, named weights by name, as in -2*lambda."""
    number, names = 1.0, []
    for weight in summand.weights:
        if isinstance(weight, Weight):
            names.append(weight.name)
        else:
            number *= weight
    if not names:
        return f"{number:g}"
    return {1.0: "", -1.0: "-"}.get(number, f"{number:g}*") + "*".join(names)


# --- sizes, families, advice -----------------------------------------------------------------------------------------


def _sizes(compiled: CompiledRecipe) -> Lines:
    sizes = sizes_of(compiled)
    yield from _table([[f"  {name}", f"{n:>12,} parameters"] for name, n in sizes.parameters.items()])
    yield f"  {sum(sizes.parameters.values()):,} parameters in all"
    total, *shares = (f"{n / 2**20:,.1f} MiB" for n in (sum(sizes.memory.values()), *sizes.memory.values()))
    listed = ", ".join(f"{purpose} {share}" for purpose, share in zip(sizes.memory, shares, strict=True))
    yield f"  memory {total}: {listed}; activations are not counted"


def _families(compiled: CompiledRecipe) -> Lines:
    """Write what the family of each part can do, and whether it meets what the objective needs of the part."""
    binding, needs = compiled.binding, _needs(compiled)
    for part, capabilities in binding.capabilities.items():
        yield f"  {part} ({component_names(compiled, part)}) has {capabilities}"
        for need in (need for need in needs if need.part == part):
            cost = ""
            if need.ability == "foreign density":  # which can take more than a formula
                size = binding.spaces[binding.factor_of(part)[1].out[0]].size
                costs = {"D passes": f", which takes {size} passes", "numeric": ", by a numeric inverse"}
                cost = costs.get(capabilities.foreign_density, "")
            yield f"    met: needs {need}{cost}" if is_met(need, binding) else f"    NOT MET: needs {need}"


def _needs(compiled: CompiledRecipe) -> list[Requirement]:
    """What the objective needs of the parts' families, each once."""
    laws = law_names(compiled.binding, compiled.registry)
    needs = (need for plan in compiled.plans for need in requirements(plan, laws))
    return list(dict.fromkeys(attrs.evolve(need, term="") for need in needs))


def _advice_texts(compiled: CompiledRecipe) -> list[str]:
    texts = (text for stage in compiled.stages for text in advice_on(stage.objective, compiled.binding))
    return list(dict.fromkeys(texts))


def _advice(compiled: CompiledRecipe) -> Lines:
    for text in _advice_texts(compiled):
        yield from textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ")


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligns the columns of a table, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
