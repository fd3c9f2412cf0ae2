"""Noise for checks, which can be recorded, permuted and replayed, and a guard against global generators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from jointgen.contracts.noise import Noise, NoiseSource
from jointgen.testing.check import expect


def noise(rows: int, name: str = "noise", dtype: torch.dtype = torch.float64) -> NoiseSource:
    """Return fixed noise of a name."""
    return Noise(0, dtype=dtype).named(name, rows)


class Recorded:
    """A NoiseSource that records what it returns: `calls` has (kind, tensor) pairs."""

    def __init__(self, source: NoiseSource):
        self.source, self.rows, self.dtype = source, source.rows, source.dtype
        self.calls: list[tuple[str, Tensor]] = []

    def normal(self, *shape: int) -> Tensor:
        """Return normal numbers, (rows, *shape)."""
        return self._kept("normal", self.source.normal(*shape))

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform numbers, (rows, *shape)."""
        return self._kept("uniform", self.source.uniform(*shape))

    def _kept(self, kind: str, value: Tensor) -> Tensor:
        self.calls.append((kind, value))
        return value

    def of_rows(self, rows: Tensor | slice) -> Replayed:
        """Return a source that gives the recorded numbers of these rows."""
        return Replayed([value[rows] for _, value in self.calls])


class Replayed:
    """A NoiseSource that returns these tensors, one after the other."""

    def __init__(self, values: list[Tensor]):
        self.values, self.rows, self.dtype = iter(values), len(values[0]) if values else 0, torch.float64

    def normal(self, *shape: int) -> Tensor:
        """Return the next tensor, which must have this shape, whatever kind is asked for."""
        value = next(self.values, None)
        expect(value is not None and value.shape[1:] == shape, "how much noise a draw takes depends on its values")
        assert value is not None
        return value

    uniform = normal


@contextmanager
def no_global_randomness(what: str) -> Iterator[None]:
    """Fail if the block reads torch's global generator."""
    before = torch.random.get_rng_state()
    yield
    expect(
        torch.equal(before, torch.random.get_rng_state()),
        f"{what} reads torch's global generator; take random numbers from the noise that is given",
    )


def normal_like(name: str, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return fixed standard normal numbers."""
    return Noise(0, "checks", dtype=dtype).named(name, 1).normal(*shape)[0]


def perturb(module: nn.Module, scale: float = 0.1) -> None:
    """Move every parameter a little off its start, so that no zero hides a mistake."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.add_(scale * normal_like(f"perturb {name}", *parameter.shape).to(parameter.dtype))
