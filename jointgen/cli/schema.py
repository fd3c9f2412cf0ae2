"""`jointgen schema`: the JSON Schema of recipes, for the plugins that are installed. Imports every component."""

from __future__ import annotations

import json
from pathlib import Path

from jointgen.cli.arguments import Arguments
from jointgen.config.schema import recipe_schema
from jointgen.config.toml import SCHEMA_FILE
from jointgen.errors import ConfigError
from jointgen.registry.discovery import load_plugins
from jointgen.runtime.atomic_files import replace_text, writing
from jointgen.runtime.console import say, say_text, warn


def schema_command(arguments: Arguments) -> None:
    """Print the schema, or write it to a file."""
    plugins = load_plugins()
    warn(*(f"{plugin} is not in the schema" for plugin in plugins.failed))
    text = json.dumps(recipe_schema(plugins.registry), indent=1, ensure_ascii=False)
    if arguments.output is None:
        say_text(text)
        return
    path = Path(arguments.output)
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; expected a file name, such as {path / SCHEMA_FILE}", "-o")
    with writing(path, lambda message: ConfigError(message, "-o")):
        replace_text(path, f"{text}\n")
    say(str(path))
