"""The run folder (DESIGN.md 5.2), its log, what it says about the machine, and live progress on stderr."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import rich.console
import rich.progress
import rich.text
import torch

import jointgen
from jointgen.errors import CheckpointError, ConfigError
from jointgen.files import replace_bytes, replace_text, writing
from jointgen.trackers import Trackers

_DISTRIBUTIONS = ("jointgen", "torch", "torchvision", "accelerate", "safetensors", "numpy")


class RunFolder:
    """The names and the log of one run. Making the object touches nothing; `create` and `open` are the ways in."""

    def __init__(self, path: Path | str, *, trackers: Sequence[str] = ("tensorboard",)):
        """trackers: which of jointgen.trackers get what is logged."""
        self.path = Path(path)
        self.recipe = self.path / "recipe.toml"
        self.metrics = self.path / "metrics.jsonl"
        self.summary = self.path / "summary.json"
        self.report = self.path / "report.html"
        self.checkpoints = self.path / "checkpoints"
        self.samples = self.path / "samples"
        self.tensorboard = self.path / "tensorboard"
        self._names = trackers
        self._trackers: Trackers | None = None
        self._resumed_at: int | None = None

    @classmethod
    def create(cls, path: Path | str, *, resume: bool = False) -> RunFolder:
        """Makes the folder for a run to write to. ConfigError if a run is there already and `resume` is not asked."""
        cls.check(path, resume=resume)
        folder = cls(path)
        try:
            for part in (folder.checkpoints, folder.samples, folder.tensorboard):
                part.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"out: {path} cannot be made a run folder: {error}") from error
        return folder

    @classmethod
    def check(cls, path: Path | str, *, resume: bool = False) -> None:
        """ConfigError if a run is there that would be overwritten."""
        folder = cls(path)
        if not resume and folder.holds_run():
            raise ConfigError(
                f"out: {path} already holds a run ({folder._state()}); give another --out, or --resume to go on"
            )

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """A run that is there, to read. ConfigError where there is none."""
        folder = cls(path)
        if not folder.recipe.is_file():
            raise ConfigError(f"{path}: not a run folder (it has no {folder.recipe.name})")
        return folder

    def holds_run(self) -> bool:
        """Whether anything here is a run's: overwriting it would lose work."""
        named = any(file.exists() for file in (self.recipe, self.metrics, self.summary))
        return named or any(self.checkpoints.glob("step-*"))

    # --- recipe and summary ---

    def write_recipe(self, text: str) -> None:
        """The resolved recipe, as TOML."""
        with writing(self.recipe):
            replace_text(self.recipe, text)

    def read_recipe(self) -> str:
        return self.recipe.read_text(encoding="utf-8")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replaces the summary at once, so that a reader never sees half of it. NaN and infinities become null."""
        with writing(self.summary):
            replace_text(self.summary, json.dumps(_finite(summary), indent=2, allow_nan=False) + "\n")

    def read_summary(self) -> dict[str, Any]:
        """The summary, or an empty dict where the run has not written one."""
        try:
            return json.loads(self.summary.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}

    # --- the log ---

    def log(self, step: int, images_seen: int, wall_s: float, values: Mapping[str, float]) -> None:
        """Appends one line to metrics.jsonl and the same numbers to the trackers. NaN and infinities become null.

        Raises WriteError where the disk does not take them, as everything here that writes does.
        """
        event = {"step": step, "images_seen": images_seen, "wall_s": round(wall_s, 3), **values}
        with writing(self.metrics), open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(event), allow_nan=False) + "\n")
        with writing(self.tensorboard):
            self.trackers().log(values, step)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Every logged event, in order. A torn last line, which a killed run can leave, is not one."""
        return [event for _, event in self._events()]

    def cut_back(self, step: int) -> None:
        """Forgets events after `step`, which a resumed run will log again. Trackers hide or keep their own."""
        kept = b"".join(line + b"\n" for line, event in self._events() if event["step"] <= step)
        if self.metrics.exists() and self.metrics.read_bytes() != kept:
            with writing(self.metrics):
                replace_bytes(self.metrics, kept)
        self._resumed_at = step

    def trackers(self) -> Trackers:
        """Those of the run, started by the first call: who only reads a run should leave nothing behind."""
        if self._trackers is None:
            recipe = self.read_recipe() if self.recipe.exists() else ""
            self._trackers = Trackers(self._names, self.path, recipe, self._resumed_at)
        return self._trackers

    def close(self) -> None:
        """Flushes the trackers. A disk that is full then was reported before, or holds all but their copies."""
        if self._trackers is not None:
            with contextlib.suppress(OSError):
                self._trackers.close()
            self._trackers = None

    def _events(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        lines = self.metrics.read_bytes().split(b"\n") if self.metrics.exists() else [b""]
        for number, line in enumerate(lines[:-1], 1):  # what follows the last line end is empty, or torn
            try:
                yield line, json.loads(line)
            except ValueError as error:
                raise CheckpointError(f"{self.metrics}: line {number} is damaged: {error}") from error

    def _state(self) -> str:
        """A few words on the run that is here, for the message that refuses to overwrite it."""
        summary = self.read_summary()
        status, step = summary.get("status", "unknown"), summary.get("step")
        return f"status {status}" if step is None else f"status {status}, step {step}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _finite(value: Any) -> Any:
    """JSON has no NaN; null stands for it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


# --- where it ran -----------------------------------------------------------------------------------------------------


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Versions, platform, the device's name, and the git commit where jointgen runs from its own checkout."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _DISTRIBUTIONS}},
        "platform": platform.platform(),
        "device": _device_name(torch.device(device)),
        "git_commit": _git_commit(),
    }


def _version(distribution: str) -> str | None:
    # asked of the metadata: torchvision's import can fail beside a torch that does not fit it
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.processor() or platform.machine()})"


def _git_commit() -> str | None:
    """The commit, with "-dirty" after it when files are changed; None outside a checkout that tracks this package."""
    here = Path(jointgen.__file__).parent
    if _git(here, "ls-files", "--error-unmatch", "__init__.py") is None:  # installed inside someone else's repository
        return None
    return _git(here, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


# --- progress ---------------------------------------------------------------------------------------------------------


class Progress:
    """Where a run is: a bar on a terminal, and a plain line every `every_s` seconds elsewhere. Writes to stderr.

    `total` and `start` are steps; a resumed run starts later. `quiet` is for all processes but the main one.

    >>> with Progress(total=1000, start=0) as bar:                                     # doctest: +SKIP
    ...     bar.update(10, 5120.0, {"elbo_nats": -101.3})
    ...     bar.note("wrote samples/step-00000010.png")
    """

    def __init__(self, total: int, start: int = 0, *, every_s: float = 10.0, quiet: bool = False):
        self._total, self._start, self._every_s, self._quiet = total, start, every_s, quiet
        self._console = rich.console.Console(stderr=True, quiet=quiet)
        self._bar = _bar(self._console) if _is_terminal(self._console) and not quiet else None
        self._began = self._printed = time.monotonic()
        self._line = ""

    def __enter__(self) -> Self:
        self._began = self._printed = time.monotonic()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, completed=self._start, status="")
        return self

    def update(self, step: int, images_per_s: float, figures: Mapping[str, float]) -> None:
        """Shows that `step` steps are done. Cheap, but the figures must be plain numbers: read them off rarely."""
        shown = "  ".join([f"{images_per_s:,.0f} images/s", f"{self._left(step)} left", *map(_figure, figures.items())])
        if self._bar is not None:
            self._bar.update(self._task, completed=step, status=shown)
            return
        self._line = f"step {step}/{self._total}  {shown}"
        if time.monotonic() - self._printed >= self._every_s:
            self._print_line()

    def note(self, text: str) -> None:
        """Prints a line of its own, above the bar where there is one."""
        if self._bar is not None:
            self._console.print(rich.text.Text(text), soft_wrap=True)
        elif not self._quiet:
            print(text, file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            self._print_line()

    def _print_line(self) -> None:
        if self._line and not self._quiet:
            print(self._line, file=sys.stderr, flush=True)
        self._line, self._printed = "", time.monotonic()

    def _left(self, step: int) -> str:
        done = step - self._start
        if done <= 0:
            return "?"
        return _clock((time.monotonic() - self._began) / done * (self._total - step))


def _is_terminal(console: rich.console.Console) -> bool:
    # asked of the file: rich also says yes to a log file when FORCE_COLOR is set
    return sys.stderr.isatty() and not console.is_dumb_terminal


def _bar(console: rich.console.Console) -> rich.progress.Progress:
    return rich.progress.Progress(
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[status]}", markup=False),
        console=console,
        transient=False,
        redirect_stdout=False,  # what a command prints there is its answer, perhaps to a pipe
    )


def _figure(item: tuple[str, float]) -> str:
    name, value = item
    return f"{name} {value:.4g}"


def _clock(seconds: float) -> str:
    """
    >>> _clock(59.6), _clock(3725)
    ('1:00', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
