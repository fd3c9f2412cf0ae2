"""A warm start: which weights come from where, what is recorded, what a resume needs, and what is refused."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.paths import QUICKSTART
from support.runs import SMALL, stop_after, train_small
from torch import Tensor

import jointgen
from jointgen.compiler.compiled_recipe import CompiledRecipe, compile_recipe
from jointgen.config.recipe import read_recipe, write_recipe
from jointgen.errors import ConfigError, StoppedError
from jointgen.registry.components import Registry
from jointgen.reports.explain.explain import explain
from jointgen.runs import checkpoint
from jointgen.runs.manifest import MANIFEST
from jointgen.training.check import check_run
from jointgen.training.setup import set_up_training
from jointgen.training.trainer import Trainer
from jointgen.training.warm_start import warm_start

RUN: dict[str, Any] = {
    **SMALL,
    "objective.critic.penalties": [],
    "train.steps": 12,
    "train.log_every": 4,
    "train.checkpoint_every": 4,
    "train.trackers": [],
}
VAE = {"objective": {"type": "vae"}, "discriminator": None, "optimizer.model.lr": 0.01}
Tensors = dict[str, Tensor]


def train(out: Path, changes: Any = None, **options: Any) -> Any:
    given = {**RUN, **(changes or {})}
    if "objective" in given:
        given.pop("objective.critic.penalties")
    return jointgen.run(QUICKSTART, given, out=out, **{"quiet": True, **options})


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VAE of 12 steps with checkpoints at 4, 8 and 12. Tests only read it."""
    out = tmp_path_factory.mktemp("runs") / "vae"
    train(out, VAE)
    return out


@pytest.fixture
def copied(vae: Path, tmp_path: Path) -> Path:
    return shutil.copytree(vae, tmp_path / "copied")


@pytest.fixture
def compiled(registry: Registry) -> Callable[..., CompiledRecipe]:
    def made(changes: Any = None, source: Any = None) -> CompiledRecipe:
        given = {**RUN, **(changes or {}), **({} if source is None else {"train.init_from": source})}
        return compile_recipe(read_recipe(QUICKSTART, given, registry=registry), registry)

    return made


@pytest.fixture
def started(registry: Registry, tmp_path: Path) -> Callable[..., Trainer]:
    """A run of AS-VAE that has begun and not made a step."""

    def made(changes: Any = None, source: Any = None) -> Trainer:
        given = {**RUN, **(changes or {}), **({} if source is None else {"train.init_from": source})}
        checked = check_run(read_recipe(QUICKSTART, given, registry=registry), registry)
        return set_up_training(checked, tmp_path / "started")

    return made


def of(trainer: Trainer, part: str) -> Tensors:
    return {name: tensor.clone() for name, tensor in trainer.state.parts.modules[part].state_dict().items()}


def equal(mine: Tensors, theirs: Tensors) -> bool:
    assert mine.keys() == theirs.keys() and mine
    return all(torch.equal(mine[name], theirs[name]) and mine[name].dtype == theirs[name].dtype for name in mine)


def saved(run: Path, which: str = "latest") -> dict[str, Tensors]:
    return checkpoint.find(run / "checkpoints", which).parts


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# --- what is taken ---------------------------------------------------------------------------------------------------


def test_parts_of_both_are_the_averaged_weights_and_new_ones_as_built(vae: Path, started: Any, tmp_path: Path) -> None:
    """Decoder bias included, which a fresh run sets from the data's mean. The average begins there, too."""
    warm = started(source=str(vae))
    theirs = saved(vae)
    for part in ("encoder", "decoder"):
        assert equal(of(warm, part), theirs[f"ema.{part}"]) and not equal(of(warm, part), theirs[part])
        assert equal(dict(warm.state.ema.parts.modules[part].state_dict()), theirs[f"ema.{part}"])
    shutil.rmtree(tmp_path / "started")
    cold = started()
    assert equal(of(warm, "T"), of(cold, "T"))
    assert not equal(of(warm, "decoder"), of(cold, "decoder"))


def test_after_no_step_the_elbo_is_that_of_the_run(vae: Path, started: Any) -> None:
    """The same rows, noise and weights, so the same number, whatever the objective."""
    expected = json.loads((vae / "summary.json").read_text())["metrics"]["elbo"]["value"]
    assert started(source=str(vae)).reporter.evaluate()["elbo"].value == expected


def test_optimizers_start_fresh(vae: Path, started: Any) -> None:
    assert all(not state["state"] for state in started(source=str(vae)).state.optimizers.state_dict().values())


@pytest.mark.parametrize(("which", "name"), [("best", "step-00000004"), ("step-00000008", "step-00000008")])
def test_another_checkpoint_and_some_of_the_parts(which: str, name: str, copied: Path, started: Any) -> None:
    (copied / "checkpoints/best").write_text("step-00000004\n")
    warm = started(source={"run": str(copied), "checkpoint": which, "parts": ["decoder"]})
    assert equal(of(warm, "decoder"), saved(copied, name)["ema.decoder"])
    assert not equal(of(warm, "encoder"), saved(copied, name)["ema.encoder"])


def test_plain_weights_where_none_are_averaged(started: Any, tmp_path: Path) -> None:
    train(tmp_path / "plain", {**VAE, "train.ema": 0.0, "train.steps": 2})
    warm = started(source=str(tmp_path / "plain"))
    assert equal(of(warm, "encoder"), saved(tmp_path / "plain")["encoder"])
    assert warm.state.progress.init_from.averaged is False


def test_weights_keep_their_precision(started: Any, tmp_path: Path) -> None:
    """Parts are built in float32, through which float64 must not pass."""
    train(tmp_path / "double", {**VAE, "train.precision": "fp64", "train.steps": 2})
    warm = started({"train.precision": "fp64"}, str(tmp_path / "double"))
    assert equal(of(warm, "encoder"), saved(tmp_path / "double")["ema.encoder"])


def test_a_critic_of_the_same_name_goes_on(started: Any, tmp_path: Path) -> None:
    train(tmp_path / "first", {"train.steps": 2})
    assert equal(of(started(source=str(tmp_path / "first")), "T"), saved(tmp_path / "first")["ema.T"])


# --- what is said and kept -------------------------------------------------------------------------------------------


def test_what_came_from_where_is_said_and_recorded(vae: Path, tmp_path: Path, capsys: Any) -> None:
    summary = train(tmp_path / "run", {"train.init_from": str(vae)}, quiet=False).summary
    step = vae / "checkpoints/step-00000012"
    expected = {
        "run": str(vae),
        "checkpoint": "step-00000012",
        "sha256": json.loads((step / MANIFEST).read_text())["sha256"],
        "averaged": True,
        "parts": ["encoder", "decoder"],
    }
    assert json.loads((tmp_path / "run/summary.json").read_text())["init_from"] == summary["init_from"] == expected
    line = f"starts with encoder, decoder from the averaged weights of {vae} (step-00000012); as built: T"
    assert f"jointgen: {line}" in capsys.readouterr().err.splitlines()


def test_a_run_that_starts_cold_records_nothing(vae: Path) -> None:
    assert "init_from" not in json.loads((vae / "summary.json").read_text())


def test_the_resolved_recipe_repeats_the_run(vae: Path, tmp_path: Path) -> None:
    train(tmp_path / "run", {"train.init_from": {"run": str(vae), "parts": ["encoder"]}})
    jointgen.run(tmp_path / "run/recipe.toml", out=tmp_path / "again", quiet=True)
    for part, tensors in saved(tmp_path / "run").items():
        assert not tensors or equal(saved(tmp_path / "again")[part], tensors)


def test_a_path_is_relative_to_where_the_command_runs(vae: Path, started: Any, monkeypatch: Any) -> None:
    """As that of the data is; the recipe lies elsewhere."""
    monkeypatch.chdir(vae.parent)
    assert equal(of(started(source="vae"), "encoder"), saved(vae)["ema.encoder"])


def test_explain_says_where_it_is_from_without_looking(compiled: Any, registry: Registry) -> None:
    """So that a finished run can be explained when the other is gone."""
    text = explain(compiled(source={"run": "runs/gone", "checkpoint": "best", "parts": ["encoder", "decoder"]}))
    assert "  starts from the run runs/gone, checkpoint 'best': encoder, decoder\n" in text
    assert "  starts from the run runs/gone, checkpoint 'latest': parts of the same names\n" in explain(
        compiled(source="runs/gone")
    )


def test_both_ways_of_writing_survive_the_resolved_recipe(compiled: Any, registry: Registry) -> None:
    table = {"run": "runs/a", "checkpoint": "best", "parts": ["encoder"]}
    for source in ("runs/a", table):
        text = write_recipe(compiled(source=source).recipe, registry)
        assert tomllib.loads(text)["train"]["init_from"] == source


# --- resuming --------------------------------------------------------------------------------------------------------


def test_a_resume_does_not_need_the_run_any_more(copied: Path, tmp_path: Path) -> None:
    warm = {"train.init_from": str(copied)}
    train(tmp_path / "whole", warm)
    with pytest.raises(StoppedError):
        train(tmp_path / "run", warm, stop=stop_after(5))
    shutil.rmtree(copied)
    summary = train(tmp_path / "run", warm, resume=True).summary
    for part, tensors in saved(tmp_path / "whole").items():
        assert not tensors or equal(saved(tmp_path / "run")[part], tensors)
    assert summary["init_from"] == json.loads((tmp_path / "whole/summary.json").read_text())["init_from"]


# --- what is refused -------------------------------------------------------------------------------------------------


def problems(compiled: CompiledRecipe) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        warm_start(compiled)
    return caught.value.lines


def test_what_a_run_began_with_cannot_be_changed(vae: Path, copied: Path, tmp_path: Path) -> None:
    out = tmp_path / "next"
    train(out, {"train.init_from": str(vae)})
    recipe = (out / "recipe.toml").read_bytes()
    with pytest.raises(ConfigError, match=r"train\.init_from: .* -> .*: it says what a run begins with"):
        train(out, {"train.init_from": str(copied), "train.steps": 16}, resume=True, allow_changes=True)
    assert (out / "recipe.toml").read_bytes() == recipe


def test_a_path_that_is_no_run(vae: Path, compiled: Any) -> None:
    (line,) = problems(compiled(source=str(vae.parent / "veu")))
    assert line == (
        f"train.init_from: {vae.parent / 'veu'}: not a run folder (it has no recipe.toml); did you mean '{vae}'?"
    )


def test_a_checkpoint_that_is_not_there(vae: Path, compiled: Any) -> None:
    (line,) = problems(compiled(source={"run": str(vae), "checkpoint": "step-00000007"}))
    assert line.startswith("train.init_from.checkpoint: 'step-00000007' is not in ")
    assert "; did you mean 'step-00000008'? (known: " in line


def test_a_damaged_checkpoint_by_name(copied: Path, compiled: Any) -> None:
    flip(copied / "checkpoints/step-00000008/encoder.safetensors")
    (line,) = problems(compiled(source={"run": str(copied), "checkpoint": "step-00000008"}))
    assert line.startswith(f"train.init_from: checkpoint {copied / 'checkpoints/step-00000008'} is damaged: ")
    assert "encoder.safetensors: contents differ from what was written; the newest whole one is " in line


def test_the_newest_whole_checkpoint_is_taken_and_damage_is_told(copied: Path, compiled: Any) -> None:
    flip(copied / "checkpoints/step-00000012/encoder.safetensors")
    found = warm_start(compiled(source=str(copied)))
    assert found is not None and found.checkpoint == "step-00000008"
    assert found.lines[0] == (
        "step-00000012 is damaged (encoder.safetensors: contents differ from what was written); step-00000008 is used"
    )


def test_a_run_without_a_whole_checkpoint(copied: Path, compiled: Any) -> None:
    for path in (copied / "checkpoints").glob("step-*"):
        flip(path / "encoder.safetensors")
    (line,) = problems(compiled(source=str(copied)))
    assert line.startswith(f"train.init_from: {copied / 'checkpoints'}: no whole checkpoint: step-00000012 is damaged")


def test_every_part_that_does_not_fit_is_told_at_once(vae: Path, compiled: Any) -> None:
    shapes = {"encoder.network.hidden": [9], "decoder.network.hidden": [8, 8]}
    encoder, decoder = problems(compiled(shapes, str(vae)))
    assert encoder == (
        f"train.init_from: encoder of {vae} does not fit: encoder/trunk.layers.0.weight is (9, 64) now, and (8, 64) "
        "there (and 2 more)"
    )
    assert decoder.startswith(f"train.init_from: decoder of {vae} does not fit: decoder/trunk.layers.2.")


def test_a_part_that_does_not_fit_may_be_left_out(vae: Path, compiled: Any) -> None:
    found = warm_start(compiled({"encoder.network.hidden": [9]}, {"run": str(vae), "parts": ["decoder"]}))
    assert found is not None and list(found.weights) == ["decoder"] and found.as_built == ("encoder", "T")


def test_parts_that_are_not_there_are_told_at_once(vae: Path, compiled: Any) -> None:
    """T is new, and N(0, I) has no weights to start from."""
    assert problems(compiled(source={"run": str(vae), "parts": ["encodr", "T", "prior", "decoder"]})) == [
        "train.init_from.parts: this recipe has no part 'encodr' with weights; did you mean 'encoder'? "
        "(known: T, decoder, encoder)",
        f"train.init_from.parts: {vae} has no part 'T' with weights; known: decoder, encoder",
        "train.init_from.parts: this recipe has no part 'prior' with weights; known: T, decoder, encoder",
    ]


def test_a_run_with_no_part_in_common(vae: Path, registry: Registry) -> None:
    """A GAN whose decoder has another name."""
    gan = {
        "data": {"type": "digits"},
        "prior": {"type": "normal", "size": 4},
        "decoders": {"painter": {"network": {"type": "mlp", "hidden": [8]}, "family": {"type": "gaussian"}}},
        "discriminator": {"type": "mlp", "hidden": [8]},
        "objective": {
            "type": "expression",
            "maximize": "E[r(x)](f)",
            "ratios": {"f": "d(x) : r(x)"},
            "joints": {"d": "d(x)", "r": "r(z) r(x|z)"},
            "parts": {"d(x)": "data", "r(z)": "prior", "r(x|z)": "painter"},
        },
        "train": {"steps": 2, "init_from": str(vae)},
    }
    (line,) = problems(compile_recipe(read_recipe(gan, registry=registry), registry))
    assert line == f"train.init_from: {vae} has none of this recipe's parts (painter, f): encoder, decoder"


def test_mistakes_are_told_before_anything_is_written(vae: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        train_small(tmp_path / "run", {**RUN, "encoder.network.hidden": [9], "train.init_from": str(vae)})
    assert not (tmp_path / "run").exists()
