"""What to cite: jointgen, the papers of a recipe, and those of its components. Torch-free."""

from __future__ import annotations

import re
from importlib import metadata, resources

from jointgen.config.recipe import Recipe
from jointgen.config.used_components import used_components
from jointgen.errors import ConfigError, Problem, suggest
from jointgen.registry.components import Registry

SOFTWARE = """@software{jointgen,
  title = {jointgen: joint-distribution generative models, composed from plugins and equations},
  author = {{The jointgen contributors}},
  version = {VERSION},
}"""
_ENTRY = re.compile(r"^@\w+\{(\w+),\n.*?^\}$", re.MULTILINE | re.DOTALL)


def bibliography() -> dict[str, str]:
    """Return the BibTeX entries that come with jointgen, by key."""
    text = (resources.files("jointgen") / "reports" / "papers.bib").read_text(encoding="utf-8")
    return {entry[1]: entry[0] for entry in _ENTRY.finditer(text)}


def component_papers(recipe: Recipe, registry: Registry) -> dict[str, str]:
    """Return the papers that the components of a recipe name, by "kind name"."""
    used = used_components(recipe, registry).values()
    return {f"{one.kind} {one.name}": one.paper for one in used if one.paper}


def cited_entries(recipe: Recipe) -> list[str]:
    """Return the BibTeX entries of the papers that a recipe cites.

    Raises:
        ConfigError: It cites something that is neither the key of an entry nor an entry itself, "@...".
    """
    known, cited = bibliography(), recipe.cite or []
    unknown = [key for key in cited if key not in known and not key.startswith("@")]
    if unknown:
        raise ConfigError([Problem(f"{key!r} has no entry{suggest(key, known)}", "cite") for key in unknown])
    return [known.get(key, key) for key in cited]


def bibtex(recipe: Recipe) -> str:
    """Write jointgen's entry and those of the papers that a recipe cites. Raises as `cited_entries` does."""
    return "\n\n".join([SOFTWARE.replace("VERSION", metadata.version("jointgen")), *cited_entries(recipe)])
