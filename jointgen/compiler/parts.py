"""The built networks, families, priors and critics of a recipe, by name; `jointgen.compiler.build` makes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from jointgen.contracts.distributions import Distribution
from jointgen.contracts.networks import Dropout
from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space


class ConditionalPart(nn.Module):
    """`out | given`: a trunk network, and the family that turns its output into a distribution."""

    def __init__(self, trunk: nn.Module, family: nn.Module):
        super().__init__()
        self.trunk, self.family = trunk, family

    def forward(self, *inputs: Tensor, k: int = 1, rows: Tensor | None = None) -> Distribution:
        """(B, *shape) for each given variable -> B * k distributions, each row's parameters repeated k times; or
        those of the given rows, (N,) int64, any number of times each."""
        params = self.trunk(*inputs)  # (B, *outputs)
        if rows is not None:
            return self.family(params[rows])
        return self.family(params if k == 1 else params.repeat_interleave(k, 0))


class PartOfPrior:
    """A conditional as a prior calls it, on inputs of the prior's own: every process has the same ones, and the same
    dropout masks for them."""

    def __init__(self, module: nn.Module, name: str, noise: Noise):
        self.module, self.name, self.noise = module, name, noise

    def __call__(self, *inputs: Tensor, **how: Any) -> Distribution:
        dropouts = [inner for inner in self.module.modules() if isinstance(inner, Dropout)]
        for number, dropout in enumerate(dropouts):
            dropout.noise = self.noise.shared(f"{self.name}/dropout{number}", len(inputs[0]))
        return self.module(*inputs, **how)


@attrs.frozen
class Parts:
    """The built model: modules by part name (conditionals, priors, critics), Spaces by variable.

    through: the parts that a prior goes through, by prior, where it does.
    channels_last: images and the weights of convolutions lie in memory as NHWC.
    """

    modules: nn.ModuleDict
    spaces: Mapping[str, Space]
    through: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    channels_last: bool = False

    def in_channels_last(self) -> Parts:
        """The same parts, laid out anew."""
        self.modules.to(memory_format=torch.channels_last)
        return attrs.evolve(self, channels_last=True)

    def to_memory_format(self, rows: Tensor) -> Tensor:
        """Rows of a variable in the layout of the parts."""
        images = self.channels_last and rows.ndim == 4
        return rows.contiguous(memory_format=torch.channels_last) if images else rows

    def prior(self, name: str, rows: int, noise: Noise, modules: Mapping[str, nn.Module] | None = None) -> Distribution:
        """A prior as `rows` distributions. `modules` stand in for it and for the parts that it goes through."""
        found = self.modules if modules is None else modules
        within = [PartOfPrior(found[part], f"{name}/{part}", noise) for part in self.through.get(name, ())]
        return found[name](rows, *within)

    def named(self, names: Iterable[str]) -> list[nn.Module]:
        return [self.modules[name] for name in names if name in self.modules]

    def parameters(self, names: Iterable[str]) -> list[nn.Parameter]:
        return [parameter for module in self.named(names) for parameter in module.parameters()]


# --- weights that come from elsewhere --------------------------------------------------------------------------------


def shape_mismatches(
    modules: Mapping[str, nn.Module] | nn.ModuleDict, saved: Mapping[str, Mapping[str, Tensor]]
) -> list[str]:
    """Tensors of the modules that the saved ones of the same names do not fit, a few words each."""
    found = []
    for name, module in modules.items():
        theirs = saved.get(name, {})
        own = module.state_dict()
        found += [f"{name} has no tensor {key!r} now" for key in theirs if key not in own]
        found += filter(None, (_misfit(f"{name}/{key}", tensor, theirs.get(key)) for key, tensor in own.items()))
    return found


def _misfit(name: str, own: Tensor, saved: Tensor | None) -> str | None:
    if saved is None:
        return f"{name} is not in it"
    if own.shape != saved.shape:
        return f"{name} is {tuple(own.shape)} now, and {tuple(saved.shape)} there"
    return None


def summarise_problems(lines: Sequence[str]) -> str:
    """The first, and how many more."""
    return lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")


def load_weights(parts: Parts, saved: Mapping[str, Mapping[str, Tensor]], average: bool) -> None:
    """Loads the weights of each part by the part's name, never by order.

    Args:
        parts: The parts.
        saved: State dicts by part; averages are named "ema.PART".
        average: Whether to take a part's averages where there are any.
    """
    for name, module in parts.modules.items():
        key = f"ema.{name}" if average and f"ema.{name}" in saved else name
        module.load_state_dict(dict(saved[key]))
