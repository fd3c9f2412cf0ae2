"""Checks of augmentations of images."""

from __future__ import annotations

import torch
from torch import Tensor

from jointgen.contracts.noise import Noise
from jointgen.testing.check import Promises, expect, expect_close, expect_equal, expect_finite, expect_shape, promise
from jointgen.testing.critics import Subject
from jointgen.testing.randomness import no_global_randomness, noise, normal_like

AUGMENTATIONS: Promises = []
SHAPES = ((3, 8, 8), (1, 6, 10))


def images(shape: tuple[int, ...], rows: int = 6) -> Tensor:
    """Images in [0, 1] of fixed values, (rows, *shape)."""
    return torch.sigmoid(normal_like("images", rows, *shape)).float()


@promise(AUGMENTATIONS)
def augmentation_keeps_shape_and_type(subject: Subject) -> None:
    for shape in SHAPES:
        for dtype in (torch.float32, torch.float64):
            given = images(shape).to(dtype)
            before = given.clone()
            with no_global_randomness("the augmentation"):
                found = subject.config(given, noise(6))
            expect_shape("what it returns", found, given.shape)
            expect(found.dtype == dtype, f"it returns {found.dtype} for {dtype}")
            expect_finite("what it returns", found)
            expect_equal("it changes the images that it is given", given, before)


@promise(AUGMENTATIONS)
def augmentation_gives_the_same_again(subject: Subject) -> None:
    for shape in SHAPES:
        first, second = (subject.config(images(shape), noise(6)) for _ in range(2))
        expect_equal("the same noise gives something else the second time", second, first)


@promise(AUGMENTATIONS)
def augmentation_treats_each_row_alone(subject: Subject) -> None:
    """Two processes with half of the rows each do together what one does."""
    for shape in SHAPES:
        given = images(shape)
        whole = subject.config(given, Noise(0, 1).named("augment", 6))
        halves = [
            subject.config(half, Noise(0, 1, rank=rank, world=2).named("augment", 3))
            for rank, half in enumerate(given.chunk(2))
        ]
        expect_close("rows in two halves, against all at once", torch.cat(halves), whole, 1e-6)


@promise(AUGMENTATIONS, lambda subject: subject.config.differentiable)
def differentiable_augmentation_has_a_gradient(subject: Subject) -> None:
    given = images((3, 8, 8)).double().requires_grad_()
    found = subject.config(given, noise(6))
    expect(found.requires_grad, "it says that it is differentiable, and its result has no gradient")
    (gradient,) = torch.autograd.grad(found.square().sum(), given)
    expect_finite("the gradient", gradient)
    expect(bool((gradient != 0).any()), "the gradient is zero everywhere")
