"""What the figures of a step drive in the next one: gates of updates, and controlled weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from jointgen.compiler.measured import Condition, conditions_of, drives_of
from jointgen.data.step_inputs import StepInputs
from jointgen.objectives.gates import STEP, Comparison
from jointgen.runtime.devices import in_float64

if TYPE_CHECKING:
    from jointgen.compiler.plan import Plan, UpdatePlan


class DrivenState:
    """The last figures that gates read, and the values of controlled weights: part of a checkpoint.

    Attributes:
        figures: () each by name, as they were in the last step that had them; the same in every process.
        weights: () the value of each controlled weight by name.
        averages: () the running mean of each control that has one, by the weight's name.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = device
        self.figures: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor] = {}
        self.averages: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """The figures, weights and averages."""
        return {"figures": dict(self.figures), "weights": dict(self.weights), "averages": dict(self.averages)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned. Raises ValueError where it is something else."""
        kinds = ("figures", "weights", "averages")
        for kind in kinds:
            if wrong := [name for name, value in state[kind].items() if value.shape != ()]:
                raise ValueError(f"{kind}.{wrong[0]}: expected one number")
        for kind in kinds:
            setattr(self, kind, {name: value.to(self._device) for name, value in state[kind].items()})


class Drivers:
    """The gates and controlled weights of one plan, which may have none.

    Args:
        state: What the run has of them so far.
    """

    def __init__(self, plan: Plan, state: DrivenState):
        self.plan, self.state = plan, state
        self._conditions = {condition.update: condition for condition in conditions_of(plan)}
        self._drives = drives_of(plan)
        self._read = list(dict.fromkeys(name for one in self._conditions.values() for name in one.figures))
        driving = [*self._read, *(name for drive in self._drives for name in drive.control.figures)]
        labels = {s.label for update in plan.updates for s in update.summands}
        labels |= {f"{update.name}/loss" for update in plan.updates}
        self.read_updates = frozenset(name.split("/", 1)[0] for name in driving)
        self.read_critics = frozenset(name.split("/", 1)[0] for name in driving if name not in labels)

    @property
    def gated(self) -> Collection[str]:
        """The names of the updates that run only where a condition holds."""
        return self._conditions.keys()

    def reads_critics_of(self, plan: UpdatePlan) -> bool:
        """Whether a gate or a control reads figures of a critic that an update trains, so that each step makes them."""
        return any(output.ratio.name in self.read_critics for output in plan.critics)

    # --- gates

    def due(self, inputs: StepInputs) -> dict[str, bool]:
        """Say which updates run in a step. A gate is open while a figure that it reads does not exist yet."""
        step, figures = inputs.step, self._numbers() if self._conditions else {}
        figures[STEP] = float(step)
        found: dict[str, bool] = {}

        def is_due(name: str) -> bool:
            if name not in found:
                update, condition = updates[name], self._conditions.get(name)
                found[name] = step % update.every == 0 and (
                    condition is None
                    or (self._is_open(condition, figures, inputs) and not any(map(is_due, condition.unless)))
                )
            return found[name]

        updates = {one.name: one.update for one in self.plan.updates}
        return {name: is_due(name) for name in updates}

    def _is_open(self, condition: Condition, figures: Mapping[str, float], inputs: StepInputs) -> bool:
        def compare(comparison: Comparison) -> bool:
            left, right = (float(side.value(figures, inputs.at)) for side in condition.sides[comparison])
            return left > right if comparison.sign == ">" else left < right

        is_unknown = any(name not in figures for name in condition.figures)
        return condition.gate is None or is_unknown or condition.gate.holds(compare)

    def _numbers(self) -> dict[str, float]:
        """The last figures that gates read, as numbers: the one place where a step waits for the device."""
        known = [name for name in self._read if name in self.state.figures]
        values = torch.stack([in_float64(self.state.figures[name]) for name in known]).tolist() if known else []
        return dict(zip(known, values, strict=True))

    # --- weights

    def scales(self, inputs: StepInputs) -> dict[str, Tensor]:
        """Return the value of each controlled weight in a step, () each by name."""
        weights = self.state.weights
        for drive in self._drives:
            if drive.weight.name not in weights:
                noise = inputs.noise
                start = torch.full((), drive.weight.to, dtype=noise.dtype, device=noise.device)
                weights[drive.weight.name] = start
        return {drive.weight.name: weights[drive.weight.name] for drive in self._drives}

    def take(self, figures: Mapping[str, Tensor], inputs: StepInputs) -> None:
        """Take in the figures of a step that has been made, which are the same in every process."""
        self.state.figures |= {name: figures[name] for name in self._read if name in figures}
        moved: dict[str, Tensor] = {}
        for drive in self._drives:
            if drive.control.is_known(figures):
                name, control = drive.weight.name, drive.weight.control
                assert control is not None
                value = torch.as_tensor(drive.control.value(figures, inputs.at))
                if control.average:
                    before = self.state.averages.get(name, value)
                    value = self.state.averages[name] = torch.lerp(value, before, control.average)
                now = self.state.weights[name]
                new = now * torch.exp(control.gain * value) if control.kind == "exp" else now + control.gain * value
                moved[name] = new.to(now.dtype).clamp(control.low, control.high)
        self.state.weights |= moved
