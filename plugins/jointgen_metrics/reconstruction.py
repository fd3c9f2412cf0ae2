"""Reconstruction errors of data x and of codes z."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from jointgen.objectives import Apply, Conditional, E, Expr, Joint, Value
from jointgen.plugin import (
    Batch,
    Display,
    FigureValue,
    Mean,
    MetricFigure,
    ModelView,
    StatisticSpec,
    per_row,
    sum_event,
)
from jointgen_metrics.codes import NO_CODES, codes_of, has_mean, suffixed
from jointgen_metrics.moments import Moments

MAX_LEVEL = 255.0
"""The levels of images are 0 to 255."""
AT_MEAN_CODE, AT_DRAWN_CODE = "decoder mean at the mean code", "decoder mean at a drawn code"
"""How a reconstruction is made."""
ROUNDING_ERROR = 1 / 12
"""The variance of rounding to a level, in squared levels."""


# --- of x ------------------------------------------------------------------------------------------------------------


def reconstructed(
    model: ModelView, name: str, unit: str, figure: Callable[[ModelView, str, str], MetricFigure]
) -> list[MetricFigure]:
    """The figure of each variable that can be reconstructed.

    Args:
        model: The model.
        name: The figure's name for x; other variables have theirs behind it.
        unit: Its unit.
        figure: Makes the figure from the model, the variable and the name.
    """
    variables = [v for v in model.observed if model.can_reconstruct(v)]
    if not variables:
        return [MetricFigure(name, unit, AT_MEAN_CODE, note=_why_none(model))]
    named = {v: name if v == "x" else f"{name}_{v}" for v in variables}
    found = [
        figure(model, v, named[v])
        if "mean" in model.capabilities(decoder := model.joints["p"].drawn_by(v)).paths
        else MetricFigure(named[v], unit, "", note=f"p({decoder}) has draws, and no mean that can be read")
        for v in variables
    ]
    codes = [v for factor in model.joints["q"].factors if not factor.is_root for v in factor.out]
    has_means = all(has_mean(model, code) for code in codes)
    return found if has_means else [attrs.evolve(one, estimator=AT_DRAWN_CODE) for one in found]


def _why_none(model: ModelView) -> str:
    """Explain why nothing can be reconstructed."""
    if {"q", "p"} <= model.joints.keys():
        q, p = model.joints["q"], model.joints["p"]
        encodes = any(not factor.is_root for factor in q.factors)
        for factor in p.factors if encodes else ():
            if missing := [v for v in factor.given if v not in q.variables and not model.is_data(p.drawn_by(v))]:
                return f"p({factor}) needs {missing[0]}, which q does not infer"
    return "q encodes no data to a code from which p draws it again"


def display_of(title: str, variable: str, order: int) -> Display:
    """The display of a figure of one variable; of x, by convention the data itself, RMSE is a headline."""
    if variable == "x":
        return Display(title, "reconstruction", order, headline=order == 0)
    return Display(f"{title} {variable}", "reconstruction", order)


def reconstruction_of(model: ModelView, batch: Batch, variable: str) -> tuple[Tensor, Tensor]:
    """(truth, reconstruction) of a variable, (B, *shape) each, computed once for each batch."""
    return batch.recall(f"reconstruction {variable}", lambda: model.reconstruct_batch(batch, variable))


def scale_of(model: ModelView, variable: str) -> float | None:
    """The number of levels in a unit of model space; None where the variable has no range."""
    space = model.spaces[variable]
    return None if space.low is None or space.high is None else MAX_LEVEL / (space.high - space.low)


def levels(model: ModelView, variable: str, *values: Tensor) -> tuple[Tensor, ...]:
    """Convert values in model space, (B, *shape), to levels 0 to 255; values out of the range go beyond these."""
    scale, low = scale_of(model, variable), model.spaces[variable].low
    assert scale is not None and low is not None, "asked for a variable with a range"
    return tuple((value - low) * scale for value in values)


def squared_error(model: ModelView, variable: str) -> StatisticSpec:
    """The mean squared error of each row, (B,), in model space."""

    def of(batch: Batch) -> Tensor:
        return mean_squared_error(*reconstruction_of(model, batch, variable))

    return per_row(f"squared error {variable}", of)


def mean_squared_error(a: Tensor, b: Tensor) -> Tensor:
    """The mean over event dimensions of (a - b)^2, (B, *shape) each -> (B,)."""
    return (a - b).square().flatten(1).mean(1)


@attrs.frozen
class RMSE:
    """The root mean squared error of reconstructions, in levels 0 to 255 (Pu et al. 2017, table 2).

    The square root of the mean over rows and values of (x - x')^2, x' the decoder's mean at the encoder's mean code.
    Its standard error is by the slope of the square root. Binarised data is compared with its grey levels, which is
    what the decoder's mean estimates. A variable without a range has it in its own units.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        return reconstructed(model, "rmse", "0-255", self._figure)

    def _figure(self, model: ModelView, variable: str, name: str) -> MetricFigure:
        scale = scale_of(model, variable)
        unit = "data units" if scale is None else "0-255"

        def finish(mean: Mean) -> FigureValue:
            return root(mean, scale or 1.0)

        return MetricFigure(
            name,
            unit,
            AT_MEAN_CODE,
            (squared_error(model, variable),),
            finish=finish,
            better="lower",
            display=display_of("RMSE", variable, 0),
        )


def root(mean: Mean, scale: float) -> FigureValue:
    """The value scale x sqrt(mean), with its standard error by the slope of the square root."""
    value, error = math.sqrt(mean.mean), mean.standard_error
    return scale * value, None if error is None or value == 0.0 else scale * error / (2 * value)


@attrs.frozen
class PSNR:
    """The peak signal-to-noise ratio of reconstructions, in decibels: the mean over images of 10 log10(255^2 / MSE).

    A mean squared error below 1/12, the variance of rounding to one of 256 levels, counts as 1/12: images that are
    closer are equal once they are stored. So 58.9 dB is the most that an image can have.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        return reconstructed(model, "psnr", "dB", self._figure)

    def _figure(self, model: ModelView, variable: str, name: str) -> MetricFigure:
        if scale_of(model, variable) is None:
            return MetricFigure(name, "dB", AT_MEAN_CODE, note=f"{variable} has no known range")

        def decibels(batch: Batch) -> Tensor:
            return psnr(*levels(model, variable, *reconstruction_of(model, batch, variable)))

        protocol = "mean over images, each with a squared error of at least 1/12"
        return MetricFigure(
            name,
            "dB",
            AT_MEAN_CODE,
            (per_row(name, decibels),),
            better="higher",
            protocol=protocol,
            display=display_of("PSNR", variable, 1),
        )


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """The PSNR of each image, (B, *shape) levels 0 to 255 each -> (B,) dB."""
    return 10 * torch.log10(MAX_LEVEL**2 / mean_squared_error(a, b).clamp(min=ROUNDING_ERROR))


# --- of z ------------------------------------------------------------------------------------------------------------


@attrs.frozen
class CodeRMSE:
    """The error with which q finds codes again, in standard deviations of p(z) (Pu et al. 2017, section 5).

    For draws z ~ p(z) and x ~ p(x|z), the root mean square of z - z', z' the mean code of x, over the prior's standard
    deviation. 0: every code is found again; 1: q knows no more of a code than its mean.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        codes = codes_of(model)
        if not codes:
            return [MetricFigure("code_rmse", "standard deviations of p", "", note=NO_CODES)]
        return [self._figure(model, code, suffixed("code_rmse", code, codes)) for code in codes]

    def _figure(self, model: ModelView, code: str, name: str) -> MetricFigure:
        q, p = model.joints["q"], model.joints["p"]
        roots = [v for factor in q.factors if factor.is_root for v in factor.out]
        mean = "mean code" if has_mean(model, code) else "drawn code"
        unit, estimator = "standard deviations of p", f"{mean} of a draw of p"
        if absent := [v for v in roots if v not in p.variables]:
            return MetricFigure(name, unit, estimator, note=f"q needs {absent[0]}, which p does not draw")

        def pairs(batch: Batch) -> tuple[Tensor, Tensor]:
            """The codes that p draws, and q's mean codes of what they are decoded to, (B, *shape) each."""
            drawn = model.sample_batch(batch, "sample")
            found = model.draw("q", {v: drawn[v] for v in roots}, batch.rows, batch.noise, "mean")
            return drawn[code], found[code]

        def recalled(batch: Batch) -> tuple[Tensor, Tensor]:
            return batch.recall(f"code found again {code}", lambda: pairs(batch))

        errors = per_row(name, lambda batch: mean_squared_error(*recalled(batch)), over="draws")
        spread = StatisticSpec(
            f"p({code})", lambda batch: Moments.of(recalled(batch)[0].flatten(1)), Moments, over="draws"
        )

        def finish(mean: Mean, prior: Moments) -> FigureValue:
            variance = prior.variance
            return (None, None) if variance is None else root(mean, 1 / math.sqrt(variance.mean().item()))

        note = "the error is that of the squared distances alone"
        return MetricFigure(
            name,
            unit,
            estimator,
            (errors, spread),
            note=note,
            finish=finish,
            better="lower",
            display=Display(name.replace("code_rmse", "code RMSE").replace("_", " "), "reconstruction", 4),
        )


# --- losses ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class SquaredError:
    """The squared distance |a - b|^2 over event dimensions, (B, *shape) each -> (B,)."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the distance of each row."""
        return sum_event((a - b).square())


@attrs.frozen
class Reconstruction:
    """The two losses that AS-VAE's early stopping watches: -E_q log p(x|z) and -E_p log q(z|x), in nats.

    They are means over rows, with one draw of the code for each (Pu et al. 2017, section 5). A side without a density
    has the squared error of its mean instead, and its note says so.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        if not {"q", "p"} <= model.joints.keys():
            return []
        q, p = model.joints["q"], model.joints["p"]
        return [self._loss(model, under, back, factor) for under, back, factor in _reconstructed(q, p)]

    def _loss(self, model: ModelView, under: Joint, back: Joint, factor: Conditional) -> MetricFigure:
        """The loss of a variable drawn under one joint and reconstructed by the other joint's conditional."""
        variable, nats = factor.out[0], -E(under.everything, back.log(str(factor)))
        both = [other for _, _, other in _reconstructed(under, back) if other.out == factor.out]
        # a code between two layers is drawn by q and by p, and has a loss of each
        name = f"reconstruction_{variable}" if len(both) == 1 else f"reconstruction_{variable}_{back.name}"
        if model.missing(nats):
            distance = _squared(under, back, str(factor))
            unit, estimator, reason = "squared error", str(distance), model.missing(distance)
            note = reason or f"{back.name}({factor}) has no density: squared error of its mean"
            losses = () if reason else (per_row(name, model.row_function(distance)),)
        else:
            unit, estimator, note = "nats", str(nats), "a loss: lower is better"
            losses = (per_row(name, model.row_function(nats)),)
        title = name.replace("reconstruction_", "reconstruction of ").replace(f"{variable}_", f"{variable} by ")
        display = Display(title, "reconstruction", 3)
        return MetricFigure(name, unit, estimator, losses, note=note, better="lower", display=display, watched=True)


def _reconstructed(q: Joint, p: Joint) -> list[tuple[Joint, Joint, Conditional]]:
    """(joint that draws, other joint, the other's conditional that reconstructs) of each loss."""
    return [
        (under, back, factor)
        for under, back in ((q, p), (p, q))
        for factor in back.factors
        if not factor.is_root and {*factor.out, *factor.given} <= set(under.variables)
    ]


def _squared(under: Joint, back: Joint, text: str) -> Expr:
    factor = back.factor(text)
    variable = factor.out[0]
    return E(under.everything, Apply(SquaredError(), (Value(variable), Value(variable, "mean", back, factor))))
