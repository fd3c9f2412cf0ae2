"""A long evaluation that may be killed: each process saves what it has collected so far in files of its own.

    FOLDER/STREAM-ATTEMPT-RANK.sealed     the statistics of the batches whose first rows it lists

An attempt leaves out what the files of earlier attempts have, so that all files of a stream together count each row
once, whatever the number of processes of each attempt.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import attrs
import torch
from safetensors.torch import load

from jointgen.contracts.statistics import Statistic, merge_into, pack, unpack
from jointgen.runtime.atomic_files import writing
from jointgen.runtime.sealed_files import read_sealed, write_sealed

WRITE_EVERY_S = 30.0
"""Seconds between two writes, at the least."""
MAX_WRITE_SHARE = 0.05
"""The share of the time that goes into writing, at the most."""
DONE_KEY = "done"
"""The name of the tensor that lists the first rows of the batches that are done."""


@attrs.frozen
class PartialResults:
    """The folder of one evaluation: of one checkpoint, with these metrics and settings."""

    folder: Path

    def open(self, stream: str, kinds: Mapping[str, type[Statistic]]) -> EarlierAttempts:
        """Read what earlier attempts have of a stream.

        Args:
            stream: The key of the stream.
            kinds: The class of each statistic, by name.
        """
        files = sorted(self.folder.glob(f"{stream}-*-*.sealed"))
        attempts = [int(file.stem.split("-")[-2]) for file in files]
        earlier = EarlierAttempts(self.folder / f"{stream}-{max(attempts, default=-1) + 1}")
        for file in files:
            data = read_sealed(file, "its rows are evaluated again")
            if data is None:
                continue
            earlier.done.update(load(data)[DONE_KEY].tolist())
            merge_into(earlier.statistics, unpack(data, kinds))
        return earlier

    def discard(self) -> None:
        """Remove the folder once the evaluation is done."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # the parent still holds another evaluation's folder
            self.folder.parent.rmdir()


@attrs.frozen
class EarlierAttempts:
    """The work of earlier attempts at a stream, and the file of this attempt.

    Args:
        path: Where this attempt is saved, without the rank; None to save nothing.
        done: The first rows of the batches that are done.
        statistics: The merged statistics of these batches, by name.
    """

    path: Path | None
    done: set[int] = attrs.field(factory=set)
    statistics: dict[str, Statistic] = attrs.field(factory=dict)

    @contextlib.contextmanager
    def continued(self, statistics: Mapping[str, Statistic], rank: int) -> Iterator[Callable[[int], None]]:
        """Save a growing set of statistics now and then, and where the evaluation is stopped.

        What takes less than WRITE_EVERY_S is not saved at its end: it is done again sooner than looked for.

        Args:
            statistics: This process's statistics, to which the caller adds batch by batch.
            rank: The rank of this process.

        Yields:
            A function to call with each batch's first row once `statistics` has the batch.
        """
        if self.path is None:
            yield lambda start: None
            return
        path, done = self.path.with_name(f"{self.path.name}-{rank}.sealed"), list[int]()
        began = time.monotonic()
        due = began + WRITE_EVERY_S

        def write() -> None:
            with writing(path):
                write_sealed(path, pack(statistics, **{DONE_KEY: torch.tensor(done)}))

        def record(start: int) -> None:
            nonlocal due
            done.append(start)
            if (now := time.monotonic()) >= due:
                write()
                after = time.monotonic()
                due = after + max(WRITE_EVERY_S, (after - now) / MAX_WRITE_SHARE)

        try:
            yield record
        except BaseException:
            if done:
                write()
            raise
        if done and time.monotonic() - began >= WRITE_EVERY_S:
            write()
