"""The values themselves as features, for vectors and toys, and for images where nothing better is available."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import attrs
from torch import Tensor

from jointgen.plugin import FeatureBatch, Space


@attrs.frozen
class Values:
    """An extractor whose features are the flattened values in model space; for images, distances between pixels."""

    name: ClassVar[str] = "values"
    takes: ClassVar[Literal["values"]] = "values"
    has_classes: ClassVar[bool] = False

    def build(self, space: Space, variable: str, source: Any) -> Flattened:
        """See `Extractor.build`."""
        return Flattened(space)


@attrs.frozen
class Flattened:
    """The features of one variable; see `Features`."""

    space: Space

    @property
    def absent(self) -> str:
        """Never absent."""
        return ""

    def identity(self) -> str:
        """See `Features.identity`."""
        return f"values of {self.space}"

    def __call__(self, rows: Tensor) -> FeatureBatch:
        """See `Features`."""
        return FeatureBatch(rows.flatten(1))
