"""`jointgen report`: writes the page of a run, finished or not."""

from __future__ import annotations

from jointgen.cli.arguments import Arguments
from jointgen.cli.models import data_paths_of, open_model_of
from jointgen.data.split import open_split
from jointgen.errors import CheckpointError, ConfigError
from jointgen.inference.loading import compile_run
from jointgen.inference.model import Model
from jointgen.reports.page import PageModel, write_report
from jointgen.runs.folder import RunFolder
from jointgen.runtime.console import log_once, say


def report_command(arguments: Arguments) -> None:
    """Write report.html, without what needs a checkpoint or data where the run or this machine has none."""
    folder = RunFolder.open(arguments.run)
    folder.check_own(folder.report.name)
    folder.read_summary()  # one that is damaged is refused before the model is loaded
    shown: PageModel | str
    try:
        model, _ = open_model_of(arguments)
        compiled, shown = model.compiled, _shown(model)
    except CheckpointError as error:  # the run has no whole checkpoint: the rest can be shown
        compiled, shown = compile_run(folder, data_paths_of(arguments)), str(error)
        log_once(f"{' '.join(shown.split())}; the page is written without what needs a checkpoint")
    log_once(*folder.log_losses(compiled.recipe.train.log_every))
    write_report(folder, compiled, shown)
    say(f"{folder.report}: the run's page, for a browser")


def _shown(model: Model) -> PageModel | str:
    """The model with held-out rows, or the reason why they cannot be read."""
    try:
        return PageModel(model, open_split(model.compiled.binding, "test"), model.checkpoint)
    except ConfigError as error:
        return str(error)
