"""The recipes that come with jointgen: where they are, and copies of them to run and change. Torch-free."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from jointgen.config.toml import read_toml
from jointgen.errors import ConfigError, nearest, suggest
from jointgen.runtime.atomic_files import replace_bytes


def recipe_folder() -> Path:
    """Inside the package once installed from a wheel, beside it in a checkout."""
    packed = Path(str(resources.files("jointgen"))) / "recipes"
    return packed if packed.is_dir() else Path(__file__).parents[2] / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Files by name, without their ending."""
    return {path.stem: path for path in sorted(recipe_folder().glob("*.toml"))}


def find_recipe(path: str) -> Path:
    """The path as it is. Raises ConfigError where nothing is there and a shipped recipe is called like that."""
    if not Path(path).exists():
        name, shipped = _name(path), shipped_recipes()
        if name in shipped:
            raise ConfigError(
                f"{path}: no such file; a shipped recipe has that name, copy it first: jointgen copy {name}"
            )
        beside = [file.stem for file in Path(path).parent.glob("*.toml")]  # nearer: the reader of TOML names those
        if not nearest(name, beside) and (near := nearest(name, shipped)):
            raise ConfigError(f"{path}: no such file; did you mean the shipped recipe {near!r}? jointgen copy {near}")
    return Path(path)


def copy_recipe(name: str, destination: Path) -> list[Path]:
    """Copies a shipped recipe and everything that it is based on; returns the copies, its own first.

    destination: a folder, made if need be, or a file that ends in .toml.  Raises ConfigError for an unknown recipe
    and for files that are there already, before anything is written.
    """
    shipped = shipped_recipes()
    if _name(name) not in shipped:
        raise ConfigError(f"unknown recipe {name!r}{suggest(name, shipped)}")
    copies = _copies(shipped[_name(name)], destination)
    if taken := [path for path in copies if path.exists()]:
        raise ConfigError([f"{path}: is there already; copy to another folder or remove it" for path in taken])
    for path, source in copies.items():
        _write(path, source.read_bytes())
    return list(copies)


def _name(path: str) -> str:
    return Path(path).name.removesuffix(".toml")


def _copies(recipe: Path, destination: Path) -> dict[Path, Path]:
    """copy -> original. What a recipe is based on keeps its name, because the recipe calls it by that."""
    own = destination if destination.suffix == ".toml" else destination / recipe.name
    copies = {own: recipe}
    while base := read_toml(recipe).get("base"):
        recipe = recipe.parent / base
        copies[own.parent / base] = recipe
    return copies


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_bytes(path, data)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
