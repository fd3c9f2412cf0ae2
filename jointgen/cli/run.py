"""`jointgen run`: says at once what it does, and then imports what trains (`jointgen.cli.training`). Torch-free."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jointgen.cli.arguments import Arguments, load
from jointgen.config.values import show
from jointgen.runtime.console import log_once
from jointgen.runtime.ranks import LAUNCHED

DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd", "/dev/dri")
"""One of these files is there on a Linux machine whose GPU torch could use."""


def announced_device(tables: Mapping[str, Any]) -> str:
    """Say where a recipe will train before torch is imported; "auto" where only torch can tell.

    Args:
        tables: The recipe, whose values are not checked yet.
    """
    train = tables.get("train")
    asked = str(train.get("device", "auto")) if isinstance(train, Mapping) else "auto"
    may_have_gpu = not sys.platform.startswith("linux") or any(map(os.path.exists, DRIVERS))
    return "cpu" if asked == "auto" and not may_have_gpu else asked


def run_command(arguments: Arguments) -> None:
    """Train a recipe, or check it and print it resolved (--dry-run)."""
    # the processes that this command started come here too, and it has said so before
    if not (arguments.dry_run or LAUNCHED in os.environ):
        log_once(announcement(arguments.tables, arguments.out))
    load("jointgen.cli.training:train_command")(arguments)


def announcement(tables: Mapping[str, Any], out: str | None) -> str:
    """Say what a recipe will do, before the seconds that imports and data take. Its values are not checked yet.

    Args:
        tables: The recipe.
        out: The run folder, where it was given.
    """
    train = tables.get("train")
    train = train if isinstance(train, Mapping) else {}
    budget = next((f"{show(train[key])} {key}" for key in ("steps", "images") if train.get(key) is not None), "")
    how = [text for text in (budget, f"device {announced_device(tables)}") if text]
    place = out or Path("runs") / str(tables["name"])
    return f"checking {tables['name']}, to train it into {place} ({', '.join(how)})"
