"""Whose turn it is to learn, and what follows the parameters once they have moved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from jointgen.compiler.parts import Parts
from jointgen.contracts.networks import Follower


class TrainedParameters:
    """Whose turn it is to learn: of all parameters these alone take a gradient."""

    def __init__(self, parts: Parts, trains: Sequence[str]):
        self.params = parts.parameters(trains)
        trained = {id(p) for p in self.params}
        self._others = [p for p in parts.modules.parameters() if id(p) not in trained]
        self._followers = [pair for module in parts.named(trains) for pair in _followers(module)]

    def begin(self) -> None:
        """Clears the gradients, and holds what others train."""
        for parameter in self._others:
            if parameter.requires_grad:
                parameter.requires_grad_(False)
        for parameter in self.params:
            parameter.grad = None
            if not parameter.requires_grad:
                parameter.requires_grad_(True)

    def end(self) -> None:
        """Gives zeros to what nothing reached: every process sends the same list."""
        for parameter in self.params:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def moved(self) -> None:
        """To be called when the parameters have been updated."""
        for follower, parametrized in self._followers:
            follower.follow(parametrized.original)


def _followers(module: nn.Module) -> Iterator[tuple[Follower, Any]]:
    for inner in module.modules():
        if isinstance(inner, ParametrizationList):
            yield from ((one, inner) for one in inner if isinstance(one, Follower))
