"""The figures of the steps between two log events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from jointgen.config.documents import as_document
from jointgen.config.fields import non_negative


@attrs.frozen
class SavedRows:
    """The plain values of the rows of a saved window: the names of the figures, and the steps that have them."""

    names: list[str]
    at: list[int] = attrs.field(validator=non_negative)


@attrs.frozen
class SavedWindow:
    """The plain values of a saved window."""

    steps: int = attrs.field(validator=non_negative)
    rows: list[SavedRows]


class LogWindow:
    """Collects the figures of each step between two log events.

    They stay on the device: one operation a step, and nothing waits for the device before `means`.

    Args:
        device: The device that restored figures go to.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = device
        self.clear()

    def clear(self) -> None:
        """Begin the next window."""
        self.steps, self._began = 0, time.monotonic()
        # updates that are not due leave figures out, so each set of names has rows and steps of its own
        self._rows: dict[tuple[str, ...], list[Tensor]] = {}  # names -> (names,) float32 of each step
        self._steps: dict[tuple[str, ...], list[int]] = {}

    def add(self, figures: Mapping[str, Tensor], step: int) -> None:
        """Add the figures of a step, () each by name."""
        self.steps += 1
        names = tuple(figures)
        self._rows.setdefault(names, []).append(torch.stack([value.float() for value in figures.values()]))
        self._steps.setdefault(names, []).append(step)

    @property
    def seconds(self) -> float:
        """Seconds since the window began."""
        return time.monotonic() - self._began

    def means(self) -> dict[str, float]:
        """Return the mean of each figure over the steps that have it."""
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names, rows in self._rows.items():
            for name, value in zip(names, torch.stack(rows).sum(0).tolist(), strict=True):
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + len(rows)
        return {name: sums[name] / counts[name] for name in sums}

    def first_non_finite(self) -> tuple[int, str] | None:
        """Return (step, name) of the first figure that is not finite. A term comes before the loss that it spoils."""
        found = [
            (self._steps[names][row], names[column])
            for names, rows in self._rows.items()
            for row, column in (~torch.isfinite(torch.stack(rows))).nonzero()[:1].tolist()
        ]
        return min(found, key=lambda item: item[0]) if found else None

    def state_dict(self) -> dict[str, Any]:
        """Return the figures of the window so far."""
        rows = [{"names": list(n), "rows": torch.stack(rows), "at": self._steps[n]} for n, rows in self._rows.items()]
        return {"steps": self.steps, "rows": rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the figures, on this window's device. Raises ValueError where it is the state of no window."""
        rows = [{"names": held["names"], "at": held["at"]} for held in state["rows"]]
        saved = as_document({"steps": state["steps"], "rows": rows}, SavedWindow)
        tensors = [held["rows"] for held in state["rows"]]
        for n, (held, tensor) in enumerate(zip(saved.rows, tensors, strict=True)):
            if tensor.shape != (len(held.at), len(held.names)) or len(held.at) > saved.steps:
                raise ValueError(f"rows[{n}]: {len(held.at)} steps of {saved.steps}, and figures {tuple(tensor.shape)}")
        self.steps = saved.steps
        self._rows = {tuple(held.names): list(t.to(self._device)) for held, t in zip(saved.rows, tensors, strict=True)}
        self._steps = {tuple(held.names): held.at for held in saved.rows}
