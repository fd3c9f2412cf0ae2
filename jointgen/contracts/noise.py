"""Random numbers as a pure function of (seed, step, name): no generator state, so nothing to checkpoint.

The rows of the *global* batch are drawn and this process keeps its own, so any number of processes sees the
same numbers (docs/noise-and-resume.md). Nothing in jointgen reads a global generator while it trains or evaluates.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import torch
from torch import Tensor

Kind = Literal["normal", "uniform"]

NOISE_BLOCK = 16  # rows that are drawn together where a row's noise is not to depend on its batch


class NoiseSource:
    """The noise of one name at one step: each call gives new numbers, the same ones in every run."""

    def __init__(self, noise: Any, name: str, rows: int):
        """noise: where the numbers come from, a `Noise` or what stands in for it."""
        self._noise, self._name, self.rows, self._calls = noise, name, rows, 0

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self._noise.dtype
        return dtype

    def normal(self, *shape: int) -> Tensor:
        """(rows, *shape) standard normal numbers."""
        return self._numbers("normal", shape)

    def uniform(self, *shape: int) -> Tensor:
        """(rows, *shape) numbers in [0, 1)."""
        return self._numbers("uniform", shape)

    def _numbers(self, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        key = f"{self._name}#{self._calls}"
        self._calls += 1
        numbers: Tensor = self._noise.numbers(key, kind, (self.rows, *shape))
        return numbers


class Noise:
    """Named noise of one step. `rows` are this process's rows; `world` processes share the global batch."""

    def __init__(
        self,
        seed: int,
        step: int | str = 0,
        *,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        self.seed, self.step, self.rank, self.world, self.device, self.dtype = seed, step, rank, world, device, dtype
        self._generator = torch.Generator(device)

    def named(self, name: str, rows: int) -> NoiseSource:
        return NoiseSource(self, name, rows)

    def part(self, m: int, k: int) -> Noise:
        """The noise of micro-batch m of k: each of them has its own slice of this process's rows."""
        rank, world = self.rank * k + m, self.world * k
        return Noise(self.seed, self.step, rank=rank, world=world, device=self.device, dtype=self.dtype)

    def shared(self, name: str, rows: int) -> NoiseSource:
        """For rows that every process has, such as a prior's own: the same numbers in each of them."""
        return NoiseSource(self.alone(), name, rows)

    def alone(self) -> Noise:
        """The noise of a process without others."""
        return Noise(self.seed, self.step, device=self.device, dtype=self.dtype)

    def renamed(self, name: str) -> Noise:
        """Other noise for the same rows."""
        step = f"{self.step}/{name}"
        return Noise(self.seed, step, rank=self.rank, world=self.world, device=self.device, dtype=self.dtype)

    def of_rows(self, start: int, rows: int) -> Noise:
        """The noise of `rows` rows from the one numbered `start` on, NOISE_BLOCK by NOISE_BLOCK.

        A row's is a function of its number, in whatever batch it comes, if batches begin at multiples of NOISE_BLOCK.
        """
        return BlockNoise(self, start, rows)

    def repeated(self, rows: int, draws: range) -> Noise:
        """The noise of several draws for each of `rows` rows, (rows * draws, ...) numbers, a row's together.

        A draw's numbers are a function of its own number, whichever others are asked for along with it.
        """
        return RepeatedNoise(self, rows, draws)

    def numbers(self, key: str, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        """(rows, ...): this process's rows of the tensor that the key names."""
        draw, (rows, *event) = torch.randn if kind == "normal" else torch.rand, shape
        every = draw(rows * self.world, *event, generator=self.generator(key), device=self.device, dtype=self.dtype)
        return every[self.rank * rows : (self.rank + 1) * rows]

    def generator(self, name: str) -> torch.Generator:
        key = hashlib.blake2b(f"{self.seed}/{self.step}/{name}".encode(), digest_size=8).digest()
        return self._generator.manual_seed(int.from_bytes(key, "little") >> 1)


class BlockNoise(Noise):
    """See Noise.of_rows."""

    def __init__(self, noise: Noise, start: int, rows: int):
        super().__init__(
            noise.seed, noise.step, rank=noise.rank, world=noise.world, device=noise.device, dtype=noise.dtype
        )
        self.start, self.rows = start, rows
        self._blocks = [noise.renamed(f"rows {first}") for first in range(start, start + rows, NOISE_BLOCK)]

    def renamed(self, name: str) -> Noise:
        return BlockNoise(super().renamed(name), self.start, self.rows)

    def numbers(self, key: str, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        rows, *event = shape
        if rows % self.rows:
            return super().numbers(key, kind, shape)  # not of these rows
        every = [block.numbers(key, kind, (NOISE_BLOCK * (rows // self.rows), *event)) for block in self._blocks]
        return torch.cat(every)[:rows]


class RepeatedNoise(Noise):
    """See Noise.repeated."""

    def __init__(self, noise: Noise, rows: int, draws: range):
        super().__init__(
            noise.seed, noise.step, rank=noise.rank, world=noise.world, device=noise.device, dtype=noise.dtype
        )
        self.rows, self._draws = rows, [noise.renamed(f"draw {number}") for number in draws]

    def named(self, name: str, rows: int) -> NoiseSource:
        return NoiseSource(self, name.replace(f" k={len(self._draws)}", ""), rows)  # how a plan calls k draws at once

    def numbers(self, key: str, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        rows, *event = shape
        assert rows == self.rows * len(self._draws), f"{rows} numbers for {len(self._draws)} draws of {self.rows} rows"
        every = [noise.numbers(key, kind, (self.rows, *event)) for noise in self._draws]
        return torch.stack(every, 1).flatten(0, 1)
