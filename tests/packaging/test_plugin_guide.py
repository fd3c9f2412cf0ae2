"""The examples of docs/extending/plugins.md are hooks that are accepted, and components that keep their promises."""

from __future__ import annotations

import contextlib
import re
from types import ModuleType
from typing import Any

import attrs
import pytest
import torch
from support.checks import failures
from support.paths import REPO

import jointgen
from jointgen import plugin
from jointgen.registry.components import KINDS, Registry
from jointgen.registry.discovery import call_hooks, load_object
from jointgen.registry.hooks import EVENTS

GUIDE = (REPO / "docs/extending/plugins.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


class MyLion(torch.optim.SGD):
    """Stands for the optimizer that an example builds; it keeps a momentum, too."""

    def __init__(self, parameters: Any, lr: float, betas: tuple[float, float]):
        super().__init__(parameters, lr=lr, momentum=betas[0])


def run(block: str) -> ModuleType:
    module = ModuleType("guide")
    known = {"jointgen": jointgen, "attrs": attrs, "torch": torch, "contextlib": contextlib, "MyLion": MyLion}
    module.__dict__.update(known, **{name: getattr(plugin, name) for name in ("Rate", "StartedTracker")})
    exec(block.split("\njointgen.run(")[0], module.__dict__)  # a run takes too long here
    return module


def test_hooks_are_accepted_and_none_is_forgotten() -> None:
    found = set[str]()
    for block in (one for one in BLOCKS if "@jointgen.hookimpl" in one):
        manager = call_hooks(Registry(), run(block), "guide", "the guide")
        found |= {*re.findall(r"def (jointgen_\w+)", block)}
        assert manager.get_plugins()
    assert found == {"jointgen_evaluated", "jointgen_commands", "jointgen_report_sections", "jointgen_check"}
    assert all(f"`{event}(" in GUIDE for event in EVENTS)
    (printer,) = [run(block) for block in BLOCKS if "class Printer" in block]
    load_object(printer.Printer(), "printer")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("optimizer", "Lion"), ("schedule", "HalfWay"), ("tracker", "Log"), ("augmentation", "Invert")],
)
def test_components_keep_their_promises(kind: str, name: str) -> None:
    (component,) = [getattr(run(block), name)() for block in BLOCKS if f"class {name}" in block]
    assert failures(kind, component) == {}


def test_every_kind_stands_in_the_guide() -> None:
    named: Any = re.findall(r"`(\w+)`", GUIDE.partition("## Kinds of components")[2])
    assert {*KINDS} <= {*named}
