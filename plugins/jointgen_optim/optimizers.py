"""Torch's optimizers as tables of a recipe. Torch itself is imported where one is built: tables are read before it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

from jointgen.plugin import ConfigError, Rate, below_one, between, non_negative, positive

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


@attrs.frozen(kw_only=True)
class TorchOptimizer(Rate):
    """The optimizer of torch that has the class's name; its further keys are torch's arguments."""

    form: ClassVar[dict[str, Any]] = {"fused": True}
    """Several times faster, on a CPU too; where torch has no fused form, foreach."""

    def build(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Return the optimizer of these parameters."""
        return _build(type(self).__name__, parameters, lr=self.lr, **self.arguments(), **self.form)


def _build(name: str, parameters: list[nn.Parameter], **arguments: Any) -> Any:
    return getattr(importlib.import_module("torch.optim"), name)(parameters, **arguments)


@attrs.frozen(kw_only=True)
class Adam(TorchOptimizer):
    """Adam (Kingma & Ba 2015).

    Args:
        betas: The decays of the mean gradient and of the mean squared gradient.
        eps: Added to the root of the mean squared gradient.
        weight_decay: Times the parameter, added to the gradient.
    """

    betas: tuple[float, float] = attrs.field(default=(0.9, 0.999), validator=below_one)
    eps: float = attrs.field(default=1e-8, validator=positive)
    weight_decay: float = attrs.field(default=0.0, validator=non_negative)

    @property
    def moments(self) -> int:
        """The numbers that the optimizer keeps for each parameter."""
        return 2


@attrs.frozen(kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019).

    Args:
        weight_decay: Times the rate, the share of a parameter that each step takes off.
    """

    weight_decay: float = attrs.field(default=1e-2, validator=non_negative)


@attrs.frozen(kw_only=True)
class SGD(TorchOptimizer):
    """Stochastic gradient descent, with momentum or Nesterov's.

    Args:
        momentum: The share of the last step that the next one keeps.
        nesterov: Whether the momentum is Nesterov's.
        weight_decay: Times the parameter, added to the gradient.
    """

    momentum: float = attrs.field(default=0.0, validator=below_one)
    nesterov: bool = False
    weight_decay: float = attrs.field(default=0.0, validator=non_negative)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.nesterov and self.momentum == 0.0:
            raise ConfigError("needs a momentum > 0", "nesterov")

    @property
    def moments(self) -> int:
        """The numbers that the optimizer keeps for each parameter."""
        return int(self.momentum > 0.0)


@attrs.frozen(kw_only=True)
class RMSprop(TorchOptimizer):
    """RMSprop (Hinton 2012).

    Args:
        alpha: The decay of the mean of the squared gradient.
        eps: Added to the root of the mean squared gradient.
        momentum: The share of the last step that the next one keeps.
        centered: Whether the square of the mean gradient is subtracted from it (Graves 2013).
        weight_decay: Times the parameter, added to the gradient.
    """

    form: ClassVar[dict[str, Any]] = {"foreach": True}
    alpha: float = attrs.field(default=0.99, validator=below_one)
    eps: float = attrs.field(default=1e-8, validator=positive)
    momentum: float = attrs.field(default=0.0, validator=below_one)
    centered: bool = False
    weight_decay: float = attrs.field(default=0.0, validator=non_negative)

    @property
    def moments(self) -> int:
        """The numbers that the optimizer keeps for each parameter."""
        return 1 + int(self.momentum > 0.0) + int(self.centered)


@attrs.frozen(kw_only=True)
class Adamax(Adam):
    """Adam by the largest slope so far (Kingma & Ba 2015, section 7.1)."""

    form: ClassVar[dict[str, Any]] = {"foreach": True}


@attrs.frozen(kw_only=True)
class NAdam(Adam):
    """Adam with Nesterov's momentum (Dozat 2016).

    Args:
        momentum_decay: How fast the momentum rises to its value.
        decoupled_weight_decay: Whether the decay is AdamW's.
    """

    form: ClassVar[dict[str, Any]] = {"foreach": True}
    momentum_decay: float = attrs.field(default=4e-3, validator=non_negative)
    decoupled_weight_decay: bool = False


@attrs.frozen(kw_only=True)
class RAdam(Adam):
    """Adam whose first steps are as small as their variance is large (Liu et al. 2020).

    Args:
        decoupled_weight_decay: Whether the decay is AdamW's.
    """

    form: ClassVar[dict[str, Any]] = {"foreach": True}
    decoupled_weight_decay: bool = False


@attrs.frozen(kw_only=True)
class Adagrad(TorchOptimizer):
    """Adagrad (Duchi et al. 2011): the rate of each parameter falls with all its slopes so far.

    Args:
        lr_decay: How fast the rate falls besides.
        initial_accumulator_value: The sum of squared slopes that it begins with.
        eps: Added to the root of the sum of squared slopes.
        weight_decay: Times the parameter, added to the gradient.
    """

    form: ClassVar[dict[str, Any]] = {"foreach": True}
    lr: float = attrs.field(default=1e-2, validator=[positive, between(0, 1000)])
    lr_decay: float = attrs.field(default=0.0, validator=non_negative)
    initial_accumulator_value: float = attrs.field(default=0.0, validator=non_negative)
    eps: float = attrs.field(default=1e-10, validator=positive)
    weight_decay: float = attrs.field(default=0.0, validator=non_negative)

    @property
    def moments(self) -> int:
        """The numbers that the optimizer keeps for each parameter."""
        return 1


@attrs.frozen(kw_only=True)
class Muon(Rate):
    """Muon (Jordan et al. 2024): the momentum of every matrix is made orthogonal, and is the step.

    All other parameters (biases, norms, convolutions) are AdamW's, at the same rate: the size of Muon's steps is
    matched to AdamW's (Liu et al. 2025).

    Args:
        momentum: Of the matrices.
        nesterov: Whether it is Nesterov's.
        ns_steps: Steps of the Newton-Schulz iteration that makes them orthogonal.
        betas, eps: AdamW's, of the other parameters.
        weight_decay: Of both, decoupled.
        scale: How large a matrix's step is: as large as AdamW's, or as in the first version.
    """

    momentum: float = attrs.field(default=0.95, validator=below_one)
    nesterov: bool = True
    ns_steps: int = attrs.field(default=5, validator=[positive, attrs.validators.lt(100)])
    betas: tuple[float, float] = attrs.field(default=(0.9, 0.999), validator=below_one)
    eps: float = attrs.field(default=1e-8, validator=positive)
    weight_decay: float = attrs.field(default=1e-2, validator=non_negative)
    scale: Literal["match_rms_adamw", "original"] = "match_rms_adamw"

    @property
    def moments(self) -> int:
        """The numbers that the optimizer keeps for each parameter, at the most."""
        return 2

    def build(self, parameters: list[nn.Parameter]) -> list[Optimizer]:
        """Return the optimizers of these parameters: Muon's and AdamW's."""
        matrices = [one for one in parameters if one.ndim == 2]
        others = [one for one in parameters if one.ndim != 2]
        built = []
        if matrices:
            muon = {"momentum": self.momentum, "nesterov": self.nesterov, "ns_steps": self.ns_steps}
            built.append(
                _build(
                    "Muon",
                    matrices,
                    lr=self.lr,
                    weight_decay=self.weight_decay,
                    adjust_lr_fn=self.scale,
                    **muon,
                )
            )
        if others:
            built.append(
                _build(
                    "AdamW",
                    others,
                    lr=self.lr,
                    betas=self.betas,
                    eps=self.eps,
                    weight_decay=self.weight_decay,
                    fused=True,
                )
            )
        return built
