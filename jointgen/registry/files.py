"""Plugin files: single Python files beside a recipe or in a run folder, whose components a recipe uses. Torch-free.

A file is code. One that a run brings along is only run with its user's consent (`trusting`), or if this process has
already run a file of the same content.
"""

from __future__ import annotations

import ast
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

import attrs
from pluggy import PluginManager

from jointgen.errors import RAISED, ConfigError, FileError, MissingFileError, PluginError, Problems, for_caller, nearest
from jointgen.registry.components import Component, Registry
from jointgen.registry.discovery import LoadedPlugin, call_hooks, collecting
from jointgen.runtime.hashing import sha256_of
from jointgen.runtime.regular_files import read_regular

MAX_BYTES = 1 << 20
"""The limit in bytes of a plugin file."""
SHOWN_DIGITS = 8


@attrs.frozen(eq=False)
class PluginFile:
    """A plugin file that this process has run.

    Args:
        path: Where it was read.
        source: Its content.
        sha256: The hash of its content.
        components: What it registers.
        plugin: The file as a plugin, whose other hooks are called with those of installed plugins.
        module: The name of its module, which has the hash in it: two files of one name may be there.
        expected: The hash that the recipe says it has; empty where the recipe says none.
    """

    path: Path
    source: bytes = attrs.field(repr=False)
    sha256: str
    components: tuple[Component, ...]
    plugin: LoadedPlugin = attrs.field(repr=False)
    module: str
    expected: str = ""

    @property
    def provider(self) -> str:
        """What its components name as their provider."""
        return _provider(self.path, self.sha256)

    @property
    def has_changed(self) -> bool:
        """Whether it is another file than the recipe says."""
        return self.expected not in ("", self.sha256)

    @property
    def change(self) -> str:
        """Its own hash and the one that the recipe says."""
        return f"sha256 {self.sha256[:SHOWN_DIGITS]}..., not {self.expected[:SHOWN_DIGITS]}..."


_LOADED: dict[tuple[str, str], PluginFile] = {}  # by name and hash
_TRUST: ContextVar[bool] = ContextVar("trust", default=False)


@contextmanager
def trusting(consent: bool = True) -> Iterator[None]:
    """Let the body run the code that runs bring along."""
    token = _TRUST.set(consent or _TRUST.get())
    try:
        yield
    finally:
        _TRUST.reset(token)


def loaded_modules() -> dict[str, str]:
    """Return who provides the module of each plugin file that this process has run, by the module's name."""
    return {file.module: file.provider for file in _LOADED.values()}


def load_files(paths: Sequence[tuple[Path, str]], *, foreign: bool = False) -> tuple[PluginFile, ...]:
    """Run plugin files, each of them once in a process, and return them.

    Args:
        paths: The files, each with the hash that it is expected to have, or an empty text.
        foreign: Whether a run brings them along, so that running them needs consent.

    Raises:
        ConfigError: There is no such file, it cannot be imported or registers nothing, or consent is missing; every
            problem, with the file's place in the list.
    """
    problems, read = Problems(), dict[Path, bytes]()
    for n, (path, _) in enumerate(paths):
        with problems.collect(n):
            read[path] = _read(path)
    names = [path.name for path, _ in paths]
    for n, name in enumerate(names):
        if name in names[:n]:
            problems.add(f"two plugin files are named {name}, which a run keeps side by side; rename one", n)
    problems.raise_any()
    strange = [path for path, source in read.items() if (path.name, sha256_of(source)) not in _LOADED]
    if foreign and strange and not _TRUST.get():
        raise ConfigError(
            [
                f"{path} is code that loading the run would execute (sha256 "
                f"{sha256_of(read[path])[:SHOWN_DIGITS]}...{_unlike(sha256_of(read[path]), expected)}); read it, and "
                f"if you trust it, give {for_caller('--trust', 'trust=True')}"
                for path, expected in paths
                if path in strange
            ]
        )
    files = list[PluginFile]()
    for n, (path, expected) in enumerate(paths):
        with problems.collect(n):
            files.append(attrs.evolve(_loaded(path, read[path]), expected=expected))
    problems.raise_any()
    return tuple(files)


def _unlike(found: str, expected: str) -> str:
    return "" if expected in ("", found) else f", not the {expected[:SHOWN_DIGITS]}... that it was trained with"


def _read(path: Path) -> bytes:
    if path.suffix != ".py":
        raise ConfigError(f"{path} is no Python file; a plugin file ends in .py")
    try:
        return read_regular(path, MAX_BYTES)
    except MissingFileError:
        near = nearest(path.name, [file.name for file in path.parent.glob("*.py")])
        raise ConfigError(f"no file {path}" + (f"; did you mean {near!r}?" if near else "")) from None
    except FileError as error:
        raise ConfigError(f"{path} {error.reason}") from None


def _provider(path: Path, sha256: str) -> str:
    return f"{path.name} (sha256 {sha256[:SHOWN_DIGITS]})"


def _loaded(path: Path, source: bytes) -> PluginFile:
    sha256 = sha256_of(source)
    if (path.name, sha256) not in _LOADED:
        registry = Registry()
        name = f"jointgen_file_{path.stem}_{sha256[:SHOWN_DIGITS]}".replace("-", "_")
        provider = _provider(path, sha256)
        plugin = LoadedPlugin(path.stem, provider, "", name, _run(path, source, name, registry, provider))
        _LOADED[path.name, sha256] = PluginFile(path, source, sha256, tuple(registry.components()), plugin, name)
    return attrs.evolve(_LOADED[path.name, sha256], path=path)


def _run(path: Path, source: bytes, name: str, registry: Registry, provider: str) -> PluginManager:
    """Run a file as a module of its own, let it fill a registry, and return what calls its hooks.

    Raises:
        PluginError: It cannot be compiled, raises, imports a file beside it, or registers nothing.
    """
    try:
        tree = ast.parse(source, str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise PluginError(f"{path}{f':{line}' if line else ''} is not Python: {error.args[0]}") from None
    if beside := _imported_beside(tree, path.parent):
        raise PluginError(
            f"{path} imports {beside}, which lies beside it and would not come along with the run; put both into one "
            "file, or make a package (jointgen plugin new)"
        )
    module = ModuleType(name, None)
    module.__file__ = str(path)
    sys.modules[name] = module  # where annotations are looked up
    try:
        with collecting(registry, provider):
            exec(compile(tree, str(path), "exec"), module.__dict__)
        return call_hooks(registry, module, name, provider)
    except PluginError as error:
        del sys.modules[name]
        text = str(error)
        if not text.startswith(f"{path}:"):
            text = f"{path} {text}" if text.startswith("implements") else f"{path}: {text}"
        raise PluginError(text) from None
    except RAISED as error:  # whatever a file raises while it is run
        del sys.modules[name]
        lines = [
            line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_globals.get("__name__") == name
        ]
        place = f":{lines[-1]}" if lines else ""
        text = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))
        raise PluginError(f"{path}{place} raises {text}") from error


def _imported_beside(tree: ast.Module, folder: Path) -> str:
    """Return the name of a module that a file imports from its own folder; "" where there is none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "a module"] if not node.level else ["." * node.level + (node.module or "")]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            top = name.partition(".")[0]
            is_beside = (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file()
            if not top or (is_beside and not _is_installed(top, folder)):
                return repr(name)
    return ""


def _is_installed(module: str, folder: Path) -> bool:
    """Whether a module is found without looking into this folder, from which a checkout may be installed."""
    elsewhere = [path for path in sys.path if Path(path or ".").resolve() != folder.resolve()]
    return module == "jointgen" or PathFinder.find_spec(module, elsewhere) is not None
