"""Priors with parameters: a family of their own, and mixtures of the encoder's posteriors."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from jointgen_families.gaussian import DiagonalGaussian, Gaussian
from jointgen_families.implicit import Implicit
from jointgen_families.learned import Learned, VampModule, VampPrior, inside, outside
from jointgen_families.mixture import Mixture
from jointgen_vae.objective import VAE
from support.models import small_model
from support.paths import REPO
from torch import Tensor, nn

from jointgen.config.recipe import read_recipe, write_recipe
from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.noise import Noise, NoiseSource
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.registry.components import Registry

torch.set_num_threads(1)

DOUBLE = torch.float64


def noise(rows: int) -> NoiseSource:
    return Noise(0, dtype=DOUBLE).named("n", rows)


# --- learned ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [Mixture(components=3), Gaussian()], ids=str)
def test_a_learned_prior_is_one_distribution_in_every_row(family: Any) -> None:
    prior = Learned(size=[2, 3], family=family)
    module = prior.build().double()
    value = torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE).expand(5, 2, 3)
    log_prob = module(5).log_prob(value)
    assert torch.equal(log_prob, log_prob[:1].expand(5))
    assert module(5).draw(noise(5)).read("sample").shape == (5, 2, 3)
    log_prob.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    assert prior.capabilities(prior.space) == attrs.evolve(family.capabilities(prior.space), trainable=True)


def test_a_learned_prior_finds_its_data() -> None:
    """Maximum likelihood of two clusters at -3 and 3, 0.5 wide: -log 2 - 1/2 log(2 pi e 0.25) = -1.418939 nats."""
    generator = torch.Generator().manual_seed(0)
    z = 0.5 * torch.randn(2000, 1, generator=generator) + torch.tensor([-3.0, 3.0]).repeat(1000)[:, None]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Learned(size=1, family=Mixture(components=2)).build()
    optimizer = torch.optim.Adam(module.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = -module(len(z)).log_prob(z).mean()
        loss.backward()
        optimizer.step()
    assert -loss.item() == pytest.approx(-1.418939, abs=0.03)  # the sample's own spread: 1 / sqrt(2 * 2000) = 0.016
    assert module(1).means.flatten().sort().values.tolist() == pytest.approx([-3.0, 3.0], abs=0.05)


REFUSED: dict[str, tuple[list[str], str]] = {
    "family of bits": (
        ['prior.family.type="bernoulli"'],
        'prior.family.type: "bernoulli" is a family of binary variables, this one is 16 real',
    ),
    "no density": (['prior.family.type="implicit"'], "prior.family: a prior is a distribution with a density"),
    "unknown family": (['prior.family.type="mixtur"'], "prior.family.type: unknown family 'mixtur'; did you mean"),
    "unknown key": (["prior.family.component=3"], "prior.family.component: unknown key; did you mean 'components'?"),
    "bad value": (["prior.family.components=0"], "prior.family.components: must be >= 1, got 0"),
    "setting that the space refuses": (['prior.family.mean="sigmoid"'], 'prior.family.mean: "sigmoid" needs'),
    "bad size": (["prior.size=0"], "prior.size: must be a size >= 1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_have_their_full_key(name: str, registry: Registry) -> None:
    changes, message = REFUSED[name]
    start = ['prior.type="learned"', 'prior.family.type="mixture"']
    with pytest.raises(ConfigError) as caught:
        read_recipe(REPO / "tests" / "fixtures" / "recipes" / "quickstart.toml", [*start, *changes], registry=registry)
    (problem,) = caught.value.lines
    assert problem.startswith(message)


def test_a_nested_family_is_written_back(registry: Registry, tmp_path: Any) -> None:
    changes = ['prior.type="learned"', 'prior.family={ type = "mixture", components = 4 }']
    recipe = read_recipe(REPO / "tests" / "fixtures" / "recipes" / "quickstart.toml", changes, registry=registry)
    assert recipe.prior == Learned(family=Mixture(components=4))
    (tmp_path / "quickstart.toml").write_text(write_recipe(recipe, registry))
    assert read_recipe(tmp_path / "quickstart.toml", registry=registry) == recipe


def test_closed_kl_goes_by_the_family_of_a_learned_prior() -> None:
    """To a learned Gaussian there is one, to a learned mixture there is none."""
    model = small_model(VAE(analytic=True).objective(), prior=learned("gaussian"))
    assert "prior" in model.plan.updates[0].trains
    with pytest.raises(ConfigError, match=r"needs KL to 'mixture' in closed form .* no registered family has it"):
        small_model(VAE(analytic=True).objective(), prior=learned("mixture"))


def learned(family: str) -> dict[str, Any]:
    return {"type": "learned", "size": 2, "family": {"type": family}}


def test_a_learned_prior_without_a_density_cannot_be_made() -> None:
    with pytest.raises(ConfigError, match="family: a prior is a distribution with a density"):
        Learned(family=Implicit())


# --- the mixture of posteriors ----------------------------------------------------------------------------------------


class Shifted(nn.Module):
    """q(z|x) = N(x + 1, 0.5^2), with the calls of a conditional."""

    def forward(self, x: Tensor, k: int = 1, rows: Tensor | None = None) -> DiagonalGaussian:
        mean = (x + 1.0)[rows] if rows is not None else (x + 1.0).repeat_interleave(k, 0)
        return DiagonalGaussian(mean, mean.new_full((), math.log(0.5)), Space((1,)))


def vamp(*values: float) -> VampModule:
    module = VampModule(len(values), {"x": Space((1,))}).double()
    module.free["x"].data = torch.tensor(values, dtype=DOUBLE)[:, None]
    return module


def test_vamp_density_by_hand() -> None:
    # pseudo-inputs -1 and 1: p(z) = 1/2 N(0, 0.5^2) + 1/2 N(2, 0.5^2). At 0: N(0; 0, .5) = 0.7978846 and
    # N(0; 2, .5) = 0.7978846 e^-8 = 0.0002677: (0.7978846 + 0.0002677) / 2 = 0.3990761, log -0.9186032
    # at 1 both are 0.7978846 e^-2 = 0.1079819: log -2.2257914
    z = torch.tensor([[0.0], [1.0]], dtype=DOUBLE)
    assert vamp(-1.0, 1.0)(2, Shifted()).log_prob(z).tolist() == pytest.approx([-0.9186032, -2.2257914], abs=2e-6)


def test_vamp_draws_follow_its_density() -> None:
    """40 000 draws of 1/3 sum N(c, 0.5^2), c in {-4, 0, 4}: a third in each, sd 0.0024; the mean over all is 0."""
    z = vamp(-5.0, -1.0, 3.0)(40_000, Shifted()).draw(noise(40_000)).read("sample")
    nearest = (z - torch.tensor([-4.0, 0.0, 4.0], dtype=DOUBLE)).abs().argmin(1)
    assert nearest.bincount().div(40_000).tolist() == pytest.approx([1 / 3] * 3, abs=0.012)
    assert (z[nearest == 2] - 4.0).std().item() == pytest.approx(0.5, abs=0.02)


def test_a_vamp_draw_does_not_score_itself_by_its_component() -> None:
    draw = vamp(-1.0, 1.0)(3, Shifted()).draw(noise(3))
    assert not hasattr(draw, "log_prob")


def test_vamp_paths_reach_the_pseudo_inputs() -> None:
    """Each row's z moves one to one with its own component's pseudo-input: the gradients count the rows."""
    module = vamp(-5.0, 3.0)
    z = module(100, Shifted()).draw(noise(100)).read("sample")
    (gradient,) = torch.autograd.grad(z.sum(), module.free["x"])
    assert gradient.flatten().tolist() == [(z < 0).sum().item(), (z > 0).sum().item()]


SPACES = {
    "real": Space((2,)),
    "image": Space((1, 2, 2), low=-1.0, high=3.0, bins=16),
    "bits": Space((2,), kind="binary", bins=2),
    "label": Space((3,), kind="label"),
}


@pytest.mark.parametrize("name", SPACES)
def test_pseudo_inputs_start_at_rows_and_stay_in_their_space(name: str) -> None:
    space = SPACES[name]
    free = 5 * torch.randn(50, *space.shape, generator=torch.Generator().manual_seed(0))
    values = inside(free, space)
    assert values.shape == free.shape
    if name == "label":
        torch.testing.assert_close(values.sum(1), torch.ones(50))
        torch.testing.assert_close(inside(outside(torch.eye(3), space), space).diag(), torch.full((3,), 1 / 1.02))
        return
    low, high = {"real": (-math.inf, math.inf), "image": (-1.0, 3.0), "bits": (0.0, 1.0)}[name]
    assert (values >= low).all() and (values <= high).all()
    middle = inside(0.2 * free, space)
    torch.testing.assert_close(inside(outside(middle, space), space), middle, rtol=0, atol=1e-5)


def test_pseudo_inputs_are_spread_over_the_rows() -> None:
    module = VampModule(4, {"x": Space((1,)), "y": Space((2,))})
    before = module.free["y"].detach().clone()
    module.start_at_rows({"x": torch.arange(100.0)[:, None]})
    x, y = module.pseudo_inputs()
    assert x.flatten().tolist() == pytest.approx([0.0, 25.0, 50.0, 75.0], abs=0.05)
    assert torch.equal(y, before)  # no row has it
    crowded = VampModule(4, {"x": Space((1,))})
    crowded.start_at_rows({"x": torch.zeros(2, 1)})
    assert len(crowded.pseudo_inputs()[0].unique()) == 4  # equal ones would stay equal


def test_a_vamp_prior_can_do_what_its_encoder_can() -> None:
    prior = VampPrior(size=2)
    numeric = Capabilities({"sample": "none"}, foreign_density="numeric")
    wanted = Capabilities({"sample": "none"}, "numeric", "numeric", trainable=True)
    assert prior.capabilities(prior.space, numeric) == wanted
    assert prior.through == ("encoder",) and VampPrior(encoder="other").through == ("other",)
    with pytest.raises(ValueError, match="components"):
        VampPrior(components=0)
