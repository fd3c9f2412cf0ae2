"""Particles as a root and SVGD in the engine; the target of modes; fair bits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from jointgen_families.bits import Bits
from jointgen_families.particles import Modes, Particles
from jointgen_vae.reductions import Stein
from support.models import small_model

from jointgen.contracts.noise import Noise
from jointgen.engine.gradient_check import check_ownership
from jointgen.errors import ConfigError
from jointgen.objectives import E, Objective, joint_from_text, q

DOUBLE = torch.float64
C = joint_from_text("c", "c(z)", {"c(z)": "particles"})
T = joint_from_text("t", "t(z)", {"t(z)": "target"})
SVGD = E(q.x * C.z, T.log("z"), k=6, reduce="stein", wrt="z")


def model_of(rows: int = 6) -> Any:
    particles = {"type": "particles", "rows": rows, "size": 2}
    priors = {"particles": particles, "target": {"type": "modes", "modes": 3}}
    return small_model(Objective.of(SVGD), priors=priors, prior=None, encoder=None, decoder=None, discriminator=None)


def test_particles_take_one_step_of_svgd() -> None:
    """Each particle moves by phi / K times the rate, phi of Liu & Wang 2016, eq. 8, from the target's own score."""
    model = model_of().double()
    module: Any = model.parts.modules["particles"]
    before = module.particles.detach().clone()
    at = before.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model.parts.modules["target"](6).log_prob(at).sum(), at)
    phi = Stein().direction(before[None], slope[None])[0]
    model.step(lr=0.3)(lambda r: model.inputs(rows=1))
    assert torch.allclose(module.particles, before + 0.3 * phi / 6, rtol=0, atol=1e-12)
    assert check_ownership(model.plan, model.parts, model.data(2), 2) == {}


def test_draws_that_would_leave_particles_out_are_refused() -> None:
    model = model_of(rows=4)
    with pytest.raises(ConfigError, match="6 draws are no multiple of the rows = 4 particles"):
        model.step()(lambda r: model.inputs(rows=1))


def test_particles_are_drawn_in_turn() -> None:
    module = Particles(size=1, rows=3).build().eval()
    drawn = module(5).draw(Noise(0).named("z", 5)).read("sample")
    assert torch.equal(drawn, module.particles[[0, 1, 2, 0, 1]])


def test_modes_have_the_moments_they_say() -> None:
    """Eight modes of scale 0.7 on a circle of radius 3: mean 0, variance 4.5 + 0.49 in each axis."""
    law = Modes().build()(40_000)
    drawn = law.draw(Noise(0).named("z", 40_000)).read("sample")
    assert drawn.mean(0).tolist() == pytest.approx([0.0, 0.0], abs=0.05)
    assert drawn.var(0).tolist() == pytest.approx([4.99, 4.99], rel=0.02)
    one = Modes(modes=1, radius=2.0, scale=0.5).build().double()(1)
    wanted = -math.log(2 * math.pi) - 2 * math.log(0.5) - 0.5 * (1.0**2 + 1.0**2) / 0.25
    assert one.log_prob(torch.tensor([[3.0, 1.0]], dtype=DOUBLE)).item() == pytest.approx(wanted)


def test_bits_are_fair() -> None:
    law = Bits(size=3).build()(20_000)
    drawn = law.draw(Noise(0).named("z", 20_000)).read("sample")
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert drawn.mean(0).tolist() == pytest.approx([0.5] * 3, abs=0.02)
    assert law.log_prob(drawn)[0].item() == pytest.approx(-3 * math.log(2))
