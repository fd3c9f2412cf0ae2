"""The compiled step: one list of operations and one loss per update, raw modules, no hidden wrappers.

Follows docs/noise-and-resume.md: noise is a pure function of (seed, step, name), gradients are reduced once per update,
absent gradients are zeros. Values of one update are reused by a later one of the same step where nothing that
the later one trains lies below them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from jointgen.compiler.nodes import Node
from jointgen.compiler.parts import Parts
from jointgen.compiler.plan import Plan
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.balance_scales import BalanceMeter, BalanceScales
from jointgen.engine.torch_compile import Compiler, needed
from jointgen.engine.update import Found, JointGraph, UpdateRunner, figures_of
from jointgen.errors import ConfigError
from jointgen.runtime.workers import Workers


class Step:
    """All updates of an objective, in its order.

    optimizers: by update name, those that step the parts it trains.  micro_batches: how many parts a batch's gradient
    is summed from.  compiler: compiles the losses.  scales: what the run has measured for balanced weights.
    """

    def __init__(
        self,
        plan: Plan,
        parts: Parts,
        workers: Workers,
        optimizers: Mapping[str, Sequence[torch.optim.Optimizer]],
        clip: float | None = None,
        micro_batches: int = 1,
        compiler: Compiler | None = None,
        scales: BalanceScales | None = None,
    ):
        assert compiler is None or not plan.one_graph, "compiled updates have graphs of their own: Plan.separate"
        self.plan, self.workers, self.optimizers, self.clip = plan, workers, optimizers, clip
        self.micro_batches = micro_batches
        self.same_point = plan.objective.order == "same point"
        if self.same_point:
            _check_same_point(plan)
        self.graph = JointGraph(plan, parts) if plan.one_graph else None
        runs = [needed(plan, i) if compiler else (u.nodes, plan.shared(i)) for i, u in enumerate(plan.updates)]
        self.updates = (
            self.graph.updates
            if self.graph
            else [
                UpdateRunner(u, plan, parts, shared, nodes=nodes)
                for u, (nodes, shared) in zip(plan.updates, runs, strict=True)
            ]
        )
        # a repetition draws anew, so it shares nothing with the first
        self.repeats = [UpdateRunner(u, plan, parts) if u.update.times > 1 else None for u in plan.updates]
        later = [frozenset().union(*(shared for _, shared in runs[i + 1 :])) for i in range(len(runs))]
        self.exports = [later[i].intersection(nodes) for i, (nodes, _) in enumerate(runs)]
        self.gauge = BalanceMeter(plan, parts, workers, BalanceScales() if scales is None else scales)
        self.compiler = compiler
        if compiler:
            for update, exports in zip(self.updates, self.exports, strict=True):
                update.compile(compiler, exports, update.plan.name)
            for repeated in filter(None, self.repeats):
                repeated.compile(compiler, frozenset(), f"{repeated.plan.name}, repeated,")

    def __call__(self, moment: Callable[[int], StepInputs], until_log: int | None = None) -> dict[str, Tensor]:
        """One step. `moment(r)` gives the data and noise of the r-th repetition. Returns detached scalars: terms and
        losses; and where an update is not due again within the `until_log` steps to the next log event, also what
        costs more, its critics' health and its gradient's norm."""
        if self.compiler:
            self.compiler.begin_step()
        first, moment, weights = self._weighed(moment)
        if self.graph is not None:
            stats = self.graph.gradient(first, self.workers.autocast, self.workers.gather if until_log == 0 else None)
        else:
            stats = self._in_turn(first, moment, until_log)
        if self.same_point:
            for update, found in zip(self.updates, stats, strict=True):
                self._apply(update, found, until_log == 0)
        return {name: value for found in [weights, *stats] for name, value in found.items()}

    def _weighed(
        self, moment: Callable[[int], StepInputs]
    ) -> tuple[list[StepInputs], Callable[[int], StepInputs], dict[str, Tensor]]:
        """The first repetition in micro-batches, the others and the figures, with what balanced weights are by now."""
        first = moment(0)
        if not self.gauge.weights:
            return first.split(self.micro_batches), moment, {}
        scales = self.gauge(first.split(self.micro_batches))
        first = attrs.evolve(first, scales=scales)
        values = {f"weight/{weight.name}": first.at(weight) for weight in self.gauge.weights}
        return first.split(self.micro_batches), lambda r: attrs.evolve(moment(r), scales=scales), values

    def _in_turn(
        self, moments: Sequence[StepInputs], moment: Callable[[int], StepInputs], until_log: int | None
    ) -> list[dict[str, Tensor]]:
        """Each update on a graph of its own, with the values of earlier ones handed over. The figures of each."""
        stats = []
        shared: list[dict[Node, Any]] = [{} for _ in moments]
        for i, update in enumerate(self.updates):
            if moments[0].step % update.plan.update.every:
                # it may have been the one to draw what a later update shares, so those are drawn without it
                self._draw_only(i, moments, shared)
                continue
            want_stats = until_log is not None and until_log < update.plan.update.every
            stats.append(self._gradient(update, moments, shared, self.exports[i], want_stats))
            if not self.same_point:
                self._apply(update, stats[-1], want_stats)
                self._repeat(i, moment)
        return stats

    def _gradient(
        self,
        update: UpdateRunner,
        moments: Sequence[StepInputs],
        shared: Sequence[dict[Node, Any]],
        exports: frozenset[Node] = frozenset(),
        want_stats: bool = False,
    ) -> dict[str, Tensor]:
        """Fills this process's gradients of one update, the mean over micro-batches, and `shared` with `exports`."""
        parts: list[Found] = []
        update.turn.begin()
        for moment, known in zip(moments, shared, strict=True):
            found, values = update.add_gradient(moment, known, self.workers.autocast(), 1 / len(moments))
            known.update({node: values[update.program.index[node]] for node in exports})
            parts.append((found, update.critic_outputs(moment, values) if want_stats else None))
        update.turn.end()
        return figures_of(update, parts, self.workers.gather if want_stats else None)

    def _draw_only(self, i: int, moments: Sequence[StepInputs], shared: Sequence[dict[Node, Any]]) -> None:
        if not self.exports[i]:
            return
        update = self.updates[i]
        for moment, known in zip(moments, shared, strict=True):
            with torch.no_grad():
                values = update.program.run(moment, known)
            known.update({node: values[update.program.index[node]] for node in self.exports[i]})

    def _repeat(self, i: int, moment: Callable[[int], StepInputs]) -> None:
        repeated = self.repeats[i]
        for r in range(1, self.updates[i].plan.update.times):
            assert repeated is not None
            moments = moment(r).split(self.micro_batches)
            self._gradient(repeated, moments, [{} for _ in moments])
            self._apply(repeated, {})

    def _apply(self, update: UpdateRunner, stats: dict[str, Tensor], want_stats: bool = False) -> None:
        """Reduces gradients and figures over the processes, clips by the global norm and steps. The norm, before
        clipping, is a figure where it is known: alone it costs a hundredth of a step of small networks."""
        gradients = [p.grad for p in update.params if p.grad is not None]
        self.workers.all_reduce_mean_([*gradients, *stats.values()])
        if self.clip is not None or want_stats:
            norm = torch.nn.utils.get_total_norm(gradients)
            stats[f"{update.plan.name}/grad_norm"] = norm
            if self.clip is not None:
                torch.nn.utils.clip_grads_with_norm_(update.params, self.clip, norm)
        for optimizer in self.optimizers[update.plan.name]:
            optimizer.step()
        update.turn.moved()


def _check_same_point(plan: Plan) -> None:
    trained: dict[str, str] = {}
    for update in plan.updates:
        if update.update.times > 1 or update.update.every > 1:
            raise ConfigError(
                f"objective.order: 'same point' runs each update once a step, {update.name} asks otherwise"
            )
        for part in update.trains:
            if part in trained:
                raise ConfigError(
                    f"objective.order: at the 'same point', {trained[part]} and {update.name} both train {part}"
                )
            trained[part] = update.name
