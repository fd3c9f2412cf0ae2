"""Every check of a network can fail."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from support.checks import failures
from torch import Tensor, nn

from jointgen.contracts.networks import Dropout
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError


class Mixes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.roll(1, 0)


class Net(nn.Module):
    def __init__(self, config: Network, size: int):
        super().__init__()
        self.fault = config.fault
        self.linear = nn.Linear(size, 2)
        self.idle = nn.Linear(1, 1) if config.fault == "idle" else None
        self.drop = nn.Dropout(0.5) if config.fault == "dropout" else Dropout(0.0)
        self.norm = Mixes() if config.fault == "mixes" else nn.Identity()
        self.hidden = torch.rand(1).double()

    def forward(self, *inputs: Tensor) -> Tensor:
        values = [v.flatten(1) for v in inputs]
        if self.fault == "ignores":
            values = [values[0], *(0 * v for v in values[1:])]
        out = self.drop(self.norm(self.linear(torch.cat(values, 1))))
        if self.fault == "forgets":
            out = out + self.hidden.to(out)
        if self.fault == "moody" and self.training:
            out = 2 * out
        if self.fault == "random":
            out = out + torch.randn(1).to(out)
        return out.sum(1) if self.fault == "shape" else out


@attrs.frozen
class Network:
    fault: str = ""

    def build(self, inputs: Any, output: tuple[int, ...]) -> nn.Module:
        if self.fault == "seed":
            torch.manual_seed(torch.seed() % 1000)
        if any(len(space.shape) > 1 for space in inputs.values()):
            raise ConfigError("vectors only", "type")
        return Net(self, sum(space.size for space in inputs.values()))


NETWORKS = {
    "shape": ("output has the shape asked for", "the output for 6 rows has shape (6,), it must be (6, 2)"),
    "mixes": ("rows do not mix", "outputs of permuted rows"),
    "idle": ("gradients reach every parameter and every input", "no gradient reaches 'idle.weight'"),
    "ignores": ("gradients reach every parameter and every input", "no gradient reaches the input 'eps'"),
    "dropout": (
        "evaluation is deterministic and reads no global generator",
        "use jointgen.plugin.Dropout",
    ),
    "random": ("evaluation is deterministic and reads no global generator", "reads torch's global generator"),
    "forgets": ("state survives a round trip and a copy", "a network loaded from the state_dict"),
    "moody": ("training and evaluation agree without dropout", "train() and eval() give different outputs"),
    "seed": ("the build is a function of the seed", "differs between two builds of one seed"),
}
TWO = [({"x": Space((5,)), "eps": Space((3,))}, (2,))]


def test_a_network_that_keeps_its_promises_passes() -> None:
    assert failures("encoder", Network(), settings=TWO) == {}


@pytest.mark.parametrize("fault", NETWORKS)
def test_a_network_that_breaks_a_promise_is_told_which(fault: str) -> None:
    promise, message = NETWORKS[fault]
    found = failures("encoder", Network(fault), settings=TWO)
    assert message in found[promise]
