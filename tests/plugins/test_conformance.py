"""Everything registered keeps the promises of its kind (jointgen.testing).

Components come from `load_plugins()`, so one that is newly registered is covered without being named here, with its
default settings. One that has keys without defaults, or whose other settings deserve the same, stands in a table below.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from jointgen_nets.mlp import MLP, MLPDiscriminator
from support.checks import failures

from jointgen.objectives import WeightTable
from jointgen.registry.components import KINDS, Component
from jointgen.registry.discovery import load_plugins
from jointgen.testing.check import described

torch.set_num_threads(1)

SETTINGS: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("family", "bernoulli"): [{"path": "none"}],
    ("family", "categorical"): [{"path": "none", "temperature": 1.0}],
    ("family", "coupling"): [
        {"transform": "spline", "context": 0, "hidden": [4], "length": 2}
    ],  # few bends: grids are coarse
    ("family", "discretized_logistic"): [{"scale": "global"}, {"scale": "per_channel"}, {"scale": "fixed"}],
    ("family", "gaussian"): [
        {"scale": "global"},
        {"scale": "per_channel"},
        {"scale": "fixed", "init_scale": 0.3},
        *({"scale": scale, "mean": "sigmoid"} for scale in ("per_element", "global", "per_channel", "fixed")),
    ],
    ("family", "iaf"): [{"hidden": [6, 5], "context": 0}],
    ("family", "implicit"): [{"noise": 0}, {"noise": 0, "mean": "sigmoid"}],
    ("family", "implicit_basis"): [{"covariance": "diagonal", "basis": 4}],
    ("family", "laplace"): [
        {"scale": "global"},
        {"scale": "per_channel"},
        {"scale": "fixed"},
        {"scale": "global", "mean": "sigmoid"},
    ],
    ("family", "logistic_mixture"): [{"components": 2}, {"components": 3, "coupling": False}],
    ("family", "mixture"): [{"components": 3}, {"components": 3, "mean": "sigmoid", "init_scale": 0.2}],
    ("family", "radial"): [{"amortized": False}],
    ("prior", "categorical"): [{"probabilities": "learned"}],
    ("encoder", "conv"): [{"norm": "group", "widths": [4, 8]}],
    ("decoder", "conv"): [{"norm": "group", "upsample": "transposed", "widths": [8, 4]}],
    ("discriminator", "mlp"): [{"spectral_norm": True}],
    ("penalty", "r1"): [{"at": "both"}],
    ("constraint", "clip"): [{"bound": 0.5}],
    ("optimizer", "sgd"): [{"momentum": 0.9, "nesterov": True}],
    ("optimizer", "rmsprop"): [{"momentum": 0.5, "centered": True}],
    ("optimizer", "muon"): [{"scale": "original"}],
    ("schedule", "cosine"): [{"cycles": 3}],
    ("schedule", "steps"): [{"at": (0.25,), "factor": 0.5}],
    ("augmentation", "translation"): [{"fill": "edge", "share": 0.3}],
    ("augmentation", "torchvision"): [
        {"transform": "RandomAffine", "arguments": {"degrees": 20, "translate": (0.1, 0.1)}},
        {"transform": "ColorJitter", "arguments": {"brightness": 0.5}},
    ],
    ("objective", "vae"): [{"beta": 0.5, "warm_up": 0.2}, {"analytic": True}],
    ("objective", "iwae"): [{"beta": WeightTable(to=1.0, start=0.0, over=0.5)}],
    ("objective", "asvae"): [
        {"form": "literal"},
        {"vae_first": 0.5},
        {"weight_g": WeightTable(to=1.0, start=0.0, over=0.5, cycles=2)},
        {"ratio": "d", "gamma": 10.0},
    ],
    ("data", "digits"): [{"labels": True}, {"observe": "binarise"}],
    ("data", "ring"): [{"labels": True}],
    ("data", "table"): [{"bundled": "iris"}, {"standardise": False}],
}
"""Further settings that are checked as well as the defaults."""

REQUIRED: dict[tuple[str, str], dict[str, Any]] = {
    ("encoder", "switch"): {"on": "y", "of": MLP(hidden=[4])},
    ("decoder", "switch"): {"on": "y", "of": MLP(hidden=[4])},
    ("discriminator", "switch"): {"on": "y", "of": MLPDiscriminator(hidden=[4])},
    ("data", "table"): {"bundled": "wine"},
    ("discriminator", "augmented"): {"of": MLPDiscriminator(hidden=[4])},
    ("data", "linear_gaussian"): {"weights": [[1.0, 0.0], [0.5, 1.0], [0.0, -1.0]]},
    ("family", "implicit_basis"): {"basis": 4},
    ("family", "planar"): {"length": 5},  # a point is found through all layers, again for every entry of a Jacobian
    ("family", "ladder"): {"through": "down"},
    ("family", "vq"): {"dim": 2, "codes": 5},
    ("objective", "expression"): {"maximize": "E[q(x,z)](log p(x|z) + log p(z) - log q(z|x))"},
    ("metric", "ais"): {"steps": 3, "chains": 2, "leapfrog": 2},
    ("metric", "bdmc"): {"steps": 3, "chains": 2, "leapfrog": 2},
    ("metric", "fid"): {"samples": 100},
    ("metric", "is"): {"samples": 100},
    ("metric", "kid"): {"samples": 100},
    ("metric", "prdc"): {"samples": 100},
}
"""Keys without defaults, and such whose defaults take minutes."""

ELSEWHERE = {
    ("family", "torch"): "tests/plugins/test_library_families.py, a distribution at a time",
    ("family", "zuko"): "tests/plugins/test_library_families.py, a flow at a time",
    ("prior", "codebook"): "tests/systems/test_vq.py; it needs an encoder with a codebook",
    ("prior", "particles"): "tests/systems/test_particles.py; drawn in turn, so that a row depends on where it stands",
    ("data", "mnist"): "tests/plugins/test_data_sources.py, on the files beside the checkout",
    ("data", "cifar10"): "tests/plugins/test_data_sources.py, on the files beside the checkout",
    ("data", "fashion_mnist"): "tests/plugins/test_torchvision_sets.py, on small files of its form",
    ("data", "kmnist"): "tests/plugins/test_torchvision_sets.py, on small files of its form",
    ("data", "svhn"): "tests/plugins/test_torchvision_sets.py, on small files of its form",
    ("data", "celeba"): "tests/plugins/test_torchvision_sets.py, on small files of its form",
    ("data", "image_folder"): "tests/plugins/test_data_sources.py",
    ("data", "in_python"): "tests/plugins/test_given.py",
    ("data", "arrays"): "tests/plugins/test_data_sources.py",
    ("data", "huggingface"): "tests/plugins/test_huggingface.py",
    ("data", "prepared"): "tests/plugins/test_prepared.py",
}
"""Components that read files: where they are tested."""

UNKEPT: list[tuple[str, str, dict[str, Any], set[str]]] = [
    # soft draws, scored as the bits that they round to
    (
        "family",
        "bernoulli",
        {"path": "relaxed"},
        {"draws lie in the space", "expectations under draws are those under the density"},
    ),
    # soft draws, scored as the label that they round to
    (
        "family",
        "categorical",
        {"path": "relaxed"},
        {"draws lie in the space", "expectations under draws are those under the density"},
    ),
    # mass beyond the range is lost by the density, and put into the bins at the edges by draws
    (
        "family",
        "discretized_logistic",
        {"edges": "bounded", "init_scale": 0.1, "mean": "sigmoid"},
        {
            "density integrates to one",
            "draws have the distribution function of the density",
            "expectations under draws are those under the density",
        },
    ),
    # the weight of the one component is 1 whatever the trunk puts out
    ("family", "mixture", {"components": 1}, {"gradients reach every parameter and every output of the trunk"}),
]
"""Settings that say of themselves which promises they do not keep; they keep all others."""

COMPONENTS = load_plugins().registry.components()


def configs_of(component: Component) -> list[Any]:
    """None where it has keys without defaults that no table gives."""
    cls: Any = component.load()
    key = (component.kind, component.name)
    try:
        return [cls(**{**REQUIRED.get(key, {}), **settings}) for settings in [{}, *SETTINGS.get(key, [])]]
    except TypeError:
        return []


CONFIGS = {(one.kind, one.name): configs_of(one) for one in COMPONENTS if (one.kind, one.name) not in ELSEWHERE}
CASES = [(kind, config) for (kind, _), configs in CONFIGS.items() for config in configs]


@pytest.mark.parametrize(("kind", "config"), CASES, ids=[f"{kind} {described(config)}" for kind, config in CASES])
def test_it_keeps_its_promises(kind: str, config: Any) -> None:
    assert failures(kind, config) == {}


@pytest.mark.parametrize(("kind", "name", "settings", "unkept"), UNKEPT, ids=[one[1] for one in UNKEPT])
def test_a_setting_breaks_no_promise_but_those_named(
    kind: str, name: str, settings: dict[str, Any], unkept: set[str]
) -> None:
    config = load_plugins().registry.get(kind, name).load()(**settings)
    assert {*failures(kind, config)} == unkept


@pytest.mark.parametrize("component", CONFIGS, ids=" ".join)
def test_nothing_is_forgotten(component: tuple[str, str]) -> None:
    assert CONFIGS[component], "it has keys without defaults: give them in REQUIRED, or in ELSEWHERE its tests"


def test_every_kind_is_checked_and_every_table_names_what_there_is() -> None:
    registered = {(one.kind, one.name) for one in COMPONENTS}
    assert {kind for kind, _ in registered} == set(KINDS)
    unkept = {(kind, name) for kind, name, _, _ in UNKEPT}
    assert {*SETTINGS, *REQUIRED, *ELSEWHERE, *unkept} <= registered
    assert load_plugins().failed == []
