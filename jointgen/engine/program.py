"""Programs: the nodes of an update as operations on a list of values, with named noise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from jointgen.compiler.gradient_paths import gradient_paths
from jointgen.compiler.lowering import Lowering, unmarked
from jointgen.compiler.nodes import (
    Applied,
    ClosedKL,
    Critic,
    Density,
    Forward,
    Mode,
    Moments,
    Node,
    PriorLaw,
    Read,
    Root,
    Sample,
    Standard,
    View,
    is_scored_by_draw,
)
from jointgen.compiler.parts import Parts
from jointgen.contracts.distributions import ViewsData, log_prob_of_draw
from jointgen.contracts.networks import Dropout
from jointgen.contracts.observation import observe
from jointgen.data.step_inputs import StepInputs

Values = list[Any]


# --- programs: nodes as operations on a list of values ---------------------------------------------------------------


class Program:
    """Nodes in order as operations; `imported` values are handed in instead of computed.

    A tensor with nothing trained below it is detached, so that no update builds a graph it does not need.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        parts: Parts,
        lowering: Lowering,
        imported: frozenset[Node] = frozenset(),
        detach_reads: bool = False,
        as_observed: bool = False,
    ):
        """detach_reads cuts every path through samples; as_observed: the data are Observations already."""
        self.nodes, self.parts, self.lowering = list(nodes), parts, lowering
        self.imported, self.detach_reads, self.as_observed = imported, detach_reads, as_observed
        self.index = {node: i for i, node in enumerate(self.nodes)}
        self._held: dict[str, nn.Module] = {}
        self._dropouts: dict[nn.Module, list[Dropout]] = {}
        self._imported = [(i, node) for i, node in enumerate(self.nodes) if node in imported]
        self._computed = [(i, self._operation(node)) for i, node in enumerate(self.nodes) if node not in imported]

    def seen_by(self, lowering: Lowering) -> Program:
        """This very program, for the terms of an update that trains only some of the parts it was made for."""
        seen = copy.copy(self)
        seen.lowering = lowering
        return seen

    def trained_below(self, node: Node) -> bool:
        """Whether a gradient of the node reaches a part that is trained."""
        return not self.lowering.trains.isdisjoint(gradient_paths(node, self.lowering.traits))

    def watch(self, part: str) -> list[Tensor]:
        """From now on every run adds to this list what the network of a conditional has put out, (rows, *outputs) for
        each of its live runs, as leaves: gradients of the values are those with respect to them, and end there."""
        outputs: list[Tensor] = []
        module: Any = self.parts.modules[part]
        runs = {i for node, i in self.index.items() if isinstance(node, Forward) and node.part == part}
        live = {i for i in runs if getattr(self.nodes[i], "mode", "") == "live"}

        def note(trunk: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            outputs.append(output.detach().requires_grad_())
            return outputs[-1]

        def watched(operation: Callable[[StepInputs, Values], Any]) -> Callable[[StepInputs, Values], Any]:
            def run(moment: StepInputs, values: Values) -> Any:
                handle = module.trunk.register_forward_hook(note)
                try:
                    return operation(moment, values)
                finally:
                    handle.remove()

            return run

        self._computed = [(i, watched(operation) if i in live else operation) for i, operation in self._computed]
        return outputs

    def run(self, moment: StepInputs, imports: Mapping[Node, Any] | None = None) -> Values:
        values: Values = [None] * len(self.nodes)
        for i, node in self._imported:
            assert imports is not None
            value = imports[node]
            values[i] = value.detach() if isinstance(value, Tensor) else value
        for i, operation in self._computed:
            values[i] = operation(moment, values)
        return values

    def _operation(self, node: Node) -> Callable[[StepInputs, Values], Any]:
        operation = _OPERATIONS[type(node)](self, node)
        is_tensor = isinstance(node, Read | Standard | Density | ClosedKL | Applied)
        if not is_tensor or (self.trained_below(node) and not (self.detach_reads and isinstance(node, Read))):
            return operation
        return lambda moment, values: operation(moment, values).detach()

    # --- one operation per kind of node; `at` are positions in the list of values

    def _root(self, node: Root) -> Callable[[StepInputs, Values], Any]:
        if node.is_data:
            return lambda moment, values: self._observe(node, moment)
        modules = {part: self._module(part) for part in (node.part, *node.through)}

        def draw(moment: StepInputs, values: Values) -> dict[str, Any]:
            prior = self.parts.prior(node.part, moment.rows, moment.noise, modules)
            return {node.out[0]: prior.draw(moment.noise.named(node.title, moment.rows))}

        return draw

    def _observe(self, node: Root, moment: StepInputs) -> dict[str, Any]:
        raw = moment.data[node.part]
        seen = {}
        for variable in node.out:
            if self.as_observed:
                seen[variable] = raw[variable].rearranged(lambda x: self._paired(x, node, moment))
                continue
            rows = self._paired(raw[variable], node, moment)
            noise = moment.noise.named(f"{node.title}/{variable}", moment.rows)
            seen[variable] = observe(self.parts.spaces[variable], rows, noise)
        return seen

    def _paired(self, rows: Tensor, node: Root, moment: StepInputs) -> Tensor:
        return self.parts.laid_out(re_pair(rows, node.shift, moment.pair_block))

    def _module(self, part: str, mode: Mode = "live") -> nn.Module:
        """The part, or where it is held its twin without gradients."""
        module = self.parts.modules[part]
        if mode == "held":
            module = self._held.setdefault(part, held_twin(module))
        self._dropouts[module] = [inner for inner in module.modules() if isinstance(inner, Dropout)]
        return module

    def _forward(self, node: Forward) -> Callable[[StepInputs, Values], Any]:
        module, at = self._module(node.part, node.mode), [self.index[i] for i in node.inputs]
        rows, title = max(i.rows for i in node.inputs), unmarked(node).title

        def run(moment: StepInputs, values: Values) -> Any:
            inputs = [values[i] for i in at]
            if node.noise:
                size = self.lowering.traits[node.part].noise_input
                inputs.append(moment.noise.named(node.noise, moment.rows * rows).normal(size))
            self._name_dropout(module, title, moment, rows)
            return module(*inputs, k=node.k)

        return run

    def _name_dropout(self, module: nn.Module, title: str, moment: StepInputs, rows: int) -> None:
        for number, dropout in enumerate(self._dropouts[module]):
            dropout.noise = moment.noise.named(f"{title}/dropout{number}", moment.rows * rows)

    def _prior(self, node: PriorLaw) -> Callable[[StepInputs, Values], Any]:
        modules = {part: self._module(part, node.mode) for part in (node.part, *node.through)}
        return lambda moment, values: self.parts.prior(node.part, moment.rows * node.rows, moment.noise, modules)

    def _moments(self, node: Moments) -> Callable[[StepInputs, Values], Any]:
        at = self.index[node.law]
        return lambda moment, values: values[at].moments()

    def _sample(self, node: Sample) -> Callable[[StepInputs, Values], Any]:
        at = self.index[node.forward]

        def draw(moment: StepInputs, values: Values) -> dict[str, Any]:
            return {node.out[0]: values[at].draw(moment.noise.named(node.title, moment.rows * node.rows))}

        return draw

    def _view(self, node: View) -> Callable[[StepInputs, Values], Any]:
        part: Any = self.parts.modules[node.part]
        at, family = self.index[node.source], part.family
        assert isinstance(family, ViewsData), f"{node.part} declares the reading {node.reading!r} and has no view()"

        def view(moment: StepInputs, values: Values) -> Tensor:
            noise = moment.noise.named(node.title, moment.rows)
            return family.view(node.reading, values[at][node.variable], noise)

        return view

    def _read(self, node: Read) -> Callable[[StepInputs, Values], Any]:
        at, is_view = self.index[node.source], isinstance(node.source, View)

        def read(moment: StepInputs, values: Values) -> Tensor:
            value = values[at] if is_view else values[at][node.variable].read(node.reading)
            if node.shift:
                value = re_pair(value, node.shift, moment.pair_block)
            return value if node.repeat == 1 else value.repeat_interleave(node.repeat, 0)

        return read

    def _standard(self, node: Standard) -> Callable[[StepInputs, Values], Any]:
        value, moments = self.index[node.value], self.index[node.moments]
        return lambda moment, values: values[moments].standardize(values[value])

    def _density(self, node: Density) -> Callable[[StepInputs, Values], Any]:
        law, value = self.index[node.law], self.index[node.value]
        if node.mass:
            return lambda moment, values: values[law].log_prob_bins(values[value])
        if is_scored_by_draw(node, self.imported):
            draw, variable = self.index[node.value.source], node.value.variable
            return lambda moment, values: log_prob_of_draw(values[law], values[draw][variable])
        return lambda moment, values: values[law].log_prob(values[value])

    def _kl(self, node: ClosedKL) -> Callable[[StepInputs, Values], Any]:
        law, other = self.index[node.law], self.index[node.other]
        return lambda moment, values: values[law].kl_to(values[other])

    def _critic(self, node: Critic) -> Callable[[StepInputs, Values], Any]:
        module, at = self._module(node.part), [self.index[i] for i in node.inputs]

        def run(moment: StepInputs, values: Values) -> Tensor:
            self._name_dropout(module, node.title, moment, node.rows)
            return _at_least_float32(module(*(values[i] for i in at)))

        return run

    def _applied(self, node: Applied) -> Callable[[StepInputs, Values], Any]:
        at = [self.index[i] for i in node.inputs]
        return lambda moment, values: node.term(*(values[i] for i in at))

    def critic_for_penalty(self, part: str, moment: StepInputs) -> Callable[..., Tensor]:
        """The critic as a function of its inputs, its dropout masks named."""
        module = self._module(part)

        def critic(*inputs: Tensor) -> Tensor:
            self._name_dropout(module, f"{part}/penalty", moment, inputs[0].shape[0] // moment.rows)
            return _at_least_float32(module(*inputs))

        return critic


_OPERATIONS: dict[type, Callable[[Program, Any], Callable[[StepInputs, Values], Any]]] = {
    Root: Program._root,
    Forward: Program._forward,
    PriorLaw: Program._prior,
    Moments: Program._moments,
    Sample: Program._sample,
    View: Program._view,
    Read: Program._read,
    Standard: Program._standard,
    Density: Program._density,
    ClosedKL: Program._kl,
    Critic: Program._critic,
    Applied: Program._applied,
}


def held_twin(module: nn.Module) -> nn.Module:
    """A copy on the same memory whose parameters take no gradient, so that nothing it ever makes can give them one.

    It follows optimizer steps and `load_state_dict`, which write in place; a module that moves to another device
    needs a new twin.
    """
    shared: dict[int, Any] = {id(p): p.detach() for p in module.parameters()}
    shared |= {id(b): b for b in module.buffers()}
    return copy.deepcopy(module, shared)


def _at_least_float32(logits: Tensor) -> Tensor:
    """What a critic puts out in bfloat16 under autocast: too coarse for a loss. Families do so for themselves."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def re_pair(x: Tensor, shift: int, block: int) -> Tensor:
    """Rows shifted within blocks, so that none stays where it was. A batch that no block divides is one block."""
    if shift == 0:
        return x
    block = block if block and x.shape[0] % block == 0 else x.shape[0]
    assert shift % block, f"a shift of {shift} in a block of {block} rows would leave rows where they were"
    return x.unflatten(0, (-1, block)).roll(shift, 1).flatten(0, 1)
