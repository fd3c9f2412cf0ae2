"""Writes the pages that follow from the code, before Sphinx looks for pages. They are not committed."""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

from _ext.reference import DOORS, write_reference
from _ext.zoo import write_zoo
from jointgen.registry.discovery import load_plugins


def write_pages(app: Sphinx, config: Config) -> None:
    """Write all of them beside the pages that are written by hand."""
    registry, root = load_plugins().registry, Path(app.srcdir)
    write_reference(root / "reference/generated", registry)
    write_zoo(root, registry)


MADE = {
    "zoo/index": (("All systems, by what their objectives are made of", "systems/index.md"),),
    "reference/index": (
        ("Commands and their options", "generated/commands.md"),
        ("Keys of recipes", "generated/recipe-keys.md"),
        ("Components by kind", "generated/index.md"),
        *((f"`{module}` in Python", f"generated/api/{module}.md") for module in DOORS),
    ),
}
"""Links to what is made, for pages that a code host shows without it."""


def link_made(app: Sphinx, page: str, source: list[str]) -> None:
    """Add the links to what is made to the index of a room."""
    source[0] += "".join(f"\n- [{title}]({place})" for title, place in MADE.get(page, ()))


def setup(app: Sphinx) -> dict[str, Any]:
    """Have them written first, and linked."""
    app.connect("config-inited", write_pages, priority=0)
    app.connect("source-read", link_made)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
