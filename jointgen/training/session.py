"""What a run is started with, for its environment.json: the command, the software, and who provides its components."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.config.used_components import used_components
from jointgen.registry.components import Component
from jointgen.runs.records import ComponentRecord, RepositoryRecord, SessionRecord
from jointgen.runtime.environment import packages, repository_of
from jointgen.runtime.installed import installed_version


def session_record(compiled: CompiledRecipe, step: int) -> SessionRecord:
    """Describe what this process starts a run with.

    Args:
        compiled: The run's recipe.
        step: The step at which it begins.
    """
    used = used_components(compiled.recipe, compiled.registry)
    try:
        folder = str(Path.cwd())
    except OSError:  # it has been removed since
        folder = ""
    found = repository_of(_recipe_folder())
    return SessionRecord(
        step=step,
        argv=list(sys.argv),
        folder=folder,
        repository=RepositoryRecord(*found) if found else None,
        python=platform.python_version(),
        components={path: _component_record(component) for path, component in used.items()},
        packages=packages(),
    )


def _component_record(component: Component) -> ComponentRecord:
    name, _, version = component.provider.rpartition(" ")
    if installed_version(name) is None:  # a file, or this Python process
        name, version = component.provider, ""
    return ComponentRecord(component.kind, component.name, name, version)


def _recipe_folder() -> Path:
    """The folder of the recipe on the command line; where there is none, the current folder."""
    files = [Path(word) for word in sys.argv[1:] if word.endswith(".toml")]
    return next((file.absolute().parent for file in files if file.is_file()), Path(".").absolute())
