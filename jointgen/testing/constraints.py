"""Checks of constraints on the parameters of a part."""

from __future__ import annotations

import torch
from torch import nn

from jointgen.testing.check import Promises, expect, expect_close, expect_equal, expect_finite, promise
from jointgen.testing.critics import Subject
from jointgen.testing.randomness import no_global_randomness, normal_like

CONSTRAINTS: Promises = []


def small_part() -> nn.Module:
    """A part with matrices of both shapes, a convolution whose weights lie as NHWC, and vectors, of fixed values."""
    part = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 3), nn.Linear(3, 5), nn.LayerNorm(5))
    for name, parameter in part.named_parameters():
        parameter.data = normal_like(name, *parameter.shape).float()
    return part.to(memory_format=torch.channels_last)


@torch.no_grad()
def held(subject: Subject, part: nn.Module) -> dict[str, torch.Tensor]:
    """Apply the constraint, and return copies of the parameters."""
    subject.config(part)
    return {name: parameter.detach().clone() for name, parameter in part.named_parameters()}


@promise(CONSTRAINTS)
def constraint_moves_parameters_in_place(subject: Subject) -> None:
    part = small_part()
    before = {name: (parameter, parameter.data_ptr(), parameter.shape) for name, parameter in part.named_parameters()}
    with no_global_randomness("the constraint"):
        found = held(subject, part)
    for name, parameter in part.named_parameters():
        same, pointer, shape = before[name]
        expect(parameter is same and parameter.data_ptr() == pointer, f"{name} is another tensor afterwards")
        expect(parameter.shape == shape and parameter.requires_grad, f"{name} has another shape, or takes no gradient")
        expect_finite(name, found[name])
    moved = any(not torch.equal(found[name], parameter) for name, parameter in small_part().named_parameters())
    expect(moved, "it moves no parameter of a part with entries of size 1")


@promise(CONSTRAINTS)
def constraint_is_a_projection(subject: Subject) -> None:
    """What is in the set stays where it is."""
    part = small_part()
    once = held(subject, part)
    twice = held(subject, part)
    for name, parameter in once.items():
        expect_close(f"{name} constrained twice", twice[name], parameter, 1e-5)


@promise(CONSTRAINTS)
def constraint_gives_the_same_again(subject: Subject) -> None:
    """Every process of a run applies it to the same numbers, and must get the same."""
    first, second = held(subject, small_part()), held(subject, small_part())
    for name, parameter in first.items():
        expect_equal(f"{name} is something else the second time", second[name], parameter)


@promise(CONSTRAINTS)
def constraint_takes_parts_without_parameters(subject: Subject) -> None:
    held(subject, nn.Flatten())
