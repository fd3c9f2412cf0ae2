"""The run folder: the paths in it, and how to make, read and write its files. Needs no torch.

`docs/inside/architecture.md` shows the layout. The log has a module of its own (`jointgen.runs.log`), and so have
checkpoints.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from jointgen.config.documents import read_document
from jointgen.config.toml import MAX_BYTES as MAX_RECIPE_BYTES
from jointgen.config.toml import read_toml
from jointgen.config.values import show
from jointgen.contracts.figures import Estimate
from jointgen.errors import ConfigError, FileError, MissingFileError, for_caller, nearest
from jointgen.runs.hub import local_run
from jointgen.runs.log_file import MAX_BYTES as MAX_LOG_BYTES
from jointgen.runs.log_file import LogFile
from jointgen.runs.records import (
    CHECKPOINT_NAME,
    EvaluatedCheckpoint,
    Evaluation,
    SessionRecord,
    Sessions,
    Summary,
    describe_progress,
)
from jointgen.runtime.atomic_files import locked_folder, replace_bytes, replace_text, writing
from jointgen.runtime.regular_files import check_regular, read_regular, read_regular_text, unreadable
from jointgen.text import listed

OWN = (
    *(
        "recipe.toml",
        "plugins",
        "metrics.jsonl",
        "summary.json",
        "evaluation.json",
        "report.html",
        "trackers.json",
        "data.json",
        "environment.json",
    ),
    *("checkpoints", "samples", "evaluations", "tensorboard", "wandb", "mlflow.db", "mlartifacts"),
)
"""What a run and its trackers write into its folder."""
WRITTEN_AGAIN = "remove it, and it is written again from the checkpoint"
"""What to do about a damaged recipe of a run that goes on."""


class RunFolder:
    """The folder of one run.

    Making the object touches nothing. `create` makes the folder for a new run, and `open` looks for a run in it.
    What is written is replaced at once, so that a reader never sees half of a file, and raises WriteError where the
    disk does not take it.

    Args:
        path: The folder, which need not exist.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.recipe = self.path / "recipe.toml"
        self.data = self.path / "data.json"
        self.plugins = self.path / "plugins"
        self.environment = self.path / "environment.json"
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.evaluation = self.path / "evaluation.json"
        self.report = self.path / "report.html"
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.tensorboard = self.path / "tensorboard"
        self.evaluations = self.path / "evaluations"

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Return the folder of a run that is there, or that the hub has ("hf:user/name").

        Raises:
            ConfigError: There is no run; the message names the nearest one that there is.
            FileError: The place of its recipe is taken by something that is no file.
        """
        folder = cls(local_run(path))
        try:
            check_regular(folder.recipe)
        except MissingFileError:
            hint = f"; did you mean '{near}'?" if (near := folder._nearest_run()) else ""
            raise ConfigError(f"{path}: not a run folder (it has no {folder.recipe.name}){hint}") from None
        return folder

    def _nearest_run(self) -> Path | None:
        with contextlib.suppress(OSError):  # folders that cannot be listed
            around = [file.parent for root in (self.path.parent, Path("runs")) for file in root.glob("*/recipe.toml")]
            runs = {run.name: run for run in around}
            return runs.get(nearest(self.path.name, runs) or "")
        return None

    def create(self) -> RunFolder:
        """Make the folder for a run to write to, and return this object.

        Raises:
            ConfigError: It cannot be made.
            FileError: Something in it is a link, which could lead out of it.
        """
        self.check_own()
        try:
            for part in (self.checkpoints, self.samples, self.tensorboard):
                part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be made a run folder: {error}", "out") from error
        return self

    def check_own(self, *names: str) -> None:
        """Check that nothing in the folder that is to be written is a link: it would be written elsewhere.

        The folder itself may be one.

        Args:
            names: What is to be written; nothing for all that a run writes.

        Raises:
            FileError: Something is; the message names it.
        """
        for name in names or OWN:
            if (path := self.path / name).is_symlink():
                raise FileError(path, "is a link, and a run writes into its own folder only; remove it")

    def holds_run(self) -> bool:
        """Return whether anything here belongs to a run: overwriting it would lose work."""
        named = any(os.path.lexists(file) for file in (self.recipe, self.metrics, self.summary))
        return named or self.has_checkpoints()

    def has_checkpoints(self) -> bool:
        """Return whether a checkpoint is here, whole or not; one that was never finished does not count."""
        try:
            return any(CHECKPOINT_NAME.fullmatch(name) for name in os.listdir(self.checkpoints))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise unreadable(self.checkpoints, error) from None

    def remove_run(self) -> None:
        """Remove what a run has written here, and nothing else. The recipe goes last: until then it holds a run."""
        self.check_own()
        for name in sorted(OWN, key=lambda name: name == self.recipe.name):
            path = self.path / name
            with writing(path):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)

    def goes_on(self, *, resume: bool, overwrite: bool = False) -> bool:
        """Return whether a run goes on from a checkpoint here; if not, it may start here.

        Args:
            overwrite: Whether a run that starts takes the place of one that is here.
            resume: Whether it goes on where there is something to go on from. A run that ended before its first
                checkpoint has made nothing, so it starts again.

        Raises:
            ConfigError: A run that starts would lose work, or the folder cannot be made.
            FileError: A file of the run is damaged, or something in the folder is a link, which could lead out of it.
        """
        self.check_possible()
        self.check_own()
        if not resume:
            if not overwrite:
                self.check_free()
            return False
        if self.has_checkpoints():
            self.read_evaluation()  # the page needs it at the end: one that is damaged is refused before anything else
            self.read_sessions()
            with contextlib.suppress(MissingFileError):  # which is said, and mended from the checkpoint
                self.read_tables(WRITTEN_AGAIN)
            self._check_log()
            return True
        summary = self.read_summary()
        if summary is not None and summary.had_checkpoints:
            state = f"{self.path} holds a run ({describe_progress(summary)}) without its checkpoints"
            raise ConfigError(f"{state}, so nothing can go on; give another {for_caller('--out', 'out=')}", "out")
        return False

    def check_free(self) -> None:
        """Raise ConfigError if a run is here that would be overwritten."""
        if not self.holds_run():
            return
        try:
            state = describe_progress(self.read_summary())
        except FileError as error:
            state = str(error)
        resume, out = for_caller("--resume", 'resume="auto"'), for_caller("--out", "out=")
        ways = f"{resume} to go on"
        if not self.has_checkpoints():
            state, ways = f"{state}, no checkpoint", f"{resume} to start it again"
        ways = f"give another {out}, {ways}, or {for_caller('remove it', 'overwrite=True')} to begin anew"
        raise ConfigError(f"{self.path} already holds a run ({state}); {ways}", "out")

    def check_possible(self) -> None:
        """Raise ConfigError if the folder can neither be made nor written to."""
        path = self.path.absolute()
        for place in (path, *path.parents):
            try:
                mode = os.stat(place).st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else error
                raise ConfigError(f"{self.path} cannot be made a run folder: {place}: {reason}", "out") from None
            if not stat.S_ISDIR(mode):
                raise ConfigError(f"{self.path} cannot be made a run folder: {place} is not a folder", "out")
            if not os.access(place, os.W_OK | os.X_OK):
                raise ConfigError(f"{self.path} cannot be made a run folder: no permission to write to {place}", "out")
            return

    def _check_log(self) -> None:
        """Check that the log can be read, since a run that goes on cuts it back, and says what it has lost."""
        try:
            read_regular(self.metrics, MAX_LOG_BYTES)
        except MissingFileError:  # what is lost is said
            return
        except FileError as error:
            remedy = "move it away, and the run goes on with a new log"
            raise FileError(self.metrics, f"{error.reason}; {remedy}") from None

    # --- reading ---

    def read_recipe(self) -> str:
        """Return the text of the resolved recipe, to be shown. Raises FileError as `read_tables` does for no file."""
        return read_regular_text(self.recipe, MAX_RECIPE_BYTES)

    def read_tables(self, remedy: str = "") -> dict[str, Any]:
        """Return the tables of the resolved recipe.

        Args:
            remedy: What to do where it is damaged.

        Raises:
            MissingFileError: There is none.
            FileError: It cannot be read, is not TOML, or is based on another file: a resolved recipe is whole.
        """
        try:
            tables = read_toml(self.recipe)
            if "base" not in tables:
                return tables
            reason = f"base: the recipe of a run is based on no other, got {show(tables['base'])}"
        except MissingFileError:
            raise
        except FileError as error:
            reason = error.reason
        except ConfigError as error:
            reason = "; ".join(str(problem).removeprefix(f"{self.recipe}: ") for problem in error.problems)
        raise FileError(self.recipe, f"{reason}; {remedy}" if remedy else reason)

    def read_summary(self) -> Summary | None:
        """Return the summary; None where the run has written none.

        Raises:
            FileError: It is damaged.
        """
        remedy = "remove it: `jointgen run` with --resume writes another"
        with contextlib.suppress(MissingFileError):
            return read_document(self.summary, Summary, remedy)
        return None

    def summary_or_remark(self) -> tuple[Summary | None, list[str]]:
        """Return the summary for a command that can do without it, and a line on it where it is damaged."""
        try:
            return self.read_summary(), []
        except FileError as error:
            return None, [str(error)]

    def read_sessions(self) -> Sessions:
        """Return what the run was started with; empty for runs of earlier versions.

        Raises:
            FileError: The file is damaged.
        """
        with contextlib.suppress(MissingFileError):
            return read_document(self.environment, Sessions, "remove it: nothing but what it says is lost")
        return Sessions()

    def read_evaluation(self) -> Evaluation:
        """Return what evaluations after the run found; empty where there was none.

        Raises:
            FileError: The file is damaged.
        """
        remedy = f"remove it and run `jointgen eval {self.path}` again"
        try:
            found = read_document(self.evaluation, Evaluation, remedy)
        except MissingFileError:
            return {}
        if odd := [name for name in found if not CHECKPOINT_NAME.fullmatch(name)]:
            raise FileError(
                self.evaluation, f"is damaged ({listed(map(repr, odd))}: no name of a checkpoint); {remedy}"
            )
        return found

    def read_log(self) -> LogFile:
        """Return the log; one that is not there has no events. Raises FileError if it cannot be read."""
        return LogFile.read(self.metrics)

    def log_losses(self, every: int) -> list[str]:
        """Say what the log has lost of what the summary says of it, a line each; `every` is `train.log_every`.

        Raises:
            FileError: The log or the summary cannot be read.
        """
        summary, log = self.read_summary(), self.read_log()
        return log.losses(0, None, None) if summary is None else log.losses(summary.step, summary.log_events, every)

    # --- writing ---

    def write_recipe(self, text: str) -> None:
        """Write the resolved recipe."""
        with writing(self.recipe):
            replace_text(self.recipe, text)

    def write_plugin(self, name: str, source: bytes) -> None:
        """Write a plugin file of the recipe."""
        with writing(self.plugins):
            self.plugins.mkdir(exist_ok=True)
            replace_bytes(self.plugins / name, source)

    def write_summary(self, summary: Summary) -> None:
        """Write the summary. NaN and infinities become null."""
        with writing(self.summary):
            replace_text(self.summary, json.dumps(without_nan(summary.as_dict()), indent=2, allow_nan=False) + "\n")

    def add_session(self, session: SessionRecord) -> None:
        """Add what the run is started with now to what it was started with before.

        Raises:
            FileError: The file is damaged; it stays as it is.
        """
        with writing(self.environment):
            sessions = Sessions([*self.read_sessions().sessions, session])
            replace_text(self.environment, json.dumps(attrs.asdict(sessions), indent=1) + "\n")

    def add_evaluation(self, checkpoint: str, figures: Mapping[str, Estimate]) -> None:
        """Add figures of one checkpoint to those that were found before.

        Raises:
            FileError: What was found before is damaged; it stays as it is.
        """
        with writing(self.evaluation), locked_folder(self.path):
            known = self.read_evaluation()
            before = known[checkpoint].metrics if checkpoint in known else {}
            found = {**known, checkpoint: EvaluatedCheckpoint({**before, **figures})}
            whole = {name: attrs.asdict(evaluated) for name, evaluated in found.items()}
            replace_text(self.evaluation, json.dumps(without_nan(whole), indent=2, allow_nan=False) + "\n")


def without_nan(value: Any) -> Any:
    """Replace NaN and infinities, which JSON does not have, by None in nested values.

    >>> without_nan({"a": [1.0, float("nan")]})
    {'a': [1.0, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    return [without_nan(item) for item in value] if isinstance(value, list | tuple) else value
