"""Parts as built: no network may draw from a global generator."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import pytest
from support.paths import QUICKSTART
from torch import nn

import jointgen
from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.recipe import read_recipe
from jointgen.contracts.space import Space
from jointgen.registry.discovery import load_plugins


@attrs.frozen
class WithTorchDropout:
    """A plugin author's encoder that drops out in torch's way."""

    def build(self, inputs: Mapping[str, Space], output: tuple[int, ...]) -> nn.Module:
        size = sum(space.size for space in inputs.values())
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(size, output[0]))


def test_torchs_own_dropout_is_refused() -> None:
    registry = load_plugins().registry
    recipe = read_recipe(QUICKSTART, registry=registry)
    encoder = attrs.evolve(recipe.encoder, network=WithTorchDropout())
    with pytest.raises(jointgen.ConfigError, match=r"encoder: its layer 'trunk\.1' is torch's Dropout; use jointgen"):
        compile_recipe(attrs.evolve(recipe, encoder=encoder), registry)


@attrs.frozen
class Lazy:
    """A network that waits for rows to know its size."""

    def build(self, inputs: Mapping[str, Space], output: tuple[int, ...]) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.LazyLinear(output[0]))


def test_a_lazy_layer_is_refused_by_its_name() -> None:
    registry = load_plugins().registry
    recipe = read_recipe(QUICKSTART, registry=registry)
    encoder = attrs.evolve(recipe.encoder, network=Lazy())
    with pytest.raises(jointgen.ConfigError, match=r"encoder: its layer 'trunk\.1' is a lazy one; give it its size"):
        compile_recipe(attrs.evolve(recipe, encoder=encoder), registry)
