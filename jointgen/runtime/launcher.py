"""`--processes N`: this command N times on this machine, as torchrun starts them, with one exit status.

Signals go to this process alone, which passes them on, so that each process gets each signal once. The processes
end when it is gone, whatever ended it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from torch.distributed import TCPStore

from jointgen.errors import JointgenError, StoppedError
from jointgen.runtime.signals import SIGNALS

LAUNCHED = "JOINTGEN_LAUNCHED"  # in the environment of the processes started here
POLL_S = 0.1
GRACE_S = 20.0  # for the others to find out that one is gone, and to say so
STOPPED = tuple(128 + number for number in SIGNALS)


def launch(arguments: Sequence[str], processes: int) -> int:
    """Runs `jointgen ARGUMENTS` in so many processes that know of each other, and returns the exit status.

    0 when every process ended with 0, otherwise the status of the first that did not. Raises JointgenError when one
    was killed, and StoppedError when that was by a signal that was passed on.
    """
    # a store of ours on a port that the system chose: no other program can take it in between
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    common = _environment(processes, store.port)
    command = [sys.executable, "-m", "jointgen", *arguments]
    children = [
        subprocess.Popen(
            command,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        for rank in range(processes)
    ]
    with _passing_on(children) as passed_on:
        failed = _wait(children)
    status = next((child.returncode for child in failed), 0)
    if -status in passed_on:  # it was not yet in its loop, where it would have noted the signal
        raise StoppedError(f"stopped by signal {-status}", -status)
    if status < 0:
        rank = children.index(failed[0])
        raise JointgenError(f"process {rank} was killed by signal {-status}; --resume goes on from the last checkpoint")
    return status


def _environment(processes: int, port: int) -> Mapping[str, str]:
    own = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # torch's word for: the store is there, connect to it
        LAUNCHED: "1",
    }
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    return {"OMP_NUM_THREADS": threads, **os.environ, **own}


@contextmanager
def _passing_on(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[Collection[int]]:
    """Every SIGINT and SIGTERM goes on to the children and is noted; no child is left behind."""
    noted = set[int]()

    def send(number: int, frame: Any) -> None:
        noted.add(number)
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    before = {number: signal.signal(number, send) for number in SIGNALS}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for child in children:
            if child.poll() is None:
                child.kill()
            child.wait()


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> list[subprocess.Popen[bytes]]:
    """Those that failed, the first to do so first. After a failure the others have some time to end by themselves."""
    failed: list[subprocess.Popen[bytes]] = []
    deadline = float("inf")
    while time.monotonic() < deadline and any(child.poll() is None for child in children):
        time.sleep(POLL_S)
        new = [child for child in children if child.poll() and child not in failed]
        failed += sorted(new, key=lambda child: child.returncode == 1)  # as of those that have lost another
        if any(child.returncode not in STOPPED for child in failed):
            deadline = min(deadline, time.monotonic() + GRACE_S)
    return failed + [child for child in children if child.poll() and child not in failed]


def end_with_launcher() -> None:
    """In a process started here: kills it once the launcher is gone, even by kill -9. Elsewhere does nothing."""
    if os.environ.pop(LAUNCHED, None):
        threading.Thread(target=_await_end_of_input, daemon=True).start()


def _await_end_of_input() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def says_first(text: str) -> bool | None:
    """Whether no process of this machine has said so before, by the launcher's store; None where that has none."""
    place = [os.environ.get(name, "0") for name in ("GROUP_RANK", "TORCHELASTIC_RESTART_COUNT")]
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=5))
        return store.add("/".join(["jointgen", *place, text]), 1) == 1
    except (KeyError, ValueError, RuntimeError):  # the launcher is gone, or is one that we do not know
        return None


def is_launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return "RANK" in os.environ
