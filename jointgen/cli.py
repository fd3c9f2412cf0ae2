"""The command line (DESIGN.md 5.1). Commands import what they need when they run: help and `list` need no torch.

Exit status: 0 done; 2 the user's input is wrong; 1 the run failed; 130 / 143 stopped by Ctrl-C / SIGTERM, a run
after it wrote a checkpoint; 141 whoever read our output went away.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jointgen.arguments import ARRAY, PICTURE, TENSORS, Arguments, parse
from jointgen.errors import ConfigError, JointgenError, StoppedError

if TYPE_CHECKING:
    from jointgen.evaluate import Split
    from jointgen.model import Model
    from jointgen.prepare import Prepared
    from jointgen.recipe import Recipe


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status. Mistakes and failures are one line each on stderr."""
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        COMMANDS[arguments.command](arguments)
        sys.stdout.flush()  # a reader that is gone shows here, and not as a traceback while Python shuts down
        return 0
    except SystemExit as asked:  # argparse, after --help and --version
        return int(asked.code or 0)
    except JointgenError as error:
        _complain(*str(error).split("\n"))
        return error.exit_status
    except KeyboardInterrupt:
        _complain("stopped; nothing was written since the last checkpoint")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush at exit
        return 141


def _complain(*lines: str) -> None:
    if _speaks():
        for line in lines:
            print(f"jointgen: {line}", file=sys.stderr)


# --- commands on recipes ---------------------------------------------------------------------------------------------


def run_command(arguments: Arguments) -> None:
    """`jointgen run`."""
    if arguments.dry_run:
        return _print_resolved(_prepared(arguments))
    from jointgen.launch import end_with_launcher, is_launched, launch

    if is_launched():
        end_with_launcher()
        return _train(arguments)
    processes = arguments.processes or _default_processes(arguments)
    if processes == 1:
        return _train(arguments)
    if status := launch(arguments.argv, processes):
        raise SystemExit(status)
    return None


def _default_processes(arguments: Arguments) -> int:
    """One for each GPU of this machine that the batch divides over; one where there is no GPU."""
    import torch

    if torch.cuda.device_count() < 2:
        return 1
    train = _recipe(arguments).train
    if train.device not in ("auto", "cuda"):
        return 1
    found = max(n for n in range(1, torch.cuda.device_count() + 1) if train.batch % n == 0)
    _complain(f"training in {found} processes, one for each GPU; --processes says otherwise")
    return found


def _train(arguments: Arguments) -> None:
    from jointgen import train
    from jointgen.distributed import leave
    from jointgen.shipped import find_recipe
    from jointgen.stopping import StopRequest

    recipe, out, resume, quiet = find_recipe(arguments.recipe), arguments.out, arguments.resume, arguments.quiet
    with StopRequest(quiet=not _speaks()) as stop:
        done = train.run(
            recipe,
            arguments.set,
            out=out,
            resume=resume,
            allow_changes=arguments.allow_changes,
            stop=stop,
            quiet=quiet,
            processes=arguments.processes,
        )
    leave()
    if _is_main():
        print(_table_of(done.metrics))
        print(f"{done.path}: the run; its pictures are in {done.path / 'samples'}")


def _is_main() -> bool:
    """Whether this process is the only one, or the first of all that train one model."""
    return os.environ.get("RANK", "0") == "0"


def _speaks() -> bool:
    """Whether this process tells what went wrong: the first one of its machine. All of them fail alike."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _prepared(arguments: Arguments) -> Prepared:
    """The recipe with its overrides, checked whole. Raises ConfigError with every problem."""
    from jointgen.plugins import load_plugins
    from jointgen.prepare import prepare

    return prepare(_recipe(arguments), load_plugins().registry)


def _recipe(arguments: Arguments) -> Recipe:
    from jointgen.plugins import load_plugins
    from jointgen.recipe import read_recipe
    from jointgen.shipped import find_recipe

    return read_recipe(find_recipe(arguments.recipe), arguments.set, registry=load_plugins().registry)


def _print_resolved(prepared: Prepared) -> None:
    from jointgen.recipe import write_recipe

    print(write_recipe(prepared.recipe, prepared.registry), end="")


def explain_command(arguments: Arguments) -> None:
    """`jointgen explain`."""
    prepared = _prepared(arguments)
    from jointgen.explain import explain

    print(explain(prepared))


def list_command(arguments: Arguments) -> None:
    """`jointgen list`."""
    from jointgen.listing import listing, listing_json
    from jointgen.plugins import load_plugins

    print((listing_json if arguments.json else listing)(load_plugins(), arguments.kind))


def copy_command(arguments: Arguments) -> None:
    """`jointgen copy`."""
    from jointgen.shipped import copy_recipe, shipped_recipes

    if arguments.recipe is None:
        raise ConfigError(f"copy which recipe? shipped: {', '.join(shipped_recipes()) or 'none'}")
    copies = copy_recipe(arguments.recipe, Path(arguments.destination))
    for path in copies:
        print(path)
    print(f"run it: jointgen run {copies[0]}")


def plugin_command(arguments: Arguments) -> None:
    """`jointgen plugin new`."""
    from jointgen.scaffold import write_plugin

    name, kind = arguments.name, arguments.kind
    folder = write_plugin(name, kind, Path(arguments.out or name))
    print(f"{folder}: a plugin package with the {kind.replace('_', ' ')} {name!r}")
    print(f"install it: pip install -e {folder}")
    print(f"test it: pytest {folder}")
    print(f"run it: jointgen run {folder / 'recipes' / name}.toml")


def data_command(arguments: Arguments) -> None:
    """`jointgen data prepare` and `jointgen data verify`."""
    _verify(arguments) if arguments.action == "verify" else _pack(arguments)


def _pack(arguments: Arguments) -> None:
    from jointgen import packing
    from jointgen.counter import Counter

    source, dest = arguments.source, arguments.destination
    try:
        with Counter("preparing") as counter:
            manifest, worked = packing.prepare_images(
                source,
                dest,
                arguments.size,
                arguments.channels,
                workers=arguments.workers or 0,
                max_broken=arguments.max_broken,
                test_fraction=arguments.test_fraction,
                progress=counter,
            )
    except KeyboardInterrupt:
        raise StoppedError(f"{dest}: stopped; the same command goes on from here", signal.SIGINT) from None
    lines = packing.report(manifest)
    _complain(*lines.skipped)
    print(f"{dest}: {lines.held}" + ("" if worked else "; it was finished before, and nothing was done"))
    print(f"train on it: jointgen run RECIPE --set data.type=prepared --set data.path={dest}")


def _verify(arguments: Arguments) -> None:
    from jointgen.counter import Counter
    from jointgen.packing import verify

    with Counter("verifying") as counter:
        manifest = verify(arguments.destination, counter)
    print(f"{arguments.destination}: {len(manifest.stored)} files are what the manifest says")


# --- commands on runs ------------------------------------------------------------------------------------------------


def sample_command(arguments: Arguments) -> None:
    """`jointgen sample`."""
    path = _output(arguments, PICTURE, ARRAY)
    model = _open(arguments)
    from jointgen import inference
    from jointgen.counter import Counter
    from jointgen.outputs import write_arrays, writing

    variable = inference.generated(model)
    space = model.spaces[variable]
    if path.suffix.lower() == PICTURE:
        inference.check_picture(variable, space, points=True)
    with Counter("sampling") as counter:
        samples = inference.sample_rows(
            model, arguments.n, arguments.given, seed=arguments.seed, reading=arguments.reading, progress=counter
        )
    if path.suffix.lower() == PICTURE:
        writing(path, lambda: inference.draw_samples(samples, space, path))
    else:
        write_arrays(path, {variable: samples.numpy()}, {})
    print(f"{path}: {len(samples)} samples of {variable}, {space}")


def reconstruct_command(arguments: Arguments) -> None:
    """`jointgen reconstruct`."""
    path = _output(arguments, PICTURE)
    model = _open(arguments)
    from jointgen import inference
    from jointgen.counter import Counter
    from jointgen.outputs import writing

    variable = inference.rebuildable(model)
    space = model.spaces[variable]
    inference.check_picture(variable, space, points=False)
    split = _rows(arguments, model, variable, "test").first(arguments.n)
    with Counter("reconstructing") as counter:
        truth, rebuilt = inference.rebuild_rows(model, split, arguments.given, progress=counter)
    writing(path, lambda: inference.draw_pairs(truth, rebuilt, space, path))
    print(f"{path}: {len(truth)} pairs, each truth with its reconstruction at its right")


def encode_command(arguments: Arguments) -> None:
    """`jointgen encode`."""
    path = _output(arguments, ARRAY, TENSORS)
    model = _open(arguments)
    from jointgen import inference
    from jointgen.counter import Counter
    from jointgen.outputs import write_arrays
    from jointgen.user_images import UserImages

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
    import json

    from jointgen.counter import Counter
    from jointgen.evaluate import evaluate, open_split
    from jointgen.switches import switched

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
    print(json.dumps(estimates, indent=2) if arguments.json else _table_of(estimates))


def _output(arguments: Arguments, *endings: str) -> Path:
    from jointgen.outputs import check_output

    return check_output(arguments.output, endings)


def _open(arguments: Arguments) -> Model:
    """The run's model; damaged checkpoints and a run that is not finished are remarked on."""
    from jointgen.distributed import Workers
    from jointgen.inference import open_run

    try:
        device = str(Workers.start(arguments.device).device)
    except ConfigError as error:
        raise ConfigError([problem.replace("train.device", "--device") for problem in error.problems]) from None
    try:
        model, remarks = open_run(arguments.run, device, arguments.checkpoint)
    except ConfigError as error:
        raise ConfigError([re.sub("^checkpoint:", "--checkpoint:", problem) for problem in error.problems]) from None
    _complain(*remarks)
    return model


def _rows(arguments: Arguments, model: Model, variable: str, split: str) -> Split:
    """The user's own images where there are any, otherwise a split of the run's data."""
    from jointgen import inference
    from jointgen.counter import Counter
    from jointgen.user_images import read_user_images

    if arguments.images is None:
        return inference.held_out(model, split)
    with Counter("reading images") as counter:
        images = read_user_images(arguments.images, model.spaces[variable], variable, counter)
    _complain(*(f"skipped {line}" for line in images.skipped))
    return inference.as_split(images, model)


def _metrics(names: str | None, model: Model) -> list[Any]:
    """Those named, with the recipe's settings where it has any; otherwise the recipe's, otherwise all."""
    from jointgen.evaluate import default_metrics

    registry = model.prepared.registry
    own = {registry.name_of("metric", type(metric)): metric for metric in model.prepared.recipe.eval.metrics}
    if names is None:
        return list(own.values()) or default_metrics(registry)
    wanted = [name.strip() for name in names.split(",")]
    return [own[name] if name in own else registry.get("metric", name).load()() for name in wanted]


def _table_of(estimates: Any) -> str:
    """One line for each estimate, as it stands in summary.json."""
    from jointgen.statistics import Estimate
    from jointgen.train import describe

    return "\n".join(describe(name, Estimate(**fields)) for name, fields in estimates.items())


COMMANDS: dict[str, Callable[[Arguments], None]] = {
    "run": run_command,
    "explain": explain_command,
    "list": list_command,
    "copy": copy_command,
    "plugin": plugin_command,
    "data": data_command,
    "sample": sample_command,
    "reconstruct": reconstruct_command,
    "encode": encode_command,
    "eval": eval_command,
}
