"""Likelihood: the ELBO, and bits per dimension of quantised data."""

from __future__ import annotations

import math

import attrs

from jointgen.errors import ConfigError
from jointgen.measures import Measure, Subject, per_row
from jointgen.nats import bits_per_dim
from jointgen.objectives import Expr, Ratio, elbo
from jointgen.statistics import Mean


def bound(subject: Subject, mass: bool = False) -> tuple[Expr | None, str]:
    """(the ELBO, "") where this model has one, and (None, why not) otherwise. mass: bins where data is quantised."""
    for name in ("q", "p"):
        if name not in subject.joints:
            return None, f"the objective has no joint {name!r}"
    try:
        expr = elbo(
            subject.joints["q"], subject.joints["p"], subject.is_data, lambda v: mass and _quantised(subject, v)
        )
    except ConfigError as error:
        return None, str(error)
    reason = subject.missing(expr)
    return (None, reason) if reason else (expr, "")


def _quantised(subject: Subject, variable: str) -> bool:
    space = subject.spaces[variable]
    return space.kind == "real" and space.bins is not None


@attrs.frozen
class ELBO:
    """Mean over a split of log p(x|z) + log p(z) - log q(z|x), one z per row: a lower bound on log p(x)."""

    def measures(self, subject: Subject) -> list[Measure]:
        expr, reason = bound(subject)
        if expr is None:
            return [Measure("elbo", "nats", "", note=f"no bound: {reason}")]
        how = "one draw of q(z|x) per row"
        return [
            Measure(
                "elbo",
                "nats",
                how,
                (per_row("elbo", subject.rows(expr)),),
                "lower",
                _density_note(subject),
                better="higher",
            )
        ]


def _density_note(subject: Subject) -> str:
    """What x is: nats of a density and nats of bits are different things."""
    notes = []
    for variable in sorted(subject.joints["p"].variables):
        space = subject.spaces[variable]
        if space.kind == "binary":
            notes.append(f"{variable}: bits drawn afresh from grey levels (dynamic binarisation)")
        elif space.bins is not None:
            notes.append(f"{variable}: density of dequantised values on [{space.low:g}, {space.high:g})")
    return "; ".join(notes)


@attrs.frozen
class BitsPerDim:
    """-ELBO / (D log 2) of quantised data, with the exact probability of each value's bin where the family has it.

    Otherwise the density of dequantised data with its preprocessing's log-determinant, also an upper bound.
    """

    def measures(self, subject: Subject) -> list[Measure]:
        quantised = [v for v in subject.spaces if _quantised(subject, v)]
        if not quantised:
            return [Measure("bits_per_dim", "bits", "", note="the data is not quantised")]
        exact, _ = bound(subject, mass=True)
        if exact is not None:
            return [self._measure(subject, quantised, exact, "exact bin mass, one draw of q(z|x) per row", 0.0)]
        density, reason = bound(subject)
        if density is None:
            return [Measure("bits_per_dim", "bits", "", note=f"no bound: {reason}")]
        correction = sum(subject.spaces[v].log_det_to_data for v in quantised)
        return [self._measure(subject, quantised, density, "density of dequantised data, one draw per row", correction)]

    def _measure(self, subject: Subject, variables: list[str], expr: Expr, how: str, correction: float) -> Measure:
        size = sum(subject.spaces[v].size for v in variables)

        def finish(mean: Mean) -> tuple[float | None, float | None]:
            error = mean.standard_error
            return bits_per_dim(-mean.mean, size, correction), None if error is None else error / (size * math.log(2))

        collects = (per_row("bits_per_dim", subject.rows(expr)),)
        return Measure("bits_per_dim", "bits", how, collects, "upper", finish=finish, better="lower")


@attrs.frozen
class Reports:
    """Expressions that the objective itself asks to have reported, such as AVB's elbo_estimate; not called bounds."""

    def measures(self, subject: Subject) -> list[Measure]:
        return [self._measure(subject, name, expr) for name, expr in subject.reports.items()]

    def _measure(self, subject: Subject, name: str, expr: Expr) -> Measure:
        reason = subject.missing(expr)
        collects = () if reason else (per_row(name, subject.rows(expr)),)
        if not any(isinstance(part, Ratio) for part in expr.walk()):
            return Measure(name, "nats", str(expr), collects, note=reason)
        note = reason or "uses a learned ratio: an estimate, no bound"
        return Measure(name, "nats", str(expr), collects, "estimate", note)
