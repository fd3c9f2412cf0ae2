"""The parameters that an update trains, and the buffers that follow them once they have moved."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn, zeros_like
from torch.nn.utils.parametrize import ParametrizationList

from jointgen.compiler.parts import Parts
from jointgen.contracts.constraints import Constraint
from jointgen.contracts.networks import Follower


class TrainedParameters:
    """Enables gradients for the parameters of one update and disables all others.

    Args:
        parts: All modules.
        trains: The names of the parts that the update trains.
        constraints: What parts are held to, by the part's name.
    """

    def __init__(
        self, parts: Parts, trains: Sequence[str], constraints: Sequence[tuple[str, Sequence[Constraint]]] = ()
    ):
        self.params = parts.parameters(trains)
        trained = {id(p) for p in self.params}
        self._others = [p for p in parts.modules.parameters() if id(p) not in trained]
        self._constraints = [
            (one, module)
            for name, held in constraints
            if name in trains
            for module in parts.named([name])
            for one in held
        ]
        self._followers: list[tuple[Follower, nn.Parameter]] = []
        for module in parts.named(trains):
            for inner in module.modules():
                if isinstance(inner, ParametrizationList):
                    original: nn.Parameter = inner.original  # type: ignore[assignment]
                    self._followers += [(one, original) for one in inner if isinstance(one, Follower)]

    def activate(self) -> None:
        """Clear the gradients of these parameters, and hold all others."""
        for parameter in self._others:
            if parameter.requires_grad:
                parameter.requires_grad_(False)
        for parameter in self.params:
            parameter.grad = None
            if not parameter.requires_grad:
                parameter.requires_grad_(True)

    def fill_missing_gradients(self) -> None:
        """Give zeros to the parameters that no gradient reached, so that every process sends the same list."""
        for parameter in self.params:
            if parameter.grad is None:
                parameter.grad = zeros_like(parameter)

    @torch.no_grad()
    def after_step(self) -> None:
        """Hold the parameters to their constraints, once an optimizer has moved them, and let buffers follow them."""
        for constraint, module in self._constraints:
            constraint(module)
        for follower, original in self._followers:
            follower.follow(original)
