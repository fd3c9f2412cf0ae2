"""BatchNorm among several processes. It couples the rows of a batch; no shipped network has it, a plugin's may."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from jointgen.runtime.workers import Workers


def synchronise(modules: nn.ModuleDict, workers: Workers) -> list[str]:
    """Let every BatchNorm normalise over the rows of all processes, where torch can: on a GPU.

    Returns:
        The names of the parts that still normalise over each process's own rows. With these, N processes do not train
        quite what one does.
    """
    found = [name for name, module in modules.items() if workers.world > 1 and any(_within(module))]
    if workers.device.type == "cpu":
        return found
    for name in found:
        modules[name] = nn.SyncBatchNorm.convert_sync_batchnorm(modules[name])
    return []


def average_statistics(modules: nn.ModuleDict, workers: Workers) -> None:
    """Replace running means and variances by their means over the processes, which saw different rows."""
    kept = [norm.running_mean for norm in _within(modules)] + [norm.running_var for norm in _within(modules)]
    workers.all_reduce_mean_([value for value in kept if isinstance(value, Tensor)])


def _within(module: nn.Module) -> Iterable[_BatchNorm]:
    return (inner for inner in module.modules() if isinstance(inner, _BatchNorm))
