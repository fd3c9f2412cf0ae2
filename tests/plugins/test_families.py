"""Families and priors against quadrature, closed forms and counts. Numbers are derived by hand where they stand."""

from __future__ import annotations

import math
from typing import Any

import attrs
import jointgen_families
import pytest
import torch
from jointgen_families.bernoulli import Bernoulli
from jointgen_families.continuous_bernoulli import ContinuousBernoulli
from jointgen_families.discretized_logistic import DiscretizedLogistic
from jointgen_families.flows.coupling import Coupling
from jointgen_families.flows.iaf import IAF
from jointgen_families.flows.radial import Radial
from jointgen_families.gaussian import DiagonalGaussian, Gaussian
from jointgen_families.implicit import Implicit
from jointgen_families.laplace import Laplace
from jointgen_families.logistic_mixture import LogisticMixture
from jointgen_families.mixture import Mixture
from jointgen_families.priors import Normal, Uniform
from torch import Tensor

from jointgen.contracts.distributions import Family, Prior
from jointgen.contracts.noise import Noise, NoiseSource
from jointgen.contracts.observation import Observation, observe
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.registry.components import Registrar, Registry

torch.set_num_threads(1)

VECTOR = Space((2,))
IMAGE = Space((3, 4, 4), low=0.0, high=1.0, bins=256)
GREY = Space((1, 4, 4), low=-1.0, high=1.0, bins=17)
BITS = Space((1, 4, 4), kind="binary", bins=256)
SCALES: list[Any] = ["per_element", "global", "per_channel", "fixed"]

FAMILIES: list[tuple[Family, Space]] = [
    *((Gaussian(scale=scale), space) for scale in SCALES for space in (VECTOR, IMAGE)),
    *((Gaussian(scale=scale, mean="sigmoid"), IMAGE) for scale in SCALES),
    (Bernoulli(), BITS),
    (Bernoulli(path="none"), BITS),
    (Bernoulli(path="relaxed"), BITS),
    *((Laplace(scale=scale), space) for scale in SCALES for space in (VECTOR, IMAGE)),
    (Laplace(scale="global", mean="sigmoid"), IMAGE),
    *((DiscretizedLogistic(scale=scale), IMAGE) for scale in SCALES),
    (DiscretizedLogistic(edges="bounded", init_scale=0.1, mean="sigmoid"), IMAGE),
    (LogisticMixture(), IMAGE),
    (LogisticMixture(components=3, coupling=False), IMAGE),
    (LogisticMixture(components=2), GREY),
    (ContinuousBernoulli(), IMAGE),
    (ContinuousBernoulli(), Space((2,), low=-1.0, high=3.0)),
    (Implicit(), VECTOR),
    (Implicit(noise=0, mean="sigmoid"), IMAGE),
    (IAF(), VECTOR),
    (IAF(hidden=[60, 50], context=0), IMAGE),
    (Coupling(), VECTOR),
    (Coupling(context=0, transform="spline"), IMAGE),
    (Radial(), VECTOR),
    (Radial(amortized=False), IMAGE),
    *((Mixture(components=3), space) for space in (VECTOR, IMAGE)),
    (Mixture(components=1), VECTOR),
    (Mixture(components=3, mean="sigmoid", init_scale=0.2), IMAGE),
]


def noise(rows: int, name: str = "n", dtype: torch.dtype = torch.float64) -> NoiseSource:
    return Noise(0, dtype=dtype).named(name, rows)


def params_for(family: Family, space: Space, rows: int = 5) -> Tensor:
    shape = (rows, *family.outputs(space))
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def built(family: Family, space: Space) -> Any:
    return family.build(space).double()


def normal(mean: float, scale: float, rows: int = 1, size: int = 1) -> DiagonalGaussian:
    m = torch.full((rows, size), mean, dtype=torch.float64)
    return DiagonalGaussian(m, torch.tensor(math.log(scale), dtype=torch.float64), Space((size,)))


# --- every family ----------------------------------------------------------------------------------------------------


def test_everything_is_registered_and_loads() -> None:
    registry = Registry()
    jointgen_families.jointgen_register(Registrar(registry, "test"))
    assert {"gaussian", "planar", "categorical", "pixelcnn", "vq"} <= {*registry.names("family")}
    assert {"normal", "learned", "categorical", "particles"} <= {*registry.names("prior")}
    for component in registry.components():
        assert component.summary
        config: Any = component.load()
        needs = [field for field in attrs.fields(config) if field.default is attrs.NOTHING]
        names = {"distribution": "StudentT"}
        given = {f.name: names.get(f.name, "down") if f.type in ("str", str) else 2 for f in needs}
        assert isinstance(config(**given), Family if component.kind == "family" else Prior)


@pytest.mark.parametrize(("family", "space"), FAMILIES, ids=str)
def test_start_at_makes_a_zero_output_mean_the_datas_mean(family: Family, space: Space) -> None:
    mean = 0.1 + 0.8 * torch.rand(space.shape, generator=torch.Generator().manual_seed(3))
    module = built(family, space)
    module.start_at(mean)
    zero = torch.zeros(2, *family.outputs(space), dtype=torch.float64)
    torch.testing.assert_close(module(zero).mean[1], mean.double(), rtol=0, atol=1e-6)
    assert getattr(module, "base", module).offset.shape == space.shape


def test_start_at_clips_means_that_a_sigmoid_cannot_reach() -> None:
    # 0.1 % of the range [0, 1] for a sigmoid mean; 1 % for bits
    ends = torch.tensor([0.0, 1.0]).view(2, 1)
    for family, space, near in [
        (Gaussian(scale="fixed", mean="sigmoid"), Space((2, 1), low=0.0, high=1.0), 0.001),
        (Implicit(mean="sigmoid"), Space((2, 1), low=-1.0, high=3.0), 0.001),
        (Bernoulli(), Space((2, 1), kind="binary", bins=2), 0.01),
    ]:
        low, high = (space.low, space.high) if space.low is not None and space.high is not None else (0.0, 1.0)
        module = built(family, space)
        module.start_at(low + (high - low) * ends)
        mean = (module(torch.zeros(1, *space.shape, dtype=torch.float64)).mean.flatten() - low) / (high - low)
        torch.testing.assert_close(mean, torch.tensor([near, 1 - near], dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "space", "message"),
    [
        (Bernoulli(), VECTOR, 'type: "bernoulli" is a family of binary variables, this one is 2 real'),
        (IAF(), Space((1,)), 'type: "iaf" moves numbers by one another and needs two or more, this one is 1 real'),
        (Coupling(), Space((1,)), 'type: "coupling" moves numbers by one another and needs two or more'),
        (Radial(), BITS, 'type: "radial" is a family of real variables, this one is 1x4x4 binary, 256 levels'),
        (Gaussian(), BITS, 'type: "gaussian" is a family of real variables, this one is 1x4x4 binary, 256 levels'),
        (Gaussian(mean="sigmoid"), VECTOR, 'mean: "sigmoid" needs a variable of known range, this one is 2 real'),
        (Implicit(mean="sigmoid"), VECTOR, 'mean: "sigmoid" needs a variable of known range, this one is 2 real'),
        (Laplace(), BITS, 'type: "laplace" is a family of real variables, this one is 1x4x4 binary, 256 levels'),
        (DiscretizedLogistic(), BITS, 'type: "discretized_logistic" is a family of real variables, this one is 1x4x4'),
        (
            DiscretizedLogistic(),
            Space((2,), low=0.0, high=1.0),
            'type: "discretized_logistic" is a family of quantised data, this variable has no levels: 2 real in [0, 1]',
        ),
        (LogisticMixture(), VECTOR, 'type: "logistic_mixture" is a family of quantised data, this variable has no'),
        (
            LogisticMixture(),
            Space((2,), low=0.0, high=1.0, bins=256),
            'type: "logistic_mixture" is a family of images (C, H, W), this variable is 2 real in [0, 1], 256 levels',
        ),
        (ContinuousBernoulli(), BITS, 'type: "continuous_bernoulli" is a family of real variables, this one is 1x4x4'),
        (ContinuousBernoulli(), VECTOR, 'type: "continuous_bernoulli" needs a variable of known range, this one is 2'),
    ],
)
def test_a_family_on_the_wrong_kind_of_variable_says_which(family: Family, space: Space, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        family.capabilities(space)
    assert str(error.value).startswith(message)
    with pytest.raises(ConfigError):
        family.build(space)


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (lambda: Gaussian(init_scale=-0.5), "-0.5"),
        (lambda: Gaussian(init_scale=1e-9), "1e-09"),
        (lambda: Gaussian(scale="both"), "both"),
        (lambda: Laplace(init_scale=21.0), "21.0"),
        (lambda: Gaussian(min_log_scale=1.0, max_log_scale=0.0), "1.0"),
        (lambda: DiscretizedLogistic(edges="open"), "open"),
        (lambda: DiscretizedLogistic(init_scale=0.0009), "0.0009"),
        (lambda: LogisticMixture(components=0), "0"),
        (lambda: LogisticMixture(init_scale=30.0), "30.0"),
        (lambda: Bernoulli(temperature=0.0), "0.0"),
        (lambda: Bernoulli(path="exact"), "exact"),
        (lambda: Implicit(noise=-1), "-1"),
        (lambda: IAF(length=0), "0"),
        (lambda: IAF(hidden=[8, -2]), "-2"),
        (lambda: Coupling(context=-1), "-1"),
        (lambda: Coupling(transform="cubic"), "cubic"),
        (lambda: Radial(length=-3), "-3"),
        (lambda: Normal(size=0), "0"),
        (lambda: Uniform(size=[4, -2]), r"\[4, -2\]"),
    ],
)
def test_a_value_out_of_range_is_named(make: Any, value: str) -> None:
    with pytest.raises(ValueError, match=value):
        make()


# --- Gaussian --------------------------------------------------------------------------------------------------------


def test_gaussian_log_prob_by_hand() -> None:
    # log N(3; 1, 2^2) = -1/2 (2/2)^2 - log 2 - 1/2 log 2 pi = -0.5 - 0.693147 - 0.918939 = -2.112086; twice for 2-d
    value = torch.full((1, 2), 3.0, dtype=torch.float64)
    assert normal(1.0, 2.0, size=2).log_prob(value).item() == pytest.approx(-4.224171, abs=2e-6)


def test_gaussian_draw_knows_its_density_and_its_gradient() -> None:
    """log N(z; mean, s^2) at z = mean + s eps is -1/2 eps^2 - log s - 1/2 log 2 pi, whatever the mean."""
    mean, log_scale = torch.tensor([[2.0]], requires_grad=True), torch.tensor([[0.3]], requires_grad=True)
    draw = DiagonalGaussian(mean, log_scale, Space((1,))).draw(Noise(0).named("a", 1))
    eps = (draw.read("sample").item() - 2.0) / math.exp(0.3)
    density = draw.log_prob()
    assert density.item() == pytest.approx(-0.5 * eps**2 - 0.3 - 0.5 * math.log(2 * math.pi), abs=1e-5)
    slopes = torch.autograd.grad(density.sum(), [mean, log_scale], allow_unused=True)
    assert slopes[0] is None and slopes[1].item() == -1.0


@pytest.mark.parametrize("scale", SCALES)
def test_gaussian_integrates_to_one_in_two_dimensions(scale: Any) -> None:
    family = Gaussian(scale=scale, init_scale=0.5)
    axis = torch.linspace(-8, 8, 401, dtype=torch.float64)  # step 0.04 is 0.08 scales: the sum is exact to rounding
    grid = torch.cartesian_prod(axis, axis)
    params = torch.tensor([0.3, -0.4, 0.2, -0.1], dtype=torch.float64)[: family.outputs(VECTOR)[0]]
    density = built(family, VECTOR)(params.expand(len(grid), -1)).log_prob(grid).exp()
    assert (density.sum() * 0.04**2).item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("scale", SCALES)
def test_gaussian_draws_have_its_moments(scale: Any) -> None:
    # 200 000 draws: the mean's standard error is 0.5 / 447 = 0.0011, the deviation's 0.0008
    family = Gaussian(scale=scale, init_scale=0.5)
    params = torch.tensor([0.3, -0.4, 0.0, 0.0], dtype=torch.float64)[: family.outputs(VECTOR)[0]]
    sample = built(family, VECTOR)(params.expand(200_000, -1)).draw(noise(200_000)).read("sample")
    assert sample.mean(0).tolist() == pytest.approx([0.3, -0.4], abs=0.005)
    assert sample.std(0).tolist() == pytest.approx([0.5, 0.5], abs=0.004)


def test_gaussian_scales_have_the_shape_they_say() -> None:
    shapes = {"global": (), "per_channel": (3, 1, 1)}
    for scale, shape in shapes.items():
        module = Gaussian(scale=scale, init_scale=0.5).build(IMAGE)
        assert module.log_scale.shape == shape
        assert module.log_scale.flatten()[0].item() == pytest.approx(-math.log(2))
    assert Gaussian().outputs(IMAGE) == (6, 4, 4)
    assert Gaussian(scale="fixed").outputs(IMAGE) == (3, 4, 4)


def test_gaussian_scales_are_clamped_and_a_fixed_one_is_exact() -> None:
    wild = torch.tensor([[0.0, 0.0, -50.0, 50.0]], dtype=torch.float64)
    assert built(Gaussian(), VECTOR)(wild).log_scale.tolist() == [[-6.0, 3.0]]
    fixed = built(Gaussian(scale="fixed", init_scale=0.1), VECTOR)(wild[:, :2])
    assert fixed.scale.item() == pytest.approx(0.1, abs=1e-15)


def test_gaussian_smoothed_reading_stops_the_scale_only() -> None:
    module = built(Gaussian(scale="global", init_scale=0.5), VECTOR)
    params = torch.zeros(4, 2, dtype=torch.float64, requires_grad=True)
    draw = module(params).draw(noise(4))
    assert torch.equal(draw.read("smoothed"), draw.read("sample"))
    to_params, to_scale = torch.autograd.grad(
        draw.read("smoothed").square().sum(), (params, module.log_scale), allow_unused=True
    )
    assert to_params.abs().sum() > 0 and to_scale is None
    (to_scale,) = torch.autograd.grad(draw.read("sample").square().sum(), module.log_scale)
    assert to_scale.abs() > 0
    assert "smoothed" not in Gaussian().capabilities(VECTOR).paths


@pytest.mark.parametrize("scale", ["global", "per_channel", "fixed"])
def test_gaussian_view_blurs_data_by_the_models_own_scale(scale: Any) -> None:
    # dequantised data minus itself leaves 0.2 eps: 50 000 x 48 numbers, standard error of the deviation 1e-4
    module = built(Gaussian(scale=scale, init_scale=0.2), IMAGE)
    raw = torch.full((50_000, 3, 4, 4), 128, dtype=torch.uint8)
    data = observe(IMAGE, raw, noise(50_000, "observe"))
    view = module.view("smoothed", data, noise(50_000, "view"))
    added = view - data.read("sample")
    assert not view.requires_grad
    assert added.mean().item() == pytest.approx(0.0, abs=0.001)
    assert added.std().item() == pytest.approx(0.2, abs=0.001)


def test_gaussian_kl_by_hand() -> None:
    # KL(N(1, 2^2) || N(0, 1)) = 1/2 (4 + 1 - 1 - log 4) = 1/2 (4 - 1.386294) = 1.306853
    prior = Normal(size=1).build().double()
    assert normal(1.0, 2.0).kl_to(prior(1)).item() == pytest.approx(1.306853, abs=1e-6)
    # KL(N(1, 2^2) || N(-1, 4^2)) = log 2 + (4 + 4) / 32 - 1/2 = 0.693147 + 0.25 - 0.5 = 0.443147
    assert normal(1.0, 2.0, size=3).kl_to(normal(-1.0, 4.0, size=3)).item() == pytest.approx(3 * 0.443147, abs=3e-6)
    assert normal(0.7, 0.3).kl_to(normal(0.7, 0.3)).item() == pytest.approx(0.0, abs=1e-15)


def test_gaussian_kl_by_monte_carlo() -> None:
    # E_q log q - log p over 100 000 rows; the summand's standard deviation is about 2.7, its mean's about 0.009
    family, prior = Gaussian(), Normal(size=[3, 4, 4]).build().double()
    q = built(family, prior.space)(0.3 * params_for(family, prior.space, 1).expand(100_000, -1, -1, -1))
    p = prior(100_000)
    z = q.draw(noise(100_000)).read("sample")
    estimate = (q.log_prob(z) - p.log_prob(z)).mean()
    assert estimate.item() == pytest.approx(q.kl_to(p)[0].item(), abs=0.04)
    assert q.kl_to(p).shape == (100_000,)


# --- Bernoulli -------------------------------------------------------------------------------------------------------


def logits(*values: float, rows: int = 1) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).expand(rows, -1)


def test_bernoulli_log_prob_by_hand() -> None:
    # logit log 3 is p = 3/4: log 3/4 = -0.287682, log 1/4 = -1.386294; sums -0.287682 - 1.386294 = -1.673976
    module = built(Bernoulli(), Space((2,), kind="binary"))
    value = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    log_prob = module(logits(math.log(3), math.log(3), rows=2)).log_prob(value)
    assert log_prob.tolist() == pytest.approx([-1.673976, -0.575364], abs=1e-6)


def test_bernoulli_sums_to_one_and_is_finite_when_certain() -> None:
    module = built(Bernoulli(), Space((3,), kind="binary"))
    patterns = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
    assert module(logits(0.3, -2.0, 5.0, rows=8)).log_prob(patterns).exp().sum().item() == pytest.approx(1.0)
    certain = module(logits(1e4, -1e4, 0.0)).log_prob(torch.tensor([[0.0, 1.0, 1.0]], dtype=torch.float64))
    assert certain.item() == pytest.approx(-2e4 - math.log(2))


def test_bernoulli_bits_are_bits_with_the_right_frequency() -> None:
    # 200 000 bits of p = 0.3: standard error sqrt(.21 / 200 000) = 0.001, whatever the temperature
    for temperature in (0.1, 0.5, 2.0):
        module = built(Bernoulli(temperature=temperature), Space((1,), kind="binary"))
        draw = module(logits(math.log(3 / 7), rows=200_000)).draw(noise(200_000))
        bits = draw.read("sample")
        assert set(bits.unique().tolist()) == {0.0, 1.0}
        assert bits.mean().item() == pytest.approx(0.3, abs=0.005)
        assert torch.equal(draw.read("relaxed") > 0.5, bits == 1)


def test_bernoulli_straight_through_gradient_is_the_relaxed_one() -> None:
    module, params = built(Bernoulli(), BITS), params_for(Bernoulli(), BITS).requires_grad_()
    draw = module(params).draw(noise(5))
    weights = torch.randn(5, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    through, relaxed = (torch.autograd.grad((weights * draw.read(r)).sum(), params)[0] for r in ("sample", "relaxed"))
    assert torch.equal(through, relaxed) and through.abs().sum() > 0


def test_bernoulli_relaxed_path_draws_relaxed_values_and_scores_the_bits_they_round_to() -> None:
    """Those bits are Bernoulli(0.3) whatever the temperature: 200 000 of them have the standard error 0.001."""
    module = built(Bernoulli(path="relaxed"), Space((1,), kind="binary"))
    distribution = module(logits(math.log(3 / 7), rows=200_000))
    draw = distribution.draw(noise(200_000))
    sample = draw.read("sample")
    assert torch.equal(sample, draw.read("relaxed")) and ((sample > 0.1) & (sample < 0.9)).double().mean() > 0.1
    scores = distribution.log_prob(sample)
    assert scores.tolist() == pytest.approx([math.log(0.3 if x > 0.5 else 0.7) for x in sample[:, 0].tolist()])
    assert (scores < math.log(0.5)).double().mean().item() == pytest.approx(0.3, abs=0.005)
    assert Bernoulli(path="relaxed").capabilities(BITS).paths["sample"] == "relaxed"


def grey_observation(rows: int, dtype: torch.dtype = torch.float64) -> tuple[Space, Observation]:
    """All 256 levels, again and again."""
    space = Space((256,), kind="binary", bins=256)
    raw = torch.arange(256, dtype=torch.uint8).expand(rows, -1)
    return space, observe(space, raw, noise(rows, "observe", dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bernoulli_view_of_data_is_on_the_bits_side_of_one_half(dtype: torch.dtype) -> None:
    space, data = grey_observation(4000, dtype)  # a million views, pure blacks and whites among them
    view = Bernoulli().build(space).to(dtype).view("relaxed", data, noise(4000, "view", dtype))
    assert view.dtype == dtype and view.shape == (4000, 256)
    assert torch.equal(view > 0.5, data.read("sample") > 0.5)


def test_bernoulli_view_of_data_is_distributed_as_a_relaxed_draw() -> None:
    """Over bits b ~ Bernoulli(g), the view must be the concrete draw with logit g: compare every decile of both.

    20 000 rows; a decile's standard error is sqrt(.09 / 20 000) / density, below 0.02 where the density is above 0.1.
    """
    space, data = grey_observation(20_000)
    module = built(Bernoulli(temperature=1.0), space)
    view = module.view("relaxed", data, noise(20_000, "view"))
    grey = data.read("mean").clamp(0.001, 0.999)
    relaxed = module(torch.logit(grey)).draw(noise(20_000, "draw")).read("relaxed")
    deciles = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    for level in (30, 76, 128, 200):
        ours, theirs = (torch.quantile(v[:, level], deciles) for v in (view, relaxed))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)


def test_bernoulli_view_by_hand() -> None:
    """u' = 1 - g + u g for a one, (1 - u)(1 - g) for a zero, then sigmoid((logit g + logit u') / temperature)."""
    space, data = grey_observation(50)
    bits, g = data.read("sample"), data.read("mean").clamp(0.001, 0.999)
    u = noise(50, "view").uniform(256).clamp(1e-6, 1 - 1e-6)
    given = torch.where(bits > 0.5, 1 - g + u * g, (1 - u) * (1 - g))
    expected = torch.sigmoid((torch.logit(g) + torch.logit(given)) / 0.5)
    view = built(Bernoulli(), space).view("relaxed", data, noise(50, "view"))
    torch.testing.assert_close(view, expected, rtol=0, atol=1e-9)


# --- implicit --------------------------------------------------------------------------------------------------------


def test_implicit_declares_no_density_and_its_noise() -> None:
    can = Implicit(noise=7).capabilities(VECTOR)
    assert (can.own_density, can.foreign_density, can.noise_input) == ("none", "none", 7)
    assert not hasattr(Implicit().build(VECTOR)(torch.zeros(1, 2)), "log_prob")


def test_implicit_draw_is_the_trunks_output() -> None:
    params = params_for(Implicit(), VECTOR)
    assert torch.equal(built(Implicit(), VECTOR)(params).draw(noise(5)).read("sample"), params)
    # sigmoid on [-1, 3]: -1 + 4 sigmoid(0) = 1, and log 3 gives -1 + 4 x 3/4 = 2
    module = built(Implicit(mean="sigmoid"), Space((2,), low=-1.0, high=3.0))
    assert module(logits(0.0, math.log(3))).mean.tolist()[0] == pytest.approx([1.0, 2.0])


# --- priors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [Normal(size=1), Uniform(size=1)], ids=str)
def test_priors_integrate_to_one(prior: Prior) -> None:
    # cell centres, so that the cube's faces fall between cells
    step = 0.01
    z = torch.arange(-8 + step / 2, 8, step, dtype=torch.float64)[:, None]
    density = prior.build().double()(len(z)).log_prob(z).exp()
    assert density.shape == (1600,)
    assert (density.sum() * step).item() == pytest.approx(1.0, abs=1e-9)


def test_prior_densities_by_hand() -> None:
    # N(0, I) in 3-d at (1, 1, 1): -3/2 - 3/2 log 2 pi = -1.5 - 2.756816; uniform in 3-d: -3 log 2 = -2.079442
    z = torch.ones(1, 3)
    assert Normal(size=3).build()(1).log_prob(z).item() == pytest.approx(-4.256816, abs=1e-5)
    uniform = Uniform(size=3).build()(2)
    assert uniform.log_prob(torch.tensor([[0.9, -0.9, 0.0], [0.0, 1.1, 0.0]])).tolist() == [
        pytest.approx(-2.079442, abs=1e-6),
        -math.inf,
    ]


@pytest.mark.parametrize(("prior", "std"), [(Normal(size=[2, 3]), 1.0), (Uniform(size=[2, 3]), 1 / math.sqrt(3))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_prior_draws(prior: Prior, std: float, dtype: torch.dtype) -> None:
    module = prior.build().to(dtype)
    distribution = module(50_000)
    sample = distribution.draw(noise(50_000, dtype=dtype)).read("sample")
    assert sample.shape == (50_000, 2, 3) and sample.dtype == dtype and prior.space.shape == (2, 3)
    assert distribution.log_prob(sample).shape == (50_000,) and distribution.log_prob(sample).dtype == dtype
    assert distribution.log_prob(sample).isfinite().all()
    assert torch.equal(distribution.mean, torch.zeros(50_000, 2, 3, dtype=dtype))
    assert sample.mean().item() == pytest.approx(0.0, abs=0.01)
    assert sample.std().item() == pytest.approx(std, abs=0.01)
    assert list(module.parameters()) == [] and module.state_dict() == {}


def test_uniform_prior_knows_its_range() -> None:
    assert Uniform(size=5).space == Space((5,), low=-1.0, high=1.0)
    assert Normal(size=5).space == Space((5,))
