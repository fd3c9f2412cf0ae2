"""Histories: draws of the past that a critic is shown in place of new ones (Shrivastava et al. 2017; CycleGAN's pool).

The program of a step only reads a history: which rows it takes is named noise. Once an update has run, its new draws
go in, gathered over micro-batches and processes in the order of the batch, so that every process holds the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from jointgen.compiler.nodes import PastNode
from jointgen.compiler.plan import UpdatePlan
from jointgen.config.documents import as_document
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.program import Program, Values, rows_of_the_past
from jointgen.runtime.workers import Workers


@attrs.define(eq=False)
class PastRows:
    """The stored rows of one history.

    Args:
        size: How many rows it holds.
        rows: (size, *shape) by variable; of these, the first `count` are draws.
        count: How many there are so far. Draws are taken from it once it is full.
    """

    size: int
    rows: dict[str, Tensor] = attrs.field(factory=dict)
    count: int = 0

    @property
    def is_full(self) -> bool:
        """Whether it holds as many rows as it can."""
        return self.count == self.size

    @torch.no_grad()
    def add(self, new: Mapping[str, Tensor], is_taken: Tensor, slots: Tensor) -> None:
        """Take in the draws of a batch, (B, *shape) by variable.

        Until it is full, the first rows are appended. From then on each row that a stored one replaced takes the place
        of that one; of several, the last.

        Args:
            is_taken: (B,) bool, whether a stored row took the row's place.
            slots: (B,) int64, the place of that row.
        """
        for variable, value in new.items():
            if variable not in self.rows:
                self.rows[variable] = value.new_zeros(self.size, *value.shape[1:])
        if not self.is_full:
            added = min(len(slots), self.size - self.count)
            for variable, value in new.items():
                self.rows[variable][self.count : self.count + added] = value[:added]
            self.count += added
            return
        numbers = torch.where(is_taken, torch.arange(len(slots), device=slots.device), -1)
        last = torch.full((self.size,), -1, device=slots.device).scatter_reduce(0, slots, numbers, "amax")
        for variable, value in new.items():
            kept = self.rows[variable]
            taken = value[last.clamp(min=0)]
            self.rows[variable] = torch.where((last >= 0).reshape(-1, *[1] * (kept.ndim - 1)), taken, kept)


class Histories:
    """All histories of a run, by name: a part of its checkpoints."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = device
        self.past: dict[str, PastRows] = {}

    def add(
        self, plan: UpdatePlan, program: Program, batches: Sequence[tuple[StepInputs, Values]], workers: Workers
    ) -> None:
        """Take in what an update drew, from the inputs and the values of its micro-batches."""
        nodes: dict[str, list[PastNode]] = {}
        for node in plan.nodes:
            if isinstance(node, PastNode):
                nodes.setdefault(node.history, []).append(node)
        for name, of_it in nodes.items():
            history = self.past.setdefault(name, PastRows(of_it[0].size))
            new = {}
            for node in of_it:
                drawn = [values[program.index[node.value]].detach() for _, values in batches]
                new[node.variable] = workers.gather(torch.cat(drawn))
            chosen = [rows_of_the_past(of_it[0], inputs) for inputs, _ in batches]
            is_taken, slots = (workers.gather(torch.cat(each)) for each in zip(*chosen, strict=True))
            history.add(new, is_taken, slots)

    def state_dict(self) -> dict[str, Any]:
        """The rows and their number, by the name of the history."""
        return {name: {"rows": dict(one.rows), "count": one.count} for name, one in self.past.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned. Raises ValueError where it is something else."""
        counts = as_document({name: held["count"] for name, held in state.items()}, dict[str, int])
        loaded = {}
        for name, held in state.items():
            sizes = {len(rows) for rows in held["rows"].values()}
            if len(sizes) != 1 or not 0 <= counts[name] <= min(sizes):
                raise ValueError(f"{name}: expected rows of one number, and as many draws at the most")
            rows = {variable: value.to(self._device) for variable, value in held["rows"].items()}
            loaded[name] = PastRows(min(sizes), rows, counts[name])
        self.past = loaded
