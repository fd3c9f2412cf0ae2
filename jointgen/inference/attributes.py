"""Attributes of rows: classes of a label, which codes are moved towards or which the decoder is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from jointgen.contracts.sources import NamedClasses
from jointgen.data.split import Split, open_split
from jointgen.errors import ConfigError, suggest
from jointgen.inference.bulk import encode_many
from jointgen.inference.encoded_rows import EncodedRows
from jointgen.inference.row_batches import Progress

if TYPE_CHECKING:
    pass

LABELLED_ROWS = 5000
"""At most so many rows of the training data are encoded to find where a class lies."""


@attrs.frozen
class Attribute:
    """A class of a label, as rows are to have it.

    Args:
        label: The label: a variable that the model is given, or a label of the data by the source's name for it.
        value: The class, by its number or its name.
    """

    label: str
    value: str

    @classmethod
    def read(cls, text: str) -> Attribute:
        """Read LABEL=CLASS, such as "y=3". Raises ConfigError for anything else."""
        label, _, value = text.partition("=")
        if not (label and value):
            raise ConfigError(f"{text!r}: expected LABEL=CLASS, such as y=3", "--attribute")
        return cls(label, value)

    def edit(self, rows: EncodedRows, amounts: Sequence[float], progress: Progress) -> Iterator[Tensor]:
        """Yield the rows with more and more of the attribute, (N, *X) for each amount.

        Where the decoder is given the label itself, it is given this class; otherwise the code moves along the
        difference of the mean codes of training rows of this class and of all others.

        Raises:
            ConfigError: The data has no such label or class, or amounts make no sense.
        """
        every = torch.arange(len(rows.codes))
        if self.label in rows.known and rows.model.spaces[self.label].kind == "label":
            if list(amounts) != [1.0]:
                raise ConfigError(f"the model is given {self.label}, which it has or has not", "--amount")
            classes = rows.model.spaces[self.label].shape[0]
            number = self._number(rows.model.class_names.get(self.label, []))
            if number >= classes:
                allowed = f"allowed: 0 to {classes - 1}"
                raise ConfigError(f"{number} is not a class of {self.label}; {allowed}", "--attribute")
            there = F.one_hot(torch.full((len(every),), number), classes).to(rows.known[self.label])
            yield attrs.evolve(rows, known={**rows.known, self.label: there}).decode(rows.codes, every)
            return
        direction = self._direction(rows, progress).to(rows.codes)
        for amount in amounts:
            yield rows.decode(rows.codes + amount * direction, every)

    def _number(self, names: Sequence[str]) -> int:
        """The number of the class, of which these are the names, if they are known."""
        if self.value in names:
            return names.index(self.value)
        if not (self.value.isdecimal() and len(self.value) < 10):
            raise ConfigError(
                f"{self.value!r} is not a class of {self.label}{suggest(self.value, names)}", "--attribute"
            )
        return int(self.value)

    def _direction(self, rows: EncodedRows, progress: Progress) -> Tensor:
        """The mean code of training rows of the class, minus that of the others, (*Z)."""
        model = rows.model
        split = open_split(model.compiled.binding, "train").spread(LABELLED_ROWS)
        labels = split.labels(torch.arange(len(split)))
        if self.label not in labels:
            reason = f"no label {self.label!r}{suggest(self.label, labels)}" if labels else "no labels"
            raise ConfigError(f"the data has {reason}", "--attribute")
        number = self._number(_names_of(split, self.label))
        has = labels[self.label] == number
        if not 0 < has.sum() < len(has):
            count = f"{number} is the class of {int(has.sum())} of {len(has)} training rows"
            raise ConfigError(f"{count}: there is nothing to compare", "--attribute")
        codes = encode_many(model, split, progress=progress)[rows.code]
        return codes[has].mean(0) - codes[~has].mean(0)


def _names_of(split: Split, label: str) -> list[str]:
    """The names of the classes of a label of the data, where its source has any."""
    named = [source.class_names() for source in split.components.values() if isinstance(source, NamedClasses)]
    return next((names[label] for names in named if label in names), [])
