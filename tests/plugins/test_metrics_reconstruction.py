"""Reconstruction of x and of z against closed forms."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from jointgen_metrics.reconstruction import PSNR, RMSE, CodeRMSE, psnr
from jointgen_metrics.similarity import SSIM, structural_similarity
from jointgen_vae.objective import VAE
from support.models import small_model
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from jointgen.contracts.capabilities import Capabilities
from jointgen.data.split import open_split
from jointgen.evaluation.evaluate import evaluate
from jointgen.inference.model import Model
from jointgen.objectives import p, q
from jointgen.testing.evaluation import tiny

DOUBLE = torch.float64
LINEAR = {"type": "mlp", "hidden": []}


# --- x ---------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Rebuilding:
    """In place of a model: one variable with values on [0, 1], and its reconstruction."""

    truth: Tensor
    rebuilt: Tensor
    observed: tuple[str, ...] = ("x",)

    @property
    def spaces(self) -> dict[str, Any]:
        return {"x": attrs.make_class("Space", ["shape", "low", "high"])(tuple(self.truth.shape[1:]), 0.0, 1.0)}

    @property
    def joints(self) -> dict[str, Any]:
        return {"q": q, "p": p}

    def capabilities(self, factor: Any) -> Capabilities:
        return Capabilities({"mean": "exact"})

    def can_reconstruct(self, variable: str) -> bool:
        return True

    def reconstruct_batch(self, batch: Any, variable: str) -> tuple[Tensor, Tensor]:
        return self.truth, self.rebuilt


class AtOnce:
    """In place of a batch."""

    @staticmethod
    def recall(key: str, compute: Any) -> Any:
        return compute()


def figure(metric: Any, truth: Tensor, rebuilt: Tensor) -> float:
    (measure,) = metric.figures(Rebuilding(truth, rebuilt))
    statistics = [collect.compute(AtOnce()) for collect in measure.statistics]
    value, _ = measure.finish(*statistics)
    return value


def test_psnr_of_images_with_one_error_is_that_of_the_rmse() -> None:
    """Every value off by 5.1 levels: 20 log10(255 / 5.1) = 20 log10(50) = 33.979 dB."""
    truth = torch.rand(4, 1, 8, 8, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    rebuilt = truth + 5.1 / 255
    assert figure(RMSE(), truth, rebuilt) == pytest.approx(5.1)
    assert figure(PSNR(), truth, rebuilt) == pytest.approx(20 * math.log10(50))


def test_psnr_is_a_mean_over_images_not_of_their_errors() -> None:
    """Errors of 51 and of 5.1 levels: 20 log10(5) and 20 log10(50) dB, whose mean is 23.979; that of the mean squared
    error would be 16.95."""
    truth = torch.zeros(2, 3, dtype=DOUBLE)
    rebuilt = truth + torch.tensor([[51.0], [5.1]], dtype=DOUBLE) / 255
    assert figure(PSNR(), truth, rebuilt) == pytest.approx(10 * math.log10(5) + 10 * math.log10(50))


def test_psnr_of_an_image_without_error_is_that_of_rounding() -> None:
    """10 log10(12 x 255^2) = 58.92 dB, and so it is of an error below sqrt(1/12) = 0.289 levels."""
    image = torch.full((1, 4), 100.0, dtype=DOUBLE)
    for error in (0.0, 0.28):
        assert psnr(image, image + error).item() == pytest.approx(10 * math.log10(12 * 255**2))
    assert psnr(image, image + 0.3).item() == pytest.approx(20 * math.log10(255 / 0.3))


@pytest.mark.parametrize("side", [3, 5, 8, 11, 28])
def test_ssim_of_constant_images_is_the_luminance_term(side: int) -> None:
    """No variance and no covariance: (2ab + C1) / (a^2 + b^2 + C1) with C1 = (0.01 x 255)^2 = 6.5025, eq. 6 and 13.

    Of 51 and 102 levels: 10410.5025 / 13011.5025 = 0.800100.
    """
    a, b = (torch.full((2, 3, side, side), value, dtype=DOUBLE) for value in (0.2, 0.4))
    assert pytest.approx(0.800100, abs=1e-6) == 10410.5025 / 13011.5025
    assert figure(SSIM(), a, b) == pytest.approx(10410.5025 / 13011.5025, abs=1e-9)


def test_ssim_of_an_image_with_itself_is_one_and_with_its_negative_below_zero() -> None:
    image = torch.rand(4, 1, 28, 28, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    assert figure(SSIM(), image, image) == pytest.approx(1.0, abs=1e-12)
    assert figure(SSIM(), image, 1 - image) < -0.5


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (1, 8)])
def test_ssim_is_torchmetrics(channels: int, side: int) -> None:
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(5, channels, side, side, dtype=DOUBLE, generator=generator) * 255
    b = (0.7 * a + 40 * torch.rand(a.shape, dtype=DOUBLE, generator=generator)).clamp(0, 255)
    half = min(5, (side - 1) // 2)
    theirs = structural_similarity_index_measure(a, b, sigma=0.3 * half, data_range=255.0, reduction="none")
    assert torch.allclose(structural_similarity(a, b, half, 0.3 * half), theirs, atol=1e-12)


def test_the_window_of_a_small_image_is_said() -> None:
    windows = {}
    for side in (8, 11, 28):
        image = torch.zeros(1, 1, side, side)
        (measure,) = SSIM().figures(Rebuilding(image, image))
        windows[side] = measure.protocol
    assert windows[8] == "Gaussian window of 7x7 pixels, sigma 0.9"
    assert windows[11] == windows[28] == "Gaussian window of 11x11 pixels, sigma 1.5"


def test_a_vector_has_no_ssim_and_an_unbounded_one_no_psnr() -> None:
    compiled = small_model(VAE().objective()).compiled  # points in the plane
    model = Model(compiled, compiled.parts).view
    assert SSIM().figures(model)[0].note == "x is no image of at least 3x3 pixels"
    assert PSNR().figures(model)[0].note == "x has no known range"
    assert RMSE().figures(model)[0].unit == "data units"


@pytest.mark.parametrize(("noise", "code"), [(0, "the mean"), (3, "a drawn")])
def test_a_code_that_can_only_be_drawn_is_said(noise: int, code: str) -> None:
    encoder = {"network": LINEAR, "family": {"type": "implicit", "noise": noise}}
    made = tiny(tables={"encoder": encoder, "objective": {"type": "avb"}})
    for metric in (RMSE(), PSNR(), SSIM()):
        (measure,) = metric.figures(Model(made, made.parts).view)
        assert measure.estimator == f"decoder mean at {code} code"


# --- z ---------------------------------------------------------------------------------------------------------------


def linear_gaussian(slope: float) -> Model:
    """x = z + 0.5 eps with z ~ N(0, 1); the encoder's mean is slope * x."""
    source = {"weights": [[1.0]], "scale": 0.5, "rows": 4000}
    tables = {"network": LINEAR, "family": {"type": "gaussian"}}
    made = small_model(
        VAE().objective(),
        data={"type": "linear_gaussian", **source},
        prior={"type": "normal", "size": 1},
        encoder=tables,
        decoder={"network": LINEAR, "family": {"type": "gaussian", "scale": "fixed", "init_scale": 0.5}},
    ).double()
    with torch.no_grad():
        for name, weight in (("encoder", [[slope], [0.0]]), ("decoder", [[1.0]])):
            layer = made.parts.modules[name].trunk.layers[0]
            layer.weight.copy_(torch.tensor(weight, dtype=DOUBLE))
            layer.bias.zero_()
    return Model(made.compiled, made.parts)


@pytest.mark.parametrize(
    ("slope", "wanted"),
    [
        (0.8, math.sqrt(0.2)),  # the posterior's mean is x / 1.25, its variance 0.25 / 1.25
        (1.0, 0.5),  # z less z + 0.5 eps
        (0.0, 1.0),  # the code says nothing
    ],
)
def test_codes_found_again_in_standard_deviations_of_the_prior(slope: float, wanted: float) -> None:
    model = linear_gaussian(slope)
    found = evaluate(model, open_split(model.compiled.binding, "test"), [CodeRMSE()], batch=1500)["code_rmse"]
    assert found.split == "draws"
    assert found.standard_error is not None and 0.003 < found.standard_error < 0.02
    assert abs(found.value - wanted) < 4 * found.standard_error
