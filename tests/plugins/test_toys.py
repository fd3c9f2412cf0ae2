"""Toys with known densities: the densities are normalised, and the rows follow them."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from jointgen_data.linear_gaussian import LinearGaussian
from jointgen_data.toys import Grid, Moons, Ring
from torch.distributions import MultivariateNormal, kl_divergence

from jointgen.contracts.space import Space

MIXTURES: list[Any] = [Ring(), Grid(), Moons()]
DOUBLE = torch.float64


def rows_of(source: Any, split: str = "train") -> dict[str, torch.Tensor]:
    rows = source.open(split)
    return rows.take(torch.arange(len(rows)))


# --- mixtures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", MIXTURES)
def test_densities_integrate_to_one(source: Any) -> None:
    """The sum over a lattice of half a standard deviation: for a Gaussian its error is about exp(-8 pi^2)."""
    step, centres = source.sd / 2, source.centres()
    low, high = (centres.amin(0) - 10 * source.sd).tolist(), (centres.amax(0) + 10 * source.sd).tolist()
    axes = [torch.arange(a, b, step, dtype=DOUBLE) for a, b in zip(low, high, strict=True)]
    total = sum(source.log_density(part).exp().sum().item() for part in torch.cartesian_prod(*axes).split(20_000))
    assert total * step**2 == pytest.approx(1.0, abs=1e-9)


def test_ring_density_at_two_points() -> None:
    """8 Gaussians of sd 0.1: on a mode, log 1/8 - log(2 pi 0.01) = -2.079442 + 2.767293 (the next is 15 sd away);

    in the middle every mode is 20 sd away: -400 / 2 + 2.767293.
    """
    points = torch.tensor([[2.0, 0.0], [-math.sqrt(2), math.sqrt(2)], [0.0, 0.0]], dtype=DOUBLE)
    assert Ring().log_density(points).tolist() == pytest.approx([0.687851, 0.687851, -197.232707], abs=1e-6)


def test_grid_density_on_its_corners_and_centre() -> None:
    """25 Gaussians of sd 0.05: log 1/25 - log(2 pi 0.0025) = -3.218876 + 4.153588."""
    points = torch.tensor([[0.0, 0.0], [4.0, -4.0], [-2.0, 2.0]], dtype=DOUBLE)
    assert Grid().log_density(points).tolist() == pytest.approx([0.934712] * 3, abs=1e-6)


def test_moons_are_two_interleaved_half_circles() -> None:
    """Of two points each: (1, 0), (-1, 0) above and (0, 1/2), (2, 1/2) below."""
    expected = [[1.0, 0.0], [-1.0, 0.0], [0.0, 0.5], [2.0, 0.5]]
    assert torch.allclose(Moons(points=2).centres(), torch.tensor(expected, dtype=DOUBLE), atol=1e-12)
    upper, lower = Moons(points=33).centres().split(33)
    assert torch.allclose(upper.norm(dim=1), torch.ones(33, dtype=DOUBLE))
    assert torch.allclose((lower - torch.tensor([1.0, 0.5])).norm(dim=1), torch.ones(33, dtype=DOUBLE))
    assert upper[16].tolist() == pytest.approx([0.0, 1.0])
    assert lower[16].tolist() == pytest.approx([1.0, -0.5])


@pytest.mark.parametrize(("source", "modes"), [(Ring(), 8), (Grid(), 25)])
def test_rows_have_the_entropy_of_their_density(source: Any, modes: int) -> None:
    """Modes far apart: E log q = -log M - log(2 pi e sd^2), and log q is that of a mode less chi^2_2 / 2, of sd 1."""
    log_q = source.log_density(rows_of(source)["x"])
    assert log_q.shape == (4096,)
    expected = -math.log(modes) - math.log(2 * math.pi * math.e * source.sd**2)
    assert log_q.mean().item() == pytest.approx(expected, abs=4 / 64)


def test_moons_rows_match_their_own_density() -> None:
    """Under its own draws E exp(log u - log q) = 1 for the uniform density u on a box that holds the moons."""
    source = Moons(rows=20_000, sd=0.3)
    x = rows_of(source)["x"].double()
    inside = ((x > torch.tensor([-0.5, 0.0])) & (x < torch.tensor([1.5, 0.5]))).all(1)  # area 1, within the moons
    weights = inside / source.log_density(x).exp()
    assert weights.mean().item() == pytest.approx(1.0, abs=4 * weights.std().item() / math.sqrt(20_000))
    assert weights.std() < 5  # or the line above says nothing


@pytest.mark.parametrize(
    ("source", "classes"), [(Ring(labels=True), 8), (Grid(labels=True), 25), (Moons(labels=True, sd=0.02), 2)]
)
def test_labels_name_the_mode_and_modes_are_equally_likely(source: Any, classes: int) -> None:
    assert source.spaces() == {"x": Space((2,)), "y": Space((classes,), "label")}
    values = rows_of(source)
    nearest = torch.cdist(values["x"].double(), source.centres()).argmin(1)
    assert torch.equal(nearest * classes // len(source.centres()), values["y"])
    expected, counts = 4096 / classes, values["y"].bincount(minlength=classes)
    assert (counts - expected).abs().max() < 5 * math.sqrt(expected)
    assert values["y"].dtype == torch.int64


@pytest.mark.parametrize("source", [*MIXTURES, LinearGaussian([[1.0], [2.0]])])
def test_splits_and_seeds_share_no_row(source: Any) -> None:
    train, test = rows_of(source)["x"], rows_of(source, "test")["x"]
    assert train.dtype == torch.float32
    assert train.shape == test.shape == (4096, 2)
    assert source.spaces() == {"x": Space((2,))}
    other = rows_of(attrs.evolve(source, seed=1))["x"]
    seen = {tuple(row) for row in train.tolist()}
    assert not seen & {tuple(row) for row in torch.cat([test, other]).tolist()}
    assert torch.equal(train, rows_of(source)["x"])


@pytest.mark.parametrize("wrong", [{"sd": 0.0}, {"modes": 0}, {"radius": -1.0}, {"rows": 0}])
def test_toy_keys_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Ring(**wrong)


# --- the linear-Gaussian model ----------------------------------------------------------------------------------------

WIDE = LinearGaussian([[1.0, 0.5], [0.3, 2.0], [0.7, 0.1]], bias=[0.2, -1.0, 3.0], scale=0.4, rows=20_000)


def points(B: int, D: int) -> torch.Tensor:
    return torch.randn(B, D, generator=torch.Generator().manual_seed(0), dtype=DOUBLE) * 2


def marginal(source: LinearGaussian) -> MultivariateNormal:
    """N(b, W W' + s^2 I), as torch has it."""
    W = torch.tensor(source.weights, dtype=DOUBLE)
    b = torch.tensor(source.bias or [0.0] * len(W), dtype=DOUBLE)
    return MultivariateNormal(b, W @ W.T + source.scale**2 * torch.eye(len(W), dtype=DOUBLE))


def test_marginal_agrees_with_torch() -> None:
    x = points(50, 3)
    assert torch.allclose(WIDE.log_density(x), marginal(WIDE).log_prob(x), rtol=0, atol=1e-10)


def test_bayes_holds_at_every_z() -> None:
    """log p(z) + log p(x|z) - log p(z|x) = log p(x), whatever z is."""
    x, z = points(50, 3), points(50, 2)
    mean, covariance = WIDE.posterior(x)
    assert mean.shape == (50, 2) and covariance.shape == (2, 2)
    log_posterior = MultivariateNormal(mean, covariance).log_prob(z)
    log_x = WIDE.log_prior(z) + WIDE.log_likelihood(x, z) - log_posterior
    assert torch.allclose(log_x, WIDE.log_density(x), rtol=0, atol=1e-10)


def test_the_smallest_model_by_hand() -> None:
    """x = z + eps: p(x) = N(0, 2), p(z|x) = N(x/2, 1/2), I = log(2)/2; at x = 2, log p = -log(4 pi)/2 - 1."""
    source, x = LinearGaussian([[1.0]]), torch.tensor([[2.0]], dtype=DOUBLE)
    assert source.log_density(x).item() == pytest.approx(-0.5 * math.log(4 * math.pi) - 1)
    mean, covariance = source.posterior(x)
    assert (mean.item(), covariance.item()) == pytest.approx((1.0, 0.5))
    assert source.mutual_information() == pytest.approx(0.5 * math.log(2))
    assert source.elbo_gap_diagonal() == pytest.approx(0.0)


def test_two_codes_behind_one_number_by_hand() -> None:
    """x = z1 + z2 + eps: the posterior precision is ((2, 1), (1, 2)), of determinant 3.

    I = log(3)/2. The best diagonal q has precisions 2 and 2: gap = log(4)/2 - log(3)/2 = 0.143841.
    """
    source = LinearGaussian([[1.0, 1.0]])
    assert source.mutual_information() == pytest.approx(0.5 * math.log(3))
    assert source.elbo_gap_diagonal() == pytest.approx(0.143841, abs=1e-6)


def test_the_diagonal_gap_is_the_least_kl() -> None:
    mean, covariance = WIDE.posterior(points(1, 3))
    posterior = MultivariateNormal(mean[0], covariance)

    def kl(variances: torch.Tensor) -> float:
        return kl_divergence(MultivariateNormal(mean[0], variances.diag()), posterior).item()

    best = 1 / covariance.inverse().diagonal()
    assert WIDE.elbo_gap_diagonal() == pytest.approx(kl(best), abs=1e-10)
    assert WIDE.elbo_gap_diagonal() > 0.01
    for factor in ([1.05, 1.0], [0.95, 1.0], [1.0, 1.05], [1.0, 0.95], [1.02, 1.02]):
        assert kl(best * torch.tensor(factor)) > kl(best)


def test_mutual_information_is_the_entropy_that_z_explains() -> None:
    """I(x; z) = H(x) - H(x|z), with H(x|z) = 3/2 log(2 pi e s^2)."""
    expected = marginal(WIDE).entropy().item() - 1.5 * math.log(2 * math.pi * math.e * 0.4**2)
    assert WIDE.mutual_information() == pytest.approx(expected, abs=1e-10)


def test_rows_follow_the_marginal() -> None:
    """A mean over 20,000 rows is within 4.5 of its standard errors, and so is each entry of the covariance."""
    x, p = rows_of(WIDE)["x"].double(), marginal(WIDE)
    error = x.mean(0) - p.mean
    assert (error.abs() < 4.5 * (p.variance / 20_000).sqrt()).all()
    C = p.covariance_matrix
    spread = ((C.square() + torch.outer(p.variance, p.variance)) / 20_000).sqrt()  # of a Gaussian's sample covariance
    assert ((x.T.cov() - C).abs() < 4.5 * spread).all()
    assert C[0, 1].abs() > 20 * spread[0, 1]  # or the covariance could be missing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_method_keeps_the_dtype_of_its_arguments(dtype: torch.dtype) -> None:
    x, z = points(4, 3).to(dtype), points(4, 2).to(dtype)
    found = [WIDE.log_density(x), WIDE.log_likelihood(x, z), WIDE.log_prior(z)]
    assert [(value.shape, value.dtype) for value in found] == [((4,), dtype)] * 3
    assert [value.dtype for value in WIDE.posterior(x)] == [dtype] * 2
    assert [source.log_density(x[:, :2]).dtype for source in MIXTURES] == [dtype] * 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": []},
        {"weights": [[]]},
        {"weights": [[1.0], [1.0, 2.0]]},
        {"weights": [[1.0]], "bias": [1.0, 2.0]},
        {"weights": [[1.0]], "scale": 0.0},
    ],
)
def test_linear_gaussian_keys_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=list(wrong)[-1]):
        LinearGaussian(**wrong)
