"""Pictures of a model: sample grids and reconstructions beside the truth, each process computing its share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from jointgen.contracts.space import Space
from jointgen.data.split import Split
from jointgen.data.step_inputs import StepInputs
from jointgen.errors import ConfigError
from jointgen.inference.model import Model
from jointgen.reports import pictures
from jointgen.runtime.workers import Workers


def write_pictures(model: Model, split: Split, folder: Path, name: str, n: int, workers: Workers) -> list[Path]:
    """Writes `folder`/samples-NAME.png and reconstructions-NAME.png where the model can give them: the same codes
    and the same held-out rows at every call. Every process calls it; the main one writes and returns the paths."""
    shares = workers.world if n <= len(split) and n % workers.world == 0 else 1
    model = model.share(workers.rank if shares > 1 else 0, shares)
    batch = fixed_batch(model, split, min(n, len(split)) // shares)

    def whole(mine: Tensor) -> Tensor:
        return workers.gather(mine) if shares > 1 else mine

    found: dict[str, tuple[Callable[..., bool], str, Tensor, Tensor]] = {}
    for variable in model.observed:
        samples = whole(samples_of(model, variable, n // shares, batch))
        truth = whole(model.observe(batch)[0][variable])
        found[f"samples-{_suffix(model, variable)}{name}.png"] = (write_samples, variable, truth, samples)
    if "x" in model.observed and model.can_reconstruct("x"):
        truth, rebuilt = map(whole, model.rebuild(batch, "x"))
        found[f"reconstructions-{name}.png"] = (write_reconstructions, "x", truth, rebuilt)
    if not workers.is_main:
        return []
    return [
        folder / file
        for file, (write, variable, truth, made) in found.items()
        if write(model, variable, truth, made, folder / file)
    ]


def _suffix(model: Model, variable: str) -> str:
    return "" if len(model.observed) == 1 else f"{variable}-"


def fixed_batch(model: Model, split: Split, rows: int) -> StepInputs:
    """This process's share, so many rows, of the first rows of a split, with noise of their own, for pictures that
    can be compared."""
    data = split.take(torch.arange(rows) + model.rank * rows, model.device)
    return StepInputs(data, model.noise(0, "pictures"), rows)


def samples_of(model: Model, variable: str, n: int, batch: StepInputs) -> Tensor:
    """(n, *shape) means of the conditional that generates a variable; data roots on its side are held-out rows."""
    joint = model.generator_of(variable)
    _, samples = model.observe(batch)
    given = {v: samples[v][:n] for v in model.data_roots(joint)}
    rows = min(n, batch.rows) if given else n
    return model.draw(joint.name, given, rows, model.noise(0, "pictures"), "mean")[variable]


def write_samples(model: Model, variable: str, truth: Tensor, samples: Tensor, path: Path) -> bool:
    """Whether there was anything to draw: images, or points in the plane beside true ones."""
    space = model.spaces[variable]
    if (images := pictures.render(samples, space)) is not None:
        pictures.save(images, path)
        return True
    if space.shape == (2,):
        pictures.scatter(samples.cpu(), truth.cpu(), path)
        return True
    return False


def write_reconstructions(model: Model, variable: str, truth: Tensor, rebuilt: Tensor, path: Path) -> bool:
    left = pictures.render(truth, model.spaces[variable])
    right = pictures.render(rebuilt, model.spaces[variable])
    if left is None or right is None:
        return False
    pictures.save(pictures.side_by_side(left, right), path)
    return True


def check_picture(variable: str, space: Space, *, points: bool) -> None:
    """Raises ConfigError unless values in this Space are images or, where `points` may be, points in the plane."""
    is_image = pictures.render(torch.zeros(1, *space.shape), space) is not None
    if not (is_image or (points and space.shape == (2,))):
        raise ConfigError(f"-o: {variable} is {space}, which makes no picture")


def draw_samples(samples: Tensor, space: Space, path: Path) -> None:
    """A PNG of images in rows and columns, or of points in the plane."""
    images = pictures.render(samples, space)
    if images is None:
        pictures.scatter(samples, path=path)
    else:
        pictures.save(images, path, columns=columns_for(len(images)))


def columns_for(n: int) -> int:
    """A grid that is not much higher than it is wide.

    >>> columns_for(16), columns_for(100), columns_for(10000)
    (8, 10, 100)
    """
    return max(8, round(n**0.5))


def draw_pairs(truth: Tensor, rebuilt: Tensor, space: Space, path: Path) -> None:
    """A PNG in which every truth has its reconstruction at its right."""
    left, right = pictures.render(truth, space), pictures.render(rebuilt, space)
    assert left is not None and right is not None, "see check_picture"
    pictures.save(pictures.side_by_side(left, right, columns_for(2 * len(left))), path)
