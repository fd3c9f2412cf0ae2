"""What the command line accepts: its commands, their arguments, and complaints that name the nearest word."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, NoReturn

from jointgen.errors import ConfigError, suggest
from jointgen.registry.components import KINDS

Arguments = argparse.Namespace
PICTURE, ARRAY, TENSORS = ".png", ".npz", ".safetensors"


class Parser(argparse.ArgumentParser):
    """Raises ConfigError instead of printing its usage, and takes no abbreviations, which scripts come to rely on."""

    def __init__(self, **options: Any):
        super().__init__(**{**options, "allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see {self.prog} --help)")

    @property
    def options(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]


def parse(argv: Sequence[str]) -> Arguments:
    """The arguments, `command` being the name of the command.

    Raises ConfigError naming the nearest command or option for one that does not exist.
    """
    parser = Parser(prog="jointgen", description="Joint-distribution generative models, from recipes and plugins.")
    parser.add_argument("--version", action="version", version=f"jointgen {metadata.version('jointgen')}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    commands = {name: _add_command(subparsers, name) for name in COMMANDS}
    if argv and not argv[0].startswith("-") and argv[0] not in commands:
        raise ConfigError(f"unknown command {argv[0]!r}{suggest(argv[0], commands)}")
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        raise ConfigError(_on_unknown(unknown, getattr(arguments, "parser", commands[arguments.command])))
    arguments.argv = list(argv)
    return arguments


def _add_command(subparsers: Any, name: str) -> Parser:
    summary, add_arguments = COMMANDS[name]
    parser = subparsers.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    add_arguments(parser)
    return parser


def _on_unknown(words: Sequence[str], parser: Parser) -> list[str]:
    options = [word for word in words if word.startswith("-")]
    if options:
        return [f"unknown option {word}{suggest(word.split('=')[0], parser.options)}" for word in options]
    return [f"{words[0]!r} is one argument too many (see {parser.prog} --help)"]


def count(text: str) -> int:
    """A whole number above 0, as an argument's type."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def whole(text: str) -> int:
    """A whole number, as an argument's type."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def share(text: str) -> float:
    """A number between 0 and 1, as an argument's type."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.0 < number < 1.0:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, got {text!r}")
    return number


# --- commands on recipes ---------------------------------------------------------------------------------------------


def _run(run: Parser) -> None:
    _add_recipe(run)
    run.add_argument("--out", metavar="DIR", help="the run folder (default: runs/NAME)")
    run.add_argument("--resume", action="store_true", help="go on from the folder's newest checkpoint")
    run.add_argument(
        "--allow-changes", action="store_true", help="resume also with a recipe that is not the run's any more"
    )
    run.add_argument("--dry-run", action="store_true", help="check everything, print the resolved recipe, and stop")
    run.add_argument(
        "--processes", type=count, metavar="N", help="of this machine to train in (default: one for each GPU, or one)"
    )
    run.add_argument("--quiet", action="store_true", help="no progress on stderr")


def _list(listed: Parser) -> None:
    listed.add_argument("kind", nargs="?", metavar="KIND", help="only these: encoder, data, metric, ...")
    listed.add_argument("--json", action="store_true", help="for scripts")


def _copy(copy: Parser) -> None:
    copy.add_argument("recipe", nargs="?", metavar="RECIPE", help="its name; without one, the names are shown")
    copy.add_argument(
        "destination", nargs="?", default=".", metavar="DEST", help="a folder or .toml file (default: here)"
    )


def _plugin(plugin: Parser) -> None:
    actions = plugin.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    summary = "write a plugin package to start from: a component, a recipe and its tests"
    new = actions.add_parser("new", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    new.add_argument("name", metavar="NAME", help="of the package and of its component, such as my_nets")
    new.add_argument("--kind", default="family", metavar="KIND", help=f"{', '.join(KINDS)} (default: family)")
    new.add_argument("--out", metavar="DIR", help="the new folder (default: NAME)")
    new.set_defaults(parser=new)


def _data(data: Parser) -> None:
    actions = data.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    summary = "decode and resize a folder of images once, for fast training"
    prepare = actions.add_parser("prepare", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    prepare.add_argument(
        "source", metavar="SOURCE", help="holds train/CLASS/* and val/CLASS/* (or test/), or images in any folders"
    )
    prepare.add_argument("destination", metavar="DEST", help="the new folder; one that was interrupted goes on")
    prepare.add_argument("--size", type=count, required=True, metavar="N", help="pixels a side")
    prepare.add_argument("--channels", type=int, choices=(1, 3), default=3, help="grey or colour (default: 3)")
    prepare.add_argument("--workers", type=count, metavar="W", help="threads (default: one for each core)")
    prepare.add_argument(
        "--max-broken", type=whole, default=10, metavar="K", help="files that may be unreadable (default: 10)"
    )
    prepare.add_argument(
        "--test-fraction", type=share, metavar="F", help="held out where SOURCE has no val/ or test/ (default: 0.1)"
    )
    prepare.set_defaults(parser=prepare)
    summary = "read every byte of a prepared folder and compare it with the manifest"
    verify = actions.add_parser("verify", help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    verify.add_argument("destination", metavar="DEST", help="what `jointgen data prepare` wrote")
    verify.set_defaults(parser=verify)


def _add_recipe(parser: Parser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a TOML file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a key, as in train.steps=200"
    )


# --- commands on runs ------------------------------------------------------------------------------------------------


def _sample(sample: Parser) -> None:
    _add_run(sample)
    sample.add_argument("-n", type=count, default=64, metavar="N", help="how many (default: 64)")
    _add_output(sample, f"a grid ({PICTURE}) or the values in model space ({ARRAY})")
    sample.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    sample.add_argument(
        "--reading", choices=("mean", "sample"), default="mean", help="the decoder's mean (default), or draws of it"
    )
    _add_given(sample)


def _reconstruct(reconstruct: Parser) -> None:
    _add_run(reconstruct)
    reconstruct.add_argument("-n", type=count, default=32, metavar="N", help="at most so many (default: 32)")
    _add_output(reconstruct, f"a picture ({PICTURE}): each truth has its reconstruction at its right")
    _add_images(reconstruct)
    _add_given(reconstruct)


def _encode(encode: Parser) -> None:
    _add_run(encode)
    _add_output(encode, f"codes, and labels where the data has them ({ARRAY} or {TENSORS})")
    _add_images(encode)
    encode.add_argument("--split", choices=("test", "train"), default="test", help="of the run's data (default: test)")
    _add_given(encode)


def _eval(evaluate: Parser) -> None:
    _add_run(evaluate)
    evaluate.add_argument(
        "--metrics",
        metavar="A,B",
        help="names from `jointgen list metric`, with settings as in 'elbo, iwae{k=1000}' (default: the recipe's)",
    )
    evaluate.add_argument("--json", action="store_true", help="for scripts")
    evaluate.add_argument("--split", choices=("test", "train"), help="default: the recipe's eval.split")
    evaluate.add_argument("--rows", type=count, metavar="N", help="only the first N (default: the recipe's eval.rows)")
    evaluate.add_argument("--processes", type=count, metavar="N", help="of this machine to work in (default: one)")
    _add_images(evaluate)


def _compare(compare: Parser) -> None:
    compare.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    compare.add_argument("-o", "--output", metavar="FILE", help="a table (.md, .csv, .html) instead of the terminal")
    compare.add_argument("--metrics", metavar="A,B", help="only these figures, in this order (default: all)")
    compare.add_argument(
        "--no-aggregate", action="store_true", help="a row for each run, also for those that differ only in their seed"
    )
    compare.add_argument(
        "--data",
        choices=("mixed", "same"),
        help="of runs whose recipes name different data: a table for each, or take them for the same",
    )
    rows = compare.add_mutually_exclusive_group()
    rows.add_argument(
        "--published", metavar="NAME", help="the paper's rows: mnist, cifar10 or imagenet64 (default: by the data)"
    )
    rows.add_argument("--no-published", action="store_true", help="leave them out")
    pictures = compare.add_mutually_exclusive_group()
    pictures.add_argument("--figures", metavar="DIR", help="where pictures go (default: beside FILE, or into the page)")
    pictures.add_argument("--no-figures", action="store_true", help="no pictures: needs no checkpoints, and is quick")
    compare.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu or cuda")


def _add_run(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--checkpoint", default="latest", metavar="NAME", help="latest (default), best, or one such as step-00001000"
    )
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu or cuda")


def _add_output(parser: Parser, what: str) -> None:
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=what)


def _add_images(parser: Parser) -> None:
    parser.add_argument("--images", metavar="PATH", help="your own: an image, a folder, or a .npy or .npz of uint8")


def _add_given(parser: Parser) -> None:
    parser.add_argument(
        "--given", action="append", default=[], metavar="NAME=VALUE", help="a variable that is known, as in y=3"
    )


COMMANDS: dict[str, tuple[str, Callable[[Parser], None]]] = {
    "run": ("train, evaluate and write the run folder", _run),
    "explain": ("show a recipe's equation, the plan of a step, sizes and requirements", _add_recipe),
    "list": ("list every registered component, and plugins that failed to load", _list),
    "copy": ("copy a shipped recipe and what it is based on", _copy),
    "plugin": ("make components of your own", _plugin),
    "data": ("prepare a folder of images for training", _data),
    "sample": ("generate with a trained model", _sample),
    "reconstruct": ("encode and decode held-out data, or your own images", _reconstruct),
    "encode": ("write the codes of held-out data, or of your own images", _encode),
    "compare": ("put runs side by side in one table, beside the paper's published figures", _compare),
    "eval": ("evaluate a run's checkpoint, and keep the figures of the run's own rows in its evaluation.json", _eval),
    "report": ("write a run's page, report.html, also while it is not finished", _add_run),
}
