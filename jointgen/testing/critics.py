"""Checks of critic losses, penalties and pointwise terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from jointgen.contracts.critics import CriticLoss
from jointgen.contracts.noise import NoiseSource
from jointgen.errors import ConfigError
from jointgen.objectives import Expr, Objective, Ratio, Update, log_ratio, p, q, score
from jointgen.objectives.objective import critic_update
from jointgen.testing.check import (
    Promises,
    described,
    expect,
    expect_close,
    expect_finite,
    expect_shape,
    gradients,
    promise,
    skip,
)
from jointgen.testing.evaluation import pointwise
from jointgen.testing.randomness import Recorded, no_global_randomness, noise, normal_like

LOSSES: Promises = []
PENALTIES: Promises = []
TERMS: Promises = []


@attrs.frozen
class Subject:
    """A component that can be checked by itself."""

    config: Any

    def __str__(self) -> str:
        return described(self.config)


# --- critic losses ---------------------------------------------------------------------------------------------------


def sides(loss: CriticLoss) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Return positive and negative as functions of a critic's outputs, (B,) -> (B,)."""
    ratio = _ratio(loss)
    return pointwise(loss.positive(ratio)), pointwise(loss.negative(ratio))


def _ratio(loss: CriticLoss) -> Ratio:
    if loss.is_ratio:
        return log_ratio(q.x, p.x, name="f", loss=loss)
    return score(q.x, p.x, name="f", loss=loss)


OUTPUTS = torch.linspace(-3, 3, 25, dtype=torch.float64)


@promise(LOSSES)
def both_sides_are_expressions_of_the_critic(subject: Subject) -> None:
    loss = subject.config
    expect(isinstance(loss.is_ratio, bool), f"is_ratio is {loss.is_ratio!r}, it must be true or false")
    for name in ("positive", "negative"):
        side = getattr(loss, name)(_ratio(loss))
        expect(
            isinstance(side, Expr), f"{name}(f) is a {type(side).__name__}, it must be an expression of the language"
        )
        expect_shape(f"{name}(f) of 25 outputs", pointwise(side)(OUTPUTS), (25,))
    update = critic_update(_ratio(loss))
    expect(isinstance(update, Update) and str(Objective((update,))), "a critic's update cannot be made of it")


@promise(LOSSES)
def gradients_have_the_right_sign(subject: Subject) -> None:
    """Both are maximised, so that at f = 0 a rise is better on positives and a fall on negatives."""
    positive, negative = sides(subject.config)
    up, down = slope(positive, torch.zeros(1).double()).item(), slope(negative, torch.zeros(1).double()).item()
    expect(up >= 0 >= down and up - down > 0, f"at f = 0 positive(f) has slope {up:g} and negative(f) {down:g}: "
           "positives must be pushed up and negatives down")  # fmt: skip


@promise(LOSSES, lambda subject: subject.config.is_ratio)
def ratio_losses_are_stationary_at_the_log_ratio(subject: Subject) -> None:
    """For a = (.2, .3, .5) and b = (.5, .3, .2), a positive(f) + b negative(f) has its maximum at f = log a/b."""
    positive, negative = sides(subject.config)
    a, b = torch.tensor([0.2, 0.3, 0.5]).double(), torch.tensor([0.5, 0.3, 0.2]).double()
    f = torch.log(a / b)

    def total(f: Tensor) -> Tensor:
        return a * positive(f) + b * negative(f)

    expect_close("the slope of E_a positive(f) + E_b negative(f) at f = log a/b", slope(total, f), torch.zeros(3), 1e-9)
    best = total(f)
    for step in (-0.5, 0.5):
        expect(
            bool((total(f + step) < best).all()), f"the objective is not lower at log a/b {step:+g}: no maximum there"
        )


@promise(LOSSES)
def losses_are_finite_for_large_outputs(subject: Subject) -> None:
    positive, negative = sides(subject.config)
    far = torch.tensor([-50.0, 50.0])
    for name, side in (("positive", positive), ("negative", negative)):
        expect_finite(f"{name}(f) at f = -50 and 50", side(far))
        expect(not slope(side, far).isnan().any(), f"{name}(f) has a slope of NaN at f = -50 or 50")


def slope(f: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Return the slope of an elementwise function."""
    at = at.clone().requires_grad_()
    return gradients(f(at), {"f": at})["f"]


# --- penalties -------------------------------------------------------------------------------------------------------


ALL_ROWS = slice(None)


class SmallCritic(nn.Module):
    """A smooth critic of two variables, (B, 3) and (B, 2) -> (B,), that does not mix rows."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Parameter(normal_like("inner", 5, 7))
        self.outer = nn.Parameter(normal_like("outer", 7))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the outputs, (B,)."""
        return torch.tanh(torch.cat([x, z], 1) @ self.inner) @ self.outer


def penalised(subject: Subject, critic: nn.Module, source: NoiseSource | None = None, rows: slice = ALL_ROWS) -> Tensor:
    """Return the penalty of 6 rows of fixed values, or of some of them."""
    sides = [tuple(normal_like(f"{side}{size}", 6, size)[rows] for size in (3, 2)) for side in ("positive", "negative")]
    return subject.config(critic, *sides, source or noise(6))


@promise(PENALTIES)
def penalty_is_one_number_per_row_and_not_negative(subject: Subject) -> None:
    with no_global_randomness("the penalty"):
        found = penalised(subject, SmallCritic())
    expect_shape("the penalty of 6 rows", found, (6,))
    expect_finite("the penalty", found)
    expect(bool((found >= 0).all()), f"the penalty is {found.min().item():g} in a row, it must not be negative")
    expect(isinstance(subject.config.every, int) and subject.config.every >= 1, f"every is {subject.config.every!r}")
    expect_close("the penalty with the same noise again", penalised(subject, SmallCritic()), found, 1e-12)


@promise(PENALTIES)
def penalty_does_not_mix_rows(subject: Subject) -> None:
    source, critic = Recorded(noise(6)), SmallCritic()
    whole = penalised(subject, critic, source)
    alone = penalised(subject, critic, source.of_rows(slice(2, 3)), slice(2, 3))
    expect_close("the penalty of a row alone is not its penalty among others", alone, whole[2:3], 1e-9)


@promise(PENALTIES)
def penalty_leaves_its_weight_to_the_engine(subject: Subject) -> None:
    once, thrice = (penalised(Subject(attrs.evolve(subject.config, weight=w)), SmallCritic()) for w in (0.5, 1.5))
    expect_close("the penalty with a weight of 1.5, by which the engine multiplies,", thrice, once, 1e-12)


@promise(PENALTIES)
def penalty_has_a_finite_gradient_to_the_critic(subject: Subject) -> None:
    critic = SmallCritic()
    found = penalised(subject, critic)
    expect_slopes("the penalty's gradient to the critic", found, dict(critic.named_parameters()))


@promise(PENALTIES)
def penalty_of_a_flat_critic_is_finite(subject: Subject) -> None:
    critic = SmallCritic()
    nn.init.zeros_(critic.outer)
    found = penalised(subject, critic)
    expect_finite("the penalty of a flat critic", found)
    for gradient in gradients(found, dict(critic.named_parameters())).values():
        expect_finite("the gradient of the penalty of a flat critic", gradient)


def expect_slopes(what: str, value: Tensor, inputs: Mapping[str, Tensor]) -> None:
    """Expect the gradient of `value` to be finite and not zero everywhere."""
    expect(value.requires_grad, f"{what} does not exist")
    found = gradients(value, inputs)
    expect(any(bool((gradient != 0).any()) for gradient in found.values()), f"{what} is zero")
    for gradient in found.values():
        expect_finite(what, gradient)


# --- pointwise terms -------------------------------------------------------------------------------------------------

SHAPES = ((3,), (2, 4, 4))


def applied(subject: Subject, shape: tuple[int, ...], rows: Tensor | slice = ALL_ROWS) -> tuple[list[Tensor], Tensor]:
    """Return 5 rows of fixed values, as many as the term takes, and the term of these rows of them."""
    for count in (2, 1, 3):
        values = [normal_like(f"value{i}", 5, *shape).requires_grad_() for i in range(count)]
        try:
            return values, subject.config(*(value[rows] for value in values))
        except TypeError:
            continue
        except ConfigError as error:
            skip(f"it does not take values of shape {shape}: {error}")
    raise AssertionError("it takes neither one value, nor two, nor three")


@promise(TERMS)
def term_is_one_number_per_row(subject: Subject) -> None:
    for shape in SHAPES:
        _, found = applied(subject, shape)
        expect_shape(f"the term of 5 rows of shape {shape}", found, (5,))
        expect_finite("the term", found)


@promise(TERMS)
def term_does_not_mix_rows(subject: Subject) -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    for shape in SHAPES:
        whole = applied(subject, shape)[1]
        permuted, alone = (applied(subject, shape, rows)[1] for rows in (order, slice(2, 3)))
        expect_close("the term of permuted rows is not the permuted term", permuted, whole[order], 1e-9)
        expect_close("the term of a row alone is not its term among others", alone, whole[2:3], 1e-9)


@promise(TERMS)
def term_has_a_gradient(subject: Subject) -> None:
    values, found = applied(subject, (3,))
    expect_slopes("the term's gradient to its values", found, {str(i): value for i, value in enumerate(values)})
