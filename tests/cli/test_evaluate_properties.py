"""Whatever stands behind --metrics is a list of metrics or a mistake."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.paths import QUICKSTART

from jointgen.cli.evaluate import chosen_metrics
from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.recipe import read_recipe
from jointgen.config.toml import to_toml
from jointgen.errors import ConfigError
from jointgen.registry.components import Registry


@pytest.fixture(scope="module")
def model(registry: Registry) -> Any:
    """What `chosen_metrics` needs of a model."""
    return SimpleNamespace(compiled=compile_recipe(read_recipe(QUICKSTART, registry=registry), registry))


PIECES = st.sampled_from(
    ["elbo", "iwae", "rmse", "{", "}", "k", "=", "5", "0", "-1", "1e999", '"', ",", " ", "\n", "\x1b"]
)


@given(st.lists(st.one_of(PIECES, st.characters()), max_size=15).map("".join))
def test_any_text_is_a_list_of_metrics_or_a_mistake(model: Any, text: str) -> None:
    try:
        assert isinstance(chosen_metrics(text, model), list)
    except ConfigError as error:
        assert all(line.startswith("--metrics") for line in error.lines)


SPACES = st.sampled_from(["", " ", "  "])


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 10**6)), min_size=1, max_size=4), SPACES, SPACES)
def test_settings_reach_their_metrics_in_order(model: Any, asked: list[tuple[int, int]], one: str, other: str) -> None:
    specs = [to_toml({"iwae": {"k": k}}).splitlines()[1] for _, k in asked]
    text = f"{one},{other}".join(f"iwae{other}{{{one}{spec}{one}}}" for spec in specs)
    assert [metric.k for metric in chosen_metrics(text, model)] == [k for _, k in asked]
