"""Random numbers as a pure function of (seed, step, name).

There is no generator state, so a checkpoint need not hold any. Numbers are drawn for the rows of the *global* batch and
each process keeps its own rows, so any number of processes sees the same numbers. Nothing in jointgen reads a global
generator while it trains or evaluates (docs/concepts/noise-and-resume.md).
"""

from __future__ import annotations

import hashlib
from typing import Literal, Protocol

import torch
from einops import rearrange
from torch import Tensor

Kind = Literal["normal", "uniform"]

NOISE_BLOCK = 16
"""Number of rows that are drawn together where the noise of a row must not depend on its batch."""


class NoiseSource(Protocol):
    """The noise of one name at one step, which a draw takes its randomness from.

    Each call returns new numbers, and every run returns the same ones in the same order.
    """

    @property
    def rows(self) -> int:
        """The number of rows B of every tensor that it returns."""

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of every tensor that it returns."""

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers, (B, *shape)."""

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform numbers in [0, 1), (B, *shape)."""


class StepNoise(Protocol):
    """The noise of one step: `Noise`, or a stand-in that records or replays it."""

    @property
    def device(self) -> torch.device | str:
        """The device of every tensor."""

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of every tensor."""

    def named(self, name: str, rows: int) -> NoiseSource:
        """Return the noise of one name for this process's rows."""

    def shared(self, name: str, rows: int) -> NoiseSource:
        """Return the noise of one name for rows that every process has."""

    def numbers(self, key: str, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        """Return the numbers of one key, of this shape, for this process's rows, which are the first axis."""


class NamedNoise:
    """The noise of one name: a NoiseSource that takes its numbers from the noise of the step.

    Args:
        noise: The noise of the step.
        name: The name, the same in every run.
        rows: The number of rows.
    """

    def __init__(self, noise: StepNoise, name: str, rows: int):
        self._noise, self._name, self.rows, self._calls = noise, name, rows, 0

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type of every tensor that it returns."""
        return self._noise.dtype

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers, (rows, *shape)."""
        return self._numbers("normal", shape)

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform numbers in [0, 1), (rows, *shape)."""
        return self._numbers("uniform", shape)

    def _numbers(self, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        key = f"{self._name}#{self._calls}"
        self._calls += 1
        return self._noise.numbers(key, kind, (self.rows, *shape))


class Noise:
    """The named noise of one step.

    Args:
        seed: The recipe's seed.
        step: The step, or a name for noise outside training.
        rank: The number of this process.
        world: The number of processes that share the global batch.
        device: The device on which numbers are drawn.
        dtype: Their floating-point type.

    >>> source = Noise(seed=0, step=1).named("z", rows=2)
    >>> source.normal(3).shape
    torch.Size([2, 3])
    """

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

    def named(self, name: str, rows: int) -> NamedNoise:
        """Return the noise of one name for this process's rows."""
        return NamedNoise(self, name, rows)

    def part(self, m: int, k: int) -> Noise:
        """Return the noise of micro-batch m of k: each has its own slice of this process's rows."""
        rank, world = self.rank * k + m, self.world * k
        return Noise(self.seed, self.step, rank=rank, world=world, device=self.device, dtype=self.dtype)

    def shared(self, name: str, rows: int) -> NamedNoise:
        """Return the noise of one name for rows that every process has, such as a prior's own: the same numbers."""
        return NamedNoise(self.alone(), name, rows)

    def alone(self) -> Noise:
        """Return the noise of a run with one process."""
        return Noise(self.seed, self.step, device=self.device, dtype=self.dtype)

    def renamed(self, name: str) -> Noise:
        """Return other noise for the same rows."""
        step = f"{self.step}/{name}"
        return Noise(self.seed, step, rank=self.rank, world=self.world, device=self.device, dtype=self.dtype)

    def of_rows(self, start: int, rows: int) -> Noise:
        """Return the noise of the rows numbered from `start`, drawn NOISE_BLOCK rows at a time.

        The noise of a row is then a function of its number, whatever batch it comes in, if batches begin at
        multiples of NOISE_BLOCK.
        """
        return BlockNoise(self, start, rows)

    def repeated(self, rows: int, draws: range) -> Noise:
        """Return the noise of several draws for each of `rows` rows: (rows * draws, ...) numbers, row by row.

        The numbers of a draw are a function of the draw's own number, whatever other draws are made with it.
        """
        return RepeatedNoise(self, rows, draws)

    def numbers(self, key: str, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        """Return this process's rows of the tensor that the key names, of this shape (rows, ...)."""
        draw, (rows, *event) = torch.randn if kind == "normal" else torch.rand, shape
        every = draw(rows * self.world, *event, generator=self.generator(key), device=self.device, dtype=self.dtype)
        return every if self.world == 1 else every[self.rank * rows : (self.rank + 1) * rows]

    def generator(self, name: str) -> torch.Generator:
        """Return a generator seeded from (seed, step, name). The next call seeds the same generator anew."""
        key = hashlib.blake2b(f"{self.seed}/{self.step}/{name}".encode(), digest_size=8).digest()
        return self._generator.manual_seed(int.from_bytes(key, "little") >> 1)


class BlockNoise(Noise):
    """The noise of numbered rows, see `Noise.of_rows`."""

    def __init__(self, noise: Noise, start: int, rows: int):
        super().__init__(
            noise.seed, noise.step, rank=noise.rank, world=noise.world, device=noise.device, dtype=noise.dtype
        )
        self.start, self.rows = start, rows
        self._blocks = [noise.renamed(f"rows {first}") for first in range(start, start + rows, NOISE_BLOCK)]

    def renamed(self, name: str) -> Noise:
        """Return other noise for the same rows."""
        return BlockNoise(super().renamed(name), self.start, self.rows)

    def numbers(self, key: str, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        """Return the numbers of the numbered rows, or of any other number of rows as `Noise` would."""
        rows, *event = shape
        if rows % self.rows:
            return super().numbers(key, kind, shape)
        every = [block.numbers(key, kind, (NOISE_BLOCK * (rows // self.rows), *event)) for block in self._blocks]
        return torch.cat(every)[:rows]


class RepeatedNoise(Noise):
    """The noise of several draws for each row, see `Noise.repeated`."""

    def __init__(self, noise: Noise, rows: int, draws: range):
        super().__init__(
            noise.seed, noise.step, rank=noise.rank, world=noise.world, device=noise.device, dtype=noise.dtype
        )
        self.rows, self._draws = rows, [noise.renamed(f"draw {number}") for number in draws]

    def named(self, name: str, rows: int) -> NamedNoise:
        """Return the noise of one name; " k=K", which a plan adds for K draws at once, is no part of it."""
        return NamedNoise(self, name.replace(f" k={len(self._draws)}", ""), rows)

    def numbers(self, key: str, kind: Kind, shape: tuple[int, ...]) -> Tensor:
        """Return the numbers of all draws of all rows, row by row."""
        rows, *event = shape
        assert rows == self.rows * len(self._draws), f"{rows} numbers for {len(self._draws)} draws of {self.rows} rows"
        every = [noise.numbers(key, kind, (self.rows, *event)) for noise in self._draws]
        return rearrange(every, "draws rows ... -> (rows draws) ...")
