"""Fills the templates of HTML pages. A page holds everything that it shows and loads nothing."""

from __future__ import annotations

import base64
import functools
import gzip
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from jointgen.text import visible


def fill_template(file: str, /, **values: Any) -> str:
    """Fill one of `templates/`. Text is escaped; a value that the template needs and that is missing is an error."""
    return _environment().get_template(file).render(**values)


def png_uri(png: bytes) -> str:
    """Encode the bytes of a PNG as an address that a page can show without loading a file."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


@functools.lru_cache(maxsize=1)
def packed(script: str) -> str:
    """Pack a library for a page, whose own script unpacks it: gzip in base64, which makes 2.0 MB of plotly's 4.8."""
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jointgen.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=_shown,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = _read_asset
    environment.globals["png_uri"] = png_uri
    return environment


def _shown(value: Any) -> Any:
    """Show control characters of all that a page is filled with; what is HTML already stays so."""
    return type(value)(visible(value, keep="\n\t")) if isinstance(value, str) else value


def _read_asset(name: str) -> Markup:
    """Read a style sheet or a script of ours, to stand in a page as it is."""
    return Markup(resources.files("jointgen.reports").joinpath("templates", name).read_text(encoding="utf-8"))
