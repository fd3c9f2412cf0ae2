"""The global generators as a checkpoint keeps them, for other people's code."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from jointgen.runtime.global_rng import global_state, seed_globals, seeded, set_global_state


def draws() -> list[float]:
    return [random.random(), random.gauss(), float(np.random.rand()), float(np.random.randn()), float(torch.rand(()))]


@pytest.fixture(autouse=True)
def as_before() -> object:
    before = global_state()
    yield
    set_global_state(before)


@pytest.mark.parametrize("drawn", [0, 1, 700])
def test_they_go_on_where_they_were(drawn: int) -> None:
    """Also between the two numbers that gauss() and randn() make at a time, and past the 624 words of a block."""
    seed_globals(3)
    for _ in range(drawn):
        draws()
    state = global_state()
    first = [draws() for _ in range(3)]
    assert [draws() for _ in range(3)] != first
    set_global_state({name: tensor.clone() for name, tensor in state.items()})
    assert [draws() for _ in range(3)] == first


def test_a_row_of_everyones_states_will_do() -> None:
    """torch crashes on a view that begins within another tensor's memory."""
    seed_globals(1)
    one = global_state()
    expected = draws()
    seed_globals(2)
    everyone = {name: torch.stack([other, one[name]]) for name, other in global_state().items()}
    set_global_state({name: states[1] for name, states in everyone.items()})
    assert draws() == expected


def test_their_states_can_be_gathered() -> None:
    """The same names, shapes and types at any time: processes exchange them."""
    shapes = set()
    for n in range(3):
        shapes.add(tuple((name, tensor.shape, tensor.dtype) for name, tensor in global_state().items()))
        seed_globals(n)
        draws()
    assert len(shapes) == 1


def test_a_seed_decides_and_the_caller_keeps_his() -> None:
    seed_globals(1)
    before = draws()
    seed_globals(1)
    with seeded(2**62 + 1):
        one = draws()
    assert draws() == before
    with seeded(2**62 + 1):
        assert draws() == one
    with seeded(2**62 + 2):
        assert all(a != b for a, b in zip(draws(), one, strict=True))


def test_an_error_within_leaves_them_too() -> None:
    seed_globals(1)
    before = draws()
    seed_globals(1)
    with pytest.raises(ZeroDivisionError), seeded(5):
        raise ZeroDivisionError
    assert draws() == before
