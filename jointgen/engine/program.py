"""Programs: the nodes of an update as operations on a list of values, with named noise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from jointgen.compiler.aggregates import AggregateNode, TrunkNode
from jointgen.compiler.axes import Axes
from jointgen.compiler.estimators import EstimatorNode
from jointgen.compiler.feature_nodes import FeaturesNode, LayersNode
from jointgen.compiler.nodes import (
    ClosedKLNode,
    CriticNode,
    DensityNode,
    ForwardNode,
    Mode,
    MomentsNode,
    Node,
    PastNode,
    PriorNode,
    ReadNode,
    RootNode,
    SampleNode,
    StandardizedNode,
    TermNode,
    ViewNode,
)
from jointgen.compiler.parts import Parts, chosen_features
from jointgen.compiler.sums import SpreadNode, ValuesNode
from jointgen.contracts.distributions import ReadyDraw, ViewsData, log_prob_of_draw
from jointgen.contracts.networks import NoisyLayer, noisy_layers
from jointgen.contracts.numerics import at_least_float32
from jointgen.contracts.observation import Observation, observe
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.aggregates import aggregate_operation
from jointgen.engine.estimators import estimator_operation

Values = list[Any]
"""The value of each node of a program by its position: a tensor, a draw or a distribution."""

Operation = Callable[[StepInputs, Values], Any]
"""(the inputs of a step, the values of the nodes before) -> the value of a node."""


class Program:
    """Computes the values of nodes.

    A tensor with nothing trained below it is detached, so that no update builds a graph it does not need.

    Args:
        nodes: What to compute, parents first.
        parts: The modules that compute it.
        differentiable: The nodes whose gradient reaches a part that is trained.
        imported: The nodes whose value is handed in instead of computed.
        detach_reads: Cut every path of the gradient through samples.
        as_observed: The data of a step are Observations already.
    """

    def __init__(
        self,
        nodes: Iterable[Node],
        parts: Parts,
        differentiable: frozenset[Node] = frozenset(),
        imported: frozenset[Node] = frozenset(),
        *,
        detach_reads: bool = False,
        as_observed: bool = False,
    ):
        self.nodes, self.parts, self.imported, self.as_observed = list(nodes), parts, imported, as_observed
        self.index = {node: i for i, node in enumerate(self.nodes)}
        self._held: dict[str, nn.Module] = {}
        self._imported = [(i, node) for i, node in enumerate(self.nodes) if node in imported]
        self._computed: list[tuple[int, Operation]] = []
        above_leaves = _above_leaves(self.nodes)
        for i, node in enumerate(self.nodes):
            if node not in imported:
                operation = _in_batch(_OPERATIONS[type(node)](self, node), node.batch)
                is_cut = node not in above_leaves and node not in differentiable
                is_cut |= detach_reads and isinstance(node, ReadNode) and not node.is_leaf
                self._computed.append((i, _detached(operation) if node.is_tensor and is_cut else operation))

    def run(
        self,
        inputs: StepInputs,
        imports: Mapping[Node, Any] | None = None,
        watch: Callable[[Node], AbstractContextManager[None]] | None = None,
    ) -> Values:
        """Compute all values.

        Args:
            inputs: The inputs of the step.
            imports: The values of the imported nodes.
            watch: A context for the computation of each node.
        """
        values: Values = [None] * len(self.nodes)
        for i, node in self._imported:
            assert imports is not None
            value = imports[node]
            values[i] = value.detach() if isinstance(value, Tensor) else value
        for i, operation in self._computed:
            if watch is None:
                values[i] = operation(inputs, values)
            else:
                with watch(self.nodes[i]):
                    values[i] = operation(inputs, values)
        return values

    def watch_outputs(self, part: str) -> list[Tensor]:
        """Cut the graph at the outputs of a conditional's network.

        Returns:
            A list. Every run from now on adds to it what each live run of the network puts out, (rows, *outputs), as
            leaves: gradients of the values can be taken with respect to them, and end there.
        """
        outputs: list[Tensor] = []
        module: Any = self.parts.modules[part]

        def keep(trunk: nn.Module, arguments: Any, output: Tensor) -> Tensor:
            outputs.append(output.detach().requires_grad_())
            return outputs[-1]

        def watched(operation: Operation) -> Operation:
            def run(inputs: StepInputs, values: Values) -> Any:
                handle = module.trunk.register_forward_hook(keep)
                try:
                    return operation(inputs, values)
                finally:
                    handle.remove()

            return run

        def is_live_run(node: Node) -> bool:
            if isinstance(node, EstimatorNode):
                return node.runs_live(part)
            return isinstance(node, ForwardNode) and node.part == part and node.mode == "live"

        self._computed = [(i, watched(run) if is_live_run(self.nodes[i]) else run) for i, run in self._computed]
        return outputs

    def critic_for_penalty(self, part: str, inputs: StepInputs) -> Callable[..., Tensor]:
        """The critic as a function of what it sees, with named dropout masks."""
        module = self._module(part)
        dropouts = noisy_layers(module)

        def critic(*seen: Tensor) -> Tensor:
            _name_dropout(dropouts, f"{part}/penalty", inputs, seen[0].shape[0] // inputs.rows)
            return at_least_float32(module(*seen))

        return critic

    def _module(self, part: str, mode: Mode = "live") -> nn.Module:
        """The part, or where it is held its twin without gradients."""
        module = self.parts.modules[part]
        return self._held.setdefault(part, held_twin(module)) if mode == "held" else module

    # --- one operation for each kind of node; `at` is a position in the list of values

    def _root(self, node: RootNode) -> Operation:
        if node.is_data:
            return lambda inputs, values: self._observe(node, inputs)
        modules = {part: self._module(part) for part in node.parts}
        title, (variable,) = node.title, node.out

        def draw(inputs: StepInputs, values: Values) -> dict[str, Any]:
            rows = inputs.rows * node.k
            prior = self.parts.prior(node.part, rows, inputs.noise, modules)
            return {variable: prior.draw(inputs.noise.named(title, rows))}

        return draw

    def _observe(self, node: RootNode, inputs: StepInputs) -> dict[str, Observation]:
        raw, observed = inputs.data[node.part], {}

        def paired(rows: Tensor) -> Tensor:
            return self.parts.to_memory_format(re_pair(rows, node.shift, inputs.pair_block))

        for variable in node.out:
            if self.as_observed:
                observed[variable] = raw[variable].rearranged(paired)
            else:
                noise = inputs.noise.named(f"{node.title}/{variable}", inputs.rows)
                observed[variable] = observe(self.parts.spaces[variable], paired(raw[variable]), noise)
        return observed

    def _forward(self, node: ForwardNode) -> Operation:
        module, at = self._module(node.part, node.mode), [self.index[i] for i in node.inputs]
        rows, k, dropouts = max(i.rows for i in node.inputs), node.k, noisy_layers(module)
        merged = [self.index[law] for law in node.merged]
        title = node.unmarked().title  # a held run has the dropout masks of the live one
        below = node.inputs[0].axes
        is_in_order = node.layout[: len(below)] == below or not node.layout  # then it is repeated row by row

        def run(inputs: StepInputs, values: Values) -> Any:
            arguments = [values[i] for i in at]
            if node.noise:
                arguments.append(inputs.noise.named(node.noise, inputs.rows * rows).normal(node.noise_size))
            _name_dropout(dropouts, title, inputs, rows)
            others = {"merged": [values[i] for i in merged]} if merged else {}
            if is_in_order:
                return module(*arguments, k=k, **others)
            number = torch.arange(inputs.rows * rows, device=arguments[0].device)
            return module(*arguments, rows=spread_rows(number, below, node.layout), **others)

        return run

    def _trunk(self, node: TrunkNode) -> Operation:
        module: Any = self._module(node.part, node.mode)
        at, dropouts = [self.index[i] for i in node.inputs], noisy_layers(module)

        def run(inputs: StepInputs, values: Values) -> Tensor:
            _name_dropout(dropouts, node.runs, inputs, 1)
            outputs: Tensor = module.trunk(*(values[i] for i in at))
            return outputs

        return run

    def _aggregate(self, node: AggregateNode) -> Operation:
        module: Any = self._module(node.outputs.part, node.outputs.mode)
        return aggregate_operation(node, module.family, self.index[node.outputs], self.index[node.value])

    def _prior(self, node: PriorNode) -> Operation:
        modules = {part: self._module(part, node.mode) for part in node.parts}
        return lambda inputs, values: self.parts.prior(node.part, inputs.rows * node.rows, inputs.noise, modules)

    def _moments(self, node: MomentsNode) -> Operation:
        at = self.index[node.law]
        return lambda inputs, values: values[at].moments()

    def _sample(self, node: SampleNode) -> Operation:
        at, title, rows, (variable,) = self.index[node.law], node.title, node.rows, node.out
        return lambda inputs, values: {variable: values[at].draw(inputs.noise.named(title, inputs.rows * rows))}

    def _view(self, node: ViewNode) -> Operation:
        part: Any = self.parts.modules[node.part]
        at, family, title = self.index[node.source], part.family, node.title
        assert isinstance(family, ViewsData), f"{node.part} declares the reading {node.reading!r} and has no view()"

        def view(inputs: StepInputs, values: Values) -> Tensor:
            seen: Tensor = family.view(node.reading, values[at][node.variable], inputs.noise.named(title, inputs.rows))
            return seen

        return view

    def _read(self, node: ReadNode) -> Operation:
        at, variable, reading = self.index[node.source], node.variable, node.reading
        if isinstance(node.source, ViewNode):
            read: Operation = lambda inputs, values: values[at]  # noqa: E731
        else:
            read = lambda inputs, values: values[at][variable].read(reading)  # noqa: E731
        pair = re_pair_each if node.each else re_pair
        if not node.shift and not node.each and node.repeat == 1:
            return _as_leaf(read) if node.is_leaf else read

        def rearranged(inputs: StepInputs, values: Values) -> Tensor:
            value = pair(read(inputs, values), node.shift, inputs.pair_block)
            return value if node.repeat == 1 else value.repeat_interleave(node.repeat, 0)

        return _as_leaf(rearranged) if node.is_leaf else rearranged

    def _values(self, node: ValuesNode) -> Operation:
        at, variable = self.index[node.law], node.variable

        def every(inputs: StepInputs, values: Values) -> dict[str, ReadyDraw]:
            listed = values[at].values()
            assert len(listed) == node.count, f"{node.law.part} declares {node.count} values and lists {len(listed)}"
            return {variable: ReadyDraw(sample=listed.expand(inputs.rows, *listed.shape).flatten(0, 1))}

        return every

    def _spread(self, node: SpreadNode) -> Operation:
        at, below, axes = self.index[node.node], node.node.axes, node.over
        return lambda inputs, values: spread_rows(values[at], below, axes)

    def _standardized(self, node: StandardizedNode) -> Operation:
        value, moments = self.index[node.value], self.index[node.moments]
        return lambda inputs, values: values[moments].standardize(values[value])

    def _past(self, node: PastNode) -> Operation:
        at = self.index[node.value]

        def run(inputs: StepInputs, values: Values) -> Tensor:
            new: Tensor = values[at].detach()
            history = inputs.past.get(node.history)
            if history is None or not history.is_full:
                return new
            is_taken, slots = rows_of_the_past(node, inputs)
            return torch.where(is_taken.reshape(-1, *[1] * (new.ndim - 1)), history.rows[node.variable][slots], new)

        return run

    def _density(self, node: DensityNode) -> Operation:
        law, value = self.index[node.law], self.index[node.value]
        if node.mass:
            return lambda inputs, values: values[law].log_prob_bins(values[value])
        if node.is_scored_by_draw(self.imported):
            draw, variable = self.index[node.value.source], node.value.variable
            return lambda inputs, values: log_prob_of_draw(values[law], values[draw][variable])
        return lambda inputs, values: values[law].log_prob(values[value])

    def _closed_kl(self, node: ClosedKLNode) -> Operation:
        law, other = self.index[node.law], self.index[node.other]
        return lambda inputs, values: values[law].kl_to(values[other])

    def _critic(self, node: CriticNode) -> Operation:
        module, at = self._module(node.part), [self.index[i] for i in node.inputs]
        dropouts, title, rows = noisy_layers(module), node.title, node.rows

        def run(inputs: StepInputs, values: Values) -> Tensor:
            _name_dropout(dropouts, title, inputs, rows)
            return at_least_float32(module(*(values[i] for i in at)))

        return run

    def _layers(self, node: LayersNode) -> Operation:
        module: Any = self._module(node.part, node.mode)
        network, at = getattr(module, "trunk", module), [self.index[i] for i in node.inputs]
        dropouts, title, rows = noisy_layers(module), node.unmarked().title, node.rows

        def run(inputs: StepInputs, values: Values) -> Any:
            _name_dropout(dropouts, title, inputs, rows)
            return network.features(*(values[i] for i in at))

        return run

    def _features(self, node: FeaturesNode) -> Operation:
        at, layer = self.index[node.layers], node.layer
        return lambda inputs, values: at_least_float32(chosen_features(values[at], layer))

    def _term(self, node: TermNode) -> Operation:
        at = [self.index[i] for i in node.inputs]
        return lambda inputs, values: node.term(*(values[i] for i in at))

    def _estimator(self, node: EstimatorNode) -> Operation:
        modules = {law.role: {part: self._module(part, law.mode) for part in law.parts} for law in node.laws}
        return estimator_operation(node, self.parts, modules, [self.index[i] for i in node.inputs])


_OPERATIONS: dict[type[Node], Callable[[Program, Any], Operation]] = {
    RootNode: Program._root,
    ForwardNode: Program._forward,
    TrunkNode: Program._trunk,
    AggregateNode: Program._aggregate,
    PriorNode: Program._prior,
    MomentsNode: Program._moments,
    SampleNode: Program._sample,
    ViewNode: Program._view,
    ReadNode: Program._read,
    ValuesNode: Program._values,
    SpreadNode: Program._spread,
    StandardizedNode: Program._standardized,
    PastNode: Program._past,
    DensityNode: Program._density,
    ClosedKLNode: Program._closed_kl,
    CriticNode: Program._critic,
    LayersNode: Program._layers,
    FeaturesNode: Program._features,
    TermNode: Program._term,
    EstimatorNode: Program._estimator,
}


def _in_batch(operation: Operation, batch: int) -> Operation:
    """The operation on the inputs of a batch of its own size, where it has one."""
    return (lambda inputs, values: operation(inputs.of_batch(batch), values)) if batch else operation


def rows_of_the_past(node: PastNode, inputs: StepInputs) -> tuple[Tensor, Tensor]:
    """Choose the rows of a history that take the place of new draws.

    Returns:
        (B,) bool, whether a row is replaced, and (B,) int64, by which row of the history.
    """
    chosen = inputs.noise.named(node.history, inputs.rows).uniform(2)
    return chosen[:, 0] < 0.5, (chosen[:, 1] * node.size).long().clamp(max=node.size - 1)


def _detached(operation: Operation) -> Operation:
    def run(inputs: StepInputs, values: Values) -> Any:
        value = operation(inputs, values)
        return value.detach() if value.requires_grad else value  # most need no cut, and each would be an operation

    return run


def _as_leaf(operation: Operation) -> Operation:
    def run(inputs: StepInputs, values: Values) -> Any:
        value = operation(inputs, values).detach()
        return value.requires_grad_() if torch.is_grad_enabled() else value

    return run


def _above_leaves(nodes: Iterable[Node]) -> set[Node]:
    """The nodes of which a leaf is one, or is below: the gradient of a term in the leaf passes through them."""
    found: set[Node] = set()
    for node in nodes:  # parents first
        if node.is_leaf or not found.isdisjoint(node.parents):
            found.add(node)
    return found


def _name_dropout(dropouts: list[NoisyLayer], title: str, inputs: StepInputs, rows: int) -> None:
    for number, dropout in enumerate(dropouts):
        dropout.noise = inputs.noise.named(f"{title}/dropout{number}", inputs.rows * rows)


def held_twin(module: nn.Module) -> nn.Module:
    """A copy on the same memory whose parameters take no gradient, so that nothing it ever makes can give them one.

    It follows optimizer steps and `load_state_dict`, which write in place. A module that moves to another device
    needs a new twin.
    """
    memo: dict[int, Any] = {id(p): p.detach() for p in module.parameters()}
    memo |= {id(b): b for b in module.buffers()}
    return copy.deepcopy(module, memo)


def spread_rows(x: Tensor, below: Axes, axes: Axes) -> Tensor:
    """Repeat rows over further axes.

    Args:
        x: (B * size of below, *shape).
        below: The axes that it has.
        axes: The axes that it is to have, in order, with `below` among them.

    Returns:
        (B * size of axes, *shape).

    >>> spread_rows(torch.tensor([1, 2]), (("", 2),), (("y", 2), ("", 2))).tolist()
    [1, 2, 1, 2]
    """
    has = dict(below)
    split = x.unflatten(0, (-1, *(has.get(name, 1) for name, _ in axes)))
    return split.expand(len(split), *(size for _, size in axes), *x.shape[1:]).flatten(0, len(axes))


def re_pair_each(x: Tensor, shift: int, block: int) -> Tensor:
    """Shift the rows of each number within blocks, of the jth by shift + j, so that a row is made of different rows.

    Args:
        x: (B, *shape), with at most as many numbers as a block has rows.
        shift, block: As in `re_pair`.
    """
    flat = x.flatten(1)
    block = block if block and len(flat) % block == 0 else len(flat)
    row = torch.arange(len(flat), device=x.device).unsqueeze(1)
    moved = row % block - shift - torch.arange(flat.shape[1], device=x.device)
    return flat.gather(0, row - row % block + moved % block).view_as(x)


def re_pair(x: Tensor, shift: int, block: int) -> Tensor:
    """Shift rows within blocks, so that none stays where it was.

    Args:
        x: (B, *shape).
        shift: By how many rows.
        block: The length of a block; 0, or a length that does not divide the rows, makes all rows one block.
    """
    if shift == 0:
        return x
    block = block if block and x.shape[0] % block == 0 else x.shape[0]
    assert shift % block, f"a shift of {shift} in a block of {block} rows would leave rows where they were"
    return x.unflatten(0, (-1, block)).roll(shift, 1).flatten(0, 1)
