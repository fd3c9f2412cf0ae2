"""Draws a model's samples, and reconstructions beside the data; with several processes each computes its share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL.Image import Image
from torch import Tensor

from jointgen.contracts.space import Space
from jointgen.data.split import Split
from jointgen.data.step_inputs import StepInputs
from jointgen.errors import ConfigError
from jointgen.reports import pictures
from jointgen.runtime.workers import Workers

if TYPE_CHECKING:
    from jointgen.inference.model import Model
    from jointgen.inference.view import PartsView


def write_pictures(model: Model, split: Split, folder: Path, name: str, n: int, workers: Workers) -> list[Path]:
    """Write `samples-NAME.png` and `reconstructions-NAME.png`, where the model gives any.

    Every call draws the same codes and the same held-out rows, so that pictures can be compared over training. A model
    of several observed variables has samples of each, `samples-VARIABLE-NAME.png`. All processes call this; the main
    one writes.

    Args:
        model: The model.
        split: The held-out rows.
        folder: Where the pictures go.
        name: The end of the files' names, such as "step-00000100".
        n: The number of samples, and of reconstructions if the split has as many rows.
        workers: The processes.

    Returns:
        The files that this process has written.
    """
    shares = workers.world if n <= len(split) and n % workers.world == 0 else 1
    view = model.view.share(workers.rank if shares > 1 else 0, shares)
    batch = fixed_batch(view, split, min(n, len(split)) // shares)

    def gathered(share: Tensor) -> Tensor:
        return workers.gather(share) if shares > 1 else share

    samples = {v: gathered(sample_pictures(view, v, n // shares, batch)) for v in model.observed}
    truth = {v: gathered(mean) for v, mean in view.observe(batch)[0].items()}
    reconstructed = _reconstructed(view)
    pairs = [gathered(values) for values in view.reconstruct_batch(batch, reconstructed)] if reconstructed else []
    if not workers.is_main:
        return []

    written = []
    for file, variable in picture_files(view, name).items():
        space = model.spaces[variable]
        if file.startswith("reconstructions"):
            image = _draw_pairs(pairs[0], pairs[1], space)
        else:
            image = pictures.draw_values(samples[variable], space, truth[variable])
        assert image is not None, "picture_files() names what makes a picture"
        pictures.save(image, folder / file)
        written.append(folder / file)
    return written


def picture_files(view: PartsView, name: str) -> dict[str, str]:
    """Return the files that `write_pictures` writes, each with the variable that it shows."""
    observed, spaces = view.observed, view.spaces
    several = len(observed) > 1
    files = {f"samples{f'-{v}' * several}-{name}.png": v for v in observed if not pictures.no_picture(v, spaces[v])}
    reconstructed = _reconstructed(view)
    if reconstructed and not pictures.no_picture(reconstructed, spaces[reconstructed], points=False):
        files[f"reconstructions-{name}.png"] = reconstructed
    return files


def _reconstructed(view: PartsView) -> str | None:
    return next((v for v in view.observed if view.can_reconstruct(v)), None)


def fixed_batch(view: PartsView, split: Split, rows: int) -> StepInputs:
    """Take this process's share, so many rows, of the first rows of a split, with the same noise at every call."""
    data = split.take(torch.arange(rows) + view.rank * rows, view.device)
    return StepInputs(data, view.noise(0, "pictures"), rows)


def sample_pictures(view: PartsView, variable: str, n: int, batch: StepInputs | None) -> Tensor:
    """Draw a variable from the side that generates it, with the same noise at every call.

    Returns:
        (n, *shape): the means of its conditional. Where its side begins at data, the batch's rows are taken for that,
        and there are at most as many samples. Without a batch its side begins at no data.
    """
    joint = view.binding.generator_of(variable)
    samples = {} if batch is None else view.observe(batch)[1]
    given = {v: samples[v][:n] for v in view.binding.data_roots(joint)}
    rows = min(n, batch.rows) if batch is not None and given else n
    return view.draw(joint.name, given, rows, view.noise(0, "pictures"), "mean")[variable]


# --- pictures that a command was asked for ----------------------------------------------------------------------------


def check_picture(variable: str, space: Space, *, points: bool) -> None:
    """Check that values of a variable make a picture.

    Args:
        variable: Its name.
        space: Its Space.
        points: Whether points in the plane will do, besides images.

    Raises:
        ConfigError: They make none.
    """
    if reason := pictures.no_picture(variable, space, points=points):
        raise ConfigError(reason, "-o")


def grid_of(values: Tensor, space: Space, columns: int | None = None) -> Image:
    """Draw images in rows and columns, or points in the plane; `check_picture` has passed."""
    image = pictures.draw_values(values, space, columns=columns or columns_for(len(values)))
    assert image is not None, "check_picture was called before"
    return image


def pairs_of(truth: Tensor, rebuilt: Tensor, space: Space) -> Image:
    """Draw every image with its reconstruction to its right; `check_picture` has passed."""
    image = _draw_pairs(truth, rebuilt, space, columns_for(2 * len(truth)))
    assert image is not None, "check_picture was called before"
    return image


def columns_for(n: int) -> int:
    """Choose the columns of a grid of `n` images so that it is not much higher than it is wide.

    >>> columns_for(16), columns_for(100), columns_for(10000)
    (8, 10, 100)
    """
    return max(8, round(n**0.5))


def _draw_pairs(truth: Tensor, rebuilt: Tensor, space: Space, columns: int = 8) -> Image | None:
    left, right = pictures.render(truth, space), pictures.render(rebuilt, space)
    return None if left is None or right is None else pictures.side_by_side(left, right, columns)
