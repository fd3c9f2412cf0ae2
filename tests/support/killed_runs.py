"""Runs that are killed where it hurts, in forks of one process that has imported torch. For test_kill.py.

    python -m support.killed_runs FOLDER points      one run, FOLDER/killed, is killed at one of POINTS after another
    python -m support.killed_runs FOLDER torture N   runs are killed N times at random moments, in FOLDER/killed0, ...
    python -m support.killed_runs FOLDER pairs       one run of two processes, of which one after the other is killed

Beside FOLDER/whole, which nothing interrupts. Prints what happened.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # torch's optimizers import it: once here, and not in every fork
from jointgen_data.digits import Digits
from torch import Tensor, nn

import jointgen
from jointgen.compiler import build as building
from jointgen.registry.discovery import load_plugins
from jointgen.runs import checkpoint
from jointgen.runs.folder import RunFolder
from jointgen.runs.log import RunLog
from jointgen.runs.records import checkpoint_name
from jointgen.training import reporter as reporting
from jointgen.training import run as training_run
from support.paths import QUICKSTART
from support.ranks import launched
from support.runs import SMALL

SETTINGS = {
    **SMALL,
    "train.steps": 40,
    "train.threads": 1,
    "train.log_every": 3,
    "train.eval_every": 5,
    "train.sample_every": 10,
    "train.checkpoint_every": 4,
    "train.keep_best": "elbo",
    "train.early_stopping": {"patience": 100},
}


def noisy(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """As other people's layers do: draws from torch's, numpy's and Python's global generators."""
    if not module.training:
        return inputs
    x, *others = inputs
    return x + 0.01 * torch.randn_like(x) + 0.01 * float(np.random.randn()) + 0.01 * random.gauss(), *others


def build_noisy(*arguments: Any) -> Any:
    part = build(*arguments)
    part.trunk.register_forward_pre_hook(noisy)
    return part


build, building._build_conditional = building._build_conditional, build_noisy


def run(out: Path, stop: Callable[[], int] = lambda: 0) -> None:
    jointgen.run(QUICKSTART, SETTINGS, out=out, resume=True, stop=stop, quiet=True)


def forked(action: Callable[[], object]) -> int:
    """The wait status of a child that does it."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


# --- where ------------------------------------------------------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half(path: Path, *chunks: bytes | memoryview) -> None:
    data = b"".join(chunks)
    path.write_bytes(data[: len(data) // 2])
    die()


def at_call(module: Any, name: str, nth: int = 1, instead: Callable[..., object] | None = None, **when: str) -> None:
    """Kills this process at the nth call whose first or second argument, a path, has such a name."""
    real, left = getattr(module, name), [nth]

    def call(*arguments: Any, **options: Any) -> Any:
        names = [Path(argument).name for argument in arguments[:2] if isinstance(argument, str | os.PathLike)]
        if not when or any(name.startswith(when["path"]) for name in names):
            left[0] -= 1
            if left[0] == 0:
                instead(*arguments) if instead else die()
        return real(*arguments, **options)

    setattr(module, name, call)


def half_a_line(self: RunLog, step: int, *_: Any) -> None:
    with open(self.folder.metrics, "a") as file:
        file.write(f'{{"step": {step}, "ima')
    die()


def half_deleted(path: Path, *_: Any) -> None:
    next(iter(sorted(path.iterdir()))).unlink()
    die()


def between_steps(steps: int) -> Callable[[], int]:
    calls = iter(range(10**6))
    return lambda: 0 if next(calls) + 1 < steps else die() or 0


def at_boundary(number: int) -> None:
    """Kills this process before the nth file or checkpoint that it puts at its place."""
    left = [number]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            return die() if left[0] == 0 else real(*arguments, **options)

        return call

    for name in ("replace", "rename"):
        setattr(os, name, counted(getattr(os, name)))


POINTS: dict[str, Callable[[], Any]] = {
    "before the recipe is there": lambda: at_call(os, "replace", path="recipe.toml"),
    "before the first summary": lambda: at_call(os, "replace", path="summary.json"),
    "before the first checkpoint": lambda: between_steps(3),
    "after step 17, between checkpoints": lambda: between_steps(17),
    "in the first file of a checkpoint": lambda: at_call(checkpoint, "write_flushed", 1, half),
    "in the fifth file of the next one": lambda: at_call(checkpoint, "write_flushed", 20, half),
    "before a manifest": lambda: at_call(checkpoint, "write_flushed", path="manifest.json"),
    "in a manifest": lambda: at_call(checkpoint, "write_flushed", 1, half, path="manifest.json"),
    "before the rename to its name": lambda: at_call(os, "rename", path=".tmp-step-"),
    "before `latest` names it": lambda: at_call(checkpoint, "replace_text", path="latest"),
    "before `best` names it": lambda: at_call(checkpoint, "replace_text", path="best"),
    "while an old one is deleted": lambda: at_call(checkpoint.shutil, "rmtree", 1, half_deleted, path=".old-"),
    "in a line of metrics.jsonl": lambda: at_call(RunLog, "add", 2, half_a_line),
    "in an evaluation": lambda: at_call(reporting, "evaluate"),
    "in pictures": lambda: at_call(reporting, "write_pictures"),
    "in the last pictures": lambda: at_call(RunFolder, "write_summary", 2) or last_pictures(),
    "between the renames of the last step's two": lambda: at_call(os, "rename", path=".tmp-step-00000040"),
    "in the last evaluation": lambda: last_evaluation(),
    "before the last summary": lambda: at_call(RunFolder, "write_summary", 2),
    "before the page": lambda: at_call(training_run, "write_report"),
}


def last_pictures() -> None:
    """At the pictures of the last step."""
    real = reporting.write_pictures

    def call(*arguments: Any, **options: Any) -> Any:
        if checkpoint_name(SETTINGS["train.steps"]) in arguments:
            die()
        return real(*arguments, **options)

    reporting.write_pictures = call


def last_evaluation() -> None:
    """At the evaluation after the last step: the one of all rows."""
    real = reporting.evaluate

    def call(*arguments: Any, **options: Any) -> Any:
        if options["limit"] is None:
            die()
        return real(*arguments, **options)

    reporting.evaluate = call


def killed_at(out: Path, point: str) -> None:
    def action() -> None:
        run(out, POINTS[point]() or (lambda: 0))

    status = forked(action)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    print(f"{'kill -9' if killed else f'not killed ({status})'} {point}: {state_of(out)}")
    assert killed, point


def state_of(out: Path) -> str:
    """What lies there; none that looks whole may be damaged."""
    root = out / "checkpoints"
    names = sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    for name in names:
        assert not name.startswith("step-") or not checkpoint.problems(root / name), name
    newest, odd = checkpoint.latest(root), [name for name in names if name.startswith(".")]
    return f"goes on from {newest.name if newest else 'the start'}" + (f", beside {', '.join(odd)}" if odd else "")


# --- all of it --------------------------------------------------------------------------------------------------------


def points(folder: Path) -> None:
    for point in POINTS:
        killed_at(folder / "killed", point)
    assert forked(lambda: run(folder / "killed")) == 0


def boundaries(folder: Path, apart: int) -> None:
    """A run killed at each of its file boundaries, or at every so many, and resumed."""
    for number in itertools.count(1, apart):
        out = folder / f"killed{number}"
        status = forked(lambda out=out, number=number: (at_boundary(number), run(out)))
        if status == 0:  # it has fewer
            return
        print(f"kill -9 before file {number}: {state_of(out)}")
        assert forked(lambda out=out: run(out)) == 0


def torture(folder: Path, kills: int) -> None:
    """One run after another, each killed until it is through."""
    dice, done = random.Random(0), 0
    for number in itertools.count():
        out, finished = folder / f"killed{number}", False
        while done < kills and not finished:
            after = killed_after(dice.uniform(0.0, 0.5), out)
            finished = after is None
            done += not finished
            print(f"run {number} is through" if finished else f"kill -9 number {done} {after}: {state_of(out)}")
        assert forked(lambda out=out: run(out)) == 0
        if done == kills:
            return


def killed_after(seconds: float, out: Path) -> str | None:
    """How far the run was when it was killed, so long after it began to train; None where it was through first."""
    (out / "summary.json").unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        run(out)
        os._exit(0)
    while not (out / "summary.json").exists():
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    steps = len((out / "metrics.jsonl").read_text().splitlines()) if (out / "metrics.jsonl").exists() else 0
    return f"{seconds:.3f} s after its start, {steps} lines logged" if os.WIFSIGNALED(status) else None


# --- two processes ---------------------------------------------------------------------------------------------------


def stopped_at(step: int) -> Callable[[], int]:
    calls = iter(range(10**6))
    return lambda: signal.SIGTERM if next(calls) + 1 == step else 0


def pairs(folder: Path) -> None:
    """`stop` is asked from the step on which a run goes on, so the counts are of steps since then."""
    assert launched(2, lambda rank: run(folder / "whole")) == [0, 0]
    out = folder / "killed"
    for rank, after in ((0, 7), (1, 5), (1, 9)):
        stop = between_steps(after)
        statuses = launched(2, lambda me, rank=rank, stop=stop: run(out, stop if me == rank else lambda: 0))
        print(f"kill -9 of process {rank}: {statuses[rank]}, {statuses[1 - rank]}; {state_of(out)}")
        told = launched(2, lambda me: run(out, stopped_at(3) if me == 1 else lambda: 0))
        print(f"SIGTERM to process 1: {told[0]}, {told[1]}; {state_of(out)}")
    assert launched(2, lambda rank: run(out)) == [0, 0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    where, what, *rest = sys.argv[1:]
    os.fsync = lambda descriptor: None  # a kill loses nothing that was written; a power cut would
    load_plugins()
    Digits().open("train")  # scikit-learn is imported once
    if what == "pairs":
        pairs(Path(where))
    else:
        assert forked(lambda: run(Path(where) / "whole")) == 0
        if what == "points":
            points(Path(where))
        else:
            {"torture": torture, "boundaries": boundaries}[what](Path(where), int(rest[0]))
