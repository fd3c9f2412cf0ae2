"""The importance-weighted bound with any number of draws, in memory that does not grow with it."""

from __future__ import annotations

import math
from functools import cache

import attrs
import torch
from torch import Tensor

from jointgen.objectives import Expectation, Expr
from jointgen.plugin import Batch, Display, MetricFigure, ModelView, between, in_float64, per_row, valid_count
from jointgen_metrics.likelihood import NO_CODE, bound, code_length, density_note, infers_codes


@attrs.frozen
class IWAE:
    """The importance-weighted lower bound on log p(x), in nats (Burda, Grosse & Salakhutdinov 2016, eq. 8).

    The mean over rows of log 1/K sum_k p(x, z_k) / q(z_k|x) at K draws z_k ~ q(z|x). It rises with K (theorem 1).
    Quantised data has it in bits per dimension too.

    Args:
        k: K, the draws of the code for each row.
        chunk: At most so many draws, of all rows of a batch together, are decoded at once; it does not change figures.
        rows: At most so many rows, evenly apart; None for all.
    """

    k: int = attrs.field(default=64, validator=between(1, 10_000_000))
    chunk: int = attrs.field(default=2048, validator=valid_count)
    rows: int | None = attrs.field(default=None, validator=valid_count)

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        name, estimator = f"iwae_{self.k}", f"K = {self.k} draws of q(z|x) per row"
        expr, reason = bound(model)
        if expr is None:
            return [MetricFigure(name, "nats", "", note=f"no bound: {reason}")]
        if not infers_codes(model):
            return [MetricFigure(name, "nats", "", note=NO_CODE)]
        statistics = (per_row(name, LogMeanWeight(self, model, expr), rows=self.rows),)
        display = Display(f"IWAE-{self.k}", "likelihood", 3, headline=True, nll=True)
        found = [
            MetricFigure(
                name, "nats", estimator, statistics, "lower", density_note(model), better="higher", display=display
            )
        ]
        length, _ = code_length(model)
        if length is not None:
            bits, estimator = f"{name}_bits_per_dim", f"{length.basis}, {estimator}"
            own = (per_row(bits, LogMeanWeight(self, model, length.expr), rows=self.rows),)
            statistics = statistics if length.expr == expr else own
            display = Display(f"bits/dim, IWAE-{self.k}", "likelihood", 2, headline=True)
            found.append(
                MetricFigure(
                    bits, "bits", estimator, statistics, "upper", finish=length.finish, better="lower", display=display
                )
            )
        return found


class LogMeanWeight:
    """Maps a batch to (B,) nats in double precision: log 1/K sum_k exp(w_k), w the term of an expectation.

    The K draws are made a few at a time, so that memory does not grow with K.
    """

    def __init__(self, config: IWAE, model: ModelView, expr: Expr):
        assert isinstance(expr, Expectation)
        self.config = config
        self.mean_of = cache(lambda k: model.row_function(attrs.evolve(expr, k=k, reduce="logmeanexp"), observed=True))

    def __call__(self, batch: Batch) -> Tensor:
        """Evaluate the bound of each row."""
        k = self.config.k
        total = in_float64(torch.full((batch.rows,), -math.inf, device=batch.noise.device))
        at_once = max(1, self.config.chunk // batch.rows)
        for first in range(0, k, at_once):
            draws = range(first, min(first + at_once, k))
            noise = batch.noise.renamed("iwae").repeated(batch.rows, draws)
            mean = self.mean_of(len(draws))(batch, noise)  # the encoder runs once for these draws
            total = torch.logaddexp(total, in_float64(mean) + math.log(len(draws)))
        return total - math.log(k)
