"""Writes the pages of the reference that follow from the code: keys of recipes, commands, and components by kind."""

import argparse
import re
import textwrap
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from itertools import groupby
from pathlib import Path

from _ext.markdown import definitions, plain, write
from jointgen.cli.arguments import COMMANDS, make_parser
from jointgen.config.fields import SampledSource
from jointgen.config.keys import Key, keys_of
from jointgen.config.recipe import Recipe
from jointgen.contracts.metrics import MetricFigure, Provenance
from jointgen.objectives.tables import BalanceTable, ControlTable, WeightTable
from jointgen.registry.components import KINDS, Component, Registry
from jointgen.testing.evaluation import tiny_model

DOORS = ("jointgen", "jointgen.objectives", "jointgen.plugin", "jointgen.testing")
"""The modules that are there to be imported."""
MADE = "This page is made from the code when the site is built."
OTHER_TABLES = (
    ("A weight that changes", "`{ to = 1, start = 0, over = 0.5 }`", WeightTable),
    ("A weight that is free of scale", "`{ r = 0.5 }`", BalanceTable),
    ("A weight that figures drive", "`{ control = .., gain = .. }`", ControlTable),
)
KIND_NAMES = {
    "data": "Data sources",
    "family": "Families",
    "extractor": "Extractors of features",
    "penalty": "Penalties",
}
BOUNDS = {"lower": "a lower bound", "upper": "an upper bound", "exact": "exact", "estimate": "an estimate, no bound"}


def write_reference(folder: Path, registry: Registry) -> None:
    """Write all of them."""
    write(folder / "recipe-keys.md", recipe_keys(registry))
    write(folder / "commands.md", commands())
    for kind in KINDS:
        write(folder / "kinds" / f"{kind}.md", components(kind, registry))
    write(folder / "index.md", index(registry))
    for module in DOORS:
        write(folder / "api" / f"{module}.md", door(module))


# --- keys ------------------------------------------------------------------------------------------------------------


def recipe_keys(registry: Registry) -> str:
    """Write the page of a recipe's own keys, table by table."""
    keys = keys_of(Recipe, registry)
    own = [key for key in keys if "." not in key.name]
    inner = groupby((key for key in keys if "." in key.name), key=lambda key: key.name.rpartition(".")[0])
    text = f"# Keys of recipes\n\n{MADE} A key that is a component has the keys of that component besides `type`: the "
    text += "pages of the kinds have them. `jointgen schema` writes the same for editors.\n\n"
    text += f"## The recipe\n\n{list_of(own, registry)}"
    text += (
        "`base`\n: text; default none. The recipe that this one changes: a file beside it, or a shipped one's name.\n\n"
    )
    for table, members in inner:
        text += f"## `[{table.replace('[]', '')}]`\n\n{list_of(members, registry, table)}"
    around = [key for key in keys_of(SampledSource, registry) if key.name != "component"]
    text += f"## `[data]`, of any type\n\nBeside the keys of the data source:\n\n{list_of(around, registry)}"
    for title, example, cls in OTHER_TABLES:
        text += f"## {title}\n\nIn the place of a number, {example}:\n\n{list_of(keys_of(cls, registry), registry)}"
    return text


def list_of(keys: Iterable[Key], registry: Registry, table: str = "", kinds: str = "kinds/") -> str:
    """List keys with what each may hold, its default, and what it means."""
    return definitions((f"`{key.name.removeprefix(f'{table}.')}`", described(key, registry, kinds)) for key in keys)


def described(key: Key, registry: Registry, kinds: str) -> str:
    """Say what a key may hold, its default, and what it means."""
    default = f"default `{key.default}`" if key.default else "**must be given**"
    return f"{held(key, registry, kinds)}; {default}.{f' {plain(key.doc)}' if key.doc else ''}"


def held(key: Key, registry: Registry, kinds: str) -> str:
    """Say what a key may hold, with a link to the page of the kind in place of the names of its components."""
    text = plain(key.type)
    for kind in sorted(KINDS, key=lambda kind: kind not in key.name):  # encoders and decoders have the same names
        known = plain(f"a table with a type (known: {', '.join(registry.names(kind))})")
        text = text.replace(known, f"a table: [{kind.replace('_', ' ')}]({kinds}{kind}.md)")
    return text


# --- commands --------------------------------------------------------------------------------------------------------


def commands() -> str:
    """Write the page of all commands and their options."""
    text = f"# Commands and their options\n\n{MADE} `-q` and `-v` go with every command: "
    text += "[what goes where](../command-line.md#what-goes-where).\n\n"
    return text + "".join(of_parser(make_parser(COMMANDS)))


def of_parser(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Write a section for each command of a parser, and for each action of a command."""
    own = [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]
    shown = [action for action in own if not {"--help", "--quiet", "--verbose"} & {*action.option_strings}]
    if parser.prog != "jointgen":
        yield f"## `{parser.prog}`\n\n{plain(parser.description or '')}\n\n"
        parts = [part_of_usage(action) for action in shown]
        usage = textwrap.fill(" ".join([parser.prog, *parts]), 78, subsequent_indent="    ", break_on_hyphens=False)
        yield f"```text\n{usage}\n```\n\n"
        yield definitions(
            (f"`{', '.join(action.option_strings) or name_of(action)}`", meaning(action)) for action in shown
        )
    for actions in parser._actions:
        if isinstance(actions, argparse._SubParsersAction):
            for command in actions.choices.values():
                yield from of_parser(command)


def name_of(action: argparse.Action) -> str:
    """Return the word that stands for the argument's value."""
    metavar = action.metavar[0] if isinstance(action.metavar, tuple) else action.metavar
    return str(metavar or action.dest)


def part_of_usage(action: argparse.Action) -> str:
    """Write an argument as a usage line has it."""
    several = action.nargs in ("+", "*") or isinstance(action, argparse._AppendAction)
    value = (
        "" if action.nargs == 0 else name_of(action) if action.choices is None else "|".join(map(str, action.choices))
    )
    value = f"[{value}]" if action.nargs == "?" and action.option_strings else value
    text = " ".join(filter(None, (action.option_strings[0] if action.option_strings else "", value)))
    text += "..." if several else ""
    needed = action.required or (not action.option_strings and action.nargs not in ("?", "*"))
    return text if needed else f"[{text}]"


def meaning(action: argparse.Action) -> str:
    """Say what an argument does."""
    said = (action.help or "").replace("%%", "%")
    text = plain(said % {"default": action.default, "prog": "jointgen"} if "%(" in said else said)
    choices = f" One of {', '.join(f'`{choice}`' for choice in action.choices)}." if action.choices else ""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}{choices}"


# --- components ------------------------------------------------------------------------------------------------------


def door(module: str) -> str:
    """Write the page of one of the modules that are there to be imported. What an earlier one has is not repeated."""
    earlier = {name for other in DOORS[: DOORS.index(module)] for name in dir(import_module(other))}
    options = [":members:", ":imported-members:", f":exclude-members: {', '.join(sorted(earlier | {'Any'}))}"]
    lines = "\n".join(f"   {option}" for option in options)
    return f"# `{module}`\n\n```{{eval-rst}}\n.. automodule:: {module}\n{lines}\n```\n"


def index(registry: Registry) -> str:
    """Write the page of all kinds."""
    text = f"# Components by kind\n\n{MADE} What a kind is, and how to write a component: "
    text += "[plugins](../../extending/plugins.md#kinds-of-components).\n\n"
    for kind in KINDS:
        text += f"- [{title_of(kind)}](kinds/{kind}.md): {', '.join(f'`{name}`' for name in registry.names(kind))}.\n"
    return text


def components(kind: str, registry: Registry) -> str:
    """Write the page of a kind: its components with their keys, and for metrics their figures."""
    text = f"# {title_of(kind)}\n\n{MADE} `jointgen list {kind}` lists what is installed, `jointgen list {kind} NAME` "
    text += "the keys of one. To write your own: [plugins](../../../extending/plugins.md#kinds-of-components).\n\n"
    if kind == "metric":
        text += "After the keys stand the figures, as a small model has them, with their protocol: what must "
        text += "be equal for two figures to be compared, beside unit, estimator and split.\n\n"
    for component in registry.components(kind):
        text += f"## `{component.name}`\n\n{plain(component.summary[:1].upper() + component.summary[1:])}"
        text += f"{'' if component.summary.endswith('.') else '.'}\n"
        text += f"*{plain(component.paper)}.*\n" if component.paper else ""
        text += (
            "It takes long, so it is evaluated only where a recipe or a command names it.\n" if component.costly else ""
        )
        text += f"\n{list_of(keys_of(component.load(), registry), registry, kinds='') or 'It has no keys.'}\n\n"
        if kind == "metric":
            text += figures(component)
    return text


def title_of(kind: str) -> str:
    """Name a kind in the plural."""
    return KIND_NAMES.get(kind) or f"{kind.replace('_', ' ').capitalize()}{'es' if kind.endswith('s') else 's'}"


def figures(component: Component) -> str:
    """List the figures that a metric gives of a small model, with what must be equal for two to be compared."""
    try:
        metric = component.load()()
    except TypeError:  # a key must be given
        return ""
    found = metric.figures(small_model())
    return "".join(f"- {figure_of(figure)}\n" for figure in found if figure.statistics) + "\n"


small_model = cache(tiny_model)


def figure_of(figure: MetricFigure) -> str:
    """Describe a figure: name, unit, estimator, bound and protocol."""
    parts = [f"{plain(figure.unit)}", plain(figure.estimator)]
    parts += [BOUNDS[figure.bound]] if figure.bound else []
    parts += [f"{figure.better} is better"] if figure.better else []
    if callable(figure.protocol):
        rows = [Provenance(spec.over, spec.rows or 0) for spec in figure.statistics]
        known = figure.protocol(*rows).replace(" 0 of ", " all rows of ")
        parts += [f"protocol: {plain(re.sub(r'; .[0-9a-f]+.$', '', known))}"]
    elif figure.protocol:
        parts += [f"protocol: {plain(figure.protocol)}"]
    return f"`{figure.name}`: {'; '.join(parts)}."
