"""The parameters that an update trains, and the buffers that follow them once they have moved."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn, zeros_like
from torch.nn.utils.parametrize import ParametrizationList

from jointgen.compiler.parts import Parts
from jointgen.contracts.networks import Follower


class TrainedParameters:
    """Enables gradients for the parameters of one update and disables all others.

    Args:
        parts: All modules.
        trains: The names of the parts that the update trains.
    """

    def __init__(self, parts: Parts, trains: Sequence[str]):
        self.params = parts.parameters(trains)
        trained = {id(p) for p in self.params}
        self._others = [p for p in parts.modules.parameters() if id(p) not in trained]
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

    def after_step(self) -> None:
        """Let what depends on the parameters follow, once an optimizer has moved them."""
        for follower, original in self._followers:
            follower.follow(original)
