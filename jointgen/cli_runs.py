"""The commands on trained runs: sample, reconstruct, encode, eval, report. Imported when one of them is called."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from jointgen import inference
from jointgen.arguments import ARRAY, PICTURE, TENSORS, Arguments
from jointgen.distributed import Workers
from jointgen.errors import CheckpointError, ConfigError
from jointgen.evaluate import Split, evaluate, metrics_of, open_split
from jointgen.model import Model
from jointgen.outputs import check_output, write_arrays, writing_output
from jointgen.plugins import load_plugins
from jointgen.prepare import prepare
from jointgen.progress import Counter
from jointgen.recipe import read_recipe
from jointgen.report import Shown, write_report
from jointgen.runfolder import RunFolder
from jointgen.statistics import table_of
from jointgen.switches import switched
from jointgen.telling import tell
from jointgen.user_images import UserImages, read_user_images


def sample_command(arguments: Arguments) -> None:
    """`jointgen sample`."""
    path = check_output(arguments.output, PICTURE, ARRAY)
    model = _open(arguments)
    variable = inference.generated(model)
    space = model.spaces[variable]
    if path.suffix.lower() == PICTURE:
        inference.check_picture(variable, space, points=True)
    with Counter("sampling") as counter:
        samples = inference.sample_rows(
            model, arguments.n, arguments.given, seed=arguments.seed, reading=arguments.reading, progress=counter
        )
    if path.suffix.lower() == PICTURE:
        with writing_output(path):
            inference.draw_samples(samples, space, path)
    else:
        write_arrays(path, {variable: samples.numpy()}, {})
    print(f"{path}: {len(samples)} samples of {variable}, {space}")


def reconstruct_command(arguments: Arguments) -> None:
    """`jointgen reconstruct`."""
    path = check_output(arguments.output, PICTURE)
    model = _open(arguments)
    variable = inference.rebuildable(model)
    space = model.spaces[variable]
    inference.check_picture(variable, space, points=False)
    split = _rows(arguments, model, variable, "test").first(arguments.n)
    with Counter("reconstructing") as counter:
        truth, rebuilt = inference.rebuild_rows(model, split, arguments.given, progress=counter)
    with writing_output(path):
        inference.draw_pairs(truth, rebuilt, space, path)
    print(f"{path}: {len(truth)} pairs, each truth with its reconstruction at its right")


def encode_command(arguments: Arguments) -> None:
    """`jointgen encode`."""
    path = check_output(arguments.output, ARRAY, TENSORS)
    model = _open(arguments)
    split = _rows(arguments, model, inference.encoded_variable(model), arguments.split)
    with Counter("encoding") as counter:
        codes = inference.encode_rows(model, split, arguments.given, progress=counter)
    origins = [rows.origins for rows in split.sources.values() if isinstance(rows, UserImages)]
    texts = {"files": origins[0]} if origins else {}
    write_arrays(path, {name: values.numpy() for name, values in codes.items()}, texts)
    print(f"{path}: {', '.join(f'{name} {tuple(values.shape)}' for name, values in codes.items())}")


def eval_command(arguments: Arguments) -> None:
    """`jointgen eval`."""
    model = _open(arguments)
    recipe = model.prepared.recipe
    metrics = _metrics(arguments.metrics, model)
    split, rows = open_split(model.prepared, arguments.split or recipe.eval.split), arguments.rows or recipe.eval.rows
    with switched(deterministic=recipe.train.deterministic, threads=None), Counter("evaluating") as counter:
        found = evaluate(
            model,
            split if rows is None else split.first(rows),
            metrics,
            batch=recipe.eval.batch,
            seed=recipe.seed,
            progress=counter,
        )
    estimates = {name: estimate.as_dict() for name, estimate in found.items()}
    print(json.dumps(estimates, indent=2) if arguments.json else table_of(estimates))


def report_command(arguments: Arguments) -> None:
    """`jointgen report`."""
    try:
        model = _open(arguments)
    except CheckpointError as error:  # none yet, or none that is whole: what else the run has can be shown
        folder, registry = RunFolder.open(arguments.run), load_plugins().registry
        write_report(folder, prepare(read_recipe(folder.recipe, registry=registry), registry), str(error))
    else:
        folder = RunFolder.open(arguments.run)
        write_report(folder, model.prepared, _shown(model))
    print(f"{folder.report}: the run's page, for a browser")


def _shown(model: Model) -> Shown | str:
    """The model with held-out rows, or why these cannot be read."""
    try:
        return Shown(model, inference.held_out(model, "test"), model.checkpoint)
    except ConfigError as error:
        return str(error)


def _open(arguments: Arguments) -> Model:
    """The run's model; damaged checkpoints and a run that is not finished are remarked on."""
    try:
        device = str(Workers.start(arguments.device).device)
    except ConfigError as error:
        raise ConfigError([problem.replace("train.device", "--device") for problem in error.problems]) from None
    try:
        model, remarks = inference.open_run(arguments.run, device, arguments.checkpoint)
    except ConfigError as error:
        raise ConfigError([re.sub("^checkpoint:", "--checkpoint:", problem) for problem in error.problems]) from None
    tell(*remarks)
    return model


def _rows(arguments: Arguments, model: Model, variable: str, split: str) -> Split:
    """The user's own images where there are any, otherwise a split of the run's data."""
    if arguments.images is None:
        return inference.held_out(model, split)
    with Counter("reading images") as counter:
        images = read_user_images(arguments.images, model.spaces[variable], variable, counter)
    tell(*(f"skipped {line}" for line in images.skipped))
    return inference.as_split(images, model)


def _metrics(names: str | None, model: Model) -> list[Any]:
    """Those named, with the recipe's settings where it has any; otherwise the recipe's, otherwise all."""
    if names is None:
        return metrics_of(model.prepared)
    registry = model.prepared.registry
    own = {registry.name_of("metric", type(metric)): metric for metric in model.prepared.recipe.eval.metrics}
    wanted = [name.strip() for name in names.split(",")]
    return [own[name] if name in own else registry.get("metric", name).load()() for name in wanted]


COMMANDS: dict[str, Callable[[Arguments], None]] = {
    "sample": sample_command,
    "reconstruct": reconstruct_command,
    "encode": encode_command,
    "eval": eval_command,
    "report": report_command,
}
