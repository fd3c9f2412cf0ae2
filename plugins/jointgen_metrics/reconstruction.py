"""Reconstruction of x and of z."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import torch
from torch import Tensor

from jointgen.objectives import Apply, E, Expr, Joint, Value
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

FULL = 255.0
HOW, HOW_DRAWN = "decoder mean at the mean code", "decoder mean at a drawn code"
ROUNDING = 1 / 12  # squared levels: the variance of rounding to a level


# --- of x ------------------------------------------------------------------------------------------------------------


def reconstructed(
    model: ModelView, name: str, unit: str, measure: Callable[[ModelView, str, str], MetricFigure]
) -> list[MetricFigure]:
    """A measure of each variable that can be reconstructed: of x by this name, of others with theirs behind it."""
    variables = [v for v in model.observed if model.can_reconstruct(v)]
    if not variables:
        return [MetricFigure(name, unit, HOW, note="q encodes no data to one code from which p draws it again")]
    found = [measure(model, v, name if v == "x" else f"{name}_{v}") for v in variables]
    (code,) = (v for factor in model.joints["q"].factors if not factor.is_root for v in factor.out)
    return found if has_mean(model, code) else [attrs.evolve(one, estimator=HOW_DRAWN) for one in found]


def display_of(title: str, variable: str, order: int) -> Display:
    """The display of a figure of one variable; of x, by convention the data itself, RMSE is a headline."""
    if variable == "x":
        return Display(title, "reconstruction", order, headline=order == 0)
    return Display(f"{title} {variable}", "reconstruction", order)


def rebuilt_of(model: ModelView, batch: Batch, variable: str) -> tuple[Tensor, Tensor]:
    """(truth, reconstruction), computed once for each batch."""
    return batch.recall(f"rebuilt {variable}", lambda: model.reconstruct_batch(batch, variable))


def scale_of(model: ModelView, variable: str) -> float | None:
    """Levels, of 0 to 255, in a unit of model space; None where the variable has no range."""
    space = model.spaces[variable]
    return None if space.low is None or space.high is None else FULL / (space.high - space.low)


def levels(model: ModelView, variable: str, *values: Tensor) -> tuple[Tensor, ...]:
    """Values in model space, (B, *shape), on the levels 0 to 255; beyond these where they leave the range."""
    scale, low = scale_of(model, variable), model.spaces[variable].low
    assert scale is not None and low is not None, "asked for a variable with a range"
    return tuple((value - low) * scale for value in values)


def squared_error(model: ModelView, variable: str) -> StatisticSpec:
    """The mean squared error of each row, (B,), in model space."""

    def of(batch: Batch) -> Mean:
        return Mean.of(mean_squared_error(*rebuilt_of(model, batch, variable)))

    return StatisticSpec(f"squared error {variable}", of)


def mean_squared_error(a: Tensor, b: Tensor) -> Tensor:
    """(B, *shape) twice -> (B,)."""
    return (a - b).square().flatten(1).mean(1)


@attrs.frozen
class RMSE:
    """sqrt of the mean squared error per value between x and the decoder's mean at the encoder's mean code, 0 to 255.

    Binarised data is compared with its grey levels, which is what the decoder's mean estimates.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        return reconstructed(model, "rmse", "0-255", self._measure)

    def _measure(self, model: ModelView, variable: str, name: str) -> MetricFigure:
        scale = scale_of(model, variable)
        unit = "data units" if scale is None else "0-255"

        def finish(mean: Mean) -> FigureValue:
            return root(mean, scale or 1.0)

        return MetricFigure(
            name,
            unit,
            HOW,
            (squared_error(model, variable),),
            finish=finish,
            better="lower",
            display=display_of("RMSE", variable, 0),
        )


def root(mean: Mean, scale: float) -> FigureValue:
    """scale x sqrt(mean), with its standard error by the slope of the square root."""
    value, error = math.sqrt(mean.mean), mean.standard_error
    return scale * value, None if error is None or value == 0.0 else scale * error / (2 * value)


@attrs.frozen
class PSNR:
    """10 log10(255^2 / MSE) of each image, in decibels, the mean over images.

    A mean squared error below 1/12, the variance of rounding to one of 256 levels, counts as 1/12: what is closer is
    the same image once it is stored, and 58.9 dB is the most that an image can have.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        return reconstructed(model, "psnr", "dB", self._measure)

    def _measure(self, model: ModelView, variable: str, name: str) -> MetricFigure:
        if scale_of(model, variable) is None:
            return MetricFigure(name, "dB", HOW, note=f"{variable} has no known range")

        def decibels(batch: Batch) -> Tensor:
            return psnr(*levels(model, variable, *rebuilt_of(model, batch, variable)))

        protocol = "mean over images, each with a squared error of at least 1/12"
        return MetricFigure(
            name,
            "dB",
            HOW,
            (per_row(name, decibels),),
            better="higher",
            protocol=protocol,
            display=display_of("PSNR", variable, 1),
        )


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """(B, *shape) twice, levels 0 to 255 -> (B,) dB."""
    return 10 * torch.log10(FULL**2 / mean_squared_error(a, b).clamp(min=ROUNDING))


# --- of z ------------------------------------------------------------------------------------------------------------


@attrs.frozen
class CodeRMSE:
    """Reconstruction of codes: z ~ p(z), x ~ p(x|z), and the root mean square of z less q's mean code of x, over the
    prior's own standard deviation. 0: every code is found again; 1: q knows no more of it than its mean.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        codes = codes_of(model)
        if not codes:
            return [MetricFigure("code_rmse", "standard deviations of p", "", note=NO_CODES)]
        return [self._measure(model, code, suffixed("code_rmse", code, codes)) for code in codes]

    def _measure(self, model: ModelView, code: str, name: str) -> MetricFigure:
        q, p = model.joints["q"], model.joints["p"]
        roots = [v for factor in q.factors if factor.is_root for v in factor.out]
        mean = "mean code" if has_mean(model, code) else "drawn code"
        unit, how = "standard deviations of p", f"{mean} of a draw of p"
        if absent := [v for v in roots if v not in p.variables]:
            return MetricFigure(name, unit, how, note=f"q needs {absent[0]}, which p does not draw")

        def pairs(batch: Batch) -> tuple[Tensor, Tensor]:
            """The codes that p draws, and those that q reads from what they are decoded to, (B, *shape)."""
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
            how,
            (errors, spread),
            note=note,
            finish=finish,
            better="lower",
            display=Display(name.replace("code_rmse", "code RMSE").replace("_", " "), "reconstruction", 4),
        )


# --- losses ----------------------------------------------------------------------------------------------------------


class SquaredError:
    """|a - b|^2 over event dimensions: (B, *shape) twice -> (B,)."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return sum_event((a - b).square())


@attrs.frozen
class Reconstruction:
    """The two losses that AS-VAE's early stopping watches: -E_q log p(x|z) and -E_p log q(z|x), in nats.

    A side without a density is measured by the squared error of its mean instead, and says so.
    """

    def figures(self, model: ModelView) -> list[MetricFigure]:
        if not {"q", "p"} <= model.joints.keys():
            return []
        q, p = model.joints["q"], model.joints["p"]
        return [*self._side(model, q, p), *self._side(model, p, q)]

    def _side(self, model: ModelView, under: Joint, back: Joint) -> list[MetricFigure]:
        """Draws of `under`, whose first variable is rebuilt by a conditional of `back`."""
        found = []
        for factor in back.factors:
            if factor.is_root or not {*factor.out, *factor.given} <= set(under.variables):
                continue
            name = f"reconstruction_{factor.out[0]}"
            display = Display(f"reconstruction of {factor.out[0]}", "reconstruction", 3)
            nats = -E(under.everything, back.log(str(factor)))
            if not model.missing(nats):
                note = "a loss: lower is better"
                losses = (per_row(name, model.row_function(nats)),)
                found.append(
                    MetricFigure(
                        name, "nats", str(nats), losses, note=note, better="lower", display=display, watched=True
                    )
                )
                continue
            distance = _squared(under, back, str(factor))
            reason = model.missing(distance)
            collects = () if reason else (per_row(name, model.row_function(distance)),)
            note = reason or f"{back.name}({factor}) has no density: squared error of its mean"
            found.append(
                MetricFigure(
                    name,
                    "squared error",
                    str(distance),
                    collects,
                    note=note,
                    better="lower",
                    display=display,
                    watched=True,
                )
            )
        return found


def _squared(under: Joint, back: Joint, text: str) -> Expr:
    factor = back.factor(text)
    variable = factor.out[0]
    return E(under.everything, Apply(SquaredError(), (Value(variable), Value(variable, "mean", back, factor))))
