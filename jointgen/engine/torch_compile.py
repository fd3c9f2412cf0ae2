"""torch.compile for the losses of a step. Each becomes one function of tensors, and runs eagerly where that fails.

A loss draws its noise by name, weighs its terms by where the run stands and skips penalties that are not due. None of
that can be compiled, so all of it happens first. One eager run records which noise the loss asks for, and every step
draws it from the same generators beforehand: compiled and eager runs see the same numbers, and CUDA graphs have their
inputs. Weights that move come in as tensors. A loss is compiled once for every set of penalties that are due together.
"""

from __future__ import annotations

import functools
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

import attrs
import torch
from torch import Tensor

from jointgen.compiler.lowered import leaves_of
from jointgen.compiler.nodes import Node, ordered
from jointgen.contracts.noise import Noise
from jointgen.data.step_inputs import ALONE, RawRows, StepInputs
from jointgen.engine.program import Program, Values
from jointgen.engine.recorded_noise import RecordingNoise, ReplayedNoise
from jointgen.objectives.algebra import Weight, Weighted
from jointgen.runtime.global_rng import global_state, set_global_state

if TYPE_CHECKING:
    from jointgen.compiler.plan import Plan, UpdatePlan

CompileMode = Literal["default", "reduce-overhead", "max-autotune"]
Loss = Callable[..., tuple[Tensor, dict[str, Tensor], Values]]
"""(inputs, imports) -> (the loss, the mean of each term, the values of the program)."""

TOLERANCE = 1e-2
"""How far a compiled loss may lie from the eager one, relatively. bfloat16 rounds elsewhere; faults are larger."""


class Compilable(Protocol):
    """The part of an update that is compiled."""

    plan: UpdatePlan
    program: Program
    params: list[torch.nn.Parameter]

    @property
    def loss(self) -> Loss:
        """Return the function that is compiled."""
        ...


class TorchCompiler:
    """Compiles the losses of a step.

    Args:
        mode: Torch's mode. "reduce-overhead" needs CUDA graphs, and is "default" elsewhere.
        note: Is told in one line what became of each loss.
        backend: Torch's backend. Those that tests use because they are quick have no modes.
    """

    def __init__(self, mode: CompileMode, device: torch.device, note: Callable[[str], None], backend: str = "inductor"):
        if mode == "reduce-overhead" and device.type != "cuda":
            note(
                f"train.compile: 'reduce-overhead' needs CUDA graphs, and the device is a {device.type}; 'default' runs"
            )
            mode = "default"
        self.note = note
        self.has_graphs = device.type == "cuda" and mode != "default"
        options: dict[str, Any] = {"mode": mode} if backend == "inductor" else {"backend": backend}
        self.compile = functools.partial(torch.compile, dynamic=False, **options)

    def begin_step(self) -> None:
        """Allow the outputs of the last step's graphs to be overwritten."""
        if self.has_graphs:
            torch.compiler.cudagraph_mark_step_begin()

    def compiled(self, update: Compilable, keep: Sequence[Node], name: str) -> Loss:
        """Return the loss of an update, compiled when it is first called.

        Args:
            keep: The nodes whose values it returns; others are None.
            name: What notes call it.
        """
        return CompiledLoss(update, keep, self, name)


class CompiledLoss:
    """A loss that is compiled when it is first called, or the eager one for good where that fails."""

    def __init__(self, update: Compilable, keep: Sequence[Node], compiler: TorchCompiler, name: str):
        self.update, self.compiler, self.name = update, compiler, name
        self.keep = [update.program.index[node] for node in keep]
        self._penalties = [summand.penalty for summand in update.plan.summands if summand.penalty]
        self._variants: dict[tuple[bool, ...], Variant] = {}
        self._failed = False

    def __call__(
        self, inputs: StepInputs, imports: Mapping[Node, Any] | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Values]:
        """Return the loss, its terms' means and the values that other updates take over."""
        imports = imports or {}
        if not self._failed:
            try:
                return self._variant(inputs, imports)(inputs, imports)
            except Exception as error:  # whatever a compiler, its backend or a plugin's network raises
                self._failed = True
                self._variants.clear()
                self.compiler.note(f"train.compile: {self.name} is not compiled and runs eagerly: {_reason(error)}")
        return self.update.loss(inputs, imports)

    def _variant(self, inputs: StepInputs, imports: Mapping[Node, Any]) -> Variant:
        due = tuple(penalty.is_due(inputs.step) for penalty in self._penalties)
        if due not in self._variants:
            name = self.name + " for steps with other penalties" if self._variants else self.name
            self.compiler.note(f"train.compile: compiling {name}, which takes a minute or so")
            began = time.monotonic()
            self._variants[due] = Variant(self, inputs, imports)
            self._variants[due].try_out(inputs, imports)
            self.compiler.note(f"train.compile: {name} compiled in {time.monotonic() - began:.0f} s")
        return self._variants[due]


class Variant:
    """A loss with the penalties that are due at some steps, compiled whole."""

    def __init__(self, whole: CompiledLoss, inputs: StepInputs, imports: Mapping[Node, Any]):
        self.update, self.keep = whole.update, whole.keep
        self.imported = [node for node in self.update.program.nodes if node in self.update.program.imported]
        self.weights = moving_weights(self.update.plan)
        recording: Any = RecordingNoise(inputs.noise)
        with torch.no_grad(), nothing_moved(self.update.program):
            loss, _, _ = self.update.loss(attrs.evolve(inputs, noise=recording), imports)
        self.expected, self.requests = float(loss), list(recording.requests)
        function = _with_own_code(self._function(inputs), self.update.plan.name)
        self._run = whole.compiler.compile(function, fullgraph=True)

    def _function(self, inputs: StepInputs) -> Callable[..., Any]:
        """The loss as a function of tensors; what else it takes from `inputs` is fixed."""
        update, keep, imported = self.update, self.keep, self.imported
        rows, batches, step, pair_block = inputs.rows, inputs.batches, inputs.step, inputs.pair_block
        device, dtype, source_rows = inputs.noise.device, inputs.noise.dtype, inputs.source_rows

        def loss(data: Any, numbers: Any, weights: Any, values: Any) -> Any:
            noise = ReplayedNoise(numbers, device, dtype)
            frozen: Any = FrozenInputs(data, noise, rows, batches, step, pair_block, weights)
            frozen.source_rows = source_rows
            total, means, found = update.loss(frozen, NodeValues(imported, values))
            return total, means, [_detached(found[i]) for i in keep]

        return loss

    def __call__(self, inputs: StepInputs, imports: Mapping[Node, Any]) -> tuple[Tensor, dict[str, Tensor], Values]:
        """Run the compiled graph on the numbers that the eager loss would draw."""
        numbers = {request.title: request.draw(inputs.noise) for request in self.requests}
        weights = {weight.name: _on_device(inputs.at(weight), inputs.noise) for weight in self.weights}
        given = [_detached(imports[node]) for node in self.imported]
        total, means, kept = self._run(inputs.data, numbers, weights, given)
        values: Values = [None] * len(self.update.program.nodes)
        for i, value in zip(self.keep, kept, strict=True):
            values[i] = value
        return total, means, values

    def try_out(self, inputs: StepInputs, imports: Mapping[Node, Any]) -> None:
        """Compile both directions and leave nothing behind.

        Raises:
            Exception: Whatever compiling raises; ArithmeticError where the loss differs from the eager one.
        """
        with nothing_moved(self.update.program), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what compilers warn of is nothing that a user could mend
            loss, _, _ = self(inputs, imports)
            torch.autograd.grad(loss, self.update.params, allow_unused=True)
        found = float(loss.detach())
        if abs(found - self.expected) > TOLERANCE * max(1.0, abs(self.expected)):
            raise ArithmeticError(f"compiled, the loss is {found:g} where it should be {self.expected:g}")


def moving_weights(plan: UpdatePlan) -> list[Weight]:
    """The weights of an update that differ from step to step."""
    weights = [e.weight for e in plan.update.maximize.walk() if isinstance(e, Weighted)]
    return list({w.name: w for w in weights if isinstance(w, Weight) and w.moves}.values())


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _on_device(value: float | Tensor, noise: Noise) -> Tensor:
    """A number as a tensor that is made on its device: one that is copied there would be waited for."""
    return value if isinstance(value, Tensor) else torch.full((), value, dtype=noise.dtype, device=noise.device)


def _reason(error: Exception) -> str:
    """The first line of an error that says something."""
    first, *others = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {first} {others[0]}" if first.endswith(":") and others else first


def _with_own_code(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Copy a function with its code: torch keeps what it compiled by code object, and only so much for each."""
    assert isinstance(function, types.FunctionType)
    code = function.__code__.replace(co_name=f"loss_of_{name}")
    return types.FunctionType(code, function.__globals__, code.co_name, None, function.__closure__)


@contextmanager
def nothing_moved(program: Program) -> Iterator[None]:
    """Restore buffers and global random generators afterwards.

    A run that resumes compiles anew, so compiling must not move a running mean or a generator.
    """
    device = next(program.parts.modules.parameters()).device
    generators = global_state(device)
    with buffers_kept(program):
        try:
            yield
        finally:
            set_global_state(generators, device)


@contextmanager
def buffers_kept(program: Program) -> Iterator[None]:
    """Restore the buffers of all parts afterwards."""
    buffers = list(program.parts.modules.buffers())
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


# --- what stands in for the inputs of a step -------------------------------------------------------------------------


class FrozenInputs:
    """Stands in for `StepInputs`: a step on which certain penalties are due, with its moving weights as tensors."""

    def __init__(
        self,
        data: RawRows,
        noise: ReplayedNoise,
        rows: int,
        batches: Mapping[int, int],
        step: int,
        pair_block: int,
        weights: Mapping[str, Tensor],
    ):
        self.data, self.noise, self.rows, self.batches = data, noise, rows, batches
        self.step, self.pair_block = step, pair_block
        self.source_rows: Mapping[str, int] = {}
        self.peers = ALONE  # the recipe's check refuses to compile what several processes must gather
        self._weights = weights

    def of_batch(self, batch: int) -> FrozenInputs:
        """Return the inputs of what is computed from a batch of this size, see `StepInputs`."""
        rows = self.batches.get(batch, self.rows)
        return FrozenInputs(self.data, self.noise, rows, self.batches, self.step, self.pair_block, self._weights)

    def at(self, weight: Weight) -> float | Tensor:
        """Return the value of a weight in this step."""
        return self._weights[weight.name] if weight.moves else weight.to


class NodeValues:
    """Values by node, found by identity: torch.compile (2.11) rejects dict keys with a hash of their own."""

    def __init__(self, nodes: Sequence[Node], values: Sequence[Any]):
        self._pairs = list(zip(nodes, values, strict=True))

    def __getitem__(self, wanted: Node) -> Any:
        for node, value in self._pairs:
            if node is wanted:
                return value
        raise KeyError(wanted.title)


# --- what compiled updates hand over to one another ------------------------------------------------------------------


def nodes_when_compiled(plan: Plan, index: int) -> tuple[tuple[Node, ...], frozenset[Node]]:
    """Find what an update computes or imports where it is compiled.

    Compiled functions hand over tensors. A draw or a distribution is made anew by its name where no part has moved
    since that it is made by; otherwise it comes as it is.

    Returns:
        All nodes that update `index` computes or imports, and those of them that an earlier update hands over.
    """
    update, handed_over = plan.updates[index], plan.handed_over(index)
    moved = set() if plan.objective.order == "same point" else {p for u in plan.updates[:index] for p in u.trains}
    imported, computed = set(), set()

    def need(node: Node) -> None:
        made_by = {part for below in ordered([node]) for part in below.parts}
        if node in handed_over and (node.is_tensor or moved & made_by):
            imported.add(node)
        elif node not in computed:
            computed.add(node)
            for parent in node.parents:
                need(parent)

    for summand in update.summands:
        for leaf in leaves_of(summand.lowered):
            need(leaf)
    return tuple(node for node in update.nodes if node in imported or node in computed), frozenset(imported)
