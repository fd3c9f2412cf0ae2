"""The batches of rows that a trained model works on, and the values that the user gives beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from jointgen.errors import ConfigError, Problems, suggest
from jointgen.inference.streams import StreamBatch, batches
from jointgen.text import shortened

if TYPE_CHECKING:
    from jointgen.data.split import Split
    from jointgen.inference.model import Model

Progress = Callable[[int, int], None]
"""Called with (rows done, rows in all)."""
BATCH = 256
"""Rows that are worked on at a time."""


# --- values that are given -------------------------------------------------------------------------------------------


def given_values(texts: Iterable[str], model: Model, rows: int) -> dict[str, Tensor]:
    """Read values of variables that are written as VARIABLE=VALUE.

    Args:
        texts: Of a label, "y=3", or the name of its class, "y=cat"; of other variables one number or all of them,
            "z=0.5" or "z=1,-1".
        model: The model whose variables they are.
        rows: How many rows take these values.

    Returns:
        (rows, *shape) in model space by variable; labels are one-hot.

    Raises:
        ConfigError: With every problem.
    """
    values: dict[str, Tensor] = {}
    problems = Problems()
    for text in texts:
        name, _, value = text.partition("=")
        if name in values:
            problems.add(f"{shortened(text)}: {name} is given twice", "--given")
        try:
            row = _parse_value(name, value, model)[None]
            values[name] = model.input(name).read(row).expand(rows, *model.spaces[name].shape)
        except ConfigError as error:
            for problem in error.problems:
                problems.add(f"{shortened(text)}: {problem.message}", "--given")
    problems.raise_any()
    return values


def _parse_value(name: str, text: str, model: Model) -> Tensor:
    """(*shape) in model space."""
    if name not in model.spaces:
        raise ConfigError(f"expected VARIABLE=VALUE; unknown variable {name!r}{suggest(name, model.spaces)}")
    space = model.spaces[name]
    if space.kind == "label":
        classes, names = space.shape[0], model.class_names.get(name, [])
        if text in names:
            text = str(names.index(text))
        if not (text.isdecimal() and len(text) < 10 and int(text) < classes):
            named = suggest(text, names) if names else ""
            raise ConfigError(f"{text!r} is not a class; allowed: 0 to {classes - 1}{named}")
        return F.one_hot(torch.tensor(int(text)), classes).float()
    try:
        numbers = torch.tensor([float(number) for number in text.split(",")])
    except ValueError:
        raise ConfigError(f"{text!r} is not a number, nor numbers between commas") from None
    if len(numbers) not in (1, space.size):
        raise ConfigError(f"{len(numbers)} numbers; {name} takes {space.size}, or one for all of them")
    return numbers.expand(space.size).reshape(space.shape)


def for_each_class(texts: Sequence[str], model: Model) -> list[list[str]]:
    """Write given values out where a label is to take all of its classes, "y=all".

    Args:
        texts: As in `given_values`.
        model: The model.

    Returns:
        The given values for each class in turn; `texts` itself where no label takes all.

    Raises:
        ConfigError: Two labels are to take all of their classes.
    """
    names = [text.partition("=")[0] for text in texts if text.partition("=")[2] == ALL]
    labels = [name for name in names if name in model.spaces and model.spaces[name].kind == "label"]
    if not labels:
        return [list(texts)]
    if len(labels) > 1:
        raise ConfigError(f"{' and '.join(labels)} cannot both take all of their classes", "--given")
    (label,) = labels
    others = [text for text in texts if text != f"{label}={ALL}"]
    return [[*others, f"{label}={number}"] for number in range(model.spaces[label].shape[0])]


ALL = "all"
"""In the place of a class: every class in turn."""


# --- rows ------------------------------------------------------------------------------------------------------------


def reconstructed_variable(model: Model) -> str:
    """The first observed variable that can be reconstructed. Raises ConfigError where there is none."""
    found = [v for v in model.observed if model.binding.can_reconstruct(v)]
    if not found:
        raise ConfigError("this model reconstructs nothing: it has no code that q encodes and p decodes")
    return found[0]


def in_batches(model: Model, split: Split, seed: int, progress: Progress, size: int = BATCH) -> Iterator[StreamBatch]:
    """The split's batches; each is reported once it has been worked on."""
    for batch in batches(model.view, split, size, seed):
        yield batch
        progress(int(batch.index[-1]) + 1, len(split))
