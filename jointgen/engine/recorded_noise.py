"""Noise drawn ahead: which tensors a computation asks for by name, and a table of them in the place of their source."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from jointgen.contracts.noise import Kind, NamedNoise, Noise, NoiseSource


class Asked(NamedTuple):
    """One tensor of noise that a loss asks for."""

    key: str
    kind: Kind
    shape: tuple[int, ...]
    alone: bool

    @property
    def title(self) -> str:
        return title_of(*self)

    def draw(self, noise: Noise) -> Tensor:
        return (noise.alone() if self.alone else noise).numbers(self.key, self.kind, self.shape)


def title_of(key: str, kind: str, shape: tuple[int, ...], alone: bool) -> str:
    return f"{key} {kind} {shape} {alone}"


class Recorder:
    """In place of `Noise`: the same numbers, and a list of what was asked for, in order."""

    def __init__(self, noise: Noise, asked: dict[Asked, None] | None = None, alone: bool = False):
        self.noise, self.device, self.dtype = noise, noise.device, noise.dtype
        self.asked: dict[Asked, None] = {} if asked is None else asked
        self._alone = alone

    def named(self, name: str, rows: int) -> NoiseSource:
        return NamedNoise(self, name, rows)

    def shared(self, name: str, rows: int) -> NoiseSource:
        return NamedNoise(Recorder(self.noise.alone(), self.asked, True), name, rows)

    def numbers(self, key: str, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        self.asked[Asked(key, kind, shape, self._alone)] = None
        return self.noise.numbers(key, kind, shape)


class Table:
    """In place of `Noise`: numbers that were drawn before, by title."""

    def __init__(self, numbers: dict[str, Tensor], device: Any, dtype: torch.dtype, alone: bool = False):
        self.table, self.device, self.dtype, self._alone = numbers, device, dtype, alone

    def named(self, name: str, rows: int) -> NoiseSource:
        return NamedNoise(self, name, rows)

    def shared(self, name: str, rows: int) -> NoiseSource:
        return NamedNoise(Table(self.table, self.device, self.dtype, True), name, rows)

    def numbers(self, key: str, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        return self.table[title_of(key, kind, shape, self._alone)]
