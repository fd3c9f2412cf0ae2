"""Constraints: what the parameters of a part are held to after each of its optimizer steps."""

from __future__ import annotations

from typing import Protocol

from torch import nn


class Constraint(Protocol):
    """A set of parameters, and the way back into it: projected gradient descent, such as WGAN's clipping.

    It is called under `torch.no_grad()` after each step of the part's optimizer. Every process calls it on the same
    numbers, so it draws nothing at random.
    """

    def __call__(self, module: nn.Module) -> None:
        """Move the parameters of a part into the set, in place. What is in it already stays as it is.

        Args:
            module: The part: a critic, a prior, or an encoder or decoder with its network and family.
        """
