"""What a data source opens is looked at before anything relies on it, and whose it is is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from jointgen_vae.objective import VAE
from support.models import small_model

from jointgen.contracts.space import Space
from jointgen.data.split import open_split
from jointgen.errors import ComponentError


class Rows:
    """Rows of the shape of a small model's x, with another length or other rows."""

    def __init__(self, count: int = 8, take: Callable[[Any], Any] = lambda x: {"x": x}):
        self.count, self.change = count, take

    def __len__(self) -> int:
        return self.count

    def take(self, index: torch.Tensor) -> Any:
        return self.change(torch.zeros(len(index), 2))


def leave(x: Any) -> Any:
    raise SystemExit(0)


@attrs.frozen
class Source:
    opened: Any

    def spaces(self) -> dict[str, Space]:
        return {"x": Space((2,))}

    def open(self, split: str) -> Any:
        return self.opened


@pytest.mark.parametrize(
    ("opened", "told"),
    [
        ("rows", "open('train') gives a str, it must be rows, with __len__ and take"),
        (Rows(-1), "__len__ gives no number of rows: __len__() should return >= 0"),
        (Rows(2**62), "__len__ gives 4,611,686,018,427,387,904 rows, more than 68,719,476,736"),
        (Rows(take=lambda x: None), "take() gives a NoneType, it must be a dict of tensors"),
        (Rows(take=lambda x: {"y": x}), "take() gives no x, but y"),
        (Rows(take=lambda x: {"x": x.tolist()}), "x in 4 rows is a list, it must be a tensor"),
        (Rows(take=lambda x: {"x": x[:, :1]}), "x in 4 rows has shape (4, 1), it must be (4, 2)"),
        (Rows(take=lambda x: {"x": x * torch.nan}), "x in 4 rows has the value nan"),
        (Rows(take=leave), "raises SystemExit: 0"),
    ],
)
def test_what_is_no_rows_is_refused_in_one_line_that_names_the_source(opened: Any, told: str) -> None:
    binding = small_model(VAE().objective()).compiled.binding
    recipe = attrs.evolve(binding.recipe, data=Source(opened))
    with pytest.raises(ComponentError) as caught:
        open_split(attrs.evolve(binding, recipe=recipe), "train")
    line = str(caught.value)
    assert line.startswith(f"data: data {Source.__module__}.Source") and "\n" not in line
    assert told in line
    assert len(open_split(attrs.evolve(binding, recipe=attrs.evolve(recipe, data=Source(Rows()))), "train")) == 8
