"""`jointgen eval`: any metric on any finished run, in several processes, going on where it was stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NoReturn

import attrs

from jointgen.cli.arguments import Arguments, launch_command
from jointgen.cli.models import open_model_of, user_rows
from jointgen.config.fields import MetricField
from jointgen.config.structure import structure, unstructure
from jointgen.config.toml import named_tables
from jointgen.contracts.figures import Estimate, table_of
from jointgen.data.split import Split, open_split
from jointgen.errors import ComponentError, ConfigError, Problem, StoppedError, placing
from jointgen.evaluation.evaluate import evaluate, metrics_of
from jointgen.evaluation.partial_results import PartialResults
from jointgen.inference.model import Model
from jointgen.runs.checkpoint import MANIFEST
from jointgen.runs.folder import RunFolder
from jointgen.runtime.console import log, say_text
from jointgen.runtime.launcher import end_with_launcher
from jointgen.runtime.progress import Counter
from jointgen.runtime.ranks import is_launched, is_main
from jointgen.runtime.regular_files import read_regular
from jointgen.runtime.signals import handled
from jointgen.runtime.torch_settings import switched
from jointgen.runtime.workers import leave


def eval_command(arguments: Arguments) -> None:
    """Evaluate a run's checkpoint in one process or in several, or continue an evaluation that was stopped."""
    if is_launched():
        end_with_launcher()
    elif (arguments.processes or 1) > 1:
        launch_command(arguments, arguments.processes)
        return

    def stop(number: int, frame: Any) -> NoReturn:
        raise StoppedError(f"{arguments.run}: stopped; run the same command again to continue", number)

    with handled(stop):  # a signal ends the evaluation at once; the statistics that were collected are kept
        _evaluate(arguments)
    leave()


def _evaluate(arguments: Arguments) -> None:
    folder = RunFolder.open(arguments.run)
    folder.check_own(folder.evaluation.name, folder.evaluations.name)
    if keeps := arguments.rows is None and arguments.split is None and arguments.images is None:
        folder.read_evaluation()  # one that is damaged is refused before anything is evaluated
    model, workers = open_model_of(arguments)
    recipe = model.compiled.recipe
    metrics = chosen_metrics(arguments.metrics, model)
    split = _split(arguments, model)
    partial = PartialResults(folder.evaluations / _name(folder, arguments, model, metrics, split))
    folder.check_own(f"{folder.evaluations.name}/{partial.folder.name}")
    failed: list[str] = []
    with switched(deterministic=recipe.train.deterministic, threads=None), Counter("evaluating") as counter:
        found = evaluate(
            model,
            split,
            metrics,
            batch=recipe.eval.batch,
            seed=recipe.seed,
            workers=workers,
            partial=partial,
            progress=counter if is_main() else lambda done, total: None,
            failed=failed,
        )
    if not is_main():
        return
    summary, _ = folder.summary_or_remark()  # a remark on it was printed when the model was opened
    log(*(summary.distrusted() if summary is not None else ()))
    try:
        if keeps:
            kept = {name: estimate for name, estimate in found.items() if estimate.note not in failed}
            folder.add_evaluation(model.checkpoint, kept)
        else:
            log("these figures are printed and not kept: --rows, --split and --images look at other rows than the run")
    finally:  # the figures are printed even if the disk is full
        say_text(json.dumps(_as_dicts(found), indent=2) if arguments.json else table_of(found))
    partial.discard()
    if failed:  # the other figures are kept
        raise ComponentError("\n".join(failed))


def _as_dicts(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: estimate.as_dict() for name, estimate in estimates.items()}


def _split(arguments: Arguments, model: Model) -> Split:
    table = model.compiled.recipe.eval
    if arguments.images is not None:
        split = user_rows(arguments, model)
    else:
        split = open_split(model.compiled.binding, arguments.split or table.split)
    rows = arguments.rows or (table.rows if arguments.images is None else None)
    return split if rows is None else split.spread(rows)


def _name(folder: RunFolder, arguments: Arguments, model: Model, metrics: list[Any], split: Split) -> str:
    """Name the folder of partial results: the checkpoint and a hash of everything that the figures depend on."""
    manifest = folder.checkpoints / model.checkpoint / MANIFEST
    dependencies = [_tables(metrics, model), split.name, len(split), str(arguments.images), model.compiled.recipe.seed]
    digest = hashlib.blake2b(read_regular(manifest), digest_size=8)
    digest.update(json.dumps(dependencies, sort_keys=True).encode())
    return f"{model.checkpoint}-{digest.hexdigest()}"


# --- which metrics ---------------------------------------------------------------------------------------------------


@attrs.frozen
class _MetricTables:
    metrics: list[MetricField]


def chosen_metrics(text: str | None, model: Model) -> list[Any]:
    """Read the value of --metrics, such as ``elbo, iwae{k=1000}``.

    Args:
        text: Names of metrics, each with the recipe's settings where it has any, and then with those in braces. None:
            the recipe's metrics or, where it names none, all that are not costly.
        model: The model to evaluate.

    Raises:
        ConfigError: With every problem.
    """
    if text is None:
        return metrics_of(model.compiled)
    if not text.strip():
        raise ConfigError("names no metric", "--metrics")
    tables: list[Mapping[str, Any]] = []
    with placing("--metrics"):
        named = named_tables(text)
    for settings in named:
        own = [t for t in _tables(model.compiled.recipe.eval.metrics, model) if t["type"] == settings["type"]]
        tables += [{**table, **settings} for table in own or [{}]]
    try:
        return structure({"metrics": tables}, _MetricTables, model.compiled.registry).metrics
    except ConfigError as error:
        # the user wrote no list, so the place in it goes; a metric's own key stays
        keys = [tuple(key for key in problem.path[2:] if key != "type") for problem in error.problems]
        lines = [str(Problem(p.message, *path)) for p, path in zip(error.problems, keys, strict=True)]
        raise ConfigError(lines, "--metrics") from None


def _tables(metrics: list[Any], model: Model) -> list[dict[str, Any]]:
    written = unstructure(_MetricTables(metrics), model.compiled.registry)
    return list(written.get("metrics", []))
