"""Takes the place of a process among several from SLURM's srun, which sets other variables than torchrun. No torch.

`srun -n 4 jointgen run RECIPE` starts four processes that each know SLURM_PROCID; without a RANK they would be four
runs of one recipe in one folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping

from jointgen.errors import JointgenError

PORTS = range(15_000, 60_000)
"""The port at which processes meet is one of these, chosen by the numbers of the job and its step."""
_NEEDED = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID")


def take_ranks(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what a launcher would have set in the processes of a step of several tasks, unless one has.

    A command that a batch script starts without srun is one process, whatever the job's number of tasks.

    Raises:
        JointgenError: srun has set some of its variables and not others.
    """
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1 and "RANK" not in environment:
        for name, value in launcher_variables(environment).items():
            environment.setdefault(name, value)


def launcher_variables(slurm: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of torchrun for a process of srun.

    >>> launcher_variables({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "9",
    ...     "SLURM_STEP_NODELIST": "gpu[03-04]", "SLURM_STEP_NUM_NODES": "2"})["MASTER_ADDR"]
    'gpu03'
    """
    if missing := [name for name in _NEEDED if name not in slurm]:
        raise JointgenError(
            f"srun started {slurm['SLURM_STEP_NUM_TASKS']} tasks, but {', '.join(missing)} is not set; "
            "start them with torchrun"
        )
    chosen = int(slurm["SLURM_JOB_ID"]) * 101 + int(slurm.get("SLURM_STEP_ID", "0"))
    one_node = slurm.get("SLURM_STEP_NUM_NODES", "1") == "1"
    return {
        "RANK": slurm["SLURM_PROCID"],
        "LOCAL_RANK": slurm["SLURM_LOCALID"],
        "WORLD_SIZE": slurm["SLURM_STEP_NUM_TASKS"],
        "MASTER_ADDR": "127.0.0.1" if one_node else first_host(slurm["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": str(PORTS[chosen % len(PORTS)]),
    }


def first_host(nodes: str) -> str:
    """Return the first host of a list of nodes as SLURM writes it.

    >>> first_host("gpu[07-09,12],big1"), first_host("a,b"), first_host("rack1-[2,4]-x")
    ('gpu07', 'a', 'rack1-2-x')
    """
    whole = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", whole[0] if whole else nodes)
