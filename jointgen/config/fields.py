"""Markers by which a class says what its recipe table may hold: fields that are components, and validators of numbers.

The annotation of a field says which kind of component its table describes:

>>> @attrs.frozen
... class EncoderTable:
...     network: EncoderField
...     width: int = attrs.field(default=8, validator=positive)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import attrs

from jointgen.config.values import show
from jointgen.errors import ConfigError
from jointgen.registry.components import Component, Registry


@attrs.frozen
class OfKind:
    """A marker of fields whose table is a registered component of one kind, chosen by the table's key ``type``.

    Args:
        kind: The kind.
        as_text: Whether text may stand for the table: "iwae" or "iwae{k=1000}".
        around: A class whose keys the table of any component of the kind may hold beside the component's own; it holds
            the component as `component`. The component stands alone where its table has none of them.
        default: The type of a table that has none; empty where it must have one.
    """

    kind: str
    as_text: bool = False
    around: type | None = None
    default: str = ""

    def keys_around(self, cls: type) -> set[str]:
        """Return the keys that a table may hold beside those of a component of this class."""
        if self.around is None:
            return set()
        own = {field.name for field in attrs.fields(cls)}
        return {field.name for field in attrs.fields(self.around)} - own - {"component"}

    def names(self, registry: Registry) -> list[str]:
        """Return the types that may be chosen."""
        return registry.names(self.kind)

    def find(self, table: Mapping[str, Any], registry: Registry) -> type:
        """Return the class that a table chooses by its type, or raise a ConfigError."""
        return self.component(table, registry).load()

    def component(self, table: Mapping[str, Any], registry: Registry) -> Component:
        """Return the component that a table chooses by its type, without importing it, or raise a ConfigError."""
        if "type" not in table and not self.default:
            raise ConfigError(f"missing; known: {', '.join(self.names(registry)) or 'none'}")
        return registry.get(self.kind, table.get("type", self.default))

    def name_of(self, cls: type, registry: Registry) -> str:
        """Return the type that chooses a class."""
        return registry.name_of(self.kind, cls)


DEFAULT_OPTIMIZER = "adam"
"""The type of an optimizer's table that names none."""

EncoderField = Annotated[Any, OfKind("encoder")]
DecoderField = Annotated[Any, OfKind("decoder")]
FamilyField = Annotated[Any, OfKind("family")]
PriorField = Annotated[Any, OfKind("prior")]
DiscriminatorField = Annotated[Any, OfKind("discriminator")]
ObjectiveField = Annotated[Any, OfKind("objective")]
CriticLossField = Annotated[Any, OfKind("critic_loss")]
PenaltyField = Annotated[Any, OfKind("penalty")]
ConstraintField = Annotated[Any, OfKind("constraint")]
TermField = Annotated[Any, OfKind("term")]
EstimatorField = Annotated[Any, OfKind("estimator")]
ReductionField = Annotated[Any, OfKind("reduction")]
DivergenceField = Annotated[Any, OfKind("divergence")]
MetricField = Annotated[Any, OfKind("metric", as_text=True)]
ExtractorField = Annotated[Any, OfKind("extractor")]
OptimizerField = Annotated[Any, OfKind("optimizer", default=DEFAULT_OPTIMIZER)]
ScheduleField = Annotated[Any, OfKind("schedule")]
TrackerField = Annotated[Any, OfKind("tracker")]
AugmentationField = Annotated[Any, OfKind("augmentation")]


# --- validators of numbers -------------------------------------------------------------------------------------------
#
# Each takes a number, or every number in a list, and lets other values (None, a table) pass. A bound from above says
# what no machine could hold or no run could live to see, not what is wise.

MAX_SIZE = 1 << 24
"""The largest size of one axis: units of a layer, numbers of a code, rows of a batch."""
MAX_LAYERS = 1_000
"""So many layers a network has, at the most."""
MAX_COUNT = 10**9
"""So often a run does anything, and so many rows it takes, at the most."""
MAX_SIDE = 16_384
"""The largest side of an image in pixels: 805 MB each in colour."""
MAX_WORKERS = 1_024
"""So many threads or processes of one machine work at once, at the most."""

Validator = Callable[[Any, Any, Any], None]


def _require(holds: Callable[[float], bool], allowed: str) -> Validator:
    def validator(instance: Any, attribute: Any, value: Any) -> None:
        for number in value if isinstance(value, list | tuple) else (value,):
            if isinstance(number, int | float) and not (abs(number) < math.inf and holds(number)):
                raise ValueError(f"{attribute.name!r} must be {allowed}, got {number}")

    validator.__doc__ = f"A number, or every number in a list, must be {allowed}. Other values (None, a table) pass."
    return validator


positive = _require(lambda value: value > 0, "> 0")
non_negative = _require(lambda value: value >= 0, ">= 0")
fraction = _require(lambda value: 0 <= value <= 1, "between 0 and 1")
below_one = _require(lambda value: 0 <= value < 1, ">= 0 and < 1")
valid_share = _require(lambda value: 0 < value < 1, "> 0 and < 1")


def between(low: float, high: float) -> Validator:
    """A number, or every number in a list, must be in [low, high]."""
    at_least, at_most = (f"{bound:,}" if isinstance(bound, int) else f"{bound:g}" for bound in (low, high))
    bounds = [
        _require(lambda value: value >= low, f">= {at_least}"),
        _require(lambda value: value <= high, f"<= {at_most}"),
    ]
    return attrs.validators.and_(*bounds)


valid_size = between(1, MAX_SIZE)
valid_size_or_none = between(0, MAX_SIZE)
valid_count = between(1, MAX_COUNT)
valid_depth = between(1, MAX_LAYERS)
valid_seed = between(0, 2**63 - 1)
valid_side = between(1, MAX_SIDE)
valid_log_scale = between(-40.0, 40.0)


def valid_layers(instance: Any, attribute: Any, value: list[int]) -> None:
    """A list of the sizes of a network's layers."""
    if len(value) > MAX_LAYERS:
        raise ValueError(f"{attribute.name!r} must have at most {MAX_LAYERS:,} layers, got {len(value):,}")
    valid_size(instance, attribute, value)


def valid_shape(instance: Any, attribute: Any, value: int | list[int] | None) -> None:
    """A size, or a list of such: the shape of a variable, which has no more numbers than an axis may. None passes."""
    if value is None:
        return
    sizes = [value] if isinstance(value, int) else value
    if not sizes or any(one < 1 for one in sizes):
        raise ValueError(f"{attribute.name!r} must be a size >= 1 or a list of such, got {show(value)}")
    if math.prod(sizes) > MAX_SIZE:
        raise ValueError(f"{attribute.name!r} must have at most {MAX_SIZE:,} numbers, got {show(value)}")


# --- data sources ----------------------------------------------------------------------------------------------------


@attrs.frozen
class SampledSource:
    """A data source of which a run takes some training rows, or so many of them in a step: `Recipe.sampling` of it.

    Args:
        component: The data source.
        rows: How many of its training rows are used, chosen once; None: all.
        balanced: Whether the chosen rows have as many of each class.
        validation: How many of its training rows are held out of training as the split "validation".
        seed: Another choice of both for each seed.
        batch: How many rows of it a step takes; None: `train.batch`.
        augment: Random changes of the images of its training rows, one after the other, in each step anew.
    """

    component: Any = None
    rows: int | None = attrs.field(default=None, validator=valid_count)
    balanced: bool = False
    validation: int | None = attrs.field(default=None, validator=valid_count)
    seed: int = attrs.field(default=0, validator=valid_seed)
    batch: int | None = attrs.field(default=None, validator=valid_size)
    augment: list[AugmentationField] | None = None

    def __attrs_post_init__(self) -> None:
        if self.rows is None and self.balanced:
            raise ConfigError("says how rows are chosen; give rows, how many", "balanced")
        if self.rows is None and self.validation is None and self.seed:
            raise ConfigError("says how rows are chosen; give rows or validation, how many", "seed")


DataField = Annotated[Any, OfKind("data", around=SampledSource)]
