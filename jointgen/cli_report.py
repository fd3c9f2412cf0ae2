"""`jointgen report`: the page of any run, finished or not."""

from __future__ import annotations

from jointgen.arguments import Arguments
from jointgen.cli_runs import open_model_of
from jointgen.errors import CheckpointError, ConfigError
from jointgen.inference import held_out
from jointgen.model import Model
from jointgen.plugins import load_plugins
from jointgen.prepare import prepare
from jointgen.recipe import read_recipe
from jointgen.report import Shown, write_report
from jointgen.runfolder import RunFolder


def report_command(arguments: Arguments) -> None:
    folder = RunFolder(arguments.run)
    try:
        model, _ = open_model_of(arguments)
    except CheckpointError as error:  # none yet, or none that is whole: what else the run has can be shown
        registry = load_plugins().registry
        write_report(folder, prepare(read_recipe(folder.recipe, registry=registry), registry), str(error))
    else:
        write_report(folder, model.prepared, _shown(model))
    print(f"{folder.report}: the run's page, for a browser")


def _shown(model: Model) -> Shown | str:
    """The model with held-out rows, or why these cannot be read."""
    try:
        return Shown(model, held_out(model, "test"), model.checkpoint)
    except ConfigError as error:
        return str(error)
