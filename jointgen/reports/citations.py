"""What to cite: jointgen, the papers of a recipe, and those of its components. Torch-free."""

from __future__ import annotations

import re
from importlib import metadata, resources
from pathlib import Path

from jointgen.config.shipped import shipped_recipes
from jointgen.config.toml import parse_toml
from jointgen.config.used_components import used_components
from jointgen.errors import ConfigError, suggest
from jointgen.registry.components import Registry

SOFTWARE = f"""@software{{jointgen,
  title = {{jointgen: joint-distribution generative models, composed from plugins and equations}},
  author = {{{{The jointgen contributors}}}},
  version = {{{metadata.version("jointgen")}}},
}}"""
_ENTRY = re.compile(r"^@\w+\{(\w+),\n.*?^\}$", re.MULTILINE | re.DOTALL)
_CITE = re.compile(r"^# cite: (.*)$", re.MULTILINE)


def bibliography() -> dict[str, str]:
    """Return the BibTeX entries that come with jointgen, by key."""
    text = (resources.files("jointgen") / "reports" / "papers.bib").read_text(encoding="utf-8")
    return {entry[1]: entry[0] for entry in _ENTRY.finditer(text)}


def cited_keys(recipe: Path) -> list[str]:
    """Return the keys that a recipe's file names in its line "# cite: KEY, KEY", or else that of its base."""
    text = recipe.read_text(encoding="utf-8")
    if named := _CITE.search(text):
        return [key.strip() for key in named[1].split(",") if key.strip()]
    base = parse_toml(text).get("base")
    return cited_keys(recipe.parent / base) if isinstance(base, str) else []


def keys_of(name: str, path: Path | None = None) -> list[str]:
    """Return the keys that a recipe cites, or else those of the shipped recipe of its name.

    Args:
        name: The recipe's name.
        path: Its file; None: it is known by name only, as that of a run is.

    Raises:
        ConfigError: A key is not in the bibliography.
    """
    shipped = shipped_recipes().get(name)
    keys = (cited_keys(path) if path else []) or (cited_keys(shipped) if shipped else [])
    known = bibliography()
    if unknown := [key for key in keys if key not in known]:
        raise ConfigError([f"{path}: cites {key!r}, which has no entry{suggest(key, known)}" for key in unknown])
    return keys


def component_papers(recipe: object, registry: Registry) -> dict[str, str]:
    """Return the papers that the components of a recipe name, by "kind name"."""
    used = used_components(recipe, registry).values()
    return {f"{one.kind} {one.name}": one.paper for one in used if one.paper}


def bibtex(keys: list[str]) -> str:
    """Write jointgen's entry and those of some papers."""
    known = bibliography()
    return "\n\n".join([SOFTWARE, *(known[key] for key in keys)])
