"""What `jointgen run` does: trains in one process or in several, or only checks (`--dry-run`)."""

from __future__ import annotations

import json

import torch

from jointgen.cli.arguments import Arguments, launch_command
from jointgen.cli.run import announced_device
from jointgen.config.plugin_files import registry_of
from jointgen.config.recipe import read_recipe, write_recipe
from jointgen.config.toml import parse_toml
from jointgen.contracts.figures import table_of
from jointgen.errors import placing_options
from jointgen.inference.data_paths import read_data_paths
from jointgen.registry.hooks import RunView
from jointgen.runs.folder import without_nan
from jointgen.runtime.console import log, log_once, say, say_text
from jointgen.runtime.launcher import end_with_launcher
from jointgen.runtime.ranks import is_launched, is_local_main, is_main
from jointgen.runtime.signals import StopRequest
from jointgen.runtime.workers import find_device, leave
from jointgen.training.check import check_run
from jointgen.training.run import run, run_folder


def train_command(arguments: Arguments) -> None:
    """Train a recipe, or check it and print it resolved (--dry-run)."""
    if arguments.dry_run:
        with placing_options("out"):
            _dry_run(arguments)
    elif is_launched():
        end_with_launcher()
        _train(arguments)
    elif (processes := arguments.processes or _default_processes(arguments)) > 1:
        if arguments.processes is None:
            log_once(f"training in {processes} processes, one for each GPU; --processes overrides this")
        launch_command(arguments, processes)
    else:
        _train(arguments)


def _dry_run(arguments: Arguments) -> None:
    registry = registry_of(arguments.tables)
    recipe = read_recipe(arguments.tables, registry=registry)
    checked = check_run(
        recipe,
        registry,
        out=run_folder(arguments.out, recipe),
        resume=arguments.resume is not None,
        allow_changes=arguments.allow_changes,
        processes=arguments.processes or _default_processes(arguments),
        data_paths=read_data_paths(arguments.data_paths),
    )
    written = write_recipe(checked.written or recipe, registry)
    say_text(json.dumps(parse_toml(written), indent=2) if arguments.json else written)
    log(*checked.unchecked)


def _default_processes(arguments: Arguments) -> int:
    """Count the GPUs of this machine that the batch divides over; 1 where there is none."""
    gpus = torch.cuda.device_count()
    if gpus < 2:
        return 1
    train = read_recipe(arguments.tables, registry=registry_of(arguments.tables)).train
    if train.device not in ("auto", "cuda"):
        return 1
    return max(n for n in range(1, gpus + 1) if train.batch % n == 0)


class _Announced:
    """Says that a run begins, once nothing is found wrong with it. One that goes on has said so."""

    def jointgen_run_start(self, run: RunView) -> None:
        if run.resumed_from is None:
            log_once(f"training {run.name} into {run.path}")


def _train(arguments: Arguments) -> None:
    if announced_device(arguments.tables) == "auto":  # which it is could not be said before torch was imported
        device = find_device("auto", "fp32", 1)
        log_once(f"the device is {torch.cuda.get_device_name() if device.type == 'cuda' else device}")
    with StopRequest(quiet=not is_local_main()) as stop, placing_options("out"):
        done = run(
            arguments.tables,
            out=arguments.out,
            resume=arguments.resume or False,
            allow_changes=arguments.allow_changes,
            stop=stop,
            processes=arguments.processes,
            data=arguments.data_paths,
            callbacks=[_Announced()],
        )
    leave()
    if is_main():
        if arguments.json:
            say_text(json.dumps(without_nan({"path": str(done.path), **done.record.as_dict()}), indent=2))
        else:
            say_text(table_of(done.record.metrics))
            say(f"{done.path}: the run; look at it in {done.path / 'report.html'}")
