"""What a run remembers of its data: the Spaces of its sources, and the folder in which it was started.

A trained model needs no row of its data to sample, or to encode the user's own images; with this record it needs
neither the files nor the folder that the run was started in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor

from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.config.documents import parse_document
from jointgen.config.fields import SampledSource
from jointgen.config.recipe import Recipe
from jointgen.contracts.data_keys import key_roles
from jointgen.contracts.space import Space
from jointgen.errors import FileError, MissingFileError
from jointgen.runs.folder import RunFolder
from jointgen.runtime.atomic_files import replace_text, writing
from jointgen.runtime.hashing import has_seal, sealed
from jointgen.runtime.regular_files import read_regular

REMEDY = "remove it: what it says is then read from the data"


@attrs.frozen
class RunData:
    """The content of data.json.

    Args:
        started_in: The folder in which the run was started, from which relative paths of its recipe lead.
        spaces: The Space of each variable by its source's name for it, by the part of the recipe that the source is.
        chosen: The hash of the numbers of the training rows that the run takes, by source, where it takes some only.
        sha256: The hash of the file's own text, with nothing in the place of this hash; empty before it is written.
    """

    started_in: str = ""
    spaces: dict[str, dict[str, Space]] = attrs.field(factory=dict)
    chosen: dict[str, str] = attrs.field(factory=dict)
    sha256: str = attrs.field(default="", eq=False)

    @classmethod
    def of(cls, compiled: CompiledRecipe, subsets: Mapping[str, Tensor] | None = None) -> RunData:
        """Return the record of a run that starts here.

        Args:
            compiled: The run's recipe.
            subsets: The numbers of the training rows of the sources of which it takes some only, (n,) int64 by part.
        """
        try:
            here = str(Path.cwd())
        except OSError:  # the folder has been removed since
            here = ""
        return cls(here, compiled.binding.offered, {part: _hash_of(rows) for part, rows in (subsets or {}).items()})

    def check_chosen(self, folder: RunFolder, subsets: Mapping[str, Tensor]) -> None:
        """Raise a FileError where a run that goes on would take other rows of its data than before."""
        for part, rows in subsets.items():
            if self.chosen.get(part, "") not in ("", _hash_of(rows)):
                raise FileError(
                    folder.data,
                    f"says that the run began with {len(rows)} other rows of {part}: the data has changed since; start "
                    "it anew in another folder",
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

    def located(self, recipe: Recipe) -> Recipe:
        """Return the run's recipe with the relative paths of its data that lead somewhere from where it was started.

        Others stay as they are written: a run may have been moved together with its data.
        """
        sources = {part: self._located(source) for part, source in recipe.sources.items()}
        return attrs.evolve(recipe, data=self._located(recipe.data), sources=sources)

    def offered(self, recipe: Recipe) -> dict[str, dict[str, Space]]:
        """Return the recorded Spaces of the sources that the recipe has."""
        return {part: spaces for part, spaces in self.spaces.items() if part in recipe.all_sources()}

    def _located(self, source: Any) -> Any:
        if isinstance(source, SampledSource):
            return attrs.evolve(source, component=self._located(source.component))
        places = {key: getattr(source, key) for key, role in key_roles(type(source)).items() if role == "location"}
        found = {key: str(path) for key, value in places.items() if (path := self._path(value)) is not None}
        return attrs.evolve(source, **found) if found else source

    def _path(self, value: Any) -> Path | None:
        """Return where a relative path leads from the folder of the start; None where it leads nowhere."""
        if not self.started_in or not isinstance(value, str) or not value or Path(value).is_absolute():
            return None
        try:
            path = Path(self.started_in, value)
            return path if path.exists() else None
        except (OSError, ValueError):  # a name that no system takes
            return None


def _hash_of(rows: Tensor) -> str:
    """The SHA-256 of row numbers, (n,) int64."""
    return hashlib.sha256(rows.numpy().astype("<i8").tobytes()).hexdigest()
