"""torch's global switches, as a run wants them and for as long as it lasts."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

from jointgen.errors import ConfigError

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"

_NOT_DETERMINISTIC = re.compile(r"(\S+) does not have a deterministic implementation")
_CUDNN: Any = torch.backends.cudnn
_BACKENDS: tuple[Any, ...] = (torch.backends.cuda.matmul, _CUDNN.conv, _CUDNN.rnn)


@contextlib.contextmanager
def switched(*, deterministic: bool, threads: int | None) -> Iterator[None]:
    """Sets torch's switches and puts back what the caller had, also after an exception.

    TF32 is off: float32 means float32 (torch's own default rounds a convolution's inputs to 10 bits of mantissa).
    threads: of torch on the CPU; None leaves them.  deterministic: refuse what torch cannot repeat; cuDNN does not
    choose its algorithms by timing them.

    Raises ConfigError naming the operation where one has no deterministic version.
    """
    with contextlib.ExitStack() as back:
        _switch(back, _precisions, _set_precisions, ("highest", "ieee", "ieee", "ieee"))
        if threads is not None:
            _switch(back, torch.get_num_threads, torch.set_num_threads, threads)
        _switch(back, _determinism, _set_determinism, (deterministic, False))
        if deterministic:
            _switch(back, _benchmark, _set_benchmark, False)
            _prepare_cublas()
        try:
            yield
        except RuntimeError as error:
            raise _named(error) from error


def _switch(back: contextlib.ExitStack, get: Callable[[], Any], put: Callable[[Any], None], value: Any) -> None:
    back.callback(_put, get, put, get())
    _put(get, put, value)


def _put(get: Callable[[], Any], put: Callable[[Any], None], value: Any) -> None:
    if get() != value:  # merely telling torch to be deterministic imports its compiler
        put(value)


def _precisions() -> tuple[str, ...]:
    """By the older switch of products of matrices, then by the newer ones."""
    newer = [backend.fp32_precision for backend in _BACKENDS]
    try:
        return torch.get_float32_matmul_precision(), *newer
    except RuntimeError:  # torch will not say where the caller has used the newer alone
        return "high" if newer[0] == "tf32" else "highest", *newer


def _set_precisions(values: tuple[str, ...]) -> None:
    older, *newer = values
    torch.set_float32_matmul_precision(older)  # the older switches too: torch refuses to work where they disagree
    _CUDNN.allow_tf32 = newer[1] == newer[2] == "tf32"
    for backend, value in zip(_BACKENDS, newer, strict=True):
        if backend.fp32_precision != value:
            backend.fp32_precision = value


def _benchmark() -> bool:
    return _CUDNN.benchmark


def _set_benchmark(value: bool) -> None:
    _CUDNN.benchmark = value


def _determinism() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_determinism(state: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(state[0], warn_only=state[1])


def _prepare_cublas() -> None:
    """cuBLAS repeats itself with a workspace that it must be told before CUDA starts.

    The variable stays: cuBLAS has read it by the end of the run, and taking it away would only mislead.
    """
    if CUBLAS in os.environ or not torch.cuda.is_available():
        return
    if torch.cuda.is_initialized():
        raise ConfigError(
            f"CUDA has started without {CUBLAS}; set it to ':4096:8' before Python starts", "train", "deterministic"
        )
    os.environ[CUBLAS] = ":4096:8"


def _named(error: RuntimeError) -> RuntimeError | ConfigError:
    """One line that names the operation, where torch has stopped for want of a deterministic one."""
    found = _NOT_DETERMINISTIC.search(str(error))
    if found is None:
        return error
    return ConfigError(
        f"torch {torch.__version__} has no deterministic version of {found[1]!r}, which this "
        "model uses; set it to false, or choose parts that do without",
        "train",
        "deterministic",
    )
