"""`--processes N`: runs this command N times on this machine, as torchrun does, with one exit status.

Signals go to the launcher alone, which passes them on, so that each process gets each signal once. The processes end
with the launcher, whatever ended it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

from torch.distributed import TCPStore

from jointgen.errors import JointgenError, StoppedError
from jointgen.runtime.ranks import LAUNCHED
from jointgen.runtime.signals import SIGNALS, handled

POLL_S = 0.1
"""Seconds between looks at the processes."""
GRACE_S = 20.0
"""Seconds that the others have to notice that a process failed, and to end by themselves."""
KILLED = 128 + 9
"""The exit status of a process that ends because its launcher is gone, as shells give it after SIGKILL."""
STOPPED = tuple(128 + number for number in SIGNALS)
"""Exit statuses of processes that stopped after a signal."""

Processes = Sequence[subprocess.Popen[bytes]]


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run `jointgen ARGUMENTS` in processes that know of each other.

    Args:
        arguments: The command line without the program's name.
        processes: How many to start.

    Returns:
        0 if every process ended with 0, otherwise the exit status of the first that did not.

    Raises:
        JointgenError: A process was killed.
        StoppedError: It was killed by a signal that was passed on.
    """
    # a store of ours, on a port that the system chose: no other program can take it in between
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes)),
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # tells torch that the store exists: it connects to it
        LAUNCHED: "1",
    }
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "jointgen", *arguments],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        for rank in range(processes)
    ]
    with _passing_signals_to(children) as passed_on:
        failed = _wait_for(children)

    status = next((child.returncode for child in failed), 0)
    if -status in passed_on:  # it was killed before its training loop, which would have noted the signal
        raise StoppedError(f"stopped by signal {-status}", -status)
    if status < 0:
        rank = children.index(failed[0])
        raise JointgenError(f"process {rank} was killed by signal {-status}; --resume goes on from the last checkpoint")
    return status


@contextmanager
def _passing_signals_to(children: Processes) -> Iterator[Collection[int]]:
    """Pass every SIGINT and SIGTERM on to the children, and yield those passed on; leave no child behind."""
    passed_on = set[int]()

    def send(number: int, frame: FrameType | None) -> None:
        passed_on.add(number)
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    try:
        with handled(send):
            yield passed_on
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
            child.wait()


def _wait_for(children: Processes) -> Processes:
    """Wait until all have ended, or for `GRACE_S` after a failure. Return those that failed, the first one first."""
    failed: list[subprocess.Popen[bytes]] = []
    deadline = float("inf")
    while time.monotonic() < deadline and any(child.poll() is None for child in children):
        time.sleep(POLL_S)
        new = [child for child in children if child.poll() and child not in failed]
        failed += sorted(new, key=lambda child: child.returncode == 1)  # 1 may only say that another one is gone
        if any(child.returncode not in STOPPED for child in failed):
            deadline = min(deadline, time.monotonic() + GRACE_S)
    return failed + [child for child in children if child.poll() and child not in failed]


def end_with_launcher() -> None:
    """Let this process end at once when the launcher that started it is gone, even by kill -9.

    Does nothing in a process that `launch` did not start.
    """

    def wait_for_end_of_input() -> None:
        while os.read(0, 1):
            pass
        os._exit(KILLED)  # as SIGKILL ends it, which Windows lacks: nothing is flushed or waited for

    if os.environ.pop(LAUNCHED, None):
        threading.Thread(target=wait_for_end_of_input, daemon=True).start()


def says_first(text: str) -> bool | None:
    """Return whether no other process of this machine has asked about this text before.

    It is asked of the launcher's store, so that several processes print one error once. None if there is no store.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    node_and_attempt = [os.environ.get(name, "0") for name in ("GROUP_RANK", "TORCHELASTIC_RESTART_COUNT")]
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=5))
        return store.add("/".join(["jointgen", *node_and_attempt, text]), 1) == 1
    except (KeyError, ValueError, RuntimeError):  # the launcher is gone, or is one that we do not know
        return None
