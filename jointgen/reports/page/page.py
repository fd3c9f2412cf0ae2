"""Writes a run's page, `report.html`: one file that holds everything that it shows and loads nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import plotly.offline
import torch
from markupsafe import Markup, escape
from torch import Tensor

from jointgen.data.split import Split
from jointgen.errors import ConfigError
from jointgen.reports.explain.explain import explained
from jointgen.reports.html import fill_template, packed
from jointgen.reports.page.codes import code_map, interpolation_rows, interpolations, map_codes, traversal
from jointgen.reports.page.curves import curves
from jointgen.reports.page.equation import equations, joints
from jointgen.reports.page.figures import absent_figures, critic_rows, facts_of, figure_rows, flattened, highlights
from jointgen.reports.page.sections import sections_of_plugins
from jointgen.reports.page.training_pictures import frames
from jointgen.reports.run_figures import figures_of_run
from jointgen.runs.folder import RunFolder
from jointgen.runs.log_file import CLOCKS
from jointgen.runtime.atomic_files import replace_text, writing

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe
    from jointgen.inference.model import Model

TOML_LINE = re.compile(r"(?P<comment>\s*#.*)|(?P<table>\[.*\])|(?P<key>[^=\s]+)(?P<rest>\s*=.*)|.*")


@attrs.frozen
class PageModel:
    """The model that a page draws from.

    Args:
        model: The model.
        split: The held-out rows that it encodes.
        checkpoint: The name of the checkpoint that has its weights.
    """

    model: Model
    split: Split
    checkpoint: str | None


def write_report(folder: RunFolder, compiled: CompiledRecipe, source: PageModel | str) -> None:
    """Write `report.html` into a run's folder.

    Args:
        folder: The run's folder, whose files the page shows.
        compiled: The run's recipe.
        source: The model for the section on codes, or the reason why there is none, which the page gives instead.

    Raises:
        WriteError: The disk does not take the page.
    """
    summary = folder.read_summary()
    figures = figures_of_run(summary, folder.read_evaluation())
    rows = figure_rows(figures)
    plotted = curves(folder.read_log().events, figures.figures, compiled.recipe.eval.quick_rows)
    codes = _show_codes(source)
    (_, about), *plan = explained(compiled)
    page = fill_template(
        "report.html",
        name=compiled.recipe.name,
        status="unknown" if summary is None else summary.status,
        note="" if summary is None else summary.note,
        about=[line.removeprefix(f"{compiled.recipe.name}: ") for line in about],
        facts=list(facts_of(summary, compiled.recipe.train.total_steps)) if summary is not None else [],
        figures=rows,
        figures_of=figures.checkpoint,
        other_checkpoints=figures.other_checkpoints,
        highlights=highlights(rows),
        absent=absent_figures(figures),
        critics=critic_rows(summary) if summary is not None else {},
        stages=equations(compiled),
        joints=joints(compiled),
        history=frames(folder.samples),
        checkpoint=None if isinstance(source, str) else source.checkpoint,
        codes=codes,
        curves=plotted["sections"],
        plan=plan,
        recipe=highlight_toml(folder.read_recipe()),
        environment=list(flattened(attrs.asdict(summary.environment))) if summary is not None else [],
        sections=sections_of_plugins(folder, compiled, summary, source),
        data={  # what the page's script draws
            **plotted,
            "maps": codes["maps"],
            **{name: codes.get(name, {}).get("lines") for name in ("paths", "dimensions")},
            "end": {clock: getattr(summary, clock, None) for clock in CLOCKS},
        },
        plotly=packed(plotly.offline.get_plotlyjs()),
    )
    with writing(folder.report):
        replace_text(folder.report, page)


@torch.no_grad()
def _show_codes(source: PageModel | str) -> dict[str, Any]:
    """Prepare the section on codes. {"absent": reason} stands in place of what this model cannot show."""
    try:
        if isinstance(source, str):
            raise ConfigError(source)
        codes, labels = map_codes(source.model, source.split)
    except ConfigError as error:
        return {"absent": str(error), "maps": []}
    maps = [{"variable": name, **_or_reason(code_map, name, values, labels)} for name, values in codes.items()]
    return {"maps": maps, **_or_reason(_show_decoded, source, codes)}


def _show_decoded(source: PageModel, codes: Mapping[str, Tensor]) -> dict[str, Any]:
    rows = interpolation_rows(source.model, source.split)
    return {"variable": rows.variable, "paths": interpolations(rows), "dimensions": traversal(rows, codes[rows.code])}


def _or_reason(make: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    try:
        return make(*arguments)
    except ConfigError as error:
        return {"absent": str(error)}


def highlight_toml(text: str) -> Markup:
    """Mark the comments, table headings and keys of a TOML text."""
    lines = []
    for line in text.splitlines():
        match = TOML_LINE.fullmatch(line)
        if match is None or not match.lastgroup:
            lines.append(escape(line))
        elif match["key"]:
            lines.append(Markup('<span class="key">{key}</span>{rest}').format(**match.groupdict()))
        else:
            lines.append(Markup('<span class="{}">{}</span>').format(match.lastgroup, line))
    return Markup("\n").join(lines)
