"""A warm start: parts of a recipe begin with the weights that the parts of these names have in another run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
from torch import Tensor, nn

from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.compiler.parts import Parts, shape_mismatches, summarise_problems
from jointgen.config.recipe import WarmStartTable
from jointgen.errors import CheckpointError, ConfigError, Problem, Problems, placing, suggest
from jointgen.runs.checkpoint import Checkpoint, find
from jointgen.runs.folder import RunFolder

KEY = ("train", "init_from")
_AVERAGED = "ema."
Weights = Mapping[str, Mapping[str, Tensor]]
"""part -> tensors by name."""


@attrs.frozen
class WarmStart:
    """Weights that fit. `as_built`: the recipe's other parts that have any; `passed_over`: newer checkpoints that are
    damaged, a line each."""

    asked: WarmStartTable
    checkpoint: str
    sha256: str
    weights: Weights
    averaged: bool
    as_built: tuple[str, ...]
    passed_over: tuple[str, ...]

    def put_into(self, parts: Parts) -> None:
        """For parts as they are to be trained: the weights come in their precision, whatever the parts were before."""
        for name, tensors in self.weights.items():
            parts.modules[name].load_state_dict(dict(tensors))

    @property
    def lines(self) -> list[str]:
        """What whoever runs it should know."""
        weights = "averaged weights" if self.averaged else "weights"
        said = f"{', '.join(self.weights)} from the {weights} of {self.asked.run} ({self.checkpoint})"
        rest = f"; as built: {', '.join(self.as_built)}" if self.as_built else ""
        return [*(f"{line}; {self.checkpoint} is used" for line in self.passed_over), f"starts with {said}{rest}"]

    def record(self) -> dict[str, Any]:
        """For the summary. sha256: what the checkpoint's manifest says of itself, and with it of every file."""
        return {
            "run": self.asked.run,
            "checkpoint": self.checkpoint,
            "sha256": self.sha256,
            "averaged": self.averaged,
            "parts": list(self.weights),
        }


def warm_start(compiled: CompiledRecipe) -> WarmStart | None:
    """What the recipe's `train.init_from` stands for, read whole; None where it has none.

    Raises ConfigError with every part that is not there or does not fit; where there is no such run or checkpoint, or
    it is damaged, with that.
    """
    asked = compiled.recipe.train.warm_start
    if asked is None:
        return None
    saved = _open(asked)
    own = [name for name, module in compiled.parts.modules.items() if module.state_dict()]
    there = _weights(saved)
    taken = _taken(asked, own, there)
    weights = {name: there[name] for name in taken}
    Problems(_problems(asked, {name: compiled.parts.modules[name] for name in taken}, weights)).raise_any()
    averaged = any(name.startswith(_AVERAGED) for name in saved.parts)
    as_built = tuple(name for name in own if name not in taken)
    return WarmStart(asked, saved.path.name, saved.sha256, weights, averaged, as_built, saved.passed_over)


def _open(asked: WarmStartTable) -> Checkpoint:
    with placing(*KEY):
        try:
            return find(RunFolder.open(asked.run).checkpoints, asked.checkpoint)
        except CheckpointError as error:  # a damaged checkpoint is here what was given, not what failed
            raise ConfigError(
                "; ".join(line.strip() for line in str(error).splitlines()).replace(":; ", ": ")
            ) from None


def _weights(saved: Checkpoint) -> Weights:
    """Of the run's parts that have any: averaged where there are such."""
    plain = {name: tensors for name, tensors in saved.parts.items() if tensors and not name.startswith(_AVERAGED)}
    return {name: saved.parts.get(_AVERAGED + name, tensors) for name, tensors in plain.items()}


def _taken(asked: WarmStartTable, own: Sequence[str], there: Collection[str]) -> list[str]:
    """The parts that start from there: those that are named, or those that both have."""
    if asked.parts is None:
        both = [name for name in own if name in there]
        if not both:
            message = f"{asked.run} has none of this recipe's parts ({_listed(own)}): {_listed(there)}"
            raise ConfigError(message, *KEY)
        return both
    problems = Problems()
    for name in asked.parts:
        whose = "this recipe" if name not in own else asked.run
        known = own if name not in own else there
        if name not in known:
            problems.add(f"{whose} has no part {name!r} with weights{suggest(name, known)}", *KEY, "parts")
    problems.raise_any()
    return [name for name in own if name in asked.parts]


def _problems(asked: WarmStartTable, modules: Mapping[str, nn.Module], weights: Weights) -> Iterator[Problem]:
    """Each part that does not fit is a line."""
    for name, module in modules.items():
        if wrong := shape_mismatches({name: module}, weights):
            yield Problem(f"{name} of {asked.run} does not fit: {summarise_problems(wrong)}", *KEY)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
