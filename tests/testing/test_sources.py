"""Every check of a data source can fail."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import torch
from support.checks import failures
from torch import Tensor

from jointgen.contracts.space import Space

LEVELS = Space((1,), low=-1.0, high=1.0, bins=8)


class Table:
    def __init__(self, values: Tensor):
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Tensor) -> dict[str, Tensor]:
        return {"x": self.values[index]}


@attrs.frozen
class Source:
    value: Callable[[str], Tensor]
    space: Space = LEVELS

    def spaces(self) -> dict[str, Space]:
        return {"x": self.space}

    def open(self, split: str) -> Table:
        return Table(self.value(split))


def levels(split: str) -> Tensor:
    return (torch.arange(32) * (3 if split == "train" else 5) % 8)[:, None]


def test_data_sources() -> None:
    assert failures("data", Source(levels)) == {}
    rows = "rows match the spaces"
    assert "has shape (8,), it must be (8, 1)" in failures("data", Source(lambda s: levels(s)[:, 0]))[rows]
    assert "levels are whole numbers" in failures("data", Source(lambda s: levels(s).float()))[rows]
    assert "is not in 0..7" in failures("data", Source(lambda s: levels(s) + 1))[rows]
    assert "is not in [-inf, 0.0]" in failures("data", Source(lambda s: levels(s).float(), Space((1,), high=0.0)))[rows]
    random = failures("data", Source(lambda s: torch.randint(0, 8, (32, 1))))["rows taken again are the same"]
    assert "reads torch's global generator" in random
    same = failures("data", Source(lambda s: levels("train")))["train and test differ"]
    assert "begin with the same rows" in same


def test_levels_of_eight_bits_are_in_their_range() -> None:
    space = Space((1,), low=0.0, high=1.0, bins=256)
    assert failures("data", Source(lambda split: (levels(split) + 248).to(torch.uint8), space)) == {}


@attrs.frozen
class Labelled:
    names: list[str]

    def spaces(self) -> dict[str, Space]:
        return {"x": Space((2,), "label")}

    def open(self, split: str) -> Table:
        return Table(torch.arange(32) // (1 if split == "train" else 2) % 2)

    def class_names(self) -> dict[str, list[str]]:
        return {"x": self.names}


def test_names_of_classes() -> None:
    assert failures("data", Labelled(["cat", "dog"])) == {}
    kept = "classes have names as their labels have classes"
    assert "'x' has 2 classes, and class_names() has 1 for it" in failures("data", Labelled(["cat"]))[kept]
    assert "two classes of 'x' have one name" in failures("data", Labelled(["cat", "cat"]))[kept]
