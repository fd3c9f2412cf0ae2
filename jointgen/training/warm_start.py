"""A warm start: parts of a recipe begin with the weights that parts of the same names have in another run."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import attrs
from torch import Tensor

from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.compiler.parts import Parts, shape_mismatches, summarise_problems
from jointgen.config.recipe import WarmStartTable
from jointgen.errors import CheckpointError, ConfigError, Problems, placing, suggest
from jointgen.runs.checkpoint import Checkpoint, find
from jointgen.runs.folder import RunFolder
from jointgen.runs.records import WarmStartRecord

AVERAGE_PREFIX = "ema."
"""Stands before the names of averaged parts in a checkpoint."""


@attrs.frozen
class WarmStart:
    """Weights of another run that fit this recipe.

    Args:
        table: The recipe's `train.init_from`.
        checkpoint: The name of the checkpoint that they are from.
        sha256: The hash of its manifest, which covers every file.
        weights: part -> tensors by name.
        averaged: Whether they are averaged weights.
        as_built: The recipe's other parts that have weights.
        passed_over: Newer checkpoints that are damaged, a line each.
    """

    table: WarmStartTable
    checkpoint: str
    sha256: str
    weights: Mapping[str, Mapping[str, Tensor]]
    averaged: bool
    as_built: tuple[str, ...]
    passed_over: tuple[str, ...]

    def load_into(self, parts: Parts) -> None:
        """Load the weights into the parts to train, in their precision, whatever they held before."""
        for name, tensors in self.weights.items():
            parts.modules[name].load_state_dict(dict(tensors))

    @property
    def lines(self) -> list[str]:
        """The facts that the user should know, a line each."""
        weights = "averaged weights" if self.averaged else "weights"
        source = f"{', '.join(self.weights)} from the {weights} of {self.table.run} ({self.checkpoint})"
        rest = f"; as built: {', '.join(self.as_built)}" if self.as_built else ""
        return [*(f"{line}; {self.checkpoint} is used" for line in self.passed_over), f"starts with {source}{rest}"]

    def record(self) -> WarmStartRecord:
        """Return what the summary says about the warm start."""
        return WarmStartRecord(self.table.run, self.checkpoint, self.sha256, self.averaged, list(self.weights))


def warm_start(compiled: CompiledRecipe) -> WarmStart | None:
    """Read the weights that `train.init_from` asks for; None where the recipe has no such table.

    Raises:
        ConfigError: There is no such run or whole checkpoint, or parts are missing or do not fit; names all of them.
    """
    table = compiled.recipe.train.warm_start
    if table is None:
        return None
    with placing("train", "init_from"):
        saved = _find_checkpoint(table)

        # the other run's parts that have weights: averaged ones where there are any
        plain = {n: tensors for n, tensors in saved.parts.items() if tensors and not n.startswith(AVERAGE_PREFIX)}
        known = {name: saved.parts.get(AVERAGE_PREFIX + name, tensors) for name, tensors in plain.items()}

        # those to take, checked
        modules = {name: module for name, module in compiled.parts.modules.items() if module.state_dict()}
        names = _chosen_parts(table, list(modules), known)
        problems = Problems()
        for name in names:
            if wrong := shape_mismatches({name: modules[name]}, known):
                problems.add(f"{name} of {table.run} does not fit: {summarise_problems(wrong)}")
        problems.raise_any()
    averaged = any(name.startswith(AVERAGE_PREFIX) for name in saved.parts)
    as_built = tuple(name for name in modules if name not in names)
    weights = {name: known[name] for name in names}
    return WarmStart(table, saved.path.name, saved.sha256, weights, averaged, as_built, saved.passed_over)


def _find_checkpoint(table: WarmStartTable) -> Checkpoint:
    try:
        return find(RunFolder.open(table.run).checkpoints, table.checkpoint)
    except CheckpointError as error:  # the user named a damaged checkpoint: a wrong input, not a failure
        lines = "; ".join(line.strip() for line in str(error).splitlines())
        raise ConfigError(lines.replace(":; ", ": ")) from None


def _chosen_parts(table: WarmStartTable, ours: Sequence[str], others: Collection[str]) -> list[str]:
    """Return the parts that start warm: those that the table names, or else those that both recipes have."""
    if table.parts is None:
        both = [name for name in ours if name in others]
        if not both:
            raise ConfigError(f"{table.run} has none of this recipe's parts ({_listed(ours)}): {_listed(others)}")
        return both
    problems = Problems()
    for name in table.parts:
        owner, known = ("this recipe", ours) if name not in ours else (table.run, others)
        if name not in known:
            problems.add(f"{owner} has no part {name!r} with weights{suggest(name, known)}", "parts")
    problems.raise_any()
    return [name for name in ours if name in table.parts]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
