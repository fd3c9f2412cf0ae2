"""Devices without float64, as Apple's GPU is one: a fake one refuses float64 as it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from jointgen_families.correlated import CorrelatedGaussian
from jointgen_families.flows.planar import PlanarTransform
from jointgen_metrics import frechet, moments
from jointgen_metrics.distances import sliced_wasserstein
from jointgen_metrics.inception_score import Predictions
from jointgen_metrics.manifolds import prdc
from support.no_float64 import DEVICE, device_without_float64
from torch import Tensor

from jointgen.contracts.observation import pixels
from jointgen.contracts.space import Space
from jointgen.contracts.statistics import Mean
from jointgen.data.device import copy_to_device, send
from jointgen.errors import ConfigError
from jointgen.runtime import devices
from jointgen.runtime.devices import has_float64, in_float64
from jointgen.runtime.global_rng import seeded
from jointgen.runtime.workers import find_device

Send = Callable[[Tensor], Tensor]


@pytest.fixture
def there() -> Iterator[Send]:
    with device_without_float64() as send_there:
        yield send_there


def some(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_device_refuses_float64_and_tensors_of_two_devices(there: Send) -> None:
    x = there(some(3))
    assert x.device == DEVICE and torch.equal((2 * x).cpu(), 2 * some(3))
    with pytest.raises(TypeError, match="float64"):
        x.double()
    with pytest.raises(TypeError, match="float64"):
        torch.zeros(3, dtype=torch.float64, device=DEVICE)
    with pytest.raises(RuntimeError, match="two devices"):
        _ = x + some(3)


def test_float64_is_had_on_the_cpu(there: Send) -> None:
    has_float64.cache_clear()
    assert not has_float64(DEVICE) and has_float64(torch.device("cpu"))
    found = in_float64(there(some(3)))
    assert found.device.type == "cpu" and torch.equal(found, some(3).double())


def test_figures_are_those_of_the_cpu(there: Send) -> None:
    x, y = some(40, 3), some(80, 3)[40:]
    assert Mean.of(there(x[:, 0])) == Mean.of(x[:, 0])
    for of in (frechet.Moments.of, moments.Moments.of):
        ours, theirs = of(there(x)), of(x)
        assert torch.equal(ours.mean, theirs.mean) and torch.equal(ours.m2, theirs.m2)
    split = torch.arange(40) % 4
    assert torch.equal(Predictions.of(there(x), there(split), 4).p, Predictions.of(x, split, 4).p)
    assert prdc(there(x), there(y), 3) == prdc(x, y, 3)
    assert sliced_wasserstein(there(x), there(y), there(some(3, 5))) == sliced_wasserstein(x, y, some(3, 5))


def test_pictures_are_on_the_device_that_they_came_from(there: Send) -> None:
    space, values = Space((1, 2, 2), "real", 0.0, 1.0, 256), some(4, 1, 2, 2).sigmoid()
    found = pixels(there(values), space)
    assert found.device == DEVICE and torch.equal(found.cpu(), pixels(values, space))


def test_rows_in_float64_arrive_in_float32(there: Send) -> None:
    class Rows:
        def __len__(self) -> int:
            return 4

        def take(self, index: Tensor) -> dict[str, Tensor]:
            return {"x": some(4, 2).double()[index]}

    assert torch.equal(send(some(4).double(), DEVICE).cpu(), some(4))
    held = copy_to_device(Rows(), DEVICE).values["x"]
    assert held.dtype == torch.float32 and torch.equal(held.cpu(), some(4, 2))


def test_what_is_solved_in_float64_comes_back(there: Send) -> None:
    """A correlated Gaussian's root, and the point that planar layers came from."""
    mean, space = some(2, 3), Space((3,))
    half = some(2, 3, 3)
    correlation = half @ half.mT
    unit = correlation.diagonal(dim1=1, dim2=2).rsqrt()
    correlation = (correlation * unit[:, :, None] * unit[:, None]).double()
    ours = CorrelatedGaussian(there(mean), there(mean), correlation, space)
    assert torch.equal(ours.root.cpu(), CorrelatedGaussian(mean, mean, correlation, space).root)
    assert ours.root.device == DEVICE
    vectors = [some(2, 4, 3), some(2, 4, 3), some(2, 4)]  # u, w and b of four layers
    ours, theirs = PlanarTransform(*map(there, vectors)), PlanarTransform(*vectors)
    with torch.no_grad():
        for found, expected in zip(ours.inverse(there(mean)), theirs.inverse(mean), strict=True):
            assert found.device == DEVICE and torch.equal(found.cpu(), expected)


def test_a_device_that_is_not_there_or_cannot_compute_this_is_refused(there: Send) -> None:
    for name in ("mps", "xpu"):
        with pytest.raises(ConfigError, match=f"device: '{name}', but torch sees 0 {name} GPUs; use 'cpu'"):
            find_device(name, "fp32", 1)
    with mock.patch.object(devices, "module_of", lambda device: SimpleNamespace(device_count=lambda: 1)):
        assert find_device("mps", "fp32", 1) == DEVICE
        with pytest.raises(ConfigError, match="precision: 'fp64' is not something mps can compute"):
            find_device("mps", "fp64", 1)
        with pytest.raises(ConfigError, match="device: 'mps' is one GPU, which several processes cannot share"):
            find_device("mps", "fp32", 2)


def test_generators_of_a_device_are_seeded_saved_and_restored() -> None:
    """Apple's functions take no device, since there is one."""
    state, calls = torch.arange(3, dtype=torch.uint8), list[tuple[object, ...]]()
    fake = SimpleNamespace(
        manual_seed=lambda *a: calls.append(("seed", *a)),
        get_rng_state=lambda *a: (calls.append(("get", *a)), state)[1],
        set_rng_state=lambda *a: calls.append(("set", *a)),
    )
    for device, extra in ((DEVICE, ()), (torch.device("xpu", 1), (torch.device("xpu", 1),))):
        calls.clear()
        with mock.patch.object(devices, "module_of", lambda _: fake), seeded(5, device):
            assert calls == [("get", *extra), ("seed", 5)]
        assert calls[2][0] == "set" and torch.equal(calls[2][1], state) and calls[2][2:] == extra
