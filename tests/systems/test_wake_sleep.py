"""Wake-sleep and PIWAE: the updates of the shipped recipes, against their definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from jointgen_vae.reductions import MIWAE
from support.models import small_model
from support.paths import SHIPPED
from torch import Tensor

from jointgen.config.toml import load_tables
from jointgen.objectives import E, Objective, p, q
from jointgen.objectives.recipe_text import Expression, UpdateTable

LOG_W = p.log_x_given_z + p.log_z - q.log_z_given_x


def objective_of(recipe: str, **more: Any) -> Objective:
    table = load_tables(SHIPPED / f"relatives/{recipe}.toml")["objective"]
    updates = {name: UpdateTable(one["maximize"], one["trains"]) for name, one in table["updates"].items()}
    found: Any = Expression(updates=updates, order=table.get("order", "model, critics"), **more).objective()
    return found


def gradients(model: Any, update: str) -> tuple[Any, dict[str, Tensor]]:
    runner = model.update(update)
    _, values = runner.gradient(model.inputs())
    found = {n: -p.grad for n, p in model.parts.modules.named_parameters() if p.grad is not None}
    return dict(zip((node.title for node in runner.program.nodes), values, strict=True)), found


@pytest.mark.parametrize(
    ("update", "part", "x", "z"), [("wake", "decoder", "q.x", "z"), ("sleep", "encoder", "x", "p.z")]
)
def test_each_half_of_wake_sleep_fits_one_conditional_to_the_draws_of_the_other(
    update: str, part: str, x: str, z: str
) -> None:
    """Wake: the decoder by log p(x|z) at codes of data; sleep: the encoder by log q(z|x) at dreams."""
    model = small_model(objective_of("wake_sleep_mnist")).double()
    values, found = gradients(model, update)
    at = {name: next(v for title, v in values.items() if isinstance(v, Tensor) and v.ndim == 2 and name in title
                     and title.split(".")[-1].rstrip(")") == name.split(".")[-1]) for name in (x, z)}  # fmt: skip
    module = model.parts.modules[part]
    given, value = (at[z], at[x]) if part == "decoder" else (at[x], at[z])
    wanted = torch.autograd.grad(module(given.detach()).log_prob(value.detach()).mean(), list(module.parameters()))
    assert {name.split(".")[0] for name in found} == {part}
    for (name, _), gradient in zip(module.named_parameters(), wanted, strict=True):
        assert torch.allclose(found[f"{part}.{name}"], gradient, rtol=0, atol=1e-10), name


def test_piwae_is_iwae_for_the_decoder_and_miwae_for_the_encoder() -> None:
    for part, reduction in (("decoder", "logmeanexp"), ("encoder", MIWAE(groups=4))):
        whole = small_model(objective_of("piwae_mnist", reductions={"pairs": MIWAE(groups=4)})).double()
        _, found = gradients(whole, part)
        alone = small_model(Objective.of(E(q.xz, LOG_W, k=8, reduce=reduction))).double()
        _, wanted = gradients(alone, "model")
        assert {name.split(".")[0] for name in found} == {part}
        for name, gradient in found.items():
            assert torch.allclose(gradient, wanted[name], rtol=0, atol=1e-12), name
