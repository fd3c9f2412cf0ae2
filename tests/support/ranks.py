"""Processes of one run, each a fork of this one. torchrun's would each import torch again."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from torch.distributed import TCPStore

from jointgen.errors import JointgenError


def launched(processes: int, action: Callable[[int], object]) -> list[int]:
    """Exit statuses of so many processes of one run, each a fork that does it by its rank; -9 where it was killed."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    world = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    pids = []
    for rank in range(processes):
        sys.stdout.flush()
        pids.append(os.fork())
        if pids[-1] == 0:
            os.environ.update(place, **world, RANK=str(rank), LOCAL_RANK=str(rank))
            os._exit(status_of(lambda rank=rank: action(rank)))
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def status_of(action: Callable[[], object]) -> int:
    try:
        action()
    except JointgenError as error:
        return error.exit_status
    except BaseException:
        traceback.print_exc()
        return 99
    return 0
