"""The one training loop: every model, from a recipe to a run folder."""

from __future__ import annotations

import contextlib
import copy
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from jointgen import checkpoint
from jointgen.batch_norm import average_statistics, synchronise
from jointgen.compiling import Compiler
from jointgen.distributed import Votes, Workers
from jointgen.errors import CheckpointError, ConfigError, NonFiniteError, StoppedError, WriteError
from jointgen.evaluate import Split, default_metrics, evaluate, open_split
from jointgen.feed import Feed
from jointgen.files import writing
from jointgen.gallery import write_pictures
from jointgen.interfaces import Measure
from jointgen.model import Model
from jointgen.noise import Noise
from jointgen.objectives.objective import Objective, Stage
from jointgen.optimizers import Optimizers
from jointgen.ownership import check_ownership
from jointgen.parts import Parts, start_at_data
from jointgen.plugins import load_plugins
from jointgen.prepare import Prepared, check_rows, prepare
from jointgen.program import (
    Moment,
)
from jointgen.randomness import seeded, set_global_state
from jointgen.recipe import Recipe, read_recipe, write_recipe
from jointgen.registry import Registry
from jointgen.runfolder import Progress, RunFolder, environment
from jointgen.saving import Position, Resumed, Saver, name_of
from jointgen.statistics import Estimate
from jointgen.step import (
    Step,
)
from jointgen.switches import switched
from jointgen.trackers import check_installed
from jointgen.watch import Patience, Window, best_by

OWNERSHIP_ROWS = 4
FIRST_ROWS = 1024


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


def run(
    recipe: str | Path | Mapping[str, Any],
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    objective: Objective | Sequence[Stage] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    allow_changes: bool = False,
    stop: Callable[[], int] = lambda: 0,
    quiet: bool = False,
    processes: int | None = None,
) -> Run:
    """Trains, evaluates and writes the run folder (`out`, or runs/NAME). Sets no signal handler.

    objective: composed in Python, in place of the recipe's.  resume: goes on from the folder's newest whole
    checkpoint; with another recipe than the run's only where `allow_changes`.  stop: asked after each step; a signal's
    number ends the run after a checkpoint.  processes: how many a launcher was to start, to be checked; None: as many
    as it did.  Raises ConfigError for what the user can mend, before anything is trained.
    """
    registry = load_plugins().registry
    resolved = read_recipe(recipe, overrides, registry=registry)
    if objective is not None:
        resolved = with_objective(resolved, objective, registry)
    prepared = prepare(resolved, registry)
    path = Path(out) if out is not None else Path("runs") / resolved.name
    with switched(deterministic=resolved.train.deterministic, threads=resolved.train.threads):
        return Trainer(
            prepared, path, resume=resume, allow_changes=allow_changes, stop=stop, quiet=quiet, processes=processes
        ).fit()


def with_objective(recipe: Recipe, objective: Objective | Sequence[Stage], registry: Registry) -> Recipe:
    """The recipe with an objective composed in Python, written as the text that it prints, so that it repeats."""
    expression: Any = registry.get("objective", "expression").load()
    return attrs.evolve(recipe, objective=expression.of(objective, registry))


class Trainer:
    """One run, under the switches of torch that it finds. Everything but the weights and optimizers is a pure
    function of the step."""

    def __init__(
        self,
        prepared: Prepared,
        path: Path,
        *,
        resume: bool = False,
        allow_changes: bool = False,
        stop: Callable[[], int] = lambda: 0,
        quiet: bool = False,
        processes: int | None = None,
    ):
        self.prepared, self.recipe = prepared, prepared.recipe
        self.train = self.recipe.train
        RunFolder.check(path, resume=resume)  # before minutes of reading data
        check_installed(self.train.trackers)
        if allow_changes and not resume:
            raise ConfigError("--allow-changes: says how to resume; use it with --resume")
        if resume and not any(RunFolder(path).checkpoints.glob("step-*")):
            raise ConfigError(f"out: {path} holds no checkpoint to resume from; start it without --resume")
        self.workers = Workers.start(self.train.device, self.train.precision, processes=processes)
        check_rows(self.recipe, prepared.plans, self.workers.world)
        self.splits = {name: open_split(prepared, name) for name in ("train", "test")}
        self.ends = prepared.boundaries()
        repeats = max(u.update.times for plan in prepared.plans for u in plan.updates)
        self.feed = Feed(self.recipe, self.splits["train"], self.workers, repeats)
        self.parts = self._parts(fresh=not resume)
        self._check_early_stopping()
        self.best = best_by(self.train.keep_best, self.train.eval_every, self._measures())
        self.average = copy.deepcopy(self.parts) if self.train.ema else self.parts
        self._averaged = tensor_pairs(self.average.modules.parameters(), self.parts.modules.parameters())
        self._copied = tensor_pairs(self.average.modules.buffers(), self.parts.modules.buffers())
        self.optimizers = Optimizers(prepared, self.parts)
        self.step, self.wall = 0, 0.0
        self.patience = Patience(self.train.early_stopping.patience if self.train.early_stopping else None)
        self.text = write_recipe(self.recipe, prepared.registry)
        self.folder = self._folder(path, resume)
        self.saver = self._saver()
        self.stop = Votes(self.workers, stop)
        self.quiet = quiet or not self.workers.is_main
        self.window = Window()
        self.resumed = self._resume(allow_changes) if resume else None

    # --- setting up

    def _folder(self, path: Path, resume: bool) -> RunFolder:
        """The run folder, made by the main process before any other looks for something in it."""
        if self.workers.is_main:
            folder = RunFolder.create(path, resume=resume)
            if not resume:
                folder.write_recipe(self.text)
        self.workers.barrier()
        return RunFolder(path, trackers=self.train.trackers)

    def _parts(self, fresh: bool) -> Parts:
        """The parts on their device, gradients checked; of a fresh run, decoders start at the data's mean."""
        parts = self.prepared.parts
        if fresh:
            start_at_data(parts, self.prepared.declared, self._first_rows())
        raw = self.splits["train"].take(torch.arange(OWNERSHIP_ROWS) % len(self.splits["train"]))
        for plan in self.prepared.plans:
            check_ownership(plan, parts, raw, OWNERSHIP_ROWS, self.recipe.seed)
        self.apart = synchronise(parts.modules, self.workers)
        parts.modules.to(self.workers.device, self.workers.cast_to).train()
        parts = parts.in_channels_last() if self.train.channels_last else parts
        self.workers.broadcast_([*parts.modules.parameters(), *parts.modules.buffers()])
        return parts

    def _first_rows(self) -> dict[str, Tensor]:
        """Some rows of each observed variable, without the noise of observing them, (N, *shape)."""
        split = self.splits["train"]
        rows = min(FIRST_ROWS, len(split))
        spread = torch.arange(rows) * len(split) // rows  # folders of images come sorted by class
        model = Model(self.prepared, self.prepared.parts)
        moment = Moment(split.take(spread), Noise(self.recipe.seed, "means"), rows)
        return model.observe(moment)[0]

    def _check_early_stopping(self) -> None:
        if self.train.early_stopping is None:
            return
        if self.train.eval_every is None:
            raise ConfigError("train.early_stopping: looks at evaluations, so train.eval_every must say how often")
        if not any(m.name.startswith("reconstruction_") and m.values is not None for m in self._measures()):
            raise ConfigError("train.early_stopping: eval.metrics must measure reconstruction, which it watches")

    def _measures(self) -> list[Measure]:
        """What an evaluation finds, without evaluating."""
        found = [m for metric in self.metrics() for m in metric.measures(Model(self.prepared, self.parts))]
        self.parts.modules.train()
        return found

    def metrics(self) -> list[Any]:
        return self.recipe.eval.metrics or default_metrics(self.prepared.registry)

    def _saver(self) -> Saver:
        average = self.average if self.train.ema else None
        keep = self.train.keep_checkpoints
        return Saver(
            self.folder, self.workers, self.text, keep, self.parts, average, self.optimizers, self.patience, self.best
        )

    def _resume(self, allow_changes: bool) -> Resumed:
        found = self.saver.load(allow_changes=allow_changes)
        self.step, self.wall, self.window = found.position.step, found.position.wall_s, found.window
        if not found.changes:  # otherwise the stages are as the new recipe has them
            self.ends = found.position.ends
        elif self.workers.is_main:
            self.folder.write_recipe(self.text)
        self._tell(*found.notes)
        return found

    def _tell(self, *lines: str) -> None:
        if self.workers.is_main:
            for line in lines:
                print(f"jointgen: {line}", file=sys.stderr, flush=True)

    # --- the loop

    def fit(self) -> Run:
        """Trains to the end. The global random generators are the run's own meanwhile, and then as they were."""
        if self.resumed is not None and (done := self._done_already(self.resumed)) is not None:
            return done
        device = self.workers.device
        number = Noise(self.recipe.seed, "globals").generator(f"rank {self.workers.rank}").initial_seed()
        try:
            with seeded(number, device):
                if self.resumed is not None and self.resumed.randomness is not None:
                    set_global_state(self.resumed.randomness, device)
                return self._fit()
        except (CheckpointError, WriteError) as error:
            with contextlib.suppress(WriteError):
                self._write_summary("failed", {}, str(error))
            raise

    def _done_already(self, resumed: Resumed) -> Run | None:
        """A finished run that is resumed as it is: nothing of it is touched."""
        summary = self.folder.read_summary()
        if resumed.changes or summary.get("status") != "done" or not summary["step"] == self.step == self.ends[-1]:
            return None
        self._tell(f"{self.folder.path} is finished (step {self.step}); nothing was done")
        return Run(self.folder.path, summary, self.model())

    def _fit(self) -> Run:
        if self.workers.is_main:
            if self.resumed is not None and self.resumed.changes:
                self.folder.write_recipe(self.text)
            self.folder.trackers()  # one that does not start should say so before anything is trained
        started = time.monotonic() - self.wall
        total = self.ends[-1]
        self._write_summary("running", {}, "")
        with self.folder, Progress(total, self.step, quiet=self.quiet) as bar:
            mode = self.train.compile
            compiler = None if mode == "off" else Compiler(mode, self.workers.device, bar.note)
            for name in self.apart:
                bar.note(f"{name}: its BatchNorm sees each process's own rows, so this is not quite one process's run")
            while self.step < self.ends[-1]:
                stage = self._stage()
                stepper = self._stepper(stage, compiler)
                while self.step < self.ends[stage]:
                    logs, progress = self._due(self.train.log_every), self._progress(stage)
                    self.optimizers.set_rates(self.step, self.ends[-1])
                    self.window.add(stepper(partial(self.feed.moment, self.step, progress), want_stats=logs), self.step)
                    self._update_average()
                    self.step += 1
                    self.wall = time.monotonic() - started
                    if logs or self.step == self.ends[stage]:
                        self._log(bar)
                    self._housekeeping(stage, bar)
            return self._finish(bar)

    def _stage(self) -> int:
        return next(i for i, end in enumerate(self.ends) if self.step < end)

    def _stepper(self, stage: int, compiler: Compiler | None) -> Step:
        plan = self.prepared.plans[stage]
        by_update = {u.name: self.optimizers.of(u.trains) for u in plan.updates}
        return Step(plan, self.parts, self.workers, by_update, self.train.clip, self.train.micro_batches, compiler)

    def _progress(self, stage: int) -> float:
        """How much of the stage is done, in [0, 1)."""
        begin = self.ends[stage - 1] if stage else 0
        return (self.step - begin) / max(1, self.ends[stage] - begin)

    def _due(self, every: int | None) -> bool:
        """Whether the step about to run (or just run, once counted) is one of `every`."""
        return every is not None and (self.step + 1) % every == 0

    @torch.no_grad()
    def _update_average(self) -> None:
        if not self.train.ema:
            return
        decay = min(self.train.ema, (1 + self.step) / (10 + self.step))  # the first steps weigh little
        for mine, theirs in self._averaged:
            torch._foreach_lerp_(mine, theirs, 1 - decay)
        for mine, theirs in self._copied:
            torch._foreach_copy_(mine, theirs)

    # --- what happens between steps

    def _log(self, bar: Progress) -> None:
        self._stop_if_broken()
        window, self.window = self.window, Window()
        values = window.means()
        images = self.step * self.train.batch
        rate = window.steps * self.train.batch / max(window.seconds, 1e-9)
        if self.workers.is_main:
            self.folder.log(self.step, images, self.wall, {**values, **self.optimizers.rates(), "images_per_s": rate})
        figures = {name: value for name, value in values.items() if name.endswith("/loss")}
        bar.update(self.step, rate, figures)

    def _stop_if_broken(self) -> None:
        broken = self.window.first_broken()
        if broken is None:
            return
        step, term = broken
        newest = checkpoint.latest(self.folder.checkpoints)
        good = f"the last good checkpoint is {newest}" if newest else "there is no checkpoint yet"
        error = NonFiniteError(f"step {step}: {term!r} is not finite any more; {good}")
        self._write_summary("failed", {}, str(error))
        raise error

    def _housekeeping(self, stage: int, bar: Progress) -> None:
        every, improved = self.train, False
        if _divides(every.eval_every, self.step) and self.step < self.ends[-1]:
            improved = self._quick_evaluation(stage, bar)
        if _divides(every.sample_every, self.step) and self.step < self.ends[-1]:
            self._pictures(name_of(self.step))
        if (improved or _divides(every.checkpoint_every, self.step)) and self.step < self.ends[-1]:
            self._stop_if_broken()
            self.save()
        if signal := self.stop():
            self._stop_if_broken()
            path = self.save()
            self._write_summary("stopped", {}, f"stopped by signal {signal} at step {self.step}")
            raise StoppedError(f"stopped at step {self.step}; --resume goes on from {path}", signal)

    def _quick_evaluation(self, stage: int, bar: Progress) -> bool:
        """Whether what the run keeps its best by is better than ever."""
        found = self._evaluate(self._quick_rows())
        if self.workers.is_main:
            values = {f"eval/{name}": e.value for name, e in found.items() if e.value is not None}
            self.folder.log(self.step, self.step * self.train.batch, self.wall, values)
        shown = ", ".join(f"{name} {e.value:.4g}" for name, e in found.items() if e.value is not None)
        bar.note(f"step {self.step}: {shown}")
        losses = [e.value for name, e in found.items() if name.startswith("reconstruction_") and e.value is not None]
        if self.patience.exhausted(losses):
            bar.note(f"step {self.step}: the reconstruction losses stopped improving; stage {stage + 1} ends here")
            self._end_stage(stage)
        return self._improved(found)

    def _quick_rows(self) -> Split:
        return self.splits[self.recipe.eval.split].first(self.recipe.eval.quick_rows)

    def _improved(self, found: Mapping[str, Estimate]) -> bool:
        return self.best.improved({name: e.value for name, e in found.items()}, name_of(self.step))

    def _end_stage(self, stage: int) -> None:
        """The stages that follow keep their lengths; early stopping starts afresh."""
        cut = self.ends[stage] - self.step
        self.ends = [end - cut if i >= stage else end for i, end in enumerate(self.ends)]
        self.patience.restart()

    def _evaluate(self, split: Split, progress: Callable[[int, int], None] = lambda a, b: None) -> dict[str, Estimate]:
        model = self.model()
        found = evaluate(
            model,
            split,
            self.metrics(),
            batch=self.recipe.eval.batch,
            seed=self.recipe.seed,
            workers=self.workers,
            progress=progress,
        )
        self.parts.modules.train()
        return found

    def model(self) -> Model:
        """The averaged weights as a model, in evaluation mode."""
        average_statistics(self.average.modules, self.workers)
        return Model(self.prepared, self.average, self.workers.device)

    def _pictures(self, name: str) -> None:
        folder, n = self.folder.samples, self.recipe.eval.samples
        with writing(folder):
            written = write_pictures(self.model(), self.splits["test"], folder, name, n, self.workers)
            if written:
                self.folder.trackers().pictures(written, self.step)
        self.parts.modules.train()

    def save(self) -> Path:
        """Writes a checkpoint of this moment, resumable bit for bit."""
        return self.saver.save(Position(self.step, self.wall, self.ends), self.window)

    def _finish(self, bar: Progress) -> Run:
        if self.best.metric is not None:
            self._improved(self._evaluate(self._quick_rows()))
        path = self.save()
        self._pictures(name_of(self.step))
        self._stop_before_figures(path)
        split = self.splits[self.recipe.eval.split]
        found = self._evaluate(
            split if self.recipe.eval.rows is None else split.first(self.recipe.eval.rows),
            # several processes have different numbers of batches, so they do not ask between these
            lambda done, rows: self._stop_before_figures(path) if self.workers.world == 1 else None,
        )
        summary = self._write_summary("done", found, "")
        return Run(self.folder.path, summary, self.model())

    def _stop_before_figures(self, path: Path) -> None:
        """The training is done and saved; what follows can be done again."""
        if signal := self.stop():
            self._write_summary("stopped", {}, f"stopped by signal {signal} before the last evaluation was done")
            raise StoppedError(f"stopped at step {self.step}; --resume goes on from {path}", signal)

    def _write_summary(self, status: str, metrics: Mapping[str, Estimate], note: str) -> dict[str, Any]:
        summary = {
            "status": status,
            "note": note,
            "step": self.step,
            "images_seen": self.step * self.train.batch,
            "wall_s": round(self.wall, 3),
            "seed": self.recipe.seed,
            **({"best": self.best.state()} if self.best.metric is not None else {}),
            "metrics": {name: estimate.as_dict() for name, estimate in metrics.items()},
            "environment": environment(self.workers.device),
        }
        if self.workers.is_main:
            self.folder.write_summary(summary)
        return summary


def tensor_pairs(mine: Iterable[Tensor], theirs: Iterable[Tensor]) -> list[tuple[list[Tensor], list[Tensor]]]:
    """The two sides as lists for torch's foreach operations, listed once; no pair where there is nothing."""
    left, right = list(mine), list(theirs)
    return [(left, right)] if left else []


def _divides(every: int | None, step: int) -> bool:
    return every is not None and step % every == 0


def describe(name: str, estimate: Estimate) -> str:
    """One line for people: elbo -101.3 nats +- 0.4 (lower bound; ...; test, n = 10000)."""
    if estimate.value is None:
        return f"{name}: none ({estimate.note})"
    error = f" +- {estimate.standard_error:.2g}" if estimate.standard_error is not None else ""
    kind = {"lower": "lower bound; ", "upper": "upper bound; ", "exact": "exact; ", "estimate": "estimate, no bound; "}
    bound = kind.get(estimate.bound or "", "")
    how = f"{bound}{estimate.estimator}; {estimate.split}, n = {estimate.n}"
    return f"{name}: {estimate.value:.4f} {estimate.unit}{error} ({how})"
