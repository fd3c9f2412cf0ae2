"""The critics' health while they train: figures of a critic's two sides, and whether its ratio can be trusted.

A critic f that is the log-ratio log a/b of its two sides fulfils E_b exp(f) = 1 and E_a exp(-f) = 1. These are means of
heavy-tailed numbers, so their standard errors say little; what holds for any tails is this, of n rows in K log events:

- Above. exp(f) is positive and of mean 1 whatever the critic learned before, so by Markov's inequality the product of
  K events' means exceeds 4^K with probability 4^-K at most: 1 in 1024 for K = 5.
- Below. Where at least 3/4 of a's draws have f <= log c, the mean of min(exp(f), c) under b is 3/4 or more and its
  second moment c times that at most, so by Bernstein's inequality n rows' mean of exp(f) is below 1/4 with
  probability exp(-n / 8c) at most, which is 1 in 1000 for c = n / 56. So f is not the log-ratio, or the log-ratio of
  a quarter of a's draws is of the order of log n nats. No estimate from n rows can vouch for more than that (McAllester
  and Stratos 2020), and a mean over b does not even see it (Chatterjee and Diaconis 2018).

The identities are necessary, not sufficient: f = 0 fulfils them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from jointgen.compiler.plan import SIDES, Plan
from jointgen.engine.critic_statistics import _is_log_ratio

EVENTS, ROWS = 5, 500
"""A verdict takes so many log events at least, and so many rows of each side."""
FACTOR, AGAIN = math.log(4.0), math.log(2.0)
"""Identities that are off by the one end the trust; within the other for as many log events again, it begins anew."""
APART = 0.99
"""The accuracy beyond which the words say that a critic tells the sides apart."""


# --- figures ----------------------------------------------------------------------------------------------------------


_MEANS = (*(f"{side}_{what}" for side in SIDES for what in ("mean", "accuracy")), "saturation")
_IDENTITIES = tuple(f"{side}_log_mean_exp" for side in SIDES)
_FIGURES = (*_MEANS, *_IDENTITIES, "max_abs")


# --- what is made of them ---------------------------------------------------------------------------------------------


@attrs.define
class Critic:
    """What is known of one critic: the figures of its last log events, and since which step it is not trusted."""

    name: str
    num: str
    den: str
    is_log_ratio: bool
    step: int = 0
    events: list[dict[str, float]] = attrs.field(factory=list)
    distrusted: int | None = None
    sound: int = 0  # so many log events in a row, its identities have held again

    def is_of(self, other: Critic) -> bool:
        """Whether both are of the same ratio."""
        return attrs.astuple(self)[:4] == attrs.astuple(other)[:4]

    def figures(self) -> dict[str, float]:
        """Over the last log events together."""
        found: dict[str, float] = {}
        for what in _FIGURES:
            if values := self._values(what):
                pooled = _log_mean_exp(values) if what in _IDENTITIES else sum(values) / len(values)
                found[what] = max(values) if what == "max_abs" else pooled
        return found

    def _values(self, what: str) -> list[float]:
        return [event[what] for event in self.events if what in event]

    def is_violated(self) -> bool:
        """Whether an identity's mean is too large, geometrically over log events, or too small, over all rows."""
        identities = [values for values in map(self._values, _IDENTITIES) if values]
        return any(sum(v) >= len(v) * FACTOR or _log_mean_exp(v) <= -FACTOR for v in identities)

    def off(self) -> tuple[bool, bool]:
        """Whether an identity's mean over all rows is (above, below) 1 still."""
        pooled = self.identities().values()
        return any(value >= AGAIN for value in pooled), any(value <= -AGAIN for value in pooled)

    def identities(self) -> dict[str, float]:
        """Logs of the means over all rows, by what they are the means of: E[q(x,z)] exp(-f)."""
        figures = self.figures()
        terms = {"negative": f"E[{self.den}] exp({self.name})", "positive": f"E[{self.num}] exp(-{self.name})"}
        logs = {text: figures.get(f"{side}_log_mean_exp") for side, text in terms.items()}
        return {text: value for text, value in logs.items() if value is not None}


class CriticTrust:
    """Watches the critics of a run with `rows` rows in a batch. Processes all have the same figures and words."""

    def __init__(self, rows: int):
        self._rows, self._events = rows, max(EVENTS, math.ceil(ROWS / rows))
        self._critics: dict[str, Critic] = {}

    def watch(self, plan: Plan) -> None:
        """The ratios of a stage. One that was another before is judged afresh."""
        for ratio in plan.objective.ratios.values():
            new = Critic(ratio.name, str(ratio.num), str(ratio.den), _is_log_ratio(ratio))
            old = self._critics.get(ratio.name)
            if old is None or not old.is_of(new):
                self._critics[ratio.name] = new

    def add(self, step: int, values: Mapping[str, float]) -> list[str]:
        """A log event's figures. Returns what is to be said: a line where trust ends, or begins anew."""
        said = []
        for critic in self._critics.values():
            found = {what: values[f"{critic.name}/{what}"] for what in _FIGURES if f"{critic.name}/{what}" in values}
            if found:
                critic.events, critic.step = [*critic.events, found][-self._events :], step
                said += [f"step {step}: {line}" for line in self._judge(critic, step)]
        return said

    def _is_judged(self, critic: Critic) -> bool:
        return critic.is_log_ratio and len(critic.events) == self._events

    def _judge(self, critic: Critic, step: int) -> list[str]:
        if not self._is_judged(critic):
            return []
        critic.sound = 0 if any(critic.off()) else critic.sound + 1
        if critic.distrusted is None and critic.is_violated():
            critic.distrusted = step
            return [self._words(critic)]
        if critic.distrusted is not None and critic.sound >= self._events:
            critic.distrusted = None
            return [f"critic {critic.name} can be trusted again: {_identities(critic)}"]
        return []

    def _words(self, critic: Critic) -> str:
        return (
            f"critic {critic.name} cannot be trusted as log {critic.num}/{critic.den}: over {self._seen(critic)} rows "
            f"{_identities(critic)}, where {'both' if len(critic.identities()) > 1 else 'it'} should be 1; "
            f"{'; '.join(self._reasons(critic))}"
        )

    def _reasons(self, critic: Critic) -> list[str]:
        """Why, in the light of how the critic classifies."""
        figures, rows = critic.figures(), self._seen(critic)
        nats = f"about log {rows} = {math.log(rows):.1f} nats"
        found_right = [figures[key] for key in (f"{side}_accuracy" for side in SIDES) if key in figures]
        accuracy = sum(found_right) / len(found_right)
        sides = f"accuracy {accuracy:.1%}, {figures['saturation']:.1%} of rows are saturated"
        above, below = critic.off()
        found = []
        if above:
            found.append(f"it overstates the log-ratio ({sides})")
        if below:
            apart = f"nearly every row is told apart, so the log-ratio is more than so many rows can tell ({nats})"
            missed = f"it is off, or the log-ratio is more than so many rows can tell ({nats})"
            found.append(f"{sides}: {apart if accuracy > APART else missed}")
        return found

    def _seen(self, critic: Critic) -> int:
        return self._rows * len(critic.events)

    def summary(self) -> dict[str, dict[str, Any]]:
        """By critic: its ratio, whether it is trusted (None: a score, or too few log events), since when not, and its
        figures over `rows` rows of each side up to `step`."""
        return {name: self._of(critic) for name, critic in self._critics.items() if critic.events}

    def _of(self, critic: Critic) -> dict[str, Any]:
        trusted = critic.distrusted is None if self._is_judged(critic) else None
        return {
            "ratio": f"log {critic.num}/{critic.den}" if critic.is_log_ratio else f"score {critic.num} : {critic.den}",
            "trusted": trusted,
            "distrusted_since": critic.distrusted,
            "step": critic.step,
            "rows": self._seen(critic),
            "figures": critic.figures(),
            "note": self._words(critic) if trusted is False else "",
        }

    def state_dict(self) -> list[dict[str, Any]]:
        return [attrs.asdict(critic) for critic in self._critics.values()]

    def load_state_dict(self, state: Sequence[Mapping[str, Any]]) -> None:
        self._critics = {critic["name"]: Critic(**critic) for critic in state}


def distrusted(summary: Mapping[str, Any]) -> list[str]:
    """A line for each critic that, by a run's summary, could not be trusted when it was last looked at."""
    critics = summary.get("critics", {}).values()
    return [f"step {critic['step']}: {critic['note']}" for critic in critics if critic["trusted"] is False]


def _identities(critic: Critic) -> str:
    """E[p(x,z)] exp(f) is 0.0003 and E[q(x,z)] exp(-f) is 0.98"""
    return " and ".join(f"{text} is {_exp(value)}" for text, value in critic.identities().items())


def _exp(nats: float) -> str:
    """A number by its logarithm, which may be of any size."""
    return f"{math.exp(nats):.2g}" if abs(nats) < 50 else f"exp({nats:.0f})"


def _log_mean_exp(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values) / len(values))
