"""The training loop, the same for every model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import attrs
import torch

from jointgen.engine.step import Step
from jointgen.engine.torch_compile import TorchCompiler
from jointgen.errors import FileError, JointgenError, NonFiniteError, StoppedError, for_caller
from jointgen.registry.faults import said
from jointgen.reports.notebook import run_html
from jointgen.runs import checkpoint
from jointgen.runs.folder import RunFolder
from jointgen.runs.records import Status, Summary, checkpoint_name
from jointgen.runtime.console import log, warn
from jointgen.text import listed

if TYPE_CHECKING:  # the trainer is given these
    from jointgen.compiler.compiled_recipe import CompiledRecipe
    from jointgen.contracts.figures import Estimate
    from jointgen.data.batches import TrainingBatches
    from jointgen.inference.model import Model
    from jointgen.runtime.progress import Progress
    from jointgen.runtime.workers import Workers
    from jointgen.training.checkpoints import CheckpointWriter
    from jointgen.training.events import RunEvents
    from jointgen.training.reporter import RunReporter
    from jointgen.training.state import TrainingState

ROWS_LOOKED_AT = 1_000
LARGE_VALUE = 1e6  # of a variable's data, from which on its squares, sums and exponentials may leave float32


@attrs.frozen
class Run:
    """A finished run: its folder, its summary and its model."""

    path: Path
    record: Summary = attrs.field(repr=lambda summary: f"<{summary.status}, step {summary.step}>")
    model: Model = attrs.field(repr=False)

    @property
    def summary(self) -> Mapping[str, Any]:
        """The content of `summary.json`."""
        return self.record.as_dict()

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The final metrics by name, each with value, unit, estimator, split and n."""
        return self.summary["metrics"]

    def _repr_html_(self) -> str:
        return run_html(RunFolder(self.path), self.record)


@attrs.define(eq=False)
class Trainer:
    """Trains a model to the end of its recipe. `set_up_training` makes one.

    Args:
        compiled: The recipe.
        workers: The processes of the run.
        state: All that changes while the run trains, but for the files.
        batches: The data and noise of each step, a pure function of the step.
        reporter: Evaluates, and writes the log, the pictures and the summary.
        checkpoints: Writes checkpoints of the state.
        stop: Asked after each step; a signal's number ends the run.
        bar: Shows the progress.
        events: Tells plugins and callbacks what has happened.
        is_unchanged: Whether the run was resumed with the recipe that it had.
        not_synchronised: Parts whose BatchNorm sees only the rows of its own process.
    """

    compiled: CompiledRecipe
    workers: Workers
    state: TrainingState
    batches: TrainingBatches
    reporter: RunReporter
    checkpoints: CheckpointWriter
    stop: Callable[[], int]
    bar: Progress
    events: RunEvents
    is_unchanged: bool = False
    not_synchronised: list[str] = attrs.field(factory=list)

    def fit(self) -> Run:
        """Train until the last stage ends, evaluate, and return the finished run.

        Within, the global random generators are the run's own; afterwards they are as they were before.

        Raises:
            NonFiniteError: A figure is not finite any more.
            StoppedError: `stop` asked for the end; a checkpoint was written before.
            CheckpointError, WriteError: the disk does not take a file. As after any other error, of a plugin for
                example, the summary then says that the run failed, and why.
        """
        with self.state.generators.seeded(), self.reporter.log, self.bar:
            # before anything is trained: trackers that do not start say so
            if self.workers.is_main:
                self.reporter.log.start_trackers()
            try:
                return self._train()
            except (NonFiniteError, StoppedError) as error:  # the summary tells already
                self.events.end_by(error)
                raise
            except BaseException as error:  # whatever a plugin raises, or Ctrl-C: no run that has ended is "running"
                try:
                    self._summarise("failed", self._why(error))
                except Exception as second:  # the first error is why the run ended, whatever else goes wrong
                    error.add_note(f"summary.json could not say so: {said(second)}")
                self.events.end_by(error)
                raise

    def _why(self, error: BaseException) -> str:
        if isinstance(error, KeyboardInterrupt):
            return f"interrupted at step {self.state.progress.step}"
        return str(error) if isinstance(error, JointgenError) else said(error)

    def _train(self) -> Run:
        """Train stage by stage, and finish the run."""
        progress, mode = self.state.progress, self.compiled.recipe.train.compile
        began = time.monotonic() - progress.wall_s
        self._summarise("running")
        self.reporter.remove_page()
        self.events.start()
        for name in self.not_synchronised:
            self.bar.note(f"{name}: its BatchNorm sees each process's own rows, so this is not quite one process's run")
        compiler = None if mode == "off" else TorchCompiler(mode, self.workers.device, self.bar.note)
        while not progress.is_over:
            self._train_stage(progress.stage, compiler, began)
        return self._finish()

    def _train_stage(self, stage: int, compiler: TorchCompiler | None, began: float) -> None:
        """Train a stage to its end, which early stopping may move."""
        state, progress, train = self.state, self.state.progress, self.compiled.recipe.train
        plan = self.compiled.plans[stage]
        state.optimizers.begin(stage)
        state.critic_trust.watch(plan)
        optimizers = {update.name: state.optimizers.of(update.trains) for update in plan.updates}
        run_step = Step(
            plan,
            state.parts,
            self.workers,
            optimizers,
            train.clip,
            train.micro_batches,
            compiler,
            state.balance_scales,
            state.driven,
            state.histories,
        )

        while progress.step < progress.ends[stage]:
            # one step
            until_log = -(progress.step + 1) % train.log_every
            state.optimizers.set_rates(progress.step, progress.ends)
            inputs = partial(self.batches.inputs, progress.step, progress.fraction_of(stage))
            figures = run_step(inputs, until_log=until_log)
            state.window.add(figures, progress.step, will_change=compiler is not None and compiler.has_graphs)
            state.ema.update(progress.step)
            progress.step += 1
            progress.wall_s = time.monotonic() - began

            # what is due after it; after the last step of the run, `_finish` does all of that
            if until_log == 0 or progress.step == progress.ends[stage]:
                self._log()
            improved = self._is_due(train.eval_every) and self._evaluate(stage)
            if progress.step == progress.ends[stage] and not progress.is_over:
                state.early_stopping.restart()  # before a checkpoint: the next stage has losses of its own
            if self._is_due(train.sample_every):
                self.bar.show_pictures(self.reporter.write_pictures(progress.step))
            if self._is_due(train.checkpoint_every) or (improved and not progress.is_over):
                self._stop_if_not_finite()
                self._save()

            # a signal, from whichever process it reached
            if signal := self.stop():
                self._stop_if_not_finite()
                self._stop(signal, self._save(), f"at step {progress.step}")

    def _is_due(self, every: int | None) -> bool:
        """Return whether this step is one of every so many, and not the last one of the run."""
        return every is not None and self.state.progress.step % every == 0 and not self.state.progress.is_over

    def _save(self) -> Path:
        """Write a checkpoint and return its path."""
        path = self.checkpoints.save(self.state)
        self.events.checkpoint(path)
        return path

    def _log(self) -> None:
        """Log the means of the figures since the last log event, and note critics that are not to be trusted."""
        self._stop_if_not_finite()
        state, progress, window = self.state, self.state.progress, self.state.window
        values = window.means()
        rate = window.steps * self.compiled.recipe.train.batch / max(window.seconds, 1e-9)
        window.clear()
        figures = {**values, **state.optimizers.rates(), "images_per_s": rate}
        self.reporter.write_log(progress, figures)
        self.events.log(figures)
        self.bar.update(progress.step, rate, {name: v for name, v in values.items() if name.endswith("/loss")})
        for line in state.critic_trust.add(progress.step, values):
            self.bar.note(line)

    def _evaluate(self, stage: int) -> bool:
        """Evaluate between steps, which may end the stage. Return whether this is the best checkpoint so far."""
        state, progress = self.state, self.state.progress
        failed: list[str] = []
        found = self.reporter.evaluate(quick=True, failed=failed)
        values = {name: e.value for name, e in found.items() if e.value is not None}
        self.reporter.write_log(progress, {f"eval/{name}": value for name, value in values.items()})
        self.events.evaluated(found, last=False)
        self.bar.note(f"step {progress.step}: {', '.join(f'{name} {value:.4g}' for name, value in values.items())}")

        for line in failed:
            self.bar.note(f"step {progress.step}: {line}")

        if state.early_stopping.should_stop(state.early_stopping.losses_of(found)):
            if state.window.steps:
                self._log()  # raises if the losses stopped improving because they are not finite any more
            self.bar.note(f"step {progress.step}: the watched losses stopped improving; stage {stage + 1} ends here")
            progress.end_stage(stage)
        return self._is_best(found)

    def _is_best(self, found: Mapping[str, Estimate]) -> bool:
        values = {name: estimate.value for name, estimate in found.items()}
        return self.state.best.improved(values, checkpoint_name(self.state.progress.step))

    # --- how a run ends

    def _finish(self) -> Run:
        """Write the last checkpoint, pictures and evaluation."""
        if self.state.best.metric is not None:
            self._is_best(self.reporter.evaluate(quick=True))
        path = self._save()
        self.bar.show_pictures(self.reporter.write_pictures(self.state.progress.step))

        # a signal from now on ends the run at once: the evaluation can be done again
        def stop_early(*_: int) -> None:
            if signal := self.stop():
                self._stop(signal, path, "before the last evaluation was done")

        stop_early()
        # several processes have different numbers of batches, so only one alone asks between them
        failed: list[str] = []
        stopping = stop_early if self.workers.world == 1 else lambda *_: None
        found = self.reporter.evaluate(progress=stopping, failed=failed)
        resume = for_caller("--resume", 'resume="auto"')
        note = f"{'; '.join(failed)}; all other figures are there, and {resume} evaluates again" if failed else ""
        summary = self._summarise("failed" if failed else "done", note, found)
        self.events.evaluated(found, last=True)
        # after the summary, which needs nothing of the log
        if self.workers.is_main and self.state.best.metric is None:
            try:
                for line in self.reporter.passed_its_best(found):
                    self.bar.note(line)
            except FileError as error:
                warn(str(error))
        return self._result(summary)

    def finished_run(self) -> Run | None:
        """Return the run if it was resumed as it is and is finished already; what its folder has is not touched.

        Pictures that it lacks are written here, and its page by the caller. Without a summary of its last step the run
        is not finished: `fit` evaluates it again.
        """
        folder, progress = self.reporter.folder, self.state.progress
        summary, damage = folder.summary_or_remark()
        if self.workers.is_main:
            warn(*damage)
        if not (self.is_unchanged and progress.is_over):
            return None
        if summary is None or not summary.is_done or summary.step != progress.step or not summary.metrics:
            if self.workers.is_main:
                log(f"{folder.path} has made all its {progress.step} steps; its last evaluation is made again")
            return None
        missing = self.reporter.missing_files(progress.step)
        self.workers.barrier()  # all have looked before one writes
        if any(file.parent == folder.samples for file in missing):
            self.reporter.write_pictures(progress.step)
        if self.workers.is_main:
            names = listed(str(file.relative_to(folder.path)) for file in missing)
            done = f"written again: {names}" if missing else "nothing was done"
            log(f"{folder.path} is finished (step {progress.step}); {done}")
        return self._result(summary)

    def _result(self, summary: Summary) -> Run:
        """Return the finished run. Its model is left in evaluation mode, and gradients reach all of it."""
        model = self.reporter.model()
        model.eval().requires_grad_(True)
        model.checkpoint = checkpoint_name(summary.step)
        return Run(self.reporter.folder.path, summary, model)

    def _stop_if_not_finite(self) -> None:
        """Raise NonFiniteError, and say so in the summary, if a figure since the last log event is not finite."""
        first = self.state.window.first_non_finite()
        if first is None:
            return
        step, term = first
        newest = checkpoint.latest(self.reporter.folder.checkpoints)
        good = f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"
        error = NonFiniteError(f"step {step}: {term!r} is not finite any more{self._large_values()}; {good}")
        self._summarise("failed", str(error))
        raise error

    def _large_values(self) -> str:
        """Say which variables have values in the data that are so large that they may be the reason; "" for none."""
        rows = self.reporter.pictured.spread(ROWS_LOOKED_AT)
        taken = rows.take(torch.arange(len(rows)))
        tops = {
            v: float(raw.abs().max()) for raws in taken.values() for v, raw in raws.items() if raw.is_floating_point()
        }
        return "".join(f"; {v} has values up to {top:.3g} in the data" for v, top in tops.items() if top > LARGE_VALUE)

    def _stop(self, signal: int, path: Path, when: str) -> NoReturn:
        """End the run after a signal; it goes on from the checkpoint at `path`."""
        self._summarise("stopped", f"stopped by signal {signal} {when}")
        resume = for_caller("--resume", 'resume="auto"')
        raise StoppedError(f"stopped at step {self.state.progress.step}; {resume} goes on from {path}", signal)

    def _summarise(self, status: Status, note: str = "", found: Mapping[str, Estimate] | None = None) -> Summary:
        return self.reporter.write_summary(status, self.state, found or {}, note)
