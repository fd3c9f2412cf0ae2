"""The nodes of features: one run of a network's layers, and the layers that a value is made of. Torch-free."""

from __future__ import annotations

from typing import Any

import attrs

from jointgen.compiler.axes import Axes
from jointgen.compiler.gradient_paths import GradientPaths, Traits
from jointgen.compiler.nodes import Mode, NetworkRun, Node
from jointgen.objectives.values import Layer, show_layer


@attrs.frozen(cache_hash=True)
class LayersNode(NetworkRun):
    """One run of the layers of a critic, or of the trunk of a conditional."""

    part: str
    inputs: tuple[Any, ...]
    mode: Mode
    is_tensor = False
    is_never_handed_over = True

    def unmarked(self) -> LayersNode:
        """The same run with nothing held or stopped, which has the same numbers and so the same dropout masks."""
        return attrs.evolve(self, mode="live", inputs=tuple(node.unstopped() for node in self.inputs))


@attrs.frozen(cache_hash=True)
class FeaturesNode(Node):
    """The features of a network, (rows, ...): of one layer, or of all of them side by side."""

    layers: LayersNode
    layer: Layer
    stop: bool = False
    is_never_handed_over = True

    @property
    def parents(self) -> tuple[Node, ...]:
        return (self.layers,)

    @property
    def axes(self) -> Axes:
        return self.layers.axes

    @property
    def title(self) -> str:
        text = f"{show_layer(self.layer)} {self.layers.title}"
        return f"stop({text})" if self.stop else text

    def gradient_paths(self, traits: Traits) -> GradientPaths:
        return {} if self.stop else super().gradient_paths(traits)

    def unstopped(self) -> FeaturesNode:
        """The same value with its gradient."""
        return attrs.evolve(self, layers=self.layers.unmarked(), stop=False)
