"""Components written as text."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from support.paths import REPO

from jointgen.config.recipe import read_recipe, write_recipe
from jointgen.config.toml import named_tables
from jointgen.errors import ConfigError
from jointgen.registry.components import Registry


@pytest.mark.parametrize(
    ("text", "tables"),
    [
        ("elbo", [{"type": "elbo"}]),
        (" elbo ,iwae{k=5}, ", [{"type": "elbo"}, {"type": "iwae", "k": 5}]),
        (
            "fid{extractor={type='a}b'}, n=[1, 2]} , b",
            [{"type": "fid", "extractor": {"type": "a}b"}, "n": [1, 2]}, {"type": "b"}],
        ),
        ("", []),
    ],
)
def test_names_and_inline_tables_are_read(text: str, tables: list[dict[str, Any]]) -> None:
    assert named_tables(text) == tables


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a b", "'a b' is not NAME or NAME{key = value}, with commas between"),
        ("a{k=1}b", "'a{k=1}b' is not NAME or NAME{key = value}, with commas between"),
        ("a{k=", "{k= is not a TOML inline table: it has no end"),
        ("a{k}", "{k} is not a TOML inline table: Expected '=' after a key in a key/value pair (at line 1, column 14)"),
        ("a{type='b'}", "\"a{type='b'}\": the name is its type; remove the key 'type'"),
        ("a{k=0x" + "f" * 500 + "}", "settings.k: has more than 64 bits"),
        ("a{k=" + "[" * 1_900 + "}", "tables or lists are nested more than 64 deep"),
        ("a," * 5000, "has 10,000 characters; at most 2,000 are read"),
    ],
)
def test_what_is_no_such_list_is_told_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        named_tables(text)
    assert caught.value.lines == [problem]


def test_a_recipe_takes_metrics_as_the_command_line_does(registry: Registry) -> None:
    path = REPO / "recipes/quickstart.toml"
    text = read_recipe(path, {"eval.metrics": ["elbo", "iwae{k=7}", {"type": "rmse"}]}, registry=registry)
    tables = [{"type": "elbo"}, {"type": "iwae", "k": 7}, {"type": "rmse"}]
    assert text == read_recipe(path, {"eval.metrics": tables}, registry=registry)
    assert text == read_recipe(tomllib.loads(write_recipe(text, registry)), registry=registry)
