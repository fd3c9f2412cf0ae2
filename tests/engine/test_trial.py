"""What components return is tried on a few rows before a run: shapes, finite values, and who is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from jointgen_ali.objective import ALI
from jointgen_vae.objective import IWAE, VAE
from support.models import SmallModel, small_model
from support.networks import Readings
from torch import Tensor, nn

from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.recipe import read_recipe
from jointgen.engine.trial import try_parts, try_terms
from jointgen.errors import ComponentError, ConfigError
from jointgen.registry.components import Registrar, Registry
from jointgen.registry.discovery import load_plugins

FAMILY = "encoder.family: family 'gaussian' of jointgen {version}: "
NETWORK = "encoder.network: encoder 'mlp' of jointgen {version}: "
PRIOR = "prior: prior 'normal' of jointgen {version}: "


def version() -> str:
    return load_plugins().registry.get("family", "gaussian").provider.partition(" ")[2]


class Wrapped(nn.Module):
    """A module whose result is changed."""

    def __init__(self, inner: nn.Module, change: Callable[[Any], Any]):
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, *inputs: Any) -> Any:
        return self.change(self.inner(*inputs))


class Law:
    """A distribution with another log_prob or other draws."""

    def __init__(self, inner: Any, log_prob: Any = lambda found: found, sample: Any = lambda found: found):
        self.inner, self.change, self.sample = inner, log_prob, sample

    def draw(self, noise: Any) -> Any:
        draw = self.inner.draw(noise)
        return Readings({name: self.sample(draw.read(name)) for name in ("sample", "mean")})

    def log_prob(self, value: Tensor) -> Any:
        return self.change(self.inner.log_prob(value))


def with_law(**change: Any) -> Callable[[SmallModel], None]:
    def replace(model: SmallModel) -> None:
        encoder = model.parts.modules["encoder"]
        encoder.family = Wrapped(encoder.family, lambda law: Law(law, **change))

    return replace


def with_network(change: Callable[[Tensor], Any]) -> Callable[[SmallModel], None]:
    def replace(model: SmallModel) -> None:
        encoder = model.parts.modules["encoder"]
        encoder.trunk = Wrapped(encoder.trunk, change)

    return replace


def with_prior(model: SmallModel) -> None:
    model.parts.modules["prior"] = Wrapped(
        model.parts.modules["prior"], lambda law: Law(law, sample=lambda z: z[:, :1])
    )


def divide(found: Any) -> Any:
    raise ZeroDivisionError("division by zero")


def leave(found: Any) -> Any:
    raise SystemExit(0)


SHAPES: dict[str, tuple[Callable[[SmallModel], None], str]] = {
    "a log_prob summed over the batch": (
        with_law(log_prob=lambda found: found.sum()),
        FAMILY + "the log_prob of a draw of its own has shape () for 3 rows, it must be (3,)",
    ),
    "a log_prob for each dimension": (
        with_law(log_prob=lambda found: found[:, None].expand(-1, 2)),
        FAMILY + "the log_prob of a draw of its own has shape (3, 2) for 3 rows, it must be (3,)",
    ),
    "samples without their last axis": (
        with_law(sample=lambda found: found[:, 0]),
        FAMILY + "the reading 'sample' of a draw has shape (3,) for 3 rows, it must be (3, 2)",
    ),
    "a network's output of another size": (
        with_network(lambda found: found[:, :3]),
        NETWORK + "its output has shape (3, 3) for 3 rows, it must be (3, 4)",
    ),
    "a network's output that is no tensor": (
        with_network(lambda found: (found, found)),
        NETWORK + "its output is a tuple, it must be a tensor",
    ),
    "a prior's draws": (
        with_prior,
        PRIOR + "the reading 'sample' of a draw has shape (3, 1) for 3 rows, it must be (3, 2)",
    ),
    "a network's output that is NaN": (
        with_network(lambda found: found / 0 * 0),
        NETWORK + "its output is NaN in 3 of 3 rows that are made up to try it",
    ),
    "a network that ends the process": (
        with_network(leave),
        NETWORK.removesuffix(": ") + " raises SystemExit: 0",
    ),
    "a network that raises": (
        with_network(divide),
        NETWORK.removesuffix(": ") + " raises ZeroDivisionError: division by zero",
    ),
}


@pytest.mark.parametrize("fault", SHAPES)
def test_a_part_that_returns_something_else_than_it_must_is_named(fault: str) -> None:
    replace, told = SHAPES[fault]
    model = small_model(VAE().objective())
    replace(model)
    with pytest.raises(ComponentError) as caught:
        try_parts(model.compiled)
    assert str(caught.value) == told.format(version=version())


def test_every_part_at_fault_is_named_at_once_and_none_is_changed() -> None:
    model = small_model(ALI().objective())
    with_network(lambda found: found[:, :3])(model)
    model.parts.modules["f"] = Wrapped(model.parts.modules["f"], lambda found: found[:, None])
    before = {name: value.clone() for name, value in model.parts.modules.state_dict().items()}
    with pytest.raises(ComponentError) as caught:
        try_parts(model.compiled)
    assert str(caught.value).splitlines() == [
        NETWORK.format(version=version()) + "its output has shape (3, 3) for 3 rows, it must be (3, 4)",
        f"discriminator: discriminator 'mlp' of jointgen {version()}: "
        "the output of critic 'f' has shape (3, 1) for 3 rows, it must be (3,)",
    ]
    assert model.parts.modules.training
    assert all(torch.equal(before[name], value) for name, value in model.parts.modules.state_dict().items())


def test_parts_that_keep_their_promises_pass() -> None:
    for objective in (VAE().objective(), ALI().objective(), IWAE(k=3).objective()):
        model = small_model(objective)
        try_parts(model.compiled)
        try_terms(model.plan, model.parts, model.compiled.binding, model.data(4), 4)


# --- terms, on rows of the data --------------------------------------------------------------------------------------


FINITE: dict[str, tuple[Callable[[SmallModel], None], str]] = {
    "a family": (
        with_law(log_prob=lambda found: found * torch.nan),
        r"^encoder\.family: family 'gaussian' of jointgen \S+: log encoder\(q\.x\) at q\(z\|x\)\.z is NaN in 4 of 4 "
        r"rows at the start, though all that it is computed from is finite$",
    ),
    "a network": (
        with_network(lambda found: found / 0),
        r"^encoder\.network: encoder 'mlp' of jointgen \S+: the output of encoder\(q\.x\) is \w+ in 4 of 4 rows at the "
        r"start, though all that it is computed from is finite$",
    ),
}


@pytest.mark.parametrize("fault", FINITE)
def test_what_is_not_finite_first_is_named(fault: str) -> None:
    replace, told = FINITE[fault]
    model = small_model(VAE().objective())
    replace(model)
    with pytest.raises(ComponentError) as caught:
        try_terms(model.plan, model.parts, model.compiled.binding, model.data(4), 4)
    assert re.search(told, str(caught.value)), str(caught.value)


def test_data_that_are_not_finite_are_named_and_not_the_networks() -> None:
    model = small_model(VAE().objective())
    data = model.data(4)
    data["data"]["x"][1, 0] = torch.nan
    with pytest.raises(
        ComponentError, match=r"^data: data 'ring' of jointgen \S+: q\(x\)\.x is NaN in 1 of 4 rows of the"
    ):
        try_terms(model.plan, model.parts, model.compiled.binding, data, 4)


# --- components that are built ---------------------------------------------------------------------------------------


@attrs.frozen
class NoBuild:
    """Has no method `build`."""


@attrs.frozen
class NoModule:
    def build(self, inputs: Any, output: Any) -> Any:
        return None


@attrs.frozen
class TooLarge:
    def build(self, inputs: Any, output: Any) -> Any:
        return nn.ParameterList([torch.Tensor(2**50)])  # torch's old constructor, which no limit sees


@attrs.frozen
class NoCapabilities:
    def capabilities(self, space: Any) -> Any:
        return {"sample": "exact"}


BUILT = {
    "no build": ("encoder", "network", NoBuild, "raises AttributeError: 'NoBuild' object has no attribute 'build'"),
    "no module": ("encoder", "network", NoModule, "build() gives a NoneType, it must be a torch.nn.Module"),
    "no capabilities": ("family", "family", NoCapabilities, "capabilities() gives a dict, it must be Capabilities"),
}


def compile_bad(kind: str, key: str, cls: type) -> None:
    registry = Registry()
    registry.update(load_plugins().registry)
    getattr(Registrar(registry, "bad-parts 0.1"), kind)("bad", cls)
    encoder = {"network": {"type": "mlp"}, "family": {"type": "gaussian"}} | {key: {"type": "bad"}}
    tables = {
        "data": {"type": "ring", "rows": 64},
        "prior": {"type": "normal", "size": 2},
        "encoder": encoder,
        "decoder": {"network": {"type": "mlp"}, "family": {"type": "gaussian"}},
        "objective": {"type": "vae"},
        "train": {"steps": 1, "batch": 8},
    }
    compile_recipe(read_recipe(tables, registry=registry), registry)


@pytest.mark.parametrize("fault", BUILT)
def test_a_component_that_cannot_be_built_is_named_with_its_package(fault: str) -> None:
    kind, key, cls, told = BUILT[fault]
    with pytest.raises(ComponentError) as caught:
        compile_bad(kind, key, cls)
    assert str(caught.value).startswith(f"encoder.{key}: {kind} 'bad' of bad-parts 0.1")
    assert str(caught.value).endswith(told)


def test_a_component_that_the_allocator_refuses_is_told_by_its_key() -> None:
    with pytest.raises(ConfigError) as caught:
        compile_bad("encoder", "network", TooLarge)
    (line,) = caught.value.lines
    assert line.startswith("encoder.network: takes more memory than this machine gives: RuntimeError: ")
