"""A run as other people get it: weights, recipe, figures, pictures and a card, in a folder or on the hub."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from jointgen.config.toml import parse_toml, to_toml
from jointgen.errors import ConfigError
from jointgen.inference.loading import open_model
from jointgen.inference.model import Model
from jointgen.inference.run_data import RunData
from jointgen.registry.files import trusting
from jointgen.reports.gallery import picture_files
from jointgen.reports.model_card import model_card
from jointgen.runs import checkpoint as checkpoints
from jointgen.runs.folder import RunFolder
from jointgen.runs.hub import PREFIX, first_line
from jointgen.runtime.atomic_files import replace_text, writing

CARD = "README.md"


def save_pretrained(
    run: str | Path, folder: str | Path, *, checkpoint: str = "latest", name: str | None = None, trust: bool = False
) -> Path:
    """Write what others need of a run into a new folder, which `jointgen.load` and every command take as a run.

    It has the recipe, the weights of one checkpoint (averaged, where the run averages them) without the optimizers'
    state, what the run remembers of its data without this machine's paths, its figures, pictures and plugin files, and
    a model card, README.md.

    Args:
        run: The run folder.
        folder: The new folder; an empty one will do.
        checkpoint: "latest", "best", or the name of a checkpoint's folder.
        name: What the card says to load; None: the folder.
        trust: Whether to execute the code that the run has of its own; see `jointgen.load`.

    Returns:
        The new folder.

    Raises:
        ConfigError: There is no such run or checkpoint, or something is in the folder.
    """
    source, target = RunFolder.open(run), Path(folder)
    if (target.is_dir() and any(target.iterdir())) or (os.path.lexists(target) and not target.is_dir()):
        raise ConfigError(f"{target}: is there already; expected a new folder", "folder")
    if not target.parent.is_dir():
        raise ConfigError(f"{target}: there is no folder {str(target.parent)!r}", "folder")
    with trusting(trust):
        model, _ = open_model(source.path, checkpoint)
    place = target.resolve()  # "." has no name
    aside = place.with_name(f".tmp-{place.name}")
    with writing(target, lambda message: ConfigError(message, "folder")):
        try:
            aside.mkdir()
            _write(source, model, checkpoint, aside, name or str(target))
            if place.is_dir():
                place.rmdir()
            aside.rename(place)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return target


def _write(source: RunFolder, model: Model, checkpoint: str, folder: Path, name: str) -> None:
    """Write the files of a shared run."""
    shared = RunFolder(folder)
    if source.metrics.is_file():
        shutil.copyfile(source.metrics, shared.metrics)
    for file in (source.summary, source.evaluation):
        if file.is_file():
            replace_text(
                folder / file.name, json.dumps(_public(json.loads(file.read_text(encoding="utf-8"))), indent=2)
            )
    replace_text(shared.recipe, _public_recipe(source.recipe.read_text(encoding="utf-8")))
    RunData.read(source).public().write(shared)
    for session in source.read_sessions().sessions[-1:]:
        shared.add_session(attrs.evolve(session, argv=[], folder="", repository=None))
    if source.plugins.is_dir():
        shutil.copytree(source.plugins, shared.plugins, ignore=shutil.ignore_patterns("__pycache__"))
    saved = checkpoints.find(source.checkpoints, checkpoint)
    weights = {part: saved.parts.get(f"ema.{part}", saved.parts.get(part, {})) for part in model.parts.modules}
    best = saved.path.name if checkpoint == "best" else None
    checkpoints.save(shared.checkpoints, saved.step, weights, {}, recipe=_public_recipe(saved.recipe), best=best)
    shared.samples.mkdir()
    pictures = [file for file in picture_files(model.view, saved.path.name) if (source.samples / file).is_file()]
    for picture in pictures:
        shutil.copyfile(source.samples / picture, shared.samples / picture)
    text = model_card(source, model, name, [f"samples/{file}" for file in pictures])
    replace_text(folder / CARD, text)


def _public_recipe(text: str) -> str:
    return to_toml(_public(parse_toml(text)))


def _public(value: Any) -> Any:
    """Return tables and lists with the last part of every absolute path in its place."""
    if isinstance(value, Mapping):
        return {key: _public(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_public(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(os.path.expanduser(value)) else value


def push(
    run: str | Path,
    repository: str,
    *,
    checkpoint: str = "latest",
    private: bool = False,
    trust: bool = False,
) -> str:
    """Upload a run to the Hugging Face hub, from where `jointgen.load("hf:USER/NAME")` loads it.

    The account is the one that `hf auth login` has stored, or that of HF_TOKEN.

    Args:
        run: The run folder.
        repository: USER/NAME; it is made where it is not there.
        checkpoint: See `save_pretrained`.
        private: Whether a new repository is private.
        trust: See `save_pretrained`.

    Returns:
        The address of the repository.

    Raises:
        ConfigError: There is no such run, or the hub refuses.
    """
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ConfigError(f"{repository!r}: expected USER/NAME", "repository")
    hub: Any = importlib.import_module("huggingface_hub")
    with tempfile.TemporaryDirectory() as folder:
        shared = save_pretrained(
            run, Path(folder) / "run", checkpoint=checkpoint, name=PREFIX + repository, trust=trust
        )
        try:
            api = hub.HfApi(library_name="jointgen")
            url = api.create_repo(repository, private=private or None, exist_ok=True)
            api.upload_folder(
                repo_id=repository,
                folder_path=shared,
                commit_message=f"Upload {Path(run).name}",
                delete_patterns=["checkpoints/*", "plugins/*", "samples/*"],
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"{PREFIX}{repository}: cannot be pushed: {first_line(error)}") from error
    return str(url)
