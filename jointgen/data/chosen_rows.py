"""A fixed choice of the training rows of a data source: `rows`, `balanced`, `validation` and `seed` of its table."""

from __future__ import annotations

import torch
from torch import Tensor

from jointgen.config.fields import SampledSource
from jointgen.contracts.noise import Noise
from jointgen.contracts.sources import PlacedRows, RemarkedRows, Rows, augmentation_of, labelled, reader_of
from jointgen.errors import ConfigError

ROWS_PER_READ = 1024


class ChosenRows:
    """Some rows of a split, with all that the split knows of them.

    Args:
        rows: The rows of the split.
        chosen: (n,) int64, the numbers of those that are chosen.
    """

    def __init__(self, rows: Rows, chosen: Tensor):
        self.rows, self.chosen = rows, chosen
        self._read, self.augment = reader_of(rows), augmentation_of(rows)

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """Return raw rows, see `Rows.take`."""
        return self.rows.take(self.chosen[index])

    def stored(self, index: Tensor) -> dict[str, Tensor]:
        """Return rows as they are stored, see `StoredRows`."""
        return self._read(self.chosen[index])

    def places(self, index: Tensor) -> Tensor:
        """Return the numbers of rows in the user's data, see `PlacedRows`."""
        chosen = self.chosen[index]
        return self.rows.places(chosen) if isinstance(self.rows, PlacedRows) else chosen

    @property
    def remarks(self) -> list[str]:
        """What the user should know of them."""
        return list(self.rows.remarks) if isinstance(self.rows, RemarkedRows) else []


def choose(rows: Rows, sampling: SampledSource, split: str) -> Tensor:
    """Choose training rows: a function of the seed, of the number of rows, and where it is balanced of their classes.

    Sources of the same rows hold out the same ones, as far as their `validation` and `seed` agree.

    Args:
        rows: The opened training rows of the source.
        sampling: The source, and what its table says.
        split: "train", or "validation" for the rows that are held out of it.

    Returns:
        (n,) int64, the numbers of the chosen rows in rising order.

    Raises:
        ConfigError: There are too few rows, or no classes, or the rows do not divide over the classes.
    """
    left = torch.arange(len(rows))
    if (held := sampling.validation) is not None:
        if held >= len(rows):
            message = f"{held} of the {len(rows)} rows of its training split leaves none to train on"
            raise ConfigError(message, "validation")
        drawn = torch.randperm(len(rows), generator=Noise(sampling.seed, "validation rows").generator("train"))
        if split == "validation":
            return drawn[:held].sort().values
        left = drawn[held:].sort().values
    if (wanted := sampling.rows) is None:
        return left
    if wanted > len(left):
        raise ConfigError(f"{wanted} is more than the {len(left)} rows of its {split} split", "rows")
    order = left[torch.randperm(len(left), generator=Noise(sampling.seed, "chosen rows").generator(split))]
    if not sampling.balanced:
        return order[:wanted].sort().values
    classes = _classes(rows, sampling, split)[order]
    known = classes.unique()
    if wanted % len(known):
        raise ConfigError(f"{wanted} does not divide over {len(known)} classes, as balanced = true asks", "rows")
    each = wanted // len(known)
    found = []
    for label in known:
        of_class = order[classes == label]
        if len(of_class) < each:
            raise ConfigError(
                f"{wanted} takes {each} rows of each class, of class {int(label)} there are {len(of_class)}", "rows"
            )
        found.append(of_class[:each])
    return torch.cat(found).sort().values


def _classes(rows: Rows, sampling: SampledSource, split: str) -> Tensor:
    """The class of every row, (rows,) int64."""
    source = labelled(sampling.component)
    names = [name for name, space in source.spaces().items() if space.kind == "label"]
    if not names:
        raise ConfigError("needs the classes of the rows, this source has no labels", "balanced")
    opened = rows if source is sampling.component else source.open("train")
    parts = torch.arange(len(rows)).split(ROWS_PER_READ)
    return torch.cat([opened.take(index)[names[0]] for index in parts])
