"""A long evaluation that may be killed: each process saves what it has collected so far in files of its own.

    FOLDER/STREAM-ATTEMPT-RANK.sealed     the statistics of the batches whose first rows it lists

An attempt leaves out what the files of earlier attempts have, so that all files of a stream together count each row
once, whatever the number of processes of each attempt.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path

import attrs
import torch
from safetensors.torch import load

from jointgen.contracts.statistics import Statistic, merge_into, pack, unpack
from jointgen.runtime.atomic_files import writing
from jointgen.runtime.console import log_once
from jointgen.runtime.sealed_files import read_sealed, write_sealed
from jointgen.text import listed, shortened

WRITE_EVERY_S = 30.0
"""Seconds between two writes, at the least."""
MAX_WRITE_SHARE = 0.05
"""The share of the time that goes into writing, at the most."""
DONE_KEY = "done"
"""The name of the tensor that lists the first rows of the batches that are done."""
NAME_KEY = "file"
"""The name of the tensor that spells the file's folder and name, so that a copy elsewhere is no partial result."""
_ATTEMPT_AND_RANK = re.compile(r"(?P<attempt>0|[1-9][0-9]{0,8})-(0|[1-9][0-9]{0,8})\.sealed")
_AGAIN = "its rows are evaluated again"


class _UnfitError(Exception):
    """A file is not what an attempt at this evaluation wrote; the message says why."""


def _sealed_name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


@attrs.frozen
class PartialResults:
    """The folder of one evaluation: of one checkpoint, with these metrics and settings."""

    folder: Path

    def open(self, stream: str, kinds: Mapping[str, type[Statistic]], starts: Container[int]) -> EarlierAttempts:
        """Read what earlier attempts have of a stream. A file that is not as an attempt wrote it is said and left out.

        Args:
            stream: The key of the stream.
            kinds: The class of each statistic, by name.
            starts: The first row of each batch of the stream.
        """
        earlier, last = EarlierAttempts(None), -1
        for file in sorted(self.folder.glob(f"{stream}-*")):
            name = _ATTEMPT_AND_RANK.fullmatch(file.name.removeprefix(f"{stream}-"))
            if name is None:
                log_once(f"{file}: is no name of partial results; it is left out")
                continue
            last = max(last, int(name["attempt"]))
            data = read_sealed(file, _AGAIN)
            if data is None:
                continue
            try:
                earlier = earlier.with_file(data, _sealed_name(file), kinds, starts)
            except Exception as error:  # whatever statistics of plugins make of tensors that are not theirs
                reason = str(error) if isinstance(error, _UnfitError) else f"holds no such results ({shortened(error)})"
                log_once(f"{file}: {reason}; {_AGAIN}")
        return attrs.evolve(earlier, path=self.folder / f"{stream}-{last + 1}")

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

    def with_file(
        self, data: bytes, name: str, kinds: Mapping[str, type[Statistic]], starts: Container[int]
    ) -> EarlierAttempts:
        """Return these attempts with those in a file, too. Raises an exception of any kind where they do not fit."""
        more = load(data)
        if bytes(more[NAME_KEY].tolist()) != name.encode():
            raise _UnfitError("was written under another name")
        if any(tensor.isnan().any() for tensor in more.values()):
            raise _UnfitError("holds NaN")
        done = more[DONE_KEY].tolist()
        if len({*done}) < len(done) or not all(type(start) is int and start in starts for start in done):
            raise _UnfitError("has other rows than the evaluation")
        if not self.done.isdisjoint(done):
            raise _UnfitError("has rows that another file has, too")
        found = unpack(data, kinds)
        if lacking := [kind for kind in kinds if kind not in found]:
            raise _UnfitError(f"lacks {listed(lacking)}")
        merged = dict(self.statistics)
        merge_into(merged, found)
        return EarlierAttempts(self.path, self.done | {*done}, merged)

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
                name = torch.tensor(list(_sealed_name(path).encode()), dtype=torch.uint8)
                write_sealed(path, pack(statistics, **{DONE_KEY: torch.tensor(done), NAME_KEY: name}))

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
