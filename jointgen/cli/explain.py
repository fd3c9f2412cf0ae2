"""`jointgen explain`: a recipe's equation, the plan of a step, sizes and requirements."""

from __future__ import annotations

import json

from jointgen.cli.arguments import Arguments
from jointgen.config.plugin_files import registry_of
from jointgen.config.recipe import read_recipe
from jointgen.reports.explain.explain import explain, explanation
from jointgen.runtime.console import log, say_text
from jointgen.training.check import check_run


def explain_command(arguments: Arguments) -> None:
    """Print the explanation of a recipe, checked as `jointgen run` checks it."""
    registry = registry_of(arguments.tables)
    recipe = read_recipe(arguments.tables, registry=registry)
    checked = check_run(recipe, registry, runs_here=False)
    say_text(json.dumps(explanation(checked.compiled), indent=2) if arguments.json else explain(checked.compiled))
    log(*checked.unchecked)
