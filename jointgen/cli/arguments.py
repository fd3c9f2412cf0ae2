"""The grammar of the command line: the table of commands, their arguments, and errors that name the nearest word.

Torch-free. A command's code is imported when the command is called, so that `jointgen --help` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, NoReturn

import attrs

from jointgen.cli.interrupts import INTERRUPTS
from jointgen.config.fields import MAX_COUNT, MAX_SIDE, MAX_WORKERS
from jointgen.errors import RAISED, ConfigError, PluginError, suggest
from jointgen.registry.components import KINDS
from jointgen.registry.discovery import others_plugins
from jointgen.registry.faults import said
from jointgen.runtime.console import say_text, warn
from jointgen.text import shortened

Arguments = argparse.Namespace
AUTO = "auto"
"""What `--resume` may be followed by."""
SHELLS = ("bash", "zsh", "fish")
"""The shells for which there is a completion script."""
PICTURE, ARRAY, TENSORS, TABLE, FILM = ".png", ".npz", ".safetensors", ".csv", ".gif"
PROGRAM, ONNX = ".pt2", ".onnx"
FOLDER = "DIR/"
"""The endings of files that commands write; in the place of one, images, each a file of a folder."""
IMAGES = "--images"
OF_HELD_OUT = "at most so many rows where none of your own are named"
LINES = (
    f"a picture ({PICTURE}) with a line for each row, the values in model space ({ARRAY}), or a folder of images "
    f"({FOLDER})"
)
GRID = f"a picture of a grid ({PICTURE}), the values in model space ({ARRAY}), or a folder of images ({FOLDER})"


class Parser(argparse.ArgumentParser):
    """A parser that raises ConfigError instead of printing its usage, and that takes no abbreviated options.

    Abbreviations would become part of people's scripts, and break when an option with the same beginning is added.
    """

    def __init__(self, **options: Any):
        super().__init__(**{**options, "allow_abbrev": False})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, but say which options do not exist before asking for what is missing."""
        words = list(args or ())
        if any(isinstance(action, argparse._SubParsersAction) for action in self._actions):
            words = [*itertools.takewhile(lambda word: word.startswith("-"), words)]  # the command checks its own
        words = [*itertools.takewhile(lambda word: word != "--", words)]
        args = [*_with_plain_resume(args or ())]
        if unknown := [word for word in words if self._is_unknown(word)]:
            raise ConfigError([f"unknown option {word}{suggest(word.split('=')[0], self.options)}" for word in unknown])
        try:
            return super().parse_known_args(args, namespace)
        except ConfigError:
            if IMAGES not in self.options or (moved := _with_run_in_front(args)) is None:
                raise
        return super().parse_known_args(moved, namespace)

    def _is_unknown(self, word: str) -> bool:
        if word.startswith("--"):
            return word.split("=")[0] not in self.options and " " not in word
        is_option = word.startswith("-") and len(word) > 1 and not self._negative_number_matcher.match(word)
        return is_option and word[:2] not in self.options and " " not in word

    def error(self, message: str) -> NoReturn:
        """Raise ConfigError with argparse's message."""
        raise ConfigError(f"{message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print --help and --version as results are printed; argparse would ignore that it cannot."""
        say_text(message)

    @property
    def options(self) -> list[str]:
        """Every option that this parser knows, such as "--out"."""
        return [option for action in self._actions for option in action.option_strings]

    def add_action(self, actions: Any, name: str, summary: str) -> Parser:
        """Add a command, or the action of a command, with its summary as help and as description."""
        added: Parser = actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        added.set_defaults(parser=added)
        added.add_loudness()
        return added

    def add_loudness(self) -> None:
        """Add -q and -v, which may stand before or after the command's name."""
        group = self.add_mutually_exclusive_group()
        for option, what in (
            ("quiet", "print nothing to stderr but errors and losses"),
            ("verbose", "print details and the traceback of an error, too"),
        ):
            group.add_argument(
                f"-{option[0]}",
                f"--{option}",
                dest="loudness",
                action="store_const",
                const=option,
                default=argparse.SUPPRESS,  # what stands before the command's name is kept
                help=what,
            )


@attrs.frozen
class Command:
    """A command of the command line.

    Args:
        summary: What it does, as `jointgen --help` shows it.
        add_arguments: Adds the command's arguments to its parser.
        function: "module:function", imported when the command is called, or the function of a plugin; it takes the
            parsed arguments.
        check: The same of a function that is called before, and that imports little; empty for none.
        provider: The distribution that adds it, and its version; empty for our own.
    """

    summary: str
    add_arguments: Callable[[Parser], None]
    function: str | Callable[[Arguments], object]
    check: str = ""
    provider: str = ""

    def __call__(self, arguments: Arguments) -> None:
        """Import the function and call it, after the check."""
        if self.check:
            load(self.check)(arguments)
        (load(self.function) if isinstance(self.function, str) else self.function)(arguments)


def load(function: str) -> Callable[..., Any]:
    """Import a function by "module:name"."""
    module, _, name = function.partition(":")
    INTERRUPTS.importing(True)
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return found
    finally:
        INTERRUPTS.importing(False)


def launch_command(arguments: Arguments, processes: int) -> None:
    """Run the same command line in several processes of this machine.

    Raises:
        SystemExit: With the status of the first process that failed.
    """
    if status := load("jointgen.runtime.launcher:launch")(arguments.argv, processes):
        raise SystemExit(status)


def make_parser(commands: Mapping[str, Command]) -> Parser:
    """Make the parser of a whole command line of these commands."""
    parser = Parser(prog="jointgen", description="Joint-distribution generative models, from recipes and plugins.")
    parser.add_argument("--version", action="version", version=f"jointgen {metadata.version('jointgen')}")
    parser.add_loudness()
    parser.set_defaults(loudness="usual")
    actions = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name, command in commands.items():
        command.add_arguments(parser.add_action(actions, name, command.summary))
    return parser


def parse(argv: Sequence[str]) -> Arguments:
    """Parse a command line without the program's name.

    Returns:
        The arguments: `command` is the name of the command, `called` the Command, `argv` what was parsed.

    Raises:
        ConfigError: A command or an option does not exist; the nearest one is named.
    """
    named = argv[0] if argv and not argv[0].startswith("-") else None
    # plugins are looked for only where they may matter: it takes a while
    commands = COMMANDS if named in COMMANDS else {**COMMANDS, **plugin_commands()}
    parser = make_parser(commands)
    if named is not None and named not in commands:
        raise ConfigError(f"unknown command {named!r}{suggest(named, commands)}")
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        raise ConfigError(f"unexpected argument {unknown[0]!r} (see {arguments.parser.prog} --help)")
    arguments.argv, arguments.called = list(argv), commands[arguments.command]
    return arguments


def _with_plain_resume(words: Sequence[str]) -> Iterator[str]:
    """Write `--resume` as `--resume=auto`, so that argparse does not take the word that follows for its value."""
    for word, after in itertools.zip_longest(words, words[1:]):
        yield f"--resume={AUTO}" if word == "--resume" and after != AUTO else word


def _with_run_in_front(words: Sequence[str]) -> list[str] | None:
    """Put the last of several words after --images in front, for `reconstruct --images DIR RUN`; None without them."""
    if IMAGES not in words:
        return None
    start = words.index(IMAGES) + 1
    paths = [*itertools.takewhile(lambda word: not word.startswith("-"), words[start:])]
    last = start + len(paths) - 1
    return [words[last], *words[:last], *words[last + 1 :]] if len(paths) > 1 else None


@attrs.frozen
class PluginCommands:
    """The command line as a plugin's hook sees it; see `jointgen.plugin.Commands`."""

    provider: str
    added: dict[str, Command] = attrs.field(factory=dict)

    def add(
        self,
        name: str,
        summary: str,
        function: str | Callable[[Arguments], object],
        add_arguments: Callable[[Any], None] = lambda parser: None,
    ) -> None:
        """Add a command.

        Raises:
            PluginError: Its name is no single word of small letters, digits and dashes, or is taken.
        """
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise PluginError(f"the command {name!r} must be a word of small letters, digits and dashes")
        if name in COMMANDS or name in self.added:
            raise PluginError(f"the command {name!r} is there already")
        self.added[name] = Command(f"{summary} [{self.provider}]", add_arguments, function, provider=self.provider)


def plugin_commands() -> dict[str, Command]:
    """Return the commands of plugins by name. Those of a plugin whose hook raises are left out, which is said.

    Our own commands stand in a table, so that `jointgen --help` need not import our own plugins.
    """
    found = dict[str, Command]()
    for plugin in others_plugins().registry.with_hook("jointgen_commands"):
        of_plugin = PluginCommands(plugin.provider)
        try:
            plugin.manager.hook.jointgen_commands(commands=of_plugin)
            for name, command in of_plugin.added.items():
                if name in found:
                    raise PluginError(f"the command {name!r} is there already: {found[name].summary}")
                command.add_arguments(Parser(prog=name))
        except RAISED as error:
            warn(f"plugin {plugin.name!r} ({plugin.provider}) adds no command: {said(error)}")
        else:
            found |= of_plugin.added
    return found


# --- types of arguments ----------------------------------------------------------------------------------------------


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return what reads a whole number in [low, high]."""

    def read(text: str) -> int:
        if not (text.isdecimal() and len(text) <= MAX_DIGITS and low <= int(text) <= high):
            allowed = f"expected a whole number from {low:,} to {high:,}"
            raise argparse.ArgumentTypeError(f"{allowed}, got {shortened(repr(text))}")
        return int(text)

    return read


MAX_DIGITS = 40
"""So many digits of a number are read, leading zeros included."""
count = whole(1, MAX_COUNT)
worker_count = whole(1, MAX_WORKERS)


def seconds(text: str) -> float:
    """Read a number of seconds, 0 or more."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0.0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds >= 0, got {text!r}")
    return number


def share(text: str) -> float:
    """Read a number between 0 and 1."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.0 < number < 1.0:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, got {text!r}")
    return number


# --- commands on recipes ---------------------------------------------------------------------------------------------


def _add_run_options(run: Parser) -> None:
    _add_recipe(run)
    _add_places(run)
    run.add_argument("--out", metavar="DIR", help="the run folder (default: runs/NAME)")
    run.add_argument(
        "--resume",
        nargs="?",
        const=AUTO,
        choices=(AUTO,),
        help="go on from the folder's newest checkpoint, or start where it has none yet; says which it was",
    )
    run.add_argument(
        "--allow-changes", action="store_true", help="with --resume: accept a recipe that differs from the run's"
    )
    run.add_argument("--dry-run", action="store_true", help="check everything, print the resolved recipe, and stop")
    run.add_argument(
        "--processes",
        type=worker_count,
        metavar="N",
        help="train in N processes of this machine (default: one for each GPU, or one)",
    )
    _add_json(run, "print the summary of the finished run, or with --dry-run the recipe, as JSON, for scripts")


def _add_list_options(listed: Parser) -> None:
    listed.add_argument(
        "kind",
        nargs="?",
        metavar="KIND",
        help="list only this kind: encoder, data, metric, ...; or `recipe`: those that come along",
    )
    listed.add_argument("name", nargs="?", metavar="NAME", help="show the keys of this component, as in `encoder mlp`")
    _add_json(listed)
    _add_plugin(listed)


def _add_copy_options(copy: Parser) -> None:
    copy.add_argument("recipe", nargs="?", metavar="RECIPE", help="the recipe's name; without one, the names are shown")
    copy.add_argument(
        "destination", nargs="?", default=".", metavar="DEST", help="a folder or .toml file (default: here)"
    )


def _add_plugin_actions(plugin: Parser) -> None:
    actions = plugin.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    new = plugin.add_action(actions, "new", "write a plugin package to start from: a component, a recipe and its tests")
    new.add_argument("name", metavar="NAME", help="the name of the package and of its component, such as my_nets")
    new.add_argument(
        "--kind", default="family", metavar="KIND", help=f"the kind of component: {', '.join(KINDS)} (default: family)"
    )
    new.add_argument("--out", metavar="DIR", help="the new folder (default: NAME)")
    check = plugin.add_action(actions, "check", "check that the components of a Python file keep their promises")
    check.add_argument("file", metavar="FILE", help="a Python file with components of your own, such as nets.py")


def _add_data_actions(data: Parser) -> None:
    actions = data.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    prepare = data.add_action(actions, "prepare", "decode and resize a folder of images once, for fast training")
    prepare.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder with train/CLASS/* and val/CLASS/* (or test/), or with images in any folders",
    )
    prepare.add_argument("destination", metavar="DEST", help="the new folder; an interrupted one is continued")
    prepare.add_argument("--size", type=whole(1, MAX_SIDE), required=True, metavar="N", help="pixels a side")
    prepare.add_argument("--channels", type=int, choices=(1, 3), default=3, help="grey or colour (default: 3)")
    prepare.add_argument("--workers", type=worker_count, metavar="W", help="threads (default: one for each core)")
    prepare.add_argument(
        "--max-broken",
        type=whole(0, MAX_COUNT),
        default=10,
        metavar="K",
        help="how many files may be unreadable (default: 10)",
    )
    prepare.add_argument(
        "--test-fraction",
        type=share,
        metavar="F",
        help="the share that is held out where SOURCE has no val/ or test/ (default: 0.1)",
    )
    verify = data.add_action(actions, "verify", "read every byte of a prepared folder and compare it with the manifest")
    verify.add_argument("destination", metavar="DEST", help="a folder that `jointgen data prepare` wrote")


def _add_recipe(parser: Parser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a TOML file, or the name of a shipped recipe")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, as in train.steps=200"
    )
    _add_plugin(parser)


def _add_plugin(parser: Parser) -> None:
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE", help="a Python file with components of your own"
    )


def _add_json(parser: Parser, what: str = "print JSON, for scripts") -> None:
    parser.add_argument("--json", action="store_true", help=what)


def _add_explain_options(explain: Parser) -> None:
    _add_recipe(explain)
    _add_json(explain, "print the plan, the sizes and the requirements as JSON, for scripts")


def _add_cite_options(cite: Parser) -> None:
    cite.add_argument("recipe", metavar="RECIPE", help="a TOML file, the name of a shipped recipe, or a run folder")


def _add_schema_options(schema: Parser) -> None:
    schema.add_argument(
        "-o", "--output", metavar="FILE", help="write it to a file, such as jointgen.schema.json, instead of stdout"
    )


def _add_completion_options(completion: Parser) -> None:
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))


def _add_study_options(study: Parser) -> None:
    study.add_argument("study", metavar="STUDY", help="a TOML file with rows, a [grid] or a [search]")
    study.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a key in every run")
    study.add_argument("--out", metavar="DIR", help="the folder of the runs and tables (default: runs/STUDY)")
    study.add_argument("--budget", metavar="NAME", help="settings that the study has by this name")
    study.add_argument("--seeds", type=count, metavar="N", help="so many seeds of each row (default: the study's)")
    study.add_argument(
        "--row", action="append", default=[], dest="rows", metavar="NAME", help="only this row; may be repeated"
    )
    study.add_argument("--workers", type=worker_count, default=1, metavar="N", help="runs at a time (default: 1)")
    study.add_argument(
        "--limit-s",
        type=seconds,
        metavar="S",
        help="stop after so many seconds, each run with a checkpoint, with exit status 3; the same command goes on",
    )


def _add_runs_options(runs: Parser) -> None:
    runs.add_argument("folder", nargs="?", default="runs", metavar="DIR", help="where to look (default: runs)")
    runs.add_argument(
        "--sort",
        metavar="KEY",
        help="by a figure, such as fid, the best first, or by name, status, step, time_s or bytes",
    )
    runs.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only these, as in status=stopped, fid<20 or train.batch!=128; may be repeated",
    )
    _add_json(runs)


# --- commands on runs ------------------------------------------------------------------------------------------------


def _add_sample_options(sample: Parser) -> None:
    _add_run(sample)
    _add_places(sample)
    sample.add_argument(
        "-n", type=count, metavar="N", help="how many (default: 64); with --given y=all, of each class (default: 8)"
    )
    _add_output(
        sample,
        f"a picture of a grid ({PICTURE}), the values in model space ({ARRAY}), a table of vectors and labels in the "
        f"data's own units ({TABLE}), or a folder of images ({FOLDER})",
        *(PICTURE, ARRAY, TABLE, FOLDER),
    )
    sample.add_argument(
        "--start",
        type=whole(0, MAX_COUNT),
        default=0,
        metavar="I",
        help="number the samples from I on, to add others to those that a folder has (default: 0)",
    )
    sample.add_argument("--seed", type=int, default=0, help="the seed of the noise (default: 0)")
    sample.add_argument(
        "--reading",
        choices=("mean", "sample"),
        default="mean",
        help="show the decoder's mean (default) or draws from it",
    )
    _add_given(sample, "; y=all: every class in turn, a row of the grid each")


def _add_reconstruct_options(reconstruct: Parser) -> None:
    _add_run(reconstruct)
    _add_places(reconstruct)
    reconstruct.add_argument("-n", type=count, default=32, metavar="N", help="at most so many (default: 32)")
    _add_output(
        reconstruct,
        f"a picture ({PICTURE}) in which each image has its reconstruction at its right, the values of both in model "
        f"space ({ARRAY}), or a folder for the reconstructions ({FOLDER})",
        *(PICTURE, ARRAY, FOLDER),
    )
    reconstruct.add_argument(
        "--from",
        dest="codes_from",
        nargs="+",
        default=(),
        metavar="CODE",
        help="decode from these codes alone, such as the top layer's, and let the model draw those below",
    )
    _add_rows(reconstruct)
    _add_given(reconstruct)


def _add_encode_options(encode: Parser) -> None:
    _add_run(encode)
    _add_places(encode)
    _add_output(encode, f"the codes, and labels where the data has them ({ARRAY} or {TENSORS})", ARRAY, TENSORS)
    _add_rows(encode)
    encode.add_argument(
        "--split",
        choices=("test", "train", "validation"),
        default="test",
        help="which split of the run's data to encode (default: test)",
    )
    _add_given(encode)


def _add_decode_options(decode: Parser) -> None:
    _add_run(decode)
    decode.add_argument(
        "codes", metavar="CODES", help="a file of codes such as `jointgen encode` writes (.npz, .safetensors or .npy)"
    )
    _add_output(decode, GRID, PICTURE, ARRAY, FOLDER)
    decode.add_argument(
        "--reading",
        choices=("mean", "sample"),
        default="mean",
        help="write the decoder's mean (default) or draws from it",
    )
    decode.add_argument("--seed", type=int, default=0, help="the seed of what is drawn (default: 0)")
    _add_given(decode)


def _add_score_options(scored: Parser) -> None:
    _add_run(scored)
    _add_places(scored)
    _add_output(scored, f"a table ({TABLE}) with a line for each row", TABLE)
    _add_rows(scored)
    scored.add_argument(
        "--split",
        choices=("test", "train", "validation"),
        default="test",
        help="which split of the run's data to score where no rows of your own are named (default: test)",
    )
    _add_metrics(scored)
    scored.add_argument(
        "--reference",
        type=whole(0, MAX_COUNT),
        default=1000,
        metavar="N",
        help="compare with N held-out rows, evenly apart; 0: with none (default: 1000)",
    )


def _add_interpolate_options(interpolate: Parser) -> None:
    _add_run(interpolate)
    _add_places(interpolate)
    _add_output(
        interpolate,
        f"a picture with a line for each pair ({PICTURE}), a film ({FILM}), the values in model space ({ARRAY}), or a "
        f"folder of images ({FOLDER})",
        *(PICTURE, FILM, ARRAY, FOLDER),
    )
    _add_rows(interpolate)
    interpolate.add_argument("-n", type=whole(2, MAX_COUNT), default=5, metavar="N", help=f"{OF_HELD_OUT} (default: 5)")
    interpolate.add_argument(
        "--steps",
        type=whole(2, MAX_COUNT),
        default=9,
        metavar="N",
        help="images of a line, with both ends (default: 9)",
    )
    _add_given(interpolate)


def _add_edit_options(edit: Parser) -> None:
    _add_run(edit)
    _add_places(edit)
    _add_output(edit, LINES, PICTURE, ARRAY, FOLDER)
    _add_rows(edit)
    edit.add_argument("-n", type=count, default=16, metavar="N", help="at most so many rows (default: 16)")
    edit.add_argument(
        "--attribute",
        required=True,
        metavar="LABEL=CLASS",
        help="what the rows are to have: a label of the data, as in y=3",
    )
    edit.add_argument(
        "--amount",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="A",
        help="how far codes move; 1 is from the mean of the others to that of the class; several: an image each "
        "(default: 1)",
    )
    _add_given(edit)


def _add_complete_options(complete: Parser) -> None:
    _add_run(complete)
    _add_places(complete)
    _add_output(complete, LINES, PICTURE, ARRAY, FOLDER)
    complete.add_argument(
        "--mask",
        required=True,
        metavar="FILE",
        help="an image that is white where pixels are missing, and else black; as large as the model's or your images",
    )
    _add_rows(complete)
    complete.add_argument("-n", type=count, default=16, metavar="N", help="at most so many rows (default: 16)")
    complete.add_argument(
        "--draws", type=whole(1, 1000), default=4, metavar="K", help="how often each row is completed (default: 4)"
    )
    complete.add_argument(
        "--moves",
        type=whole(2, MAX_COUNT),
        default=100,
        metavar="N",
        help="moves of Hamiltonian Monte Carlo, half of them from the prior to p(z|x_observed) (default: 100)",
    )
    complete.add_argument("--seed", type=int, default=0, help="the seed of the noise (default: 0)")
    _add_given(complete)


def _add_export_options(export: Parser) -> None:
    _add_run(export)
    _add_output(export, f"a program of torch.export ({PROGRAM}), or ONNX ({ONNX}, with the extra onnx)", PROGRAM, ONNX)
    export.add_argument(
        "--part",
        default="decoder",
        metavar="NAME",
        help="which part: encoder, decoder, prior, a critic (default: decoder)",
    )
    export.add_argument(
        "--reading",
        metavar="READING",
        help="what it returns: mean (default), sample, whose noise is an argument, parameters, or another reading",
    )


def _add_push_options(push: Parser) -> None:
    _add_run(push)
    push.add_argument(
        "repository", metavar="USER/NAME", help=f"a repository of the hub, or a new folder, {FOLDER}, and no upload"
    )
    push.add_argument("--private", action="store_true", help="make a new repository private")


def _add_eval_options(evaluate: Parser) -> None:
    _add_run(evaluate)
    _add_places(evaluate)
    _add_metrics(evaluate)
    _add_json(evaluate)
    evaluate.add_argument(
        "--split",
        choices=("test", "train", "validation"),
        help="which split to evaluate (default: the recipe's eval.split)",
    )
    evaluate.add_argument(
        "--rows", type=count, metavar="N", help="evaluate only N rows, evenly apart (default: the recipe's eval.rows)"
    )
    evaluate.add_argument(
        "--processes", type=worker_count, metavar="N", help="evaluate in N processes of this machine (default: one)"
    )
    _add_images(evaluate)


def _add_compare_options(compare: Parser) -> None:
    compare.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    instead = compare.add_mutually_exclusive_group()
    instead.add_argument(
        "-o", "--output", metavar="FILE", help="write the table to a file (.md, .csv, .html) instead of the terminal"
    )
    instead.add_argument("--json", action="store_true", help="print JSON, for scripts")
    compare.add_argument("--metrics", metavar="A,B", help="show only these figures, in this order (default: all)")
    compare.add_argument(
        "--no-aggregate", action="store_true", help="show a row for each run, also where runs differ only in their seed"
    )
    compare.add_argument(
        "--data",
        choices=("mixed", "same"),
        help="where recipes name different data: make a table for each, or treat the data as the same",
    )
    rows = compare.add_mutually_exclusive_group()
    rows.add_argument(
        "--published",
        metavar="NAME",
        help="show the paper's rows of mnist, cifar10 or imagenet64 (default: by the data)",
    )
    rows.add_argument("--no-published", action="store_true", help="leave the paper's rows out")
    pictures = compare.add_mutually_exclusive_group()
    pictures.add_argument(
        "--figures", metavar="DIR", help="the folder for pictures (default: beside FILE, or inside the page)"
    )
    pictures.add_argument(
        "--no-figures", action="store_true", help="make no pictures; this needs no checkpoints and is quick"
    )
    compare.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu or cuda")
    _add_trust(compare)


def _add_run(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder, or hf:USER/NAME")
    parser.add_argument(
        "--checkpoint", default="latest", metavar="NAME", help="latest (default), best, or one such as step-00001000"
    )
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu or cuda")
    _add_trust(parser)


def _add_trust(parser: Parser) -> None:
    parser.add_argument(
        "--trust", action="store_true", help="execute the code that the run has of its own, in its folder plugins/"
    )


def _add_report_options(report: Parser) -> None:
    _add_run(report)
    _add_places(report)


def _add_places(parser: Parser) -> None:
    parser.add_argument(
        "--data",
        dest="data_paths",
        action="append",
        default=[],
        metavar="PATH",
        help="where the data lies now: PATH, or SOURCE=PATH for one of several data sources",
    )


def _add_output(parser: Parser, what: str, *endings: str) -> None:
    """Add -o; `endings` are those that the command writes, as `jointgen.cli.output_files.check_output` takes them."""
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=what)
    parser.set_defaults(endings=endings)


def _add_images(parser: Any) -> None:
    what = "your own images: files, folders, or a .npy or .npz of uint8, one or several"
    parser.add_argument(IMAGES, nargs="+", metavar="PATH", help=what)


def _add_metrics(parser: Parser) -> None:
    parser.add_argument(
        "--metrics",
        metavar="A,B",
        help="names from `jointgen list metric`, with settings as in 'elbo, iwae{k=1000}' (default: the recipe's)",
    )


def _add_rows(parser: Parser) -> None:
    """Add the options that name the user's own rows."""
    rows = parser.add_mutually_exclusive_group()
    _add_images(rows)
    rows.add_argument(
        "--values",
        metavar="FILE",
        help="your own rows as arrays (.npy, .npz or .safetensors): whole numbers are levels, others model space",
    )


def _add_given(parser: Parser, more: str = "") -> None:
    parser.add_argument(
        "--given",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"fix a variable to a value, as in y=3{more}",
    )


_CHECK = "jointgen.cli.shipped_recipes:check_recipe"
_RUN_CHECK = "jointgen.cli.run_arguments:check_run_arguments"
COMMANDS = {
    "run": Command(
        "train, evaluate and write the run folder", _add_run_options, "jointgen.cli.run:run_command", check=_CHECK
    ),
    "explain": Command(
        "show a recipe's equation, the plan of a step, sizes and requirements",
        _add_explain_options,
        "jointgen.cli.explain:explain_command",
        check=_CHECK,
    ),
    "list": Command(
        "list every registered component and plugins that failed to load, a component's keys, or the shipped recipes",
        _add_list_options,
        "jointgen.cli.listing:list_command",
    ),
    "copy": Command(
        "copy a shipped recipe and the recipes that it is based on",
        _add_copy_options,
        "jointgen.cli.shipped_recipes:copy_command",
    ),
    "cite": Command(
        "print the BibTeX of jointgen and of a recipe's papers", _add_cite_options, "jointgen.cli.cite:cite_command"
    ),
    "schema": Command(
        "print the JSON Schema of recipes, for editors that complete keys and mark typos",
        _add_schema_options,
        "jointgen.cli.schema:schema_command",
    ),
    "completion": Command(
        "print the completion script of a shell",
        _add_completion_options,
        "jointgen.cli.completion:completion_command",
    ),
    "plugin": Command("make components of your own", _add_plugin_actions, "jointgen.cli.scaffold:plugin_command"),
    "data": Command("prepare a folder of images for training", _add_data_actions, "jointgen.cli.data:data_command"),
    "sample": Command(
        "generate with a trained model",
        _add_sample_options,
        "jointgen.cli.models:sample_command",
        check=_RUN_CHECK,
    ),
    "reconstruct": Command(
        "encode and decode held-out data, or your own images",
        _add_reconstruct_options,
        "jointgen.cli.models:reconstruct_command",
        check=_RUN_CHECK,
    ),
    "encode": Command(
        "write the codes of held-out data, or of your own images",
        _add_encode_options,
        "jointgen.cli.models:encode_command",
        check=_RUN_CHECK,
    ),
    "decode": Command(
        "decode codes, also changed ones",
        _add_decode_options,
        "jointgen.cli.models:decode_command",
        check=_RUN_CHECK,
    ),
    "study": Command(
        "train, score and compare the models of a study: rows, a grid, or a search",
        _add_study_options,
        "jointgen.cli.study:study_command",
    ),
    "runs": Command(
        "list the runs of a folder: what each trains, how far it is, what it reached",
        _add_runs_options,
        "jointgen.cli.runs:runs_command",
    ),
    "score": Command(
        "write figures of single rows, and how usual they are among held-out ones: find what is unlike the data",
        _add_score_options,
        "jointgen.cli.questions:score_command",
        check=_RUN_CHECK,
    ),
    "interpolate": Command(
        "decode what lies between two of your images, or between held-out ones",
        _add_interpolate_options,
        "jointgen.cli.questions:interpolate_command",
        check=_RUN_CHECK,
    ),
    "edit": Command(
        "give your images an attribute of the data's labels, such as y=3",
        _add_edit_options,
        "jointgen.cli.questions:edit_command",
        check=_RUN_CHECK,
    ),
    "complete": Command(
        "draw the missing pixels of images given the others",
        _add_complete_options,
        "jointgen.cli.questions:complete_command",
        check=_RUN_CHECK,
    ),
    "export": Command(
        "write a part of a model as a program for other software",
        _add_export_options,
        "jointgen.cli.sharing:export_command",
        check=_RUN_CHECK,
    ),
    "push": Command(
        "share a model with its figures and its card: on the Hugging Face hub, or as a folder",
        _add_push_options,
        "jointgen.cli.sharing:push_command",
        check=_RUN_CHECK,
    ),
    "compare": Command(
        "put runs side by side in one table, beside the paper's published figures",
        _add_compare_options,
        "jointgen.cli.compare:compare_command",
    ),
    "eval": Command(
        "evaluate a run's checkpoint, and keep the figures of the run's own rows in its evaluation.json",
        _add_eval_options,
        "jointgen.cli.evaluate:eval_command",
        check=_RUN_CHECK,
    ),
    "report": Command(
        "write a run's page, report.html, also while it is not finished",
        _add_report_options,
        "jointgen.cli.report:report_command",
        check=_RUN_CHECK,
    ),
}
"""Every command by its name, in the order in which the help shows them."""
