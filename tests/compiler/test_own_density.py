"""A draw that scores itself is asked to, exactly where the value is that very distribution's own draw."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from jointgen_families.gaussian import Gaussian
from support.models import small_model
from torch import Tensor, nn

from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.noise import NoiseSource
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.objectives import E, Objective, Update, elbo, log_ratio, p, q

asked: list[str] = []


class SelfScoring:
    """N(params, I) whose draws know their density; it notes who was asked."""

    def __init__(self, mean: Tensor):
        self.mean = mean

    def draw(self, noise: NoiseSource) -> SelfScored:
        return SelfScored(self, self.mean + noise.normal(*self.mean.shape[1:]))

    def log_prob(self, value: Tensor) -> Tensor:
        asked.append("distribution")
        return -0.5 * (value - self.mean).square().sum(1)


@attrs.frozen
class SelfScored:
    law: SelfScoring
    value: Tensor

    def read(self, reading: str) -> Tensor:
        return self.law.mean if reading == "mean" else self.value

    def log_prob(self) -> Tensor:
        asked.append("draw")
        return -0.5 * (self.value - self.law.mean).square().sum(1)


class SelfScoringModule(nn.Module):
    def forward(self, params: Tensor) -> SelfScoring:
        return SelfScoring(params[:, :2])


CASES = {
    "own draw": (E(q.xz, p.log_x_given_z - q.log_z_given_x), ["draw"]),
    "foreign draw": (E(p.xz, q.log("z|x", stop="x")), ["distribution"]),
    "held law": (E(q.xz, p.log_x_given_z - q.log("z|x", hold=True)), ["distribution"]),
    "stopped value": (E(q.xz, p.log_x_given_z - q.log("z|x", stop="z")), ["distribution"]),
    "re-paired value": (E(q.x * q.z, q.log_z_given_x) + elbo(q, p), ["distribution", "draw"]),
    "several draws": (E(q.xz, p.log_x_given_z - q.log_z_given_x, k=3, reduce="logmeanexp"), ["draw"]),
}


@pytest.mark.parametrize("name", CASES)
def test_who_scores_a_value(name: str) -> None:
    expression, expected = CASES[name]
    model = small_model(Objective.of(expression))
    model.parts.modules["encoder"].family = SelfScoringModule()
    asked.clear()
    model.update().gradient(model.inputs())
    assert asked == expected


def test_a_draw_of_an_earlier_update_is_a_foreign_point() -> None:
    """The decoder's update comes after the encoder moved: log q(z|x) there is of its new parameters, at the old z."""
    first = Update("encoder", elbo(q, p), trains="encoder")
    second = Update("decoder", E(q.xz, p.log_x_given_z + q.log_z_given_x), trains="decoder")
    model = small_model(Objective((first, second)))
    model.parts.modules["encoder"].family = SelfScoringModule()
    asked.clear()
    model.step()(lambda r: model.inputs(repetition=r))
    assert asked == ["draw", "distribution"]


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        (E(q.xz, p.log_x_given_z + p.log_z - q.log_z_given_x), True),
        (E(q.xz, p.log_x_given_z) + E(p.xz, q.log("z|x", stop="x")), False),
        (E(q.xz, p.log_x_given_z - q.log("z|x", hold=True)), False),
    ],
    ids=["ELBO", "second half", "held"],
)
def test_a_flow_without_an_inverse_serves_own_draws_only(
    expression: Any, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_way(self: Any, space: Space) -> Capabilities:
        return Capabilities({"sample": "exact"}, foreign_density="none" if self.scale == "per_element" else "analytic")

    monkeypatch.setattr(Gaussian, "capabilities", one_way)
    if fits:
        small_model(Objective.of(expression))
    else:
        with pytest.raises(ConfigError, match=r"encoder\.family: .* a density at points that it did not draw"):
            small_model(Objective.of(expression))


def test_a_new_reading_is_drawn_again_with_the_parameters_of_its_update() -> None:
    """The decoder's update reads mean q(z|x) beside the sample: both must be of the encoder as it then is."""
    first = Update("encoder", elbo(q, p), trains="encoder")

    def runs(**view: str) -> int:
        """The encoder's, in a step: its own update, and the decoder's where that draws again."""
        f = log_ratio(q.z, p.z, name="f", view=view)
        second = Update("decoder", E(q.xz, p.log_x_given_z - f), trains="decoder")
        return small_model(Objective((first, second))).plan.runs()["encoder"]

    assert runs() == 1
    assert runs(z="mean") == 2
