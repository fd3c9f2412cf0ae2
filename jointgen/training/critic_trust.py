"""Whether the ratio of a critic can be trusted, judged from the figures of its two sides while it trains.

A critic f that is the log-ratio log a/b of its two sides fulfils E_b exp(f) = 1 and E_a exp(-f) = 1. These are means of
heavy-tailed numbers, so their standard errors say little. For n rows in K log events, this holds for any tails:

- Above. exp(f) is positive and of mean 1 whatever the critic learned before, so by Markov's inequality the product of
  K events' means exceeds 4^K with probability 4^-K at most: 1 in 1024 for K = 5.
- Below. If at least 3/4 of a's draws have f <= log c, the mean of min(exp(f), c) under b is 3/4 or more and its
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

from jointgen.compiler.plan import Plan
from jointgen.config.documents import as_document
from jointgen.config.fields import non_negative
from jointgen.objectives.expressions import SIDES
from jointgen.runs.records import CriticVerdict
from jointgen.text import shortened

MIN_EVENTS, MIN_ROWS = 5, 500
"""The fewest log events, and the fewest rows of each side, that a verdict is based on."""
DISTRUST_NATS, TRUST_NATS = math.log(4.0), math.log(2.0)
"""Trust ends where an identity's log-mean exceeds the first; it returns after as many events below the second."""
SEPARATING_ACCURACY = 0.99
"""The accuracy beyond which a critic tells nearly every row apart."""

_IDENTITIES = tuple(f"{side}_log_mean_exp" for side in SIDES)
_MEANS = (*(f"{side}_{figure}" for side in SIDES for figure in ("mean", "accuracy")), "saturation")
_FIGURES = (*_MEANS, *_IDENTITIES, "max_abs")


@attrs.define
class Critic:
    """The record of one critic: its last figures, and whether it is trusted.

    Args:
        name: The name of its ratio.
        num: The distribution above, of the positive side.
        den: The distribution below, of the negative side.
        is_log_ratio: Whether it estimates a log-ratio; no other critic is judged.
        step: The step of its last log event.
        events: The figures of its last log events.
        distrusted: The step since which it is not trusted; None if it is.
        sound: The number of log events in a row in which its identities have held again.
        is_written: Whether its update is written by hand, so that what it estimates is not known.
    """

    name: str
    num: str
    den: str
    is_log_ratio: bool
    step: int = attrs.field(default=0, validator=non_negative)
    events: list[dict[str, float]] = attrs.field(factory=list)
    distrusted: int | None = attrs.field(default=None, validator=non_negative)
    sound: int = attrs.field(default=0, validator=non_negative)
    is_written: bool = False

    @property
    def log_ratio(self) -> str:
        """The log-ratio as text, with parentheses around a mixture: "log q(x)/(0.5 p(x) + 0.5 r(x))"."""
        return "log " + "/".join(f"({side})" if " + " in side else side for side in (self.num, self.den))

    @property
    def sides(self) -> str:
        """The sides as text, with what the critic is of them: "score q(x) : p(x)"."""
        return f"{'critic' if self.is_written else 'score'} {self.num} : {self.den}"

    def has_ratio_of(self, other: Critic) -> bool:
        """Return whether both estimate the same ratio."""
        return attrs.astuple(self)[:4] == attrs.astuple(other)[:4]

    def figures(self) -> dict[str, float]:
        """Return the figures over the last log events together."""
        found: dict[str, float] = {}
        for name in _FIGURES:
            if values := self._values(name):
                pooled = _log_mean_exp(values) if name in _IDENTITIES else sum(values) / len(values)
                found[name] = max(values) if name == "max_abs" else pooled
        return found

    def _values(self, figure: str) -> list[float]:
        return [event[figure] for event in self.events if figure in event]

    def is_violated(self) -> bool:
        """Return whether an identity's mean is too large (geometric mean over events) or too small (over all rows)."""
        identities = [values for values in map(self._values, _IDENTITIES) if values]
        return any(sum(v) >= len(v) * DISTRUST_NATS or _log_mean_exp(v) <= -DISTRUST_NATS for v in identities)

    def deviation(self) -> tuple[bool, bool]:
        """Return whether an identity's mean over all rows is still (above, below) 1."""
        pooled = self.identities().values()
        return any(value >= TRUST_NATS for value in pooled), any(value <= -TRUST_NATS for value in pooled)

    def identities(self) -> dict[str, float]:
        """Return the logs of the means over all rows, by the expectation that they estimate: E[q(x,z)] exp(-f)."""
        figures = self.figures()
        terms = {"negative": f"E[{self.den}] exp({self.name})", "positive": f"E[{self.num}] exp(-{self.name})"}
        logs = {text: figures.get(f"{side}_log_mean_exp") for side, text in terms.items()}
        return {text: value for text, value in logs.items() if value is not None}

    def describe_identities(self) -> str:
        """Return the means in words: "E[p(x,z)] exp(f) is 0.0003 and E[q(x,z)] exp(-f) is 0.98"."""
        return " and ".join(f"{text} is {_exp(value)}" for text, value in self.identities().items())


class CriticTrust:
    """Judges the critics of a run at each log event. All processes have the same figures and words.

    Args:
        rows: The rows of a batch.
    """

    def __init__(self, rows: int):
        self._rows, self._events = rows, max(MIN_EVENTS, math.ceil(MIN_ROWS / rows))
        self._critics: dict[str, Critic] = {}
        self._own_rows: dict[str, int] = {}  # of a source with a batch of its own

    def watch(self, plan: Plan) -> None:
        """Judge the ratios of a stage from now on; one of a name that stood for another ratio begins afresh."""
        outputs = [output for update in plan.updates for output in update.critics]
        self._own_rows = {o.ratio.name: o.node.batch for o in outputs if o.node.batch}
        for ratio in plan.objective.ratios.values():
            new = Critic(ratio.name, str(ratio.num), str(ratio.den), ratio.kind == "log_ratio")
            new.is_written = ratio.kind == "critic"
            old = self._critics.get(ratio.name)
            if old is None or not old.has_ratio_of(new):
                self._critics[ratio.name] = new

    def add(self, step: int, values: Mapping[str, float]) -> list[str]:
        """Take in the figures of a log event.

        Returns:
            A line for each critic that is no longer trusted from now on, or is trusted again.
        """
        lines = []
        for critic in self._critics.values():
            found = {name: values[f"{critic.name}/{name}"] for name in _FIGURES if f"{critic.name}/{name}" in values}
            if found:
                critic.events, critic.step = [*critic.events, found][-self._events :], step
                lines += [f"step {step}: {line}" for line in self._judge(critic, step)]
        return lines

    def _rows_of(self, critic: Critic) -> int:
        """The rows of the smaller side, over its last log events."""
        return min(self._rows, self._own_rows.get(critic.name, self._rows)) * len(critic.events)

    def _is_judged(self, critic: Critic) -> bool:
        return critic.is_log_ratio and len(critic.events) == self._events

    def _judge(self, critic: Critic, step: int) -> list[str]:
        if not self._is_judged(critic):
            return []
        critic.sound = 0 if any(critic.deviation()) else critic.sound + 1
        if critic.distrusted is None and critic.is_violated():
            critic.distrusted = step
            return [self._explain(critic)]
        if critic.distrusted is not None and critic.sound >= self._events:
            critic.distrusted = None
            return [f"critic {critic.name} can be trusted again: {critic.describe_identities()}"]
        return []

    def _explain(self, critic: Critic) -> str:
        """Say why a critic is not trusted, in the light of how it classifies."""
        figures, rows = critic.figures(), self._rows_of(critic)
        nats = f"about log {rows} = {math.log(rows):.1f} nats"
        accuracies = [figures[key] for key in (f"{side}_accuracy" for side in SIDES) if key in figures]
        accuracy = sum(accuracies) / len(accuracies)
        sides = f"accuracy {accuracy:.1%}, {figures['saturation']:.1%} of rows are saturated"
        above, below = critic.deviation()
        reasons = []
        if above:
            reasons.append(f"it overstates the log-ratio ({sides})")
        if below:
            apart = f"nearly every row is told apart, so the log-ratio is more than so many rows can tell ({nats})"
            missed = f"it is off, or the log-ratio is more than so many rows can tell ({nats})"
            reasons.append(f"{sides}: {apart if accuracy > SEPARATING_ACCURACY else missed}")
        return (
            f"critic {critic.name} cannot be trusted as {critic.log_ratio}: over {rows} rows "
            f"{critic.describe_identities()}, where {'both' if len(critic.identities()) > 1 else 'it'} should be 1; "
            f"{'; '.join(reasons)}"
        )

    def summary(self) -> dict[str, CriticVerdict]:
        """Return the verdicts by critic."""
        verdicts = {}
        for name, critic in self._critics.items():
            if critic.events:
                trusted = critic.distrusted is None if self._is_judged(critic) else None
                verdicts[name] = CriticVerdict(
                    ratio=critic.log_ratio if critic.is_log_ratio else critic.sides,
                    trusted=trusted,
                    distrusted_since=critic.distrusted,
                    step=critic.step,
                    rows=self._rows_of(critic),
                    figures=dict(critic.figures()),
                    note=self._explain(critic) if trusted is False else "",
                )
        return verdicts

    def state_dict(self) -> list[dict[str, Any]]:
        """Return what is known of each critic."""
        return [attrs.asdict(critic) for critic in self._critics.values()]

    def load_state_dict(self, state: Sequence[Mapping[str, Any]]) -> None:
        """Restore what is known of each critic. Raises ValueError where it is what no run knows."""
        critics = as_document(state, list[Critic])
        for critic in critics:
            for event in critic.events:
                judged = "saturation" in event and any(f"{side}_accuracy" in event for side in SIDES)
                if event.keys() - {*_FIGURES} or (critic.is_log_ratio and not judged):
                    raise ValueError(f"critic {critic.name}: no log event has just the figures {shortened([*event])}")
        self._critics = {critic.name: critic for critic in critics}


def _exp(nats: float) -> str:
    """Write exp(nats), which may be of any size."""
    return f"{math.exp(nats):.2g}" if abs(nats) < 50 else f"exp({nats:.0f})"


def _log_mean_exp(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values) / len(values))
