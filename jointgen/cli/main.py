"""The command line. Commands import what they need when they run: help and `list` need no torch.

Exit status: 0 done; 2 the user's input is wrong; 1 the run failed; 130 / 143 stopped by Ctrl-C / SIGTERM, a run
after it wrote a checkpoint; 141 whoever read our output went away.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jointgen.cli.arguments import Arguments, parse
from jointgen.errors import ConfigError, JointgenError, LostError, StoppedError
from jointgen.runtime.console import is_first, is_local_main, log, log_once

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe
    from jointgen.config.recipe import Recipe
    from jointgen.reports.comparison.page import Pictures


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
        if _tells(error):
            log(*str(error).split("\n"))
        return error.exit_status
    except KeyboardInterrupt:
        log_once("stopped; nothing was written since the last checkpoint")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush at exit
        return 141


# --- commands on recipes ---------------------------------------------------------------------------------------------


def run_command(arguments: Arguments) -> None:
    """`jointgen run`."""
    if arguments.dry_run:
        return _dry_run(arguments)
    from jointgen.runtime.launcher import end_with_launcher, is_launched, launch

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
    log_once(f"training in {found} processes, one for each GPU; --processes says otherwise")
    return found


def _train(arguments: Arguments) -> None:
    from jointgen.cli.shipped_recipes import find_recipe
    from jointgen.contracts.statistics import table_of
    from jointgen.runtime.signals import StopRequest
    from jointgen.runtime.workers import leave
    from jointgen.training.run import run

    recipe, out, resume, quiet = find_recipe(arguments.recipe), arguments.out, arguments.resume, arguments.quiet
    with StopRequest(quiet=not is_local_main()) as stop:
        done = run(
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
    if is_first():
        print(table_of(done.metrics))
        print(f"{done.path}: the run; look at it in {done.path / 'report.html'}")


def _tells(error: JointgenError) -> bool:
    """Most mistakes are met by all processes of a run and told once; one that a single process met is told by it."""
    if isinstance(error, LostError) or "RANK" not in os.environ:
        return is_local_main()
    from jointgen.runtime.launcher import says_first

    first = says_first(str(error))
    return is_local_main() if first is None else first


def _prepared(arguments: Arguments) -> CompiledRecipe:
    """The recipe with its overrides, checked whole. Raises ConfigError with every problem."""
    from jointgen.compiler.compiled_recipe import compile_recipe
    from jointgen.registry.discovery import load_plugins

    return compile_recipe(_recipe(arguments), load_plugins().registry)


def _recipe(arguments: Arguments) -> Recipe:
    from jointgen.cli.shipped_recipes import find_recipe
    from jointgen.config.recipe import read_recipe
    from jointgen.registry.discovery import load_plugins

    return read_recipe(find_recipe(arguments.recipe), arguments.set, registry=load_plugins().registry)


def _dry_run(arguments: Arguments) -> None:
    from jointgen.config.recipe import write_recipe
    from jointgen.training.warm_start import warm_start

    compiled = _prepared(arguments)
    if not arguments.resume:
        warm_start(compiled)
    print(write_recipe(compiled.recipe, compiled.registry), end="")


def explain_command(arguments: Arguments) -> None:
    """`jointgen explain`."""
    compiled = _prepared(arguments)
    from jointgen.reports.explain.explain import explain

    print(explain(compiled))


def list_command(arguments: Arguments) -> None:
    """`jointgen list`."""
    from jointgen.cli.listing import listing, listing_json
    from jointgen.registry.discovery import load_plugins

    print((listing_json if arguments.json else listing)(load_plugins(), arguments.kind))


def copy_command(arguments: Arguments) -> None:
    """`jointgen copy`."""
    from jointgen.cli.shipped_recipes import copy_recipe, shipped_recipes

    if arguments.recipe is None:
        raise ConfigError(f"copy which recipe? shipped: {', '.join(shipped_recipes()) or 'none'}")
    copies = copy_recipe(arguments.recipe, Path(arguments.destination))
    for path in copies:
        print(path)
    print(f"run it: jointgen run {copies[0]}")


def plugin_command(arguments: Arguments) -> None:
    """`jointgen plugin new`."""
    from jointgen.cli.scaffold import write_plugin

    name, kind = arguments.name, arguments.kind
    folder = write_plugin(name, kind, Path(arguments.out or name))
    print(f"{folder}: a plugin package with the {kind.replace('_', ' ')} {name!r}")
    print(f"install it: uv pip install -e {folder}")
    print(f"test it: pytest {folder}")
    print(f"run it: jointgen run {folder / 'recipes' / name}.toml")


def data_command(arguments: Arguments) -> None:
    """`jointgen data prepare` and `jointgen data verify`."""
    _verify(arguments) if arguments.action == "verify" else _pack(arguments)


def _pack(arguments: Arguments) -> None:
    from jointgen.images import prepare as packing
    from jointgen.runtime.progress import Counter

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
    log_once(*lines.skipped)
    print(f"{dest}: {lines.held}" + ("" if worked else "; it was finished before, and nothing was done"))
    print(f"train on it: jointgen run RECIPE --set data.type=prepared --set data.path={dest}")


def _verify(arguments: Arguments) -> None:
    from jointgen.images.prepare import verify
    from jointgen.runtime.progress import Counter

    with Counter("verifying") as counter:
        manifest = verify(arguments.destination, counter)
    print(f"{arguments.destination}: {len(manifest.stored)} files are what the manifest says")


# --- all of them -----------------------------------------------------------------------------------------------------


def _on_a_run(arguments: Arguments) -> None:
    from jointgen.cli import runs as cli_runs

    cli_runs.COMMANDS[arguments.command](arguments)


def _eval(arguments: Arguments) -> None:
    from jointgen.cli.evaluate import eval_command

    eval_command(arguments)


def compare_command(arguments: Arguments) -> None:
    """`jointgen compare`."""
    from jointgen.cli import compare as cli_compare

    cli_compare.compare_command(arguments, _drawn)


def _drawn(models: Sequence[tuple[str, str]], device: str) -> Pictures:
    from jointgen.cli.runs import workers_on
    from jointgen.reports.comparison.figures import draw

    return draw(models, str(workers_on(device).device))


def _report(arguments: Arguments) -> None:
    from jointgen.cli.report import report_command

    report_command(arguments)


COMMANDS: dict[str, Callable[[Arguments], None]] = {
    "run": run_command,
    "explain": explain_command,
    "list": list_command,
    "copy": copy_command,
    "plugin": plugin_command,
    "data": data_command,
    "compare": compare_command,
    "eval": _eval,
    "report": _report,
    **dict.fromkeys(("sample", "reconstruct", "encode"), _on_a_run),
}
