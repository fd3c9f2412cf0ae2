"""What a check is: one promise of one component, as a function that says how the promise is broken."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import attrs
import torch
from torch import Tensor


@attrs.frozen
class Check:
    """Call it. AssertionError: the promise is broken, and how; unittest.SkipTest: it does not apply, and why.

    Both are what pytest and unittest understand. `str` of it names the component and the promise.
    """

    subject: str
    promise: str
    run: Callable[[], None] = attrs.field(repr=False)

    def __call__(self) -> None:
        try:
            self.run()
        except AssertionError as error:
            raise AssertionError(f"{self}: {error}") from error
        except unittest.SkipTest:
            raise
        except Exception as error:  # whatever a component raises where it should have given a result
            raise AssertionError(f"{self}: raises {type(error).__name__}: {error}") from error

    def __str__(self) -> str:
        return f"{self.subject}: {self.promise}"


@attrs.frozen
class Promise:
    """A check of some kind of component, before it knows which one. `applies` asks what the component declares."""

    name: str
    run: Callable[[Any], None]
    applies: Callable[[Any], bool]

    def concerns(self, subject: Any) -> bool:
        try:
            return self.applies(subject)
        except Exception:  # it cannot even be asked: the check will fail for that reason, and the others still run
            return True

    def of(self, subject: Any) -> Check:
        return Check(str(subject), self.name, lambda: self.run(subject))


Promises = list[Promise]


def promise(table: Promises, applies: Callable[[Any], bool] = lambda subject: True) -> Any:
    """Adds the decorated function (subject) -> None to a table, under its own name in words."""

    def add(function: Callable[[Any], None]) -> Callable[[Any], None]:
        table.append(Promise(function.__name__.replace("_", " "), function, applies))
        return function

    return add


def checks_of(subjects: Iterable[Any], promises: Sequence[Promise]) -> list[Check]:
    return [one.of(subject) for subject in subjects for one in promises if one.concerns(subject)]


def described(config: Any) -> str:
    """The class with the settings that differ from their defaults: Gaussian(scale='fixed')."""
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
    """An assertion that no optimisation flag removes."""
    if not holds:
        raise AssertionError(broken)


def skip(why: str) -> NoReturn:
    raise unittest.SkipTest(why)


def expect_shape(what: str, value: Tensor, shape: Sequence[int]) -> None:
    expect(isinstance(value, Tensor), f"{what} is a {type(value).__name__}, it must be a tensor")
    expect(tuple(value.shape) == tuple(shape), f"{what} has shape {tuple(value.shape)}, it must be {tuple(shape)}")


def expect_close(what: str, found: Tensor | float, wanted: Tensor | float, tolerance: float) -> None:
    """Every entry within `tolerance` x max(1, |wanted|); NaN is close to nothing, equal infinities are equal."""
    a, b = (torch.as_tensor(value, dtype=torch.float64).detach() for value in (found, wanted))
    apart = torch.where(a == b, 0.0, (a - b).abs())
    bad = ~(apart <= tolerance * b.abs().clamp(min=1.0, max=1e300))
    if bad.any():
        at = int(bad.flatten().nonzero()[0])
        one, other = a.expand_as(bad).flatten()[at].item(), b.expand_as(bad).flatten()[at].item()
        raise AssertionError(f"{what}: {one:.6g}, expected {other:.6g} (within {tolerance:.1g})")


def expect_equal(what: str, found: Tensor, wanted: Tensor) -> None:
    """Bit for bit."""
    if not torch.equal(found, wanted):
        worst = (found - wanted).abs().max().item() if found.shape == wanted.shape else "shape"
        raise AssertionError(f"{what} (largest difference: {worst})")


def expect_finite(what: str, value: Tensor) -> None:
    if not torch.isfinite(value).all():
        bad = value[~torch.isfinite(value)][0].item()
        raise AssertionError(f"{what} has the value {bad}, it must be finite")


# --- gradients -------------------------------------------------------------------------------------------------------


def gradients(value: Tensor, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """d sum(value) / d each input, by name; zeros where none comes."""
    if not value.requires_grad or not inputs:
        return {name: torch.zeros_like(one) for name, one in inputs.items()}
    found = torch.autograd.grad(value.sum(), list(inputs.values()), allow_unused=True, retain_graph=True)
    return {
        name: torch.zeros_like(one) if gradient is None else gradient
        for (name, one), gradient in zip(inputs.items(), found, strict=True)
    }
