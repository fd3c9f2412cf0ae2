"""Recipes of whole systems, against their losses written by hand in plain torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.compiler.nodes import RootNode, SampleNode
from jointgen.config.recipe import read_recipe
from jointgen.config.toml import load_tables
from jointgen.engine.gradient_check import check_ownership
from jointgen.registry.discovery import load_plugins
from support.models import SmallModel
from support.paths import SHIPPED

ROWS = 8
HAND = {"rtol": 1e-9, "atol": 1e-9}


@attrs.frozen
class Drawn:
    """What an update drew, (B, ...) by "joint.variable", and the modules that it ran."""

    values: Mapping[str, Tensor]
    parts: Mapping[str, Any]

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]

    def mean(self, part: str, *given: Tensor) -> Tensor:
        """What a deterministic conditional puts out."""
        found: Tensor = self.parts[part](*given).mean
        return found

    def critic(self, part: str, *given: Tensor) -> Tensor:
        found: Tensor = self.parts[part](*given)
        return found


def small_recipe(name: str, **changes: Any) -> SmallModel:
    """A shipped recipe with networks of a few smooth units, on the bundled digits, in float64."""
    tables = _small(load_tables(next(SHIPPED.rglob(f"{name}.toml")))) | changes
    for source in (tables["data"], *tables.get("sources", {}).values()):
        if source["type"] != "digits":
            kept = {key: source[key] for key in ("observe", "labels") if key in source}
            source.clear()
            source.update(kept, type="digits")
    tables["train"] = {"steps": 1, "batch": ROWS, "pair_block": 4}
    tables.pop("eval", None)
    registry = load_plugins().registry
    model = SmallModel(compile_recipe(read_recipe(tables, registry=registry), registry)).double()
    check_ownership(model.plan, model.parts, model.data(4), 4)
    return model


def _small(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    small = {key: [5] if key == "hidden" else _small(item) for key, item in value.items()}
    return {key: item for key, item in small.items() if key != "dropout"}


def check_update(model: SmallModel, update: str, by_hand: Callable[[Drawn], Tensor]) -> None:
    """Compare the loss of an update, and its gradients to every part, with a loss (to minimise) written by hand."""
    runner, inputs, modules = model.update(update), model.inputs(ROWS), model.parts.modules
    modules.zero_grad()
    figures, values = runner.gradient(inputs)
    found = {name: p.grad.clone() for name, p in modules.named_parameters() if p.grad is not None}
    drawn = {}
    for node in runner.plan.nodes:
        if isinstance(node, RootNode | SampleNode):
            for variable, draw in values[runner.program.index[node]].items():
                owner = node.joint if isinstance(node, RootNode) else node.title.split("(")[0]
                drawn[f"{owner}.{variable}"] = draw.read("sample").detach()
    loss = by_hand(Drawn(drawn, dict(modules.items())))
    trained = {name: p for name, p in modules.named_parameters() if name.split(".")[0] in runner.plan.trains}
    assert set(found) == set(trained)  # no other part takes a gradient
    torch.testing.assert_close(figures[f"{update}/loss"], loss.detach(), **HAND)
    wanted = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    for (name, parameter), gradient in zip(trained.items(), wanted, strict=True):
        expected = torch.zeros_like(parameter) if gradient is None else gradient
        torch.testing.assert_close(found[name], expected, **HAND, msg=lambda text, name=name: f"{name}: {text}")
