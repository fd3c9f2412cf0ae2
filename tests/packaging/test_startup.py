"""What must answer at once imports no torch: checked in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import REPO

SLOW = ("torch", "torchvision", "accelerate", "sklearn", "plotly", "jinja2")


def slow_modules_after(code: str, folder: Path, slow: tuple[str, ...] = SLOW) -> str:
    report = f"import sys\n{code}\nprint([name for name in {slow!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "code",
    [
        "import jointgen",
        "import jointgen.config.structure",
        "import jointgen.registry.components",
        "import jointgen.objectives",
        "import jointgen.registry.discovery",
        "from jointgen.registry.discovery import load_plugins; load_plugins()",
        "from jointgen.cli.main import main; main(['--help'])",
        "from jointgen.cli.main import main; assert main(['encode', 'nope', '--images', 'no.png', '-o', 'x.jpg']) == 2",
        "import jointgen.cli.run",  # which says what it does before the seconds that torch takes
    ],
)
def test_no_torch(code: str, tmp_path: Path) -> None:
    assert slow_modules_after(code, tmp_path) == "[]"


def test_a_run_imports_no_library_that_its_metrics_do_not_use(tmp_path: Path) -> None:
    code = """
from jointgen.evaluation.evaluate import metrics_of
from jointgen.registry.discovery import load_plugins
from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.recipe import read_recipe
registry = load_plugins().registry
gaussian = {"network": {"type": "mlp", "hidden": [4]}, "family": {"type": "gaussian"}}
tables = {"data": {"type": "digits"}, "prior": {"type": "normal", "size": 2}, "encoder": gaussian,
          "decoder": gaussian, "objective": {"type": "vae"}, "train": {"steps": 1}}
recipe = compile_recipe(read_recipe(tables, registry=registry), registry)
assert metrics_of(recipe) and recipe.recipe.data.open("test")
"""
    heavy = ("sklearn", "scipy.optimize", "torch_fidelity", "torchmetrics", "plotly")
    assert slow_modules_after(code, tmp_path, heavy) == "[]"


def test_importing_jointgen_loads_no_plugin(tmp_path: Path) -> None:
    code = "import sys, jointgen, jointgen.plugin\nassert not [name for name in sys.modules if 'jointgen_' in name]"
    assert slow_modules_after(code, tmp_path) == "[]"


@pytest.mark.parametrize("words", [["list"], ["list", "metric"], ["list", "--json"]])
def test_a_listing_imports_nothing_that_structures_recipes(words: list[str], tmp_path: Path) -> None:
    code = f"from jointgen.cli.main import main; assert main({words!r}) == 0"
    assert slow_modules_after(code, tmp_path, (*SLOW, "cattrs")) == "[]"


@pytest.mark.parametrize(
    "code",
    [
        """
from jointgen.config.recipe import read_recipe
from jointgen.compiler.compiled_recipe import compile_recipe  # as jointgen.load does
from jointgen.registry.discovery import load_plugins
registry = load_plugins().registry
compile_recipe(read_recipe('quickstart.toml', registry=registry), registry).parts.modules.to("cpu").eval()
""",
        "from jointgen.cli.main import main; assert main(['explain', 'quickstart.toml']) == 0",
    ],
)
def test_building_a_model_imports_no_compiler_of_torch(code: str, tmp_path: Path) -> None:
    (tmp_path / "quickstart.toml").write_bytes((REPO / "recipes/quickstart.toml").read_bytes())
    assert slow_modules_after(code, tmp_path, ("torch._dynamo", "sympy", "triton")) == "[]"


@pytest.mark.parametrize("command", ["explain", "run"])
def test_a_mistake_in_names_is_told_before_torch_is_imported(command: str, tmp_path: Path) -> None:
    """All of them together: a table, a key of the engine's, its type, its range, and the name of a component."""
    changes = {"trian.steps": 1, "train.stpes": 1, "train.batch": "'ten'", "train.ema": 2.0, "prior.type": "'nromal'"}
    words = [
        command,
        str(REPO / "recipes/quickstart.toml"),
        *(f"--set={key}={value}" for key, value in changes.items()),
    ]
    code = f"""
from jointgen.cli.main import main
from jointgen.runtime import console
import contextlib, io
with contextlib.redirect_stderr(io.StringIO()) as said:
    status = main({words!r})
lines = said.getvalue().splitlines()
assert status == 2, said.getvalue()
for key in ('trian', *{[*changes][1:]!r}):
    assert any(f"{{key}}: " in line for line in lines), (key, lines)
"""
    assert slow_modules_after(code, tmp_path) == "[]"
