"""Information in codes: rate, distortion, mutual information, and KL(q(z) : p(z))."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from jointgen.objectives import Conditional, E, Expr
from jointgen.plugin import (
    Batch,
    ConfigError,
    Display,
    FigureValue,
    KeptRows,
    Mean,
    MetricFigure,
    ModelView,
    Provenance,
    StatisticSpec,
    between,
    in_float64,
    per_row,
)
from jointgen_metrics.codes import NO_CODES, codes_of, encoded, encoder_of, observed
from jointgen_metrics.likelihood import density_note, evaluable

MAX_ELEMENTS = 4_000_000
"""Numbers of codes that are scored at a time."""
ONE_DRAW = "one draw of q(z|x) per row"


# --- rate and distortion ---------------------------------------------------------------------------------------------


@attrs.frozen
class RateDistortion:
    """The rate E_q[log q(z|x) - log p(z)] and the distortion -E_q[log p(x|z)], in nats (Alemi et al. 2018).

    Both are means over rows at the same draws, one for each row, so that together they are -ELBO. The rate is
    KL(q(z|x) : p(z)), an upper bound on the mutual information of x and z under q.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        about = "an upper bound on the mutual information of x and z under q"
        cost = self._figure(model, "rate", rate, about)
        left = self._figure(model, "distortion", distortion, density_note(model) if "p" in model.joints else "")
        return [cost, attrs.evolve(left, better="lower")]

    def _figure(self, model: ModelView, name: str, of: Callable[[ModelView], Expr], note: str) -> MetricFigure:
        expr, reason = evaluable(model, of)
        statistics = () if expr is None else (per_row(name, model.row_function(expr, observed=True)),)
        return MetricFigure(
            name,
            "nats",
            ONE_DRAW,
            statistics,
            note=reason or note,
            display=Display(group="codes", order=6 if name == "rate" else 7),
        )


def rate(model: ModelView) -> Expr:
    """The rate: E_q of log q - log p of all that q's conditionals draw. Raises ConfigError where it has none."""
    q, p = model.joints["q"], model.joints["p"]
    if data := [f for f in p.factors if model.is_data(f) and set(f.out) & _inferred(model)]:
        raise ConfigError(f"p({data[0]}) is data, whose density is not known")
    drawn = [f for f in q.factors if not f.is_root]
    priors = [f for f in p.factors if set(f.out) & _inferred(model)]
    if not drawn or not priors:
        raise ConfigError(NO_CODES)
    first, *rest = (q.log(str(factor)) for factor in drawn)
    return E(q.everything, sum(rest, start=first) - _sum([p.log(str(factor)) for factor in priors]))


def distortion(model: ModelView) -> Expr:
    """The distortion: -E_q of log p of all that q has as data. Raises ConfigError where it has none."""
    q, p = model.joints["q"], model.joints["p"]
    if absent := sorted(set(p.variables) - set(q.variables)):
        raise ConfigError(f"q does not draw {absent[0]!r}")
    shown = [f for f in p.factors if not model.is_data(f) and not set(f.out) & _inferred(model)]
    if not shown:
        raise ConfigError("p models nothing that q has as data")
    if not _inferred(model):
        raise ConfigError(NO_CODES)
    return -E(q.everything, _sum([p.log(str(factor)) for factor in shown]))


def _inferred(model: ModelView) -> set[str]:
    return {v for factor in model.joints["q"].factors if not factor.is_root for v in factor.out}


def _sum(terms: list[Expr]) -> Expr:
    return sum(terms[1:], start=terms[0])


# --- mutual information ----------------------------------------------------------------------------------------------


@attrs.frozen
class MutualInformation:
    """The mutual information of x and z under q, and KL(q(z) : p(z)), in nats (Hoffman & Johnson 2016).

    q(z) is the mixture of the posteriors of N rows:

        mutual_information = mean_i [log q(z_i|x_i) - log 1/N sum_j q(z_i|x_j)]
        kl_qz_pz           = mean_i [log 1/N sum_j q(z_i|x_j) - log p(z_i)] = rate - mutual_information

    If the N rows are all the data, both are exact but for one draw z_i per row. For the distribution that the rows are
    drawn from, the first is a lower bound (Poole et al. 2019), at most log N however much z says, and the second an
    upper bound.

    Args:
        rows: N; time is quadratic in it.
    """

    rows: int = attrs.field(default=2000, validator=between(2, 1_000_000))

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        factor, reason = posterior(model)
        if factor is None:
            return [
                MetricFigure("mutual_information", "nats", "", note=reason),
                MetricFigure("kl_qz_pz", "nats", "", note=reason),
            ]
        pairs = Pairs(model, factor, without_prior(model, factor.out[0]))
        spec = StatisticSpec(f"rows and codes {factor}", pairs.keep, KeptRows, rows=self.rows)
        return [self._information(pairs, spec), self._divergence(pairs, spec)]

    def _information(self, pairs: Pairs, spec: StatisticSpec) -> MetricFigure:
        estimator = f"log q({pairs.factor}) - log mean over rows of q({pairs.factor}), {ONE_DRAW}"

        def finish(kept: KeptRows) -> FigureValue:
            own, mixture, _ = pairs.nats(kept)
            return _mean_and_error(own - mixture)

        note = "of more rows than these at least this; at most log n, and at most the rate"
        return MetricFigure(
            "mutual_information",
            "nats",
            estimator,
            (spec,),
            "lower",
            note,
            finish,
            protocol=rows_of,
            display=Display(group="codes", order=5),
        )

    def _divergence(self, pairs: Pairs, spec: StatisticSpec) -> MetricFigure:
        estimator = f"log mean over rows of q({pairs.factor}) - log p({pairs.code}), {ONE_DRAW}"
        if pairs.without_prior:
            return MetricFigure("kl_qz_pz", "nats", estimator, note=pairs.without_prior)

        def finish(kept: KeptRows) -> FigureValue:
            _, mixture, prior = pairs.nats(kept)
            return _mean_and_error(mixture - prior)

        note = "of more rows than these at most this; far above where mutual_information stands at log n"
        return MetricFigure(
            "kl_qz_pz",
            "nats",
            estimator,
            (spec,),
            "upper",
            note,
            finish,
            "lower",
            protocol=rows_of,
            display=Display("KL(q(z) : p(z))", "codes", 2),
        )


def posterior(model: ModelView) -> tuple[Conditional | None, str]:
    """The conditional q(z|x), ""; or (None, the reason) where it cannot be scored at the codes of other rows."""
    codes = codes_of(model)
    if len(codes) != 1:
        return None, f"several codes: {', '.join(codes)}" if codes else NO_CODES
    factor = encoder_of(model, codes[0])
    if not all(model.is_data(model.joints["q"].drawn_by(v)) for v in factor.given):
        return None, f"q({factor}) is given what q draws"
    if not factor.moments and model.capabilities(factor).foreign_density == "none":
        return None, f"q({factor}) has no density"
    return factor, ""


def without_prior(model: ModelView, code: str) -> str:
    """Explains why there is no density of one p(z); empty where there is."""
    prior = model.joints["p"].drawn_by(code)
    return evaluable(model, rate)[1] if prior.is_root else f"p({prior}) is not one prior"


def rows_of(collected: Provenance) -> str:
    """The protocol of figures that depend on the number of rows."""
    return f"{collected.rows} rows"


def _mean_and_error(values: Tensor) -> FigureValue:
    mean = Mean.of(values)
    return mean.value, mean.standard_error


@attrs.define
class Pairs:
    """Keeps rows with a code of each, and scores every code under every row's posterior.

    Args:
        model: The model.
        factor: q(z|x).
        without_prior: Why log p(z) cannot be computed; empty where it can.
    """

    model: ModelView
    factor: Conditional
    without_prior: str
    _kept: KeptRows | None = attrs.field(default=None, init=False)
    _nats: tuple[Tensor, Tensor, Tensor] | None = attrs.field(default=None, init=False)

    @property
    def code(self) -> str:
        """The name of z."""
        return self.factor.out[0]

    def keep(self, batch: Batch) -> KeptRows:
        """Keep "z", a code of each row; "p", its log prior (zeros without one); "given NAME", what q is given."""
        data, z = observed(self.model, batch), encoded(self.model, batch)[self.code]
        values = {**data, self.code: z}
        prior = (
            torch.zeros(len(z)) if self.without_prior else self.model.log_prob("p", (self.code,), values, batch.noise)
        )
        return KeptRows.of(batch.index, z=z, p=prior, **{f"given {v}": data[v] for v in self.factor.given})

    def nats(self, kept: KeptRows) -> tuple[Tensor, Tensor, Tensor]:
        """The terms (log q(z_i|x_i), log 1/N sum_j q(z_i|x_j), log p(z_i)), each (N,) float64."""
        if self._nats is None or self._kept is not kept:
            values = kept.in_order()
            scores = self._scores(values)  # (N, N), codes by rows
            mixture = scores.logsumexp(1) - math.log(kept.n)
            self._kept, self._nats = kept, (scores.diagonal(), mixture, in_float64(values["p"]))
        return self._nats

    def _scores(self, values: dict[str, Tensor]) -> Tensor:
        z = values["z"]
        step = max(1, MAX_ELEMENTS // z.numel())
        chunks = []
        for start in range(0, len(z), step):
            given = {v: values[f"given {v}"][start : start + step] for v in self.factor.given}
            chunks.append(self.model.log_prob_pairs("q", self.code, z, given).cpu().double())
        return torch.cat(chunks, 1)
