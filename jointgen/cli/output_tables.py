"""Draws as a table: vectors and labels in the names, the units and the classes of the data that was learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from jointgen.contracts.sources import Column
from jointgen.errors import ConfigError
from jointgen.inference.model import Model


def check_table(model: Model, variables: Sequence[str]) -> list[str]:
    """Return the names of the columns of a table of these variables.

    Raises:
        ConfigError: There is none, or one is neither a vector nor a label.
    """
    if not variables:
        raise ConfigError("this model generates nothing", "-o")
    for variable in variables:
        space = model.spaces[variable]
        if len(space.shape) != 1:
            raise ConfigError(f"{variable} is {space}; a table has vectors and labels", "-o")
    return [column.name for variable in _in_order(model, variables) for column in _columns(model, variable)]


def rows_of_table(model: Model, draws: Mapping[str, Tensor]) -> Iterator[list[object]]:
    """Yield the rows of a table of draws, (N, *shape) by variable; a label is its most probable class."""
    cells = [column for variable in _in_order(model, [*draws]) for column in _cells(model, variable, draws[variable])]
    for row in zip(*cells, strict=True):
        yield [*row]


def _in_order(model: Model, variables: Sequence[str]) -> list[str]:
    """The variables in the order in which the data has them, and then the others."""
    known = [variable for variable in model.columns if variable in variables]
    return known + [variable for variable in variables if variable not in known]


def _columns(model: Model, variable: str) -> Sequence[Column]:
    space = model.spaces[variable]
    if known := model.columns.get(variable):
        return known
    single = space.kind == "label" or space.size == 1
    return [Column(variable if single else f"{variable}[{index}]") for index in range(1 if single else space.size)]


def _cells(model: Model, variable: str, values: Tensor) -> list[list[object]]:
    """The cells of each column of a variable."""
    space, columns = model.spaces[variable], _columns(model, variable)
    if space.kind == "label":
        names = model.class_names.get(variable) or [*map(str, range(space.size))]
        return [[names[number] for number in values.argmax(1).tolist()]]
    return [
        [round_to_float32(column.mean + column.sd * value) for value in values[:, index].tolist()]
        for index, column in enumerate(columns)
    ]


def round_to_float32(value: float) -> float:
    """Write a number with the digits that float32 has, so that 0.1 of a model is no 0.10000000149.

    >>> round_to_float32(0.10000000149011612)
    0.1
    """
    return float(f"{value:.7g}")
