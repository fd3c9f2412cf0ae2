"""Trains every shipped recipe for 20 steps in float64 and prints hashes of all that came out.

    python benchmarks/freeze.py --mnist DIR --cifar DIR --imagenet DIR > before.txt

Two states of the code that print the same lines train the same parameters, from the same noise, to the same figures
and pictures. It is the check for a change that should change no behaviour: run it before and after, and compare.
Times and what depends on the machine are left out. Settings are small: 32 rows a batch, 40 rows an evaluation.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import jointgen

RECIPES = Path(__file__).parent.parent / "recipes"
METRICS = ("elbo", "iwae", "rmse", "psnr", "ssim", "active_units", "sliced_wasserstein", "mmd", "critics", "code_rmse")
SMALL = {
    "train.steps": 20,
    "train.batch": 32,
    "train.precision": "fp64",
    "train.threads": 1,
    "train.log_every": 5,
    "train.eval_every": 10,
    "train.sample_every": 10,
    "train.checkpoint_every": 10,
    "train.micro_batches": 2,
    "eval.rows": 40,
    "eval.batch": 20,
    "eval.quick_rows": 20,
    "eval.samples": 4,
    "eval.metrics": [{"type": kind} for kind in METRICS],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for source in ("mnist", "cifar", "imagenet"):
        parser.add_argument(f"--{source}", help="data.root of the real images; without it their recipes are left out")
    parser.add_argument("--only", nargs="+", default=[], help="names of recipes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for recipe in sorted(RECIPES.glob("*.toml")):
        settings = settings_for(recipe.stem, arguments)
        if settings is None or (arguments.only and recipe.stem not in arguments.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            jointgen.run(recipe, settings, out=out, quiet=True)
            for what, value in fingerprint(out).items():
                print(f"{recipe.stem:16} {what:12} {value}", flush=True)


def settings_for(name: str, arguments: argparse.Namespace) -> dict[str, Any] | None:
    for word, more in (
        ("mnist", {}),
        ("cifar10", {"train.batch": 16}),
        ("imagenet", {"train.batch": 16, "data.size": 32}),
    ):
        if name.endswith(word):
            root = getattr(arguments, word.replace("10", ""))
            return None if root is None else {**SMALL, **more, "data.root": root}
    return dict(SMALL)


def fingerprint(run: Path) -> dict[str, str]:
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = ("wall_s", "images_per_s")
    figures = [{key: value for key, value in line.items() if key not in timed} for line in log]
    summary = json.loads((run / "summary.json").read_text())
    for figure in summary["metrics"].values():
        figure.pop("display", None)  # how it is shown is no result
    shown = {key: value for key, value in summary.items() if key not in ("wall_s", "environment", "data_keys")}
    newest = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    tensors = {
        f"{file.name}/{name}": tensor
        for file in sorted(newest.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }
    parameters = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        parameters.update(name.encode())
        parameters.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    pictures = hashlib.sha256()
    for picture in sorted((run / "samples").glob("*.png")):
        pictures.update(picture.name.encode() + picture.read_bytes())
    return {
        "checkpoint": parameters.hexdigest()[:16],
        "log": digest(figures),
        "summary": digest(shown),
        "pictures": pictures.hexdigest()[:16],
        "recipe": digest((run / "recipe.toml").read_text().replace(str(run.parent), "")),
    }


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
