"""torch.compile for the losses of a step: each becomes one function of tensors, which falls back to running eagerly.

A loss draws its noise by name, weighs its terms by where the run stands and skips penalties that are not due. None of
that can be compiled, so all of it happens first. One eager run tells which noise the loss asks for, and every step
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
from typing import Any, Literal, Protocol

import attrs
import torch
from torch import Tensor

from jointgen.compiler.lowering import Lowering
from jointgen.compiler.nodes import ClosedKL, Density, Node, Read, Standard, View, ordered
from jointgen.compiler.plan import Plan, UpdatePlan, nodes_of
from jointgen.contracts.noise import Noise
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.program import Program, Values
from jointgen.engine.recorded_noise import Recorder, Table
from jointgen.objectives.algebra import Weight, Weighted
from jointgen.objectives.objective import PenaltyOf
from jointgen.runtime.global_rng import global_state, set_global_state

Mode = Literal["default", "reduce-overhead", "max-autotune"]
Loss = Callable[..., tuple[Tensor, dict[str, Tensor], Values]]
"""(moment, imports) -> (the loss, each term's mean, the program's values)."""

TOLERANCE = 1e-2
"""How far a compiled loss may lie from the eager one, relatively: bfloat16 rounds elsewhere, faults are larger."""


class Player(Protocol):
    """What is compiled of an update."""

    plan: UpdatePlan
    program: Program
    params: list[torch.nn.Parameter]

    @property
    def loss(self) -> Loss: ...


class Compiler:
    """Compiles the losses of a step in torch's `mode`, and says by `note` in one line what became of each."""

    def __init__(self, mode: Mode, device: torch.device, note: Callable[[str], None], backend: str = "inductor"):
        if mode == "reduce-overhead" and device.type != "cuda":
            note(
                f"train.compile: 'reduce-overhead' needs CUDA graphs, and the device is a {device.type}; 'default' runs"
            )
            mode = "default"
        self.note = note
        self.has_graphs = device.type == "cuda" and mode != "default"
        # other backends, which tests use because they are quick, have no modes
        how: dict[str, Any] = {"mode": mode} if backend == "inductor" else {"backend": backend}
        self.compile = functools.partial(torch.compile, dynamic=False, **how)

    def begin_step(self) -> None:
        """What the last step's graphs put out may be overwritten from here on."""
        if self.has_graphs:
            torch.compiler.cudagraph_mark_step_begin()

    def compiled(self, player: Player, keep: Sequence[Node], name: str) -> Loss:
        """The player's loss, which returns of its program's values those of `keep` alone. `name` is for people."""
        return CompiledLoss(player, keep, self, name)


class CompiledLoss:
    """A loss that is compiled when it is first called, or for good the eager one where that fails."""

    def __init__(self, player: Player, keep: Sequence[Node], compiler: Compiler, name: str):
        self.player, self.compiler, self.name = player, compiler, name
        self.keep = [player.program.index[node] for node in keep]
        sources = [summand.source for summand in player.plan.summands]
        self._periods = [source.penalty.every for source in sources if isinstance(source, PenaltyOf)]
        self._variants: dict[tuple[bool, ...], Variant] = {}
        self._failed = False

    def __call__(
        self, moment: StepInputs, imports: Mapping[Node, Any] | None = None
    ) -> tuple[Tensor, dict[str, Tensor], Values]:
        imports = imports or {}
        if not self._failed:
            try:
                return self._variant(moment, imports)(moment, imports)
            except Exception as error:  # whatever a compiler, its backend or a plugin's network raises
                self._failed = True
                self._variants.clear()
                self.compiler.note(f"train.compile: {self.name} is not compiled and runs eagerly: {_reason(error)}")
        return self.player.loss(moment, imports)

    def _variant(self, moment: StepInputs, imports: Mapping[Node, Any]) -> Variant:
        due = tuple(moment.step % every == 0 for every in self._periods)
        if due not in self._variants:
            name = self.name + " for steps with other penalties" if self._variants else self.name
            self.compiler.note(f"train.compile: compiling {name}, which takes a minute or so")
            began = time.monotonic()
            self._variants[due] = Variant(self, moment, imports)
            self._variants[due].try_out(moment, imports)
            self.compiler.note(f"train.compile: {name} compiled in {time.monotonic() - began:.0f} s")
        return self._variants[due]


class Variant:
    """A loss with the penalties that are due at some steps, compiled whole."""

    def __init__(self, whole: CompiledLoss, moment: StepInputs, imports: Mapping[Node, Any]):
        self.player, self.keep = whole.player, whole.keep
        self.nodes = [node for node in self.player.program.nodes if node in self.player.program.imported]
        self.weights = moving_weights(self.player.plan)
        with torch.no_grad(), nothing_moved(self.player.program):
            recorder = Recorder(moment.noise)
            loss, _, _ = self.player.loss(_with_noise(moment, recorder), imports)
            self.expected, self.asked = float(loss), list(recorder.asked)
        fixed = moment.rows, moment.step, moment.pair_block, moment.noise.device, moment.noise.dtype
        self._run = whole.compiler.compile(_own_code(self._function(*fixed), self.player.plan.name), fullgraph=True)

    def _function(self, rows: int, step: int, pair_block: int, device: Any, dtype: torch.dtype) -> Callable[..., Any]:
        player, keep, nodes = self.player, self.keep, self.nodes

        def loss(data: Any, numbers: Any, weights: Any, imported: Any) -> Any:
            moment: Any = StillMoment(data, Table(numbers, device, dtype), rows, step, pair_block, weights)
            total, means, values = player.loss(moment, Handed(nodes, imported))
            return total, means, [_detached(values[i]) for i in keep]

        return loss

    def __call__(self, moment: StepInputs, imports: Mapping[Node, Any]) -> tuple[Tensor, dict[str, Tensor], Values]:
        numbers = {asked.title: asked.draw(moment.noise) for asked in self.asked}
        weights = {weight.name: _filled(moment.at(weight), moment.noise) for weight in self.weights}
        total, means, kept = self._run(moment.data, numbers, weights, [_detached(imports[node]) for node in self.nodes])
        values: Values = [None] * len(self.player.program.nodes)
        for i, value in zip(self.keep, kept, strict=True):
            values[i] = value
        return total, means, values

    def try_out(self, moment: StepInputs, imports: Mapping[Node, Any]) -> None:
        """Compiles both directions, and raises where that fails or gives another loss. Leaves nothing behind."""
        with nothing_moved(self.player.program), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what compilers warn of is nothing that a user could mend
            loss, _, _ = self(moment, imports)
            torch.autograd.grad(loss, self.player.params, allow_unused=True)
        found = float(loss.detach())
        if abs(found - self.expected) > TOLERANCE * max(1.0, abs(self.expected)):
            raise ArithmeticError(f"compiled, the loss is {found:g} where it should be {self.expected:g}")


def moving_weights(plan: UpdatePlan) -> list[Weight]:
    """Those that differ from step to step."""
    weights = [e.weight for e in plan.update.maximize.walk() if isinstance(e, Weighted)]
    return list({w.name: w for w in weights if isinstance(w, Weight) and w.moves}.values())


def _with_noise(moment: StepInputs, noise: Any) -> StepInputs:
    return attrs.evolve(moment, noise=noise)


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _filled(value: float | Tensor, noise: Noise) -> Tensor:
    """A number as a tensor, made on its device: one that is copied there would be waited for."""
    return value if isinstance(value, Tensor) else torch.full((), value, dtype=noise.dtype, device=noise.device)


def _reason(error: Exception) -> str:
    """The first line that says something."""
    first, *others = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {first} {others[0]}" if first.endswith(":") and others else first


def _own_code(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function with a code object of its own: torch keeps what it compiled by code object, and only so much."""
    assert isinstance(function, types.FunctionType)
    code = function.__code__.replace(co_name=f"loss_of_{name}")
    return types.FunctionType(code, function.__globals__, code.co_name, None, function.__closure__)


@contextmanager
def nothing_moved(program: Program) -> Iterator[None]:
    """Whatever runs inside may move buffers, such as a running mean, and the global random generators: afterwards
    they are as they were, so that a resumed run, which compiles anew, goes on bit for bit."""
    device = next(program.parts.modules.parameters()).device
    generators = global_state(device)
    with buffers_kept(program):
        try:
            yield
        finally:
            set_global_state(generators, device)


@contextmanager
def buffers_kept(program: Program) -> Iterator[None]:
    """Afterwards the buffers are as they were."""
    buffers = list(program.parts.modules.buffers())
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)


# --- what stands in for a moment --------------------------------------------------------------------------------------


class StillMoment:
    """In place of `StepInputs`: a step on which these penalties are due, its moving weights as tensors."""

    def __init__(
        self,
        data: Any,
        noise: Table,
        rows: int,
        step: int,
        pair_block: int,
        weights: dict[str, Tensor],
    ):
        self.data, self.noise, self.rows, self.step, self.pair_block = data, noise, rows, step, pair_block
        self._weights = weights

    def at(self, weight: Weight) -> Any:
        return self._weights[weight.name] if weight.moves else weight.to


class Handed:
    """In place of a dictionary by node: torch 2.11 cannot compile one whose keys have a hash of their own."""

    def __init__(self, nodes: Sequence[Node], values: Sequence[Any]):
        self._pairs = list(zip(nodes, values, strict=True))

    def __getitem__(self, wanted: Node) -> Any:
        for node, value in self._pairs:
            if node is wanted:
                return value
        raise AssertionError("what an update imports is handed to it")


# --- what compiled updates hand over to one another -------------------------------------------------------------------

_TENSORS = (Read, View, Standard, Density, ClosedKL)


def needed(plan: Plan, index: int) -> tuple[tuple[Node, ...], frozenset[Node]]:
    """(what update `index` computes or is handed, what of it an earlier update hands over), where it is compiled.

    Compiled functions hand over tensors. A draw or a distribution is made anew by its name, where no part has moved
    since that it is made by; otherwise it comes as it is.
    """
    update, shared = plan.updates[index], plan.shared(index)
    moved = {part for earlier in plan.updates[:index] for part in earlier.trains}
    if plan.objective.order == "same point":
        moved = set()
    imported, computed = set(), set()

    def need(node: Node) -> None:
        if node in shared and (isinstance(node, _TENSORS) or moved & _made_by(node)):
            imported.add(node)
        elif node not in computed:
            computed.add(node)
            for parent in node.parents:
                need(parent)

    lowering = Lowering(plan.objective.joints, plan.traits, update.trains)
    for summand in update.summands:
        for leaf in nodes_of(summand.source, summand.term, lowering):
            need(leaf)
    return tuple(node for node in update.nodes if node in imported or node in computed), frozenset(imported)


def _made_by(node: Node) -> set[str]:
    parts = {getattr(below, "part", "") for below in ordered([node])}
    return parts | {part for below in ordered([node]) for part in getattr(below, "through", ())}
