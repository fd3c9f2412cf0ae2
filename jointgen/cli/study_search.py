"""The search of a study: Optuna proposes settings, each is trained in a run of its own, and bad ones are stopped early.

Optuna's storage is a file in the study's folder. A trial that was interrupted is proposed again with its settings, and
its run, whose folder is named for them, goes on from its checkpoint.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import attrs

from jointgen.cli.study_file import Parameter, Row, Search, point_name, settings_at
from jointgen.cli.study_runs import Work
from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.errors import ConfigError, JointgenError, suggest
from jointgen.evaluation.evaluate import list_figures, metrics_of
from jointgen.inference.view import PartsView
from jointgen.reports.run_figures import figures_of_run
from jointgen.runs.folder import RunFolder
from jointgen.runtime.console import complain, note, say

STORAGE = "search.log"
LOST = "its run could not be finished"


def check_installed() -> None:
    """Raise ConfigError where Optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError("a search needs Optuna: pip install 'jointgen[search]', or uv sync --extra search", "search")


def run_search(work: Work, workers: int) -> list[Row]:
    """Try the settings of a search, those of earlier calls included.

    Args:
        work: The runs.
        workers: Trials at a time.

    Returns:
        The rows of the trials that came to their end, the best first.

    Raises:
        ConfigError: The search has no such figure, or a choice does not fit the recipe.
        JointgenError: Every trial failed.
    """
    searching = _Searching.open(work)
    with ThreadPoolExecutor(workers) as pool:
        for worker in [pool.submit(searching.work_on) for _ in range(workers)]:
            worker.result()
    return searching.results()


@attrs.define(eq=False)
class _Searching:
    """A search that is under way.

    Args:
        work: The runs.
        search: Its table.
        optuna: The library.
        study: Optuna's study.
        maximize: Whether more is better.
        left: How many trials are still to be begun.
    """

    work: Work
    search: Search
    optuna: Any
    study: Any
    maximize: bool
    left: int
    lock: threading.Lock = attrs.field(factory=threading.Lock)

    @classmethod
    def open(cls, work: Work) -> _Searching:
        search = work.study.search
        assert search is not None
        check_installed()
        optuna = importlib.import_module("optuna")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        maximize = _is_maximized(work, search)
        backend = optuna.storages.journal.JournalFileBackend(str(work.out / STORAGE))
        median = optuna.pruners.MedianPruner(n_startup_trials=search.startup)
        study = optuna.create_study(
            study_name=work.study.name,
            storage=optuna.storages.JournalStorage(backend),
            pruner=median if search.prune == "median" else optuna.pruners.NopPruner(),
            direction="maximize" if maximize else "minimize",
            load_if_exists=True,
        )
        states = optuna.trial.TrialState
        begun = study.get_trials(deepcopy=False)
        others = [trial for trial in begun if trial.params and trial.params.keys() != search.space.keys()]
        if others or (study.direction == optuna.study.StudyDirection.MAXIMIZE) != maximize:
            what = "another space" if others else "another direction"
            raise ConfigError(f"the search in {work.out} has {what}; give another --out", "search")
        # a study that goes on must not draw its first settings again
        study.sampler = optuna.samplers.TPESampler(seed=search.seed + len(begun), n_startup_trials=search.startup)
        for trial in [trial for trial in begun if trial.state == states.RUNNING]:  # of a command that was stopped
            study.tell(trial.number, state=states.FAIL)
            study.enqueue_trial(trial.params)
        ended = sum(t.state in (states.COMPLETE, states.PRUNED) or LOST in t.user_attrs for t in begun)
        return cls(work, search, optuna, study, maximize, max(0, search.trials - ended))

    def work_on(self) -> None:
        """Try one setting after another until none is left, or the time is up."""
        while not self.work.clock.is_up:
            with self.lock:
                if not self.left:
                    return
                self.left -= 1
                trial = self.study.ask()
            self._try(trial)

    def _try(self, trial: Any) -> None:
        states = self.optuna.trial.TrialState
        row = row_at({key: _suggest(trial, key, parameter) for key, parameter in self.search.space.items()})
        folder = RunFolder(self.work.folder(row, 0))
        pruned = False

        def is_bad() -> bool:
            nonlocal pruned
            seen = max((step for step, _ in reported), default=0)
            for event in folder.read_log().events:
                value = event.values.get(f"eval/{self.search.metric}")
                if value is not None and event.step > seen:
                    reported.append((event.step, value))
                    trial.report(value, event.step)
                    pruned = pruned or trial.should_prune()
            return pruned

        reported: list[tuple[int, float]] = []
        try:
            finished = self.work.finish(row, 0, is_bad)
        except JointgenError as error:
            complain(f"{row.name}: {error}")
            trial.set_user_attr(LOST, True)
            self.study.tell(trial, state=states.FAIL)
            return
        if pruned:
            self.study.tell(trial, state=states.PRUNED)
            note(f"{row.name}: stopped at step {reported[-1][0]}, {self.search.metric} {reported[-1][1]:.4g}")
        elif finished:
            value = _value_of(folder, self.search.metric)
            if value is None:
                trial.set_user_attr(LOST, True)
            self.study.tell(trial, value, state=None if value is not None else states.FAIL)
            note(f"{row.name}: {self.search.metric} {'absent' if value is None else f'{value:.6g}'}")

    def results(self) -> list[Row]:
        """The rows of finished trials, the best first; the best is said."""
        states = self.optuna.trial.TrialState
        done = self.study.get_trials(deepcopy=False, states=(states.COMPLETE,))
        done.sort(key=lambda trial: -trial.value if self.maximize else trial.value)
        rows = list({row.folder: row for row in (row_at(_params(trial, self.search)) for trial in done)}.values())
        if not done:
            if not self.work.clock.is_up:
                raise JointgenError(f"no trial of {self.work.out} came to its end; its logs say why")
            return []
        best = self.work.folder(rows[0], 0)
        say(f"best of {len(done)}: {self.search.metric} {done[0].value:.6g} with {rows[0].name}")
        say(f"run it again: jointgen run {best / 'recipe.toml'}")
        return rows


def row_at(point: Mapping[str, Any]) -> Row:
    """Return the row of chosen settings; its folder is named for them."""
    settings = settings_at(point)
    digest = hashlib.blake2b(json.dumps(sorted(settings)).encode(), digest_size=4).hexdigest()
    return _TrialRow(point_name(point), settings, digest=digest)


@attrs.frozen(kw_only=False)
class _TrialRow(Row):
    digest: str = ""

    @property
    def folder(self) -> str:
        return f"trial-{self.digest}"


def _suggest(trial: Any, key: str, parameter: Parameter) -> Any:
    if parameter.choices is not None:  # Optuna keeps plain values only, so it is given their text
        return json.loads(trial.suggest_categorical(key, [json.dumps(choice) for choice in parameter.choices]))
    whole = isinstance(parameter.low, int) and isinstance(parameter.high, int) and isinstance(parameter.step or 1, int)
    if whole:
        return trial.suggest_int(key, parameter.low, parameter.high, step=parameter.step or 1, log=parameter.log)
    return trial.suggest_float(key, parameter.low, parameter.high, step=parameter.step, log=parameter.log)


def _params(trial: Any, search: Search) -> dict[str, Any]:
    """The settings of a trial, as `_suggest` gave them."""
    return {
        key: json.loads(trial.params[key]) if parameter.choices is not None else trial.params[key]
        for key, parameter in search.space.items()
    }


def _value_of(folder: RunFolder, metric: str) -> float | None:
    figure = figures_of_run(folder.read_summary(), folder.read_evaluation()).figures.get(metric)
    return None if figure is None else figure.value


def _is_maximized(work: Work, search: Search) -> bool:
    """Whether more of the figure is better. Raises ConfigError where the recipe has no such figure or setting."""
    first = {
        key: parameter.choices[0] if parameter.choices is not None else parameter.low
        for key, parameter in search.space.items()
    }
    recipe, registry = work.recipe_of(row_at(first), 0)
    if search.direction is not None:
        return search.direction == "maximize"
    compiled = compile_recipe(recipe, registry)
    figures = list_figures(metrics_of(compiled), PartsView(compiled, compiled.parts), registry)
    better = {figure.name: figure.better for figure in figures}
    if search.metric not in better:
        remedy = "name its metric in the recipe's eval.metrics, or give direction"
        message = f"no figure {search.metric!r} in evaluations of this recipe{suggest(search.metric, better)}; {remedy}"
        raise ConfigError(message, "search", "metric")
    if better[search.metric] is None:
        raise ConfigError(f"{search.metric} is neither better high nor low; give direction", "search", "metric")
    return better[search.metric] == "higher"
