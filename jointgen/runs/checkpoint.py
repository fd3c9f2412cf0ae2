"""Crash-safe checkpoints without pickle: safetensors and JSON, written aside, hashed, flushed, then renamed.

    checkpoints/step-00001000/
        <part>.safetensors              tensors by name; the resolved recipe is in the metadata
        <state>.safetensors, .json      a tree of plain values, and the tensors that it refers to
        manifest.json                   written last: format, step, versions, size and SHA-256 of every file
    checkpoints/latest                  the name of the newest one, for people and scripts
    checkpoints/best                    the name of the best one, if the run keeps it

The invariant: a folder is a checkpoint exactly when its manifest verifies, and a kill at any moment leaves the previous
one whole. A new one appears by a rename, and an old one is renamed before anything in it is deleted. This module does
not trust `latest`, which may be one behind.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import safetensors.torch
from torch import Tensor

from jointgen.errors import CheckpointError, ConfigError, suggest
from jointgen.runs.manifest import FORMAT, MANIFEST, describe, problems, read_manifest, seal, sealed
from jointgen.runs.records import checkpoint_name
from jointgen.runs.tensor_tree import Chunks, join, plain_tensor, serialize, split
from jointgen.runtime.atomic_files import replace_text, sync_folder, why_not_written, write_flushed

_NAME = re.compile(r"\w[\w.-]*")
_FOLDER = re.compile(r"(?P<aside>\.old-\d+-)?step-(?P<step>\d+)")


@attrs.frozen
class Checkpoint:
    """A checkpoint that was read, with every tensor on the CPU.

    Args:
        path: Its folder.
        step: The steps that the run had made.
        parts: Tensors by name, by network.
        state: The states of everything else, by name.
        recipe: The text of the resolved recipe.
        versions: The versions of the software that wrote it.
        sha256: The hash of the manifest, which covers every file.
        passed_over: The newer checkpoints that are damaged, a line each, if the newest one was asked for.
    """

    path: Path
    step: int
    parts: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    recipe: str
    versions: dict[str, str]
    sha256: str
    passed_over: tuple[str, ...] = ()


# --- writing ----------------------------------------------------------------------------------------------------------


def save(
    root: Path,
    step: int,
    parts: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    recipe: str,
    keep: int = 3,
    best: str | None = None,
) -> Path:
    """Write `root`/step-XXXXXXXX and return its path. Only the main process calls it.

    Checkpoints of later steps are removed with the old ones: they belong to a future that this run did not take.

    Args:
        root: The folder of all checkpoints.
        step: The steps that the run has made.
        parts: Tensors by name, by network (averaged ones too).
        state: Nested dicts, lists, tuples, plain values and tensors, by name (optimizers, progress).
        recipe: The text of the resolved recipe.
        keep: How many of the newest checkpoints stay, this one included.
        best: The name of a checkpoint that stays besides, and that `root`/best names: this one, or an earlier one.

    Raises:
        CheckpointError: It cannot be written; the checkpoints that were there are as they were.
        TypeError: The state has something else in it; the message names the path to it.
    """
    assert keep >= 1, "a run without its newest checkpoint cannot resume"
    names = [*parts, *state]
    assert len(set(names)) == len(names), f"a part and a state share a name: {sorted(names)}"
    fits = [_NAME.fullmatch(name) and name != "manifest" for name in names]
    assert all(fits), f"not all of these can be file names: {names}"
    root = Path(root)
    final = root / checkpoint_name(step)
    try:
        root.mkdir(parents=True, exist_ok=True)
        for unfinished in root.glob(".tmp-*"):  # a killed run was writing these
            shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()
        aside = _write_aside(root, final.name, _encode(parts, state, recipe), describe(step, parts, state, recipe))
        if final.exists():  # the same step again, after a resume: the old one is still found under its new name
            _set_aside(final)
        os.rename(aside, final)
        sync_folder(root)
        replace_text(root / "latest", f"{final.name}\n")
        # before anything is removed, so that `best` always names a checkpoint that is there
        if best is None:
            (root / "best").unlink(missing_ok=True)
        else:
            replace_text(root / "best", f"{best}\n")
    except OSError as error:
        reason = f"checkpoint {final} could not be written: {why_not_written(error)}"
        raise CheckpointError(f"{reason}\n{_offer(final)}") from error
    _remove_old(root, final, keep, best)
    return final


def _encode(
    parts: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], recipe: str
) -> Iterator[tuple[str, Chunks]]:
    """Yield (file name, contents) of everything but the manifest, one at a time to hold only one in memory."""
    metadata = {"format": "pt", "jointgen_format": str(FORMAT), "recipe": recipe}
    for name, part in parts.items():
        plain = {key: plain_tensor(tensor, f"{name}/{key}") for key, tensor in part.items()}
        yield f"{name}.safetensors", serialize(plain, metadata)
    for name, value in state.items():
        tensors: dict[str, Tensor] = {}
        yield f"{name}.json", (json.dumps(split(value, tensors, name)).encode(),)
        yield f"{name}.safetensors", serialize(tensors, metadata)


def _write_aside(root: Path, name: str, files: Iterable[tuple[str, Chunks]], body: dict[str, Any]) -> Path:
    """Write a whole checkpoint under a name that no checkpoint has. Leave nothing behind if that fails."""
    aside = root / f".tmp-{name}"
    aside.mkdir()
    try:
        body["files"] = {}
        for file, chunks in files:
            write_flushed(aside / file, *chunks)
            body["files"][file] = seal(*chunks)
        write_flushed(aside / MANIFEST, sealed(body))
        sync_folder(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return aside


def _set_aside(path: Path) -> Path:
    """Rename a checkpoint that is to be removed, so that a kill meanwhile leaves no half of it under its name."""
    free = (path.with_name(f".old-{n}-{path.name}") for n in itertools.count())
    aside = next(candidate for candidate in free if not candidate.exists())
    os.rename(path, aside)
    return aside


def _remove_old(root: Path, final: Path, keep: int, best: str | None) -> None:
    found = _newest_first(root)
    past = [path for path in found if _step(path) < _step(final) and not _is_aside(path)]
    for path in found:
        if path == final or path in past[: keep - 1] or (path in past and path.name == best):
            continue
        with contextlib.suppress(OSError):  # a file still open on a network disk, say; the next save tries again
            shutil.rmtree(path if _is_aside(path) else _set_aside(path))


# --- reading ----------------------------------------------------------------------------------------------------------


def load(path: Path) -> Checkpoint:
    """Verify a checkpoint and read it.

    Raises:
        CheckpointError: It is damaged; the message names every damaged file and the checkpoint to use instead.
    """
    path = Path(path)
    if bad := problems(path):
        lines = "\n".join(f"  {line}" for line in bad)
        raise CheckpointError(f"checkpoint {path} is damaged:\n{lines}\n{_offer(path)}")
    return _read(path)


def find(root: Path, which: str = "latest") -> Checkpoint:
    """Read a checkpoint of a run.

    Args:
        root: The folder of all checkpoints.
        which: "latest" for the newest whole one, "best" for the one that the run found best, or the name of one.

    Raises:
        ConfigError: There is none of this name.
        CheckpointError: It is damaged; with "latest", all are.
    """
    root = Path(root)
    if which == "latest":
        return _newest_whole(root)
    name = _named_best(root) if which == "best" else which
    there = [path.name for path in _newest_first(root) if not _is_aside(path)]
    if name not in there:
        raise ConfigError(f"{name!r} is not in {root}{suggest(name, [*there, 'latest', 'best'])}", "checkpoint")
    return load(root / name)


def _newest_whole(root: Path) -> Checkpoint:
    damaged: list[str] = []
    for path in _newest_first(root):
        bad = problems(path)
        if not bad:
            return attrs.evolve(_read(path), passed_over=tuple(damaged))
        if not _is_aside(path):
            damaged.append(f"{path.name} is damaged ({'; '.join(bad)})")
    raise CheckpointError(f"{root}: no whole checkpoint{': ' if damaged else ''}{'; '.join(damaged)}")


def _named_best(root: Path) -> str:
    try:
        return (root / "best").read_text().strip()
    except FileNotFoundError:
        raise ConfigError(
            f"{root} has no 'best' one: its recipe has no train.keep_best, or nothing was evaluated yet", "checkpoint"
        ) from None


def latest(root: Path) -> Path | None:
    """Return the newest whole checkpoint in a folder, or None.

    One set aside for removal counts while it is whole: after a crash between two renames it can be the only one.
    """
    return next((path for path in _newest_first(Path(root)) if not problems(path)), None)


def _read(path: Path) -> Checkpoint:
    def tensors_of(name: str) -> dict[str, Tensor]:
        # from bytes, not from a mapped file: the folder may be removed while the tensors live on
        return safetensors.torch.load((path / f"{name}.safetensors").read_bytes())

    try:
        manifest = read_manifest(path)
        state = {}
        for name in manifest["state"]:
            state[name] = join(json.loads((path / f"{name}.json").read_bytes()), tensors_of(name))
        parts = {}
        for name, order in manifest["parts"].items():
            tensors = tensors_of(name)
            parts[name] = {key: tensors[key] for key in order}
    except OSError as error:  # its run has removed it since it was verified
        raise CheckpointError(f"checkpoint {path} went away while it was read: {error}\n{_offer(path)}") from error
    about = {key: manifest[key] for key in ("recipe", "versions", "sha256")}
    return Checkpoint(path, manifest["step"], parts, state, **about)


def _offer(path: Path) -> str:
    whole = latest(path.parent)
    return f"the newest whole one is {whole}" if whole else f"there is no whole one in {path.parent}"


# --- folders ----------------------------------------------------------------------------------------------------------


def _newest_first(root: Path) -> list[Path]:
    """List checkpoint folders, whole or not, by step; one set aside comes after the one that replaced it."""
    found = [path for path in root.iterdir() if _FOLDER.fullmatch(path.name)] if root.is_dir() else []
    return sorted(found, key=lambda path: (_step(path), not _is_aside(path), path.name), reverse=True)


def _step(path: Path) -> int:
    match = _FOLDER.fullmatch(path.name)
    assert match is not None, path
    return int(match["step"])


def _is_aside(path: Path) -> bool:
    return path.name.startswith(".old-")
