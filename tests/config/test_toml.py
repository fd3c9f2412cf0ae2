"""Files and overrides as plain tables."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.paths import REPO

from jointgen.config.recipe import read_tables
from jointgen.config.toml import apply_overrides, load_tables, read_toml, to_toml
from jointgen.config.values import show
from jointgen.errors import ConfigError, MissingFileError, dotted


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_read(tmp_path: Path) -> None:
    assert read_toml(write(tmp_path / "a.toml", "x.y = 1")) == {"x": {"y": 1}}


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbfx = 1")
    assert read_toml(tmp_path / "a.toml") == {"x": 1}


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        ("recipes/asvae_mnits.toml", "recipes/asvae_mnist.toml"),  # beside it
        ("recipes/toy/asvae_mnist.toml", "recipes/asvae_mnist.toml"),  # one folder up
        ("recipe/asvae_mnist.toml", "recipes/asvae_mnist.toml"),  # in a folder next to it
    ],
)
def test_a_missing_file_is_told_with_the_nearest(tmp_path: Path, asked: str, held: str) -> None:
    write(tmp_path / held, "")
    with pytest.raises(ConfigError) as caught:
        read_toml(tmp_path / asked)
    assert str(caught.value) == f"{tmp_path / asked}: no such file; did you mean '{tmp_path / held}'?"


def test_a_missing_file_with_nothing_like_it_is_just_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_toml(tmp_path / "none" / "a.toml")
    assert str(caught.value) == f"{tmp_path / 'none' / 'a.toml'}: no such file"


def test_what_is_not_toml_is_told_with_line_and_column(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", "x = 1\ny = \n")
    with pytest.raises(ConfigError) as caught:
        read_toml(path)
    assert str(caught.value) == f"{path}: not TOML: Invalid value (at line 2, column 5)"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"x = '\xff'")
    with pytest.raises(ConfigError, match=r"a\.toml: not TOML: byte 5 is not UTF-8"):
        read_toml(tmp_path / "a.toml")


def test_a_run_folder_in_place_of_its_recipe(tmp_path: Path) -> None:
    recipe = write(tmp_path / "run" / "recipe.toml", "")
    with pytest.raises(ConfigError) as caught:
        read_toml(tmp_path / "run")
    assert str(caught.value) == f"{tmp_path / 'run'}: is a folder; expected a TOML file; did you mean '{recipe}'?"


REFUSED = {
    "lists": (f"a = {'[' * 900}{']' * 900}", "tables or lists are nested more than 64 deep"),
    "lists that tomllib reads": (f"a = {'[' * 70}{']' * 70}", "a: tables or lists are nested more than 64 deep"),
    "inline tables": (f"a = {'{a=' * 900}1{'}' * 900}", "tables or lists are nested more than 64 deep"),
    "a dotted key": (f"{'.'.join('a' * 2000)} = 1", "a key has more than 64 parts"),
    "a quoted key": (" . ".join(['"a"'] * 2000) + " = 1", "a key has more than 64 parts"),
    "a header": (f"[{'.'.join('a' * 100)}]", "a key has more than 64 parts"),
    "digits": (f"seed = {'9' * 5000}", "a whole number has more than 64 bits"),
    "hexadecimal digits": (f"seed = 0x{'f' * 5000}", "seed: has more than 64 bits"),
    "65 bits": ("train.steps = 9223372036854775808", "train.steps: has more than 64 bits"),
    "a float of 64 bits": ("lr = 1e300", "lr: must be 0 or of a size from 1.2e-38 to 3.4e+38, got 1e+300"),
    "next to nothing": ("lr = -1e-300", "lr: must be 0 or of a size from 1.2e-38 to 3.4e+38, got -1e-300"),
    "too many bytes": ("#" * (1 << 20) + "\n", "has 1,048,577 bytes, and no such file has more than 1,048,576"),
}


@pytest.mark.parametrize(("text", "problem"), REFUSED.values(), ids=REFUSED)
def test_what_no_recipe_holds_is_told_in_one_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_tables(write(tmp_path / "a.toml", text))
    assert caught.value.lines == [f"{tmp_path / 'a.toml'}: {problem}"]
    tables, override = write(tmp_path / "b.toml", 'base = "a.toml"'), caught.value.lines[0]
    with pytest.raises(ConfigError) as caught:
        load_tables(tables)
    assert caught.value.lines == [f"{tables}: base: {override}"]


def test_limits_themselves_are_read(tmp_path: Path) -> None:
    """A string of many dots is no key, and a number may take all of its bits."""
    text = f"""a = "{"x." * 5000}"\nb = {"[" * 63}{"]" * 63}\n{".".join("c" * 64)} = 1
d = [9223372036854775807, -9223372036854775808, 0.0, 1.2e-38, -3.4e38]"""
    tables = read_toml(write(tmp_path / "a.toml", text))
    assert tables["d"] == [2**63 - 1, -(2**63), 0.0, 1.2e-38, -3.4e38]


def test_what_is_no_file_is_neither_waited_for_nor_followed(tmp_path: Path) -> None:
    (tmp_path / "l.toml").symlink_to("l.toml")
    os.mkfifo(tmp_path / "f.toml")
    for name, problem in (
        ("l.toml", "is a link that leads back to itself"),
        ("f.toml", "is a pipe; expected a file"),
        ("n\0.toml", "cannot be read: embedded null byte"),
    ):
        with pytest.raises(ConfigError) as caught:
            load_tables(tmp_path / name)
        assert str(caught.value) == f"{tmp_path}/{name}: {problem}".replace("\0", "\\x00")
        based = write(tmp_path / "b.toml", to_toml({"base": name}))
        with pytest.raises(ConfigError) as caught:
            load_tables(based)
        assert str(caught.value) == f"{based}: base: {tmp_path}/{name}: {problem}".replace("\0", "\\x00")


# --- base ------------------------------------------------------------------------------------------------------------


def test_a_recipe_is_merged_onto_its_base_which_is_found_from_its_own_folder(tmp_path: Path) -> None:
    write(tmp_path / "base.toml", "seed = 1\n[train]\nsteps = 10\nlr = 0.1")
    write(tmp_path / "mid.toml", 'base = "base.toml"\n[train]\nlr = 0.2')
    recipe = write(tmp_path / "sub" / "a.toml", 'base = "../mid.toml"\nname = "a"\n[train]\nbatch = 8')
    assert load_tables(recipe) == {"seed": 1, "name": "a", "train": {"steps": 10, "lr": 0.2, "batch": 8}}


def test_a_shipped_recipe_is_a_base_by_its_name(tmp_path: Path) -> None:
    recipe = write(tmp_path / "a.toml", 'base = "quickstart"\nseed = 7')
    whole = {**load_tables(REPO / "recipes/quickstart.toml"), "seed": 7}
    assert read_tables(recipe) == {**whole, "name": "a"}


def test_another_type_replaces_the_table_of_the_base(tmp_path: Path) -> None:
    base = (
        '[encoder]\nfamily.type = "normal"\nnetwork = {type = "conv", width = 8}\nprior = {type = "gauss", scale = 2}'
    )
    write(tmp_path / "base.toml", base)
    own = '[encoder]\nnetwork = {type = "mlp", hidden = 4}\nprior = {type = "gauss", size = 3}\nfamily.rank = 1'
    recipe = write(tmp_path / "a.toml", f'base = "base.toml"\n{own}')
    assert load_tables(recipe)["encoder"] == {
        "family": {"type": "normal", "rank": 1},
        "network": {"type": "mlp", "hidden": 4},
        "prior": {"type": "gauss", "scale": 2, "size": 3},
    }


def test_lists_and_scalars_replace_what_the_base_holds(tmp_path: Path) -> None:
    write(tmp_path / "base.toml", "x = [1, 2]\ny.z = 1\nw = 1")
    recipe = write(tmp_path / "a.toml", 'base = "base.toml"\nx = [3]\ny = 2\nw = {v = 1}')
    assert load_tables(recipe) == {"x": [3], "y": 2, "w": {"v": 1}}


def test_a_missing_base_names_both_files(tmp_path: Path) -> None:
    held = write(tmp_path / "vae.toml", "")
    recipe = write(tmp_path / "b.toml", 'base = "vea.toml"')
    with pytest.raises(ConfigError) as caught:
        load_tables(recipe)
    problem = f"{recipe}: base: {tmp_path / 'vea.toml'}: no such file; did you mean '{held}'?"
    assert str(caught.value) == problem


def test_recipes_based_on_each_other_are_told_as_a_chain(tmp_path: Path) -> None:
    for name, base in (("a", "b"), ("b", "c"), ("c", "b")):
        write(tmp_path / f"{name}.toml", f'base = "{base}.toml"')
    with pytest.raises(ConfigError) as caught:
        load_tables(tmp_path / "a.toml")
    chain = " -> ".join(str(tmp_path / f"{name}.toml") for name in "abcb")
    assert str(caught.value) == f"base: these recipes are based on each other: {chain}"


def test_a_chain_of_bases_has_an_end(tmp_path: Path) -> None:
    for n in range(150):
        write(tmp_path / f"{n}.toml", f'base = "{n + 1}.toml"\nlast = {n}')
    write(tmp_path / "150.toml", "first = 150")
    assert load_tables(tmp_path / "51.toml") == {"first": 150, "last": 51}  # 100 files
    with pytest.raises(ConfigError) as caught:
        load_tables(tmp_path / "50.toml")
    assert str(caught.value) == f"{tmp_path / '50.toml'}: base: more than 100 recipes are based on one another"


def test_a_base_that_is_no_name(tmp_path: Path) -> None:
    recipe = write(tmp_path / "a.toml", "base = 3")
    with pytest.raises(ConfigError, match=r"a\.toml: base: expected the name of a TOML file, got 3"):
        load_tables(recipe)


# --- overrides -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ("train.steps=200", {"train": {"steps": 200}}),
        ("train.steps = 200", {"train": {"steps": 200}}),
        ("lr=1e-4", {"lr": 1e-4}),
        ("deterministic=true", {"deterministic": True}),
        ("data.root=/x", {"data": {"root": "/x"}}),
        ("data.root='/x y'", {"data": {"root": "/x y"}}),
        ("data.root=/x=y", {"data": {"root": "/x=y"}}),
        ('data.root=""', {"data": {"root": ""}}),
        ("data.type=mnist", {"data": {"type": "mnist"}}),
        ("strides=[1, 2]", {"strides": [1, 2]}),
        ("prior={type='gauss', scale=2}", {"prior": {"type": "gauss", "scale": 2}}),
        ('ratios."f=1"="q(x) : p(x)"', {"ratios": {"f=1": "q(x) : p(x)"}}),
        ("objective.maximize=E[q(x,z)](log p(x|z))", {"objective": {"maximize": "E[q(x,z)](log p(x|z))"}}),
    ],
)
def test_an_override_is_a_dotted_key_and_a_value(text: str, tables: dict[str, Any]) -> None:
    assert apply_overrides({}, [text]) == tables


def test_overrides_may_be_a_mapping_of_python_values() -> None:
    overrides = {"train.steps": 200, "data.root": Path("/x"), 'ratios."f 1"': "q(x)", "strides": (1, 2)}
    assert apply_overrides({"train": {"lr": 1.0}}, overrides) == {
        "train": {"lr": 1.0, "steps": 200},
        "data": {"root": "/x"},
        "ratios": {"f 1": "q(x)"},
        "strides": [1, 2],
    }


def test_none_in_a_mapping_goes_back_to_the_default() -> None:
    assert apply_overrides({"train": {"lr": 1.0, "clip": 2}}, {"train.clip": None, "prior": None}) == {
        "train": {"lr": 1.0}
    }


def test_the_last_override_wins_and_the_tables_given_stay_as_they_were() -> None:
    tables = {"train": {"steps": 1}}
    assert apply_overrides(tables, ["train.steps=2", "train.steps=3"]) == {"train": {"steps": 3}}
    assert tables == {"train": {"steps": 1}}


def test_a_number_in_a_key_counts_in_a_list() -> None:
    tables = {"critic": {"penalties": [{"weight": 1}, {"weight": 2}]}}
    assert apply_overrides(tables, ["critic.penalties.1.weight=5", "critic.penalties.0={every=2}"]) == {
        "critic": {"penalties": [{"every": 2}, {"weight": 5}]}
    }


def test_a_number_in_a_key_is_a_name_in_a_table() -> None:
    assert apply_overrides({"levels": {"0": 1}}, ["levels.0=2"]) == {"levels": {"0": 2}}


MNIST = {"data": {"type": "mnist", "root": "/m", "binary": True}}


@pytest.mark.parametrize(
    ("overrides", "data"),
    [
        (["data.type=cifar10"], {"type": "cifar10"}),
        (["data.type=mnist"], MNIST["data"]),
        (["data.type=cifar10", "data.root=/c"], {"type": "cifar10", "root": "/c"}),
        (["data.root=/c", "data.type=cifar10"], {"type": "cifar10", "root": "/c"}),
        (["data.type=cifar10", "data.type=svhn"], {"type": "svhn"}),
        (["data={type='a', root='/a'}", "data.type=b"], {"type": "b"}),
        (["data.type=b", "data={type='a', root='/a'}"], {"type": "a", "root": "/a"}),
    ],
)
def test_another_type_drops_the_other_components_keys_but_no_override(
    overrides: list[str], data: dict[str, Any]
) -> None:
    assert apply_overrides(MNIST, overrides) == {"data": data}


def test_another_type_in_a_list() -> None:
    tables = {"penalties": [{"type": "r1", "gamma": 1}]}
    assert apply_overrides(tables, ["penalties.0.type=gp"]) == {"penalties": [{"type": "gp"}]}


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("train.steps", "override 'train.steps': expected KEY=VALUE with a dotted key, such as train.steps=200"),
        ("=3", "override '=3': expected KEY=VALUE with a dotted key, such as train.steps=200"),
        ("a b=3", "override 'a b=3': expected KEY=VALUE with a dotted key, such as train.steps=200"),
        ("data.root=", "override 'data.root=': the value is missing; an empty string is \"\""),
        ("x=[1, 2", "override 'x=[1, 2': [1, 2 is not a TOML value: Unclosed array"),
        ("x={a=1", "override 'x={a=1': {a=1 is not a TOML value: Unclosed inline table"),
        ('x="a', "override 'x=\"a': \"a is not a TOML value: Unterminated string"),
        ("train.steps.n=1", "train.steps: is 5, so it has no keys to override"),
        ("penalties.2.weight=1", "penalties.2: '2' is no position in a list of 1, counted from 0"),
        ("penalties.first=1", "penalties.first: 'first' is no position in a list of 1, counted from 0"),
    ],
)
def test_a_wrong_override_is_told(override: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides({"train": {"steps": 5}, "penalties": [{}]}, [override])
    assert caught.value.lines == [problem]


def test_problems_of_overrides_are_told_beside_those_of_the_recipe(tmp_path: Path) -> None:
    wrong, steps = "override 'steps': expected KEY=VALUE with a dotted key, such as train.steps=200", 2**63
    with pytest.raises(ConfigError) as caught:
        apply_overrides({"train": {"steps": steps}}, ["steps"])
    assert caught.value.lines == [wrong, "train.steps: has more than 64 bits"]
    recipe = write(tmp_path / "a.toml", f"train.steps = {steps}")
    with pytest.raises(ConfigError) as caught:
        read_tables(recipe, ["steps"])
    assert caught.value.lines == [f"{recipe}: train.steps: has more than 64 bits", wrong]
    with pytest.raises(MissingFileError):  # whose kind is kept where nothing else is wrong
        read_tables(tmp_path / "b.toml", ["train.steps=1"])


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        (f"train.steps={'9' * 5000}", "train.steps: a whole number has more than 64 bits"),
        (f"train.steps=0x{'f' * 5000}", "train.steps: has more than 64 bits"),
        ("train.lr=1e300", "train.lr: must be 0 or of a size from 1.2e-38 to 3.4e+38, got 1e+300"),
        (f"a.b={'[' * 900}", "a.b: tables or lists are nested more than 64 deep"),
        ("data.path=\udcff", "data.path: is no text that a file of TOML can hold, got '\\udcff'"),
        (f"penalties.{'9' * 5000}.weight=1", "... is no position in a list of 1, counted from 0"),
        (
            f"{'.'.join('a' * 3000)}=1",
            "override 'a.a.a... expected KEY=VALUE with a dotted key, such as train.steps=200",
        ),
        ("=" * 100_000, "override '=====... expected KEY=VALUE with a dotted key, such as train.steps=200"),
    ],
)
def test_an_override_of_no_size_is_told_in_a_short_line(override: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides({"train": {"steps": 5}, "penalties": [{}]}, [override])
    (line,) = caught.value.lines
    begin, _, end = problem.rpartition("...")
    assert line.startswith(begin) and line.endswith(end) and len(line) < 800


def test_values_from_python_have_the_same_limits() -> None:
    endless: list[Any] = []
    endless += [endless, endless]
    for tables, overrides in (({"a": endless}, {}), ({}, {"a": endless})):
        with pytest.raises(ConfigError, match="a: tables or lists are nested more than 64 deep"):
            apply_overrides(tables, overrides)
    with pytest.raises(ConfigError) as caught:
        apply_overrides({"a": {"b": [1, 2**63]}, "c": 10**5000}, {})
    assert caught.value.lines == ["a.b[1]: has more than 64 bits", "c: has more than 64 bits"]


def test_all_wrong_overrides_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides({"x": 1}, ["y", "x.y=1", "z=["])
    assert len(caught.value.lines) == 3


def test_a_wrong_key_in_a_mapping_is_told() -> None:
    with pytest.raises(ConfigError, match="override 'train steps': expected a dotted key"):
        apply_overrides({}, {"train steps": 1})


# --- writing ---------------------------------------------------------------------------------------------------------


def test_written_tables_read_back_equal() -> None:
    tables = {"x": [1, 2.5], "text": 'a "b"\n', "t": {"type": "c", "n": {"k k": True}}, "l": [{"a": 1}, {"a": 2}]}
    assert tomllib.loads(to_toml(tables)) == tables


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("train", "steps"), "train.steps"),
        (("critic", "penalties", 1, "weight"), "critic.penalties[1].weight"),
        (("ratios", "f 1", "x"), 'ratios."f 1".x'),
        (("a.b",), '"a.b"'),
        (("",), '""'),
    ],
)
def test_key_paths_are_written_as_toml_writes_them(path: tuple[str | int, ...], text: str) -> None:
    assert dotted(path) == text


@pytest.mark.parametrize("text", ["true", "2024-01-31", "12:30:00", "1.5", "[1, 2]", "'a b'"])
def test_a_message_shows_a_value_as_toml_writes_it(text: str) -> None:
    assert show(tomllib.loads(f"value = {text}")["value"]) == text


def test_a_long_value_is_cut_in_a_message() -> None:
    assert len(show("x" * 500)) == 60
