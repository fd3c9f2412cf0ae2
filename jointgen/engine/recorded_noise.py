"""Noise drawn ahead: what tensors a computation asks for by name, and those tensors in place of their source."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from jointgen.contracts.noise import Kind, NamedNoise, Noise, NoiseSource


class NoiseRequest(NamedTuple):
    """One tensor of noise that a loss asks for.

    Args:
        is_shared: Whether every process gets the same numbers, instead of those of its own rows.
    """

    key: str
    kind: Kind
    shape: tuple[int, ...]
    is_shared: bool

    @property
    def title(self) -> str:
        """The key of its tensor; torch.compile rejects dict keys with a hash of their own."""
        return _title_of(*self)

    def draw(self, noise: Noise) -> Tensor:
        """Draw the numbers of the request."""
        return (noise.alone() if self.is_shared else noise).numbers(self.key, self.kind, self.shape)


def _title_of(key: str, kind: str, shape: tuple[int, ...], is_shared: bool) -> str:
    return f"{key} {kind} {shape} {is_shared}"


class RecordingNoise:
    """Stands in for `Noise`: gives the same numbers and lists what was asked for, in order."""

    def __init__(self, noise: Noise, requests: dict[NoiseRequest, None] | None = None, is_shared: bool = False):
        self.noise, self.device, self.dtype = noise, noise.device, noise.dtype
        self.requests: dict[NoiseRequest, None] = {} if requests is None else requests
        self._is_shared = is_shared

    def named(self, name: str, rows: int) -> NoiseSource:
        """Return the noise of a name."""
        return NamedNoise(self, name, rows)

    def shared(self, name: str, rows: int) -> NoiseSource:
        """Return the noise of a name that is the same in every process."""
        return NamedNoise(RecordingNoise(self.noise.alone(), self.requests, True), name, rows)

    def numbers(self, key: str, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        """Return the numbers of a key, of that kind and shape."""
        self.requests[NoiseRequest(key, kind, shape, self._is_shared)] = None
        return self.noise.numbers(key, kind, shape)


class ReplayedNoise:
    """Stands in for `Noise`: gives numbers that were drawn before, by the title of their request."""

    def __init__(
        self, numbers: dict[str, Tensor], device: torch.device | str, dtype: torch.dtype, is_shared: bool = False
    ):
        self.drawn, self.device, self.dtype, self._is_shared = numbers, device, dtype, is_shared

    def named(self, name: str, rows: int) -> NoiseSource:
        """Return the noise of a name."""
        return NamedNoise(self, name, rows)

    def shared(self, name: str, rows: int) -> NoiseSource:
        """Return the noise of a name that is the same in every process."""
        return NamedNoise(ReplayedNoise(self.drawn, self.device, self.dtype, True), name, rows)

    def numbers(self, key: str, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        """Return the numbers of a key, of that kind and shape."""
        return self.drawn[_title_of(key, kind, shape, self._is_shared)]
