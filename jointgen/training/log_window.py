"""The figures of each step between two log events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class LogWindow:
    """Each step's figures between two log events, kept on the device: one operation a step, nothing waited for."""

    def __init__(self) -> None:
        self.steps, self._began = 0, time.monotonic()
        self._rows: dict[tuple[str, ...], list[Tensor]] = {}  # (figures,) float32 of each step
        self._at: dict[tuple[str, ...], list[int]] = {}  # the steps

    def add(self, stats: Mapping[str, Tensor], step: int) -> None:
        """Figures of one step. Which there are may differ between steps (an update that is not due)."""
        self.steps += 1
        names = tuple(stats)
        self._rows.setdefault(names, []).append(torch.stack([value.detach().float() for value in stats.values()]))
        self._at.setdefault(names, []).append(step)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def means(self) -> dict[str, float]:
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names, rows in self._rows.items():
            for name, value in zip(names, torch.stack(rows).sum(0).tolist(), strict=True):
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + len(rows)
        return {name: sums[name] / counts[name] for name in sums}

    def first_broken(self) -> tuple[int, str] | None:
        """(step, name) of the first figure that was not finite. Terms stand before the loss that they spoil."""
        found = [
            (self._at[names][row], names[column])
            for names, rows in self._rows.items()
            for row, column in (~torch.isfinite(torch.stack(rows))).nonzero()[:1].tolist()
        ]
        return min(found, key=lambda item: item[0]) if found else None

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to go on with the same window."""
        rows = [{"names": list(n), "rows": torch.stack(rows), "at": self._at[n]} for n, rows in self._rows.items()]
        return {"steps": self.steps, "rows": rows}

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.steps = state["steps"]
        self._rows = {tuple(held["names"]): list(held["rows"].to(device)) for held in state["rows"]}
        self._at = {tuple(held["names"]): list(held["at"]) for held in state["rows"]}
