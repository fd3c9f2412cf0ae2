"""Small models built from an objective, and what a test does to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from jointgen.compiler.compiled_recipe import CompiledRecipe, compile_recipe
from jointgen.compiler.gradient_paths import PartTraits
from jointgen.compiler.parts import Parts
from jointgen.compiler.plan import Plan, lower_expression, make_plan
from jointgen.config.recipe import read_recipe
from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.data.split import open_split
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.step import Step
from jointgen.engine.terms import PerRow
from jointgen.engine.update import UpdateRunner
from jointgen.objectives import Expr, Objective
from jointgen.objectives.objective import resolved
from jointgen.registry.discovery import load_plugins
from jointgen.runtime.workers import Workers
from support.networks import WatchedCritic

ALL_REAL: dict[str, Any] = {
    "data": {"type": "ring", "rows": 64},
    "prior": {"type": "normal", "size": 2},
    "encoder": {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "gaussian"}},
    "decoder": {
        "network": {"type": "mlp", "hidden": [6]},
        "family": {"type": "gaussian", "scale": "global", "init_scale": 0.5},
    },
    "discriminator": {"type": "mlp", "hidden": [6]},
    "objective": {"type": "vae"},  # `small_model` is handed the objective itself
    "train": {"steps": 1, "batch": 8},
}
"""x on a ring in the plane, z in the plane, one small hidden layer everywhere."""


@attrs.frozen
class SmallModel:
    """A compiled recipe with what a test does to it."""

    compiled: CompiledRecipe

    @property
    def plan(self) -> Plan:
        return self.compiled.plans[-1]

    @property
    def parts(self) -> Parts:
        return self.compiled.parts

    def double(self) -> SmallModel:
        self.parts.modules.double()
        return self

    def data(self, rows: int = 8) -> dict[str, dict[str, Tensor]]:
        """The first raw rows of every source."""
        return open_split(self.compiled.binding, "train").take(torch.arange(rows))

    def inputs(self, rows: int = 8, seed: int = 0, step: int = 0, repetition: int = 0, **more: Any) -> StepInputs:
        dtype = next((p.dtype for p in self.parts.modules.parameters()), torch.float32)
        noise = Noise(seed, f"{step}.{repetition}", dtype=dtype)
        return StepInputs(self.data(rows), noise, rows, step, **more)

    def update(self, name: str = "model") -> UpdateRunner:
        """One update on its own, which shares nothing."""
        return UpdateRunner(next(u for u in self.plan.updates if u.name == name), self.parts)

    def rows(self, expr: Expr) -> PerRow:
        """An expression as (B,) numbers."""
        binding, registry = self.compiled.binding, self.compiled.registry
        return PerRow(lower_expression(resolved(expr, registry.default), binding.joints, binding.traits), self.parts)

    def step(self, lr: float = 0.1, clip: float | None = None, plan: Plan | None = None, **more: Any) -> Step:
        """All updates, with plain gradient descent unless another rule is given."""
        return make_step(plan or self.plan, self.parts, lr, clip, **more)

    @contextmanager
    def forwards_counted(self) -> Iterator[dict[str, int]]:
        """How often each part's network is really called, by part; a held twin is its part, on the same memory."""
        counts: dict[str, int] = {}
        # of a conditional the trunk is counted, of a critic the whole
        watched = {n: getattr(m, "trunk", m) for n, m in self.parts.modules.items() if n not in self.priors}
        names = {memory(module): name for name, module in watched.items()}

        def count(module: nn.Module, *_: Any) -> None:
            if (name := names.get(memory(module))) is not None:
                counts[name] = counts.get(name, 0) + 1

        handle = nn.modules.module.register_module_forward_hook(count)
        yield counts
        handle.remove()

    def watched(self, *names: str) -> dict[str, WatchedCritic]:
        """These critics replaced by ones that keep what they are shown."""
        critics = {name: WatchedCritic() for name in names}
        self.parts.modules.update(critics)
        return critics

    @property
    def priors(self) -> set[str]:
        return {name for name, trait in self.compiled.binding.traits.items() if trait.kind == "prior"}


def memory(module: nn.Module) -> tuple[Any, ...]:
    """What a module is made of, wherever it is wrapped."""
    return (type(module), *(parameter.data_ptr() for parameter in module.parameters()))


def make_step(
    plan: Plan,
    parts: Parts,
    lr: float = 0.1,
    clip: float | None = None,
    rule: Callable[..., Any] = torch.optim.SGD,
    **more: Any,
) -> Step:
    def descent(names: Sequence[str]) -> list[torch.optim.Optimizer]:
        parameters = parts.parameters(names)
        return [rule(parameters, lr)] if parameters else []

    return Step(plan, parts, Workers.start("cpu"), {u.name: descent(u.trains) for u in plan.updates}, clip, **more)


@attrs.frozen
class Composed:
    """An objective in the place of a registered one."""

    composed: Any

    def objective(self) -> Any:
        return self.composed


def small_model(objective: Objective | Sequence[Any], **changes: Any) -> SmallModel:
    """Compile an objective into a small model from the shipped components.

    Args:
        objective: An objective, or the stages of one.
        **changes: Tables that replace those of ALL_REAL; None leaves a table out.

    Raises:
        ConfigError: As a run would.
    """
    registry = load_plugins().registry
    tables = {key: value for key, value in {**ALL_REAL, **changes}.items() if value is not None}
    recipe = attrs.evolve(read_recipe(tables, registry=registry), objective=Composed(objective))
    return SmallModel(compile_recipe(recipe, registry))


def resolve(kind: str, name: str) -> Any:
    """The registered component of that kind and name with its default settings."""
    return load_plugins().registry.default(kind, name)


def assemble(
    objective: Objective,
    modules: Mapping[str, nn.Module],
    traits: Mapping[str, PartTraits] | None = None,
    spaces: Mapping[str, Space] | None = None,
) -> tuple[Plan, Parts]:
    """Plan an objective over networks that a test writes itself.

    Parts named data, encoder, decoder and prior have the traits of a model of real vectors unless given.
    """
    complete = objective.complete(resolve)
    exact = {"sample": "exact", "mean": "exact"}
    usual = {
        "data": PartTraits("data"),
        "prior": PartTraits("prior", exact, trainable=False),
        "encoder": PartTraits("conditional", exact),
        "decoder": PartTraits("conditional", exact),
    }
    named = {factor.part for joint in complete.joints.values() for factor in joint.factors}
    known = {**{name: trait for name, trait in usual.items() if name in named}, **(traits or {})}
    known |= {name: PartTraits("critic") for name in complete.ratios}
    one = {v: Space((1,)) for joint in complete.joints.values() for v in joint.variables}
    return make_plan(complete, known), Parts(nn.ModuleDict(dict(modules)), {**one, **(spaces or {})})
