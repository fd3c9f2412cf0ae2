"""The sections that plugins add to a run's page, by their hook `jointgen_report_sections`."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from markupsafe import Markup

from jointgen.config.structure import unstructure
from jointgen.errors import RAISED, ConfigError
from jointgen.registry.discovery import LoadedPlugin
from jointgen.registry.faults import said
from jointgen.registry.hooks import Section
from jointgen.runtime.console import warn
from jointgen.runtime.global_rng import global_state, set_global_state

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe
    from jointgen.inference.model import Model
    from jointgen.reports.page.page import PageModel
    from jointgen.runs.folder import RunFolder
    from jointgen.runs.records import Summary

PNG = b"\x89PNG\r\n\x1a\n"
"""What the bytes of a PNG begin with."""


@attrs.frozen
class PageView:
    """The run that a page is about; see `jointgen.plugin.RunView`."""

    path: Path
    name: str
    step: int
    steps: int
    seconds: float
    _tables: Mapping[str, Any] = attrs.field(repr=False)
    _source: PageModel | str = attrs.field(repr=False)
    resumed_from: int | None = None

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The resolved recipe as plain tables, a copy."""
        return copy.deepcopy(self._tables)

    def model(self) -> Model:
        """Return the model that the page shows, or raise ConfigError with the reason why there is none."""
        if isinstance(self._source, str):
            raise ConfigError(self._source)
        return self._source.model


def sections_of_plugins(
    folder: RunFolder, compiled: CompiledRecipe, summary: Summary | None, source: PageModel | str
) -> list[dict[str, Any]]:
    """Return the sections as the template takes them: {title, provider, blocks}, each block text, rows or a PNG.

    The section of a plugin that raises says so instead.
    """
    plugins = compiled.registry.with_hook("jointgen_report_sections")
    if not plugins:
        return []
    view = PageView(
        folder.path,
        compiled.recipe.name,
        0 if summary is None else summary.step,
        compiled.recipe.train.total_steps,
        0.0 if summary is None else summary.wall_s or 0.0,
        unstructure(compiled.recipe, compiled.registry),
        source,
    )
    before, sections = global_state(), []
    try:
        for plugin in plugins:
            sections += _sections_of(plugin, view)
    finally:
        set_global_state(before)
    return sections


def _sections_of(plugin: LoadedPlugin, view: PageView) -> list[dict[str, Any]]:
    try:
        found = [*(plugin.manager.hook.jointgen_report_sections(run=view) or [()])[0]]
        return [
            {"title": one.title, "provider": plugin.provider, "blocks": [*_blocks(one)]} for one in map(_section, found)
        ]
    except RAISED as error:
        line = f"plugin {plugin.name!r} ({plugin.provider}): jointgen_report_sections raises {said(error)}"
        warn(f"{line}; the page says so in its place")
        return [{"title": plugin.name, "provider": plugin.provider, "blocks": [{"text": line}]}]


def _section(found: Any) -> Section:
    if not isinstance(found, Section):
        raise TypeError(f"returned a {type(found).__name__}, expected a Section")
    return found


def _blocks(section: Section) -> Iterator[dict[str, Any]]:
    for block in [section.content] if isinstance(section.content, str | bytes) else section.content:
        if isinstance(block, Markup):
            yield {"text": block}
        elif isinstance(block, str):
            yield {"text": Markup("<p>{}</p>").format(block)}
        elif isinstance(block, bytes):
            if not block.startswith(PNG):
                raise TypeError(f"section {section.title!r} has bytes that are no PNG")
            yield {"png": block}
        elif block:
            yield {"rows": [[*row] for row in block]}
