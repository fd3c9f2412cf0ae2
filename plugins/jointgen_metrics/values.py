"""The values themselves as features: of vectors and toys, and of images where nothing better is at hand."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import attrs
from torch import Tensor

from jointgen.plugin import FeatureBatch, Space


@attrs.frozen
class Values:
    """Flattened values in model space. Distances are those of the data's own space: of images, of their pixels."""

    name: ClassVar[str] = "values"
    takes: ClassVar[Literal["values"]] = "values"
    has_classes: ClassVar[bool] = False

    def build(self, space: Space, variable: str, source: Any) -> Flattened:
        return Flattened(space)


@attrs.frozen
class Flattened:
    space: Space

    @property
    def absent(self) -> str:
        return ""

    def identity(self) -> str:
        return f"values of {self.space}"

    def __call__(self, rows: Tensor) -> FeatureBatch:
        return FeatureBatch(rows.flatten(1))
