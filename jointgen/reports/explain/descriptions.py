"""Describes an objective and its parts in short texts, which `jointgen explain` prints and the page shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jointgen.config.recipe import EncoderTable
from jointgen.contracts.distributions import PriorOfFamily
from jointgen.contracts.reductions import as_gradient_reduction
from jointgen.objectives.components import component_of
from jointgen.objectives.distributions import Mixture
from jointgen.objectives.estimators import Estimate
from jointgen.objectives.expressions import Expectation, Ratio
from jointgen.objectives.objective import Objective, Update
from jointgen.objectives.schedules import describe_times

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe


def describe_schedule(update: Update) -> Iterator[str]:
    """Say how often an update runs, where that is not once in every step."""
    if update.every > 1:
        yield f"every {update.every} steps"
    if update.when is not None:
        yield f"where in the last step {update.when}; in the first step always"
    if update.unless:
        yield f"not in steps in which {' or '.join(update.unless)} runs"
    if update.most_times > 1:
        yield f"{describe_times(update.times)} times a step, with new draws after the first time"


def describe_reductions(update: Update) -> Iterator[str]:
    """Say which gradient each reduction makes itself, by the expectations that it reduces."""
    for expr in update.maximize.walk():
        if (
            isinstance(expr, Expectation)
            and (reduction := as_gradient_reduction(component_of(expr.reduce))) is not None
        ):
            yield f"{expr.sign}: {reduction.gradient}"


def describe_estimators(update: Update) -> Iterator[str]:
    """Say which parts each estimator trains and reads."""
    for expr in dict.fromkeys(update.maximize.walk()):
        if isinstance(expr, Estimate):
            yield from expr.describe()


def describe_critic(ratio: Ratio) -> Iterator[str]:
    """Say what the critic of a ratio sees and how it is trained, in one line each."""
    seen = ", ".join(f"{v} as {r}" if (r := ratio.reading(v)) != "sample" else v for v in ratio.variables)
    updates = "one update" if ratio.times == 1 else f"{describe_times(ratio.times)} updates"
    if ratio.kind == "critic":
        yield f"a critic that sees {seen}; trained as its update is written, so its output is not judged"
    else:
        yield f"a critic that sees {seen}; loss {str(ratio.loss).removesuffix('()')}; {updates} a step"
    for side, over in (("numerator", ratio.num), ("denominator", ratio.den)):
        if isinstance(over, Mixture):
            yield f"its {side} is a mixture: a full batch of each component, weighted by its share"
    if ratio.history:
        yield f"half of its negatives are, in its own update, among the last {ratio.history} that it was shown"
    yield from (f"penalty {str(penalty).removesuffix('()')}" for penalty in ratio.penalties)
    if ratio.known is not None:
        yield f"known part {ratio.known}"


def describe_constraints(objective: Objective) -> Iterator[str]:
    """Say what the parameters of each part are held to after each of its optimizer steps, in one line each."""
    for part, held in objective.constraints:
        said = " and ".join(str(one).removesuffix("()") for one in held)
        yield f"{part} is held to {said} after each step of its optimizer"


def describe_order(objective: Objective) -> str:
    """Name the updates of a step in their order."""
    names = ", ".join(update.name for update in objective.updates)
    together = objective.order == "same point" and len(objective.updates) > 1
    return f"{names}, all gradients taken at the same point" if together else names


def component_names(compiled: CompiledRecipe, part: str) -> str:
    """Find the registered names of the components behind a part, such as "mlp + gaussian"."""
    recipe, name_of = compiled.recipe, compiled.registry.name_of
    if part in recipe.all_sources():
        return name_of("data", type(recipe.all_sources()[part]))
    if part in recipe.all_priors():
        prior = recipe.all_priors()[part]
        family = f" + {name_of('family', type(prior.family))}" if isinstance(prior, PriorOfFamily) else ""
        return name_of("prior", type(prior)) + family
    if part in recipe.all_conditionals():
        table = recipe.all_conditionals()[part]
        kind = "encoder" if isinstance(table, EncoderTable) else "decoder"
        return f"{name_of(kind, type(table.network))} + {name_of('family', type(table.family))}"
    return name_of("discriminator", type(recipe.discriminators.get(part, recipe.discriminator)))
