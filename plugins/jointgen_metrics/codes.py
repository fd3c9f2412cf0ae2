"""What has to be integrated out of p(x, z): its codes, of any shapes and number, as one flat vector for each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
import torch
from torch import Tensor

from jointgen.measures import Subject
from jointgen.noise import Noise
from jointgen.objectives import E, Expr
from jointgen.space import Space

Values = Mapping[str, Tensor]


@attrs.frozen(eq=False)
class Codes:
    """The codes z of p, real variables that are not data. A row's lie side by side, Z numbers.

    spaces: of each code.  data: x and whatever p is conditioned on, which q has as data.
    given: those of the data that p has as data, too.
    """

    subject: Subject
    spaces: Mapping[str, Space]
    data: tuple[str, ...]
    given: tuple[str, ...]

    @property
    def size(self) -> int:
        """Z."""
        return sum(space.size for space in self.spaces.values())

    def flat(self, values: Values) -> Tensor:
        """(B, *shape) for each code -> (B, Z)."""
        return torch.cat([values[name].flatten(1) for name in self.spaces], 1)

    def split(self, z: Tensor) -> dict[str, Tensor]:
        """(B, Z) -> (B, *shape) for each code."""
        parts = z.split([space.size for space in self.spaces.values()], 1)
        return {
            name: part.unflatten(1, space.shape) for (name, space), part in zip(self.spaces.items(), parts, strict=True)
        }

    def known(self, values: Values) -> dict[str, Tensor]:
        return {name: values[name] for name in self.data}

    def log_joint(self, z: Tensor, known: Values, noise: Noise) -> Tensor:
        """log p(x, z) given what p is conditioned on, (B,) nats. z: (B, Z).  known: as `known` gives it."""
        scored = (*self.spaces, *(v for v in self.data if v not in self.given))
        return self.subject.log_prob("p", scored, {**known, **self.split(z)}, noise)

    def log_start(self, joint: str, z: Tensor, known: Values, noise: Noise) -> Tensor:
        """The log density of the codes alone, (B,) nats: log p(z), or log q(z|x) of the joint "q"."""
        return self.subject.log_prob(joint, tuple(self.spaces), {**known, **self.split(z)}, noise)

    def draw(self, joint: str, known: Values, rows: int, noise: Noise) -> Tensor:
        """(rows, Z) from p(z), or of the joint "q" from q(z|x)."""
        return self.flat(self.subject.draw(joint, known, rows, noise))


def codes_of(subject: Subject) -> tuple[Codes | None, str]:
    """(the codes of p, "") where log p(x, z) can be computed at any z, and (None, why not) otherwise.

    q need not have a density: an implicit encoder's decoder has a likelihood all the same.
    """
    for name in ("q", "p"):
        if name not in subject.joints:
            return None, f"the objective has no joint {name!r}"
    q, p = subject.joints["q"], subject.joints["p"]
    data = {v for factor in q.factors if subject.is_data(factor) for v in factor.out}
    for factor in p.factors:
        if subject.is_data(factor) and not set(factor.out) <= data:
            return None, f"p({factor}) is data, whose density is not known"
    codes = {v: subject.spaces[v] for v in p.variables if v not in data}
    if not codes:
        return None, "p has no codes"
    scored = [p.log(str(factor)) for factor in p.factors if not subject.is_data(factor)]
    if reason := subject.missing(E(q.everything, total_of(scored))):
        return None, reason
    for name, space in codes.items():
        if space.kind != "real":
            return None, f"{name} is not real but a {space.kind} variable"
    given = tuple(v for factor in p.factors if subject.is_data(factor) for v in factor.out)
    return Codes(subject, codes, tuple(v for v in p.variables if v in data), given), ""


def missing_encoder(codes: Codes) -> str:
    """Why q(z|x) cannot be drawn from and scored at any z, or an empty string."""
    q, p = codes.subject.joints["q"], codes.subject.joints["p"]
    factors = [factor for factor in q.factors if set(factor.out) & codes.spaces.keys()]
    for factor in factors:
        if unknown := sorted(set(factor.given) - set(codes.data) - codes.spaces.keys()):
            return f"q({factor}) needs {unknown[0]!r}, which p does not have"
    return codes.subject.missing(E(p.everything, total_of([q.log(str(factor)) for factor in factors])))


def total_of(terms: Sequence[Expr]) -> Expr:
    return sum(terms[1:], start=terms[0])


# --- slopes ----------------------------------------------------------------------------------------------------------


def with_slope(f: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """(f(z) (B,), its slope (B, Z)); rows are on their own."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = f(z)
        (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), slope


def slope_and_hessian(f: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """The slope (B, Z) and the Hessian (B, Z, Z) of f at z, by 1 + Z backward passes."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(f(z).sum(), z, create_graph=True)
        columns = [
            torch.autograd.grad(slope[:, i].sum(), z, retain_graph=True, materialize_grads=True)[0]
            for i in range(z.shape[1])
        ]
    return slope.detach(), torch.stack(columns, 2)
"""Codes: draws of q(z) and of p(z), mean codes; and how many units of a code are in use."""

from __future__ import annotations

import attrs
from torch import Tensor

from jointgen.measures import Batch, Collect, Measure, Subject
from jointgen.measures import Value as Figure
from jointgen.objectives import Conditional
from jointgen_metrics.moments import Moments

NO_CODES = "no conditional of a joint q draws a code that a joint p has"


# --- which codes there are -------------------------------------------------------------------------------------------


def codes_of(subject: Subject) -> list[str]:
    """Latent variables: what conditionals of q draw and p has, but for labels."""
    if not {"q", "p"} <= subject.joints.keys():
        return []
    drawn = [v for factor in subject.joints["q"].factors if not factor.is_root for v in factor.out]
    return [v for v in drawn if v in subject.joints["p"].variables and subject.spaces[v].kind != "label"]


def encoder_of(subject: Subject, code: str) -> Conditional:
    return subject.joints["q"].drawn_by(code)


def has_mean(subject: Subject, code: str) -> bool:
    """Whether q's mean reading of a code is no draw, as that of a network with noise for an input is."""
    factor = encoder_of(subject, code)
    can = subject.capabilities(factor)
    return factor.moments or ("mean" in can.paths and not can.noise_input)


def suffixed(name: str, variable: str, variables: list[str]) -> str:
    """The name of a figure of one of several variables."""
    return name if len(variables) == 1 else f"{name}_{variable}"


# --- their values ----------------------------------------------------------------------------------------------------


def observed(subject: Subject, batch: Batch) -> dict[str, Tensor]:
    """Samples of every variable that a data source yields, observed once for each batch."""
    return batch.recall("observed", lambda: subject.observe(batch)[1])


def encoded(subject: Subject, batch: Batch, reading: str = "sample") -> dict[str, Tensor]:
    """Every variable of q given its data, (B, *shape). "sample": for each row a draw of q(z|x), so of q(z)."""

    def draw() -> dict[str, Tensor]:
        data = observed(subject, batch)
        known = {v: data[v] for factor in subject.joints["q"].factors if subject.is_data(factor) for v in factor.out}
        return subject.draw("q", known, batch.rows, batch.noise, reading)

    return batch.recall(f"encoded {reading}", draw)


def prior_codes(subject: Subject, batch: Batch, name: str) -> dict[str, Tensor]:
    """Codes of p(z), (B, *shape), other ones for each `name`. What p decodes them to is taken as data, not computed."""
    data, codes = observed(subject, batch), codes_of(subject)
    known = {
        v: data[v]
        for factor in subject.joints["p"].factors
        for v in factor.out
        if v in data and (subject.is_data(factor) or not (factor.is_root or v in codes))
    }
    return subject.draw("p", known, batch.rows, batch.noise.renamed(name))


# --- active units ----------------------------------------------------------------------------------------------------


@attrs.frozen
class ActiveUnits:
    """How many numbers of a code vary with x: Var_x(E_q[z|x]) > threshold (Burda et al. 2016, section 5).

    threshold: in the code's units squared.
    """

    threshold: float = attrs.field(default=0.01, validator=attrs.validators.gt(0.0))

    def measures(self, subject: Subject) -> list[Measure]:
        codes = codes_of(subject)
        if not codes:
            return [Measure("active_units", "units", "", note=NO_CODES)]
        return [self._measure(subject, code, suffixed("active_units", code, codes)) for code in codes]

    def _measure(self, subject: Subject, code: str, name: str) -> Measure:
        how = f"of {subject.spaces[code].size}: variance over x of the mean code > {self.threshold:g}"
        if not has_mean(subject, code):
            return Measure(name, "units", how, note=f"q({encoder_of(subject, code)}) has no mean that can be read")

        def finish(moments: Moments) -> Figure:
            variance = moments.variance
            return None if variance is None else float((variance > self.threshold).sum()), None

        def means(batch: Batch) -> Moments:
            return Moments.of(encoded(subject, batch, "mean")[code].flatten(1))

        return Measure(name, "units", how, (Collect(f"mean codes {code}", means, Moments),), finish=finish)
