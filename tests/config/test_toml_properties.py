"""Tables survive a TOML file and overrides, and whatever else is read is tables or a ConfigError."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from jointgen.config.toml import apply_overrides, flatten, load_tables, read_toml, to_toml
from jointgen.errors import ConfigError, dotted

# TOML has neither None nor half a surrogate pair; tomli_w writes what tomllib reads
NAMES = st.one_of(st.sampled_from(["train", "steps", "a b", "ü", "1", '"', "=", ".", "\n", ""]), st.text(max_size=5))
REALS = st.floats(-1e30, 1e30).filter(lambda real: real == 0 or abs(real) > 1e-30)  # others mean nothing in a recipe
SCALARS = st.one_of(st.integers(-(2**63), 2**63 - 1), REALS, st.booleans(), st.text(max_size=20), st.dates())
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
TABLES = st.dictionaries(NAMES, VALUES, max_size=4)


@given(TABLES)
def test_tables_are_read_back_from_their_file(tables: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(tables)) == tables


RECIPE = b"""
base = "other.toml"
format = 1
[encoder.network]
type = "mlp"   # a network
hidden = [8, 16]
[optimizer]
model = { lr = 1e-3, betas = [0.5, 0.999] }
[[objective.stages]]
name = "vae"
"""


def changed(data: st.DataObject, text: bytes) -> bytes:
    """A text of which some bytes are replaced, left out or repeated."""
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 12)))
        text = text[:start] + data.draw(st.one_of(st.binary(max_size=8), st.just(text[start:end] * 2))) + text[end:]
    return text


def assert_tables_or_mistake(file: Path, text: bytes) -> None:
    file.write_bytes(text)
    for read in (read_toml, load_tables):
        try:
            assert isinstance(read(file), dict)
        except ConfigError as error:
            assert str(file) in str(error)
            assert len(error.lines) == 1 and len(error.lines[0]) < 3_000


@given(st.data())
def test_a_damaged_recipe_is_tables_or_a_mistake(tmp_path_factory: Any, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp()
    assert_tables_or_mistake(folder / "damaged.toml", changed(data, RECIPE))


@given(st.binary(max_size=200))
def test_any_bytes_are_tables_or_a_mistake(tmp_path_factory: Any, text: bytes) -> None:
    assert_tables_or_mistake(tmp_path_factory.getbasetemp() / "noise.toml", text)


# --- overrides -------------------------------------------------------------------------------------------------------

PATHS = st.lists(NAMES, min_size=1, max_size=4)


@given(TABLES, PATHS, SCALARS)
def test_an_override_sets_its_key_and_nothing_else(tables: dict[str, Any], path: list[str], value: Any) -> None:
    before = copy.deepcopy(tables)
    text = to_toml({"v": value}).removeprefix("v = ").strip()
    try:
        result = apply_overrides(tables, [f"{dotted(path)}={text}"])
    except ConfigError as error:
        assert "no keys to override" in str(error) or "no position in a list" in str(error)
        return
    finally:
        assert tables == before
    held: Any = result
    for part in path:
        held = held[int(part)] if isinstance(held, list) else held[part]
    assert held == value and type(held) is type(value)
    if not isinstance(tables.get(path[0]), list) and path[-1] != "type":  # which empties its table
        key = dotted(path)
        kept = {name: v for name, v in flatten(tables) if name != key and not name.startswith(f"{key}.")}
        assert {name: v for name, v in flatten(result) if name in kept} == kept


@given(TABLES, PATHS, SCALARS)
def test_a_mapping_says_the_same_as_texts(tables: dict[str, Any], path: list[str], value: Any) -> None:
    text = to_toml({"v": value}).removeprefix("v = ").strip()
    assert outcome(tables, {dotted(path): value}) == outcome(tables, [f"{dotted(path)}={text}"])


def outcome(tables: dict[str, Any], overrides: Any) -> Any:
    try:
        return apply_overrides(tables, overrides)
    except ConfigError as error:
        return error.lines


@given(st.text(st.one_of(st.sampled_from("=.[]{}\"'\n,#01aé "), st.characters()), max_size=30))
def test_any_text_is_an_override_or_a_mistake(text: str) -> None:
    tables = {"train": {"steps": 10}, "a": [1, {"b": 2}]}
    try:
        assert isinstance(apply_overrides(tables, [text]), dict)
    except ConfigError as error:
        assert len(error.lines) == 1
