"""What a run folder holds (docs/architecture.md), to read: torch-free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

from jointgen.errors import ConfigError, nearest


class RunFiles:
    """The names of one run's files, and what they say. Making the object touches nothing; `open` is the way in."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.recipe = self.path / "recipe.toml"
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.evaluation = self.path / "evaluation.json"
        self.report = self.path / "report.html"
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.tensorboard = self.path / "tensorboard"

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """A run that is there, to read. ConfigError where there is none."""
        folder = cls(path)
        if not folder.recipe.is_file():
            raise ConfigError(f"{path}: not a run folder (it has no {folder.recipe.name})")
        return folder

    def read_recipe(self) -> str:
        return self.recipe.read_text(encoding="utf-8")

    def read_summary(self) -> dict[str, Any]:
        """The summary, or an empty dict where the run has not written one."""
        return _table_in(self.summary)

    def read_evaluation(self) -> dict[str, Any]:
        """{checkpoint: {"metrics": {name: figure}}}; empty where nothing was evaluated after the run, and without what
        is no figure."""
        found = {}
        for checkpoint, entry in _table_in(self.evaluation).items():
            metrics = entry.get("metrics") if isinstance(entry, dict) else None
            figures = metrics.items() if isinstance(metrics, dict) else ()
            found[checkpoint] = {"metrics": {n: f for n, f in figures if isinstance(f, dict) and "value" in f}}
        return found


def _table_in(path: Path) -> dict[str, Any]:
    """Of a JSON file; empty where there is none, or it is damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def name_of(step: int) -> str:
    """Of a step's checkpoint."""
    return f"step-{step:08d}"


def open_or_nearest(path: str) -> RunFiles:
    """`RunFiles.open`, whose ConfigError names the nearest run that there is."""
    try:
        return RunFiles.open(path)
    except ConfigError as error:
        raise ConfigError(f"{error}{_nearest_run(path)}") from None


def _nearest_run(run: str) -> str:
    around = [file.parent for folder in (Path(run).parent, Path("runs")) for file in folder.glob("*/recipe.toml")]
    runs = {path.name: path for path in around}
    near = nearest(Path(run).name, runs)
    return f"; did you mean '{runs[near]}'?" if near else ""
