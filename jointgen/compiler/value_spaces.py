"""The Spaces of values: whether what takes the place of a variable is a value of this variable. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jointgen.contracts.space import Space
from jointgen.errors import Problem
from jointgen.objectives.algebra import Tree
from jointgen.objectives.distributions import KL, LogDensity
from jointgen.objectives.values import Argument, Arguments, Features, StoppedValue, Value


def space_of(value: Argument, spaces: Mapping[str, Space]) -> Space | None:
    """Return the Space of a value, or None where it is not known."""
    if isinstance(value, StoppedValue):
        return space_of(value.value, spaces)
    return spaces.get(value.variable) if isinstance(value, Value) else None


def misplaced_values(trees: Iterable[Tree], spaces: Mapping[str, Space]) -> Iterable[Problem]:
    """Yield each value that takes the place of a variable of another shape or kind."""
    for tree in trees:
        for variable, value in _arguments_of(tree):
            found, wanted = space_of(value, spaces), spaces.get(variable)
            if isinstance(value, Features):
                message = f"{tree}: {value} takes the place of {variable}, and features are no value of a variable"
                yield Problem(message, "objective")
            if found and wanted and (found.shape, found.kind) != (wanted.shape, wanted.kind):
                message = f"{tree}: {value} is {found}, and it takes the place of {variable}, which is {wanted}"
                yield Problem(message, "objective")


def _arguments_of(tree: Tree) -> Arguments:
    if isinstance(tree, KL):
        return (*tree.at, *tree.other_at)
    return tree.at if isinstance(tree, Value | LogDensity) else ()
