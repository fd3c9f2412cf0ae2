"""Opened splits: the rows of every data source that an objective draws from.

The first station of a batch: rows -> split -> batch (`row_order`, `device`) -> step inputs -> program.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from jointgen.compiler.binding import Binding
from jointgen.contracts.data_keys import asking_where
from jointgen.contracts.observation import fault_of_raw
from jointgen.contracts.sources import PlacedRows, RecordedData, RemarkedRows, Rows, StoredRows, labelled
from jointgen.contracts.space import Space
from jointgen.data.chosen_rows import ChosenRows, choose
from jointgen.data.device import send
from jointgen.data.identity import identity_differences
from jointgen.errors import ComponentError, ConfigError, FileError, Problems
from jointgen.registry.faults import attributing
from jointgen.text import listed

CPU = torch.device("cpu")
CHECKED_ROWS = 4
"""So many rows are looked at when a split is opened."""
MAX_ROWS = 2**36
"""So many rows has a split, at the most: their order alone takes 8 bytes a row."""


@attrs.frozen(eq=False)
class Split:
    """The rows of a split, of every data source that the objective draws from.

    Args:
        name: "train", "validation" or "test", or another name for rows that are no split of a source.
        sources: The opened rows of each source, by the part of the recipe that it is ("data").
        variables: For each source, the joints' names of its variables -> its own names for them.
        components: The data sources themselves, where `sources` are their rows.
        chosen: (n,) int64, the numbers of the rows that belong to the split; None: all.
        subsets: The numbers of the rows of the sources of which a run takes some only, (n,) int64 by part.
    """

    name: str
    sources: dict[str, Rows]
    variables: dict[str, dict[str, str]]
    components: dict[str, Any] = attrs.field(factory=dict)
    chosen: Tensor | None = None
    subsets: dict[str, Tensor] = attrs.field(factory=dict)
    _labelled: dict[str, Rows] = attrs.field(factory=dict, init=False)

    def __len__(self) -> int:
        """The number of chosen rows, or that of the shortest source: several sources are read side by side."""
        return min(len(rows) for rows in self.sources.values()) if self.chosen is None else len(self.chosen)

    @property
    def of_source(self) -> str:
        """The split of a source that these rows are of: "train" for the validation rows."""
        return "train" if self.name == "validation" else self.name

    def first(self, n: int) -> Split:
        """The first n rows, or all where there are fewer."""
        return self._choose(torch.arange(min(n, len(self))))

    def spread(self, n: int) -> Split:
        """Return `n` rows, evenly apart, because data often lies class by class; all where there are fewer."""
        return self if n >= len(self) else self._choose(torch.arange(n) * len(self) // n)

    def _choose(self, index: Tensor) -> Split:
        return attrs.evolve(self, chosen=self._row_numbers(index))

    def _row_numbers(self, index: Tensor) -> Tensor:
        """Numbers of rows of this split -> their numbers in the sources."""
        return index if self.chosen is None else self.chosen[index]

    def take(self, index: Tensor, device: torch.device = CPU) -> dict[str, dict[str, Tensor]]:
        """Read raw rows.

        Args:
            index: (B,) int64, numbers of rows of this split.
            device: Where the rows go.

        Returns:
            (B, ...) raw rows by source and by the joints' name of each variable.
        """
        rows = self._row_numbers(index)
        taken = {
            part: under_joint_names(source.take(rows), self.variables[part]) for part, source in self.sources.items()
        }
        return {part: {v: send(value, device) for v, value in values.items()} for part, values in taken.items()}

    def places(self, part: str) -> Tensor:
        """Return the number that each row has in the data of a source as the user has it, (n,) int64."""
        rows, source = self._row_numbers(torch.arange(len(self))), self.sources[part]
        return source.places(rows) if isinstance(source, PlacedRows) else rows

    @property
    def remarks(self) -> list[str]:
        """What the user should know of the rows, a line each, which begins with the source's part."""
        said = {part: rows.remarks for part, rows in self.sources.items() if isinstance(rows, RemarkedRows)}
        return [f"{part}: {line}" for part, lines in said.items() for line in lines]

    def labels(self, index: Tensor, source: str = "") -> dict[str, Tensor]:
        """Read labels, also where the recipe does not ask the source for them.

        Args:
            index: (B,) int64, numbers of rows of this split.
            source: The part whose rows are meant; by default those of all sources, of one name those of the last.

        Returns:
            (B,) int64 class numbers, by the sources' own names for them.
        """
        labels: dict[str, Tensor] = {}
        for part, component in self.components.items():
            asked = labelled(component)
            names = [name for name, space in asked.spaces().items() if space.kind == "label"]
            if not names or (source and part != source):
                continue
            if part not in self._labelled:
                opened = self.sources[part] if asked is component else asked.open(self.of_source)
                subset = None if asked is component else self.subsets.get(part)
                self._labelled[part] = opened if subset is None else ChosenRows(opened, subset)
            taken = self._labelled[part].take(self._row_numbers(index))
            labels |= {name: taken[name] for name in names}
        return labels


def under_joint_names(values: Mapping[str, Tensor], variables: Mapping[str, str]) -> dict[str, Tensor]:
    """A source's values under the joints' names of the variables. variables: the joints' name -> the source's."""
    return {name: values[own] for name, own in variables.items()}


def open_split(binding: Binding, name: str, parts: Iterable[str] | None = None) -> Split:
    """Open a split of the recipe's data sources.

    Args:
        binding: What the recipe and its objective declare.
        name: "train", "validation" or "test". The validation rows are training rows that the recipe holds out.
        parts: The data sources to open; None: all that the objective draws from.

    Raises:
        ConfigError: With a problem for each source whose data is not there.
        FileError: The run's record of the data says something else than the data.
        ComponentError: A source raises, or opens what are no rows of its Spaces.
    """
    wanted = dict.fromkeys(binding.data_parts if parts is None else parts)
    samplings = {part: binding.recipe.sampling(part) for part in wanted}
    own = "train" if name == "validation" else name  # the source's name of the split
    components = {part: binding.recipe.all_sources()[part] for part in wanted}
    sources: dict[str, Rows] = {}
    problems = Problems()
    for part, component in components.items():
        with problems.collect(*binding.recipe.path_of(part)), attributing(binding.named(part)):
            if name == "validation" and samplings[part].validation is None:
                raise ConfigError("none of its training rows are held out; say how many", "validation")
            sources[part] = component.open(own)
    if problems and binding.recorded is not None:
        placed = {binding.recipe.path_of(part): component for part, component in components.items()}
        problems = Problems(asking_where(problem, placed) for problem in problems)
    problems.raise_any()
    subsets: dict[str, Tensor] = {}
    if binding.recorded is not None:
        for part, component in components.items():
            with attributing(binding.named(part)):
                spaces = component.spaces()
            _refuse_other(binding.recorded, part, differences(binding.offered[part], spaces))
    for part, rows in sources.items():  # after the record, whose Spaces the rows would not have
        with attributing(binding.named(part)):
            _check_opened(rows, binding, part, own)
            if binding.recorded is not None:
                recorded = binding.recorded.splits.get(part, {})
                _refuse_other(binding.recorded, part, identity_differences(recorded, own, rows))
    for part, sampling in samplings.items():
        if own == "train" and (sampling.rows is not None or sampling.validation is not None):
            with problems.collect(*binding.recipe.path_of(part)), attributing(binding.named(part)):
                subsets[part] = choose(sources[part], sampling, name)
                sources[part] = ChosenRows(sources[part], subsets[part])
    problems.raise_any()
    return Split(name, sources, {part: binding.variables_of(part) for part in sources}, components, subsets=subsets)


def _refuse_other(recorded: RecordedData, part: str, found: Iterable[str]) -> None:
    """Raise FileError if a run's record of its data says anything else than the data does."""
    if lines := [*found]:
        raise FileError(
            recorded.file,
            f"is not of this data ({part}: {listed(lines)}); if this is the data that the run was trained on, remove "
            "the file: what it says is then read from the data",
        )


def differences(recorded: Mapping[str, Space], found: Mapping[str, Space]) -> Iterable[str]:
    """Yield what a record says otherwise of its variables than their source does, which may have more by now."""
    for name, space in recorded.items():
        if name not in found:
            yield f"{name} is no variable of it"
            continue
        for field in attrs.fields(Space):
            said, true = getattr(space, field.name), getattr(found[name], field.name)
            if said != (tuple(true) if isinstance(true, list) else true):
                yield f"{name} has {field.name} {said} in the file and {true} in the data"


def _check_opened(rows: Any, binding: Binding, part: str, name: str) -> None:
    """Raise ComponentError unless these are rows as the source's Spaces say, which a few of them, evenly apart, show.

    Call it where exceptions are attributed.
    """
    named = f"{binding.named(part)}: open({name!r})"
    if not callable(getattr(rows, "take", None)) or not hasattr(rows, "__len__"):
        raise ComponentError(f"{named} gives a {type(rows).__name__}, it must be rows, with __len__ and take")
    try:
        count = len(rows)
    except (ValueError, OverflowError) as error:  # Python's own words, for a number below 0 or beyond 2**63
        raise ComponentError(f"{named}: __len__ gives no number of rows: {error}") from error
    if count > MAX_ROWS:
        raise ComponentError(f"{named}: __len__ gives {count:,} rows, more than {MAX_ROWS:,}")
    if not count:
        return
    few = min(CHECKED_ROWS, count)
    variables, index = binding.variables_of(part), torch.arange(few) * count // few
    taken = rows.take(index)
    if not isinstance(taken, Mapping):
        raise ComponentError(f"{named}: take() gives a {type(taken).__name__}, it must be a dict of tensors")
    if missing := [own for own in variables.values() if own not in taken]:
        raise ComponentError(f"{named}: take() gives no {listed(missing)}, but {listed(taken) or 'nothing'}")
    for variable, own in variables.items():
        if why := fault_of_raw(taken[own], binding.spaces[variable], few):
            raise ComponentError(f"{named}: {own} in {few} rows {why}")
    if isinstance(rows, StoredRows):
        stored = rows.stored(index)
        if not isinstance(stored, Mapping) or not all(isinstance(value, Tensor) for value in stored.values()):
            raise ComponentError(f"{named}: stored() gives a {type(stored).__name__}, it must be a dict of tensors")
