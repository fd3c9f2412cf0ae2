"""Measures everything in benchmarks/README.md that takes an idle machine, in one go, and prints Markdown.

    python benchmarks/speed.py [--only NAME...] [--quick] [--mnist DIR] [--cifar DIR] [--imagenet DIR]

- steps: `overhead.py`, a step of six models beside the bare loop, with the operations and the memory of each.
- reading: `data.py --sources`, each source of images beside plain indexed uint8.
- processes: `scaling.py`, two processes beside one.
- starting: `jointgen run recipes/asvae_imagenet.toml` on prepared images, from the command to its first line and to the
  end of its first step, beside the same of a Python that imports torch and takes a step of the bare loop's kind.
- ending: the same run with 12 steps: what comes after the last step, by its parts.
- evaluating: rows a second of one core of a trained VAE on MNIST's size: IWAE-5000, AIS, and the Frechet distance.

Images are random bytes where no folder is given. Every command runs on one thread. --quick has a round or two of each:
it shows that all of it runs, and its figures mean nothing. The load of the machine stands at the top: figures that were
taken beside other work have to be called so.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from data import write_mnist, write_set

REPO = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent
ASVAE, VAE = REPO / "recipes/asvae_imagenet.toml", REPO / "recipes/vae_mnist.toml"
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
RARELY = [f"train.{what}_every=1000000" for what in ("eval", "sample", "checkpoint")]
BARE_START = """
import torch
from torch import nn
net = nn.Sequential(nn.Conv2d(3, 32, 4, 2, 1), nn.Flatten(), nn.Linear(32 * 32 * 32, 1))
adam = torch.optim.Adam(net.parameters())
net(torch.rand(32, 3, 64, 64)).mean().backward()
adam.step()
print("a step")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for source in ("mnist", "cifar", "imagenet"):
        parser.add_argument(f"--{source}", help="data.root of the real images")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--parts-of-run", nargs="+", help=argparse.SUPPRESS)  # in a child
    arguments = parser.parse_args()
    if arguments.parts_of_run:
        print(json.dumps(parts_of_run(arguments.parts_of_run)))
        return
    print(f"{time.strftime('%d %B %Y, %H:%M')}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    for name in arguments.only:
        print(f"\n### {name}\n", flush=True)
        SECTIONS[name](arguments)


# --- scripts of their own --------------------------------------------------------------------------------------------


def script(name: str, *given: str) -> None:
    subprocess.run([sys.executable, str(HERE / name), *given], env=ONE_THREAD, check=True)


def folders(arguments: argparse.Namespace, *names: str) -> list[str]:
    return [f"--{name}={root}" for name in names if (root := getattr(arguments, name))]


def steps(arguments: argparse.Namespace) -> None:
    script("overhead.py", *folders(arguments, "mnist", "cifar", "imagenet"), *(["--rounds=2"] * arguments.quick))


def reading(arguments: argparse.Namespace) -> None:
    script("data.py", "--sources", "3" if arguments.quick else "41")


def processes(arguments: argparse.Namespace) -> None:
    script("scaling.py", *folders(arguments, "mnist", "cifar"), "--batches")


# --- the start of a run ----------------------------------------------------------------------------------------------


def starting(arguments: argparse.Namespace) -> None:
    print("| | first line, s | first step, s | CPU of all, s |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "prepared").mkdir()
        write_set(folder / "prepared", 2_000, 64)
        found: dict[str, list[tuple[float, float, float]]] = {}
        for number in range(2 if arguments.quick else 7):
            out = folder / f"run{number}"
            run = run_command(ASVAE, out, [*prepared(folder), "train.steps=1", "train.log_every=1", *small_end()])
            found.setdefault("jointgen run", []).append(started(run, out / "metrics.jsonl"))
            found.setdefault("import torch, a small step", []).append(started([sys.executable, "-c", BARE_START], None))
    for name, times in found.items():
        cells = [f"{statistics.median(values):.2f}" for values in zip(*times, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |")


def started(command: list[str], log: Path | None) -> tuple[float, float, float]:
    """Seconds to the first line that a command prints, to its first log event (or first line), and its CPU time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began, first_line, first_step = time.perf_counter(), None, None
    with subprocess.Popen(command, env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=REPO) as child:
        assert child.stdout is not None
        os.set_blocking(child.stdout.fileno(), False)
        while child.poll() is None:
            if child.stdout.read() and first_line is None:
                first_line = time.perf_counter() - began
            if first_step is None and log is not None and log.is_file() and log.stat().st_size:
                first_step = time.perf_counter() - began
            time.sleep(0.01)
    assert child.returncode == 0, f"{command} ended with {child.returncode}"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    ended = time.perf_counter() - began
    return first_line or ended, first_step or first_line or ended, cpu


def prepared(folder: Path) -> list[str]:
    return ["data.type='prepared'", f"data.path='{folder / 'prepared'}'", "data.flip=true"]


def small_end() -> list[str]:
    return [*RARELY, "train.trackers=[]", "eval.rows=32", "eval.samples=4", "eval.metrics=[]"]


def run_command(recipe: Path, out: Path, settings: list[str]) -> list[str]:
    given = [f"--set={one}" for one in [*settings, "train.threads=1", "train.device='cpu'"]]
    return [sys.executable, "-m", "jointgen", "run", str(recipe), f"--out={out}", *given]


# --- the end of a run ------------------------------------------------------------------------------------------------


def ending(arguments: argparse.Namespace) -> None:
    print("| part of a run of 12 steps | own time, s | wall, s |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "prepared").mkdir()
        write_set(folder / "prepared", 2_000, 64)
        command = [sys.executable, str(HERE / "speed.py"), "--parts-of-run", str(ASVAE), str(folder / "run")]
        settings = [*prepared(folder), "train.steps=12", "train.threads=1", "train.device='cpu'"]
        done = subprocess.run([*command, *settings], env=ONE_THREAD, check=True, capture_output=True, text=True)
        found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    for name, (own, wall) in found.items():
        print(f"| {name} | {own:.2f} | {wall:.2f} |")


def parts_of_run(given: list[str]) -> dict[str, list[float]]:
    """Run a recipe in this process and return the seconds of its parts, own and wall."""
    recipe, out, *settings = given
    began = time.process_time(), time.perf_counter()
    import jointgen  # noqa: PLC0415  (importing it is part of what is timed)
    from jointgen.training import checkpoints, reporter, run, trainer  # noqa: PLC0415

    found: dict[str, list[float]] = {"imports": [time.process_time() - began[0], time.perf_counter() - began[1]]}

    def watch(owner: Any, name: str, title: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        @wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.process_time(), time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                spent = found.setdefault(title, [0.0, 0.0])
                spent[0] += time.process_time() - start[0]
                spent[1] += time.perf_counter() - start[1]

        setattr(owner, name, timed)

    watch(run, "set_up_training", "setting up, checks of gradients with it")
    watch(trainer.Step, "__call__", "steps")
    watch(checkpoints.CheckpointWriter, "save", "checkpoints")
    watch(reporter.RunReporter, "write_pictures", "pictures")
    watch(reporter.RunReporter, "evaluate", "evaluation")
    watch(run, "write_page", "page")
    jointgen.run(recipe, settings, out=out, quiet=True)
    found["all of it"] = [time.process_time() - began[0], time.perf_counter() - began[1]]
    return found


# --- evaluation ------------------------------------------------------------------------------------------------------


def evaluating(arguments: argparse.Namespace) -> None:
    """Time `jointgen eval` of each metric less what it takes with a metric that costs next to nothing."""
    rows, samples = (16, 200) if arguments.quick else (256, 50_000)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        root = arguments.mnist or str(folder / "digits")
        if not arguments.mnist:
            write_mnist(Path(root), 4096)
        steps = 2 if arguments.quick else 2_000
        settings = [f"data.root='{root}'", f"train.steps={steps}", *small_end()]
        subprocess.run(
            run_command(VAE, folder / "run", settings), env=ONE_THREAD, check=True, capture_output=True, cwd=REPO
        )
        print("| metric | rows | own time, s | rows/s of a core |\n|---|---|---|---|")
        base = evaluated(folder / "run", "rmse", rows)
        ais = "ais{steps=20, chains=2, rows=16}" if arguments.quick else "ais{rows=64}"
        for metric, count in (
            ("iwae{k=5000}", rows),
            (ais, 16 if arguments.quick else 64),
            (f"fid{{samples={samples}}}", samples),
        ):
            if metric.startswith("fid"):
                if not arguments.mnist:
                    print(f"| {metric} | | not measured: its classifier needs real digits (--mnist) | |")
                    continue
                evaluated(folder / "run", "fid{samples=100}", rows)  # its classifier is trained once, and kept
            own = evaluated(folder / "run", metric, rows) - base
            print(f"| {metric} | {count} | {own:.1f} | {count / max(own, 1e-9):,.1f} |", flush=True)


def evaluated(run: Path, metric: str, rows: int) -> float:
    """The CPU seconds of an evaluation that nothing of an earlier one is taken for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "jointgen", "eval", str(run), "--metrics", metric, f"--rows={rows}"]
    subprocess.run(command, env=ONE_THREAD, check=True, capture_output=True, cwd=REPO)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "steps": steps,
    "reading": reading,
    "processes": processes,
    "starting": starting,
    "ending": ending,
    "evaluating": evaluating,
}


if __name__ == "__main__":
    main()
