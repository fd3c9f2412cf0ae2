"""The processes that train one model together. The only file that imports Accelerate, but for its trackers.

Networks stay raw modules and a step has one flat all-reduce per update, so that shared forwards, methods other than
forward and partly used networks are safe (docs/engineering.md; the way of StyleGAN3). Accelerate finds the
device, joins the processes and gathers. Autocast is torch's own: Accelerate's follows whichever Accelerator was
made last in this Python process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from jointgen.errors import ConfigError, JointgenError, LostError

Precision = Literal["fp32", "bf16", "fp64"]

_REMEDY = "start them with `jointgen run --processes N` or torchrun"


@contextmanager
def _together() -> Iterator[None]:
    """Around an exchange: torch's errors of a lost connection are the end of this process too, in one line."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise LostError(f"another process of this run went away, or none can be reached: {reason}") from error


class Workers:
    """This process among those of the run; with one process every exchange does nothing."""

    def __init__(self, accelerator: Accelerator, device: torch.device, precision: Precision):
        self._accelerator = accelerator
        self.device = device
        self.precision = precision
        self.rank: int = accelerator.process_index
        self.world: int = accelerator.num_processes
        self.dtype = torch.float64 if precision == "fp64" else torch.float32

    @classmethod
    def start(cls, device: str = "auto", precision: Precision = "fp32", *, processes: int | None = None) -> Workers:
        """Joins the processes that a launcher (torchrun, `accelerate launch`) started, or runs alone.

        `device`: "auto" (a GPU if there is one), "cpu", "cuda" or, for a process alone, "cuda:1".
        `processes`: how many there should be, where the caller knows. May be called again with other settings.
        Raises ConfigError for a device or a precision that this machine lacks, and JointgenError when the launcher
        started fewer processes than it said.
        """
        wanted = _device(device)
        _check_launch()
        accelerator = _joined(cpu=wanted.type == "cpu")
        _check_count(accelerator.num_processes, processes)
        _check_device(wanted, accelerator)
        found = wanted if wanted.type == "cpu" or wanted.index is not None else accelerator.device
        if found.type == "cuda" and found.index is not None:
            torch.cuda.set_device(found)
        if precision == "bf16" and found.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise ConfigError(f"'bf16' is not something {found} can compute; use 'fp32'", "precision")
        return cls(accelerator, found, precision)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def cast_to(self) -> torch.dtype | None:
        """What parameters are converted to; None leaves them as they were made."""
        return torch.float64 if self.precision == "fp64" else None

    def autocast(self) -> torch.autocast:
        """Matrix products and convolutions in bfloat16 where the precision asks for it; their own type otherwise."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def barrier(self) -> None:
        """Waits until every process is here."""
        with _together():
            self._accelerator.wait_for_everyone()

    def gather(self, tensor: Tensor) -> Tensor:
        """(rows, *shape) of each process -> all rows, process by process. Processes may differ in `rows`.

        Carries no gradient.
        """
        return torch.cat(self.gather_each(tensor)) if self.world > 1 else tensor.detach()

    def gather_each(self, tensor: Tensor) -> list[Tensor]:
        """Each process's (rows, *shape), in order of rank."""
        mine = torch.tensor([len(tensor)], device=self.device)
        with _together():
            rows: list[int] = self._accelerator.gather(mine).tolist()
            padded = tensor.new_zeros(max(rows), *tensor.shape[1:])
            padded[: len(tensor)] = tensor.detach()
            blocks = self._accelerator.gather(padded.to(self.device)).split(max(rows))
        return [block[:n] for block, n in zip(blocks, rows, strict=False)]

    def all_reduce_mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replaces each tensor by its mean over the processes: one all-reduce for all of them (per dtype).

        Every process must pass the same shapes in the same order; send zeros for an absent gradient.
        """
        if self.world > 1:
            _flatly(tensors, self._mean_)

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Replaces each tensor by the main process's."""
        if self.world > 1:
            _flatly(tensors, lambda flat: dist.broadcast(flat, src=0))

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replaces a tensor by its sum over the processes, and returns it."""
        if self.world > 1:
            _flatly([tensor], dist.all_reduce)
        return tensor

    def check_replicas(self, named: Mapping[str, Tensor]) -> None:
        """Raises JointgenError, naming the first tensor, when processes no longer hold the same numbers.

        Compares a number for each tensor that any change of any bit changes, so it costs one small broadcast; every
        process raises.
        """
        if self.world == 1 or not named:
            return
        mine = torch.stack([_digest(value) for value in named.values()])
        first = mine.clone()
        self.broadcast_([first])
        differs = self.sum_((mine != first).long())
        bad = [name for name, count in zip(named, differs.tolist(), strict=True) if count]
        if bad:
            raise JointgenError(f"processes no longer agree on {len(bad)} tensors, the first is {bad[0]!r}")

    def _mean_(self, flat: Tensor) -> None:
        dist.all_reduce(flat)
        flat /= self.world


def leave() -> None:
    """Leaves the other processes, at the end of a program. Alone there is nothing to leave."""
    if dist.is_initialized():
        dist.destroy_process_group()


class Votes:
    """A question that every process answers after each step; all of them learn the largest answer one step later.

    So they stop after the same step whichever of them a signal reached, and no step waits for the exchange, which
    runs beside it on the CPU. One process alone has its own answer at once.
    """

    def __init__(self, workers: Workers, ask: Callable[[], int]):
        self._ask = ask
        self._pending: Any = None
        self._group: Any = dist.new_group(backend="gloo") if workers.world > 1 else None

    def __call__(self) -> int:
        if self._group is None:
            return self._ask()
        if answer := self.settle():
            return answer
        self._vote = torch.tensor([self._ask()])
        self._pending = dist.all_reduce(self._vote, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return 0

    def settle(self) -> int:
        """Waits for the vote that is under way, if any, and returns its outcome."""
        if self._pending is None:
            return 0
        with _together():
            self._pending.wait()
        self._pending = None
        return int(self._vote)


_AS_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _digest(tensor: Tensor) -> Tensor:
    """() int64: the bits of a tensor, weighted by their place. In whole numbers modulo 2^64, because a sum of floating
    numbers depends on how many threads take it."""
    flat = tensor.detach().contiguous().view(-1)
    bits = flat.view(_AS_INTEGERS[flat.element_size()]).long()
    return (bits * torch.arange(1, 2 * len(bits), 2, device=bits.device)).sum()


@torch.no_grad()
def _flatly(tensors: Iterable[Tensor], exchange: Callable[[Tensor], object]) -> None:
    """Concatenates tensors of one dtype, exchanges them in place as one, and copies the result back."""
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for group in by_dtype.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        with _together():
            exchange(flat)
        parts = flat.split([tensor.numel() for tensor in group])
        torch._foreach_copy_(group, [part.view_as(tensor) for part, tensor in zip(parts, group, strict=True)])


# --- starting ---------------------------------------------------------------------------------------------------------


def _device(name: str) -> torch.device:
    """The device asked for, known to be there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda") or name.startswith("cpu:"):
        raise ConfigError(f"{name!r} is not a device; allowed: 'auto', 'cpu', 'cuda', 'cuda:N'", "device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"{name!r}, but torch sees {torch.cuda.device_count()} GPUs; use 'cpu'", "device")
    return device


def _joined(cpu: bool) -> Accelerator:
    try:
        return _accelerator(cpu)
    except dist.DistError as error:
        reason = str(error).splitlines()[0]
        raise LostError(f"the other processes of this run cannot be joined: {reason}") from error


def _accelerator(cpu: bool) -> Accelerator:
    """A new Accelerator. Its state is global to the Python process, and an earlier run may have left its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    # "no": our own autocast decides, not ACCELERATE_MIXED_PRECISION.
    # cpu: without it, torchrun on a machine without a GPU gives unrelated jobs of one process each.
    return Accelerator(cpu=cpu, mixed_precision="no")


def _check_launch() -> None:
    """WORLD_SIZE alone would wait for processes that nobody started; `accelerate launch` starts one on a CPU, however
    many it is asked for, and says nothing (docs/engineering.md)."""
    launched = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in launched if name not in os.environ]
    if {"RANK", "LOCAL_RANK"} & {*os.environ}:
        if missing:
            said = ", ".join(name for name in launched[:2] if name not in missing)
            raise JointgenError(f"{said} is set as by a launcher, but {', '.join(missing)} is not; {_REMEDY}")
        return
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1":
        raise JointgenError(f"WORLD_SIZE is {world}, but no launcher gave this process a rank; {_REMEDY}")
    if {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= {*os.environ}:
        raise JointgenError(f"accelerate launch was asked for several processes and started one; {_REMEDY}")


def _check_count(found: int, asked: int | None) -> None:
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if found != launched:
        raise JointgenError(f"WORLD_SIZE is {launched}, but {found} process(es) joined; {_REMEDY}")
    if asked is not None and found != asked:
        raise JointgenError(f"{asked} processes were asked for, but {found} joined; {_REMEDY}")


def _check_device(wanted: torch.device, accelerator: Accelerator) -> None:
    if wanted.type != accelerator.device.type:  # ACCELERATE_USE_CPU or ACCELERATE_TORCH_DEVICE is set
        raise ConfigError(
            f"{wanted.type!r}, but Accelerate's environment variables say {accelerator.device.type!r}", "device"
        )
    if wanted.index is not None and accelerator.num_processes > 1:
        raise ConfigError(f"'{wanted}' is for one process; several each take their own with 'cuda'", "device")
