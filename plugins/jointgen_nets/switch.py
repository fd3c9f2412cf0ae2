"""A network that has a copy of another for each class of a label, and runs the copy of a row's class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import ConfigError, DecoderField, DiscriminatorField, EncoderField, NoisyLayer, Space, suggest


@attrs.frozen
class SwitchEncoder:
    """An encoder's trunk with a copy for each class: mixtures of experts whose expert is given.

    Args:
        on: The input that chooses the copy, a label.
        of: The network that is copied; it sees the other inputs. No two copies start equal.
    """

    on: str
    of: EncoderField

    def build(self, inputs: Mapping[str, Space], output: tuple[int, ...]) -> nn.Module:
        """Build the trunk; see `jointgen.plugin.Network`."""
        return switched(self.on, inputs, lambda others: self.of.build(others, output))


@attrs.frozen
class SwitchDecoder:
    """A decoder's trunk with a copy for each class, such as the generators of MIX+GAN (Arora et al. 2017).

    Args:
        on: The input that chooses the copy, a label.
        of: The network that is copied; it sees the other inputs. No two copies start equal.
    """

    on: str
    of: DecoderField

    def build(self, inputs: Mapping[str, Space], output: tuple[int, ...]) -> nn.Module:
        """Build the trunk; see `jointgen.plugin.Network`."""
        return switched(self.on, inputs, lambda others: self.of.build(others, output))


@attrs.frozen
class SwitchDiscriminator:
    """A critic with a copy for each class, such as the critics of MIX+GAN (Arora et al. 2017).

    Args:
        on: The variable that chooses the copy, a label.
        of: The network that is copied; it sees the other variables. No two copies start equal.
    """

    on: str
    of: DiscriminatorField

    def build(self, inputs: Mapping[str, Space]) -> nn.Module:
        """Build the critic's network; see `jointgen.plugin.Discriminator`."""
        return switched(self.on, inputs, self.of.build)


def switched(on: str, inputs: Mapping[str, Space], build: Any) -> SwitchNet:
    """Build a copy for each class of the input `on`, of the other inputs.

    Raises:
        ConfigError: There is no such input, it is no label, or it is the only one.
    """
    if on not in inputs:
        raise ConfigError(f"{on!r} is no input of this network{suggest(on, inputs)}", "on")
    if inputs[on].kind != "label":
        raise ConfigError(f"a switch turns on a label, {on} is {inputs[on]}", "on")
    others = {name: space for name, space in inputs.items() if name != on}
    if not others:
        raise ConfigError(f"{on!r} is the only input, so the copies would see nothing", "on")
    return SwitchNet([build(others) for _ in range(inputs[on].size)], [*inputs].index(on))


class SwitchNet(nn.Module):
    """The module: sum_c y_c net_c(other inputs), which for a one-hot y is the copy of its class.

    Args:
        copies: A network for each class.
        position: Which of the inputs is the label y, (B, C).
    """

    def __init__(self, copies: list[nn.Module], position: int):
        super().__init__()
        self.copies, self.position = nn.ModuleList(copies), position
        self.is_noisy = any(isinstance(layer, NoisyLayer) and layer.is_noisy for layer in self.modules())

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the output of each row's copy, (B, *output)."""
        label, others = inputs[self.position], [v for i, v in enumerate(inputs) if i != self.position]
        if self._runs_by_rows(label):
            return self._by_rows(label.argmax(1), others)
        outputs = torch.stack([net(*others) for net in self.copies], 1)  # (B, C, *output)
        return (label.view(*label.shape, *[1] * (outputs.ndim - 2)) * outputs).sum(1)

    def _runs_by_rows(self, label: Tensor) -> bool:
        """Whether each copy runs on the rows of its class only: where these can be counted without waiting for a GPU.

        Dropout and augmentations have noise for all rows, and the gradient of a label needs every copy's output.
        """
        if label.requires_grad or self.is_noisy or torch.compiler.is_compiling() or label.device.type != "cpu":
            return False
        return bool((label.amax(1) == 1).all())

    def _by_rows(self, classes: Tensor, others: list[Tensor]) -> Tensor:
        order = classes.argsort(stable=True)
        counts = torch.bincount(classes, minlength=len(self.copies)).tolist()
        sorted_inputs = [value[order].split(counts) for value in others]
        outputs = [net(*values) for net, *values in zip(self.copies, *sorted_inputs, strict=True) if len(values[0])]
        return torch.cat(outputs)[order.argsort()]
