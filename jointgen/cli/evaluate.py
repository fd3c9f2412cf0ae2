"""`jointgen eval`: any metric on any finished run, in several processes, going on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import attrs

from jointgen.cli.arguments import Arguments, launch_command
from jointgen.cli.models import open_model_of, user_rows
from jointgen.config.fields import MetricField
from jointgen.config.structure import structure, unstructure
from jointgen.contracts.figures import table_of
from jointgen.data.split import Split, open_split
from jointgen.errors import ConfigError, Problem, StoppedError
from jointgen.evaluation.evaluate import evaluate, metrics_of
from jointgen.evaluation.partial_results import PartialResults
from jointgen.inference.model import Model
from jointgen.runs.checkpoint import MANIFEST
from jointgen.runs.folder import RunFolder
from jointgen.runtime.console import log
from jointgen.runtime.launcher import end_with_launcher
from jointgen.runtime.progress import Counter
from jointgen.runtime.ranks import is_launched, is_main
from jointgen.runtime.signals import handled
from jointgen.runtime.torch_settings import switched
from jointgen.runtime.workers import leave
from jointgen.training.critic_trust import distrusted


def eval_command(arguments: Arguments) -> None:
    """Evaluates a run's checkpoint in one process or in several; what was stopped is continued."""
    if is_launched():
        end_with_launcher()
    elif (arguments.processes or 1) > 1:
        launch_command(arguments, arguments.processes)
        return
    with _stopped_in_words(arguments.run):
        _evaluate(arguments)
    leave()


def _evaluate(arguments: Arguments) -> None:
    model, workers = open_model_of(arguments)
    recipe = model.compiled.recipe
    metrics = chosen_metrics(arguments.metrics, model)
    split = _split(arguments, model)
    partial = PartialResults(Path(arguments.run) / "evaluations" / _name(arguments, model, metrics, split))
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
        )
    estimates = {name: estimate.as_dict() for name, estimate in found.items()}
    if not is_main():
        return
    log(*distrusted(RunFolder.open(arguments.run).read_summary()))
    try:
        if _is_of_the_run(arguments):
            RunFolder.open(arguments.run).add_evaluation(model.checkpoint, estimates)
        else:
            log("figures of other rows than the run's own are not kept: --rows, --split and --images are for a look")
    finally:  # a full disk does not take them along, nor a closed pipe what is kept
        print(json.dumps(estimates, indent=2) if arguments.json else table_of(estimates), flush=True)
    partial.discard()


def _split(arguments: Arguments, model: Model) -> Split:
    table = model.compiled.recipe.eval
    if arguments.images is not None:
        split = user_rows(arguments, model)
    else:
        split = open_split(model.compiled.binding, arguments.split or table.split)
    rows = arguments.rows or (table.rows if arguments.images is None else None)
    return split if rows is None else split.first(rows)


def _is_of_the_run(arguments: Arguments) -> bool:
    """Whether these are the figures that the run stands for; a look at other rows is printed and not kept."""
    return arguments.rows is None and arguments.split is None and arguments.images is None


def _name(arguments: Arguments, model: Model, metrics: list[Any], split: Split) -> str:
    """Of all that the figures depend on."""
    manifest = Path(arguments.run) / "checkpoints" / model.checkpoint / MANIFEST
    what = [_tables(metrics, model), split.name, len(split), str(arguments.images), model.compiled.recipe.seed]
    digest = hashlib.blake2b(manifest.read_bytes(), digest_size=8)
    digest.update(json.dumps(what, sort_keys=True).encode())
    return f"{model.checkpoint}-{digest.hexdigest()}"


# --- which metrics ---------------------------------------------------------------------------------------------------


@attrs.frozen
class _Chosen:
    metrics: list[MetricField]


def chosen_metrics(text: str | None, model: Model) -> list[Any]:
    """``elbo, iwae{k=1000}``: those named, each with the recipe's settings where it has any, and with those in braces.

    None: the recipe's, otherwise all that are not costly. Raises ConfigError with every problem.
    """
    if text is None:
        return metrics_of(model.compiled)
    if not text.strip():
        _refuse("names no metric")
    tables: list[Mapping[str, Any]] = []
    for name, settings in _named(text):
        own = [t for t in _tables(model.compiled.recipe.eval.metrics, model) if t["type"] == name]
        tables += [{**table, **settings} for table in own or [{"type": name}]]
    try:
        return structure({"metrics": tables}, _Chosen, model.compiled.registry).metrics
    except ConfigError as error:
        raise ConfigError([_of_option(problem) for problem in error.problems], "--metrics") from None


def _of_option(problem: Problem) -> str:
    """Drop the place in the list, which the user did not write; a metric's own key stays."""
    _, _, *keys = problem.path
    return problem.message if keys in ([], ["type"]) else str(Problem(problem.message, *keys))


def _named(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, settings) of each; settings are a TOML inline table."""
    rest = text.strip()
    while rest:
        found = re.match(r"([\w-]+)\s*(?=[{,]|$)", rest)
        table = _inline_table(rest[found.end() :]) if found else ""
        end = re.match(r"\s*(,|$)\s*", rest[found.end() + len(table) :]) if found else None
        if found is None or end is None:
            _refuse(f"{rest!r} is not NAME or NAME{{key = value}}, with commas between")
        yield found[1], tomllib.loads(f"x = {table or '{}'}")["x"]
        rest = rest[found.end() + len(table) + end.end() :]


def _inline_table(text: str) -> str:
    """That with which the text begins, or nothing."""
    if not text.startswith("{"):
        return ""
    ends = [i + 1 for i, letter in enumerate(text) if letter == "}"]  # of this table, or of one within it
    table = next((text[:end] for end in ends if _is_toml(text[:end])), text)
    try:
        tomllib.loads(f"x = {table}")
    except tomllib.TOMLDecodeError as error:
        _refuse(f"{table} is not a TOML inline table: {error}")
    return table


def _is_toml(value: str) -> bool:
    try:
        tomllib.loads(f"x = {value}")
    except tomllib.TOMLDecodeError:
        return False
    return True


def _refuse(problem: str) -> NoReturn:
    raise ConfigError(problem, "--metrics")


def _tables(metrics: list[Any], model: Model) -> list[dict[str, Any]]:
    written = unstructure(_Chosen(metrics), model.compiled.registry)
    return list(written.get("metrics", []))


# --- signals ---------------------------------------------------------------------------------------------------------


@contextmanager
def _stopped_in_words(run: str) -> Iterator[None]:
    """SIGINT and SIGTERM end the evaluation at once; what was collected is kept."""

    def stop(number: int, frame: Any) -> NoReturn:
        raise StoppedError(f"{run}: stopped; the same command goes on from here", number)

    with handled(stop):
        yield
