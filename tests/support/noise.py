"""Noise that a test writes down instead of drawing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from jointgen.contracts.noise import Noise


class WrittenSource:
    """One name's noise: the tensor that the test wrote for it, whatever kind is asked for."""

    def __init__(self, value: Tensor):
        self.value, self.dtype, self.rows = value, value.dtype, len(value)

    def normal(self, *shape: int) -> Tensor:
        assert self.value.shape[1:] == shape, f"noise {tuple(self.value.shape)} was written, {shape} is asked for"
        return self.value

    uniform = normal


class WrittenNoise:
    """In place of `Noise`: tensors by name. A name that the test did not write is an error."""

    def __init__(self, values: Mapping[str, Tensor]):
        self.values = dict(values)
        self.device = "cpu"
        self.dtype = next(iter(self.values.values())).dtype if self.values else torch.float64

    def named(self, name: str, rows: int) -> Any:
        if name.partition("/")[2]:  # the noise of observing real data, which is never read
            return Noise(0, dtype=self.dtype).named(name, rows)
        assert name in self.values, f"noise {name!r} is drawn, written are {sorted(self.values)}"
        assert len(self.values[name]) == rows, f"{rows} rows of {name!r} are drawn"
        return WrittenSource(self.values[name])

    def shared(self, name: str, rows: int) -> Any:
        """What a divergence of two samples is given; those that tests of written noise use do not read it."""
        return Noise(0, dtype=self.dtype).named(name, rows)
