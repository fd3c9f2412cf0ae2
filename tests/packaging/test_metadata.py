"""What pyproject.toml and CITATION.cff say of this package is true."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata

from support.paths import REPO

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements: list[str]) -> set[str]:
    return {normal(re.split(r"[<>=!~\[; ]", one)[0]) for one in requirements}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported() -> dict[str, str]:
    """The modules that jointgen and its plugins import, by the first part of their name, with a file that does."""
    found: dict[str, str] = {}
    for file in [*(REPO / "jointgen").rglob("*.py"), *(REPO / "plugins").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            else:
                continue
            found |= {module.partition(".")[0]: str(file.relative_to(REPO)) for module in modules}
    return found


def test_every_import_is_of_a_declared_dependency_or_an_extra() -> None:
    """A package that comes along with another one may leave with it."""
    declared = names(PROJECT["dependencies"]).union(*map(names, PROJECT["optional-dependencies"].values()))
    ours = {"jointgen", *(path.name for path in (REPO / "plugins").iterdir())}
    foreign = {m: file for m, file in imported().items() if m not in sys.stdlib_module_names and m not in ours}
    distributions = metadata.packages_distributions()
    undeclared = {
        module: file
        for module, file in foreign.items()
        if not declared & {normal(module), *map(normal, distributions.get(module, []))}
    }
    assert undeclared == {}
    assert "torch" in foreign, "the search finds imports"


def test_the_citation_is_of_this_version_and_licence() -> None:
    cited = dict(re.findall(r'^([\w-]+): "?([^"\n]+)"?$', (REPO / "CITATION.cff").read_text(encoding="utf-8"), re.M))
    assert cited["version"] == PROJECT["version"]
    assert cited["license"] == PROJECT["license"]
