"""Statistics of several processes, merged into those of all of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from jointgen.contracts.statistics import Statistic, merge_into, pack, unpack
from jointgen.runtime.workers import Workers


def merge_over(
    workers: Workers, statistics: Mapping[str, Statistic], kinds: Mapping[str, type[Statistic]]
) -> dict[str, Statistic]:
    """Merge the statistics of every process in order of rank, so that all of them hold the same ones.

    Args:
        workers: The processes; each of them calls this function.
        statistics: This process's own, by name. Processes may differ in which they have: who saw no rows has none.
        kinds: The class of each statistic, by name.

    Returns:
        The merged statistics by name.
    """
    if workers.world == 1:
        return dict(statistics)
    everyone = workers.gather_each(torch.frombuffer(bytearray(pack(statistics)), dtype=torch.uint8))
    merged: dict[str, Statistic] = {}
    for block in everyone:
        merge_into(merged, unpack(block.cpu().numpy().tobytes(), kinds))
    return merged
