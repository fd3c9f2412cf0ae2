"""The code of docs/tutorials/in-python.md runs, in one process from top to bottom."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from support.paths import REPO
from support.runs import SMALL

import jointgen


def code(kind: str) -> str:
    text = (REPO / "docs/tutorials/in-python.md").read_text(encoding="utf-8")
    return "\n".join(re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL))


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the page's names are after its code has run, on smaller networks and for fewer steps."""
    folder = tmp_path_factory.mktemp("page")
    known: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("run", "losses"):
            patch.setattr(jointgen, name, smaller(getattr(jointgen, name)), raising=False)
        exec(compile(code("python"), "docs/tutorials/in-python.md", "exec"), known)
    known["folder"] = folder
    return known


def smaller(call: Any) -> Any:
    small = {key: value for key, value in SMALL.items() if key != "train.pair_block"}
    options = {"quiet": True} if call is jointgen.run else {}
    return lambda recipe, overrides=(), **more: call(
        recipe, {**dict(overrides), **small, "train.steps": 24}, **options, **more
    )


def test_what_the_page_makes_is_what_it_says(names: dict[str, Any]) -> None:
    assert names["x"].shape == (16, 1, 8, 8) and names["same"].shape == names["x"].shape
    assert names["z"].grad is not None and names["decoder"](torch.zeros(4, 16)).shape == (4, 1, 8, 8)
    assert names["objective"].latex().startswith(r"\begin{aligned}")
    assert names["losses"].step == 10  # batches of 20 of 200 rows


@pytest.mark.filterwarnings("ignore")  # of what Lightning calls
def test_lightning_trains_it(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning", reason="Lightning is no dependency: `uv run --with lightning pytest ...` tries it")
    monkeypatch.chdir(names["folder"])
    monkeypatch.setattr(jointgen, "losses", smaller(jointgen.losses))
    exec(compile(code("python lightning"), "docs/tutorials/in-python.md", "exec"), names)
    assert names["trainer"].lightning_module.losses.step == 20  # two epochs of ten batches
