"""How gradients travel in a plan's graph: which parts' parameters they reach, and by which way. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import attrs

from jointgen.compiler.nodes import Critic, Forward, Moments, Node, PriorLaw, Read, Root, Sample, View

GradientPaths = Mapping[str, frozenset[str]]
"""part -> how a gradient reaches its parameters: "explicit", "samples" or both. Absent: not at all."""


@attrs.frozen
class PartTraits:
    """What lowering must know of a part. paths: reading -> how its gradient reaches the parameters.

    any_path: as if every reading had one, to find what an objective would train if the families could.
    through: the conditionals that a prior is made of, besides its own parameters.
    """

    kind: Literal["data", "prior", "conditional", "critic"]
    paths: Mapping[str, str] = attrs.field(factory=dict)
    noise_input: int = 0
    trainable: bool = True
    any_path: bool = False
    through: tuple[str, ...] = ()

    def has_path(self, reading: str) -> bool:
        return self.any_path or self.paths.get(reading, "none") != "none"


def gradient_paths(node: Node, traits: Mapping[str, PartTraits]) -> GradientPaths:
    """Which parameters a gradient of this node's value reaches, and how."""
    if isinstance(node, View | Moments):
        return {}
    if isinstance(node, Root | PriorLaw):
        held = node.is_data if isinstance(node, Root) else node.mode == "held"
        live = () if held else (node.part, *node.through)
        return {part: frozenset({"explicit"}) for part in live if traits[part].trainable}
    if isinstance(node, Read):
        return {} if node.stop or not _has_path(node, traits) else _as_samples(gradient_paths(node.source, traits))
    below = merge_paths(gradient_paths(parent, traits) for parent in node.parents)
    if isinstance(node, Forward | Critic) and getattr(node, "mode", "live") == "live":
        return merge_paths([below, {node.part: frozenset({"explicit"})}])
    return below


def _has_path(read: Read, traits: Mapping[str, PartTraits]) -> bool:
    if isinstance(read.source, Sample):
        return traits[read.source.forward.part].has_path(read.reading)
    return isinstance(read.source, View) or read.source.is_data or traits[read.source.part].has_path(read.reading)


def _as_samples(found: GradientPaths) -> GradientPaths:
    return {part: frozenset({"samples"}) for part in found}


def merge_paths(found: Iterable[GradientPaths]) -> GradientPaths:
    merged: dict[str, frozenset[str]] = {}
    for one in found:
        for part, ways in one.items():
            merged[part] = merged.get(part, frozenset()) | ways
    return merged
