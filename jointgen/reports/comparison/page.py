"""The tables as one page that loads nothing from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import attrs
import jinja2

from jointgen.reports.comparison.table import Table
from jointgen.reports.comparison.writing import remarks


@attrs.frozen
class Picture:
    """name: for a file.  png: its bytes."""

    name: str
    caption: str
    png: bytes

    @property
    def address(self) -> str:
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@attrs.frozen
class Pictures:
    """Those of one table, and remarks on what could not be drawn."""

    pictures: tuple[Picture, ...] = ()
    remarks: tuple[str, ...] = ()


def page_of(tables: Sequence[tuple[Table, Pictures]]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jointgen.reports.comparison"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("compare.html").render(tables=tables, remarks=remarks)
