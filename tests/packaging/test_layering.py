"""Modules import from lower rooms, or sideways without cycles; plugins use four doors, and never each other."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from support.paths import REPO

from jointgen import plugin
from jointgen.registry.components import KINDS

ROOMS = [
    "text",  # text on its way to people
    "errors",
    "runtime",  # the machine: processes, files, the console
    "registry",  # components by kind and name, and the plugins that bring them
    "config",  # recipes as data
    "objectives",  # the language
    "contracts",  # what a component promises
    "runs",  # the run folder
    "images",  # image files and prepared images
    "compiler",  # from an objective to a plan
    "data",  # rows, splits, batches, and what a step sees
    "engine",  # from a plan to gradients
    "inference",  # a trained model at work
    "evaluation",  # metrics over a split
    "reports",  # explain, pages, comparisons, pictures
    "training",  # the loop
    "cli",  # the command line
    "testing",  # checks for a plugin's own tests
    "plugin",  # the door for plugins
    "__init__",
    "__main__",
]
"""The rooms of `jointgen/`, from the bottom up: an import goes down or stays inside a room."""
DOORS = {"jointgen", "jointgen.plugin", "jointgen.objectives", "jointgen.testing"}
"""What a plugin may import of ours."""
LONGEST_CHAIN = 15
"""So many files, at the most, lie one below the other."""
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


def room_of(module: str) -> str:
    _, _, inner = module.partition(".")
    return inner.split(".")[0] or "__init__"


def top(module: str) -> str:
    return module.split(".")[0]


def unknown_rooms(root: Path) -> list[str]:
    core = {room_of(module) for module in find_modules(root) if top(module) == "jointgen"}
    return [f"jointgen/{room}: add it to the list ROOMS" for room in sorted(core - {*ROOMS})]


def wrong_direction(root: Path) -> list[str]:
    return [f"{one.place}: {reason}" for one in find_imports(root) if (reason := fault_of(one))]


def fault_of(one: Import) -> str | None:
    if top(one.imported) in NOT_OURS_TO_IMPORT:
        return f"imports {one.imported}, which is not there once installed"
    if top(one.imported) == "jointgen" and top(one.importer) != "jointgen":
        return None if one.imported in DOORS else f"{one.importer} imports {one.imported}, which is no door for plugins"
    if top(one.imported) == "jointgen":
        own, other = room_of(one.importer), room_of(one.imported)
        if {own, other} <= {*ROOMS} and ROOMS.index(other) > ROOMS.index(own):
            return f"{one.importer} imports {one.imported}, from the room {other} above {own}"
    elif top(one.imported).startswith("jointgen_") and top(one.imported) != top(one.importer):
        return f"{one.importer} imports the plugin {one.imported}"
    return None


def hidden_imports(root: Path) -> list[str]:
    """Imports inside functions, but for those that keep start-up quick."""
    allowed = set(root.glob("plugins/*/__init__.py"))
    places = {str(path.relative_to(root)) for path in allowed}
    found = [one for one in find_imports(root) if one.in_function and one.place.split(":")[0] not in places]
    return [f"{one.place}: imports {one.imported} inside a function" for one in found]


def import_graph(root: Path) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = {module: set() for module in find_modules(root)}
    for one in find_imports(root):
        if not one.for_types and one.imported in graph:
            graph[one.importer].add(one.imported)
    return graph


def cycles(root: Path) -> list[str]:
    graph, done = import_graph(root), set[str]()
    return [chain for module in sorted(graph) for chain in cycles_from(module, graph, (), done)]


def cycles_from(module: str, graph: dict[str, set[str]], above: tuple[str, ...], done: set[str]) -> Iterator[str]:
    if module in above:
        yield " -> ".join([*above[above.index(module) :], module])
    elif module not in done:
        for imported in sorted(graph[module]):
            yield from cycles_from(imported, graph, (*above, module), done)
        done.add(module)


def longest_chain(root: Path) -> list[str]:
    """The files of the core that lie one below the other, from the top down, where there are more than allowed."""
    graph, chains = import_graph(root), dict[str, list[str]]()

    def chain_of(module: str) -> list[str]:
        if module not in chains:
            below = [chain_of(name) for name in sorted(graph[module]) if top(name) == "jointgen"]
            chains[module] = [module, *max(below, key=len, default=[])]
        return chains[module]

    longest = max((chain_of(module) for module in sorted(graph) if top(module) == "jointgen"), key=len, default=[])
    return [] if len(longest) <= LONGEST_CHAIN else [" -> ".join(longest)]


# --- our tree --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [unknown_rooms, wrong_direction, hidden_imports, cycles, longest_chain])
def test_our_tree_keeps_the_rule(rule) -> None:  # type: ignore[no-untyped-def]
    assert rule(REPO) == []


def test_the_core_has_few_files_outside_its_rooms() -> None:
    files = {path.name for path in (REPO / "jointgen").iterdir() if path.is_file()}
    assert files == {"__init__.py", "__main__.py", "errors.py", "plugin.py", "py.typed", "text.py"}


def examples(root: Path) -> Iterator[tuple[str, str]]:
    """(place, Python) of what a plugin's author copies: the scaffold's templates and the README's code."""
    for path in sorted((root / "jointgen/cli/templates").rglob("*.py.txt")):
        yield str(path.relative_to(root)), path.read_text(encoding="utf-8")
    for code in re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL):
        yield "README.md", code


def test_what_a_plugins_author_copies_uses_the_doors_alone() -> None:
    found = dict[str, set[str]]()
    for place, code in examples(REPO):
        for node, _, _ in walk(ast.parse(code), False, False):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            found.setdefault(place, set()).update(name for name in names if top(name) == "jointgen")
    assert len(found) == 2 * len(KINDS) + 2, "a component and its tests for each kind, the package, and the README"
    assert {place: names - DOORS for place, names in found.items() if names - DOORS} == {}


# --- the rules themselves --------------------------------------------------------------------------------------------

CHAIN = [f"a{n}" for n in range(LONGEST_CHAIN + 1)]


@pytest.mark.parametrize(
    ("rule", "files", "faults"),
    [
        (unknown_rooms, {"jointgen/stray/a.py": ""}, ["jointgen/stray: add it to the list ROOMS"]),
        (unknown_rooms, {"jointgen/objectives/parse.py": "", "plugins/jointgen_a/b.py": ""}, []),
        (
            wrong_direction,
            {"jointgen/config/a.py": "import os\n\nfrom jointgen import errors\nfrom jointgen.training import run"},
            [
                "jointgen/config/a.py:4: jointgen.config.a imports jointgen.training.run, "
                "from the room training above config"
            ],
        ),
        (
            wrong_direction,
            {"jointgen/objectives/a.py": "from ..training.run import run"},
            [
                "jointgen/objectives/a.py:1: jointgen.objectives.a imports jointgen.training.run, "
                "from the room training above objectives"
            ],
        ),
        (
            wrong_direction,
            {"jointgen/runs/a.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import jointgen.data"},
            ["jointgen/runs/a.py:3: jointgen.runs.a imports jointgen.data, from the room data above runs"],
        ),
        (wrong_direction, {"jointgen/training/run.py": "from jointgen.training import b\nimport jointgen.data"}, []),
        (
            wrong_direction,
            {"jointgen/errors.py": "import jointgen"},
            ["jointgen/errors.py:1: jointgen.errors imports jointgen, from the room __init__ above errors"],
        ),
        (
            wrong_direction,
            {"jointgen/training/run.py": "def f():\n    import jointgen_vae.objective"},
            ["jointgen/training/run.py:2: jointgen.training.run imports the plugin jointgen_vae.objective"],
        ),
        (
            wrong_direction,
            {
                "plugins/jointgen_a/x.py": "from jointgen.registry.discovery import load_plugins\n"
                "from jointgen_a import y\nfrom jointgen import hookimpl\nfrom jointgen.objectives import E\n"
                "from jointgen.plugin import Space",
                "jointgen/registry/discovery.py": "",
            },
            [
                "plugins/jointgen_a/x.py:1: jointgen_a.x imports jointgen.registry.discovery, which is no door for "
                "plugins"
            ],
        ),
        (
            wrong_direction,
            {"plugins/jointgen_a/x.py": "from jointgen_b import y"},
            ["plugins/jointgen_a/x.py:1: jointgen_a.x imports the plugin jointgen_b"],
        ),
        (
            wrong_direction,
            {"jointgen/cli/main.py": "from tests import helpers"},
            ["jointgen/cli/main.py:1: imports tests, which is not there once installed"],
        ),
        (
            hidden_imports,
            {
                "jointgen/training/run.py": "class A:\n    def f(self):\n        if True:\n            import json",
                "jointgen/cli/main.py": "def f():\n    import json",
                "plugins/jointgen_a/__init__.py": "def f():\n    import json",
            },
            [
                "jointgen/training/run.py:4: imports json inside a function",
                "jointgen/cli/main.py:2: imports json inside a function",
            ],
        ),
        (
            cycles,
            {
                "jointgen/engine/step.py": "from jointgen.engine import plan",
                "jointgen/engine/plan.py": "import jointgen.training.run",
                "jointgen/training/run.py": "from jointgen.engine.step import go",
            },
            ["jointgen.engine.plan -> jointgen.training.run -> jointgen.engine.step -> jointgen.engine.plan"],
        ),
        (
            cycles,
            {
                "jointgen/engine/step.py": "from jointgen.engine import plan",
                "jointgen/engine/plan.py": "from typing import TYPE_CHECKING\n"
                "if TYPE_CHECKING:\n    import jointgen.engine.step",
            },
            [],
        ),
        (
            cycles,
            {"plugins/jointgen_a/__init__.py": "from .b import c", "plugins/jointgen_a/b.py": "import jointgen_a"},
            ["jointgen_a -> jointgen_a.b -> jointgen_a"],
        ),
        (
            longest_chain,
            {f"jointgen/runs/{one}.py": f"import jointgen.runs.{below}" for one, below in itertools.pairwise(CHAIN)}
            | {f"jointgen/runs/{CHAIN[-1]}.py": ""},
            [" -> ".join(f"jointgen.runs.{one}" for one in CHAIN)],
        ),
        (
            longest_chain,
            {f"jointgen/runs/{one}.py": f"import jointgen.runs.{below}" for one, below in itertools.pairwise(CHAIN[1:])}
            | {f"jointgen/runs/{CHAIN[-1]}.py": ""},
            [],
        ),
    ],
)
def test_the_rules_find_what_breaks_them(rule, files: dict[str, str], faults: list[str], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for module in ("__init__", "errors", "training/run", "training/b", "data/__init__"):
        files = {f"jointgen/{module}.py": "", **files}
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert rule(tmp_path) == faults


def test_the_door_for_plugins_offers_what_its_types_say() -> None:
    """Names are imported where they are first asked for, so they stand twice: for type checkers and for Python."""
    tree = ast.parse((REPO / "jointgen" / "plugin.py").read_text())
    typed = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("jointgen.")
        for alias in node.names
    }
    assert typed == plugin._HOME
    assert all(getattr(plugin, name) is not None for name in dir(plugin))
