"""The limit on what is made within the machine's memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jointgen.errors import ConfigError
from jointgen.runtime.memory import AllocationLimit, machine_memory


def test_what_is_too_large_is_refused_before_it_is_made() -> None:
    with AllocationLimit(1 << 30, "too large") as limit:
        for make in (
            lambda: nn.Linear(10**7, 10**7),
            lambda: torch.zeros(2**40, dtype=torch.uint8),
            lambda: torch.ones(1).new_empty(10**6, 10**6),
            lambda: torch.empty(size=(2**40,)),
        ):
            with pytest.raises(ConfigError, match="too large"):
                make()
    assert limit.made == 4  # of the `torch.ones(1)` alone


def test_all_that_is_made_counts_together_by_its_type() -> None:
    with AllocationLimit(1000, "too large") as limit:
        torch.zeros(10, 10)  # 400 bytes
        torch.randn(50, dtype=torch.float64)  # 400
        torch.ones(1, 1).expand(1000, 1000)  # 4: a view has no memory of its own
        assert limit.made == 804
        with pytest.raises(ConfigError):
            torch.full((50,), 1.0)
        torch.empty(196, dtype=torch.uint8)  # what is left
    torch.zeros(10_000)


def test_numbers_are_drawn_as_without_the_limit() -> None:
    torch.manual_seed(0)
    free = nn.Linear(3, 4).weight
    torch.manual_seed(0)
    with AllocationLimit(1000, "too large"):
        assert torch.equal(nn.Linear(3, 4).weight, free)


def test_the_machine_has_memory() -> None:
    assert machine_memory() > 1 << 28
