"""The page: what stands in each section, and how it is written. It loads nothing from anywhere."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import attrs
import jinja2
import plotly.offline
import torch
from markupsafe import Markup, escape
from torch import Tensor

from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.data.split import Split
from jointgen.errors import ConfigError
from jointgen.inference.model import Model
from jointgen.reports.explain.explain import explained
from jointgen.reports.page import numbers
from jointgen.reports.page.curves import CLOCKS, curves
from jointgen.reports.page.equation import equations, joints
from jointgen.reports.page.history import frames
from jointgen.reports.page.latent import code_map, interpolations, map_codes, rows_of, traversal
from jointgen.runs.folder import RunFolder
from jointgen.runtime.atomic_files import replace_text, writing

TOML = re.compile(r"(?P<comment>\s*#.*)|(?P<table>\[.*\])|(?P<key>[^=\s]+)(?P<rest>\s*=.*)|.*")


@attrs.frozen
class Shown:
    """A model to draw from, held-out rows, and the checkpoint that has its weights."""

    model: Model
    split: Split
    checkpoint: str | None


def write_report(folder: RunFolder, compiled: CompiledRecipe, shown: Shown | str) -> None:
    """Writes RUN/report.html from what is in the run folder and from a model, or a line that says why there is none.

    Raises WriteError where the disk does not take the page.
    """
    page = render(folder, compiled, shown)
    with writing(folder.report):
        replace_text(folder.report, page)


def render(folder: RunFolder, compiled: CompiledRecipe, shown: Shown | str) -> str:
    """The page as HTML. A section that does not apply says why in a line."""
    summary = folder.read_summary()
    figures = numbers.read_figures(summary, folder.read_evaluation())
    codes = _codes(shown)
    plotted = curves(folder.read_metrics(), figures, compiled.recipe.eval.quick_rows)
    (_, about), *plan = explained(compiled)
    return _template().render(
        name=compiled.recipe.name,
        status=summary.get("status", "unknown"),
        note=summary.get("note", ""),
        about=[line.removeprefix(f"{compiled.recipe.name}: ") for line in about],
        facts=list(numbers.facts(summary, compiled.recipe.train.total_steps)),
        figures=(rows := numbers.rows(figures)),
        highlights=numbers.highlights(rows),
        absent=numbers.absent(figures),
        critics=numbers.health(summary),
        stages=equations(compiled),
        joints=joints(compiled),
        history=frames(folder.samples),
        checkpoint=None if isinstance(shown, str) else shown.checkpoint,
        codes=codes,
        curves=plotted["sections"],
        plan=plan,
        recipe=highlighted(folder.read_recipe()),
        environment=list(numbers.flat(summary.get("environment", {}))),
        data=_data(plotted, codes, summary),
        plotly=Markup(plotly.offline.get_plotlyjs()),
    )


def _data(plotted: Mapping[str, Any], codes: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """What the page's script draws."""
    lines = {name: codes.get(name, {}).get("lines") for name in ("paths", "dimensions")}
    return {**plotted, **lines, "end": {clock: summary.get(clock) for clock in CLOCKS}, "maps": codes["maps"]}


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jointgen.reports.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = _asset
    return environment.get_template("report.html")


def _asset(name: str) -> Markup:
    """A style sheet or a script of ours, as it is."""
    return Markup(resources.files("jointgen.reports.page").joinpath("templates", name).read_text(encoding="utf-8"))


# --- sections --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def _codes(shown: Shown | str) -> dict[str, Any]:
    """The sections that need the model and held-out rows; {"absent": why} in place of what cannot be had."""
    try:
        if isinstance(shown, str):
            raise ConfigError(shown)
        codes, labels = map_codes(shown.model, shown.split)
    except ConfigError as error:
        return {"absent": str(error), "maps": []}
    maps = [{"variable": name, **_or_why(code_map, name, values, labels)} for name, values in codes.items()]
    return {"maps": maps, **_or_why(_decoded, shown, codes)}


def _decoded(shown: Shown, codes: Mapping[str, Tensor]) -> dict[str, Any]:
    rows = rows_of(shown.model, shown.split)
    return {"variable": rows.variable, "paths": interpolations(rows), "dimensions": traversal(rows, codes[rows.code])}


def _or_why(make: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    try:
        return make(*arguments)
    except ConfigError as error:
        return {"absent": str(error)}


def highlighted(recipe: str) -> Markup:
    """TOML with its comments, tables and keys marked."""
    return Markup("\n").join(_line(line) for line in recipe.splitlines())


def _line(line: str) -> Markup:
    match = TOML.fullmatch(line)
    if match is None or not match.lastgroup:
        return escape(line)
    if match["key"]:
        return Markup('<span class="key">{key}</span>{rest}').format(**match.groupdict())
    return Markup('<span class="{}">{}</span>').format(match.lastgroup, line)
