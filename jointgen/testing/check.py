"""Checks: functions that test one promise of one component, and the assertions that they are made of."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import attrs
import torch
from torch import Tensor

from jointgen.errors import RAISED


@attrs.frozen
class Check:
    """One promise of one component, to be called by a test.

    Calling it raises AssertionError if the promise is broken, or unittest.SkipTest if it does not apply, both with the
    reason; pytest and unittest understand both. Its `str` names the component and the promise.

    Args:
        subject: The component, in words.
        promise: The promise, in words.
        run: The function that tests it.
    """

    subject: str
    promise: str
    run: Callable[[], None] = attrs.field(repr=False)

    def __call__(self) -> None:
        """Run the check."""
        try:
            self.run()
        except AssertionError as error:
            raise AssertionError(f"{self}: {error}") from error
        except unittest.SkipTest:
            raise
        except RAISED as error:  # whatever a component raises where it should have given a result
            raise AssertionError(f"{self}: raises {type(error).__name__}: {error}") from error

    def __str__(self) -> str:
        return f"{self.subject}: {self.promise}"


@attrs.frozen
class Promise:
    """A promise of all components of a kind.

    Args:
        name: The promise, in words.
        run: The function that tests it for a component.
        applies: Whether a component makes the promise, by what it declares.
    """

    name: str
    run: Callable[[Any], None]
    applies: Callable[[Any], bool]

    def concerns(self, subject: Any) -> bool:
        """Return whether the component makes the promise."""
        try:
            return self.applies(subject)
        except RAISED:  # it cannot even answer: the check will fail for that reason, and the others still run
            return True

    def of(self, subject: Any) -> Check:
        """Return the check of this promise for a component."""
        return Check(str(subject), self.name, lambda: self.run(subject))


Promises = list[Promise]


def promise(table: Promises, applies: Callable[[Any], bool] = lambda subject: True) -> Any:
    """Decorate a function of a component that tests a promise; the function's name, in words, is the promise.

    Args:
        table: The promises to which it is added.
        applies: Whether a component makes the promise.
    """

    def add(function: Callable[[Any], None]) -> Callable[[Any], None]:
        table.append(Promise(function.__name__.replace("_", " "), function, applies))
        return function

    return add


def checks_of(subjects: Iterable[Any], promises: Sequence[Promise]) -> list[Check]:
    """Return a check for each component and each promise that it makes."""
    return [one.of(subject) for subject in subjects for one in promises if one.concerns(subject)]


def described(config: Any) -> str:
    """Return the class with the settings that differ from their defaults, such as Gaussian(scale='fixed')."""
    if not attrs.has(type(config)):
        return type(config).__name__
    settings = [
        f"{field.name}={value!r}"
        for field in attrs.fields(type(config))
        if field.init and (value := getattr(config, field.name)) != _default_of(field)
    ]
    return f"{type(config).__name__}({', '.join(settings)})"


def _default_of(field: Any) -> Any:
    default = field.default
    takes_self = isinstance(default, attrs.Factory) and default.takes_self  # type: ignore[arg-type]
    return default.factory() if isinstance(default, attrs.Factory) and not takes_self else default  # type: ignore


# --- ways to fail ----------------------------------------------------------------------------------------------------


def expect(holds: object, broken: str) -> None:
    """Raise AssertionError if `holds` is false. Unlike assert, no optimisation flag removes it."""
    if not holds:
        raise AssertionError(broken)


def skip(why: str) -> NoReturn:
    """Raise unittest.SkipTest with the reason."""
    raise unittest.SkipTest(why)


def expect_shape(what: str, value: Tensor, shape: Sequence[int]) -> None:
    """Expect a tensor of this shape."""
    expect(isinstance(value, Tensor), f"{what} is a {type(value).__name__}, it must be a tensor")
    expect(tuple(value.shape) == tuple(shape), f"{what} has shape {tuple(value.shape)}, it must be {tuple(shape)}")


def expect_close(what: str, found: Tensor | float, wanted: Tensor | float, tolerance: float) -> None:
    """Expect every entry within `tolerance` x max(1, |wanted|); NaN is close to nothing, equal infinities are equal."""
    a, b = (torch.as_tensor(value, dtype=torch.float64).detach() for value in (found, wanted))
    apart = torch.where(a == b, 0.0, (a - b).abs())
    bad = ~(apart <= tolerance * b.abs().clamp(min=1.0, max=1e300))
    if bad.any():
        at = int(bad.flatten().nonzero()[0])
        one, other = a.expand_as(bad).flatten()[at].item(), b.expand_as(bad).flatten()[at].item()
        raise AssertionError(f"{what}: {one:.6g}, expected {other:.6g} (within {tolerance:.1g})")


def expect_equal(what: str, found: Tensor, wanted: Tensor) -> None:
    """Expect two tensors to be equal, bit for bit."""
    if not torch.equal(found, wanted):
        worst = (found - wanted).abs().max().item() if found.shape == wanted.shape else "shape"
        raise AssertionError(f"{what} (largest difference: {worst})")


def expect_finite(what: str, value: Tensor) -> None:
    """Expect every entry to be finite."""
    if not torch.isfinite(value).all():
        bad = value[~torch.isfinite(value)][0].item()
        raise AssertionError(f"{what} has the value {bad}, it must be finite")


# --- gradients -------------------------------------------------------------------------------------------------------


def gradients(value: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradient of sum(value) with respect to each input by name; zeros if it does not depend on it."""
    if not value.requires_grad or not inputs:
        return {name: torch.zeros_like(one) for name, one in inputs.items()}
    found = torch.autograd.grad(value.sum(), list(inputs.values()), allow_unused=True, retain_graph=True)
    return {
        name: torch.zeros_like(one) if gradient is None else gradient
        for (name, one), gradient in zip(inputs.items(), found, strict=True)
    }
