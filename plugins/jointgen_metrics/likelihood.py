"""The evidence lower bound, bits per dimension of quantised data, and what an objective asks to have reported."""

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
    """Write the evidence lower bound of a model, log p(x|z) + log p(z) - log q(z|x) under q.

    Args:
        model: The model.
        mass: Whether quantised data has the exact probability of its bin, instead of a density.

    Returns:
        (the bound, ""), or (None, the reason) where the model has none.
    """

    def of(model: ModelView) -> Expr:
        q, p = model.joints["q"], model.joints["p"]
        return elbo(q, p, model.is_data, lambda v: mass and _quantised(model, v))

    return evaluable(model, of)


def infers_codes(model: ModelView) -> bool:
    """Whether q draws anything that the data does not have. Where it does not, the "bound" is log p(x) itself."""
    return not all(model.is_data(factor) for factor in model.joints["q"].factors)


def evaluable(model: ModelView, of: Callable[[ModelView], Expr]) -> tuple[Expr | None, str]:
    """Write an expression over the joints q and p.

    Args:
        model: The model.
        of: Writes the expression; it may raise ConfigError.

    Returns:
        (the expression, ""), or (None, the reason) where the model cannot evaluate it.
    """
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
    """Say what p is a density of: nats of a density and nats of bits are different things."""
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


NO_CODE = "q infers no code, so that nothing is bounded: log p(x) itself is the figure 'exact'"
EXACT_DISPLAY = Display("exact", "likelihood", 5, nll=True)


def log_likelihood(model: ModelView, expr: Expr) -> MetricFigure:
    """The figure "exact" of a model whose log p(x) needs no code: `expr` is E[q(x)](log p(x)).

    Several metrics give this very figure.
    """

    def figure() -> MetricFigure:
        return MetricFigure(
            "exact",
            "nats",
            "log p(x) itself, since it needs no code",
            (per_row("exact", model.row_function(expr, observed=True)),),
            "exact",
            density_note(model),
            better="higher",
            display=attrs.evolve(EXACT_DISPLAY, headline=True),
        )

    return model.recall("log p(x) without a code", figure)


ELBO_DISPLAY = Display("ELBO", "likelihood", 0, headline=True, nll=True)
BITS_DISPLAY = Display("bits/dim", "likelihood", 9, headline=True)


@attrs.frozen
class ELBO:
    """The evidence lower bound on log p(x), in nats: the mean over rows (Kingma & Welling 2014, eq. 3).

    Each row has log p(x|z) + log p(z) - log q(z|x) at one draw z ~ q(z|x), which is unbiased for the bound. A model
    without a code has log p(x) itself, the figure "exact", in its place.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        expr, reason = bound(model)
        if expr is None:
            return [MetricFigure("elbo", "nats", "", note=f"no bound: {reason}")]
        if not infers_codes(model):
            return [MetricFigure("elbo", "nats", "", note=NO_CODE), log_likelihood(model, expr)]
        estimator = "one draw of q(z|x) per row"
        statistics = (per_row("elbo", model.row_function(expr, observed=True)),)
        return [
            MetricFigure(
                "elbo",
                "nats",
                estimator,
                statistics,
                "lower",
                density_note(model),
                better="higher",
                display=ELBO_DISPLAY,
            )
        ]


@attrs.frozen
class CodeLength:
    """The length of quantised data in a code that a model's bound allows.

    Args:
        expr: The bound. Its negative is the length in nats, but for `correction`.
        basis: What the bound is made of.
        size: D, the numbers in a row.
        correction: Nats that are added to the bound: the log-determinant of the map from model space to levels.
        is_exact: Whether the probabilities of levels are exact, and not bounded by those of dequantised values.
    """

    expr: Expr
    basis: str
    size: int
    correction: float
    is_exact: bool

    def finish(self, mean: Mean) -> FigureValue:
        """Finishes bits per dimension, -bound / (D log 2), from the mean of the bound."""
        error = mean.standard_error
        bits = bits_per_dim(-mean.mean, self.size, self.correction)
        return bits, None if error is None else error / (self.size * math.log(2))


def code_length(model: ModelView) -> tuple[CodeLength | None, str]:
    """The code length of quantised data, ""; or (None, the reason) where the data is not quantised or has no bound."""
    quantised = [v for v in model.spaces if _quantised(model, v)]
    if not quantised:
        return None, "the data is not quantised"
    size = sum(model.spaces[v].size for v in quantised)
    exact, _ = bound(model, mass=True)
    if exact is not None:
        return CodeLength(exact, "exact bin mass", size, 0.0, is_exact=True), ""
    density, reason = bound(model)
    if density is None:
        return None, f"no bound: {reason}"
    correction = sum(model.spaces[v].log_det_to_data for v in quantised)
    return CodeLength(density, "density of dequantised data", size, correction, is_exact=False), ""


@attrs.frozen
class BitsPerDim:
    """Bits per dimension of quantised data, -ELBO / (D log 2): an upper bound (Pu et al. 2017, section 5).

    It takes the exact probability of each value's bin where the family has it, and otherwise the density of
    dequantised data with the log-determinant of its preprocessing, which is an upper bound too (Theis et al. 2016,
    section 3.1). A model without a code whose family has bins has the very number, which is marked as exact.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        length, reason = code_length(model)
        if length is None:
            return [MetricFigure("bits_per_dim", "bits", "", note=reason)]
        statistics = (per_row("bits_per_dim", model.row_function(length.expr, observed=True)),)
        needs_code = infers_codes(model)
        return [
            MetricFigure(
                "bits_per_dim",
                "bits",
                f"{length.basis}, one draw of q(z|x) per row" if needs_code else length.basis,
                statistics,
                "upper" if needs_code or not length.is_exact else "exact",
                finish=length.finish,
                better="lower",
                display=BITS_DISPLAY,
            )
        ]


@attrs.frozen
class Reports:
    """The expressions that the objective itself asks to have reported, such as AVB's elbo_estimate.

    The mean over rows of each, in nats. By convention a report whose name begins with "elbo_" estimates log p(x) from
    below; none is called a bound, since it may use a learned ratio.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        return [self._figure(model, name, expr) for name, expr in model.reports.items()]

    def _figure(self, model: ModelView, name: str, expr: Expr) -> MetricFigure:
        reason = model.missing(expr)
        statistics = () if reason else (per_row(name, model.row_function(expr)),)
        display = Display()
        if name.startswith("elbo_"):
            title = name.replace("elbo_", "ELBO ").replace("_", " ")
            display = Display(title, "likelihood", 1, headline=True, nll=True)
        if not any(isinstance(part, Ratio) for part in expr.walk()):
            return MetricFigure(name, "nats", str(expr), statistics, note=reason, display=display)
        note = reason or "uses a learned ratio: an estimate, no bound"
        return MetricFigure(name, "nats", str(expr), statistics, "estimate", note, display=display)
