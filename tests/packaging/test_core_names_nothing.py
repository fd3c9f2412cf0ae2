"""The core names no metric, objective or data set that we ship, no plugin, no key of a data source and no variable x.

All of these are plugins', and a third party's must fare as well as ours. The names are those of the registry.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import attrs

from jointgen.registry.components import Registry
from jointgen.registry.discovery import load_plugins

ROOT = Path(__file__).parents[2]
EXAMPLES = "testing/"
"""The checks for plugins build tiny models of shipped components, and name them."""

HOMONYMS = {
    "critics": "a run's critics, and the table of their optimizers",
    "exact": "a kind of bound, and of a gradient path",
    "image": "a picture",
    "label": "a kind of Space",
    "labels": "the labels of points on a page",
    "negative": "the negatives of a critic",
    "path": "a kind of requirement: a gradient path",
    "reconstruction": "a group of figures",
    "reports": "what an objective has reported",
    "rows": "the rows of a batch or of a table",
    "seed": "a run's seed",
    "size": "the size of a file, and the role of a data key",
    "variables": "the variables of a recipe",
    "verify": "an option of `data prepare`",
    "weights": "the weights of an objective's terms, and of networks",
}
"""Names of components or keys that are also words of the core's own, with what they mean there."""

EXCEPTIONS = {
    ("cli/study_file.py", "grid"): "the table [grid] of a study",
    ("config/recipe.py", "split"): "the key eval.split, of which it speaks",
    ("contracts/space.py", "x"): "between the sizes of 3x32x32",
    ("inference/model.py", "elbo"): "the bound is a function of the language; its noise has its name",
    ("objectives/__init__.py", "elbo"): "the bound is a function of the language",
    ("objectives/recipe_text.py", "expression"): "the language registers the text form of its own objectives",
    ("objectives/distributions.py", "x"): "the ready joints q(x,z) and p(x,z) of the language",
    ("plugin.py", "bits_per_dim"): "a function for metrics",
    ("plugin.py", "observe"): "a function for data sources",
    ("reports/page/codes.py", "x"): "a coordinate of the plane",
}
"""Strings that stand where they stand for a reason."""


def shipped_names(registry: Registry) -> dict[str, set[str]]:
    """The names that the core must not know: of figures (which begin with a metric's), and others."""
    keys = {field.name for component in registry.components("data") for field in attrs.fields(component.load())}
    named = {component.name for kind in ("objective", "data") for component in registry.components(kind)}
    packages = {path.name for path in (ROOT / "plugins").glob("jointgen_*")}
    return {
        "metrics": {component.name for component in registry.components("metric")},
        "others": keys | named | packages,
    }


def named_in(text: str, names: dict[str, set[str]]) -> Iterator[tuple[int, str]]:
    """(line, string) of every string in a Python file that is one of the names, or of a metric's figures, such as
    "iwae_64" or "fid/net". Docstrings are prose, and pieces of f-strings are text."""
    tree = ast.parse(text)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    prose |= {id(piece) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for piece in node.values}
    beginnings = tuple(f"{name}{end}" for name in names["metrics"] - {*HOMONYMS} for end in "_/")
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            is_name = node.value in names["metrics"] | names["others"] | {"x"} and node.value not in HOMONYMS
            if is_name or node.value.startswith(beginnings):
                yield node.lineno, node.value
    for node in ast.walk(tree):
        modules = [node.module] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (
            (node.lineno, str(module)) for module in modules if str(module).partition(".")[0] in names["others"]
        )


def findings(root: Path, names: dict[str, set[str]]) -> list[tuple[str, int, str]]:
    """(file, line, string) of everything that the core names."""
    files = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*.py"))}
    core = {file: path for file, path in files.items() if not file.startswith(EXAMPLES)}
    return [(file, line, name) for file, path in core.items() for line, name in named_in(path.read_text(), names)]


def test_the_core_names_nothing_that_is_shipped() -> None:
    found = findings(ROOT / "jointgen", shipped_names(load_plugins().registry))
    unexplained = [f"jointgen/{file}:{line}: {name!r}" for file, line, name in found if (file, name) not in EXCEPTIONS]
    assert unexplained == []
    assert {*EXCEPTIONS} <= {(file, name) for file, _, name in found}, "an exception is no longer needed"


def test_templates_name_nothing_that_is_shipped() -> None:
    """The pages' templates show what figures say of themselves."""
    names = shipped_names(load_plugins().registry)["metrics"] - {*HOMONYMS, "is"}
    for path in (ROOT / "jointgen/reports/templates").glob("*.html"):
        words = set(path.read_text().replace('"', " ").replace("'", " ").split())
        assert words & names == set(), path.name


def test_the_test_finds_names(tmp_path: Path) -> None:
    names = {"metrics": {"fid", "critics"}, "others": {"mnist", "flip", "jointgen_vae"}}
    (tmp_path / "a.py").write_text(
        '"""fid of x."""\nimport jointgen_vae.objective\nif key == "flip" or figure.startswith("fid/net"):\n'
        '    title = {"critics": f"x{x}", "mnist": values["x"]}\n'
    )
    (tmp_path / "testing").mkdir()
    (tmp_path / "testing/b.py").write_text('"fid"\ny = "fid"\n')
    assert sorted(findings(tmp_path, names)) == [
        ("a.py", 2, "jointgen_vae.objective"),
        ("a.py", 3, "fid/net"),
        ("a.py", 3, "flip"),
        ("a.py", 4, "mnist"),
        ("a.py", 4, "x"),
    ]
