"""`jointgen cite`: what a recipe and a run cite."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from jointgen.config.recipe import changed_keys, read_tables
from jointgen.config.shipped import shipped_recipes
from jointgen.reports.citations import bibliography


def keys_in(text: str) -> list[str]:
    return re.findall(r"^@\w+\{(\w+),$", text, re.MULTILINE)


def test_every_shipped_recipe_cites_papers_and_every_paper_is_cited() -> None:
    cited = {key for path in shipped_recipes().values() for key in read_tables(str(path))["cite"]}
    assert cited == set(bibliography())


@pytest.mark.parametrize("key", sorted(bibliography()))
def test_an_entry_is_complete(key: str) -> None:
    fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", bibliography()[key], re.MULTILINE))
    assert {"author", "title", "year"} <= set(fields)
    assert {"booktitle", "journal", "institution", "eprint"} & set(fields)
    assert fields["year"] in key
    assert re.fullmatch(r"\d{4}\.\d{4,5}", fields.get("eprint", "1234.5678"))


def test_a_recipe_cites_its_paper_and_names_those_of_its_parts(say: Any) -> None:
    said = say("cite", "ali_mnist")
    assert said.status == 0
    assert keys_in(said.out) == ["jointgen", "dumoulin2017"]
    assert "% optimizer adam: Kingma & Ba 2015" in said.out


def test_a_recipe_of_ones_own_cites_what_it_is_based_on(say: Any, here: Path) -> None:
    say("copy", "wae_mmd_mnist", "base.toml")
    Path("mine.toml").write_text('base = "base.toml"\n')
    assert keys_in(say("cite", "mine.toml").out) == ["jointgen", "tolstikhin2018"]
    Path("mine.toml").write_text('cite = ["kingma2014", "zhao2019"]\nbase = "base.toml"\n')
    assert keys_in(say("cite", "mine.toml").out) == ["jointgen", "kingma2014", "zhao2019"]
    Path("mine.toml").write_text('cite = ["kingma2041", "zhao2019"]\nbase = "base.toml"\n')
    said = say("cite", "mine.toml")
    assert said.status == 2
    assert "cite: 'kingma2041' has no entry; did you mean 'kingma20" in said.refusal


def test_a_run_cites_what_its_recipe_does(say: Any, here: Path) -> None:
    Path("run").mkdir()
    Path("run/recipe.toml").write_text(say("run", "quickstart", "--dry-run").out)
    assert keys_in(say("cite", "run").out) == ["jointgen", "pu2017"]


def test_another_citation_is_no_other_run() -> None:
    assert changed_keys({"seed": 0}, {"seed": 0, "cite": ["pu2017"]}) == []
    assert len(changed_keys({"seed": 0}, {"seed": 1, "cite": ["pu2017"]})) == 1


def test_a_paper_of_ones_own_is_a_whole_entry(say: Any, here: Path) -> None:
    say("copy", "quickstart", "mine.toml")
    text = Path("mine.toml").read_text().replace('cite = ["pu2017"]', 'cite = ["pu2017", "@misc{mine2026,\\n}"]')
    Path("mine.toml").write_text(text)
    assert keys_in(say("cite", "mine.toml").out) == ["jointgen", "pu2017", "mine2026"]


def test_a_wrong_citation_is_told_before_training(say: Any, here: Path) -> None:
    said = say("run", "quickstart", "--dry-run", "--set", 'cite=["pu2071"]')
    assert said.status == 2
    assert said.problems[-1].startswith("jointgen: cite: 'pu2071' has no entry; did you mean 'pu2017'?")
