"""Spaces of variables that no root draws: from the recipe's latents, and from the part that draws them."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import torch
from support.models import SmallModel, small_model

from jointgen.config.recipe import LatentTable, read_recipe, write_recipe
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.objectives import E, Objective, joint_from_text, p, q
from jointgen.registry.discovery import load_plugins

torch.set_num_threads(1)

PLAIN = {"network": {"type": "mlp", "hidden": [4]}, "family": {"type": "gaussian"}}


def two_codes(family: str = "gaussian", **latents: Any) -> SmallModel:
    """A VAE whose q draws w from z, with these latents."""
    model = joint_from_text("q", "q(x) q(z|x) q(w|z)", {"q(w|z)": "second"})
    objective = Objective.of(E(model.on("x", "z"), p.log_x_given_z + p.log_z) + E(model.on("z", "w"), model.log("w|z")))
    second = PLAIN | {"family": {"type": family}}
    return small_model(objective, encoders={"second": second}, latents=latents)


@pytest.mark.parametrize(
    ("latent", "space"),
    [
        (3, Space((3,))),
        ([2, 4], Space((2, 4))),
        ({"size": [1, 2], "low": 0.0, "high": 1.0}, Space((1, 2), low=0.0, high=1.0)),
        ({"like": "x"}, Space((2,))),
    ],
    ids=str,
)
def test_a_latent_has_the_space_that_the_recipe_gives(latent: Any, space: Space) -> None:
    found = two_codes(w=latent).compiled.binding.spaces["w"]
    assert (found.shape, found.kind, found.range) == (space.shape, space.kind, space.range)


def test_a_latent_of_classes_is_a_label() -> None:
    assert two_codes("categorical", w={"classes": 5}).compiled.binding.spaces["w"] == Space((5,), "label")


def test_latents_are_written_as_they_were_read() -> None:
    registry = load_plugins().registry
    tables = {
        "data": {"type": "ring"},
        "objective": {"type": "vae"},
        "train": {"steps": 1},
        "latents": {"a": 3, "b": [1, 2], "c": {"classes": 4}, "d": {"size": 2, "low": 0.0, "high": 1.0}},
    }
    recipe = read_recipe(tables, registry=registry)
    assert recipe.latents["c"] == LatentTable(classes=4)
    text = write_recipe(recipe, registry)
    assert read_recipe(tomllib.loads(text), registry=registry).latents == recipe.latents


def shared_part(**changes: Any) -> SmallModel:
    """The encoder, which draws z given x, also draws u given v, whose own part is the decoder's."""
    uses = joint_from_text("i", "i(v) i(u|v)", {"i(v)": "more", "i(u|v)": "encoder"})
    objective = Objective.of(E(q.xz, p.log_x_given_z + p.log_z) + E(uses.on("u", "v"), uses.log("u|v")))
    return small_model(objective, **changes)


def test_a_variable_takes_the_space_of_what_its_part_draws_elsewhere() -> None:
    model = shared_part(priors={"more": {"type": "normal", "size": 2}})
    spaces = model.compiled.binding.spaces
    assert spaces["u"] == spaces["z"] == Space((2,))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"priors": {"more": {"type": "normal", "size": 3}}},
            "encoder: computes both q(z|x) with z 2 real, x 2 real and i(u|v) with u 2 real, v 3 real: the Spaces of "
            "what it draws, and of what it is given, in order, must agree",
        ),
        (
            {"priors": {"more": {"type": "normal", "size": 2}}, "latents": {"u": 5}},
            "encoder: computes both q(z|x) with z 2 real, x 2 real and i(u|v) with u 5 real, v 2 real",
        ),
        (
            {"priors": {"more": {"type": "normal", "size": 2}}, "latents": {"u": {"like": "zz"}}},
            "latents.u.like: 'zz' is no variable whose Space is known",
        ),
    ],
    ids=["inputs", "outputs", "like nothing"],
)
def test_one_part_for_two_conditionals_needs_equal_spaces(changes: Any, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        shared_part(**changes)
    assert any(said in str(problem) for problem in raised.value.problems), str(raised.value)
    assert len(raised.value.problems) == 1


def test_a_family_says_which_variable_it_cannot_draw() -> None:
    with pytest.raises(ConfigError, match=r"encoders.second.family.type: .* this one is 3 real \(it draws 'w'\)"):
        two_codes("categorical", w=3)
