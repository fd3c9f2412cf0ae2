"""Checks of optimizers and of schedules of their rates."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from jointgen.config.optimizers import may_fall
from jointgen.contracts.optimizers import built_optimizers
from jointgen.testing.check import Promises, expect, expect_equal, expect_finite, promise
from jointgen.testing.critics import Subject
from jointgen.testing.randomness import no_global_randomness, normal_like

OPTIMIZERS: Promises = []
SCHEDULES: Promises = []


# --- optimizers ------------------------------------------------------------------------------------------------------


def parameters() -> list[nn.Parameter]:
    """A matrix, a convolution whose weights lie as NHWC, a vector and a number, of fixed values."""
    shapes = {"matrix": (4, 3), "kernel": (2, 3, 2, 2), "vector": (5,), "number": ()}
    found = [nn.Parameter(normal_like(name, *shape).float()) for name, shape in shapes.items()]
    found[1].data = found[1].data.to(memory_format=torch.channels_last)
    return found


def steps(optimizers: Sequence[torch.optim.Optimizer], held: Sequence[nn.Parameter], n: int) -> float:
    """Take n steps down sum (w - 1)^2 / 2, and return its value at the end."""

    def loss() -> Tensor:
        return torch.stack([((one - 1.0) ** 2).sum() / 2 for one in held]).sum()

    for _ in range(n):
        for one in held:
            one.grad = None
        loss().backward()
        for optimizer in optimizers:
            optimizer.step()
    return loss().item()


@promise(OPTIMIZERS)
def optimizer_has_every_parameter_once(subject: Subject) -> None:
    held = parameters()
    made = built_optimizers(subject.config, held)
    expect(all(isinstance(one, torch.optim.Optimizer) for one in made), "build() returns what is no torch Optimizer")
    groups = [group for one in made for group in one.param_groups]
    found = sorted(id(parameter) for group in groups for parameter in group["params"])
    expect(found == sorted(map(id, held)), f"it holds {len(found)} parameters, of {len(held)} that it was given")
    rates = {group.get("lr") for group in groups}
    expect(rates == {subject.config.lr}, f"the rates of its groups are {rates}, not the table's {subject.config.lr}")


@promise(OPTIMIZERS)
def settings_tell_groups_apart(subject: Subject) -> None:
    """Parts with equal settings share an optimizer."""
    expect(hash(subject.config) == hash(copy.copy(subject.config)), "equal settings have different hashes")


@promise(OPTIMIZERS)
def optimizer_goes_downhill_in_place(subject: Subject) -> None:
    held = parameters()
    pointers = [one.data_ptr() for one in held]
    begin = steps([], held, 1)
    with no_global_randomness("a step"):
        end = steps(built_optimizers(subject.config, held), held, 50)
    expect(math.isfinite(end) and end < begin, f"50 steps take sum (w - 1)^2 / 2 from {begin:.4g} to {end:.4g}")
    expect([one.data_ptr() for one in held] == pointers, "a parameter lies elsewhere afterwards")
    for number, one in enumerate(held):
        expect_finite(f"parameter {number}", one.detach())


@promise(OPTIMIZERS)
def nothing_moves_at_the_rate_zero(subject: Subject) -> None:
    """Schedules reach 0, and a rate is the size of the step."""
    held = parameters()
    before = [one.detach().clone() for one in held]
    optimizers = built_optimizers(subject.config, held)
    for group in (group for one in optimizers for group in one.param_groups):
        group["lr"] = 0.0
    steps(optimizers, held, 2)
    for number, (one, was) in enumerate(zip(held, before, strict=True)):
        expect_equal(f"parameter {number} moves at the rate 0", one.detach(), was)


@promise(OPTIMIZERS)
def optimizer_resumes_exactly(subject: Subject) -> None:
    whole, first = parameters(), parameters()
    steps(built_optimizers(subject.config, whole), whole, 6)
    optimizers = built_optimizers(subject.config, first)
    steps(optimizers, first, 3)
    states = copy.deepcopy([one.state_dict() for one in optimizers])
    again = [nn.Parameter(one.detach().clone()) for one in first]
    resumed = built_optimizers(subject.config, again)
    expect(len(resumed) == len(states), "build() makes another number of optimizers the second time")
    for one, state in zip(resumed, states, strict=True):
        one.load_state_dict(state)
    steps(resumed, again, 3)
    for number, (wanted, found) in enumerate(zip(whole, again, strict=True)):
        expect_equal(f"parameter {number} after 3 + 3 steps is not that after 6", found.detach(), wanted.detach())


@promise(OPTIMIZERS)
def optimizer_keeps_no_more_than_its_moments(subject: Subject) -> None:
    held = parameters()
    optimizers = built_optimizers(subject.config, held)
    steps(optimizers, held, 2)
    moments = subject.config.moments
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            shaped = [v for v in state.values() if isinstance(v, Tensor) and v.numel() == parameter.numel() > 1]
            expect(len(shaped) <= moments, f"it keeps {len(shaped)} numbers for each parameter; moments is {moments}")


# --- schedules -------------------------------------------------------------------------------------------------------


@promise(SCHEDULES)
def settings_are_hashable(subject: Subject) -> None:
    """They are part of an optimizer's, by which parts are grouped; lists are not (use tuple[float, ...])."""
    hash(subject.config)


@promise(SCHEDULES)
def schedule_is_a_share_and_a_function(subject: Subject) -> None:
    for place in range(1, 101):
        fallen, again = (subject.config.fallen(place / 100, 5000.0) for _ in range(2))
        expect(isinstance(fallen, float) and 0.0 <= fallen <= 1.0, f"fallen({place / 100}, 5000) is {fallen!r}, "
               "it must be a number in [0, 1]")  # fmt: skip
        expect(fallen == again, f"fallen({place / 100}, 5000) is {fallen}, and {again} when called again")


@promise(SCHEDULES)
def schedule_begins_at_the_full_rate(subject: Subject) -> None:
    fallen = subject.config.fallen(1e-6, 1e6)
    expect(fallen <= 0.01, f"one step of a million has fallen {fallen}, so that the rate would jump")


@promise(SCHEDULES)
def schedule_says_whether_it_falls(subject: Subject) -> None:
    falls = max(subject.config.fallen(place / 100, 5000.0) for place in range(1, 101)) > 0.0
    expect(falls == may_fall(subject.config), f"it falls: {falls}; `falls` says {may_fall(subject.config)}")
