"""Writes the pages that follow from the code, before Sphinx looks for pages. They are not committed."""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

from _ext.reference import write_reference
from _ext.zoo import write_zoo
from jointgen.registry.discovery import load_plugins


def write_pages(app: Sphinx, config: Config) -> None:
    """Write all of them beside the pages that are written by hand."""
    registry, root = load_plugins().registry, Path(app.srcdir)
    write_reference(root / "reference/generated", registry)
    write_zoo(root, registry)


def setup(app: Sphinx) -> dict[str, Any]:
    """Have them written first."""
    app.connect("config-inited", write_pages, priority=0)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
