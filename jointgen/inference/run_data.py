"""What a run remembers of its data: Spaces, names of classes, which rows they are, and where they lay.

A trained model needs no row of its data to sample, or to encode the user's own images; with this record it needs
neither the files nor the folder that the run was started in. Commands that read rows find out with it whether these are
the rows that the run was trained on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor

from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.config.documents import parse_document
from jointgen.config.recipe import Recipe
from jointgen.contracts.sources import Column, NamedClasses, NamedColumns, RecordedData, SplitIdentity
from jointgen.contracts.space import Space
from jointgen.data.identity import identity_of, unlike
from jointgen.data.split import Split
from jointgen.errors import FileError, MissingFileError, for_caller
from jointgen.inference.data_paths import DataPaths, absolute_paths, is_there, location_keys, relocate, with_locations
from jointgen.registry.faults import attributing
from jointgen.runs.folder import RunFolder
from jointgen.runtime.atomic_files import replace_text, writing
from jointgen.runtime.hashing import has_seal, sealed
from jointgen.runtime.regular_files import read_regular
from jointgen.text import listed

REMEDY = "remove it: what it says is then read from the data"


@attrs.frozen
class Place:
    """A file or folder that a data source was read from: its path as the recipe has it, and its absolute path."""

    written: str
    absolute: str


@attrs.frozen
class SourceRecord:
    """What a run remembers of a data source.

    Args:
        type: Its name in the registry, such as "arrays".
        places: The files and folders that it was read from, by the source's key for each.
        classes: The names of the classes in order, by its name for the label.
        columns: The columns of each variable in order, where it is a table.
        splits: What tells the rows of each split from others.
    """

    type: str
    places: dict[str, Place] = attrs.field(factory=dict)
    classes: dict[str, list[str]] = attrs.field(factory=dict)
    columns: dict[str, list[Column]] = attrs.field(factory=dict)
    splits: dict[str, SplitIdentity] = attrs.field(factory=dict)


@attrs.frozen
class RunData:
    """The content of data.json.

    Args:
        started_in: The folder in which the run was started, from which relative paths of its recipe lead.
        spaces: The Space of each variable by its source's name for it, by the part of the recipe that the source is.
        chosen: The hash of the numbers of the training rows that the run takes, by source, where it takes some only.
        sources: What else there is to know of each source, by part; records of earlier versions have none.
        sha256: The hash of the file's own text, with nothing in the place of this hash; empty before it is written.
    """

    started_in: str = ""
    spaces: dict[str, dict[str, Space]] = attrs.field(factory=dict)
    chosen: dict[str, str] = attrs.field(factory=dict)
    sources: dict[str, SourceRecord] = attrs.field(factory=dict)
    sha256: str = attrs.field(default="", eq=False)

    @classmethod
    def of(
        cls,
        compiled: CompiledRecipe,
        splits: Mapping[str, Split],
        written: Recipe | None = None,
        before: RunData | None = None,
    ) -> RunData:
        """Return the record of a run.

        Args:
            compiled: The run's recipe, with the paths at which the data lies.
            splits: Its opened splits, by name.
            written: The recipe as it stands in the run folder; None: that one.
            before: The record of a run that goes on.
        """
        started_in = before.started_in if before is not None else ""
        with contextlib.suppress(OSError):  # the folder has been removed since
            started_in = started_in or str(Path.cwd())
        chosen = {part: _hash_of(rows) for part, rows in splits["train"].subsets.items()}
        as_written = (written or compiled.recipe).all_sources()
        known = before.sources if before is not None else {}
        sources = {
            part: _source_record(compiled, splits, part, as_written[part], known.get(part))
            for part in splits["train"].sources
        }
        return cls(started_in, compiled.binding.offered, chosen, sources)

    def public(self) -> RunData:
        """Return the record without the paths of this machine, for those who get the run from elsewhere."""
        return attrs.evolve(
            self, started_in="", sources={part: attrs.evolve(one, places={}) for part, one in self.sources.items()}
        )

    def check_same(self, folder: RunFolder, now: RunData) -> None:
        """Raise a FileError where a run that goes on would go on with other data than it began with.

        Args:
            folder: The run.
            now: The record of the data that it would go on with.
        """
        found = [
            f"{part}: {line}"
            for part, source in now.sources.items()
            if part in self.sources
            for name, identity in source.splits.items()
            if name in self.sources[part].splits
            for line in unlike(self.sources[part].splits[name], identity, name)
        ]
        if found:
            raise FileError(
                folder.data,
                f"says that the run began with other data ({listed(found)}); start it anew in another folder, or go on "
                f"with this data: {for_caller('--allow-changes', 'allow_changes=True')}",
            )
        for part, chosen in now.chosen.items():
            if self.chosen.get(part, "") not in ("", chosen):
                raise FileError(
                    folder.data,
                    f"says that the run began with other rows of {part}: the data has changed since; start it anew in "
                    "another folder",
                )

    def write(self, folder: RunFolder) -> None:
        """Write data.json."""
        with writing(folder.data):
            bare = attrs.asdict(attrs.evolve(self, sha256=""))
            replace_text(folder.data, sealed(json.dumps(bare, indent=1) + "\n"))

    @classmethod
    def read(cls, folder: RunFolder) -> RunData:
        """Read data.json; an empty record where a run has none, since those before 0.1 have not.

        Raises:
            FileError: It is damaged, or is not as it was written.
        """
        try:
            data = read_regular(folder.data)
        except MissingFileError:
            return cls()
        try:
            found = parse_document(data, cls)
            if not has_seal(data, found.sha256):
                raise ValueError("its SHA-256 is another than it says" if found.sha256 else "it has no SHA-256")
        except ValueError as error:
            raise FileError(folder.data, f"is damaged ({error}); {REMEDY}") from None
        return found

    def located(self, recipe: Recipe, data_paths: DataPaths | None = None) -> Recipe:
        """Return the run's recipe with the paths at which its data can be found.

        Args:
            recipe: The run's recipe.
            data_paths: Where the user says that the data lies now. What is not said there is looked for where it lay
                when the run was started, and otherwise left as it is written: a run may have been moved with its data.

        Raises:
            ConfigError: The places do not fit the recipe's sources.
        """
        sources = recipe.all_sources()
        found = with_locations(recipe, {part: self._locations(part, source) for part, source in sources.items()})
        recorded = {part: record.places for part, record in self.sources.items()}
        return relocate(found, data_paths or {}, recorded)

    def recorded(self, recipe: Recipe, folder: RunFolder) -> RecordedData | None:
        """Return what is known of the sources that the recipe has; None where nothing is."""
        spaces = {part: spaces for part, spaces in self.spaces.items() if part in recipe.all_sources()}
        if not spaces:
            return None
        splits = {part: one.splits for part, one in self.sources.items()}
        classes = {part: one.classes for part, one in self.sources.items()}
        columns = {part: one.columns for part, one in self.sources.items()}
        return RecordedData(folder.data, spaces, splits, classes, columns)

    def _locations(self, part: str, source: Any) -> dict[str, str]:
        """Return the path of each place of a source that is still where it was, by key."""
        places = self.sources[part].places if part in self.sources else {}
        paths = {key: self._path(value, places.get(key)) for key, value in location_keys(source)}
        return {key: str(path) for key, path in paths.items() if path is not None and is_there(str(path))}

    def _path(self, value: str, place: Place | None) -> Path | None:
        """Return where a value of the recipe led in this run."""
        if place is not None and place.written == value:
            return Path(place.absolute)
        if not self.started_in or Path(value).is_absolute():
            return None
        return Path(self.started_in, value)


def _source_record(
    compiled: CompiledRecipe, splits: Mapping[str, Split], part: str, as_written: Any, before: SourceRecord | None
) -> SourceRecord:
    known = before.splits if before is not None else {}
    source = compiled.recipe.all_sources()[part]
    with attributing(compiled.binding.named(part)):
        classes = source.class_names() if isinstance(source, NamedClasses) else {}
        columns = source.columns() if isinstance(source, NamedColumns) else {}
        identities = {
            split.of_source: identity_of(
                split.sources[part], known[split.of_source].compared if split.of_source in known else None
            )
            for split in splits.values()
        }
    places = {key: Place(getattr(as_written, key), path) for key, path in absolute_paths(source).items()}
    return SourceRecord(compiled.registry.name_of("data", type(source)), places, classes, columns, identities)


def _hash_of(rows: Tensor) -> str:
    """The SHA-256 of row numbers, (n,) int64."""
    return hashlib.sha256(rows.numpy().astype("<i8").tobytes()).hexdigest()
