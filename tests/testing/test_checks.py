"""What checks are made of a component: by its kind, its variable, and what it serves."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from support.checks import failures
from torch import Tensor, nn

from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.distributions import sum_event
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.registry.components import KINDS
from jointgen.testing import Check, checks

BITS = Space((2,), kind="binary", bins=2)


class BitsLaw:
    def __init__(self, logits: Tensor, grey: bool):
        self.logits, self.grey = logits, grey

    def draw(self, noise: Any) -> Any:
        u = noise.uniform(*self.logits.shape[1:])
        probability = torch.sigmoid(self.logits)
        values = {"sample": probability if self.grey else (u < probability).to(u.dtype), "mean": probability}
        return type("Bits", (), {"read": staticmethod(values.__getitem__)})

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_event(value * self.logits - nn.functional.softplus(self.logits))


class BitsModule(nn.Module):
    def __init__(self, grey: bool):
        super().__init__()
        self.grey = grey

    def forward(self, params: Tensor) -> BitsLaw:
        return BitsLaw(params, self.grey)

    def view(self, reading: str, draw: Any, noise: Any) -> Tensor:
        return draw.read("mean").sum(1)


@attrs.frozen
class Bits:
    grey: bool = False

    def capabilities(self, space: Space) -> Capabilities:
        paths: Any = {"sample": "none", "mean": "exact"}
        return Capabilities({**paths, "relaxed": "exact"} if self.grey else paths)

    def outputs(self, space: Space) -> tuple[int, ...]:
        return space.shape

    def build(self, space: Space) -> BitsModule:
        return BitsModule(self.grey)


def test_bits_are_summed_over_all_patterns_and_must_be_bits() -> None:
    assert failures("family", Bits(), spaces=[BITS]) == {}
    found = failures("family", Bits(grey=True), spaces=[BITS])
    assert "draws of a binary variable have the values" in found["draws lie in the space"]
    assert "view('relaxed') of 5 rows of data has shape (5,)" in found["views of data match the readings"]


def test_a_component_that_serves_nothing_is_one_case_that_fails() -> None:
    def refuse(self: Any, space: Space) -> Capabilities:
        raise ConfigError("never", "type")

    cls: Any = attrs.frozen(type("Never", (), {"capabilities": refuse, "__annotations__": {}}))
    (check,) = checks("family", cls())
    with pytest.raises(AssertionError, match=r"Never\(\) serves none of the Spaces tried"):
        check()


@attrs.frozen
class Empty:
    """A component that has none of the methods of its kind."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_component_without_its_methods_is_a_check_that_fails(kind: str) -> None:
    reasons = ("raises AttributeError: ", "raises TypeError: ", "it takes neither one value, nor two, nor three")
    told = failures(kind, Empty())
    assert told
    assert all(line.startswith("Empty()") and any(reason in line for reason in reasons) for line in told.values()), told


def test_a_network_that_builds_no_module_is_a_check_that_fails() -> None:
    config = attrs.frozen(type("Nothing", (), {"build": lambda self, inputs, output: None, "__annotations__": {}}))
    (told,) = failures("encoder", config()).values()
    assert told == "Nothing(): serves something: build() returns a NoneType, it must be an nn.Module"


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown kind of component 'famly'; did you mean 'family'"):
        checks("famly", Bits())


def test_a_check_is_named_by_its_component_and_promise() -> None:
    (check,) = [c for c in checks("family", Bits(), spaces=[BITS]) if c.promise == "capabilities are true"]
    assert isinstance(check, Check) and str(check) == "Bits() on 2 binary, 2 levels: capabilities are true"
