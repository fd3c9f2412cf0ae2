"""The processes that train one model together. Only this file and the trackers import Accelerate.

Networks stay raw modules, and a step reduces the gradients of each update in one flat exchange, so networks may share
forwards, have methods other than forward, and be used in part (docs/inside/engineering.md; StyleGAN3 does the same).
Accelerate finds the device, joins the processes and gathers. Autocast is torch's own: Accelerate's follows the
Accelerator that was made last in this Python process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from jointgen.errors import ConfigError, JointgenError, LostError
from jointgen.runtime.console import warn_once
from jointgen.runtime.devices import ACCELERATORS, UNTESTED, count_of, has_float64, module_of
from jointgen.runtime.ranks import REMEDY, check_variables, world_size

Precision = Literal["fp32", "bf16", "fp64"]


@contextmanager
def _exchanging() -> Iterator[None]:
    """Turn torch's errors of a lost connection into LostError, which ends this process too."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise LostError(f"another process of this run went away, or none can be reached: {reason}") from error


class Workers:
    """This process among those of a run. `Workers.start` makes it; with one process every exchange does nothing.

    Attributes:
        rank: The number of this process, from 0.
        world: The number of processes.
        device: The device of this process.
        dtype: The type of noise and data: float64 with the precision "fp64", otherwise float32.
    """

    def __init__(self, accelerator: Accelerator, device: torch.device, precision: Precision):
        self._accelerator = accelerator
        self.device = device
        self.precision = precision
        self.rank: int = accelerator.process_index
        self.world: int = accelerator.num_processes
        self.dtype = torch.float64 if precision == "fp64" else torch.float32

    @classmethod
    def start(cls, device: str = "auto", precision: Precision = "fp32", *, processes: int | None = None) -> Workers:
        """Join the processes that a launcher (torchrun, `accelerate launch`) started, or run alone.

        It may be called again with other settings.

        Args:
            device: "auto" (an NVIDIA or AMD GPU if there is one), "cpu", "cuda" or, for a process alone, "cuda:1".
                "mps" and "xpu" are run by the same code, and untested.
            precision: "fp32", "bf16" (products of matrices in bfloat16) or "fp64".
            processes: How many there should be, if the caller knows.

        Raises:
            ConfigError: This machine lacks the device or the precision.
            JointgenError: The launcher started fewer processes than it said.
        """
        check_variables()
        wanted = find_device(device, precision, world_size())
        try:
            accelerator = _accelerator(cpu=wanted.type == "cpu")
        except dist.DistError as error:
            reason = str(error).splitlines()[0]
            raise LostError(f"the other processes of this run cannot be joined: {reason}") from error
        joined = accelerator.num_processes
        if joined != world_size():
            raise JointgenError(f"WORLD_SIZE is {world_size()}, but {joined} process(es) joined; {REMEDY}")
        if processes is not None and joined != processes:
            raise JointgenError(f"{processes} processes were asked for, but {joined} joined; {REMEDY}")
        _check_device(wanted, accelerator)
        found = wanted if wanted.type == "cpu" or wanted.index is not None else accelerator.device
        if found.type in ("cuda", "xpu") and found.index is not None:
            module_of(found).set_device(found)
        if found.type in UNTESTED:
            warn_once(f"nobody has tested jointgen on {found.type!r}; compare a short run with device = 'cpu'")
        return cls(accelerator, found, precision)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files: the one of rank 0."""
        return self.rank == 0

    @property
    def cast_to(self) -> torch.dtype | None:
        """The type that parameters are converted to; None leaves them as they were built."""
        return torch.float64 if self.precision == "fp64" else None

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which products of matrices are in bfloat16, if the precision is "bf16"."""
        if self.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def barrier(self) -> None:
        """Wait until every process has come here."""
        with _exchanging():
            self._accelerator.wait_for_everyone()

    def gather(self, tensor: Tensor) -> Tensor:
        """Concatenate the rows of all processes, in order of rank, without gradient.

        Args:
            tensor: (rows, *shape); the number of rows may differ between processes.
        """
        return torch.cat(self.gather_each(tensor)) if self.world > 1 else tensor.detach()

    def gather_with_gradient(self, rows: Tensor) -> Tensor:
        """Concatenate the rows of all processes, in order of rank, with gradient.

        What every process makes of them gives its gradient back to the process whose rows they are. So the mean over
        processes of losses that each see all rows has the gradient of one process with all of them.

        Args:
            rows: (n, *shape), as many in every process.
        """
        if self.world == 1:
            return rows
        every: Tensor = _GatherRows.apply(rows, self.rank, self.world)
        return every

    def gather_each(self, tensor: Tensor) -> list[Tensor]:
        """Return the (rows, *shape) of each process, in order of rank."""
        local_rows = torch.tensor([len(tensor)], device=self.device)
        with _exchanging():
            rows: list[int] = self._accelerator.gather(local_rows).tolist()
            padded = tensor.new_zeros(max(rows), *tensor.shape[1:])
            padded[: len(tensor)] = tensor.detach()
            blocks = self._accelerator.gather(padded.to(self.device)).split(max(rows))
        return [block[:n] for block, n in zip(blocks, rows, strict=False)]

    def all_reduce_mean_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the processes, in one all-reduce for each type.

        Every process must pass the same shapes in the same order, and zeros for an absent gradient.
        """

        def mean_(flat: Tensor) -> None:
            dist.all_reduce(flat)
            flat /= self.world

        if self.world > 1:
            exchange_flat(tensors, mean_)

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by that of the main process."""
        if self.world > 1:
            exchange_flat(tensors, lambda flat: dist.broadcast(flat, src=0))

    def sum_(self, tensor: Tensor) -> Tensor:
        """Replace a tensor by its sum over the processes, and return it."""
        if self.world > 1:
            exchange_flat([tensor], dist.all_reduce)
        return tensor

    def check_replicas(self, named: Mapping[str, Tensor]) -> None:
        """Check that all processes hold the same tensors, bit for bit. Costs one broadcast of a number for each tensor.

        Args:
            named: The tensors by name.

        Raises:
            JointgenError: They do not; raised in every process, and names the first tensor.
        """
        if self.world == 1 or not named:
            return
        digests = torch.stack([_digest(value) for value in named.values()])
        main_digests = digests.clone()
        self.broadcast_([main_digests])
        differs = self.sum_((digests != main_digests).long())
        bad = [name for name, count in zip(named, differs.tolist(), strict=True) if count]
        if bad:
            raise JointgenError(f"processes no longer agree on {len(bad)} tensors, the first is {bad[0]!r}")


class _GatherRows(torch.autograd.Function):
    """All rows forward; backward, the sum over processes of the gradients of this process's rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int, world: int) -> Tensor:
        ctx.rank, ctx.rows = rank, len(rows)
        blocks = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world)]
        with _exchanging():
            dist.all_gather(blocks, rows.contiguous())
        return torch.cat(blocks)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (every,) = gradients
        every = every.clone(memory_format=torch.contiguous_format)
        with _exchanging():
            dist.all_reduce(every)
        return every[ctx.rank * ctx.rows : (ctx.rank + 1) * ctx.rows], None, None


def leave() -> None:
    """Leave the other processes at the end of a program; a process alone has nothing to leave."""
    if dist.is_initialized():
        dist.destroy_process_group()


class Votes:
    """Asks every process a question after each step, and gives all of them the largest answer one step later.

    So they stop after the same step, whichever of them a signal reached. No step waits for the exchange, which runs
    beside it on the CPU. A process alone has its own answer at once.

    Args:
        workers: The processes; all of them must make this object at the same time.
        ask: Returns this process's answer, 0 for no.
    """

    def __init__(self, workers: Workers, ask: Callable[[], int]):
        self._ask = ask
        self._pending: Any = None
        self._group: Any = dist.new_group(backend="gloo") if workers.world > 1 else None

    def __call__(self) -> int:
        """Return the largest answer to the last question, or this process's own if it is alone; ask the next."""
        if self._group is None:
            return self._ask()
        if answer := self.settle():
            return answer
        self._vote = torch.tensor([self._ask()])
        self._pending = dist.all_reduce(self._vote, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return 0

    def settle(self) -> int:
        """Wait for the vote that is under way, if any, and return its outcome."""
        if self._pending is None:
            return 0
        with _exchanging():
            self._pending.wait()
        self._pending = None
        return int(self._vote)


_AS_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _digest(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor's numbers, read as integers and weighted by their place, () int64.

    It is a sum modulo 2^64, because a sum of floating numbers depends on the number of threads.
    """
    flat = tensor.detach().contiguous().view(-1)
    bits = flat.view(_AS_INTEGERS[flat.element_size()]).long()
    return (bits * torch.arange(1, 2 * len(bits), 2, device=bits.device)).sum()


@torch.no_grad()
def exchange_flat(tensors: Iterable[Tensor], exchange: Callable[[Tensor], object]) -> None:
    """Concatenate the tensors of each type, exchange them in place as one, and copy the result back."""
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.dtype, []).append(tensor)
    for group in by_dtype.values():
        flat = torch.cat([tensor.reshape(-1) for tensor in group])
        with _exchanging():
            exchange(flat)
        parts = flat.split([tensor.numel() for tensor in group])
        torch._foreach_copy_(group, [part.view_as(tensor) for part, tensor in zip(parts, group, strict=True)])


# --- starting ---------------------------------------------------------------------------------------------------------


def find_device(name: str, precision: Precision, processes: int) -> torch.device:
    """Return the device of this name, without starting anything.

    Args:
        name: `train.device`.
        precision: `train.precision`.
        processes: How many processes train on this machine.

    Raises:
        ConfigError: This machine lacks the device or the precision, or the processes cannot share the device.
    """
    if name == "auto":
        device: torch.device | None = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    else:
        try:
            device = torch.device(name) if isinstance(name, str | torch.device) else None
        except RuntimeError:
            device = None
    if device is None or device.type not in ("cpu", *ACCELERATORS) or str(name).startswith("cpu:"):
        raise ConfigError(f"{name!r} is not a device; allowed: 'auto', 'cpu', 'cuda', 'cuda:N', 'mps', 'xpu'", "device")
    if device.type != "cpu" and (device.index or 0) >= (count := count_of(device)):
        kind = "" if device.type == "cuda" else f"{device.type} "
        raise ConfigError(f"{name!r}, but torch sees {count} {kind}GPUs; use 'cpu'", "device")
    if device.index is not None and processes > 1:
        raise ConfigError(f"'{device}' is for one process; several each take their own with 'cuda'", "device")
    if device.type == "mps" and processes > 1:
        raise ConfigError("'mps' is one GPU, which several processes cannot share", "device")
    if precision == "fp64" and not has_float64(device):
        raise ConfigError(f"'fp64' is not something {device} can compute; use 'fp32', or the device 'cpu'", "precision")
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError(f"'bf16' is not something {device} can compute; use 'fp32'", "precision")
    return device


def _accelerator(cpu: bool) -> Accelerator:
    """Return a new Accelerator. Its state is global to the Python process, so that of an earlier run is forgotten."""
    AcceleratorState._reset_state(reset_partial_state=True)
    # "no": our own autocast decides, not ACCELERATE_MIXED_PRECISION.
    # cpu: without it, torchrun on a machine without a GPU gives unrelated jobs of one process each.
    return Accelerator(cpu=cpu, mixed_precision="no")


def _check_device(wanted: torch.device, accelerator: Accelerator) -> None:
    if wanted.type != accelerator.device.type:  # ACCELERATE_USE_CPU or ACCELERATE_TORCH_DEVICE is set
        raise ConfigError(
            f"{wanted.type!r}, but Accelerate's environment variables say {accelerator.device.type!r}", "device"
        )
