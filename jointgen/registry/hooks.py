"""The hooks that a plugin implements, and what they are given. Torch-free.

A hook is a function of the plugin's module that is marked with `@jointgen.hookimpl`. It may leave out arguments that it
does not need. docs/extending/plugins.md has an example of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import pluggy

if TYPE_CHECKING:
    from jointgen.registry.components import Registrar

hookspec = pluggy.HookspecMarker("jointgen")
hookimpl = pluggy.HookimplMarker("jointgen")


# --- components ------------------------------------------------------------------------------------------------------


@hookspec
def jointgen_register(registry: Registrar) -> None:
    """Register a plugin's components.

    Args:
        registry: One method for each kind of component, see `Registrar`.
    """


# --- events of a run -------------------------------------------------------------------------------------------------


class RunView(Protocol):
    """A run as hooks see it: what it is and how far it has come. Nothing in it leads back into the training.

    A section of a page is given the same view of the run that the page is about.
    """

    @property
    def path(self) -> Path:
        """The run folder."""

    @property
    def name(self) -> str:
        """The recipe's name."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The resolved recipe as plain tables, a copy."""

    @property
    def step(self) -> int:
        """Steps made so far."""

    @property
    def steps(self) -> int:
        """Steps in all, as planned; early stopping makes them fewer."""

    @property
    def seconds(self) -> float:
        """Seconds of training so far, over all parts of a resumed run."""

    @property
    def resumed_from(self) -> int | None:
        """The step of the checkpoint from which this process went on; None in a run that started here."""

    def model(self) -> Any:
        """Return a copy of the model with its averaged weights (`jointgen.load` returns the same class).

        Raises:
            ConfigError: On a page: the run has no whole checkpoint, or its data are not there.
        """


@hookspec
def jointgen_run_start(run: RunView) -> None:
    """Take notice that a run starts, or goes on: before its first step here."""


@hookspec
def jointgen_log(run: RunView, figures: Mapping[str, float]) -> None:
    """Take the figures of a log event, as metrics.jsonl has them.

    Args:
        run: The run.
        figures: Means over the steps since the last event, by name.
    """


@hookspec
def jointgen_evaluated(run: RunView, estimates: Mapping[str, Any], last: bool) -> None:
    """Take the figures of an evaluation.

    Args:
        run: The run.
        estimates: By name, each with `value` (None where the model cannot have it), `unit`, `standard_error`, ....
        last: Whether it is the evaluation at the end, of all metrics and rows.
    """


@hookspec
def jointgen_checkpoint(run: RunView, path: Path) -> None:
    """Take notice of a checkpoint that has been written whole.

    Args:
        run: The run.
        path: Its folder.
    """


@hookspec
def jointgen_run_end(run: RunView, status: str, note: str) -> None:
    """Take notice that a run has ended in this process: after its page, or after what stopped it.

    Args:
        run: The run.
        status: "done", "stopped" or "failed".
        note: Why it stopped or failed; empty where it is done.
    """


EVENTS = ("jointgen_run_start", "jointgen_log", "jointgen_evaluated", "jointgen_checkpoint", "jointgen_run_end")
"""The hooks that `jointgen.run(callbacks=[...])` takes as methods of an object."""


# --- commands, pages and checks --------------------------------------------------------------------------------------


class Commands(Protocol):
    """The command line as a plugin's hook sees it."""

    def add(self, name: str, summary: str, function: Any, add_arguments: Any = None) -> None:
        """Add a command, `jointgen NAME`.

        Args:
            name: Its name, which no other command has.
            summary: What it does, in a few words, as `jointgen --help` shows them beside the plugin's name.
            function: What it calls with the parsed arguments, an `argparse.Namespace`: a function, or
                "package.module:function", which is imported when the command is called.
            add_arguments: Called with the command's `argparse.ArgumentParser`.
        """


@hookspec
def jointgen_commands(commands: Commands) -> None:
    """Add commands to the command line."""


@attrs.frozen
class Section:
    """A section that a plugin adds to a run's page.

    Args:
        title: Its heading.
        content: From top to bottom. Text is a paragraph and is escaped; `markupsafe.Markup` is HTML and stands as it
            is (the page's policy loads nothing from elsewhere); the bytes of a PNG are a picture; a list of rows is a
            table, whose first row is its heading.
    """

    title: str
    content: Iterable[str | bytes | list[Any]]


@hookspec
def jointgen_report_sections(run: RunView) -> Iterable[Section]:  # type: ignore[empty-body]
    """Return sections for a run's page."""


@hookspec
def jointgen_check(recipe: Mapping[str, Any]) -> Iterable[Any]:  # type: ignore[empty-body]
    """Return what is wrong with a recipe that can be read, for one error with our own problems about the run.

    It is called before anything is trained or written.

    Args:
        recipe: The resolved recipe as plain tables, a copy.

    Returns:
        `Problem`s, each with its key path, or strings; nothing where all is well. It may raise ConfigError as well.
    """
