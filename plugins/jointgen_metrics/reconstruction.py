"""Reconstruction of x and of z."""

from __future__ import annotations

import math

import attrs
from torch import Tensor

from jointgen.interfaces import sum_event
from jointgen.measures import Batch, Measure, Subject, per_row
from jointgen.objectives import Apply, E, Expr, Joint, Value
from jointgen.statistics import Mean


@attrs.frozen
class RMSE:
    """sqrt of the mean squared error per value between x and the decoder's mean at the encoder's mean code, 0 to 255.

    Binarised data is compared with its grey levels, which is what the decoder's mean estimates.
    """

    def measures(self, subject: Subject) -> list[Measure]:
        return [self._measure(subject, variable) for variable in _reconstructed(subject)]

    def _measure(self, subject: Subject, variable: str) -> Measure:
        space = subject.spaces[variable]
        name = "rmse" if variable == "x" else f"rmse_{variable}"
        bounded = space.low is not None and space.high is not None
        scale = 255.0 / (space.high - space.low) if space.low is not None and space.high is not None else 1.0

        def squared_error(batch: Batch) -> Tensor:
            truth, reconstruction = subject.rebuild(batch, variable)
            return sum_event((truth - reconstruction).square()) / space.size

        def finish(mean: Mean) -> tuple[float | None, float | None]:
            root = math.sqrt(mean.mean)
            error = mean.standard_error  # of a square root, by its slope
            return scale * root, None if error is None or root == 0.0 else scale * error / (2 * root)

        collects = (per_row(name, squared_error),)
        unit = "0-255" if bounded else "data units"
        return Measure(name, unit, "decoder mean at the mean code", collects, finish=finish, better="lower")


def _reconstructed(subject: Subject) -> list[str]:
    """x where q encodes it to one code and p decodes that."""
    if not {"q", "p"} <= subject.joints.keys():
        return []
    q, p = subject.joints["q"], subject.joints["p"]
    codes = [f for f in q.factors if not f.is_root]
    if len(codes) != 1:
        return []
    return [f.out[0] for f in p.factors if not f.is_root and f.out[0] in codes[0].given]


class SquaredError:
    """|a - b|^2 over event dimensions: (B, *shape) twice -> (B,)."""

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return sum_event((a - b).square())


@attrs.frozen
class Reconstruction:
    """The two losses that AS-VAE's early stopping watches: -E_q log p(x|z) and -E_p log q(z|x), in nats.

    A side without a density is measured by the squared error of its mean instead, and says so.
    """

    def measures(self, subject: Subject) -> list[Measure]:
        if not {"q", "p"} <= subject.joints.keys():
            return []
        q, p = subject.joints["q"], subject.joints["p"]
        return [*self._side(subject, q, p), *self._side(subject, p, q)]

    def _side(self, subject: Subject, under: Joint, back: Joint) -> list[Measure]:
        """Draws of `under`, whose first variable is rebuilt by a conditional of `back`."""
        found = []
        for factor in back.factors:
            if factor.is_root or not {*factor.out, *factor.given} <= set(under.variables):
                continue
            name = f"reconstruction_{factor.out[0]}"
            nats = -E(under.everything, back.log(str(factor)))
            if not subject.missing(nats):
                note = "a loss: lower is better"
                losses = (per_row(name, subject.rows(nats)),)
                found.append(Measure(name, "nats", str(nats), losses, note=note, better="lower"))
                continue
            distance = _squared(under, back, str(factor))
            reason = subject.missing(distance)
            collects = () if reason else (per_row(name, subject.rows(distance)),)
            note = reason or f"{back.name}({factor}) has no density: squared error of its mean"
            found.append(Measure(name, "squared error", str(distance), collects, note=note, better="lower"))
        return found


def _squared(under: Joint, back: Joint, text: str) -> Expr:
    factor = back.factor(text)
    variable = factor.out[0]
    return E(under.everything, Apply(SquaredError(), (Value(variable), Value(variable, "mean", back, factor))))
