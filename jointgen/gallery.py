"""Pictures of a model: sample grids and reconstructions beside the truth."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from jointgen import pictures
from jointgen.evaluate import Split
from jointgen.model import Model
from jointgen.noise import Noise
from jointgen.program import (
    Moment,
)


def write_pictures(model: Model, split: Split, folder: Path, name: str, n: int) -> list[Path]:
    """Writes `folder`/samples-NAME.png and reconstructions-NAME.png where the model can give them: the same codes
    and the same held-out rows at every call."""
    batch = fixed_batch(model, split, min(n, len(split)))
    written = []
    for variable in model.observed:
        path = folder / f"samples-{_suffix(model, variable)}{name}.png"
        if write_samples(samples_of(model, variable, n, batch), model, variable, path, batch):
            written.append(path)
    if "x" in model.observed and model.can_reconstruct("x"):
        path = folder / f"reconstructions-{name}.png"
        truth, rebuilt = model.rebuild(batch, "x")
        if write_reconstructions(model, "x", truth, rebuilt, path):
            written.append(path)
    return written


def _suffix(model: Model, variable: str) -> str:
    return "" if len(model.observed) == 1 else f"{variable}-"


def fixed_batch(model: Model, split: Split, n: int) -> Moment:
    """The first `n` rows of a split with noise of their own, for pictures that can be compared."""
    data = split.take(torch.arange(n))
    on_device = {part: {v: t.to(model.device) for v, t in rows.items()} for part, rows in data.items()}
    return Moment(on_device, Noise(0, "pictures", device=model.device), n)


def samples_of(model: Model, variable: str, n: int, batch: Moment) -> Tensor:
    """(n, *shape) means of the conditional that generates a variable; data roots on its side are held-out rows."""
    joint = model.generator_of(variable)
    _, samples = model.observe(batch)
    given = {v: samples[v][:n] for v in model.data_roots(joint)}
    rows = min(n, batch.rows) if given else n
    return model.draw(joint.name, given, rows, model.noise(0, "pictures"), "mean")[variable]


def write_samples(samples: Tensor, model: Model, variable: str, path: Path, batch: Moment) -> bool:
    """Whether there was anything to draw: images, or points in the plane."""
    space = model.spaces[variable]
    if (images := pictures.render(samples, space)) is not None:
        pictures.save(images, path)
        return True
    if space.shape == (2,):
        means, _ = model.observe(batch)
        pictures.scatter(samples.cpu(), means[variable].cpu(), path)
        return True
    return False


def write_reconstructions(model: Model, variable: str, truth: Tensor, rebuilt: Tensor, path: Path) -> bool:
    left = pictures.render(truth, model.spaces[variable])
    right = pictures.render(rebuilt, model.spaces[variable])
    if left is None or right is None:
        return False
    pictures.save(pictures.side_by_side(left, right), path)
    return True
