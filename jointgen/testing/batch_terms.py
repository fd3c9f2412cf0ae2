"""Checks of divergences and statistics of the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor

from jointgen.contracts.noise import Noise
from jointgen.testing.check import Promises, expect, expect_close, expect_finite, expect_shape, gradients, promise
from jointgen.testing.critics import Subject
from jointgen.testing.randomness import no_global_randomness, noise, normal_like

BATCH_TERMS: Promises = []
ROWS, SIZE, TRIES = 6, 3, 400


def samples(subject: Subject, shift: float = 0.5) -> list[Tensor]:
    """Return fixed rows for each side, (ROWS, SIZE); the second side lies apart by `shift`."""
    sides = int(subject.config.sides)
    return [(normal_like(f"side{i}", ROWS, SIZE) + i * shift).requires_grad_() for i in range(sides)]


def measured(subject: Subject, values: list[Tensor], name: str = "noise") -> Tensor:
    """Return the divergence of these values, with noise of that name."""
    found: Tensor = subject.config(*values, noise=noise(1, name))
    return found


@promise(BATCH_TERMS)
def it_says_what_it_takes_and_where_it_vanishes(subject: Subject) -> None:
    expect(subject.config.sides in (1, 2), f"sides is {subject.config.sides!r}, it must be 1 or 2")
    allowed = ("on average", "at equal samples", "nowhere")
    expect(subject.config.vanishes in allowed, f"vanishes is {subject.config.vanishes!r}, it must be one of {allowed}")


@promise(BATCH_TERMS)
def it_is_one_finite_number(subject: Subject) -> None:
    for shape in ((SIZE,), (2, 4, 4)):
        values = [normal_like(f"side{i}", ROWS, *shape) for i in range(subject.config.sides)]
        with no_global_randomness("the divergence"):
            found = measured(subject, values)
        expect_shape(f"the divergence of rows of shape {shape}", found, ())
        expect_finite("the divergence", found)
        expect_close("the divergence with the same noise again", measured(subject, values), found, 1e-12)
        single: Tensor = subject.config(*(v.float() for v in values), noise=noise(1, "noise", torch.float32))
        expect_finite("the divergence in float32", single)


@promise(BATCH_TERMS)
def order_of_rows_does_not_matter(subject: Subject) -> None:
    values = samples(subject)
    order = torch.tensor([3, 0, 5, 4, 1, 2])
    for side in range(len(values)):
        moved = [value[order] if i == side else value for i, value in enumerate(values)]
        expect_close(f"the divergence with the rows of side {side + 1} in another order",
                     measured(subject, moved), measured(subject, values), 1e-9)  # fmt: skip


@promise(BATCH_TERMS)
def gradient_is_its_slope(subject: Subject) -> None:
    values = samples(subject)
    found = gradients(measured(subject, values), {str(i): value for i, value in enumerate(values)})
    for i in range(len(values)):
        expect(bool((found[str(i)] != 0).any()), f"it has no gradient to side {i + 1}")
        direction, step = normal_like(f"direction{i}", ROWS, SIZE), 1e-5
        ends = [
            measured(subject, [v.detach() + (j == i) * sign * step * direction for j, v in enumerate(values)])
            for sign in (1, -1)
        ]
        slope = (ends[0] - ends[1]) / (2 * step)
        expect_close(f"the slope along side {i + 1}", (found[str(i)] * direction).sum(), slope, 1e-5)


@promise(BATCH_TERMS, lambda subject: subject.config.vanishes == "at equal samples")
def it_vanishes_at_equal_samples(subject: Subject) -> None:
    value = normal_like("equal", ROWS, SIZE)
    expect_close("the divergence of a sample from itself", measured(subject, [value, value]), torch.zeros(()), 1e-9)


@promise(BATCH_TERMS, lambda subject: subject.config.vanishes == "on average")
def it_vanishes_on_average(subject: Subject) -> None:
    """Its mean over many pairs of samples of one distribution lies within 4 standard errors of zero."""
    found = []
    for number in range(TRIES):
        drawn = Noise(number, "equal", dtype=torch.float64)
        values = [drawn.named(f"side{i}", ROWS).normal(SIZE) for i in range(subject.config.sides)]
        found.append(subject.config(*values, noise=drawn.named("noise", 1)))
    every = torch.stack(found)
    mean, error = every.mean().item(), (every.std() / len(every) ** 0.5).item()
    expect(abs(mean) <= 4 * error + 1e-12, f"its mean over samples of one distribution is {mean:.3g} +- {error:.1g}")
    expect(bool((every < 0).any()), "it is never negative, so it cannot vanish on average: do not clip it")
