"""What networks see outside of a plan: the values of variables, or the features of other networks at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from jointgen.compiler.parts import Parts, chosen_features
from jointgen.errors import ConfigError
from jointgen.objectives.expressions import Ratio, Standardized
from jointgen.objectives.values import Argument, Features, StoppedValue, Value

Known = Mapping[str, Tensor]
"""The values of variables, (B, *shape) each."""


def inputs_of(parts: Parts, part: str, given: Sequence[str], known: Known) -> list[Tensor]:
    """Return what the network of a conditional sees.

    Args:
        parts: The built parts.
        part: That of the conditional.
        given: The variables that its network sees where the recipe names no other `input`.
        known: The values of variables.
    """
    seen = parts.inputs.get(part, ())
    return [seen_value(parts, value, known) for value in seen] or [known[variable] for variable in given]


def seen_value(parts: Parts, value: Argument, known: Known) -> Tensor:
    """Return a value that a network sees, (B, ...): a variable, or the features of a network at values.

    Raises:
        ConfigError: A network has no such layer, or a critic sees a variable in a way that needs a plan.
    """
    if isinstance(value, StoppedValue):
        return seen_value(parts, value.value, known)
    if isinstance(value, Value):
        return known[value.variable]
    assert isinstance(value, Features), value
    module: Any = parts.modules[value.part]
    given = {**known, **{variable: seen_value(parts, one, known) for variable, one in value.at}}
    if value.ratio is None:
        seen = inputs_of(parts, value.part, value.given, given)
    else:
        seen = [_seen_by_critic(parts, value.ratio, variable, given) for variable in value.ratio.variables]
    return chosen_features(getattr(module, "trunk", module).features(*seen), value.layer)


def _seen_by_critic(parts: Parts, ratio: Ratio, variable: str, known: Known) -> Tensor:
    view = ratio.reading(variable)
    if isinstance(view, Standardized):
        raise ConfigError(f"{ratio.name} sees {variable!r} as {view}, so its features are no input of a network")
    return known[variable] if isinstance(view, str) else seen_value(parts, view, known)
