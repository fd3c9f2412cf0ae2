"""The place of this process among those of a run, as a launcher tells it in environment variables. Needs no torch.

torchrun, `accelerate launch` and `jointgen run --processes N` set RANK (of all processes), LOCAL_RANK (on this
machine), WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
"""

from __future__ import annotations

import os

from jointgen.errors import JointgenError

LAUNCHED = "JOINTGEN_LAUNCHED"
"""Set in the environment of the processes that `jointgen run --processes N` started."""
REMEDY = "start them with `jointgen run --processes N` or torchrun"
_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def is_launched() -> bool:
    """Return whether a launcher started this process as one of several."""
    return "RANK" in os.environ


def is_main() -> bool:
    """Return whether this process is the only one, or the first of all that train one model."""
    return os.environ.get("RANK", "0") == "0"


def is_local_main() -> bool:
    """Return whether this process is the only one, or the first on its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def world_size() -> int:
    """Return the number of processes that the launcher speaks of; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def check_variables() -> None:
    """Raise JointgenError if the environment promises processes that do not exist.

    With WORLD_SIZE alone, torch would wait for processes that nobody started. On a CPU, `accelerate launch` starts one
    process however many it is asked for, and says nothing.
    """
    missing = [name for name in _VARIABLES if name not in os.environ]
    if {"RANK", "LOCAL_RANK"} & {*os.environ}:
        if missing:
            given = ", ".join(name for name in _VARIABLES[:2] if name not in missing)
            raise JointgenError(f"{given} is set as by a launcher, but {', '.join(missing)} is not; {REMEDY}")
        return
    if (world := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise JointgenError(f"WORLD_SIZE is {world}, but no launcher gave this process a rank; {REMEDY}")
    if {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= {*os.environ}:
        raise JointgenError(f"accelerate launch was asked for several processes and started one; {REMEDY}")
