"""A recipe explained before it is run: the equation, what computes each factor, the plan of a step, sizes, fitness.

Everything is read off the plan that training follows. Torch is needed to count parameters, an accelerator is not.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from jointgen.compiler.balanced_weights import STEPS_BETWEEN, balances_of
from jointgen.compiler.nodes import DrawNode, ForwardNode, Node, PriorNode, RootNode, SampleNode, ViewNode
from jointgen.compiler.plan import Plan, Summand, UpdatePlan
from jointgen.compiler.requirements import Requirement, is_met, law_names, requirements
from jointgen.config.recipe import EncoderTable
from jointgen.contracts.distributions import PriorOfFamily
from jointgen.objectives.algebra import Weight
from jointgen.objectives.distributions import Joint
from jointgen.objectives.expressions import Ratio
from jointgen.objectives.objective import Objective, Update
from jointgen.reports.explain.advice import advice_on
from jointgen.reports.explain.sizes import Sizes, sizes_of
from jointgen.reports.explain.training import training

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe

WIDTH = 110
"""Prose is wrapped to this; equations and tables are not."""

Lines = Iterator[str]


def explain(compiled: CompiledRecipe) -> str:
    """The whole explanation, for a terminal."""
    return "\n\n".join("\n".join([title.upper()] * bool(title) + lines) for title, lines in explained(compiled))


def explained(compiled: CompiledRecipe) -> list[tuple[str, list[str]]]:
    """(title, lines) of each section that says anything; the first has no title."""
    sections: list[tuple[str, Iterable[str]]] = [("", _head(compiled))]
    for number, (stage, plan) in enumerate(zip(compiled.stages, compiled.plans, strict=True)):
        title = f" of stage {number + 1}, {stage.name}" if len(compiled.stages) > 1 else ""
        sections += [
            (f"objective{title}", _objective(compiled, number)),
            (f"one step{title}", _step(plan)),
            (f"gradients{title}", _gradients(plan)),
        ]
    sections[2:2] = [("joints", _joints(compiled)), ("variables", _variables(compiled))]
    sections += [
        ("training", training(compiled)),
        ("sizes", _sizes(sizes_of(compiled))),
        ("families", _families(compiled)),
        ("advice", _advice(compiled)),
    ]
    written = [(title, list(lines)) for title, lines in sections]
    return [(title, lines) for title, lines in written if lines]


def _head(compiled: CompiledRecipe) -> Lines:
    recipe, registry = compiled.recipe, compiled.registry
    component = registry.get("objective", registry.name_of("objective", type(recipe.objective)))
    train = recipe.train
    yield f"{recipe.name}: objective {component.name!r}" + (f" ({component.paper})" if component.paper else "")
    yield f"{train.total_steps:,} steps of {train.batch:,} rows, {train.total_steps * train.batch:,} rows in all"


# --- the objective ---------------------------------------------------------------------------------------------------


def _objective(compiled: CompiledRecipe, number: int) -> Lines:
    stage, ends = compiled.stages[number], compiled.boundaries()
    objective = stage.objective
    if len(compiled.stages) > 1:
        begin = ends[number - 1] + 1 if number else 1
        steps = f"steps {begin:,} to {ends[number]:,}" if begin <= ends[number] else "no step"
        yield f"  {stage.share:.0%} of the run, {steps}"
    for update in objective.updates:
        yield from _equation(update)
    yield from _weights(compiled.plans[number])
    for ratio in objective.ratios.values():
        yield f"  {ratio.definition}"
        yield from (f"    {line}" for line in about_critic(ratio))
    yield f"  order: {order_of(objective)}"
    yield from (f"  reported as {name}: {expr}" for name, expr in objective.reports)


def _weights(plan: Plan) -> Lines:
    places = {balance.weight.name: balance.part for balance in balances_of(plan)}
    for name, weight in plan.objective.weights.items():
        yield f"  {weight.describe()}"
        if name in places:
            outputs = f"what {places[name]}'s network puts out"
            yield f"    both with respect to {outputs}, measured every {STEPS_BETWEEN} steps"
            yield "    (after 1, 2, 4, ... steps at first)"


def _equation(update: Update) -> Lines:
    """One line for each expectation."""
    first, *rest = split_sum(str(update.maximize))
    head = f"  {update.name} maximises "
    yield head + first
    yield from (" " * (len(head) - 2) + line for line in rest)
    yield from (f"    {line}" for line in when(update))


def when(update: Update) -> Lines:
    """Where an update does not run once at every step."""
    if update.every > 1:
        yield f"every {update.every} steps"
    if update.times > 1:
        yield f"{update.times} times a step, each time after the first on draws of its own"


def split_sum(equation: str) -> list[str]:
    """Its summands with their signs: cut at each + or - that stands outside of all brackets."""
    lines, depth, start = [], 0, 0
    for at, sign in enumerate(equation):
        depth += (sign in "([") - (sign in ")]")
        if depth == 0 and at > start and equation[at : at + 3] in (" + ", " - "):
            lines.append(equation[start:at])
            start = at + 1
    return [*lines, equation[start:]]


def about_critic(ratio: Ratio) -> Lines:
    seen = ", ".join(f"{v} as {r}" if (r := ratio.reading(v)) != "sample" else v for v in ratio.variables)
    yield f"a critic that sees {seen}; loss {_settings(ratio.loss)}; {_times(ratio.times)} a step"
    yield from (f"penalty {_settings(penalty)}" for penalty in ratio.penalties)
    if ratio.known is not None:
        yield f"known part {ratio.known}"


def _times(n: int) -> str:
    return "one update" if n == 1 else f"{n} updates"


def _settings(component: Any) -> str:
    """Logistic, or R1(weight=0.1, every=4)."""
    return str(component).removesuffix("()")


def order_of(objective: Objective) -> str:
    names = ", ".join(update.name for update in objective.updates)
    together = objective.order == "same point" and len(objective.updates) > 1
    return f"{names}, all gradients taken at the same point" if together else names


# --- joints and variables --------------------------------------------------------------------------------------------


def _joints(compiled: CompiledRecipe) -> Lines:
    for joint in compiled.binding.joints.values():
        yield f"  {joint}"
        rows = [[f"    {joint.written(f)}", f.computed_by, component_of(compiled, f.part)] for f in joint.factors]
        yield from _table(rows)


def component_of(compiled: CompiledRecipe, part: str) -> str:
    """The registered names behind a part."""
    recipe, name_of = compiled.recipe, compiled.registry.name_of
    if part in recipe.all_sources():
        return name_of("data", type(recipe.all_sources()[part]))
    if part in recipe.all_priors():
        prior = recipe.all_priors()[part]
        within = f" + {name_of('family', type(prior.family))}" if isinstance(prior, PriorOfFamily) else ""
        return name_of("prior", type(prior)) + within
    if part in recipe.all_conditionals():
        table = recipe.all_conditionals()[part]
        kind = "encoder" if isinstance(table, EncoderTable) else "decoder"
        return f"{name_of(kind, type(table.network))} + {name_of('family', type(table.family))}"
    return name_of("discriminator", type(recipe.discriminators.get(part, recipe.discriminator)))


def _variables(compiled: CompiledRecipe) -> Lines:
    binding = compiled.binding
    for name, space in sorted(binding.spaces.items()):
        observed = any(
            name in f.out and binding.traits[f.part].kind == "data" for j in _all(compiled) for f in j.factors
        )
        noted = "observed" if observed else "latent"
        yield f"  {name}  {space}: {space.size:,} number{'s' * (space.size > 1)}, {noted}"


def _all(compiled: CompiledRecipe) -> Iterable[Joint]:
    return compiled.binding.joints.values()


# --- one step --------------------------------------------------------------------------------------------------------


def _step(plan: Plan) -> Lines:
    if plan.one_graph:
        yield "  all updates are losses on one graph, which is run once"
    for index, update in enumerate(plan.updates):
        yield f"  {index + 1}. {update.name} trains {', '.join(update.trains) or 'nothing'}"
        shared = {node: _first_with(node, plan.updates[:index]) for node in plan.reused(index)}
        drawn = [node for node in update.nodes if isinstance(node, DrawNode)]
        run = [node for node in update.nodes if node.networks]
        yield from _listed("draws", [[_draw(node), _reused(node, shared)] for node in drawn])
        yield from _listed("runs", [[_run(node), _reused(node, shared)] for node in run])
        yield from _listed("penalties", [[text] for text in _penalties(update)])
    counts = ", ".join(f"{part} {n}" for part, n in sorted(plan.runs().items()))
    yield f"  forward runs when every update is due once: {counts}" + " (penalties besides)" * _has_penalty(plan)


def _first_with(node: Node, updates: Sequence[UpdatePlan]) -> str:
    return next(update.name for update in updates if node in update.nodes)


def _reused(node: Node, shared: dict[Node, str]) -> str:
    return f"reused from {shared[node]}" if node in shared else ""


def _run(node: Node) -> str:
    if isinstance(node, RootNode | PriorNode):
        return f"{', '.join(node.through)} within {node.title}, on its own inputs"
    return node.title


def _draw(node: DrawNode) -> str:
    if isinstance(node, RootNode):
        return f"{node.title} from {node.part}"
    if isinstance(node, ViewNode):
        return f"{node.title}, as {node.part}'s family shows it"
    assert isinstance(node, SampleNode)
    noise = " with noise" * bool(isinstance(node.law, ForwardNode) and node.law.noise)
    return f"{node.title} by {node.law.title}{noise}"


def _penalties(update: UpdatePlan) -> Lines:
    for summand in update.summands:
        if penalty := summand.penalty:
            every = f", every {penalty.every} steps" * (penalty.every > 1)
            yield f"{penalty.title}: runs the critic again, with its gradient{every}"


def _has_penalty(plan: Plan) -> bool:
    return any(s.penalty for update in plan.updates for s in update.summands)


def _listed(title: str, rows: list[list[str]]) -> Lines:
    for number, row in enumerate(_table(rows)):
        yield f"     {title if number == 0 else '':<9} {row}"


# --- gradients -------------------------------------------------------------------------------------------------------


def _gradients(plan: Plan) -> Lines:
    """Term x part, as the ownership check at the start of a run holds it against autograd."""
    parts = [name for name, trait in plan.traits.items() if trait.kind != "data" and trait.trainable]
    parts = [
        part for part in parts if any(part in s.gradient_paths for update in plan.updates for s in update.summands)
    ]
    rows = [["  how a term's gradient reaches a part", "weight", *parts]]
    for update in plan.updates:
        for summand in update.summands:
            rows.append([f"  {summand.label}", _weight(summand), *(_reach(summand, part, update) for part in parts)])
    yield from _table(rows)
    if any("(held)" in row for row in rows):
        yield "  (held): the update does not train this part"


def _reach(summand: Summand, part: str, update: UpdatePlan) -> str:
    if part not in summand.gradient_paths:
        return "none"
    return " + ".join(sorted(summand.gradient_paths[part])) if part in update.trains else "(held)"


def _weight(summand: Summand) -> str:
    """The product of its weights, named ones by name."""
    number, names = 1.0, []
    for weight in summand.weights:
        if isinstance(weight, Weight):
            names.append(weight.name)
        else:
            number *= weight
    if not names:
        return f"{number:g}"
    return {1.0: "", -1.0: "-"}.get(number, f"{number:g}*") + "*".join(names)


# --- sizes -----------------------------------------------------------------------------------------------------------


def _sizes(sizes: Sizes) -> Lines:
    yield from _table([[f"  {name}", f"{n:>12,} parameters"] for name, n in sizes.parameters.items()])
    yield f"  {sum(sizes.parameters.values()):,} parameters in all"
    shares = [f"{what} {_mebibytes(n)}" for what, n in sizes.memory.items()]
    yield f"  memory {_mebibytes(sum(sizes.memory.values()))}: {', '.join(shares)}; activations come on top"


def _mebibytes(n: int) -> str:
    return f"{n / 2**20:,.1f} MiB"


# --- families --------------------------------------------------------------------------------------------------------


def _families(compiled: CompiledRecipe) -> Lines:
    """What the objective needs of each part, and what its family declares."""
    binding, laws = compiled.binding, law_names(compiled.binding, compiled.registry)
    needs = dict.fromkeys(attrs.evolve(need, term="") for plan in compiled.plans for need in requirements(plan, laws))
    for part, can in binding.capabilities.items():
        yield f"  {part} ({component_of(compiled, part)}) has {can}"
        yield from (f"    {_fitness(need, compiled)}" for need in needs if need.part == part)


def _fitness(need: Requirement, compiled: CompiledRecipe) -> str:
    met = is_met(need, compiled.binding)
    return f"{'met' if met else 'NOT MET'}: needs {need}{_cost(need, compiled) if met else ''}"


def _cost(need: Requirement, compiled: CompiledRecipe) -> str:
    """What a density at foreign points takes, where that is more than a formula."""
    binding = compiled.binding
    if need.ability != "foreign density":
        return ""
    size = binding.spaces[binding.factor_of(need.part)[1].out[0]].size
    how = binding.capabilities[need.part].foreign_density
    return {"D passes": f", which takes {size} passes", "numeric": ", by a numeric inverse"}.get(how, "")


# --- advice ----------------------------------------------------------------------------------------------------------


def _advice(compiled: CompiledRecipe) -> Lines:
    said = dict.fromkeys(text for stage in compiled.stages for text in advice_on(stage.objective, compiled.binding))
    for text in said:
        yield from textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ")


# --- tables ----------------------------------------------------------------------------------------------------------


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns in line, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
