"""A run as other people get it, and the hub, for which a folder in the layout of its cache stands in."""

from __future__ import annotations

import functools
import os
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch

import jointgen
from jointgen.errors import ConfigError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def shared(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jointgen.save_pretrained(trained, tmp_path_factory.mktemp("shared") / "model", name="hf:me/digits")


def as_cached(shared: Path, cache: Path) -> None:
    """Lay a folder out as huggingface_hub caches a repository: snapshots of links to blobs."""
    repository = cache / "models--me--digits"
    for file in (path for path in shared.rglob("*") if path.is_file()):
        blob = repository / "blobs" / str(abs(hash(file)))
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, blob)
        link = repository / "snapshots" / COMMIT / file.relative_to(shared)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(COMMIT)


def test_a_shared_run_has_the_weights_and_no_more(trained: Path, shared: Path) -> None:
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(jointgen.load(shared).reconstruct(x), jointgen.load(trained).reconstruct(x))
    (own,), (kept,) = ([*(path / "checkpoints").glob("step-*")] for path in (trained, shared))
    assert own.name == kept.name
    assert {file.stem for file in kept.glob("*.safetensors")} == {"encoder", "decoder", "prior", "T"} & {
        file.stem for file in own.glob("*.safetensors")
    }, "no optimizer's state, and averages in the place of weights"


def test_a_shared_run_names_no_path_of_this_machine(tmp_path: Path) -> None:
    data = tmp_path / "secret" / "rows.npy"
    data.parent.mkdir()
    np.save(data, np.random.default_rng(0).integers(0, 256, (60, 4, 4), np.uint8))
    settings = {
        "data": {"type": "arrays", "path": str(data)},
        "train.steps": 1,
        "train.batch": 16,
        "train.pair_block": 4,
    }
    settings |= {"train.eval_every": None, "eval.rows": 4, "train.trackers": []}
    run = jointgen.run("recipes/quickstart.toml", settings, out=tmp_path / "run", quiet=True)
    shared = jointgen.save_pretrained(run.path, tmp_path / "shared")
    assert all(b"secret" not in file.read_bytes() for file in shared.rglob("*") if file.is_file())
    assert b"rows.npy" in (shared / "recipe.toml").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # recipe and checkpoint say the same
        assert jointgen.load(shared).sample(1).shape == (1, 1, 4, 4)


def test_the_card_says_what_the_figures_are(shared: Path, trained: Path) -> None:
    card = (shared / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: jointgen\n")
    assert 'jointgen.load("hf:me/digits")' in card
    elbo = next(line for line in card.splitlines() if line.startswith("| ELBO"))
    assert "lower bound" in elbo and "one draw of q(z|x) per row".replace("|", "\\|") in elbo and "| test |" in elbo
    assert "- lower bound: the true value is at least this" in card
    assert str(jointgen.load(trained).compiled.stages[-1].objective) in card
    assert "@software{jointgen," in card


def test_a_model_is_loaded_from_the_hub(shared: Path, tmp_path: Path, say: Any, monkeypatch: Any) -> None:
    as_cached(shared, tmp_path / "hub")
    offline = functools.partial(huggingface_hub.snapshot_download, cache_dir=tmp_path / "hub", local_files_only=True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    monkeypatch.setenv("JOINTGEN_CACHE", str(tmp_path / "own"))
    assert torch.equal(jointgen.load("hf:me/digits").sample(2), jointgen.load(shared).sample(2))
    assert say("sample", "hf:me/digits@main", "-n", 2, "-o", tmp_path / "a.npz").status == 0
    with pytest.raises(ConfigError, match="hf:me/other: cannot be fetched: "):
        jointgen.load("hf:me/other")
    with pytest.raises(ConfigError, match="hf:digits: expected hf:USER/NAME, or hf:USER/NAME@REVISION"):
        jointgen.load("hf:digits")


def test_a_run_is_pushed(trained: Path, say: Any, monkeypatch: Any) -> None:
    calls: list[Any] = []

    def upload(**options: Any) -> None:
        calls.append((options["repo_id"], sorted(path.name for path in Path(options["folder_path"]).iterdir())))

    def create(repository: str, **options: Any) -> str:
        calls.append((repository, options))
        return f"https://hub.example/{repository}"

    api = SimpleNamespace(create_repo=create, upload_folder=upload)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **options: api)
    said = say("push", trained, "me/digits", "--private")
    assert said.out == 'https://hub.example/me/digits: load it with jointgen.load("hf:me/digits")\n'
    assert calls[0] == ("me/digits", {"private": True, "exist_ok": True})
    assert {"README.md", "checkpoints", "data.json", "recipe.toml", "summary.json"} <= set(calls[1][1])
    assert say("push", trained, "digits").refusal == "repository: 'digits': expected USER/NAME"


def test_a_folder_for_others_is_new(trained: Path, say: Any, here: Path) -> None:
    assert say("push", trained, "out/").out.startswith("out: the model, its figures and its card")
    assert torch.equal(jointgen.load("out").sample(2), jointgen.load(trained).sample(2))
    assert say("push", trained, "out/").refusal == "folder: out: is there already; expected a new folder"
    assert say("push", trained, "no/out/").refusal == "folder: no/out: there is no folder 'no'"
    assert [path.name for path in here.iterdir()] == ["out"]
