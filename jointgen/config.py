"""Recipes as data: TOML plus overrides to a strict attrs tree, and back. Torch-free.

A field that holds a registered component is annotated with one of the markers below; its table names the
component by ``type`` and everything else in the table is a field of that component.
"""

from __future__ import annotations

from typing import Annotated, Any

import attrs


@attrs.frozen
class OfKind:
    """Marks a field whose table is a component of this registry kind, chosen by its ``type`` key."""

    kind: str


EncoderField = Annotated[Any, OfKind("encoder")]
DecoderField = Annotated[Any, OfKind("decoder")]
FamilyField = Annotated[Any, OfKind("family")]
PriorField = Annotated[Any, OfKind("prior")]
DiscriminatorField = Annotated[Any, OfKind("discriminator")]
ObjectiveField = Annotated[Any, OfKind("objective")]
CriticLossField = Annotated[Any, OfKind("critic_loss")]
PenaltyField = Annotated[Any, OfKind("penalty")]
DataField = Annotated[Any, OfKind("data")]
MetricField = Annotated[Any, OfKind("metric")]
