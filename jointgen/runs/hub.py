"""Runs on the Hugging Face hub: "hf:user/name" in the place of a run folder. No other name uses the network."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from typing import Any

from jointgen.errors import ConfigError
from jointgen.runtime.atomic_files import writing
from jointgen.runtime.cache_folder import cache_folder

PREFIX = "hf:"
RUN_FILES = ["*.toml", "*.json", "*.jsonl", "README.md", "plugins/*.py", "checkpoints/**", "samples/*.png"]
"""What is fetched of a repository: nothing that a run has not."""


def local_run(run: str | Path) -> Path:
    """Return the folder of a run, which is fetched where its name begins with "hf:".

    The hub's own cache answers where there is no network (or HF_HUB_OFFLINE is set), and a revision, such as a branch
    or a commit, may follow the name: "hf:user/name@main".

    Raises:
        ConfigError: There is no such repository, or it cannot be fetched.
    """
    name = str(run)
    if not name.startswith(PREFIX):
        return Path(run)
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    if repository.count("/") != 1:
        raise ConfigError(f"{name}: expected hf:USER/NAME, or hf:USER/NAME@REVISION")
    hub: Any = importlib.import_module("huggingface_hub")
    try:
        found = hub.snapshot_download(
            repository, revision=revision or None, allow_patterns=RUN_FILES, library_name="jointgen"
        )
    except (OSError, ValueError, hub.errors.EntryNotFoundError) as error:
        raise ConfigError(f"{name}: cannot be fetched: {first_line(error)}") from error
    return _copied(Path(found), repository)


def _copied(snapshot: Path, repository: str) -> Path:
    """Copy a snapshot, whose files are links, to where it can be read and added to as any run."""
    kept = cache_folder() / "hub" / repository.replace("/", "--") / snapshot.name
    if not kept.is_dir():
        aside = kept.with_name(f".tmp-{kept.name}-{os.getpid()}")
        with writing(kept):
            shutil.copytree(snapshot, aside)
            aside.rename(kept)
    return kept


def first_line(error: BaseException) -> str:
    """The first line of what a library says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
