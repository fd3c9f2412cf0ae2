"""What a run does to torch's global switches, and that nothing of it stays."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import train_small
from torch import Tensor, nn

from jointgen.errors import ConfigError
from jointgen.runtime.torch_settings import CUBLAS, switched

RUN: dict[str, Any] = {"train.steps": 2, "train.deterministic": True, "train.threads": 2}


def switches() -> dict[str, Any]:
    cudnn = torch.backends.cudnn
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "benchmark": cudnn.benchmark,
        "matrices": (torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.fp32_precision),
        "convolutions": (cudnn.allow_tf32, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision),
    }


INSIDE = {
    "threads": 2,
    "deterministic": True,
    "warn only": False,
    "benchmark": False,
    "matrices": ("highest", "ieee"),
    "convolutions": (False, "ieee", "ieee"),
}


def prefer_speed() -> None:
    """As somebody's notebook may begin."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("medium")


@pytest.fixture(params=[lambda: None, prefer_speed], ids=["torch's own", "fast"])
def before(request: pytest.FixtureRequest) -> Any:
    """The switches of a caller, put back for other tests."""
    with switched(deterministic=False, threads=1):
        torch.backends.cudnn.allow_tf32 = True
        request.param()
        yield switches()
        torch.backends.cudnn.benchmark = False


def test_a_run_leaves_the_switches_as_they_were(before: dict[str, Any], tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def stop() -> int:
        seen.append(switches())
        return 0

    train_small(tmp_path / "run", RUN, stop=stop)
    assert seen and all(during == INSIDE != before for during in seen)
    assert switches() == before


def test_also_after_an_exception(before: dict[str, Any], tmp_path: Path) -> None:
    def fail() -> int:
        raise KeyError("somebody's own")

    with pytest.raises(KeyError, match="somebody's own"):
        train_small(tmp_path / "run", RUN, stop=fail)
    assert switches() == before


def test_an_operation_that_cannot_be_repeated_is_named() -> None:
    """`put_` is one for which torch has no deterministic version, on the CPU either."""
    with pytest.raises(ConfigError) as caught, switched(deterministic=True, threads=None):
        nn.Identity()(torch.zeros(3)).put_(torch.tensor([0]), torch.ones(1))
    (problem,) = caught.value.lines
    assert problem == (
        f"train.deterministic: torch {torch.__version__} has no deterministic version of 'put_', which this model "
        "uses; set it to false, or choose parts that do without"
    )


def test_other_failures_stay_what_they_are() -> None:
    def fail() -> Tensor:
        return torch.ones(2) + torch.ones(3)

    with pytest.raises(RuntimeError, match="must match the size") as caught, switched(deterministic=True, threads=None):
        fail()
    assert type(caught.value) is RuntimeError


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """A machine with a GPU, on which CUDA has started or not."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv(CUBLAS, "")  # so that it is put back at the end
    monkeypatch.delenv(CUBLAS)
    return lambda started: monkeypatch.setattr(torch.cuda, "is_initialized", lambda: started)


def test_cublas_is_told_before_cuda_starts(cuda: Callable[[bool], None]) -> None:
    cuda(False)
    with switched(deterministic=False, threads=None):
        assert CUBLAS not in os.environ
    with switched(deterministic=True, threads=None):
        assert os.environ[CUBLAS] == ":4096:8"


def test_cublas_cannot_be_told_any_more(cuda: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch) -> None:
    cuda(True)
    line = f"train.deterministic: CUDA has started without {CUBLAS}; set it to ':4096:8' before Python starts"
    with pytest.raises(ConfigError) as caught, switched(deterministic=True, threads=None):
        pass
    assert caught.value.lines == [line]
    assert not torch.are_deterministic_algorithms_enabled()
    monkeypatch.setenv(CUBLAS, ":16:8")
    with switched(deterministic=True, threads=None):
        assert os.environ[CUBLAS] == ":16:8"
