"""The limit on what is made within the machine's memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from jointgen.errors import ConfigError
from jointgen.runtime.memory import AllocationLimit, is_out_of_memory, machine_memory

HUGE = 2**50  # more than addresses reach


def too_large(size: int) -> str:
    return f"{size:,} bytes"


def test_what_is_too_large_is_refused_before_it_is_made() -> None:
    with AllocationLimit(1 << 30, too_large) as limit:
        one = torch.ones(1)
        for make, size in (
            (lambda: nn.Linear(10**7, 10**7), 4 * 10**14),
            (lambda: torch.zeros(2**40, dtype=torch.uint8), 2**40),
            (lambda: one.new_empty(10**6, 10**6), 4 * 10**12),
            (lambda: one.new_full((10**6, 10**6), 1.0), 4 * 10**12),
            (lambda: torch.empty(size=(2**40,)), 2**42),
            (lambda: torch.randint(0, 9, (2**40,), dtype=torch.uint8), 2**40),
            (lambda: torch.zeros_like(one.expand(2**40)), 2**42),
            (lambda: torch.full_like(one.expand(2**40), 1.0), 2**42),
        ):
            with pytest.raises(ConfigError, match=f"^{4 + size:,} bytes$"):
                make()
        assert limit.count_held() == 4  # `one`


def test_all_that_is_made_counts_together_by_its_type() -> None:
    with AllocationLimit(1000, too_large) as limit:
        kept = [torch.zeros(10, 10)]  # 400 bytes
        kept += [torch.randn(50, dtype=torch.float64)]  # 400
        kept += [torch.ones(1, 1).expand(1000, 1000)]  # 4: a view has no memory of its own
        assert limit.count_held() == 804
        with pytest.raises(ConfigError, match=r"1,004 bytes"):
            torch.full((50,), 1.0)
        kept += [torch.empty(196, dtype=torch.uint8)]  # what is left
        with pytest.raises(ConfigError, match=r"1,001 bytes"):
            torch.empty(1, dtype=torch.uint8)
    torch.zeros(10_000)


def test_tensors_that_an_initialiser_makes_for_itself_do_not_count() -> None:
    with AllocationLimit(1000, too_large) as limit:
        layer = nn.Linear(10, 10, bias=False)  # 400 bytes
        for _ in range(3):
            nn.init.orthogonal_(layer.weight)  # 400 of its own, each time
        assert limit.count_held() == 400


def test_what_is_no_size_is_told_by_torch() -> None:
    with AllocationLimit(1000, too_large), pytest.raises(TypeError, match="empty"):
        torch.empty("ten")  # type: ignore[call-overload]


def test_numbers_are_drawn_as_without_the_limit() -> None:
    torch.manual_seed(0)
    free = nn.Linear(3, 4).weight
    torch.manual_seed(0)
    with AllocationLimit(1000, too_large):
        assert torch.equal(nn.Linear(3, 4).weight, free)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(HUGE),
        lambda: torch.ones(1).repeat(HUGE),
        lambda: torch.empty(2**60, 2**60),
        lambda: np.empty(HUGE),
        lambda: bytearray(HUGE),
    ],
)
def test_the_refusal_of_an_allocator_is_known(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        make()
    assert is_out_of_memory(caught.value)


def test_other_errors_are_no_lack_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(caught.value)


def test_the_machine_has_memory() -> None:
    assert machine_memory() > 1 << 28


def test_pythons_own_types_are_those_that_torch_takes_them_for() -> None:
    with AllocationLimit(1000, too_large) as limit:
        held = [torch.ones(3, 4, dtype=kind) for kind in (bool, int, float)]
        assert limit.count_held() == 12 * (1 + 8 + 8) == sum(one.nbytes for one in held)
