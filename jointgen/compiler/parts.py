"""The built networks, families, priors and critics of a recipe, by name; `jointgen.compiler.build` makes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from jointgen.contracts.distributions import Distribution
from jointgen.contracts.networks import noisy_layers
from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.objectives.values import Argument, Layer


class ConditionalPart(nn.Module):
    """An encoder or decoder: a trunk network, and the family that turns its output into a distribution."""

    def __init__(self, trunk: nn.Module, family: nn.Module):
        super().__init__()
        self.trunk, self.family = trunk, family

    def forward(
        self, *inputs: Tensor, k: int = 1, rows: Tensor | None = None, merged: Sequence[Distribution] = ()
    ) -> Distribution:
        """Return the distributions given some variables.

        Args:
            inputs: The given variables, (B, *shape) each.
            k: How often each row's parameters are repeated, for k draws per row.
            rows: (N,) int64, the rows whose distributions are wanted, any number of times each; None for all.
            merged: The distributions of other parts at the same points, where the family merges some.

        Returns:
            B * k distributions, or N.
        """
        params = self.trunk(*inputs)  # (B, *outputs)
        if rows is not None:
            return self.family(params[rows], *merged)
        return self.family(params if k == 1 else params.repeat_interleave(k, 0), *merged)


class PartOfPrior:
    """A conditional as it is called by a prior that goes through it, such as the VampPrior.

    The prior gives it inputs of its own, which are the same in every process; so the dropout masks must be, too.
    """

    def __init__(self, module: nn.Module, name: str, noise: Noise):
        self.module, self.name, self.noise = module, name, noise

    def __call__(self, *inputs: Tensor, **options: Any) -> Distribution:
        """Run the module with the masks of its dropout drawn from the noise of this call."""
        for number, dropout in enumerate(noisy_layers(self.module)):
            dropout.noise = self.noise.shared(f"{self.name}/dropout{number}", len(inputs[0]))
        return self.module(*inputs, **options)


def chosen_features(layers: Sequence[Tensor], layer: Layer) -> Tensor:
    """Return the features of one layer, (B, ...), or of all of them side by side, (B, F).

    Raises:
        ConfigError: There is no such layer.
    """
    if layer == "all":
        return torch.cat([features.flatten(1) for features in layers], 1)
    nth = len(layers) if layer == "last" else layer
    if not 1 <= nth <= len(layers):
        raise ConfigError(f"features[{layer}]: this network shows {len(layers)} layers")
    assert isinstance(nth, int)
    return layers[nth - 1]


@attrs.frozen
class Parts:
    """The built model.

    Args:
        modules: The modules of conditionals, priors and critics, by the name of the part.
        spaces: The Space of each variable.
        through: For priors that go through other parts, the names of these.
        inputs: For conditionals whose network sees other values than those of what it is given, these values.
        seen_spaces: For networks that see features of others, the Spaces of what they see.
        channels_last: Whether images and the weights of convolutions lie in memory as NHWC.
    """

    modules: nn.ModuleDict
    spaces: Mapping[str, Space]
    through: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    channels_last: bool = False
    inputs: Mapping[str, tuple[Argument, ...]] = attrs.field(factory=dict)
    seen_spaces: Mapping[str, tuple[Space, ...]] = attrs.field(factory=dict)

    def in_channels_last(self) -> Parts:
        """Return the same parts with images and convolutions as NHWC in memory."""
        self.modules.to(memory_format=torch.channels_last)
        return attrs.evolve(self, channels_last=True)

    def to_memory_format(self, rows: Tensor) -> Tensor:
        """Return rows of a variable in the memory layout of the parts."""
        images = self.channels_last and rows.ndim == 4
        return rows.contiguous(memory_format=torch.channels_last) if images else rows

    def prior(self, name: str, rows: int, noise: Noise, modules: Mapping[str, nn.Module] | None = None) -> Distribution:
        """Return a prior as so many distributions.

        Args:
            name: The part.
            rows: The number of distributions.
            noise: Names the dropout masks of the parts that the prior goes through.
            modules: Stand-ins for the prior and for these parts, by name; None for their own modules.
        """
        found = self.modules if modules is None else modules
        within = [PartOfPrior(found[part], f"{name}/{part}", noise) for part in self.through.get(name, ())]
        return found[name](rows, *within)

    def named(self, names: Iterable[str]) -> list[nn.Module]:
        """Return the modules of the named parts; data sources have none."""
        return [self.modules[name] for name in names if name in self.modules]

    def parameters(self, names: Iterable[str]) -> list[nn.Parameter]:
        """Return the parameters of the named parts."""
        return [parameter for module in self.named(names) for parameter in module.parameters()]


# --- weights that come from elsewhere --------------------------------------------------------------------------------


def shape_mismatches(
    modules: Mapping[str, nn.Module] | nn.ModuleDict, saved: Mapping[str, Mapping[str, Tensor]]
) -> list[str]:
    """List the tensors of modules that are missing from `saved`, or that have another shape there."""
    mismatches = []
    for name, module in modules.items():
        current, stored = module.state_dict(), saved.get(name, {})
        mismatches += [f"{name} has no tensor {key!r} now" for key in stored if key not in current]
        for key, tensor in current.items():
            if key not in stored:
                mismatches.append(f"{name}/{key} is not in it")
            elif tensor.shape != stored[key].shape:
                mismatches.append(f"{name}/{key} is {tuple(tensor.shape)} now, and {tuple(stored[key].shape)} there")
    return mismatches


def dtype_mismatches(modules: Mapping[str, nn.Module], saved: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
    """List the tensors of modules that are of another type in `saved`, where they would be cast."""
    return [
        f"{name}/{key} is {tensor.dtype} now, and {saved[name][key].dtype} there"
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
        if key in saved.get(name, {}) and tensor.dtype != saved[name][key].dtype
    ]


def summarise_problems(lines: Sequence[str]) -> str:
    """Write the first line, and how many more there are."""
    return lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")


def load_weights(parts: Parts, saved: Mapping[str, Mapping[str, Tensor]], average: bool) -> None:
    """Load the weights of each part by the part's name, never by order.

    Args:
        parts: The parts.
        saved: State dicts by part; averages are named "ema.PART".
        average: Whether to take a part's averages where there are any.

    Raises:
        ConfigError: Tensors are missing, or have other shapes than the parts.
    """
    names = {name: f"ema.{name}" if average and f"ema.{name}" in saved else name for name in parts.modules}
    weights = {name: saved.get(key, {}) for name, key in names.items()}
    if mismatches := shape_mismatches(parts.modules, weights):
        raise ConfigError(f"the checkpoint is of other parts than the recipe's: {summarise_problems(mismatches)}")
    for name, module in parts.modules.items():
        module.load_state_dict(dict(weights[name]))
