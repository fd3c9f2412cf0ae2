"""Trains recipes one after the other in N processes, forks of one that has imported torch. For test_processes.py.

python -m support.forked_runs N RECIPES.json FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # torch's optimizers import it: once here, and not in every fork

import jointgen
from jointgen.registry.discovery import load_plugins
from support.ranks import launched


class Meddler:
    """A callback that changes what it can. It is told of everything in the main process alone."""

    def jointgen_log(self, run: Any, figures: Any) -> None:
        torch.manual_seed(run.step)
        for parameter in run.model().parameters():
            parameter.data.zero_()


def main(processes: str, recipes: str, folder: str) -> int:
    os.fsync = lambda descriptor: None  # type: ignore[assignment]  # nothing here need outlive the machine
    torch.set_num_threads(1)
    load_plugins()
    run, named = jointgen.run, json.loads(Path(recipes).read_text())  # `run` is imported when it is asked for

    def train(rank: int) -> None:
        for name, tables in named.items():
            run(tables, out=f"{folder}/{name}", quiet=True, callbacks=[Meddler()])

    return max(map(abs, launched(int(processes), train)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
