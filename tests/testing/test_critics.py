"""Every check of a critic loss, a penalty or a term can fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from support.checks import failures
from torch import Tensor

from jointgen.contracts.distributions import sum_event
from jointgen.objectives import exp, log_sigmoid


@attrs.frozen
class Loss:
    up: Any = log_sigmoid
    down: Any = attrs.field(default=lambda f: log_sigmoid(-f))
    is_ratio: bool = True

    def positive(self, f: Any) -> Any:
        return self.up(f)

    def negative(self, f: Any) -> Any:
        return self.down(f)


def test_critic_losses() -> None:
    assert failures("critic_loss", Loss()) == {}
    swapped = failures("critic_loss", Loss(lambda f: log_sigmoid(-f), log_sigmoid))
    assert "at f = 0 positive(f) has slope -0.5 and negative(f) 0.5" in swapped["gradients have the right sign"]
    score = failures("critic_loss", Loss(lambda f: f, lambda f: -f))
    assert (
        "the slope of E_a positive(f) + E_b negative(f) at f = log a/b"
        in score["ratio losses are stationary at the log ratio"]
    )
    wild = failures("critic_loss", Loss(lambda f: f, lambda f: -exp(exp(f)), is_ratio=False))
    assert "negative(f) at f = -50 and 50 has the value -inf" in wild["losses are finite for large outputs"]
    tensor = failures("critic_loss", Loss(lambda f: 1.0))
    assert "positive(f) is a float, it must be an expression" in tensor["both sides are expressions of the critic"]


@attrs.frozen
class Penalty:
    of: Callable[..., Any]
    every: int = 1
    weight: float = 2.0

    def __call__(self, critic: Any, positive: Any, negative: Any, noise: Any) -> Tensor:
        return self.of(critic(*positive))


class WeighsItself(Penalty):
    def __call__(self, critic: Any, positive: Any, negative: Any, noise: Any) -> Tensor:
        return self.weight * super().__call__(critic, positive, negative, noise)


def test_penalties() -> None:
    assert failures("penalty", Penalty(torch.square)) == {}
    (twice,) = failures("penalty", WeighsItself(torch.square)).values()
    assert "the penalty with a weight of 1.5, by which the engine multiplies,: " in twice
    one = "penalty is one number per row and not negative"
    assert "has shape (), it must be (6,)" in failures("penalty", Penalty(lambda f: f.square().mean()))[one]
    assert "it must not be negative" in failures("penalty", Penalty(lambda f: f))[one]
    cut = failures("penalty", Penalty(lambda f: f.square().detach()))["penalty has a finite gradient to the critic"]
    assert "the penalty's gradient to the critic does not exist" in cut
    mixed = failures("penalty", Penalty(lambda f: (f - f.mean()).square()))["penalty does not mix rows"]
    assert "the penalty of a row alone is not its penalty among others" in mixed
    root = failures("penalty", Penalty(lambda f: f.square().sqrt()))["penalty of a flat critic is finite"]
    assert "the gradient of the penalty of a flat critic has the value nan" in root


@attrs.frozen
class Term:
    of: Callable[..., Any]

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return self.of(a, b)


def batch_mmd(a: Tensor, b: Tensor) -> Tensor:
    """A statistic of the batch in every row: permuted rows have it permuted, but a row alone has another."""

    def kernel(u: Tensor, v: Tensor) -> Tensor:
        return torch.exp(-0.5 * torch.cdist(u.flatten(1), v.flatten(1)).square())

    return (kernel(a, a) - 2 * kernel(a, b) + kernel(b, b)).mean().expand(len(a))


def test_terms() -> None:
    assert failures("term", Term(lambda a, b: sum_event((a - b).abs()))) == {}
    assert "it must be (5,)" in failures("term", Term(lambda a, b: (a - b).square()))["term is one number per row"]
    mixed = failures("term", Term(lambda a, b: sum_event(a - b.flip(0))))["term does not mix rows"]
    assert "the term of permuted rows is not the permuted term" in mixed
    (alone,) = failures("term", Term(batch_mmd)).values()
    assert "term does not mix rows: the term of a row alone is not its term among others" in alone
    cut = failures("term", Term(lambda a, b: sum_event((a - b).abs()).detach()))["term has a gradient"]
    assert "the term's gradient to its values does not exist" in cut
