"""`jointgen list recipe`: the recipes that come with jointgen, and what each says of itself."""

from __future__ import annotations

import json as as_json
from itertools import groupby
from pathlib import Path

import attrs

from jointgen.config.shipped import recipe_folder, shipped_recipes
from jointgen.config.toml import load_tables
from jointgen.errors import ConfigError, suggest


@attrs.frozen
class ShippedRecipe:
    """What a shipped recipe says of itself.

    Args:
        name: The name by which `jointgen run` finds it.
        group: The folder that it lies in, "" for none.
        title: One sentence.
        data: The types of its data sources.
        figure: What it reaches, and by what budget.
        time: How long it takes.
    """

    name: str
    group: str
    title: str
    data: str
    figure: str
    time: str


def described_recipes() -> list[ShippedRecipe]:
    """Read what every shipped recipe says of itself."""
    return [_described(name, path) for name, path in shipped_recipes().items()]


def _described(name: str, path: Path) -> ShippedRecipe:
    comments = [line[1:].strip() for line in path.read_text().splitlines() if line.startswith("#")]
    said = {key: value for key, _, value in (line.partition(": ") for line in comments) if key in ("figure", "time")}
    tables = load_tables(path)
    sources = [tables.get("data", {}), *tables.get("sources", {}).values()]
    data = ", ".join(dict.fromkeys(source["type"] for source in sources if "type" in source))
    group = path.parent.relative_to(recipe_folder()).as_posix()
    return ShippedRecipe(
        name, "" if group == "." else group, comments[0], data, said.get("figure", ""), said.get("time", "")
    )


def recipes_as(name: str | None = None, *, json: bool = False) -> str:
    """List the shipped recipes (or one): what each is, its data, its time and what it reaches.

    Args:
        name: Of the only one to list.
        json: As JSON, {"recipes": [{name, group, title, data, figure, time}]}, in place of text.

    Raises:
        ConfigError: There is no recipe of this name.
    """
    found = described_recipes()
    chosen = [recipe for recipe in found if name in (None, recipe.name)]
    if not chosen:
        raise ConfigError(f"unknown recipe {name!r}{suggest(str(name), [recipe.name for recipe in found])}")
    if json:
        return as_json.dumps({"recipes": list(map(attrs.asdict, chosen))}, indent=2)
    width = max(len(recipe.name) for recipe in chosen)
    blocks = []
    for group, members in groupby(chosen, key=lambda recipe: recipe.group):
        lines = ["/".join(filter(None, ("recipes", group)))]
        for recipe in members:
            facts = "; ".join(dict.fromkeys((f"data {recipe.data}", recipe.time, recipe.figure)))
            lines += [f"  {recipe.name:<{width}}  {recipe.title}", f"  {'':<{width}}  [{facts}]"]
        blocks.append("\n".join(lines))
    return "\n\n".join(
        [*blocks, "jointgen run NAME trains one, explain NAME explains it, copy NAME copies it to be changed"]
    )
