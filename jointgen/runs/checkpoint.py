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
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import safetensors.torch
from torch import Tensor

from jointgen.errors import CheckpointError, ConfigError, FileError, MissingFileError, suggest
from jointgen.runs.manifest import FORMAT, MANIFEST, NAME, CheckpointManifest, Seal, describe, problems, read_manifest
from jointgen.runs.records import CHECKPOINT_NAME, checkpoint_name, step_of
from jointgen.runs.tensor_tree import Chunks, parse, plain_tensor, serialize, split
from jointgen.runtime.atomic_files import replace_text, sync_folder, why_not_written, write_flushed
from jointgen.runtime.regular_files import read_regular, read_regular_text, unreadable
from jointgen.text import listed, shortened

MAX_NAME = 4096
"""So many bytes, at the most, has the file that names the best checkpoint."""


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
    fits = [NAME.fullmatch(name) and name != "manifest" for name in names]
    assert all(fits), f"not all of these can be file names: {names}"
    root = Path(root)
    final = root / checkpoint_name(step)
    try:
        root.mkdir(parents=True, exist_ok=True)
        for unfinished in root.glob(".tmp-*"):  # a killed run was writing these
            _remove(unfinished)
        aside = _write_aside(
            root, final.name, _encode(parts, state, recipe), partial(describe, step, parts, state, recipe)
        )
        if os.path.lexists(final):  # the same step again, after a resume: the old one is still found under its new name
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


def _write_aside(
    root: Path,
    name: str,
    files: Iterable[tuple[str, Chunks]],
    describing: Callable[[dict[str, Seal]], CheckpointManifest],
) -> Path:
    """Write a whole checkpoint under a name that no checkpoint has. Leave nothing behind if that fails."""
    aside = root / f".tmp-{name}"
    aside.mkdir()
    try:
        seals = {}
        for file, chunks in files:
            write_flushed(aside / file, *chunks)
            seals[file] = Seal.of(*chunks)
        write_flushed(aside / MANIFEST, describing(seals).to_bytes())
        sync_folder(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return aside


def _set_aside(path: Path) -> Path:
    """Rename a checkpoint that is to be removed, so that a kill meanwhile leaves no half of it under its name."""
    free = (path.with_name(f".old-{n}-{path.name}") for n in itertools.count())
    aside = next(candidate for candidate in free if not os.path.lexists(candidate))
    os.rename(path, aside)
    return aside


def _remove_old(root: Path, final: Path, keep: int, best: str | None) -> None:
    found = _newest_first(root)
    past = [path for path in found if _step(path) < _step(final) and not _is_aside(path)]
    for path in found:
        if path == final or path in past[: keep - 1] or (path in past and path.name == best):
            continue
        with contextlib.suppress(OSError):  # a file still open on a network disk, say; the next save tries again
            _remove(path if _is_aside(path) else _set_aside(path))


def _remove(path: Path) -> None:
    """Remove a folder or a file; of a link, the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


# --- reading ----------------------------------------------------------------------------------------------------------


def load(path: Path) -> Checkpoint:
    """Verify a checkpoint and read it.

    Raises:
        CheckpointError: It is damaged; the message names every damaged file and the checkpoint to use instead.
    """
    path = Path(path)
    try:
        return _read(path)
    except _DamagedError as error:
        lines = "\n".join(f"  {line}" for line in error.lines)
        raise CheckpointError(f"checkpoint {path} is damaged:\n{lines}\n{_offer(path)}") from None


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
        known = suggest(name, [*there, "latest", "best"])
        raise ConfigError(f"{shortened(repr(name))} is not in {root}{known}", "checkpoint")
    return load(root / name)


def _newest_whole(root: Path) -> Checkpoint:
    damaged: list[str] = []
    for path in _newest_first(root):
        try:
            return attrs.evolve(_read(path), passed_over=tuple(damaged))
        except _DamagedError as error:
            if not _is_aside(path):
                damaged.append(f"{path.name} is damaged ({listed(error.lines, '; ')})")
    raise CheckpointError(f"{root}: no whole checkpoint{': ' if damaged else ''}{'; '.join(damaged)}")


def _named_best(root: Path) -> str:
    try:
        return read_regular_text(root / "best", MAX_NAME).strip()
    except MissingFileError:
        raise ConfigError(
            f"{root} has no 'best' one: its recipe has no train.keep_best, or nothing was evaluated yet", "checkpoint"
        ) from None


def latest(root: Path) -> Path | None:
    """Return the newest whole checkpoint in a folder, or None.

    One set aside for removal counts while it is whole: after a crash between two renames it can be the only one.
    """
    return next((path for path in _newest_first(Path(root)) if not problems(path)), None)


def named_latest(root: Path) -> str | None:
    """Return the name in the file `latest`, whether that checkpoint is there or not; None without a name."""
    with contextlib.suppress(FileError):  # the file is for people: nothing depends on it
        name = read_regular_text(root / "latest", MAX_NAME).strip()
        return name if CHECKPOINT_NAME.fullmatch(name) and not name.startswith(".") else None
    return None


class _DamagedError(Exception):
    """A folder is no whole checkpoint, or holds what nobody has written. `lines` say why, one for each file."""

    def __init__(self, lines: list[str]):
        super().__init__(lines)
        self.lines = lines


def _read(path: Path) -> Checkpoint:
    if bad := problems(path):
        raise _DamagedError(bad)
    try:
        return _parse(path, read_manifest(path))
    except MissingFileError as error:  # its run has removed it since it was verified
        raise CheckpointError(f"checkpoint {path} went away while it was read: {error}\n{_offer(path)}") from error
    except FileError as error:
        raise _DamagedError([f"{Path(error.path).name}: {error.reason}"]) from None


def _parse(path: Path, manifest: CheckpointManifest) -> Checkpoint:
    """Read the files of a checkpoint. Raises FileError where their contents are not what a run writes."""
    state = {}
    for name in manifest.state:
        file = path / f"{name}.json"
        try:
            state[name] = parse(read_regular(file, manifest.files[file.name].size), _tensors(path, name, manifest))
        except ValueError as error:
            raise FileError(file, f"is no state ({error})") from None
    parts = {}
    for name, order in manifest.parts.items():
        tensors = _tensors(path, name, manifest)
        if other := {*order} ^ {*tensors}:
            raise FileError(path / f"{name}.safetensors", f"has other tensors than listed: {listed(sorted(other))}")
        parts[name] = {key: tensors[key] for key in order}
    return Checkpoint(path, manifest.step, parts, state, manifest.recipe, manifest.versions, manifest.sha256)


def _tensors(path: Path, name: str, manifest: CheckpointManifest) -> dict[str, Tensor]:
    """Read a file of tensors: from bytes, not mapped, as the folder may be removed while the tensors live on."""
    file = path / f"{name}.safetensors"
    try:
        return safetensors.torch.load(read_regular(file, manifest.files[file.name].size))
    except safetensors.SafetensorError as error:
        raise FileError(file, f"holds no tensors ({error})") from None


def _offer(path: Path) -> str:
    whole = next((other for other in _newest_first(path.parent) if other != path and not problems(other)), None)
    return f"the newest whole one is {whole}" if whole else f"there is no whole one in {path.parent}"


# --- folders ----------------------------------------------------------------------------------------------------------


def _newest_first(root: Path) -> list[Path]:
    """List checkpoint folders, whole or not, by step; one set aside comes after the one that replaced it."""
    try:
        found = [path for path in root.iterdir() if CHECKPOINT_NAME.fullmatch(path.name)] if root.is_dir() else []
    except OSError as error:
        raise unreadable(root, error) from None
    return sorted(found, key=lambda path: (_step(path), not _is_aside(path), path.name), reverse=True)


def _step(path: Path) -> int:
    return step_of(path.name)


def _is_aside(path: Path) -> bool:
    return path.name.startswith(".old-")
