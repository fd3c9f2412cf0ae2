"""The command line as tests call it."""

from __future__ import annotations

import attrs

SMALL_WORDS = {
    "encoder.network.hidden": "[8]",
    "decoder.network.hidden": "[8]",
    "discriminator.hidden": "[8]",
    "prior.size": "4",
    "train.steps": "20",
    "train.batch": "16",
    "train.eval_every": "1000",
    "train.sample_every": "1000",
    "eval.rows": "64",
    "eval.samples": "4",
}


def in_words(**changes: str) -> list[str]:
    given = {**SMALL_WORDS, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [word for key, value in given.items() for word in ("--set", f"{key}={value}")]


@attrs.frozen
class Said:
    """How a command ended: its status, stdout, and the lines of stderr."""

    status: int
    out: str
    problems: list[str]

    @property
    def refusal(self) -> str:
        """The one problem of a command whose input was wrong, without its prefix."""
        assert self.status == 2, self
        assert self.out == ""
        (line,) = self.problems
        return line.removeprefix("jointgen: ")
