"""Data that is given in Python to `jointgen.run(data=...)`: arrays, and data sets of torch."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jointgen_data.common import hashed_shares
from jointgen_data.given import Given
from support.runs import SMALL, stop_after, weights
from torch.utils.data import Dataset, TensorDataset

import jointgen
from jointgen.config.toml import read_toml
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError, StoppedError

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 4, 4), np.uint8)
PHOTOS = np.random.default_rng(0).integers(0, 256, (60, 5, 5, 3), np.uint8)
LABELS = np.arange(60) % 3
HELD_OUT = np.flatnonzero(hashed_shares(0, 60) < 0.1)


class Pairs(Dataset[Any]):
    """Images with their channels last and labels, as data sets of photographs give them."""

    classes = ("a", "b", "c")

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> Any:
        return PHOTOS[index], int(LABELS[index])


class Restless(Pairs):
    def __getitem__(self, index: int) -> Any:
        return torch.rand(3)


class Flipping(Pairs):
    """Changes an item in half of its reads, and never the first."""

    def __getitem__(self, index: int) -> Any:
        return torch.ones(3) * (index > 0 and bool(torch.rand(()) < 0.5))


class Uneven(Pairs):
    def __getitem__(self, index: int) -> Any:
        return {"x": torch.zeros(3)} | ({"y": 0} if index == 0 else {})


class ByName(Pairs):
    """As pandas' DataFrame, whose items are columns."""

    def __getitem__(self, index: int) -> Any:
        raise KeyError(index)


def held(data: Any, **settings: Any) -> Any:
    source: Any = Given.holding(data)
    return source if not settings else type(source)(source.content_hash, source.row_count, **settings)


def test_an_array_is_x_and_its_type_says_what_it_is() -> None:
    assert held(IMAGES).spaces() == {"x": Space((1, 4, 4), low=0.0, high=1.0, bins=256)}
    assert held(torch.zeros(60)).spaces() == {"x": Space((1,))}
    both = held({"x": torch.rand(60, 5), "y": LABELS})
    assert both.spaces() == {"x": Space((5,)), "y": Space((3,), "label")}


def test_rows_are_held_out_by_the_hash_of_their_numbers() -> None:
    data = held({"x": IMAGES, "y": LABELS})
    train, test = data.open("train"), data.open("test")
    assert test.places(torch.arange(len(test))).tolist() == HELD_OUT.tolist()
    assert len(train) + len(test) == 60
    taken = test.take(torch.arange(len(test)))
    assert torch.equal(taken["x"][:, 0], torch.from_numpy(IMAGES[HELD_OUT]))
    assert taken["y"].tolist() == LABELS[HELD_OUT].tolist()


def test_a_data_set_is_read_when_rows_are_taken_and_knows_its_classes() -> None:
    data = held(Pairs())
    assert data.spaces() == {"x": Space((3, 5, 5), low=0.0, high=1.0, bins=256), "y": Space((3,), "label")}
    assert data.class_names() == {"y": ["a", "b", "c"]}
    taken = data.open("test").take(torch.tensor([2, 0]))
    rows = HELD_OUT[[2, 0]]
    assert torch.equal(taken["x"], torch.from_numpy(PHOTOS[rows]).permute(0, 3, 1, 2))
    assert taken["y"].tolist() == LABELS[rows].tolist()
    floats = held(TensorDataset(torch.rand(60, 3, 4, 4)), ranges={"x": (0.0, 1.0)})
    assert floats.spaces() == {"x": Space((3, 4, 4), low=0.0, high=1.0)}


def test_the_hash_is_that_of_the_content() -> None:
    assert held(IMAGES).content_hash == held(torch.from_numpy(IMAGES.copy())).content_hash
    other = IMAGES.copy()
    other[59, 3, 3] ^= 1
    assert held(other).content_hash != held(IMAGES).content_hash
    assert held(IMAGES[:59]).content_hash != held(IMAGES).content_hash


def test_data_that_is_not_here_any_more_says_so() -> None:
    data = np.random.default_rng(1).random((20, 2))
    source = held(data)
    settings = source.content_hash, source.row_count
    assert Given(*settings).spaces()
    del source
    gc.collect()
    with pytest.raises(ConfigError, match=r"the data was given in Python, .* 20 rows, sha256 .*; give it again"):
        Given(*settings).spaces()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"x": np.zeros((3, 2)), "y": np.zeros(4)}, "the same number of them: x has 3, y has 4"),
        (np.zeros((0, 2)), "arrays need rows"),
        (np.array(["a", "b"]), "'x' is <U1; allowed are numbers"),
        (Restless(), "the data set gives other items each time, by a random transform"),
        (Flipping(), "the data set gives other items each time, by a random transform"),
        (Uneven(), "its items hold different variables"),
        (ByName(), "its items cannot be read by number: KeyError: 0"),
        (TensorDataset(*(torch.zeros(3, 1) for _ in range(3))), "its items are 3 values; give them names"),
    ],
)
def test_what_cannot_be_used_says_why_in_one_line(data: Any, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Given.holding(data)
    (line,) = str(caught.value).splitlines()
    assert problem in line


CHANGES = {**SMALL, "train.steps": 4, "eval.rows": 4, "eval.metrics": ["elbo"]}


def train(out: Path, data: Any, **options: Any) -> Any:
    return jointgen.run("recipes/quickstart.toml", CHANGES, out=out, data=data, quiet=True, **options)


def test_a_run_trains_on_an_array_loads_anywhere_and_goes_on_with_the_same_array_only(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train(tmp_path / "r", IMAGES, stop=stop_after(2))
    table = read_toml(tmp_path / "r" / "recipe.toml")["data"]
    assert (table["type"], table["row_count"], table["content_hash"]) == ("in_python", 60, held(IMAGES).content_hash)
    with pytest.raises(ConfigError, match=r"another recipe(.|\n)*data.content_hash"):
        train(tmp_path / "r", 255 - IMAGES, resume="auto")
    done = train(tmp_path / "r", IMAGES.copy(), resume="auto").path
    whole = train(tmp_path / "whole", IMAGES).path
    one, other = (weights(path / "checkpoints" / "step-00000004") for path in (done, whole))
    assert all(torch.equal(one[key], other[key]) for key in one)
    gc.collect()
    assert jointgen.load(done).sample(2).shape == (2, 1, 4, 4)


def test_what_is_no_data_names_what_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data: expected a path, arrays, a data set of torch or a data source, got 3"):
        train(tmp_path, 3)
