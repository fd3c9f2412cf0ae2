"""Tables: which columns become which variables, how they are scaled and split, and what cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jointgen_data.common import held_out_rows
from jointgen_data.table import Table
from sklearn.datasets import load_wine
from support.sources import everything

from jointgen.contracts.space import Space
from jointgen.errors import ConfigError

PEOPLE = """age,Height (cm),colour,pet-owner,code
20,150,red,yes,10
30,160,blue,no,9
40,170,red,no,10
50,180,green,yes,9
60,190,blue,no,10
"""


def write(path: Path, text: str = PEOPLE, name: str = "people.csv") -> str:
    (path / name).write_text(text, encoding="utf-8")
    return str(path / name)


def problem(source: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        source.spaces()
        for split in ("train", "test"):
            source.open(split)
    assert len(caught.value.lines) == 1, caught.value.lines
    return str(caught.value)


def test_numbers_are_one_standardised_vector_and_categories_labels(tmp_path: Path) -> None:
    """The last row is held out. Ages 20 to 50 have mean 35 and variance (15^2 + 5^2) / 2 = 125."""
    source = Table(write(tmp_path), split="last", leave_out=["code"])
    assert source.spaces() == {"x": Space((2,)), "colour": Space((3,), "label"), "pet_owner": Space((2,), "label")}
    assert source.class_names() == {"colour": ["blue", "green", "red"], "pet_owner": ["no", "yes"]}
    train, test = everything(source.open("train")), everything(source.open("test"))
    sd = 125**0.5
    assert train["x"][:, 0].tolist() == pytest.approx([-15 / sd, -5 / sd, 5 / sd, 15 / sd])
    assert torch.equal(train["x"][:, 0], train["x"][:, 1]), "heights are ages + 130, so they are the same when scaled"
    assert test["x"][0].tolist() == pytest.approx([25 / sd, 25 / sd]), "by the moments of the training rows"
    assert train["colour"].tolist() == [2, 0, 2, 1] and train["pet_owner"].tolist() == [1, 0, 0, 1]
    assert [column.name for column in source.columns()["pet_owner"]] == ["pet-owner"]
    age, height = source.columns()["x"]
    assert (age.name, age.mean, age.sd) == ("age", 35.0, pytest.approx(sd))
    assert (height.name, height.mean) == ("Height (cm)", 165.0)
    assert test["x"][0, 1] * height.sd + height.mean == pytest.approx(190)


def test_variables_take_the_columns_that_they_are_given(tmp_path: Path) -> None:
    """Codes are numbers that name something: their classes are in order of size, 9 before 10."""
    variables = {"h": ["Height (cm)"], "y": ["code"], "a": ["age"]}
    source = Table(write(tmp_path), split="last", categorical=["code"], variables=variables, standardise=False)
    assert source.spaces() == {"h": Space((1,)), "y": Space((2,), "label"), "a": Space((1,))}
    train = everything(source.open("train"))
    assert train["h"][:, 0].tolist() == [150, 160, 170, 180] and train["y"].tolist() == [1, 0, 1, 0]
    assert source.class_names() == {"y": ["9", "10"]}
    assert source.columns()["h"][0].sd == 1.0


def test_held_out_rows_are_chosen_by_a_hash_of_their_number_in_the_file(tmp_path: Path) -> None:
    rows = [f"{number},{'ab'[number % 2]}" for number in range(200)]
    rows[7] = ",a"
    path = write(tmp_path, "n,kind\n" + "\n".join(rows))
    source = Table(path, missing="drop", standardise=False)
    expected = [number for number in np.flatnonzero(held_out_rows(200, 0.1, "hash")).tolist() if number != 7]
    test, train = source.open("test"), source.open("train")
    assert everything(test)["x"][:, 0].tolist() == expected and 10 < len(expected) < 30
    assert test.places(torch.arange(len(test))).tolist() == expected
    assert len(train) + len(test) == 199 and source.count_rows("train") == len(train)
    assert "1 rows of" in train.remarks[1] and "values are missing" in train.remarks[1]


def test_a_test_file_has_the_same_columns_and_no_new_classes(tmp_path: Path) -> None:
    path, more = write(tmp_path), write(tmp_path, PEOPLE.replace("20,150,red", "25,151,pink"), "more.csv")
    assert problem(Table(path, test_path=more)) == (
        "test_path: 'colour' has 'pink' in row 0, which the training rows have not"
    )
    fewer = write(tmp_path, "age,colour,code\n1,red,9\n", "fewer.csv")
    assert problem(Table(path, test_path=fewer)) == f"test_path: '{fewer}' has no column 'Height (cm)'"
    source = Table(path, test_path=path)
    assert len(source.open("train")) == len(source.open("test")) == 5


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        ("", {}, "is empty; its first line has to name the columns"),
        ("a,b\n", {}, "has no rows"),
        ("a,b\n1,2\n3\n", {}, "has 1 cells in row 1 below the names, and 2 columns"),
        ("a,a\n1,2\n", {}, "has columns without a name of their own in its first line: ['a']"),
        ("1,2\n3,4\n", {}, "has numbers in its first line (1), where the columns are named"),
        ("a,b\n1,\n2,3\n", {}, "'b' in 1; row 0, counted from 0 below the names"),
        ("a,b\n1,\n2,3\n", {"missing": "drop"}, "no row of the"),
        ("a,b\n1,inf\n2,3\n", {}, "'b' is not finite in row 0"),
        ("a,b\n1,5\n2,5\n3,5\n", {}, "'b' is constant in the training rows; name it in leave_out"),
        ("a,b\n1,u\n2,u\n3,u\n", {}, "'b' has the one value ['u'] alone"),
        ("a,b\n1,u\n2,v\n3,w\n4,t\n", {}, "'b' has 4 different values in 4 rows, which are no categories"),
        (PEOPLE, {"leave_out": ["Age"]}, "leave_out: no column 'Age'; did you mean 'age'?"),
        (PEOPLE, {"variables": {"x": ["age", "colour"]}}, "variables.x: 'colour' is of categories"),
        (PEOPLE, {"variables": {"x": []}}, "variables.x: has no columns"),
        (PEOPLE, {"bundled": "iris"}, "give either path"),
    ],
)
def test_tables_that_cannot_be_used(text: str, changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert said in problem(Table(write(tmp_path, text), split="last", **changes))


def test_other_files_are_named(tmp_path: Path) -> None:
    assert problem(Table("x.xlsx")) == "path: 'x.xlsx' is none of .csv, .tsv, .parquet"
    assert problem(Table(str(tmp_path / "gone.csv"))).startswith(f"path: {tmp_path}/gone.csv: no such file")
    (tmp_path / "latin.csv").write_bytes("größe\n1".encode("latin-1"))
    assert "cannot be read as CSV in UTF-8" in problem(Table(str(tmp_path / "latin.csv")))
    tabs = Table(write(tmp_path, PEOPLE.replace(",", "\t"), "people.tsv"), split="last")
    assert torch.equal(tabs.open("train").values["x"], Table(write(tmp_path), split="last").open("train").values["x"])


def test_the_bundled_wines_are_those_of_scikit_learn() -> None:
    source = Table(bundled="wine", standardise=False)
    train, test = source.open("train"), source.open("test")
    both = torch.cat([train.places(torch.arange(len(train))), test.places(torch.arange(len(test)))])
    assert sorted(both.tolist()) == list(range(178))
    held = load_wine()
    row = int(test.places(torch.tensor([0])))
    taken = test.take(torch.tensor([0]))
    assert taken["x"][0].tolist() == pytest.approx(held.data[row].tolist()) and taken["cultivar"] == held.target[row]


def test_parquet_is_the_same_table(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `tables` is not installed")
    from pyarrow import csv, parquet  # noqa: PLC0415

    assert pyarrow.__version__
    path = write(tmp_path)
    parquet.write_table(csv.read_csv(path), tmp_path / "people.parquet")
    ours, theirs = Table(path, split="last"), Table(str(tmp_path / "people.parquet"), split="last")
    assert ours.spaces() == theirs.spaces() and ours.class_names() == theirs.class_names()
    for name, values in ours.open("train").values.items():
        assert torch.equal(values, theirs.open("train").values[name])
