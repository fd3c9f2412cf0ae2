"""N processes train the same model as one: every shipped recipe on small networks, in float64, after 12 steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.paths import REPO, SHIPPED

import jointgen
from jointgen.config.toml import load_tables
from jointgen.images.prepare import prepare_images
from jointgen.runs import checkpoint

EXACT = 1e-12

SMALL: dict[str, Any] = {
    "steps": 12,
    "batch": 16,
    "pair_block": 4,
    "threads": 1,
    "precision": "fp64",
    "log_every": 6,
    "checkpoint_every": 6,
    "trackers": [],
}
EVALUATION: dict[str, Any] = {"rows": 40, "quick_rows": 20, "batch": 8, "samples": 4}
FEW: list[dict[str, str]] = [{"type": "elbo"}, {"type": "rmse"}]


def small(tables: Mapping[str, Any], **train: Any) -> dict[str, Any]:
    """A shipped recipe's tables on the bundled digits, or on its own bundled table, with networks of a few units."""
    found = _shrunk(tables)
    observed = tables["data"].get("observe")
    if tables["data"].get("type") != "table":
        found["data"] = {"type": "digits", **({"observe": observed} if observed else {})}
    own = {key: value for key, value in tables["train"].items() if key not in ("eval_every", "sample_every")}
    return {**found, "train": {**own, **SMALL, **train}, "eval": {**EVALUATION, "metrics": FEW}}


def _shrunk(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    few = {"hidden": [12], "widths": [6, 6], "length": 3}
    return {key: few[key] if key in few else _shrunk(item) for key, item in value.items()}


def shipped(name: str, **train: Any) -> dict[str, Any]:
    return small(load_tables(SHIPPED / f"{name}.toml"), **train)


def changed(name: str, table: str, **keys: Any) -> dict[str, Any]:
    """A shipped recipe with keys of one table changed, `table` being dotted."""
    tables = shipped(name)
    place = tables
    for part in table.split("."):
        place = place.setdefault(part, {})
    place.update(keys)
    return tables


def cases() -> dict[str, dict[str, Any]]:
    """Every shipped recipe, and what else could tell processes apart: dropout, norms, re-pairing, several runs."""
    found = {path.stem: shipped(path.stem) for path in sorted(SHIPPED.glob("*.toml"))}
    # its figures, all of them, and its pictures are compared
    found["quickstart"] = {
        **shipped("quickstart", eval_every=6, sample_every=6),
        "eval": {**EVALUATION, "metrics": []},
    }
    found["dropout"] = changed("quickstart", "encoder.network", dropout=0.3)
    critic = {"type": "augmented", "of": {**shipped("ali_mnist")["discriminator"], "spectral_norm": True}}
    found["augmented_critic"] = {**shipped("ali_mnist"), "discriminator": critic}
    found["literal"] = changed("asvae_mnist", "objective", form="literal")
    found["number"] = changed("asvae_mnist", "objective", **{"lambda": 10.0})
    for objective in ("iwae", "alice"):
        found[objective] = {**shipped("ali_mnist" if objective == "alice" else "vae_mnist")}
        found[objective]["objective"] = {"type": objective}
    found["vamp"] = {**shipped("vae_mnist"), "prior": {"type": "vamp", "size": 16, "components": 5}}
    scores = {"f": {"of": "q(x) : p(x)", "loss": {"type": "least_squares"}, "times": 3}}
    found["several_times"] = {
        **shipped("asvae_mnist"),
        "objective": {"type": "expression", "maximize": "E[q(x,z)](log p(x|z)) + E[p(x)](f)", "scores": scores},
    }
    own = {"asvae": {"model": {"lr": 5e-4, "betas": [0.5, 0.999], "decay_from": 0.5}, "critics": {"type": "rmsprop"}}}
    found["stages"] = changed("asvae_mnist", "optimizer", stages=own)
    found["schedules"] = {**shipped("asvae_mnist"), "objective": scheduled()}
    found["clipped"] = shipped("asvae_mnist", clip=0.01)
    of_batch = "logmeanexp[p(z)](f) + mmd(q(z) : p(z)) + sliced_wasserstein(q(x) : p(x)) + covariance(q(z))"
    aggregates = "log q(z|x) - 2*log q(z) + log prod q(z)"
    found["aggregates"] = {
        **shipped("vae_mnist", pair_block=8),
        "objective": {
            "type": "expression",
            "maximize": f"E[q(x,z)](log p(x|z) + log p(z) - ({aggregates}) - t)",
            "ratios": {"t": "q(z) : prod q(z)"},
        },
        "prior": {"type": "normal", "size": 8},
        "discriminator": {"type": "mlp", "hidden": [12]},
    }
    found["batch_terms"] = {
        **shipped("asvae_mnist"),
        "objective": {
            "type": "expression",
            "maximize": f"E[q(x,z)](log p(x|z) - f) - {of_batch.replace(' + ', ' - ')}",
            "ratios": {"f": "q(z) : p(z)"},
        },
    }
    labelled = {"type": "digits", "observe": "binarise", "labels": True, "rows": 20, "balanced": True}
    found["exact_sum"] = {**shipped("paper/m2_mnist"), "sources": {"labelled": labelled}}
    family = {"type": "pixelcnn", "width": 4, "blocks": 1, "kernel": 3, "context": 2}
    found["no_code"] = {  # its layers start from rows of the data
        **shipped("vae_mnist", micro_batches=2),
        "prior": {"type": "learned", "like": "x", "family": family},
        "objective": {"type": "expression", "maximize": "E[q(x)](log p(x))", "joints": {"q": "q(x)", "p": "p(x)"}},
    }
    for reduction in ("dreg", "stein"):
        bound = f"E[q(x,z); k=3 {reduction}](log p(x|z) + log p(z) - log q(z|x))"
        found[reduction] = {**shipped("vae_mnist"), "objective": {"type": "expression", "maximize": bound}}
    for name in ("ladder_mnist", "vqvae_mnist"):
        found[name] = shipped(f"relatives/{name}")
    found["mixture"] = {
        **shipped("asvae_mnist"),
        "sources": {"few": {"type": "digits", "observe": "binarise", "rows": 10, "batch": 12}},
        "objective": {
            "type": "expression",
            "joints": {"l": "l(x) l(z|x)", "r": "r(w) r(z|w) r(x|z)"},
            "parts": {"l(x)": "few", "l(z|x)": "encoder", "r(w)": "data", "r(z|w)": "encoder", "r(x|z)": "decoder"},
            "maximize": "E[q(x,z)](log p(x|z)) + E[l(x,z)](log p(x|z)) + E[0.25 p(x) + 0.75 r(x)](log s(f))",
            "ratios": {
                "f": {
                    "of": "q(x) : 0.25 p(x) + 0.75 r(x)",
                    "view": {"x": "relaxed"},
                    "penalties": [{"type": "gradient_penalty"}],
                }
            },
        },
    }
    found["micro_batches"] = shipped("quickstart", batch=24, pair_block=6, micro_batches=2)
    return found


ALIKE = (
    *("nfvae_mnist", "iafvae_mnist", "asvae_r_mnist", "asvae_g_mnist", "asvae_conv_mnist", "asvae_imagenet"),
    *("avb_mnist", "literal", "number", "iwae", "alice"),
)
"""Cases that differ from others in nothing that processes could tell apart: checked with -m slow."""


def scheduled() -> dict[str, Any]:
    """Times by rules, a constraint, a gate that closes, a weight that figures drive, and a history of draws."""
    rules = [{"until": 5, "times": 3}, {"every": 4, "times": 2}, {"times": 1}]
    control = {
        "control": "0.7*E[q(x)](log s(f)) - E[p(x); history 5](log s(-f))",
        "gain": 0.2,
        "low": -2.0,
        "high": 2.0,
    }
    return {
        "type": "expression",
        "maximize": "E[q(x,z)](log p(x|z) - KL(q(z|x) : p(z))) + E[p(x)](k*log s(f))",
        "ratios": {"f": {"of": "q(x) : p(x)", "times": rules, "history": 5}},
        "weights": {"k": {"start": 0.5, **control}},
        "updates": {"f": {"when": "(E[q(x)](-log s(f)) > 0.6 and f/negative_accuracy < 0.9) or step > 8"}},
        "constraints": {"f": [{"type": "clip", "bound": 0.2}]},
    }


def in_float32() -> dict[str, dict[str, Any]]:
    """With plain SGD: Adam turns a gradient's rounding near zero into a whole step (docs/inside/engineering.md)."""
    sgd = {"type": "sgd", "lr": 1e-3}
    names = ("quickstart", "ali_mnist", "asvae_cifar10", "vae_mnist")
    plain = {name: shipped(name, precision="fp32") for name in names}
    return {f"{name}_sgd": {**tables, "optimizer": {"model": sgd, "critics": sgd}} for name, tables in plain.items()}


def augmented(folder: Path, **train: Any) -> dict[str, Any]:
    """A convolutional recipe on prepared images, with random crops, flips and colours."""
    images = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), dtype=np.uint8)
    (folder / "images").mkdir(exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"images/{number:02d}.png")
    prepare_images(folder / "images", folder / "packed", 10, workers=1)
    source: dict[str, Any] = {"type": "prepared", "path": str(folder / "packed"), "crop": 8, "flip": True}
    source["augment"] = [{"type": "colour", "brightness": 0.1}]
    return {**shipped("asvae_cifar10", **train), "data": source}


def train_in(processes: int, named: Mapping[str, Any], folder: Path) -> Path:
    """Run folders FOLDER/N/NAME of all the recipes, trained by so many processes."""
    out = folder / str(processes)
    out.mkdir()
    (out / "cases.json").write_text(json.dumps(named))
    command = [sys.executable, "-m", "support.forked_runs", str(processes), str(out / "cases.json"), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO / "tests")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr
    return out


def warm(folder: Path) -> dict[str, Any]:
    """AS-VAE that goes on from the weights of a VAE."""
    jointgen.run(shipped("vae_mnist"), out=folder / "vae", quiet=True)
    return shipped("asvae_mnist", init_from=str(folder / "vae"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1/NAME and 2/NAME of every case."""
    folder = tmp_path_factory.mktemp("processes")
    own = {name: tables for name, tables in cases().items() if name not in ALIKE}
    return in_one_and_two(own | in_float32() | {"augmented": augmented(folder), "warm": warm(folder)}, folder)


@pytest.fixture(scope="module")
def trained_alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1/NAME and 2/NAME of the cases that are like others."""
    return in_one_and_two({name: cases()[name] for name in ALIKE}, tmp_path_factory.mktemp("alike"))


def in_one_and_two(named: Mapping[str, Any], folder: Path) -> Path:
    for name, tables in named.items():
        jointgen.run(tables, out=folder / "1" / name, quiet=True)
    train_in(2, named, folder)
    return folder


def difference(one: Path, many: Path) -> float:
    """The largest difference between the weights, averages and buffers of two runs' last checkpoints."""
    mine, theirs = (checkpoint.find(run / "checkpoints") for run in (one, many))
    assert mine.step == theirs.step == 12
    assert {part: [*tensors] for part, tensors in mine.parts.items()} == {p: [*t] for p, t in theirs.parts.items()}
    pairs = [(t, theirs.parts[part][name]) for part, tensors in mine.parts.items() for name, t in tensors.items()]
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs if a.numel())


def moved(run: Path) -> bool:
    """Whether training changed every part, so that equality says something."""
    first, last = (checkpoint.load(run / "checkpoints" / f"step-{step:08d}").parts for step in (6, 12))
    return all(
        any(not torch.equal(t, last[p][n]) for n, t in tensors.items()) for p, tensors in first.items() if tensors
    )


@pytest.mark.parametrize("name", [*(name for name in cases() if name not in ALIKE), "augmented", "warm"])
def test_two_processes_equal_one(trained: Path, name: str) -> None:
    assert moved(trained / "1" / name)
    assert difference(trained / "1" / name, trained / "2" / name) <= EXACT


@pytest.mark.slow
@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_equal_one_in_what_is_alike(trained_alike: Path, name: str) -> None:
    assert moved(trained_alike / "1" / name)
    assert difference(trained_alike / "1" / name, trained_alike / "2" / name) <= EXACT


@pytest.mark.parametrize("name", [*in_float32()])
def test_two_processes_equal_one_in_float32(trained: Path, name: str) -> None:
    assert moved(trained / "1" / name)
    assert 0 < difference(trained / "1" / name, trained / "2" / name) <= 1e-6


def test_micro_batches_of_augmented_images_equal_a_whole(trained: Path, tmp_path: Path) -> None:
    """A part of a batch has the crops and flips that its rows have in the whole."""
    jointgen.run(augmented(tmp_path, micro_batches=2, channels_last=True), out=tmp_path / "run", quiet=True)
    assert difference(trained / "1/augmented", tmp_path / "run") <= EXACT


@pytest.mark.slow
def test_four_processes_equal_one(trained: Path, tmp_path: Path) -> None:
    some = ("quickstart", "ali_mnist", "asvae_nf_mnist")
    four = train_in(4, {name: cases()[name] for name in some}, tmp_path)
    assert max(difference(trained / "1" / name, four / name) for name in some) <= EXACT


def test_figures_count_every_row_once(trained: Path) -> None:
    """Logged means, evaluations and their n are those of one process, and one process writes."""
    one, two = (trained / processes / "quickstart" for processes in "12")
    for mine, theirs in zip(events(one), events(two), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6)
    measured, again = (json.loads((run / "summary.json").read_text())["metrics"] for run in (one, two))
    assert measured["elbo"]["n"] == again["elbo"]["n"] == EVALUATION["rows"]
    assert measured["elbo"]["value"] == pytest.approx(again["elbo"]["value"], rel=1e-9)
    assert measured["elbo"]["standard_error"] == pytest.approx(again["elbo"]["standard_error"], rel=1e-9)


def events(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without times."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("wall_s", "images_per_s")} for line in lines]


def test_pictures_are_those_of_one_process(trained: Path) -> None:
    one, two = (trained / processes / "quickstart/samples" for processes in "12")
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    for picture in one.iterdir():
        assert picture.read_bytes() == (two / picture.name).read_bytes(), picture.name


def test_every_run_of_two_processes_has_its_page(trained: Path) -> None:
    """One process writes it while the other goes on to the next run, so nothing in it waits for the other."""
    for run in filter(Path.is_dir, (trained / "2").iterdir()):
        assert (run / "report.html").read_text(encoding="utf-8").endswith("</html>"), run.name
