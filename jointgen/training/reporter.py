"""What a run shows of itself: its log, evaluations, pictures and summary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.contracts.figures import Estimate
from jointgen.contracts.metrics import MetricFigure
from jointgen.data.split import Split
from jointgen.engine.batch_norm import average_statistics
from jointgen.engine.ema import EMA
from jointgen.evaluation.evaluate import evaluate, figures_of, metrics_of
from jointgen.inference.model import Model
from jointgen.reports.gallery import write_pictures
from jointgen.reports.page import PageModel, write_report
from jointgen.runs.checkpoint import name_of
from jointgen.runs.folder import RunFolder
from jointgen.runtime.atomic_files import writing
from jointgen.runtime.environment import environment
from jointgen.runtime.workers import Workers
from jointgen.training.critic_trust import CriticTrust
from jointgen.training.state import RunProgress
from jointgen.training.stopping import BestCheckpoint


class RunReporter:
    """Evaluates the averaged weights and writes what is found. Every process calls the same methods; one writes."""

    def __init__(
        self, compiled: CompiledRecipe, splits: Mapping[str, Split], average: EMA, workers: Workers, folder: RunFolder
    ):
        self.compiled, self.recipe = compiled, compiled.recipe
        self.average, self.workers, self.folder = average, workers, folder
        self.metrics = metrics_of(compiled)
        self.evaluated, self.pictured = splits[self.recipe.eval.split], splits["test"]

    # --- the model

    def model(self) -> Model:
        """The averaged weights as a model, in evaluation mode."""
        average_statistics(self.average.parts.modules, self.workers)
        return Model(self.compiled, self.average.parts, self.workers.device)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Models that are made within leave the trained parts in training mode."""
        try:
            yield
        finally:
            self.average.trained.modules.train()

    # --- evaluations

    def figures(self) -> list[MetricFigure]:
        """What an evaluation finds, without evaluating."""
        with self._evaluating():
            return figures_of(self.metrics, Model(self.compiled, self.average.parts))

    def evaluate(
        self, *, quick: bool = False, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> dict[str, Estimate]:
        """Every measure, on the rows of an evaluation between steps (quick) or of the last one."""
        table = self.recipe.eval
        split = self.evaluated if table.rows is None else self.evaluated.first(table.rows)
        how: dict[str, Any] = {"batch": table.batch, "seed": self.recipe.seed, "workers": self.workers}
        with self._evaluating():
            model = self.model()
            metrics = self._quick_metrics(model) if quick else self.metrics
            limit = table.quick_rows if quick else None
            return evaluate(model, split, metrics, limit=limit, progress=progress, **how)

    def _quick_metrics(self, model: Model) -> list[Any]:
        """Those that are not costly, and the one that the best is kept by."""
        kept, registry = self.recipe.train.keep_best, self.compiled.registry
        costly = [registry.component_of("metric", type(metric)).costly for metric in self.metrics]
        return [
            metric
            for metric, is_costly in zip(self.metrics, costly, strict=True)
            if not is_costly or kept in [measure.name for measure in metric.figures(model)]
        ]

    # --- what is written

    def log(self, at: RunProgress, values: Mapping[str, float]) -> None:
        if self.workers.is_main:
            self.folder.log(at.step, self._images(at), at.wall_s, values)

    def pictures(self, step: int) -> None:
        """Grids of samples and of reconstructions, also for the trackers."""
        folder, n = self.folder.samples, self.recipe.eval.samples
        with writing(folder), self._evaluating():
            written = write_pictures(self.model(), self.pictured, folder, name_of(step), n, self.workers)
            if written:
                self.folder.trackers().pictures(written, step)

    def summary(
        self,
        status: str,
        at: RunProgress,
        best: BestCheckpoint,
        health: CriticTrust,
        found: Mapping[str, Estimate],
        note: str,
    ) -> dict[str, Any]:
        """Writes summary.json and returns what is in it."""
        summary = {
            "status": status,
            "note": note,
            "step": at.step,
            "images_seen": self._images(at),
            "wall_s": round(at.wall_s, 3),
            "seed": self.recipe.seed,
            **({"init_from": at.init_from} if at.init_from is not None else {}),
            **({"best": best.state()} if best.metric is not None else {}),
            "critics": health.summary(),
            "metrics": {name: estimate.as_dict() for name, estimate in found.items()},
            "environment": environment(self.workers.device),
        }
        if self.workers.is_main:
            self.folder.write_summary(summary)
        return summary

    def report(self, model: Model, at: RunProgress) -> None:
        """The run's page. Written by the main process alone, with the model that all hold."""
        if self.workers.is_main:
            write_report(self.folder, self.compiled, PageModel(model, self.pictured, name_of(at.step)))

    def _images(self, at: RunProgress) -> int:
        return at.step * self.recipe.train.batch
