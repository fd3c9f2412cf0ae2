"""The reports of a run about itself while it trains: its log, evaluations, pictures and summary."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.contracts.data_keys import KeyRole, key_roles
from jointgen.contracts.figures import Estimate
from jointgen.data.split import Split
from jointgen.engine.batch_norm import average_statistics
from jointgen.engine.ema import EMA
from jointgen.evaluation.evaluate import evaluate, metrics_of
from jointgen.inference.model import Model
from jointgen.reports.gallery import picture_files, write_pictures
from jointgen.runs.folder import RunFolder
from jointgen.runs.log import RunLog
from jointgen.runs.records import BestRecord, EnvironmentRecord, Status, Summary, checkpoint_name
from jointgen.runtime.atomic_files import writing
from jointgen.runtime.environment import environment
from jointgen.runtime.workers import Workers

if TYPE_CHECKING:
    from jointgen.training.state import RunProgress, TrainingState


class RunReporter:
    """Evaluates the averaged weights of a run and writes what it finds.

    Every process calls the same methods; the main one writes.

    Args:
        compiled: The recipe.
        splits: The opened splits, "train" and the one that is held out.
        ema: The averaged weights, which evaluations, pictures and the finished model use.
        workers: The processes of the run.
        folder: The run folder.
        log: Its log.
    """

    def __init__(
        self,
        compiled: CompiledRecipe,
        splits: Mapping[str, Split],
        ema: EMA,
        workers: Workers,
        folder: RunFolder,
        log: RunLog,
    ):
        self.compiled, self.recipe = compiled, compiled.recipe
        self.ema, self.workers, self.folder, self.log = ema, workers, folder, log
        self.metrics = metrics_of(compiled)
        self.evaluated, self.pictured = splits[self.recipe.eval.split], splits[self.recipe.held_out]

    def model(self) -> Model:
        """Return the averaged weights as a model, in evaluation mode."""
        average_statistics(self.ema.parts.modules, self.workers)
        return Model(self.compiled, self.ema.parts, self.workers.device)

    # --- evaluations

    def evaluate(
        self,
        *,
        quick: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
        failed: list[str] | None = None,
    ) -> dict[str, Estimate]:
        """Evaluate the averaged weights.

        Args:
            quick: Whether to leave out costly metrics, but for the one that the best checkpoint is kept by, and to
                use at most `eval.quick_rows` rows, as between steps.
            progress: Called with (rows done, rows in all).
            failed: Where to add a line for each metric that raised.

        Returns:
            The estimates by name; those of a metric that raised are absent.
        """
        table, kept = self.recipe.eval, self.recipe.train.keep_best
        split = self.evaluated if table.rows is None else self.evaluated.spread(table.rows)
        model, metrics = self.model(), self.metrics
        if quick:
            metrics = [
                metric
                for metric in metrics
                if not self.compiled.registry.component_of("metric", type(metric)).costly
                or kept in [figure.name for figure in metric.figures(model.view)]
            ]
        return evaluate(
            model,
            split,
            metrics,
            batch=table.batch,
            seed=self.recipe.seed,
            limit=table.quick_rows if quick else None,
            workers=self.workers,
            progress=progress,
            failed=[] if failed is None else failed,
        )

    def passed_its_best(self, found: Mapping[str, Estimate]) -> list[str]:
        """Say where an evaluation during training had a better bound than the end has; empty where none had.

        What the rows of both leave to chance is not told.

        Args:
            found: The estimates of the last evaluation.

        Raises:
            FileError: The log cannot be read.
        """
        events = self.folder.read_log().events
        for name, last in found.items():
            if last.bound is None or last.better is None or last.value is None or last.standard_error is None:
                continue
            sign = 1.0 if last.better == "higher" else -1.0
            logged = [(event.values.get(f"eval/{name}"), event.step) for event in events]
            seen = [(value, step) for value, step in logged if value is not None]
            if not seen:
                continue
            best, step = max(seen, key=lambda at: sign * at[0])
            # the best of n equally good evaluations lies by chance about sqrt(2 ln n) standard errors above their
            # mean, the bound on the expected maximum of n normal numbers; two more are a difference
            rows = min(last.n, self.recipe.eval.quick_rows)
            error = last.standard_error * math.sqrt(1 + last.n / rows)
            if sign * (best - last.value) > error * (2 + math.sqrt(2 * math.log(len(seen)))):
                return [
                    f"{name} was {best:.4g} at step {step:,} and is {last.value:.4g} at the end; "
                    f'train.keep_best = "{name}" keeps the checkpoint where it is best'
                ]
        return []

    def missing_files(self, step: int) -> list[Path]:
        """Return the pictures and the page that a run finished at this step should have and has not."""
        pictures = picture_files(self.model().view, checkpoint_name(step))
        files = [*(self.folder.samples / name for name in pictures), self.folder.report]
        return [file for file in files if not file.is_file()]

    # --- files

    def write_log(self, progress: RunProgress, values: Mapping[str, float]) -> None:
        """Add an event to the log. Every process counts it."""
        if progress.log_events is not None:
            progress.log_events += 1
        if self.workers.is_main:
            self.log.add(progress.step, self._images_seen(progress), progress.wall_s, values)

    def write_pictures(self, step: int) -> list[Path]:
        """Write grids of samples and of reconstructions, hand them to the trackers, and return this process's files."""
        folder, n = self.folder.samples, self.recipe.eval.samples
        with writing(folder):
            written = write_pictures(self.model(), self.pictured, folder, checkpoint_name(step), n, self.workers)
            if written:
                self.log.add_pictures(written, step)
        return written

    def remove_page(self) -> None:
        """Remove the page of the run as it was when it had finished before: it is written again at the end."""
        if self.workers.is_main:
            with writing(self.folder.report):
                self.folder.report.unlink(missing_ok=True)

    def write_summary(
        self, status: Status, state: TrainingState, found: Mapping[str, Estimate], note: str = ""
    ) -> Summary:
        """Write summary.json and return what is in it.

        Args:
            status: "running", "done", "stopped" or "failed".
            state: The state of the run.
            found: The estimates of the last evaluation, by name.
            note: Why the run stopped or failed.
        """
        progress, best = state.progress, state.best
        summary = Summary(
            status=status,
            note=note,
            step=progress.step,
            images_seen=self._images_seen(progress),
            wall_s=round(progress.wall_s, 3),
            parameters=sum(p.numel() for p in self.compiled.parts.modules.parameters()),
            log_events=progress.log_events,
            seed=self.recipe.seed,
            init_from=progress.init_from,
            best=BestRecord(**best.state_dict()) if best.metric is not None else None,
            critics=state.critic_trust.summary(),
            data_keys={part: self._key_roles(part) for part in self.recipe.all_sources()},
            metrics=dict(found),
            environment=self._environment,
        )
        if self.workers.is_main:
            self.folder.write_summary(summary)
        return summary

    def _key_roles(self, part: str) -> dict[str, KeyRole]:
        roles = key_roles(type(self.recipe.all_sources()[part]))
        # the key of the table around a source, which only its training rows see
        return {**roles, "augment": "loading"} if self.recipe.sampling(part).augment else roles

    @cached_property
    def _environment(self) -> EnvironmentRecord:
        # asked once: the run is that of the code it began with, and git takes longer than a small run's summary
        return EnvironmentRecord(**environment(self.workers.device))

    def _images_seen(self, progress: RunProgress) -> int:
        return progress.step * self.recipe.train.batch
