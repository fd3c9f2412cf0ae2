"""`jointgen completion`: the completion script of a shell, written by shtab from the parser that there is.

The script knows the shipped recipes, the kinds and the names of components as they are when it is written; recipe files
and run folders are looked for at each key press.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from jointgen.cli.arguments import COMMANDS, Arguments, make_parser, plugin_commands
from jointgen.cli.listing import RECIPE
from jointgen.config.shipped import shipped_recipes
from jointgen.errors import ConfigError
from jointgen.registry.components import KINDS
from jointgen.registry.discovery import load_plugins
from jointgen.runtime.console import say_text

# A function of each shell writes the words that may stand there: RECIPES and RUNS below. In bash they begin with $1,
# the word so far; the others choose among all by themselves.
PREAMBLES = {
    "bash": """
_jointgen_those_of() {
  local word start=$1
  shift
  for word; do [[ $word == "$start"* ]] && printf '%s\\n' "$word"; done
}
_jointgen_recipe_files() {
  _jointgen_those_of "$1" @RECIPES@
  compgen -f -X '!*.toml' -- "$1"
  compgen -S / -d -- "$1"
}
_jointgen_run_dirs() {
  local run
  for run in runs/*/recipe.toml; do
    run=${run%/recipe.toml}
    [[ -e $run/recipe.toml && $run == "$1"* ]] && echo "$run"
  done
  compgen -S / -d -- "$1"
}
_jointgen_kinds() { _jointgen_those_of "$1" @KINDS@; }
_jointgen_names() { _jointgen_those_of "$1" @NAMES@; }
""",
    "zsh": """
_jointgen_recipe_files() {
  local -a recipes
  recipes=(@RECIPES@)
  _alternative 'recipes:shipped recipe:($recipes)' 'files:recipe file:_files -g "*.toml"'
}
_jointgen_run_dirs() {
  local -a runs
  runs=(runs/*/recipe.toml(N:h))
  _alternative 'runs:run folder:($runs)' 'folders:folder:_files -/'
}
_jointgen_kinds() { local -a kinds; kinds=(@KINDS@); compadd -a kinds; }
_jointgen_names() { local -a names; names=(@NAMES@); compadd -a names; }
""",
    "fish": """
function _jointgen_recipe_files
  printf '%s\\n' @RECIPES@
  __fish_complete_suffix .toml
end
function _jointgen_run_dirs
  for recipe in runs/*/recipe.toml
    string replace /recipe.toml '' $recipe
  end
  __fish_complete_directories
end
function _jointgen_kinds
  printf '%s\\n' @KINDS@
end
function _jointgen_names
  printf '%s\\n' @NAMES@
end
""",
}
WORDS = {"RECIPE": "recipe_files", "RUN": "run_dirs", "KIND": "kinds"}
"""What an argument of this metavar is completed with. In names with "file" or "dir" shtab has bash quote words."""
FOLDERS = ("DIR", "SOURCE", "DEST")
FILES = ("FILE", "PATH", "STUDY")


def completion_command(arguments: Arguments) -> None:
    """Print the script of a shell."""
    if importlib.util.find_spec("shtab") is None:
        raise ConfigError("completion needs shtab: pip install 'jointgen[completion]', or uv sync --extra completion")
    say_text(completion_of(arguments.shell))


def completion_of(shell: str) -> str:
    """Write the script of a shell.

    Args:
        shell: One of `jointgen.cli.arguments.SHELLS`.
    """
    shtab: Any = importlib.import_module("shtab")
    parser = make_parser({**COMMANDS, **plugin_commands()})
    for action in _actions(parser):
        if action.metavar in WORDS or (action.dest == "name" and action.nargs == "?"):
            what = WORDS.get(str(action.metavar), "names")
            function = f"_jointgen_{what}"
            action.complete = {"bash": function, "zsh": function, "fish": f"({function})"}  # type: ignore[attr-defined]
        elif action.metavar in FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    registry = load_plugins().registry
    preamble = PREAMBLES[shell]
    for word, values in (
        ("RECIPES", shipped_recipes()),
        ("KINDS", [*KINDS, RECIPE]),
        ("NAMES", sorted({component.name for component in registry.components()})),
    ):
        preamble = preamble.replace(f"@{word}@", _words(values))
    return str(shtab.complete(parser, shell, preamble=preamble))


def _words(values: Iterable[str]) -> str:
    """Join words, quoted as every shell reads them; a name that is no single line is left out."""
    return " ".join(shlex.quote(value) for value in values if value.isprintable())


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of a parser and of the commands in it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in dict.fromkeys(action.choices.values()):
                yield from _actions(inner)
        else:
            yield action
