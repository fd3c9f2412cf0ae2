"""`jointgen plugin new`: writes a plugin package to start from. Torch-free.

Templates are real files with the name ``my_plugin`` in them, so that each reads as what it becomes.
"""

from __future__ import annotations

import functools
import importlib.util
import keyword
import re
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

from jointgen.cli.arguments import Arguments, load
from jointgen.config.toml import DIRECTIVE, SCHEMA_FILE
from jointgen.errors import ComponentError, ConfigError, suggest
from jointgen.registry.components import KINDS
from jointgen.registry.discovery import load_plugins
from jointgen.runtime.atomic_files import writing
from jointgen.runtime.console import say

CORE_PACKAGE = "jointgen"
SUMMARIES = {
    "encoder": "Residual layers over all inputs, flattened and concatenated.",
    "decoder": "Residual layers over all inputs, flattened and concatenated.",
    "family": "Independent logistic distributions.",
    "prior": "Independent standard logistic numbers.",
    "discriminator": "A linear score and what one hidden layer adds.",
    "objective": "The symmetric KL between the joints, by one critic.",
    "term": "A distance that is square near zero and linear far away.",
    "estimator": "The ELBO with the score-function gradient of REINFORCE.",
    "reduction": "The mean of the draws, less a share of their variance.",
    "divergence": "How far the means and the variances of two samples are apart.",
    "critic_loss": "The exponential loss of boosting; f becomes log a/b in nats.",
    "penalty": "The squared output of the critic at its positives.",
    "constraint": "A largest norm of the weights of each unit.",
    "data": "A spiral in the plane.",
    "metric": "The mean absolute error of reconstructions.",
    "extractor": "How far each pixel is from those beside it.",
    "optimizer": "Steps by the sign of the mean gradient.",
    "schedule": "The full rate for a while, and then a fall on a line.",
    "tracker": "A table of all figures.",
    "augmentation": "A quarter turn of images.",
}


def plugin_command(arguments: Arguments) -> None:
    """Write a new plugin package and print how to install, test and run it, or check a plugin file."""
    if arguments.action == "check":
        _check(arguments.file)
        return
    name, kind = arguments.name, arguments.kind
    folder = write_plugin(name, kind, Path(arguments.out or name))
    say(f"{folder}: a plugin package with the {kind.replace('_', ' ')} {name!r}")
    say(f"install it: uv pip install -e {folder}")
    say(f"test it: pytest {folder}")
    say(f"run it: jointgen run {folder / 'recipes' / name}.toml")
    say(f"let your editor complete its keys: jointgen schema -o {folder / 'recipes' / SCHEMA_FILE}")


def _check(file: str) -> None:
    found = load("jointgen.testing:check_file")(file)
    for component, (kept, broken) in found.items():
        say(f"{component}: {kept} of {kept + len(broken)} promises are kept")
    if broken := [line for _, lines in found.values() for line in lines]:
        raise ComponentError("\n".join(broken))


def write_plugin(name: str, kind: str, folder: Path) -> Path:
    """Write a package with one component, a recipe and a test. The folder appears whole or not at all.

    Args:
        name: Of the package and of its component.
        kind: The kind of component, one of the registry's.
        folder: The new folder.

    Returns:
        The folder.

    Raises:
        ConfigError: The name cannot be a package's or is taken, the kind is unknown, or the folder exists.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of component {kind!r}{suggest(kind, KINDS)}", "--kind")
    if problems := [*_name_problems(name, kind)]:
        raise ConfigError(problems)
    if folder.exists():
        raise ConfigError(f"{folder}: already exists; give another folder with --out, or remove it")
    with writing(folder, ConfigError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(folder, _files(name, kind))
    return folder


def _name_problems(name: str, kind: str) -> list[str]:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        fitting = re.sub(r"\W+", "_", name.lower()).strip("_")
        hint = f", such as {fitting!r}" if re.fullmatch(r"[a-z][a-z0-9_]*", fitting) and fitting != name else ""
        return [f"{name!r} cannot be a package: expected small letters, digits and underscores{hint}"]
    if name == CORE_PACKAGE or name.startswith(f"{CORE_PACKAGE}_"):
        return [f"{name!r}: names that begin with '{CORE_PACKAGE}_' are jointgen's own; expected another name"]
    if name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        return [f"{name!r}: a module of that name is installed already; expected a name of your own"]
    if name in load_plugins().registry.names(kind):
        taken = load_plugins().registry.get(kind, name)
        return [f"{name!r}: the {taken} is registered already; expected another name"]
    return []


def _files(name: str, kind: str) -> dict[str, str]:
    """Relative path -> text."""
    read = functools.partial(_read, words=_words(name, kind))
    return {
        "pyproject.toml": read("pyproject.toml"),
        "README.md": read("README.md"),
        f"{name}/__init__.py": read("init.py"),
        f"{name}/{kind}.py": read(f"{kind}/component.py"),
        f"recipes/{name}.toml": DIRECTIVE + read(f"{kind}/recipe.toml"),
        f"tests/test_{name}.py": read(f"{kind}/theorem.py"),
    }


def _words(name: str, kind: str) -> dict[str, str]:
    """The words of the templates -> what they become."""
    return {
        "MY-PLUGIN": name.replace("_", "-"),
        "MY SUMMARY": SUMMARIES[kind],
        "MY_KIND": kind,
        "MY KIND": kind.replace("_", " "),
        "MyPlugin": "".join(part.capitalize() for part in name.split("_")),
        "my_plugin": name,
    }


def _read(template: str, words: dict[str, str]) -> str:
    text = resources.files("jointgen.cli").joinpath("templates", f"{template}.txt").read_text(encoding="utf-8")
    return re.sub("|".join(words), lambda match: words[match[0]], text)


def _write_whole(folder: Path, files: dict[str, str]) -> None:
    """Write the files into a folder beside it, which is then renamed."""
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        aside.chmod(0o755)  # mkdtemp's folders are for their owner alone
        for path, text in files.items():
            (aside / path).parent.mkdir(exist_ok=True)
            (aside / path).write_text(text, encoding="utf-8")
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
