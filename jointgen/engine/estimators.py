"""Estimators at work: the laws that they are handed, and the operation of their node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from jointgen.compiler.estimators import EstimatorNode, HandedLaw
from jointgen.contracts.distributions import Distribution
from jointgen.contracts.networks import NoisyLayer, noisy_layers
from jointgen.contracts.numerics import at_least_float32
from jointgen.data.step_inputs import StepInputs
from jointgen.errors import ConfigError

if TYPE_CHECKING:
    from jointgen.compiler.parts import Parts


class RunningLaw:
    """A part that an estimator may run any number of times in a step, each with dropout masks of its own.

    Args:
        law: What it is.
        modules: The module of the part, and of those that a prior goes through, live or held, by name.
        title: Names the dropout masks.
        rows: How many rows the estimator has for each row of the batch.
        inputs: The inputs of the step.
        layers: The layers of the part that draw.
    """

    def __init__(
        self,
        law: HandedLaw,
        parts: Parts,
        modules: Mapping[str, nn.Module],
        title: str,
        rows: int,
        inputs: StepInputs,
        layers: Sequence[NoisyLayer],
    ):
        self._law, self._parts, self._modules, self._inputs, self._layers = law, parts, modules, inputs, layers
        self._title, self._rows, self._runs = f"{title}/{law.role}", rows, 0

    def __call__(self, *given: Tensor, k: int = 1) -> Distribution:
        """Return the distributions, see `jointgen.contracts.estimators.Law`."""
        law, inputs = self._law, self._inputs
        if law.is_prior:
            if given:
                raise ConfigError(f"{law.role} is the prior {law.part!r}, which is given nothing")
            return self._parts.prior(law.part, inputs.rows * self._rows * k, inputs.noise, self._modules)
        rows, module = len(given[0]) if given else 0, self._modules[law.part]
        if not rows or rows % inputs.rows:
            raise ConfigError(f"{law.role} is given {rows} rows, which is no multiple of the batch's {inputs.rows}")
        for number, layer in enumerate(self._layers):
            layer.noise = inputs.noise.named(f"{self._title}/run{self._runs}/dropout{number}", rows)
        self._runs += 1
        found: Distribution = module(*given, k=k)
        return found


def estimator_operation(
    node: EstimatorNode, parts: Parts, modules: Mapping[str, Mapping[str, nn.Module]], at: list[int]
) -> Callable[[StepInputs, list[Any]], Tensor]:
    """Make the operation of an estimator.

    Args:
        node: The node.
        parts: The modules of all parts.
        modules: For each role the modules that it runs, live or held, by part.
        at: Where the values of the node stand in the list of values.
    """
    layers = {law.role: [] if law.is_prior else noisy_layers(modules[law.role][law.part]) for law in node.laws}

    def run(inputs: StepInputs, values: list[Any]) -> Tensor:
        laws = {
            law.role: RunningLaw(law, parts, modules[law.role], node.title, node.rows, inputs, layers[law.role])
            for law in node.laws
        }
        noise = inputs.noise.named(node.title, inputs.rows * node.rows)
        return at_least_float32(node.estimator(*(values[i] for i in at), noise=noise, **laws))

    return run
