"""Sets torch's global switches for as long as a run lasts."""

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
    """Set torch's switches, and put back what the caller had on exit.

    TF32 is off: float32 means float32 (by default, torch rounds the inputs of a convolution to 10 bits of mantissa).

    Args:
        deterministic: Whether to refuse operations that torch cannot repeat. cuDNN then does not choose its algorithms
            by timing them.
        threads: Torch's threads on the CPU; None leaves their number.

    Raises:
        ConfigError: An operation within has no deterministic version; the message names it.
    """
    with contextlib.ExitStack() as back:
        _switch(back, _precisions, _set_precisions, ("highest", "ieee", "ieee", "ieee"))
        if threads is not None:
            _switch(back, torch.get_num_threads, torch.set_num_threads, threads)
        _switch(back, _determinism, _set_determinism, (deterministic, False))
        if deterministic:
            _switch(back, lambda: _CUDNN.benchmark, lambda value: setattr(_CUDNN, "benchmark", value), False)
            _prepare_cublas()
        try:
            yield
        except RuntimeError as error:
            if (operation := _NOT_DETERMINISTIC.search(str(error))) is None:
                raise
            raise ConfigError(
                f"torch {torch.__version__} has no deterministic version of {operation[1]!r}, which this "
                "model uses; set it to false, or choose parts that do without",
                "train",
                "deterministic",
            ) from error


@contextlib.contextmanager
def kept_switches() -> Iterator[None]:
    """Put what code of others may have changed within back on exit: torch's global switches, and the working folder."""
    switches: list[tuple[Callable[[], Any], Callable[[Any], None]]] = [
        (torch.is_grad_enabled, lambda value: torch._C._set_grad_enabled(value)),
        (torch.get_default_dtype, torch.set_default_dtype),
        (torch.get_default_device, _set_default_device),
        (torch.get_num_threads, torch.set_num_threads),
        (_precisions, _set_precisions),
        (_determinism, _set_determinism),
        (os.getcwd, os.chdir),
    ]
    before = [get() for get, _ in switches]
    try:
        yield
    finally:
        for (get, put), value in zip(switches, before, strict=True):
            if get() != value:
                put(value)


def _set_default_device(device: torch.device) -> None:
    torch.set_default_device(
        None if device.type == "cpu" else device
    )  # with one set, every function of torch is slower


def _switch(back: contextlib.ExitStack, get: Callable[[], Any], put: Callable[[Any], None], value: Any) -> None:
    """Set a switch to a value, and back when the stack closes."""

    def put_if_changed(value: Any) -> None:
        if get() != value:  # merely telling torch to be deterministic imports its compiler
            put(value)

    back.callback(put_if_changed, get())
    put_if_changed(value)


def _precisions() -> tuple[str, ...]:
    """Return the precisions of float32: by torch's older switch for products of matrices, then by the newer ones."""
    newer = [backend.fp32_precision for backend in _BACKENDS]
    try:
        return torch.get_float32_matmul_precision(), *newer
    except RuntimeError:  # torch refuses to say if the caller has set the newer ones alone
        return "high" if newer[0] == "tf32" else "highest", *newer


def _set_precisions(values: tuple[str, ...]) -> None:
    older, *newer = values
    torch.set_float32_matmul_precision(older)  # the older ones too: torch refuses to work if they disagree
    _CUDNN.allow_tf32 = newer[1] == newer[2] == "tf32"
    for backend, value in zip(_BACKENDS, newer, strict=True):
        if backend.fp32_precision != value:
            backend.fp32_precision = value


def _determinism() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_determinism(state: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(state[0], warn_only=state[1])


def _prepare_cublas() -> None:
    """Give cuBLAS the workspace with which it repeats itself; it reads the variable when CUDA starts.

    The variable stays after the run, because cuBLAS goes on with it.
    """
    if CUBLAS in os.environ or not torch.cuda.is_available():
        return
    if torch.cuda.is_initialized():
        raise ConfigError(
            f"CUDA has started without {CUBLAS}; set it to ':4096:8' before Python starts", "train", "deterministic"
        )
    os.environ[CUBLAS] = ":4096:8"
