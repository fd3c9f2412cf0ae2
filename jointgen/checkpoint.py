"""Crash-safe checkpoints without pickle: safetensors and JSON, written aside, hashed, flushed, then renamed.

    checkpoints/step-00001000/
        <part>.safetensors              tensors by name; the resolved recipe is in the metadata
        <state>.safetensors, .json      a tree of plain values, and the tensors it refers to
        manifest.json                   written last: format, step, versions, size and SHA-256 of every file
    checkpoints/latest                  the name of the newest one, for people and scripts

A folder is a checkpoint exactly when its manifest verifies, so a kill at any moment leaves the previous one whole:
a new one appears by a rename, and an old one goes by a rename before anything in it is deleted. `latest` is not
trusted here; it may be one behind.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import safetensors
import safetensors.torch
import torch
from torch import Tensor

import jointgen
from jointgen.errors import CheckpointError
from jointgen.files import replace_text, sync_folder, write_flushed

Chunks = tuple[bytes | memoryview, ...]  # of a file, in order: weights are not copied to join them

FORMAT = 1
_MANIFEST = "manifest.json"
_NAME = re.compile(r"\w[\w.-]*")
_FOLDER = re.compile(r"(?P<aside>\.old-\d+-)?step-(?P<step>\d+)")
# what a safetensors file can hold; the rest (complex128, quantised types) is refused before anything is written
_FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2}
_INTEGERS = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8}
_DTYPES = {*_FLOATS, *_INTEGERS, torch.bool, torch.complex64}


@attrs.frozen
class Checkpoint:
    """What `save` was given, with every tensor on the CPU, and where it was read from."""

    path: Path
    step: int
    parts: dict[str, dict[str, Tensor]]
    state: dict[str, Any]
    recipe: str
    versions: dict[str, str]


# --- writing ----------------------------------------------------------------------------------------------------------


def save(
    root: Path,
    step: int,
    parts: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    recipe: str,
    keep: int = 3,
    protect: Iterable[str] = (),
) -> Path:
    """Writes `root`/step-XXXXXXXX and returns it. Call it on the main process only.

    - `parts`: tensors by name for each network, the EMA and so on;
    - `state`: nested dicts, lists, tuples, plain values and tensors (optimizers, progress); TypeError, naming the
      path, for anything else;
    - `keep`: how many of the newest stay, this one included; `protect` names folders that stay besides.

    A checkpoint with a later step is of a future that this run did not take, and goes with the old ones.
    Raises CheckpointError when it cannot be written; the checkpoints that were there are then as they were.
    """
    assert keep >= 1, "a run without its newest checkpoint cannot resume"
    names = [*parts, *state]
    assert len(set(names)) == len(names), f"a part and a state share a name: {sorted(names)}"
    fits = [_NAME.fullmatch(name) and name != "manifest" for name in names]
    assert all(fits), f"not all of these can be file names: {names}"
    root = Path(root)
    final = root / f"step-{step:08d}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        _clear_unfinished(root)
        aside = _write_aside(root, final.name, _encode(parts, state, recipe), _body(step, parts, state, recipe))
        _put_in_place(aside, final)
        replace_text(root / "latest", f"{final.name}\n")
    except OSError as error:
        raise CheckpointError(_why_not_written(final, error)) from error
    _discard_old(root, final, keep, set(protect))
    return final


def _encode(
    parts: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], recipe: str
) -> Iterator[tuple[str, Chunks]]:
    """(file name, contents) of everything but the manifest, one at a time to hold only one in memory."""
    metadata = {"format": "pt", "jointgen_format": str(FORMAT), "recipe": recipe}
    for name, part in parts.items():
        plain = {key: _plain(tensor, f"{name}/{key}") for key, tensor in part.items()}
        yield f"{name}.safetensors", _serialize(plain, metadata)
    for name, value in state.items():
        tensors: dict[str, Tensor] = {}
        yield f"{name}.json", (json.dumps(_split(value, tensors, name)).encode(),)
        yield f"{name}.safetensors", _serialize(tensors, metadata)


def _serialize(tensors: dict[str, Tensor], metadata: dict[str, str]) -> Chunks:
    """A safetensors file whose header is in order, so that equal runs have equal files; the library's is shuffled."""
    data = safetensors.torch.save(tensors, metadata)
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:start]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8, as the library has them
    return len(header).to_bytes(8, "little") + header, memoryview(data)[start:]


def _body(step: int, parts: Mapping[str, Mapping[str, Tensor]], state: Iterable[str], recipe: str) -> dict[str, Any]:
    """The manifest but for its files."""
    versions = {
        "jointgen": jointgen.__version__,
        "python": platform.python_version(),
        "safetensors": safetensors.__version__,
        "torch": str(torch.__version__),
    }
    return {
        "format": FORMAT,
        "step": step,
        "versions": versions,
        "recipe": recipe,
        "parts": {name: list(part) for name, part in parts.items()},  # a file does not keep the order of its tensors
        "state": list(state),
    }


def _write_aside(root: Path, name: str, files: Iterable[tuple[str, Chunks]], body: dict[str, Any]) -> Path:
    """A whole checkpoint under a name that is not yet one. Leaves nothing behind when it fails."""
    aside = root / f".tmp-{name}"
    aside.mkdir()
    try:
        body["files"] = {}
        for file, chunks in files:
            write_flushed(aside / file, *chunks)
            body["files"][file] = {"size": sum(map(len, chunks)), "sha256": _sha256(*chunks)}
        manifest = {"sha256": _sha256(_canonical(body)), **body}
        write_flushed(aside / _MANIFEST, json.dumps(manifest, indent=1).encode())
        sync_folder(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return aside


def _put_in_place(aside: Path, final: Path) -> None:
    if final.exists():  # the same step again, after a resume: `latest` still finds the old one under its new name
        _set_aside(final)
    os.rename(aside, final)
    sync_folder(final.parent)


def _set_aside(path: Path) -> Path:
    """Renames a checkpoint that is to go, so that a kill while it is deleted leaves no half of it under its name."""
    free = (path.with_name(f".old-{n}-{path.name}") for n in itertools.count())
    aside = next(candidate for candidate in free if not candidate.exists())
    os.rename(path, aside)
    return aside


def _clear_unfinished(root: Path) -> None:
    for unfinished in root.glob(".tmp-*"):  # a killed run was writing these
        shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()


def _discard_old(root: Path, final: Path, keep: int, protect: set[str]) -> None:
    found = [path for path in _newest_first(root) if path.name not in protect]
    past = [path for path in found if _step(path) < _step(final) and not _is_aside(path)]
    for path in found:
        if path == final or path in past[: keep - 1]:
            continue
        with contextlib.suppress(OSError):  # a file still open on a network disk, say; the next save tries again
            shutil.rmtree(path if _is_aside(path) else _set_aside(path))


def _why_not_written(path: Path, error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return f"checkpoint {path} could not be written: {'the disk is full' if full else error}\n{_offer(path)}"


# --- reading ----------------------------------------------------------------------------------------------------------


def load(path: Path) -> Checkpoint:
    """Verifies, then reads. Raises CheckpointError naming every damaged file and the checkpoint to use instead."""
    path = Path(path)
    if bad := problems(path):
        lines = "\n".join(f"  {line}" for line in bad)
        raise CheckpointError(f"checkpoint {path} is damaged:\n{lines}\n{_offer(path)}")
    try:
        return _read(path)
    except OSError as error:  # discarded by its run since it was verified
        raise CheckpointError(f"checkpoint {path} went away while it was read: {error}\n{_offer(path)}") from error


def latest(root: Path) -> Path | None:
    """The newest whole checkpoint in a folder, or None.

    Goes by the folders themselves. One set aside for deletion counts while it is whole: after a crash between two
    renames it can be the only one.
    """
    return next((path for path in _newest_first(Path(root)) if not problems(path)), None)


def newest(root: Path) -> Path:
    """The newest whole checkpoint. Raises CheckpointError that names what is wrong with each one there."""
    found = latest(root)
    if found is None:
        wrong = [f"{path.name}: {problem}" for path in _newest_first(Path(root)) for problem in problems(path)]
        raise CheckpointError(f"{root}: no whole checkpoint{': ' if wrong else ''}{'; '.join(wrong)}")
    return found


def problems(path: Path) -> list[str]:
    """Why this folder is not a whole checkpoint, one line per file; empty when it is."""
    try:
        manifest = _manifest(Path(path))
    except (OSError, ValueError) as error:
        return [f"{_MANIFEST}: {getattr(error, 'strerror', None) or error}"]
    found = (_damage(Path(path) / name, want) for name, want in manifest["files"].items())
    return [line for line in found if line]


def _manifest(path: Path) -> dict[str, Any]:
    manifest = json.loads((path / _MANIFEST).read_bytes())
    if not isinstance(manifest, dict):
        raise ValueError("not a manifest")
    digest = manifest.pop("sha256", None)
    if manifest.get("format") != FORMAT:
        raise ValueError(f"format {manifest.get('format')}, and this version of jointgen reads {FORMAT}")
    if digest != _sha256(_canonical(manifest)):
        raise ValueError("contents differ from what was written")
    return manifest


def _damage(path: Path, want: Mapping[str, Any]) -> str | None:
    try:
        size = path.stat().st_size
        if size != want["size"]:
            return f"{path.name}: {size} bytes, {want['size']} expected"
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"{path.name}: {error.strerror}"
    return None if digest == want["sha256"] else f"{path.name}: contents differ from what was written"


def _read(path: Path) -> Checkpoint:
    manifest = _manifest(path)
    state = {}
    for name in manifest["state"]:
        state[name] = _join(json.loads((path / f"{name}.json").read_bytes()), _tensors(path, name))
    parts = {}
    for name, order in manifest["parts"].items():
        tensors = _tensors(path, name)
        parts[name] = {key: tensors[key] for key in order}
    return Checkpoint(path, manifest["step"], parts, state, manifest["recipe"], manifest["versions"])


def _tensors(path: Path, name: str) -> dict[str, Tensor]:
    # from bytes, not from a mapped file: the folder may be discarded while the tensors live on
    return safetensors.torch.load((path / f"{name}.safetensors").read_bytes())


def _offer(path: Path) -> str:
    whole = latest(path.parent)
    return f"the newest whole one is {whole}" if whole else f"there is no whole one in {path.parent}"


# --- folders ----------------------------------------------------------------------------------------------------------


def _newest_first(root: Path) -> list[Path]:
    """Checkpoint folders, whole or not, by step; one set aside comes after the one that replaced it."""
    found = [path for path in root.iterdir() if _FOLDER.fullmatch(path.name)] if root.is_dir() else []
    return sorted(found, key=lambda path: (_step(path), not _is_aside(path), path.name), reverse=True)


def _step(path: Path) -> int:
    match = _FOLDER.fullmatch(path.name)
    assert match is not None, path
    return int(match["step"])


def _is_aside(path: Path) -> bool:
    return path.name.startswith(".old-")


# --- trees of plain values and tensors <-> JSON and one flat dict of tensors ------------------------------------------


def _split(value: Any, tensors: dict[str, Tensor], at: str) -> Any:
    """JSON in which a reference stands for every tensor; the tensors are collected in `tensors`.

    Dicts become lists of pairs, because JSON would turn the integer keys of an optimizer's state into text.
    """
    if isinstance(value, Tensor):
        name = f"{len(tensors):05d} {at}"  # the number keeps {1: ...} and {"1": ...} apart
        tensors[name] = _plain(value, at)
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[_scalar(k, f"{at}: key {k!r}"), _split(v, tensors, f"{at}/{k}")] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        items = [_split(item, tensors, f"{at}/{i}") for i, item in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    return _scalar(value, at)


def _join(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The inverse of `_split`."""
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {key: _join(item, tensors) for key, item in inner}
    items = [_join(item, tensors) for item in inner]
    return items if kind == "list" else tuple(items)


def _scalar(value: Any, at: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{at}: a checkpoint holds tensors and plain values, not {type(value).__qualname__}")


def _plain(tensor: Tensor, at: str) -> Tensor:
    """A copy that owns its memory, on the CPU: tied weights share theirs, which safetensors refuses."""
    if tensor.layout != torch.strided or tensor.dtype not in _DTYPES:
        raise TypeError(f"{at}: a checkpoint cannot hold a {tensor.layout} tensor of {tensor.dtype}")
    return tensor.detach().to("cpu", copy=True).resolve_conj().resolve_neg().contiguous()


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def _sha256(*chunks: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
