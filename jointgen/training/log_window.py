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


MOST_HELD = 64
"""The number of steps whose figures are held one by one; then they are copied into one tensor."""


class LogWindow:
    """Collects the figures of each step between two log events.

    They stay on the device, and nothing waits for it before `means`.

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
        self._held: dict[tuple[str, ...], list[Tensor]] = {}  # names -> those of the last steps, ()
        self._rows: dict[tuple[str, ...], list[Tensor]] = {}  # names -> (steps, names) of those before
        self._steps: dict[tuple[str, ...], list[int]] = {}

    def add(self, figures: Mapping[str, Tensor], step: int, will_change: bool = False) -> None:
        """Add the figures of a step, () each by name.

        Args:
            will_change: Whether the next step writes into the same memory, as CUDA graphs do.
        """
        self.steps += 1
        names = tuple(figures)
        held = self._held.setdefault(names, [])
        held += [value.float() for value in figures.values()]
        self._steps.setdefault(names, []).append(step)
        if will_change or len(held) >= MOST_HELD * len(names):
            self._copy(names)

    def _copy(self, names: tuple[str, ...]) -> None:
        if held := self._held.pop(names, []):
            self._rows.setdefault(names, []).append(torch.stack(held).unflatten(0, (-1, len(names))))

    def _tables(self) -> dict[tuple[str, ...], Tensor]:
        """Return the figures that steps have in common, (steps, names)."""
        for names in [*self._held]:
            self._copy(names)
        return {names: torch.cat(self._rows[names]) for names in self._steps}

    @property
    def seconds(self) -> float:
        """Seconds since the window began."""
        return time.monotonic() - self._began

    def means(self) -> dict[str, float]:
        """Return the mean of each figure over the steps that have it."""
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names, rows in self._tables().items():
            for name, value in zip(names, rows.sum(0).tolist(), strict=True):
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + len(rows)
        return {name: sums[name] / counts[name] for name in sums}

    def first_non_finite(self) -> tuple[int, str] | None:
        """Return (step, name) of the first figure that is not finite. A term comes before the loss that it spoils."""
        found = [
            (self._steps[names][row], names[column])
            for names, rows in self._tables().items()
            for row, column in (~torch.isfinite(rows)).nonzero()[:1].tolist()
        ]
        return min(found, key=lambda item: item[0]) if found else None

    def state_dict(self) -> dict[str, Any]:
        """Return the figures of the window so far."""
        rows = [{"names": list(n), "rows": rows, "at": self._steps[n]} for n, rows in self._tables().items()]
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
        self._held = {}
        self._rows = {tuple(held.names): [t.to(self._device)] for held, t in zip(saved.rows, tensors, strict=True)}
        self._steps = {tuple(held.names): held.at for held in saved.rows}
