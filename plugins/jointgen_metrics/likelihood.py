"""Likelihood: the ELBO, and bits per dimension of quantised data."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

from jointgen.objectives import Expr, Ratio, elbo
from jointgen.plugin import (
    ConfigError,
    Display,
    FigureValue,
    Mean,
    MetricFigure,
    ModelView,
    bits_per_dim,
    per_row,
)


def bound(model: ModelView, mass: bool = False) -> tuple[Expr | None, str]:
    """(the ELBO, "") where this model has one, and (None, why not) otherwise. mass: bins where data is quantised."""

    def of(model: ModelView) -> Expr:
        q, p = model.joints["q"], model.joints["p"]
        return elbo(q, p, model.is_data, lambda v: mass and _quantised(model, v))

    return evaluable(model, of)


def evaluable(model: ModelView, of: Callable[[ModelView], Expr]) -> tuple[Expr | None, str]:
    """(an expression over q and p, "") where this model can evaluate it, and (None, why not) otherwise."""
    for name in ("q", "p"):
        if name not in model.joints:
            return None, f"the objective has no joint {name!r}"
    try:
        expr = of(model)
    except ConfigError as error:
        return None, str(error)
    reason = model.missing(expr)
    return (None, reason) if reason else (expr, "")


def _quantised(model: ModelView, variable: str) -> bool:
    space = model.spaces[variable]
    return space.kind == "real" and space.bins is not None


def density_note(model: ModelView) -> str:
    """What x is: nats of a density and nats of bits are different things."""
    notes = []
    for variable in sorted(model.joints["p"].variables):
        space = model.spaces[variable]
        if space.kind == "binary" and space.bins == 2:
            notes.append(f"{variable}: bits as the data has them (static binarisation)")
        elif space.kind == "binary":
            notes.append(f"{variable}: bits drawn afresh from grey levels (dynamic binarisation)")
        elif space.bins is not None:
            notes.append(f"{variable}: density of dequantised values on [{space.low:g}, {space.high:g})")
    return "; ".join(notes)


ELBO_DISPLAY = Display("ELBO", "likelihood", 0, headline=True, nll=True)
BITS_DISPLAY = Display("bits/dim", "likelihood", 9, headline=True)


@attrs.frozen
class ELBO:
    """Mean over a split of log p(x|z) + log p(z) - log q(z|x), one z per row: a lower bound on log p(x)."""

    def figures(self, model: ModelView) -> list[MetricFigure]:
        expr, reason = bound(model)
        if expr is None:
            return [MetricFigure("elbo", "nats", "", note=f"no bound: {reason}")]
        how, collects = "one draw of q(z|x) per row", (per_row("elbo", model.row_function(expr, observed=True)),)
        return [
            MetricFigure(
                "elbo", "nats", how, collects, "lower", density_note(model), better="higher", display=ELBO_DISPLAY
            )
        ]


@attrs.frozen
class CodeLength:
    """A bound whose negative is the length of quantised data, in nats, but for `correction`; how: what it is made of.

    D = `size` numbers per row."""

    expr: Expr
    how: str
    size: int
    correction: float

    def finish(self, mean: Mean) -> FigureValue:
        """Bits per dimension."""
        error = mean.standard_error
        bits = bits_per_dim(-mean.mean, self.size, self.correction)
        return bits, None if error is None else error / (self.size * math.log(2))


def code_length(model: ModelView) -> tuple[CodeLength | None, str]:
    """(the code length, "") where the data is quantised and the model has a bound, and (None, why not) otherwise."""
    quantised = [v for v in model.spaces if _quantised(model, v)]
    if not quantised:
        return None, "the data is not quantised"
    size = sum(model.spaces[v].size for v in quantised)
    exact, _ = bound(model, mass=True)
    if exact is not None:
        return CodeLength(exact, "exact bin mass", size, 0.0), ""
    density, reason = bound(model)
    if density is None:
        return None, f"no bound: {reason}"
    correction = sum(model.spaces[v].log_det_to_data for v in quantised)
    return CodeLength(density, "density of dequantised data", size, correction), ""


@attrs.frozen
class BitsPerDim:
    """-ELBO / (D log 2) of quantised data, with the exact probability of each value's bin where the family has it.

    Otherwise the density of dequantised data with its preprocessing's log-determinant, also an upper bound.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        length, reason = code_length(model)
        if length is None:
            return [MetricFigure("bits_per_dim", "bits", "", note=reason)]
        how, collects = (
            f"{length.how}, one draw of q(z|x) per row",
            (per_row("bits_per_dim", model.row_function(length.expr, observed=True)),),
        )
        return [
            MetricFigure(
                "bits_per_dim",
                "bits",
                how,
                collects,
                "upper",
                finish=length.finish,
                better="lower",
                display=BITS_DISPLAY,
            )
        ]


@attrs.frozen
class Reports:
    """Expressions that the objective itself asks to have reported, such as AVB's elbo_estimate; not called bounds."""

    def figures(self, model: ModelView) -> list[MetricFigure]:
        return [self._measure(model, name, expr) for name, expr in model.reports.items()]

    def _measure(self, model: ModelView, name: str, expr: Expr) -> MetricFigure:
        reason = model.missing(expr)
        collects = () if reason else (per_row(name, model.row_function(expr)),)
        display = Display()
        if name.startswith("elbo_"):
            title = name.replace("elbo_", "ELBO ").replace("_", " ")
            display = Display(title, "likelihood", 1, headline=True, nll=True)
        if not any(isinstance(part, Ratio) for part in expr.walk()):
            return MetricFigure(name, "nats", str(expr), collects, note=reason, display=display)
        note = reason or "uses a learned ratio: an estimate, no bound"
        return MetricFigure(name, "nats", str(expr), collects, "estimate", note, display=display)
