"""Opened splits: the rows of every data source that an objective draws from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
import torch
from torch import Tensor

from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.contracts.sources import Rows, labelled
from jointgen.data.device import send

CPU = torch.device("cpu")


@attrs.frozen(eq=False)
class Split:
    """An opened split: the rows of every data source that the objective draws from, by part.

    components: the data sources themselves, where these rows are theirs.  chosen: (n,) int64, which rows; None: all.
    """

    name: str
    sources: dict[str, Rows]
    variables: dict[str, dict[str, str]]
    components: dict[str, Any] = attrs.field(factory=dict)
    chosen: Tensor | None = None
    _labelled: dict[str, Rows] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        """The rows chosen, or else the shortest source's: several sources are read side by side."""
        return min(len(rows) for rows in self.sources.values()) if self.chosen is None else len(self.chosen)

    def first(self, n: int) -> Split:
        return self._of(torch.arange(min(n, len(self))))

    def spread(self, n: int) -> Split:
        """So many rows, evenly apart: data often lies class by class."""
        return self if n >= len(self) else self._of(torch.arange(n) * len(self) // n)

    def _of(self, index: Tensor) -> Split:
        return attrs.evolve(self, chosen=self._rows(index))

    def _rows(self, index: Tensor) -> Tensor:
        """Numbers of rows of the sources."""
        return index if self.chosen is None else self.chosen[index]

    def take(self, index: Tensor, device: torch.device = CPU) -> dict[str, dict[str, Tensor]]:
        """Raw rows on a device, by source and by the joints' names for the variables."""
        rows = self._rows(index)
        taken = {name: renamed(source.take(rows), self.variables[name]) for name, source in self.sources.items()}
        return {name: {v: send(t, device) for v, t in values.items()} for name, values in taken.items()}

    def labels(self, index: Tensor) -> dict[str, Tensor]:
        """(n,) int64 class numbers by the sources' names for them, also where the recipe does not ask for them."""
        found: dict[str, Tensor] = {}
        for part, component in self.components.items():
            source = labelled(component)
            names = [name for name, space in source.spaces().items() if space.kind == "label"]
            if names and part not in self._labelled:
                self._labelled[part] = self.sources[part] if source is component else source.open(self.name)
            if names:
                taken = self._labelled[part].take(self._rows(index))
                found |= {name: taken[name] for name in names}
        return found


def renamed(values: dict[str, Tensor], variables: dict[str, str]) -> dict[str, Tensor]:
    """A source's variables under the joints' names for them."""
    return {name: values[own] for name, own in variables.items()}


def open_split(compiled: CompiledRecipe, name: str, parts: Iterable[str] | None = None) -> Split:
    """parts: of these data sources only; None: of all that the objective draws from."""
    declared = compiled.binding
    wanted = dict.fromkeys(declared.data_parts if parts is None else parts)
    components = {part: compiled.recipe.all_sources()[part] for part in wanted}
    sources = {part: component.open(name) for part, component in components.items()}
    return Split(name, sources, {part: declared.variables_of(part) for part in sources}, components)
