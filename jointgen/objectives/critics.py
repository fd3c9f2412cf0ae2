"""The recipe table that objectives share for their critics. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from jointgen.config.structure import PenaltyField, positive
from jointgen.errors import ConfigError, suggest
from jointgen.objectives.distributions import Marginal, Product, as_product
from jointgen.objectives.expressions import Ratio, Seen, log_ratio


@attrs.frozen
class CriticTable:
    """What every critic of an objective shares.

    view: which reading of a variable it sees, {x = "relaxed"}.  penalties: components, such as r1.
    steps: how often its update runs in a step.
    """

    view: dict[str, str] = attrs.field(factory=dict)
    penalties: list[PenaltyField] = attrs.field(factory=list)
    steps: int = attrs.field(default=1, validator=positive)

    def log_ratio(
        self,
        name: str,
        num: Marginal | Product,
        den: Marginal | Product,
        view: Mapping[str, Seen] | None = None,
        **options: Any,
    ) -> Ratio:
        """A log-ratio whose critic has these settings; views of variables that it does not see are left out.

        view: the objective's own, where the recipe says nothing else.

        Raises ConfigError for a view of a variable that its joints do not have.
        """
        seen = as_product(num).variables
        there = {v for side in (num, den) for marginal in as_product(side).marginals for v in marginal.joint.variables}
        for variable in self.view:
            if variable not in there:
                raise ConfigError(f"objective.critic.view: no variable {variable!r}{suggest(variable, there)}")
        view = {**(view or {}), **{variable: how for variable, how in self.view.items() if variable in seen}}
        return log_ratio(num, den, name=name, view=view, penalties=tuple(self.penalties), times=self.steps, **options)
