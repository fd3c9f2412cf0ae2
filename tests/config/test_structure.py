"""Tables to a strict tree and back: what is accepted, and what every mistake is told."""

from __future__ import annotations

import tomllib
from typing import Literal

import attrs
import pytest

from jointgen.config.fields import EncoderField, MetricField, PenaltyField, PriorField, fraction, non_negative, positive
from jointgen.config.structure import structure, unstructure
from jointgen.config.toml import to_toml
from jointgen.errors import ConfigError
from jointgen.registry.components import Registrar, Registry

# --- a toy tree ------------------------------------------------------------------------------------------------------


@attrs.frozen
class Conv:
    width: int = attrs.field(validator=positive)
    kernel: int = 3
    strides: tuple[int, ...] = (2, 2)

    def __attrs_post_init__(self) -> None:
        if self.width % 2:
            raise ConfigError(f"must be even, got {self.width}", "width")
        if self.kernel % 2 == 0:
            raise ValueError(f"an even kernel ({self.kernel}) has no center")


@attrs.frozen
class MLP:
    hidden: int | list[int] = 64
    activation: Literal["relu", "gelu"] = "relu"
    dropout: float = attrs.field(default=0.0, validator=fraction)
    normalize: bool = False


@attrs.frozen
class Wrapper:
    inner: EncoderField
    branches: dict[str, EncoderField] = attrs.field(factory=dict)


@attrs.frozen
class Gradient:
    weight: float = attrs.field(default=10.0, validator=non_negative)


@attrs.frozen
class Gauss:
    scale: float = attrs.field(default=1.0, validator=attrs.validators.gt(0))


@attrs.frozen
class Decay:
    start: float
    steps: int = attrs.field(default=10, validator=[attrs.validators.ge(1), attrs.validators.lt(100)])


@attrs.frozen
class Train:
    steps: int = attrs.field(validator=positive)
    lr: float | Decay = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    seeds: tuple[int, ...] = attrs.field(default=(), validator=non_negative)
    precision: Literal["float32", "bfloat16"] | int = "float32"
    warm: int = attrs.field(default=0)

    @warm.validator
    def _shorter_than_the_run(self, attribute: attrs.Attribute, value: int) -> None:
        if value > self.steps:
            raise ValueError(f"'warm' must be at most the {self.steps} steps, got {value}")


@attrs.frozen
class Critic:
    network: EncoderField
    penalties: list[PenaltyField] = attrs.field(factory=list)


@attrs.frozen
class Toy:
    encoder: EncoderField
    train: Train
    format: Literal[1] = 1
    name: str = "toy"
    critics: dict[str, Critic] = attrs.field(factory=dict)
    prior: PriorField | None = None
    clip: float | None = None
    metrics: list[MetricField] = attrs.field(factory=list)


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    toys = Registrar(registry, "toys 1.0")
    toys.encoder("conv", Conv)
    toys.encoder("mlp", MLP)
    toys.encoder("wrapper", Wrapper)
    toys.encoder("broken", "no_such_module:Net")
    toys.penalty("gradient", Gradient)
    toys.prior("gauss", Gauss)
    return registry


GOOD = """
encoder = {type = "mlp"}
train = {steps = 10}
"""

# --- what is accepted ------------------------------------------------------------------------------------------------


def read(text: str, registry: Registry) -> Toy:
    return structure(tomllib.loads(text), Toy, registry)


def test_defaults_fill_what_is_not_written(registry: Registry) -> None:
    assert read(GOOD, registry) == Toy(encoder=MLP(), train=Train(steps=10))


FULL = """
format = 1
name = "full"
clip = 2
[encoder]
type = "wrapper"
inner = {type = "conv", width = 8, strides = [1, 2, 3]}
branches.left = {type = "mlp", hidden = [3, 4]}
branches."the right" = {type = "mlp", hidden = 5}
[train]
steps = 10
lr = {start = 1, steps = 3}
betas = [0, 0.5]
precision = 16
[prior]
type = "gauss"
scale = 2
[critics.f1]
network.type = "mlp"
penalties = [{type = "gradient"}, {type = "gradient", weight = 0}]
"""


def full() -> Toy:
    branches = {"left": MLP(hidden=[3, 4]), "the right": MLP(hidden=5)}
    return Toy(
        name="full",
        clip=2.0,
        encoder=Wrapper(inner=Conv(width=8, strides=(1, 2, 3)), branches=branches),
        train=Train(steps=10, lr=Decay(start=1.0, steps=3), betas=(0.0, 0.5), precision=16),
        prior=Gauss(scale=2.0),
        critics={"f1": Critic(network=MLP(), penalties=[Gradient(), Gradient(weight=0.0)])},
    )


def test_every_kind_of_field_is_read(registry: Registry) -> None:
    assert read(FULL, registry) == full()


def test_a_whole_number_stands_for_a_real_one_and_becomes_one(registry: Registry) -> None:
    assert type(read(FULL, registry).clip) is float


@pytest.mark.parametrize("text", [GOOD, FULL])
def test_a_tree_written_out_reads_back_equal(text: str, registry: Registry) -> None:
    tree = read(text, registry)
    assert read(to_toml(unstructure(tree, registry)), registry) == tree


def test_written_tables_name_components_first_and_leave_none_out(registry: Registry) -> None:
    tables = unstructure(Toy(encoder=Conv(width=2), train=Train(steps=1, lr=Decay(0.5))), registry)
    assert tables == {
        "encoder": {"type": "conv", "width": 2, "kernel": 3, "strides": [2, 2]},
        "train": {
            "steps": 1,
            "lr": {"start": 0.5, "steps": 10},
            "betas": [0.9, 0.999],
            "seeds": [],
            "precision": "float32",
            "warm": 0,
        },
        "format": 1,
        "name": "toy",
        "critics": {},
        "metrics": [],
    }
    assert next(iter(tables["encoder"])) == "type"


def test_a_class_that_is_not_registered_cannot_be_written(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="Gradient is not a registered encoder"):
        unstructure(Toy(encoder=Gradient(), train=Train(steps=1)), registry)


# --- what is refused -------------------------------------------------------------------------------------------------

ENCODERS = "broken, conv, mlp, wrapper"

BAD = {
    # shapes and scalars: nothing is coerced
    "text for a whole number": (
        'encoder.type = "mlp"\ntrain.steps = "10"',
        ["train.steps: expected a whole number, got '10'"],
    ),
    "real for a whole number": (
        'encoder.type = "mlp"\ntrain.steps = 1.9',
        ["train.steps: expected a whole number, got 1.9"],
    ),
    "boolean for a whole number": (
        'encoder.type = "mlp"\ntrain.steps = true',
        ["train.steps: expected a whole number, got true"],
    ),
    "text for a real number": (
        'encoder = {type = "mlp", dropout = "half"}\ntrain.steps = 1',
        ["encoder.dropout: expected a number, got 'half'"],
    ),
    "boolean for a real number": (
        'encoder = {type = "mlp", dropout = true}\ntrain.steps = 1',
        ["encoder.dropout: expected a number, got true"],
    ),
    "the word false is not false": (
        'encoder = {type = "mlp", normalize = "false"}\ntrain.steps = 1',
        ["encoder.normalize: expected true or false, got 'false'"],
    ),
    "zero is not false": (
        'encoder = {type = "mlp", normalize = 0}\ntrain.steps = 1',
        ["encoder.normalize: expected true or false, got 0"],
    ),
    "number for text": ("name = 3" + GOOD, ["name: expected a string, got 3"]),
    "nan": ("clip = nan" + GOOD, ["clip: expected a finite number, got nan"]),
    "infinity": ("clip = -inf" + GOOD, ["clip: expected a finite number, got -inf"]),
    "number for a table": ('encoder.type = "mlp"\ntrain = 3', ["train: expected a table, got 3"]),
    "list for a table": ('encoder.type = "mlp"\ntrain = [3]', ["train: expected a table, got [3]"]),
    "table for a number": (
        'encoder.type = "mlp"\ntrain.steps.n = 1',
        ["train.steps: expected a whole number, got a table"],
    ),
    "text for a list": (
        'encoder = {type = "conv", width = 2, strides = "12"}\ntrain.steps = 1',
        ["encoder.strides: expected a list, got '12'"],
    ),
    "wrong item of a list": (
        'encoder = {type = "conv", width = 2, strides = [1, "2", 3.5]}\ntrain.steps = 1',
        [
            "encoder.strides[1]: expected a whole number, got '2'",
            "encoder.strides[2]: expected a whole number, got 3.5",
        ],
    ),
    "short pair": (
        'encoder.type = "mlp"\ntrain = {steps = 1, betas = [0.5]}',
        ["train.betas: expected a list of 2, got [0.5]"],
    ),
    "wrong item of a pair": (
        'encoder.type = "mlp"\ntrain = {steps = 1, betas = ["a", 0.5]}',
        ["train.betas[0]: expected a number, got 'a'"],
    ),
    "table for a dict of tables": ("critics = 1" + GOOD, ["critics: expected a table, got 1"]),
    # unions
    "neither number nor list": (
        'encoder = {type = "mlp", hidden = "wide"}\ntrain.steps = 1',
        ["encoder.hidden: expected a whole number or a list, got 'wide'"],
    ),
    "wrong item in a union's list": (
        'encoder = {type = "mlp", hidden = [1, true]}\ntrain.steps = 1',
        ["encoder.hidden[1]: expected a whole number, got true"],
    ),
    "neither number nor table": (
        'encoder.type = "mlp"\ntrain = {steps = 1, lr = "fast"}',
        ["train.lr: expected a number or a table, got 'fast'"],
    ),
    "misspelt key in a union's table": (
        'encoder.type = "mlp"\ntrain = {steps = 1, lr = {strat = 1.0}}',
        [
            "train.lr.start: missing; a number",
            "train.lr.strat: unknown key; did you mean 'start'? (known: start, steps)",
        ],
    ),
    "misspelt choice in a union": (
        'encoder.type = "mlp"\ntrain = {steps = 1, precision = "bfloat"}',
        ["train.precision: 'bfloat' is not allowed; did you mean 'bfloat16'? (known: bfloat16, float32)"],
    ),
    # choices
    "misspelt choice": (
        'encoder = {type = "mlp", activation = "gleu"}\ntrain.steps = 1',
        ["encoder.activation: 'gleu' is not allowed; did you mean 'gelu'? (known: gelu, relu)"],
    ),
    "choice of another type": ("format = true" + GOOD, ["format: true is not allowed; known: 1"]),
    "unknown format": ("format = 2" + GOOD, ["format: 2 is not allowed; known: 1"]),
    # keys
    "misspelt key": (
        'encoder = {type = "mlp", droput = 0.1}\ntrain.steps = 1',
        [
            "encoder.droput: unknown key; did you mean 'dropout'? "
            "(known: activation, dropout, hidden, normalize, type)",
        ],
    ),
    "misspelt key at the top": (
        "nmae = 'x'" + GOOD,
        [
            "nmae: unknown key; did you mean 'name'? "
            "(known: clip, critics, encoder, format, metrics, name, prior, train)",
        ],
    ),
    "unknown key that needs quotes": (
        GOOD + '[critics."f 1"]\nnetwork.type = "mlp"\n"my key" = 1',
        ['critics."f 1"."my key": unknown key; known: network, penalties'],
    ),
    "missing keys": (
        "[train]",
        [
            f"encoder: missing; a table with a type (known: {ENCODERS})",
            "train.steps: missing; a whole number",
        ],
    ),
    # components
    "no type": ("encoder = {}\ntrain.steps = 1", [f"encoder.type: missing; known: {ENCODERS}"]),
    "type that is no text": (
        "encoder.type = 3\ntrain.steps = 1",
        [f"encoder.type: expected a string, got 3; known: {ENCODERS}"],
    ),
    "misspelt type": (
        'encoder.type = "cnov"\ntrain.steps = 1',
        [f"encoder.type: unknown encoder 'cnov'; did you mean 'conv'? (known: {ENCODERS})"],
    ),
    "type in capitals": (
        'encoder.type = "MLP"\ntrain.steps = 1',
        [f"encoder.type: unknown encoder 'MLP'; did you mean 'mlp'? (known: {ENCODERS})"],
    ),
    "nothing registered of a kind": (
        'metrics = [{type = "fid"}]' + GOOD,
        ["metrics[0].type: unknown metric 'fid'; none is known here"],
    ),
    "component that is no table": (
        'encoder = "mlp"\ntrain.steps = 1',
        [f"encoder: expected a table with a type (known: {ENCODERS}), got 'mlp'"],
    ),
    "optional component that is no table": (
        "prior = 1.5" + GOOD,
        ["prior: expected a table with a type (known: gauss), got 1.5"],
    ),
    "component that cannot be imported": (
        'encoder.type = "broken"\ntrain.steps = 1',
        [
            "encoder.type: encoder 'broken' of toys 1.0 cannot be loaded: "
            "ModuleNotFoundError: No module named 'no_such_module'",
        ],
    ),
    "deep in lists, dicts and components": (
        GOOD
        + '[critics.f1]\nnetwork.type = "mlp"\npenalties = [{type = "gradient"}, {weight = 1}, {type = "gradeint"}]',
        [
            "critics.f1.penalties[1].type: missing; known: gradient",
            "critics.f1.penalties[2].type: unknown penalty 'gradeint'; did you mean 'gradient'? (known: gradient)",
        ],
    ),
    "component within a component": (
        'train.steps = 1\n[encoder]\ntype = "wrapper"\ninner.type = "mlp"\nbranches.left = {type = "mlp", hiden = 1}',
        [
            "encoder.branches.left.hiden: unknown key; did you mean 'hidden'? "
            "(known: activation, dropout, hidden, normalize, type)",
        ],
    ),
    # values
    "not positive": ('encoder.type = "mlp"\ntrain.steps = -1', ["train.steps: must be > 0, got -1"]),
    "not a fraction": (
        'encoder = {type = "mlp", dropout = 1.5}\ntrain.steps = 1',
        ["encoder.dropout: must be between 0 and 1, got 1.5"],
    ),
    "an item of a list is negative": (
        'encoder.type = "mlp"\ntrain = {steps = 1, seeds = [0, -3]}',
        ["train.seeds: must be >= 0, got -3"],
    ),
    "in a list of components": (
        GOOD + '[critics.f1]\nnetwork.type = "mlp"\npenalties = [{type = "gradient", weight = -0.5}]',
        ["critics.f1.penalties[0].weight: must be >= 0, got -0.5"],
    ),
    "a validator of attrs": ("prior = {type = 'gauss', scale = 0}" + GOOD, ["prior.scale: must be > 0, got 0.0"]),
    "two validators of attrs": (
        'encoder.type = "mlp"\ntrain = {steps = 1, lr = {start = 1, steps = 100}}',
        ["train.lr.steps: must be < 100, got 100"],
    ),
    "a validator that looks at another field": (
        'encoder.type = "mlp"\ntrain = {steps = 5, warm = 6}',
        ["train.warm: must be at most the 5 steps, got 6"],
    ),
    "the class as a whole": (
        'encoder = {type = "conv", width = 2, kernel = 4}\ntrain.steps = 1',
        ["encoder: an even kernel (4) has no center"],
    ),
    "the class as a whole, naming a key": (
        'encoder = {type = "conv", width = 3}\ntrain.steps = 1',
        ["encoder.width: must be even, got 3"],
    ),
}


@pytest.mark.parametrize(("text", "problems"), BAD.values(), ids=BAD.keys())
def test_a_mistake_is_told_with_its_key_its_value_and_what_is_allowed(
    text: str, problems: list[str], registry: Registry
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text, registry)
    assert caught.value.lines == problems


def test_all_mistakes_are_told_at_once(registry: Registry) -> None:
    text = """
    nmae = "x"
    [encoder]
    type = "mlp"
    dropout = -1
    hidden = "wide"
    [train]
    steps = 0
    betas = [1, 2, 3]
    [critics.f1]
    network.type = "cnov"
    """
    with pytest.raises(ConfigError) as caught:
        read(text, registry)
    places = [problem.split(": ")[0] for problem in caught.value.lines]
    assert sorted(places) == [
        "critics.f1.network.type",
        "encoder.dropout",
        "encoder.hidden",
        "nmae",
        "train.betas",
        "train.steps",
    ]


def test_an_unknown_type_says_which_plugins_failed(registry: Registry) -> None:
    registry.failures.append("plugin 'nets' (more-nets 2.0) failed to load: ModuleNotFoundError: No module named 'jax'")
    with pytest.raises(ConfigError, match=r"'unet'.*; plugin 'nets' \(more-nets 2\.0\) failed to load: .*'jax'"):
        read('encoder.type = "unet"\ntrain.steps = 1', registry)


def test_a_bug_in_a_component_is_not_called_a_mistake_of_the_user(registry: Registry) -> None:
    @attrs.frozen
    class Buggy:
        def __attrs_post_init__(self) -> None:
            raise ZeroDivisionError("ours")

    Registrar(registry, "toys 1.0").encoder("buggy", Buggy)
    with pytest.raises(ZeroDivisionError, match="ours"):
        read('encoder.type = "buggy"\ntrain.steps = 1', registry)


@pytest.mark.parametrize("validator", [positive, non_negative, fraction])
def test_validators_pass_none_and_tables(validator) -> None:  # type: ignore[no-untyped-def]
    field = attrs.fields(Train).lr
    validator(None, field, None)
    validator(None, field, Decay(start=-1.0))


def test_a_validator_names_its_field_when_python_builds_the_class() -> None:
    with pytest.raises(ValueError, match="'steps' must be > 0, got -2"):
        Train(steps=-2)
