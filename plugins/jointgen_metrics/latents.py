"""The codes z that have to be integrated out of p(x, z), as one flat vector for each row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
import torch
from torch import Tensor

from jointgen.objectives import E, Expr
from jointgen.plugin import ModelView, Noise, Space

Values = Mapping[str, Tensor]


@attrs.frozen(eq=False)
class Codes:
    """The codes of p: real variables that are not data, side by side as Z numbers for each row.

    Args:
        model: The model.
        spaces: The Space of each code.
        data: x, and whatever p is conditioned on, which q has as data.
        given: Those of the data that p takes from data sources too.
    """

    model: ModelView
    spaces: Mapping[str, Space]
    data: tuple[str, ...]
    given: tuple[str, ...]

    @property
    def size(self) -> int:
        """Z, the numbers of a row's codes."""
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
        """The values of the data, out of those of all variables."""
        return {name: values[name] for name in self.data}

    def log_joint(self, z: Tensor, known: Values, noise: Noise) -> Tensor:
        """The density log p(x, z) given what p is conditioned on, (B,) nats, at z (B, Z) and values of the data."""
        scored = (*self.spaces, *(v for v in self.data if v not in self.given))
        return self.model.log_prob("p", scored, {**known, **self.split(z)}, noise)

    def log_start(self, joint: str, z: Tensor, known: Values, noise: Noise) -> Tensor:
        """The log density of the codes alone, (B,) nats: log p(z), or log q(z|x) of the joint "q"."""
        return self.model.log_prob(joint, tuple(self.spaces), {**known, **self.split(z)}, noise)

    def draw(self, joint: str, known: Values, rows: int, noise: Noise) -> Tensor:
        """Draw codes (rows, Z) from p(z), or from q(z|x) of the joint "q"."""
        return self.flat(self.model.draw(joint, known, rows, noise))


def codes_of(model: ModelView) -> tuple[Codes | None, str]:
    """The codes of p, ""; or (None, the reason) where log p(x, z) cannot be computed at any z.

    q need not have a density: the decoder of an implicit encoder has a likelihood all the same.
    """
    for name in ("q", "p"):
        if name not in model.joints:
            return None, f"the objective has no joint {name!r}"
    q, p = model.joints["q"], model.joints["p"]
    data = {v for factor in q.factors if model.is_data(factor) for v in factor.out}
    for factor in p.factors:
        if model.is_data(factor) and not set(factor.out) <= data:
            return None, f"p({factor}) is data, whose density is not known"
    codes = {v: model.spaces[v] for v in p.variables if v not in data}
    if not codes:
        return None, "p has no codes"
    scored = [p.log(str(factor)) for factor in p.factors if not model.is_data(factor)]
    if reason := model.missing(E(q.everything, total_of(scored))):
        return None, reason
    for name, space in codes.items():
        if space.kind != "real":
            return None, f"{name} is not real but a {space.kind} variable"
    given = tuple(v for factor in p.factors if model.is_data(factor) for v in factor.out)
    return Codes(model, codes, tuple(v for v in p.variables if v in data), given), ""


def missing_encoder(codes: Codes) -> str:
    """Explains why q(z|x) cannot be drawn from and scored at any z; empty where it can."""
    q, p = codes.model.joints["q"], codes.model.joints["p"]
    factors = [factor for factor in q.factors if set(factor.out) & codes.spaces.keys()]
    for factor in factors:
        if unknown := sorted(set(factor.given) - set(codes.data) - codes.spaces.keys()):
            return f"q({factor}) needs {unknown[0]!r}, which p does not have"
    return codes.model.missing(E(p.everything, total_of([q.log(str(factor)) for factor in factors])))


def total_of(terms: Sequence[Expr]) -> Expr:
    """The sum of one or more expressions."""
    return sum(terms[1:], start=terms[0])


# --- slopes ----------------------------------------------------------------------------------------------------------


def slope_and_hessian(f: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """The slope (B, Z) and the Hessian (B, Z, Z) of f at z (B, Z), by 1 + Z backward passes."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(f(z).sum(), z, create_graph=True)
        columns = [
            torch.autograd.grad(slope[:, i].sum(), z, retain_graph=True, materialize_grads=True)[0]
            for i in range(z.shape[1])
        ]
    return slope.detach(), torch.stack(columns, 2)
