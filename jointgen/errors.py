"""Errors that a user can act on. Our own mistakes are assertions and look different."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class JointgenError(Exception):
    """A run failed for a reason that the message states. The command line exits with `exit_status`."""

    exit_status = 1


class ConfigError(JointgenError):
    """The user's input (recipe, path, option) is wrong. Holds every problem found, each one line.

    `problems` are lines such as ``encoder.network.widht: unknown key; did you mean 'width'?``.
    """

    exit_status = 2

    def __init__(self, problems: str | Iterable[str]):
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


class PluginError(ConfigError):
    """A plugin claims a taken name, cannot be imported, or implements a hook that does not exist."""


class CheckpointError(JointgenError):
    """A checkpoint is missing, torn or tampered with. Names the file."""


class WriteError(JointgenError):
    """A file of the run cannot be written: a full disk, say. Names the file."""


class NonFiniteError(JointgenError):
    """A term became NaN or infinite. Names the step, the term and the last good checkpoint."""


class StoppedError(JointgenError):
    """The run was asked to stop by a signal, and wrote a checkpoint first."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.exit_status = 128 + signal


class LostError(JointgenError):
    """Another process of the run went away. It had its reason, and said it where it could."""


class OwnershipError(JointgenError):
    """A term's gradient reaches a part that it must not reach, or misses one that it should. Names both."""


def nearest(word: object, known: Iterable[str]) -> str | None:
    """The known word that `word` is probably a misspelling of.

    >>> nearest("MNSIT", ["mnist", "cifar10"])
    'mnist'
    """
    lowered = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(word).lower(), lowered, n=1)
    return lowered[near[0]] if near else None


def suggest(word: object, known: Iterable[object]) -> str:
    """The end of a message about an unknown `word`: what is known and, for a typo, the nearest of it.

    >>> suggest("widht", ["width", "depth"])
    "; did you mean 'width'? (known: depth, width)"
    >>> suggest("zzz", ["width", "depth"])
    '; known: depth, width'
    """
    names = sorted({str(name) for name in known})
    if not names:
        return "; none is known here"
    between = " | " if any("," in name for name in names) else ", "
    near, listing = nearest(word, names), f"known: {between.join(names)}"
    return f"; did you mean {near!r}? ({listing})" if near else f"; {listing}"
