"""Changes to the files of a run that no run makes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jointgen.runtime.hashing import sealed, sha256_of


def reseal(checkpoint: Path, edit: Callable[[dict[str, Any]], object] = lambda manifest: None) -> None:
    """Edit a checkpoint's manifest, and give it and the files of the folder the hashes of what they are now."""
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    for name in manifest["files"]:
        data = (checkpoint / name).read_bytes()
        manifest["files"][name] = {"size": len(data), "sha256": sha256_of(data)}
    edit(manifest)
    manifest.pop("sha256", None)
    digest = sha256_of(json.dumps(manifest, sort_keys=True).encode())
    (checkpoint / "manifest.json").write_text(json.dumps({"sha256": digest, **manifest}, indent=1))


def edit_data(record: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit a run's data.json, and give it the hash of what it is now."""
    held = json.loads(record.read_text())
    edit(held)
    record.write_text(sealed(json.dumps({**held, "sha256": ""})))


def replace_by_fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def replace_by_endless(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def replace_by_loop(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def replace_by_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def replace_by_huge(path: Path) -> None:
    """A file with a size of 8 GiB and no contents."""
    path.unlink(missing_ok=True)
    with open(path, "wb") as file:
        file.truncate(8 << 30)


SPECIAL = [replace_by_fifo, replace_by_endless, replace_by_loop, replace_by_folder, replace_by_huge]
"""Each puts something in a file's place that must not be read: it would never end, or fill the memory."""
