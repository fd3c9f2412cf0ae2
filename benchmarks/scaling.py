"""Measures how the time of an image changes with the size of a batch and with the number of processes.

    python benchmarks/scaling.py [--mnist DIR] [--cifar DIR] [--batches 32 64 ...] [--processes 1 2] [--device cuda]

By batch: `Trainer.fit` beside the bare loop, as in `overhead.py`, on one thread. By processes: a whole run of the
convolutional VAE under torch's launcher, one thread each (a GPU each with --device cuda); from its log, the images
between the first log event and the last, over the wall time between them. The global batch stays what it is, so each
process has its share of it. Processes share the machine's cores with all other work on it, so time these alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import attrs
from overhead import RECIPES, ROWS, Comparison

STEPS = {"cpu": 60, "cuda": 2000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for source in ("mnist", "cifar"):
        parser.add_argument(f"--{source}", help="data.root of the real images")
    parser.add_argument("--batches", nargs="*", type=int, default=[32, 64, 128, 256, 512, 1024])
    parser.add_argument("--processes", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of jointgen's recipe")
    arguments = parser.parse_args(namespace=argparse.Namespace(imagenet=None))
    if arguments.batches:
        print("| model | batch | bare loop, us an image | jointgen | ratio |\n|---|---|---|---|---|")
    for name in ("mlp", "conv"):
        for batch in arguments.batches:
            print(by_batch(name, batch, arguments), flush=True)
    if arguments.processes:
        print("\n| processes | global batch | images/s |\n|---|---|---|")
    for processes in arguments.processes:
        print(by_processes(processes, arguments), flush=True)


def by_batch(name: str, batch: int, arguments: argparse.Namespace) -> str:
    images = 1024 if name == "mlp" else 128  # in a window, so that all windows are equally long
    row = attrs.evolve(ROWS[name], window=max(2, images // batch))
    found = Comparison(row, arguments).measured([f"train.batch={batch}"])
    bare, ours = (1e6 * median(found.seconds[arm]) / batch for arm in ("bare", "jointgen"))
    return f"| {row.title.split(', batch')[0]} | {batch} | {bare:.1f} | {ours:.1f} | {median(found.ratios()):.3f} |"


def by_processes(processes: int, arguments: argparse.Namespace) -> str:
    row = ROWS["conv"]
    with tempfile.TemporaryDirectory() as folder:
        data = Comparison(row, arguments).data(Path(folder))
        loop = [f"train.steps={STEPS[arguments.device]}", "train.log_every=10", f"train.device='{arguments.device}'"]
        short = [*(f"train.{what}_every=1000000" for what in ("eval", "sample", "checkpoint")), "eval.rows=64"]
        given = [f"--set={setting}" for setting in [*row.settings, *data, *loop, *short, *arguments.set]]
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        run = ["-m", "jointgen", "run", str(RECIPES / f"{row.recipe}.toml"), f"--out={folder}/run", *given]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*launcher, *run], check=True, env=one_thread, capture_output=True)
        events = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    first, last = events[0], events[-1]
    rate = (last["images_seen"] - first["images_seen"]) / (last["wall_s"] - first["wall_s"])
    return f"| {processes} | {first['images_seen'] // first['step']} | {rate:.0f} |"


if __name__ == "__main__":
    main()
