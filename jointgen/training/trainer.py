"""The one training loop: every model, from a recipe to a run folder."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import attrs

from jointgen.compiler.compiled_recipe import CompiledRecipe, check_rows
from jointgen.config.recipe import write_recipe
from jointgen.contracts.figures import Estimate
from jointgen.contracts.noise import Noise
from jointgen.data.batches import TrainingBatches
from jointgen.data.split import open_split
from jointgen.engine.balance_scales import BalanceScales
from jointgen.engine.ema import EMA
from jointgen.engine.optimizers import Optimizers
from jointgen.engine.step import Step
from jointgen.engine.torch_compile import TorchCompiler
from jointgen.errors import ConfigError, JointgenError, NonFiniteError, StoppedError, WriteError
from jointgen.inference.model import Model
from jointgen.runs import checkpoint
from jointgen.runs.checkpoint import name_of
from jointgen.runs.folder import RunFolder
from jointgen.runtime.console import log_once
from jointgen.runtime.global_rng import seeded, set_global_state
from jointgen.runtime.progress import Progress
from jointgen.runtime.workers import Votes, Workers
from jointgen.training.critic_trust import CriticTrust
from jointgen.training.log_window import LogWindow
from jointgen.training.reporter import RunReporter
from jointgen.training.setup import check_start, make_folder, start_parts
from jointgen.training.state import CheckpointWriter, ResumePoint, RunProgress
from jointgen.training.stopping import best_checkpoint_of, early_stopping_of, is_watched
from jointgen.training.warm_start import warm_start


class Trainer:
    """One run, under the switches of torch that it finds. Everything but the weights and optimizers is a pure
    function of the step."""

    def __init__(
        self,
        compiled: CompiledRecipe,
        path: Path,
        *,
        resume: bool = False,
        allow_changes: bool = False,
        stop: Callable[[], int] = lambda: 0,
        quiet: bool = False,
        processes: int | None = None,
    ):
        self.compiled, self.recipe, self.train = compiled, compiled.recipe, compiled.recipe.train
        check_start(path, self.train, resume=resume, allow_changes=allow_changes)
        warm = None if resume else warm_start(compiled)
        self.workers = Workers.start(self.train.device, self.train.precision, processes=processes)
        check_rows(self.recipe, compiled.plans, self.workers.world)
        splits = {name: open_split(compiled, name) for name in ("train", "test")}
        self.feed = TrainingBatches(self.recipe, splits["train"], self.workers, compiled.repeats)
        self.parts, self.apart = start_parts(compiled, splits["train"], self.workers, fresh=not resume, warm=warm)
        self.average = EMA(self.parts, self.train.ema)
        self.optimizers = Optimizers(compiled, self.parts)
        self.scales = BalanceScales()
        self.folder = RunFolder(path, trackers=self.train.trackers)
        self.reporter = RunReporter(compiled, splits, self.average, self.workers, self.folder)
        measures = self.reporter.figures()
        self.patience = early_stopping_of(self.train.early_stopping, self.train.eval_every, measures)
        self.best = best_checkpoint_of(self.train.keep_best, self.train.eval_every, measures)
        self.health = CriticTrust(self.train.batch)
        self.text = write_recipe(self.recipe, compiled.registry)
        make_folder(self.folder, self.text, self.workers, resume=resume)
        self.saver = self._saver()
        self.planned = compiled.boundaries()
        self.step, self.wall, self.ends = 0, 0.0, self.planned
        self.init_from: Mapping[str, Any] | None = warm.record() if warm else None
        if self.workers.is_main:
            log_once(
                *(f"stage {name!r} has no step: its share of the run is too small" for name in compiled.without_steps())
            )
            log_once(*(warm.lines if warm else ()))
        self.window = LogWindow()
        self.resumed = self._resume(allow_changes) if resume else None
        self.stop = Votes(self.workers, stop)
        self.bar = Progress(self.ends[-1], self.step, quiet=quiet or not self.workers.is_main)

    def _saver(self) -> CheckpointWriter:
        average = self.average.parts if self.train.ema else None
        keep = self.train.keep_checkpoints
        state = self.optimizers, self.scales, self.patience, self.best, self.health
        return CheckpointWriter(self.folder, self.workers, self.text, keep, self.parts, average, *state)

    def _resume(self, allow_changes: bool) -> ResumePoint:
        """Goes back to the newest checkpoint."""
        found = self.saver.load(allow_changes=allow_changes)
        self.step, self.wall, self.window = found.position.step, found.position.wall_s, found.window
        self.init_from = found.position.init_from
        self.ends = self._ends_after(found)
        if self.ends[-1] < self.step:
            raise ConfigError(
                f"train: a budget of {self.ends[-1]} steps is less than the {self.step} that the run has made"
            )
        if self.workers.is_main:
            log_once(*found.notes)
            if found.changes:
                self.folder.write_recipe(self.text)
        return found

    def _ends_after(self, found: ResumePoint) -> list[int]:
        """Where early stopping moved the stages' ends to, unless the recipe now has stages of other lengths. With other
        early stopping what has ended stays so, and the stages from this one on have their whole lengths."""
        ends = found.position.ends
        if found.position.planned != self.planned:
            return self.planned
        if not any(line.startswith("train.early_stopping") for line in found.changes):
            return ends
        ended = sum(end <= self.step for end in ends[:-1])
        moved = ends[ended - 1] - self.planned[ended - 1] if ended else 0
        return [*ends[:ended], *(end + moved for end in self.planned[ended:])]

    @property
    def position(self) -> RunProgress:
        return RunProgress(self.step, self.wall, self.ends, self.planned, self.init_from)

    # --- the run

    def fit(self) -> Run:
        """Trains to the end. The global random generators are the run's own meanwhile, and then as they were."""
        if done := self._done_already():
            return done
        try:
            with self._own_randomness():
                done = self._fit()
        except (ConfigError, NonFiniteError, StoppedError):  # nothing was trained, or the summary tells already
            raise
        except JointgenError as error:
            with contextlib.suppress(WriteError):
                self._summarise("failed", str(error))
            raise
        self.reporter.report(done.model, self.position)  # where this fails, the summary still says that the run is done
        return done

    def _done_already(self) -> Run | None:
        """A finished run that is resumed as it is: nothing of it is touched."""
        summary = self.folder.read_summary()
        if self.resumed is None or self.resumed.changes or summary.get("status") != "done":
            return None
        if not summary["step"] == self.step == self.ends[-1]:
            return None
        if self.workers.is_main:
            log_once(f"{self.folder.path} is finished (step {self.step}); nothing was done")
        return Run(self.folder.path, summary, self.reporter.model())

    @contextlib.contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Seeded for this process, or gone on with from its checkpoint."""
        number = Noise(self.recipe.seed, "globals").generator(f"rank {self.workers.rank}").initial_seed()
        with seeded(number, self.workers.device):
            if self.resumed is not None and self.resumed.randomness is not None:
                set_global_state(self.resumed.randomness, self.workers.device)
            yield

    def _fit(self) -> Run:
        if self.workers.is_main:
            self.folder.trackers()  # one that does not start should say so before anything is trained
        self.started = time.monotonic() - self.wall
        self._summarise("running")
        with self.folder, self.bar:
            for name in self.apart:
                self.bar.note(
                    f"{name}: its BatchNorm sees each process's own rows, so this is not quite one process's run"
                )
            mode = self.train.compile
            compiler = None if mode == "off" else TorchCompiler(mode, self.workers.device, self.bar.note)
            while self.step < self.ends[-1]:
                self._train_stage(next(i for i, end in enumerate(self.ends) if self.step < end), compiler)
            return self._finish()

    def _train_stage(self, stage: int, compiler: TorchCompiler | None) -> None:
        self.optimizers.begin(stage)
        stepper = self._stepper(stage, compiler)
        self.health.watch(self.compiled.plans[stage])
        while self.step < self.ends[stage]:
            until_log, progress = -(self.step + 1) % self.train.log_every, self._progress(stage)
            self.optimizers.set_rates(self.step, self.ends)
            self.window.add(stepper(partial(self.feed.moment, self.step, progress), until_log=until_log), self.step)
            self.average.update(self.step)
            self.step += 1
            self.wall = time.monotonic() - self.started
            if until_log == 0 or self.step == self.ends[stage]:
                self._log()
            self._between_steps(stage)

    def _stepper(self, stage: int, compiler: TorchCompiler | None) -> Step:
        plan = self.compiled.plans[stage]
        by_update = {u.name: self.optimizers.of(u.trains) for u in plan.updates}
        train = self.train
        return Step(plan, self.parts, self.workers, by_update, train.clip, train.micro_batches, compiler, self.scales)

    def _progress(self, stage: int) -> float:
        """How much of the stage is done, in [0, 1)."""
        begin = self.ends[stage - 1] if stage else 0
        return (self.step - begin) / max(1, self.ends[stage] - begin)

    def _finish(self) -> Run:
        if self.best.metric is not None:
            self._improved(self.reporter.evaluate(quick=True))
        path = self.save()
        self.reporter.pictures(self.step)
        self._stop_before_figures(path)
        # several processes have different numbers of batches, so they do not ask between these
        asks = self.workers.world == 1
        found = self.reporter.evaluate(progress=lambda *_: self._stop_before_figures(path) if asks else None)
        summary = self._summarise("done", found=found)
        return Run(self.folder.path, summary, self.reporter.model())

    # --- between steps

    def _log(self) -> None:
        self._stop_if_broken()
        window, self.window = self.window, LogWindow()
        values = window.means()
        rate = window.steps * self.train.batch / max(window.seconds, 1e-9)
        self.reporter.log(self.position, {**values, **self.optimizers.rates(), "images_per_s": rate})
        self.bar.update(self.step, rate, {name: value for name, value in values.items() if name.endswith("/loss")})
        for line in self.health.add(self.step, values):
            self.bar.note(line)

    def _between_steps(self, stage: int) -> None:
        """What is due, but for the last step of a run, after which `_finish` does all of it."""
        every = self.train
        improved = self._is_due(every.eval_every) and self._quick_evaluation(stage)
        if self.step == self.ends[stage] < self.ends[-1]:
            self.patience.restart()  # before a checkpoint: the next stage has losses of its own
        if self._is_due(every.sample_every):
            self.reporter.pictures(self.step)
        if self._is_due(every.checkpoint_every) or (improved and self.step < self.ends[-1]):
            self._stop_if_broken()
            self.save()
        if signal := self.stop():
            self._stop_if_broken()
            self._stop(signal, self.save(), f"at step {self.step}")

    def _is_due(self, every: int | None) -> bool:
        return _divides(every, self.step) and self.step < self.ends[-1]

    def _quick_evaluation(self, stage: int) -> bool:
        """Whether what the run keeps its best by is better than ever. May end the stage."""
        found = self.reporter.evaluate(quick=True)
        values = {name: e.value for name, e in found.items() if e.value is not None}
        self.reporter.log(self.position, {f"eval/{name}": value for name, value in values.items()})
        self.bar.note(f"step {self.step}: {', '.join(f'{name} {value:.4g}' for name, value in values.items())}")
        watched = [math.nan if e.value is None else e.value for name, e in found.items() if is_watched(name) and e.n]
        if self.patience.exhausted(watched):
            if self.window.steps:
                self._log()  # raises where they stopped improving because they are not finite any more
            self.bar.note(f"step {self.step}: the reconstruction losses stopped improving; stage {stage + 1} ends here")
            self._end_stage(stage)
        return self._improved(found)

    def _improved(self, found: Mapping[str, Estimate]) -> bool:
        return self.best.improved({name: e.value for name, e in found.items()}, name_of(self.step))

    def _end_stage(self, stage: int) -> None:
        """The stages that follow keep their lengths."""
        cut = self.ends[stage] - self.step
        self.ends = [end - cut if i >= stage else end for i, end in enumerate(self.ends)]

    def save(self) -> Path:
        """Writes a checkpoint of this moment, resumable bit for bit."""
        return self.saver.save(self.position, self.window)

    # --- how it ends

    def _summarise(self, status: str, note: str = "", found: Mapping[str, Estimate] | None = None) -> Mapping[str, Any]:
        return self.reporter.summary(status, self.position, self.best, self.health, found or {}, note)

    def _stop_if_broken(self) -> None:
        broken = self.window.first_broken()
        if broken is None:
            return
        step, term = broken
        newest = checkpoint.latest(self.folder.checkpoints)
        good = f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"
        error = NonFiniteError(f"step {step}: {term!r} is not finite any more; {good}")
        self._summarise("failed", str(error))
        raise error

    def _stop_before_figures(self, path: Path) -> None:
        """The training is done and saved; what follows can be done again."""
        if signal := self.stop():
            self._stop(signal, path, "before the last evaluation was done")

    def _stop(self, signal: int, path: Path, when: str) -> NoReturn:
        self._summarise("stopped", f"stopped by signal {signal} {when}")
        raise StoppedError(f"stopped at step {self.step}; --resume goes on from {path}", signal)


def _divides(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0


@attrs.frozen
class Run:
    """A finished run."""

    path: Path
    summary: Mapping[str, Any]
    model: Model

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The final metrics by name, each with value, unit, estimator, split and n."""
        return self.summary["metrics"]
