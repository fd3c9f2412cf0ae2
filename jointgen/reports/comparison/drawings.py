"""Draws models side by side: their samples as in figures 1 and 4 of AS-VAE, reconstructions as in figure 3.

AS-VAE is Pu et al., "Adversarial Symmetric Variational Autoencoder" (2017).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
import torch
from PIL.Image import Image
from torch import Tensor

from jointgen.contracts.data_keys import asking
from jointgen.contracts.space import Space
from jointgen.data.split import open_split
from jointgen.errors import ConfigError, FileError, JointgenError
from jointgen.inference.loading import open_run
from jointgen.reports import gallery, pictures
from jointgen.reports.comparison.formats import Picture, Pictures
from jointgen.runtime.progress import Counter

SAMPLES, SAMPLE_COLUMNS = 64, 8
RECONSTRUCTIONS, RECONSTRUCTION_COLUMNS = 24, 3


@attrs.frozen(eq=False)
class ModelValues:
    """The values of one variable that a model's pictures show.

    Args:
        label: How the model is called.
        variable: The variable.
        space: Its Space.
        truth: Held-out rows (N, *shape); None where the data is gone.
        samples: Samples (N, *shape).
        rebuilt: Reconstructions (N, *shape) of the first held-out rows; None where the model gives none.
    """

    label: str
    variable: str
    space: Space
    truth: Tensor | None
    samples: Tensor
    rebuilt: Tensor | None


def draw(models: Sequence[tuple[str, str]], device: str) -> Pictures:
    """Draw samples and reconstructions of models, all with the same noise and of the same held-out rows.

    Args:
        models: (label, run) of each model. A run that cannot be drawn gets a remark.
        device: Where the models run.
    """
    values: list[ModelValues] = []
    remarks: list[str] = []
    with Counter("drawing") as counter:
        for done, (label, run) in enumerate(models, 1):
            try:
                found, said = _values_of(label, run, device)
                values += found
                remarks += said
            except JointgenError as error:
                remarks += [f"{run}: no pictures: {line}" for line in str(error).split("\n")]
            counter(done, len(models))
    drawn: list[Picture] = []
    variables = list(dict.fromkeys(one.variable for one in values))
    for variable in variables:
        alike = [one for one in values if one.variable == variable]
        found_pictures = list(_draw_variable(alike, variable if len(variables) > 1 else ""))
        drawn += found_pictures
        if not found_pictures:
            remarks.append(pictures.no_picture(variable, alike[0].space))
    return Pictures(tuple(drawn), tuple(remarks))


@torch.no_grad()
def _values_of(label: str, run: str, device: str) -> tuple[list[ModelValues], list[str]]:
    model, remarks = open_run(run, device)
    view, found = model.view, []
    try:
        split = open_split(model.compiled.binding, "test")
    except FileError:  # its rows are others than those that it was trained on
        raise
    except ConfigError as error:
        if any(view.binding.data_roots(view.binding.generator_of(v)) for v in model.observed):
            raise
        remarks = [*remarks, f"{run}: samples alone: {error.lines[0].removesuffix(asking())}"]
        batch, truth = None, dict[str, Tensor]()
    else:
        batch = gallery.fixed_batch(view, split, min(SAMPLES, len(split)))
        truth, _ = view.observe(batch)
    for v in model.observed:
        rebuilt = None
        if batch is not None and view.can_reconstruct(v):
            rebuilt = view.reconstruct_batch(batch, v)[1][:RECONSTRUCTIONS].cpu()
        samples = gallery.sample_pictures(view, v, SAMPLES, batch).cpu()
        rows = truth[v].cpu() if v in truth else None
        found.append(ModelValues(label, v, model.spaces[v], rows, samples, rebuilt))
    return found, remarks


def _draw_variable(models: Sequence[ModelValues], variable: str) -> Iterable[Picture]:
    """Draw the samples and the reconstructions of one variable; `variable` is empty where it need not be named."""
    of, suffix = (f" of {variable}", f"-{variable}") if variable else ("", "")
    drawn_samples = [
        (one.label, pictures.draw_values(one.samples, one.space, one.truth, SAMPLE_COLUMNS)) for one in models
    ]
    if samples := [(label, image) for label, image in drawn_samples if image is not None]:
        caption = f"Samples{of}, {SAMPLES} of each model: means of p for the same draws of its codes' noise."
        if (first := next((one for one in models if one.truth is not None), None)) is not None:
            assert first.truth is not None
            truth = pictures.draw_values(first.truth, first.space, first.truth, SAMPLE_COLUMNS)
            assert truth is not None, "samples and data have one Space"
            samples = [("held-out data", truth), *samples]
            caption += " Held-out data comes first."
        drawn = pictures.panels(samples)
        yield Picture(f"samples{suffix}", caption, pictures.as_png(drawn))
    if able := [(one, image) for one in models if (image := _draw_grid(one, one.rebuilt)) is not None]:
        assert able[0][0].truth is not None, "rows that are reconstructed are there"
        data = _draw_grid(able[0][0], able[0][0].truth[:RECONSTRUCTIONS])
        assert data is not None, "reconstructions and data have one Space"
        caption = (
            f"Reconstructions{of} of the same held-out rows, in the same places of each block: the mean of p at the "
            "mean code of q."
        )
        drawn = pictures.panels([("held-out data", data), *((one.label, image) for one, image in able)])
        yield Picture(f"reconstructions{suffix}", caption, pictures.as_png(drawn))


def _draw_grid(one: ModelValues, values: Tensor | None) -> Image | None:
    images = None if values is None else pictures.render(values, one.space)
    return None if images is None else pictures.grid(images, RECONSTRUCTION_COLUMNS)
