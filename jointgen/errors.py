"""The errors of jointgen, and the problems that a ConfigError carries.

A problem is a record: a message and the key path of the setting that it is about. Whoever finds a problem gives the
path as far as it is known there (a component: its own key); every caller that knows more of the path puts it in front,
with `placing` or `Problems.collect`; `Problem.__str__` writes it. Nobody reads a path back out of a message.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from signal import SIGINT
from typing import Self

import attrs

from jointgen.text import MAX_LISTED, MAX_SHOWN, listed, shortened

KeyPath = tuple[str | int, ...]

MAX_SUGGESTED = 60
"""So many known names are listed beside an unknown one, at the most."""
MAX_LINE = 2_000
"""So many characters of a problem are written out, at the most."""


def dotted(path: Sequence[str | int]) -> str:
    """Write a key path as TOML does, with positions of a list in brackets.

    >>> dotted(("critic", "penalties", 1, "weight"))
    'critic.penalties[1].weight'
    >>> dotted(("ratios", "f 1"))
    'ratios."f 1"'
    """
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{_quoted(key)}" for key in path)
    return text.removeprefix(".")


def _quoted(key: str) -> str:
    key = key if len(key) <= MAX_SHOWN else f"{key[: MAX_SHOWN - 3]}..."
    if re.fullmatch(r"[A-Za-z0-9_-]+", key):
        return key
    return json.dumps(key, ensure_ascii=False).replace("\x7f", r"\u007f")  # TOML has no raw DEL, JSON has


@attrs.frozen(init=False)
class Problem:
    """One thing that is wrong in the user's input.

    Args:
        message: What is wrong, which value was given and what is allowed, in one line without the path.
        path: The keys that lead to the setting, or an option of the command line such as ``"--device"``.

    >>> print(Problem("must be > 0, got -1", "width").under("encoder", "network"))
    encoder.network.width: must be > 0, got -1
    """

    message: str
    path: KeyPath

    def __init__(self, message: str, *path: str | int):
        self.__attrs_init__(" ".join(message.split()) if "\n" in message else message, path)

    def under(self, *keys: str | int) -> Problem:
        """Return the same problem with `keys` in front of its path."""
        return Problem(self.message, *keys, *self.path)

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}" if self.path else self.message


RAISED = (Exception, SystemExit)
"""What may come out of a component and is its fault: `sys.exit()` too, which would end a command without a word."""


class JointgenError(Exception):
    """A run failed for a reason that the message states. The command line exits with `exit_status`."""

    exit_status = 1


class ConfigError(JointgenError):
    """The user's input (a recipe, a path, an option) is wrong. It carries every problem that was found.

    Args:
        problems: One message or `Problem`, or several.
        path: The keys to put in front of the path of each problem. A component gives its own key, and the caller
            adds where the component's table is.

    >>> raise ConfigError("must be even, got 3", "width").under("encoder", "network")
    Traceback (most recent call last):
    jointgen.errors.ConfigError: encoder.network.width: must be even, got 3
    """

    exit_status = 2

    def __init__(self, problems: str | Problem | Iterable[str | Problem], *path: str | int):
        several = [problems] if isinstance(problems, str | Problem) else list(problems)
        self.problems = [Problem(p, *path) if isinstance(p, str) else p.under(*path) for p in several]
        super().__init__(self.problems)

    def under(self, *keys: str | int) -> Self:
        """Put `keys` in front of the path of every problem, and return this error."""
        self.problems = [problem.under(*keys) for problem in self.problems]
        return self

    @property
    def lines(self) -> list[str]:
        """The problems as they are printed, one line each, and how many more there are than can be read."""
        lines = [shortened(problem, MAX_LINE) for problem in self.problems[:MAX_LISTED]]
        more = len(self.problems) - len(lines)
        return [*lines, f"... and {more:,} more problems"] if more else lines

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows: what is wrong, and not where in this library it was found."""
        return [f"{type(self).__name__}: {line}" for line in self.lines]


@contextmanager
def placing(*keys: str | int) -> Iterator[None]:
    """Put `keys` in front of the path of each problem that the body raises.

    >>> with placing("sources", "prior"):
    ...     raise ConfigError("no file 'x.npy'", "path")
    Traceback (most recent call last):
    jointgen.errors.ConfigError: sources.prior.path: no file 'x.npy'
    """
    try:
        yield
    except ConfigError as error:
        error.under(*keys)
        raise


@contextmanager
def placing_options(*names: str) -> Iterator[None]:
    """Write the problems of a Python function's arguments as those of the options of the same names.

    >>> with placing_options("device"):
    ...     raise ConfigError("'gpu' is not a device", "device")
    Traceback (most recent call last):
    jointgen.errors.ConfigError: --device: 'gpu' is not a device
    """
    try:
        yield
    except ConfigError as error:
        options: dict[KeyPath, str] = {(name,): f"--{name}" for name in names}
        error.problems = [Problem(p.message, options[p.path]) if p.path in options else p for p in error.problems]
        raise


_ON_THE_COMMAND_LINE: ContextVar[bool] = ContextVar("on_the_command_line", default=False)


@contextmanager
def on_the_command_line() -> Iterator[None]:
    """Let messages name options: those of the body go to somebody who typed a command."""
    token = _ON_THE_COMMAND_LINE.set(True)
    try:
        yield
    finally:
        _ON_THE_COMMAND_LINE.reset(token)


def for_caller(option: str, python: str) -> str:
    """Return the word that whoever reads a message can write: an option in the shell, or Python's.

    >>> for_caller("--allow-changes", "allow_changes=True")
    'allow_changes=True'
    """
    return option if _ON_THE_COMMAND_LINE.get() else python


class Problems(list[Problem]):
    """A list of problems that collects those of several checks, so that the user sees all of them at once.

    >>> problems = Problems()
    >>> with problems.collect("train"):
    ...     raise ConfigError("must be > 0, got 0", "batch")
    >>> problems.add("unknown key", "trian")
    >>> problems.raise_any()
    Traceback (most recent call last):
    jointgen.errors.ConfigError: train.batch: must be > 0, got 0
    trian: unknown key
    """

    def add(self, message: str, *path: str | int) -> None:
        """Append one problem."""
        self.append(Problem(message, *path))

    @contextmanager
    def collect(self, *keys: str | int) -> Iterator[None]:
        """Append the problems that the body raises, with `keys` in front of their paths, instead of raising them.

        The body ends where it raises, and the statement after it runs.
        """
        try:
            yield
        except ConfigError as error:
            self += error.under(*keys).problems

    def raise_any(self) -> None:
        """Raise a ConfigError with all problems, each of them once; do nothing where there are none."""
        if self:
            raise ConfigError(dict.fromkeys(self))


class FileError(ConfigError):
    """A file that the user has, in a run folder or a data set, is not what it should be. The message names it.

    Args:
        path: The file.
        reason: What is wrong with it and what to do, after the file's name.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str):
        self.path, self.reason = os.fspath(path), reason
        super().__init__(f"{shortened(self.path, MAX_LINE // 2)}: {reason}")


class MissingFileError(FileError):
    """There is no such file."""


class PluginError(ConfigError):
    """A plugin claims a name that is taken, cannot be imported, or implements a hook that does not exist."""


class ComponentError(JointgenError):
    """A component raised, or returned what it must not. The message names the part, the component and its package."""


class CheckpointError(JointgenError):
    """A checkpoint is missing, incomplete or altered. The message names the file."""


class WriteError(JointgenError):
    """A file of the run cannot be written, because the disk is full, for example. The message names the file."""


class NonFiniteError(JointgenError):
    """A term became NaN or infinite. The message names the step, the term and the last good checkpoint."""


class StoppedError(JointgenError):
    """A signal asked the run to stop, and the run wrote a checkpoint first.

    Args:
        message: Where the run stopped and how to go on.
        signal: The signal's number; the exit status is 128 more.
    """

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.exit_status = 128 + signal


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C, or the stop button of a notebook, ended `jointgen.run`: after a checkpoint, or before the first step.

    It is a KeyboardInterrupt: a program that goes on after errors ends.

    Args:
        message: What there is of the run, and how to go on.
        signal: The number of the signal.
    """

    def __init__(self, message: str, signal: int = SIGINT):
        super().__init__(message)
        self.signal = int(signal)

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows."""
        return [f"{type(self).__name__}: {self}"]


class LostError(JointgenError):
    """Another process of the run ended. That process has reported the reason where it could."""


class OwnershipError(JointgenError):
    """A term's gradient reaches a part that it must not reach, or misses one that it should. Names both."""


def nearest(word: object, known: Iterable[str]) -> str | None:
    """Return the known word that `word` is probably a misspelling of, or None.

    >>> nearest("MNSIT", ["mnist", "cifar10"])
    'mnist'
    """
    lowered = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(word).lower(), lowered, n=1)
    return lowered[near[0]] if near else None


def suggest(word: object, known: Iterable[object]) -> str:
    """Write the end of a message about an unknown word: what is known and, for a typo, the nearest name.

    >>> suggest("widht", ["width", "depth"])
    "; did you mean 'width'? (known: depth, width)"
    >>> suggest("zzz", ["width", "depth"])
    '; known: depth, width'
    """
    names = sorted({str(name) for name in known})
    if not names:
        return "; none is known here"
    between = " | " if any("," in name for name in names) else ", "
    near, listing = nearest(word, names), f"known: {listed(names, between, MAX_SUGGESTED)}"
    return f"; did you mean {near!r}? ({listing})" if near else f"; {listing}"
