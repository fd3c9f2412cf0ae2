"""The importance-weighted bound: where it stands, and that chunks and processes have no part in it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jointgen_ali.objective import ALI
from jointgen_metrics.importance import IWAE, LogMeanWeight
from jointgen_metrics.likelihood import ELBO, BitsPerDim, bound
from jointgen_vae.objective import VAE
from support.linear_gaussian import exact_model
from support.models import small_model
from torch import Tensor

from jointgen.contracts.figures import Estimate
from jointgen.contracts.noise import Noise
from jointgen.data.split import open_split
from jointgen.evaluation.evaluate import evaluate
from jointgen.inference.model import Model
from jointgen.inference.streams import batches

DOUBLE = torch.float64
ONE: dict[str, Any] = {"weights": [[0.9], [-0.4], [0.3]], "bias": [0.5, 0.0, -1.0], "scale": 0.6}
TWO: dict[str, Any] = {"weights": [[1.0, 0.8], [0.2, 0.9]], "bias": [0.5, -1.0], "scale": 0.7}


def model_of(built: Any) -> Model:
    return Model(built.compiled, built.parts)


def first_batch(built: Any, rows: int, seed: int = 0) -> Any:
    return next(iter(batches(model_of(built).view, open_split(built.compiled.binding, "test"), rows, seed)))


def weights(built: Any, metric: IWAE) -> LogMeanWeight:
    expr, reason = bound(model_of(built).view)
    assert expr is not None, reason
    return LogMeanWeight(metric, model_of(built).view, expr)


def found(built: Any, *metrics: Any, rows: int = 40, batch: int = 16) -> dict[str, Estimate]:
    return evaluate(model_of(built), open_split(built.compiled.binding, "test").first(rows), metrics, batch=batch)


def worse(built: Any) -> Any:
    """The same model with a poor encoder, which leaves something to gain."""
    with torch.no_grad():
        for w in built.parts.modules["encoder"].parameters():
            w += 0.2
    return built


@contextmanager
def inputs_seen(built: Any, part: str) -> Iterator[list[Tensor]]:
    """What a part's network is given at each of its runs."""
    seen: list[Tensor] = []
    handle = built.parts.modules[part].trunk.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    yield seen
    handle.remove()


# --- the bound --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 7])
def test_with_the_exact_posterior_any_number_of_draws_gives_log_p_x(k: int) -> None:
    """p(x, z) / q(z|x) = p(x) for every z, so its mean over draws is p(x) without variance."""
    built, truth = exact_model(ONE)
    batch = first_batch(built, 30)
    log_p = truth.log_density(batch.data["data"]["x"].double())
    assert torch.allclose(weights(built, IWAE(k=k))(batch), log_p, rtol=0, atol=1e-11)


def test_the_bound_rises_with_the_draws_up_to_log_p_x() -> None:
    """ELBO < K = 4 < K = 64 < log p(x) over 4000 rows, each step by more than five of its standard errors."""
    built, truth = exact_model(TWO)
    batch = first_batch(worse(built), 4000)
    expr, _ = bound(model_of(built).view)
    rising = [model_of(built).view.row_function(expr, observed=True)(batch)] if expr else []
    rising += [weights(built, IWAE(k=k, chunk=10**6))(batch) for k in (4, 64)]
    rising.append(truth.log_density(batch.data["data"]["x"].double()))
    assert len(rising) == 4
    for looser, tighter in itertools.pairwise(rising):
        gain = tighter - looser
        assert gain.mean() > 5 * gain.std() / math.sqrt(len(gain))


def test_it_is_called_what_it_is() -> None:
    built, _ = exact_model(TWO)
    estimate = found(built, IWAE(k=5))["iwae_5"]
    assert (estimate.bound, estimate.unit, estimate.split, estimate.n) == ("lower", "nats", "test", 40)
    assert estimate.estimator == "K = 5 draws of q(z|x) per row"
    assert found(built, IWAE(k=5, rows=24))["iwae_5"].n == 24
    several = found(built, IWAE(k=2), IWAE(k=8))
    assert list(several) == ["iwae_2", "iwae_8"]


def test_a_model_without_a_bound_says_why() -> None:
    decoder = {"network": {"type": "mlp", "hidden": []}, "family": {"type": "implicit"}}
    estimate = found(small_model(ALI().objective(), decoder=decoder), IWAE())["iwae_64"]
    assert estimate.value is None and estimate.note.startswith("no bound: decoder has no density")


# --- chunks -----------------------------------------------------------------------------------------------------------


def test_chunks_do_not_change_it() -> None:
    """Draw by draw the same noise: one draw at a time, three at a time with one left, or all ten at once."""
    built, _ = exact_model(TWO)
    batch = first_batch(worse(built), 8)
    alone, three, whole = (weights(built, IWAE(k=10, chunk=chunk))(batch) for chunk in (1, 24, 10**6))
    assert torch.allclose(alone, whole, rtol=0, atol=1e-12)
    assert torch.allclose(three, whole, rtol=0, atol=1e-12)


def test_the_first_draws_of_more_are_those_of_fewer() -> None:
    """log-mean-exp over 8 draws is that of the first 4 and of 4 others, of which it cannot be below half."""
    built, _ = exact_model(TWO)
    batch = first_batch(worse(built), 50)
    four, eight = weights(built, IWAE(k=4))(batch), weights(built, IWAE(k=8))(batch)
    assert (eight >= four - math.log(2)).all()
    assert not torch.allclose(four, eight, atol=1e-3)


def test_no_more_is_decoded_at_once_than_a_chunk() -> None:
    """K = 11 draws of 8 rows in chunks of 30: 3 draws at a time, 24 rows; one run of the encoder, of 8 rows, each."""
    built, _ = exact_model(TWO)
    batch = first_batch(built, 8)
    with inputs_seen(built, "decoder") as decoded, inputs_seen(built, "encoder") as encoded:
        weights(built, IWAE(k=11, chunk=30))(batch)
    assert [len(z) for z in decoded] == [24, 24, 24, 16]
    assert [len(x) for x in encoded] == [8, 8, 8, 8]


def test_a_chunk_below_a_batch_takes_one_draw_of_it() -> None:
    built, _ = exact_model(TWO)
    with inputs_seen(built, "decoder") as decoded:
        weights(built, IWAE(k=3, chunk=1))(first_batch(built, 8))
    assert [len(z) for z in decoded] == [8, 8, 8]


def test_draws_have_noise_of_their_own_number() -> None:
    """(rows * draws, ...), a row's draws together; no two rows or draws alike."""
    noise = Noise(0, "step", dtype=DOUBLE)
    whole = noise.repeated(3, range(5)).named("z k=5", 15).normal(2).unflatten(0, (3, 5))
    later = noise.repeated(3, range(2, 4)).named("z k=2", 6).normal(2).unflatten(0, (3, 2))
    assert torch.equal(whole[:, 2:4], later)
    assert len(whole.flatten().unique()) == 30
    source = noise.repeated(3, range(5)).named("z", 15)
    assert not torch.equal(source.normal(2), source.normal(2))


# --- data that is observed by a draw ----------------------------------------------------------------------------------


def test_every_draw_and_every_figure_sees_the_same_bits() -> None:
    data = {"type": "digits", "observe": "binarise"}
    decoder = {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "bernoulli"}}
    built = small_model(VAE().objective(), data=data, decoder=decoder)
    with inputs_seen(built, "encoder") as encoded:
        estimates = found(built, ELBO(), IWAE(k=6, chunk=32), rows=16)
    assert len(encoded) == 4  # the ELBO, and three chunks of two draws
    assert all(torch.equal(x, encoded[0]) for x in encoded)
    assert sorted(encoded[0].unique().tolist()) == [0.0, 1.0]
    for name in ("elbo", "iwae_6"):
        assert estimates[name].note == "x: bits drawn afresh from grey levels (dynamic binarisation)"
    assert "iwae_6_bits_per_dim" not in estimates


def test_bits_that_the_data_has_are_told_from_bits_that_are_drawn(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 2, (60, 12), dtype=np.uint8))
    data = {"type": "arrays", "path": str(tmp_path / "x.npy"), "observe": "binarise", "levels": 2}
    decoder = {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "bernoulli"}}
    estimate = found(small_model(VAE().objective(), data=data, decoder=decoder), IWAE(k=1), rows=6)["iwae_1"]
    assert estimate.note == "x: bits as the data has them (static binarisation)"


def uniform(path: Path, family: dict[str, Any]) -> Any:
    """8-bit data, a decoder that is U[0, 1)^12 whatever the code, and an encoder that is the prior."""
    levels = np.random.default_rng(0).integers(0, 256, (60, 12), dtype=np.uint8)
    np.save(path / "x.npy", levels)
    decoder = {"network": {"type": "mlp", "hidden": [6]}, "family": family}
    built = small_model(
        VAE().objective(), data={"type": "arrays", "path": str(path / "x.npy")}, decoder=decoder
    ).double()
    with torch.no_grad():
        for part in ("encoder", "decoder"):
            for w in built.parts.modules[part].trunk.layers[-1].parameters():
                w.zero_()
    return built


def test_the_uniform_model_has_eight_bits_per_dimension(tmp_path: Path) -> None:
    """Every bin has the mass 1/256, and the density of a value is 1, with any number of draws."""
    built = uniform(tmp_path, {"type": "continuous_bernoulli"})
    estimates = found(built, BitsPerDim(), ELBO(), IWAE(k=3), rows=6)
    assert estimates["bits_per_dim"].value == pytest.approx(8.0, abs=1e-12)
    assert estimates["iwae_3_bits_per_dim"].value == pytest.approx(8.0, abs=1e-12)
    assert estimates["elbo"].value == pytest.approx(0.0, abs=1e-12)
    assert estimates["iwae_3"].value == pytest.approx(0.0, abs=1e-12)
    assert estimates["iwae_3_bits_per_dim"].bound == "upper"
    assert estimates["iwae_3_bits_per_dim"].estimator == "exact bin mass, K = 3 draws of q(z|x) per row"


def test_without_bins_the_density_is_corrected_by_the_log_determinant(tmp_path: Path) -> None:
    """A coupling flow that starts as N(0, 1) has no mass of bins: bits = -log2 of its density + 8, both ways."""
    built = uniform(tmp_path, {"type": "coupling", "length": 1, "hidden": [4], "context": 0})
    estimates = found(built, BitsPerDim(), ELBO(), IWAE(k=1), rows=6)
    nats = estimates["iwae_1"].value
    assert nats is not None and nats < 0
    how = estimates["iwae_1_bits_per_dim"]
    assert how.estimator == "density of dequantised data, K = 1 draws of q(z|x) per row"
    assert how.value == pytest.approx(-nats / (12 * math.log(2)) + 8, abs=1e-12)
    assert estimates["bits_per_dim"].value == pytest.approx(-(estimates["elbo"].value or 0) / (12 * math.log(2)) + 8)


def test_more_draws_make_shorter_codes() -> None:
    """Digits of 17 levels, Gaussian bins, an untrained model: bits per dimension fall from the bound to K = 50."""
    built = small_model(VAE().objective(), data={"type": "digits"})
    estimates = found(built, BitsPerDim(), IWAE(k=50))
    bits, fewer = estimates["bits_per_dim"], estimates["iwae_50_bits_per_dim"]
    assert bits.value is not None and fewer.value is not None
    assert fewer.value < bits.value - 0.01
    assert fewer.estimator.startswith("exact bin mass")


def test_noise_of_rows_does_not_depend_on_their_batch() -> None:
    """Rows 16 to 50 of a batch of 51, of one that begins at 16, and of one that ends at 40: also several times each."""
    noise = Noise(3, "test", dtype=DOUBLE)
    whole, later, fewer = noise.of_rows(0, 51), noise.of_rows(16, 35), noise.of_rows(16, 24)
    for again in (lambda n: n, lambda n: n.renamed("other")):
        first, second, third = (again(n).named("z", n.rows).normal(2) for n in (whole, later, fewer))
        assert torch.equal(first[16:], second) and torch.equal(second[:24], third)
    assert len(whole.named("z", 51).normal(2).flatten().unique()) == 102
    assert not torch.equal(whole.named("z", 51).normal(2), whole.renamed("other").named("z", 51).normal(2))
    drawn = [n.repeated(n.rows, range(3)).named("z", 3 * n.rows).normal() for n in (later, fewer)]
    assert torch.equal(drawn[0][: 3 * 24], drawn[1])
    five = whole.named("directions", 5)  # not of the rows
    assert five.normal(4).shape == (5, 4)


def test_figures_do_not_depend_on_the_size_of_batches() -> None:
    """Bits, codes and all: 40 rows in batches of 16, of 32, and at once."""
    data = {"type": "digits", "observe": "binarise"}
    decoder = {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "bernoulli"}}
    built = small_model(VAE().objective(), data=data, decoder=decoder).double()
    sizes = [found(built, ELBO(), IWAE(k=3), batch=batch) for batch in (16, 32, 40)]
    for name in ("elbo", "iwae_3"):
        values = [estimates[name].value for estimates in sizes]
        assert values == pytest.approx([values[0]] * 3, abs=1e-10)
