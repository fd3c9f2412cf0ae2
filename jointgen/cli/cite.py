"""`jointgen cite`: what to cite of a recipe or a run."""

from __future__ import annotations

from pathlib import Path

from jointgen.cli.arguments import Arguments
from jointgen.config.plugin_files import registry_of
from jointgen.config.recipe import read_recipe, read_tables
from jointgen.config.shipped import find_recipe
from jointgen.reports.citations import bibtex, component_papers
from jointgen.runtime.console import say_text


def cite_command(arguments: Arguments) -> None:
    """Print BibTeX: jointgen, the recipe's papers, and, as comments, what its components name."""
    folder = Path(arguments.recipe)
    path = folder / "recipe.toml" if folder.is_dir() else find_recipe(arguments.recipe)
    tables = read_tables(str(path))
    registry = registry_of(tables)
    recipe = read_recipe(tables, registry=registry)
    papers = component_papers(recipe, registry)
    named = [f"% {component}: {paper}" for component, paper in papers.items()]
    about = ["% The papers of its components, as these name them:", *named] if named else []
    say_text("\n".join([bibtex(recipe), "", *about]).rstrip())
