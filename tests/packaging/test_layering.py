"""Modules import from lower layers, or sideways without cycles; plugins import contracts, and never each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

ROOT = Path(__file__).parents[2]

LAYERS = {
    "errors": 0,
    "nats": 0,
    "telling": 0,
    "__init__": 1,
    "capabilities": 1,
    "caching": 1,
    "config": 1,
    "files": 1,
    "hookspecs": 1,
    "image_files": 1,
    "image_folders": 1,
    "interfaces": 1,
    "measures": 1,
    "noise": 1,
    "noise_table": 1,
    "objectives": 1,
    "observe": 1,
    "registry": 1,
    "shards": 1,
    "space": 1,
    "statistics": 1,
    "tables": 1,
    "batch_norm": 2,
    "checkpoint": 2,
    "data": 2,
    "distributed": 2,
    "environment": 2,
    "image_listing": 2,
    "launch": 2,
    "listing": 2,
    "manifest": 2,
    "outputs": 2,
    "packing": 2,
    "partial": 2,
    "pictures": 2,
    "plugins": 2,
    "progress": 2,
    "randomness": 2,
    "runfiles": 2,
    "runfolder": 2,
    "scaffold": 2,
    "shipped": 2,
    "stopping": 2,
    "switches": 2,
    "trackers": 2,
    "transfer": 2,
    "trees": 2,
    "user_images": 2,
    "advice": 3,
    "averaging": 3,
    "balance": 3,
    "comparison": 3,
    "compiling": 3,
    "declare": 3,
    "evaluate": 3,
    "explain": 3,
    "explain_training": 3,
    "feed": 3,
    "gallery": 3,
    "gauge": 3,
    "health": 3,
    "inference": 3,
    "lowering": 3,
    "model": 3,
    "nodes": 3,
    "optimizer_tables": 3,
    "optimizers": 3,
    "ownership": 3,
    "parts": 3,
    "plan": 3,
    "prepare": 3,
    "program": 3,
    "reach": 3,
    "recipe": 3,
    "report": 3,
    "reporting": 3,
    "requirements": 3,
    "saving": 3,
    "sizes": 3,
    "starting": 3,
    "step": 3,
    "terms": 3,
    "train": 3,
    "turn": 3,
    "updates": 3,
    "warm_start": 3,
    "watch": 3,
    "__main__": 4,
    "arguments": 4,
    "cli": 4,
    "cli_compare": 4,
    "cli_eval": 4,
    "cli_report": 4,
    "cli_runs": 4,
    "testing": 4,
}
CONTRACTS = 1  # the highest layer that a plugin may import
NOT_OURS_TO_IMPORT = {"benchmarks", "plugins", "recipes", "tests"}  # importable in development only


@attrs.frozen
class Import:
    importer: str
    imported: str
    place: str
    for_types: bool
    in_function: bool


# --- reading the sources ---------------------------------------------------------------------------------------------


def find_modules(root: Path) -> dict[str, Path]:
    """Every module of the core and of the plugins, by the name it is imported under."""
    files = [(root, path) for path in (root / "jointgen").rglob("*.py")]
    files += [(root / "plugins", path) for path in (root / "plugins").rglob("*.py")]
    return {name_of(path.relative_to(base)): path for base, path in files}


def name_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def find_imports(root: Path) -> list[Import]:
    modules = find_modules(root)
    found = []
    for module, path in modules.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for node, for_types, in_function in walk(ast.parse(path.read_text()), False, False):
            place = f"{path.relative_to(root)}:{node.lineno}"
            found += [
                Import(module, name, place, for_types, in_function) for name in imported_names(node, package, modules)
            ]
    return found


def walk(node: ast.AST, for_types: bool, in_function: bool) -> Iterator[tuple[ast.stmt, bool, bool]]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, for_types, in_function
    for child in ast.iter_child_nodes(node):
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and child in node.body
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from walk(child, for_types or guarded, in_function or inside)


def imported_names(node: ast.stmt, package: str, modules: dict[str, Path]) -> list[str]:
    """``from package import name`` imports the module of that name where there is one, otherwise the package."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert isinstance(node, ast.ImportFrom)
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    source = ".".join([*above, node.module] if node.module else above)
    return [name if (name := f"{source}.{alias.name}") in modules else source for alias in node.names]


# --- the rules -------------------------------------------------------------------------------------------------------


def layer_of(module: str) -> int | None:
    _, _, inner = module.partition(".")
    return LAYERS.get(inner.split(".")[0] or "__init__")


def top(module: str) -> str:
    return module.split(".")[0]


def unknown_modules(root: Path) -> list[str]:
    core = [module for module in find_modules(root) if top(module) == "jointgen"]
    return [f"{module}: add it to the table LAYERS" for module in core if layer_of(module) is None]


def wrong_direction(root: Path) -> list[str]:
    return [f"{one.place}: {reason}" for one in find_imports(root) if (reason := fault_of(one))]


def fault_of(one: Import) -> str | None:
    if top(one.imported) in NOT_OURS_TO_IMPORT:
        return f"imports {one.imported}, which is not there once installed"
    if top(one.imported) == "jointgen":
        own = CONTRACTS if top(one.importer) != "jointgen" else layer_of(one.importer)
        other = layer_of(one.imported)
        if own is not None and other is not None and other > own:
            return f"{one.importer} (up to layer {own}) imports {one.imported} (layer {other})"
    elif top(one.imported).startswith("jointgen_") and top(one.imported) != top(one.importer):
        return f"{one.importer} imports the plugin {one.imported}"
    return None


def hidden_imports(root: Path) -> list[str]:
    """Imports inside functions, but for those that keep start-up quick."""
    allowed = {root / "jointgen" / "cli.py", *root.glob("plugins/*/__init__.py")}
    places = {str(path.relative_to(root)) for path in allowed}
    found = [one for one in find_imports(root) if one.in_function and one.place.split(":")[0] not in places]
    return [f"{one.place}: imports {one.imported} inside a function" for one in found]


def cycles(root: Path) -> list[str]:
    graph: dict[str, set[str]] = {module: set() for module in find_modules(root)}
    for one in find_imports(root):
        if not one.for_types and one.imported in graph:
            graph[one.importer].add(one.imported)
    done: set[str] = set()
    return [chain for module in sorted(graph) for chain in cycles_from(module, graph, (), done)]


def cycles_from(module: str, graph: dict[str, set[str]], above: tuple[str, ...], done: set[str]) -> Iterator[str]:
    if module in above:
        yield " -> ".join([*above[above.index(module) :], module])
    elif module not in done:
        for imported in sorted(graph[module]):
            yield from cycles_from(imported, graph, (*above, module), done)
        done.add(module)


# --- our tree --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [unknown_modules, wrong_direction, hidden_imports, cycles])
def test_our_tree_keeps_the_rule(rule) -> None:  # type: ignore[no-untyped-def]
    assert rule(ROOT) == []


# --- the rules themselves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "files", "faults"),
    [
        (unknown_modules, {"jointgen/stray.py": ""}, ["jointgen.stray: add it to the table LAYERS"]),
        (unknown_modules, {"jointgen/objectives/parse.py": "", "plugins/jointgen_a/b.py": ""}, []),
        (
            wrong_direction,
            {"jointgen/config.py": "import os\n\nfrom jointgen import train, errors"},
            ["jointgen/config.py:3: jointgen.config (up to layer 1) imports jointgen.train (layer 3)"],
        ),
        (
            wrong_direction,
            {"jointgen/objectives/a.py": "from ..train import run"},
            ["jointgen/objectives/a.py:1: jointgen.objectives.a (up to layer 1) imports jointgen.train (layer 3)"],
        ),
        (
            wrong_direction,
            {"jointgen/space.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import jointgen.data"},
            ["jointgen/space.py:3: jointgen.space (up to layer 1) imports jointgen.data (layer 2)"],
        ),
        (wrong_direction, {"jointgen/train.py": "from jointgen import step, errors\nimport jointgen.data"}, []),
        (
            wrong_direction,
            {"jointgen/errors.py": "import jointgen"},
            ["jointgen/errors.py:1: jointgen.errors (up to layer 0) imports jointgen (layer 1)"],
        ),
        (
            wrong_direction,
            {"jointgen/train.py": "def f():\n    import jointgen_vae.objective"},
            ["jointgen/train.py:2: jointgen.train imports the plugin jointgen_vae.objective"],
        ),
        (
            wrong_direction,
            {"plugins/jointgen_a/x.py": "from jointgen.plugins import load_plugins\nfrom jointgen_a import y"},
            ["plugins/jointgen_a/x.py:1: jointgen_a.x (up to layer 1) imports jointgen.plugins (layer 2)"],
        ),
        (
            wrong_direction,
            {"plugins/jointgen_a/x.py": "from jointgen_b import y"},
            ["plugins/jointgen_a/x.py:1: jointgen_a.x imports the plugin jointgen_b"],
        ),
        (
            wrong_direction,
            {"jointgen/cli.py": "from tests import helpers"},
            ["jointgen/cli.py:1: imports tests, which is not there once installed"],
        ),
        (
            hidden_imports,
            {
                "jointgen/train.py": "class A:\n    def f(self):\n        if True:\n            import json",
                "jointgen/cli.py": "def f():\n    import json",
                "plugins/jointgen_a/__init__.py": "def f():\n    import json",
            },
            ["jointgen/train.py:4: imports json inside a function"],
        ),
        (
            cycles,
            {
                "jointgen/step.py": "from jointgen import plan",
                "jointgen/plan.py": "import jointgen.train",
                "jointgen/train.py": "from jointgen.step import go",
            },
            ["jointgen.plan -> jointgen.train -> jointgen.step -> jointgen.plan"],
        ),
        (
            cycles,
            {
                "jointgen/step.py": "from jointgen import plan",
                "jointgen/plan.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import jointgen.step",
            },
            [],
        ),
        (
            cycles,
            {"plugins/jointgen_a/__init__.py": "from .b import c", "plugins/jointgen_a/b.py": "import jointgen_a"},
            ["jointgen_a -> jointgen_a.b -> jointgen_a"],
        ),
    ],
)
def test_the_rules_find_what_breaks_them(rule, files: dict[str, str], faults: list[str], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for module in ("__init__", "errors", "train", "data", "plugins"):
        files = {f"jointgen/{module}.py": "", **files}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert rule(tmp_path) == faults
