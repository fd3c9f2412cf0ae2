"""Codes of a model: draws of q(z) and p(z), mean codes, and the number of active units."""

from __future__ import annotations

import attrs
from torch import Tensor

from jointgen.objectives import Conditional
from jointgen.plugin import Batch, Display, FigureValue, MetricFigure, ModelView, StatisticSpec, positive
from jointgen_metrics.moments import Moments

NO_CODES = "no conditional of a joint q draws a code that a joint p has"


# --- the codes of a model --------------------------------------------------------------------------------------------


def codes_of(model: ModelView) -> list[str]:
    """The codes: variables that conditionals of q draw and p has, but for labels."""
    if not {"q", "p"} <= model.joints.keys():
        return []
    drawn = [v for factor in model.joints["q"].factors if not factor.is_root for v in factor.out]
    return [v for v in drawn if v in model.joints["p"].variables and model.spaces[v].kind != "label"]


def encoder_of(model: ModelView, code: str) -> Conditional:
    """The conditional of q that draws a code."""
    return model.joints["q"].drawn_by(code)


def has_mean(model: ModelView, code: str) -> bool:
    """Whether q's mean of a code is fixed by the data; a network that takes noise as an input has only draws."""
    factor = encoder_of(model, code)
    can = model.capabilities(factor)
    return factor.moments or ("mean" in can.paths and not can.noise_input)


def suffixed(name: str, variable: str, variables: list[str]) -> str:
    """The name of a figure, with the variable behind it where there are several variables."""
    return name if len(variables) == 1 else f"{name}_{variable}"


# --- their values ----------------------------------------------------------------------------------------------------


def observed(model: ModelView, batch: Batch) -> dict[str, Tensor]:
    """Samples of every variable that a data source yields, (B, *shape), observed once for each batch."""
    return batch.recall("observed samples", lambda: model.observe(batch)[1])


def encoded(model: ModelView, batch: Batch, reading: str = "sample") -> dict[str, Tensor]:
    """Draw every variable of q given its data, (B, *shape), once for each batch.

    With the reading "sample" each row has a draw of q(z|x), so that the rows are draws of q(z).
    """

    def draw() -> dict[str, Tensor]:
        data = observed(model, batch)
        known = {v: data[v] for factor in model.joints["q"].factors if model.is_data(factor) for v in factor.out}
        return model.draw("q", known, batch.rows, batch.noise, reading)

    return batch.recall(f"encoded {reading}", draw)


def prior_codes(model: ModelView, batch: Batch, name: str) -> dict[str, Tensor]:
    """Draw codes of p(z), (B, *shape), other ones for each `name`. The decoder is not run."""
    data, codes = observed(model, batch), codes_of(model)
    known = {
        v: data[v]
        for factor in model.joints["p"].factors
        for v in factor.out
        if v in data and (model.is_data(factor) or not (factor.is_root or v in codes))
    }
    return model.draw("p", known, batch.rows, batch.noise.renamed(name))


# --- active units ----------------------------------------------------------------------------------------------------


@attrs.frozen
class ActiveUnits:
    """The number of active units of a code: those with Var_x(E_q[z|x]) > threshold (Burda et al. 2016, section 5.2).

    Args:
        threshold: The variance over x of a unit's mean code above which it is active, in the code's units squared.
    """

    threshold: float = attrs.field(default=0.01, validator=positive)

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this metric, or why the model has none."""
        codes = codes_of(model)
        if not codes:
            return [MetricFigure("active_units", "units", "", note=NO_CODES)]
        return [self._figure(model, code, suffixed("active_units", code, codes)) for code in codes]

    def _figure(self, model: ModelView, code: str, name: str) -> MetricFigure:
        estimator = f"of {model.spaces[code].size}: variance over x of the mean code > {self.threshold:g}"
        if not has_mean(model, code):
            return MetricFigure(
                name, "units", estimator, note=f"q({encoder_of(model, code)}) has no mean that can be read"
            )

        def finish(moments: Moments) -> FigureValue:
            variance = moments.variance
            return None if variance is None else float((variance > self.threshold).sum()), None

        def means(batch: Batch) -> Moments:
            return Moments.of(encoded(model, batch, "mean")[code].flatten(1))

        return MetricFigure(
            name,
            "units",
            estimator,
            (StatisticSpec(f"mean codes {code}", means, Moments),),
            finish=finish,
            display=Display(group="codes", order=3),
        )
