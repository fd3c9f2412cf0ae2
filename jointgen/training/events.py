"""Tells plugins and callbacks of the events of a run: start, log, evaluation, checkpoint, end.

They are told by the main process, of what has happened, after it is on disk. What they are given is a copy, and the
global random generators and torch's switches are afterwards as they were before, so that a hook cannot change what is
trained. A run that goes on from a checkpoint tells of nothing that was on disk with it; steps after it, which are made
again, it tells again, as it logs them again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs
import torch

from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.config.structure import unstructure
from jointgen.errors import RAISED, Problems, StoppedError
from jointgen.inference.model import Model
from jointgen.registry.discovery import LoadedPlugin, load_object
from jointgen.registry.faults import said
from jointgen.runtime.console import warn
from jointgen.runtime.global_rng import global_state, set_global_state
from jointgen.runtime.torch_settings import kept_switches

if TYPE_CHECKING:  # the events are given these
    from jointgen.contracts.figures import Estimate
    from jointgen.training.state import TrainingState


@attrs.frozen
class TrainingView:
    """A run as hooks see it, at one moment; see `jointgen.plugin.RunView`."""

    path: Path
    name: str
    step: int
    steps: int
    seconds: float
    resumed_from: int | None
    _tables: Mapping[str, Any] = attrs.field(repr=False)
    _model: Callable[[], Model] = attrs.field(repr=False)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The resolved recipe as plain tables, a copy."""
        return copy.deepcopy(self._tables)

    def model(self) -> Model:
        """Return a copy of the model with its averaged weights."""
        return self._model()


def copied_model(compiled: CompiledRecipe, state: TrainingState, device: torch.device) -> Model:
    """Return a model of its own with the averaged weights of a run, in evaluation mode."""
    return copy.deepcopy(Model(compiled, state.ema.parts, device)).eval().requires_grad_(True)


def load_callbacks(callbacks: Sequence[object]) -> list[LoadedPlugin]:
    """Return objects whose methods are hooks as plugins.

    Raises:
        ConfigError: One of them has no hook of an event, or one that does not exist.
    """
    problems, loaded = Problems(), []
    for number, one in enumerate(callbacks):
        with problems.collect("callbacks", number):
            loaded.append(load_object(one, f"the callback {type(one).__name__}"))
    problems.raise_any()
    return loaded


class RunEvents:
    """The events of a run, and who is told of them: first plugins, in the order of their names, then callbacks.

    What a callback raises ends the run and reaches whoever gave it. A plugin that is merely installed must not cost
    a run: what it raises is reported once, with the plugin's name, and it is told of nothing more in this run.

    Args:
        compiled: The recipe.
        state: The state of the run.
        path: The run folder.
        device: Where the run's parts are.
        plugins: The installed plugins.
        callbacks: Those of `jointgen.run`.
        is_main: Whether this process tells anybody.
        resumed_from: The step from which this process goes on; None where the run starts here.
    """

    def __init__(
        self,
        compiled: CompiledRecipe,
        state: TrainingState,
        path: Path,
        device: torch.device,
        plugins: Sequence[LoadedPlugin],
        callbacks: Sequence[LoadedPlugin] = (),
        *,
        is_main: bool = True,
        resumed_from: int | None = None,
    ):
        self._compiled, self._state, self._path, self._device = compiled, state, path, device
        self._plugins, self._callbacks = [*plugins] if is_main else [], [*callbacks] if is_main else []
        self._resumed_from = resumed_from
        self._tables = unstructure(compiled.recipe, compiled.registry)

    def start(self) -> None:
        """Tell that the run starts or goes on."""
        self._tell("jointgen_run_start")

    def log(self, figures: Mapping[str, float]) -> None:
        """Tell of a log event."""
        self._tell("jointgen_log", figures=MappingProxyType(dict(figures)))

    def evaluated(self, found: Mapping[str, Estimate], *, last: bool) -> None:
        """Tell of an evaluation."""
        self._tell("jointgen_evaluated", estimates=MappingProxyType(dict(found)), last=last)

    def checkpoint(self, path: Path) -> None:
        """Tell of a checkpoint that is whole."""
        self._tell("jointgen_checkpoint", path=path)

    def end(self, status: str, note: str = "") -> None:
        """Tell that the run has ended."""
        self._tell("jointgen_run_end", status=status, note=note)

    def end_by(self, error: BaseException) -> None:
        """Tell that an error has ended the run. What a callback raises about that is added to the error."""
        status = "stopped" if isinstance(error, StoppedError) else "failed"
        try:
            self.end(status, said(error) if not str(error) else str(error))
        except Exception as second:  # the first error is why the run ended
            error.add_note(f"a callback raised when it was told: {said(second)}")

    def _tell(self, hook: str, **arguments: Any) -> None:
        listening = [one for one in (*self._plugins, *self._callbacks) if one.implements(hook)]
        if not listening:
            return
        before = global_state(self._device)
        try:
            for one in listening:
                try:
                    with kept_switches():
                        getattr(one.manager.hook, hook)(run=self._view(), **arguments)
                except RAISED as error:
                    if one in self._callbacks:
                        raise
                    self._plugins.remove(one)
                    warn(f"plugin {one.name!r} ({one.provider}): {hook} raises {said(error)}; the run goes on without")
        finally:
            set_global_state(before, self._device)

    def _view(self) -> TrainingView:
        progress, recipe = self._state.progress, self._compiled.recipe
        return TrainingView(
            self._path,
            recipe.name,
            progress.step,
            progress.ends[-1],
            progress.wall_s,
            self._resumed_from,
            self._tables,
            partial(copied_model, self._compiled, self._state, self._device),
        )
