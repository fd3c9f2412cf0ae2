"""Processes that SLURM's srun started know their ranks."""

from __future__ import annotations

import pytest

from jointgen.errors import JointgenError
from jointgen.runtime.slurm import PORTS, first_host, take_ranks

TASK = {
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "7",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}


def test_a_task_among_several_takes_its_rank() -> None:
    environment = dict(TASK)
    take_ranks(environment)
    port = PORTS[707]  # 7 * 101 + 0
    assert {name: value for name, value in environment.items() if name not in TASK} == {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": str(port),
    }


def test_tasks_of_one_node_meet_there_and_a_given_address_is_kept() -> None:
    environment = {**TASK, "SLURM_STEP_NUM_NODES": "1", "MASTER_PORT": "29500"}
    take_ranks(environment)
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("127.0.0.1", "29500")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"},  # in the batch script itself
        {**TASK, "SLURM_STEP_NUM_TASKS": "1"},
        {**TASK, "RANK": "0"},  # torchrun within srun
    ],
)
def test_a_process_alone_or_with_a_launcher_is_left_as_it_is(environment: dict[str, str]) -> None:
    after = dict(environment)
    take_ranks(after)
    assert after == environment


def test_half_of_the_variables_are_refused() -> None:
    with pytest.raises(JointgenError, match="srun started 8 tasks, but SLURM_PROCID is not set; start them with tor"):
        take_ranks({name: value for name, value in TASK.items() if name != "SLURM_PROCID"})


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("a", "a"), ("a,b[1-2]", "a"), ("gpu[07-09,12],big1", "gpu07"), ("rack1-[2,4]-x,y", "rack1-2-x")],
)
def test_the_first_host_of_a_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host
