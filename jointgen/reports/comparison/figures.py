"""Models side by side in pictures: samples as in AS-VAE's figures 1 and 4, reconstructions as in its figure 3."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence

import attrs
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from jointgen.contracts.space import Space
from jointgen.data.split import open_split
from jointgen.errors import JointgenError
from jointgen.inference.loading import open_run
from jointgen.reports import gallery, pictures
from jointgen.reports.comparison.page import Picture, Pictures
from jointgen.runtime.progress import Counter

SAMPLES, COLUMNS = 64, 8
REBUILT, REBUILT_COLUMNS = 24, 3
WIDTH = 2400  # pixels that panels side by side may take before they go on below
_TITLE, _MARGIN, _BETWEEN = 20, 12, 24
_INK = (31, 35, 40)


@attrs.frozen(eq=False)
class Shown:
    """What one model shows of one variable, (N, *shape) each; `rebuilt` None: it does not reconstruct."""

    label: str
    variable: str
    space: Space
    truth: Tensor
    samples: Tensor
    rebuilt: Tensor | None


def draw(models: Sequence[tuple[str, str]], device: str) -> Pictures:
    """Samples and reconstructions of models, each a label and a run: all at the same codes' noise and held-out rows.

    A run that gives no picture is remarked on.
    """
    shown: list[Shown] = []
    remarks: list[str] = []
    with Counter("drawing") as counter:
        for done, (label, run) in enumerate(models, 1):
            try:
                own, told = _shown(label, run, device)
                shown += own
                remarks += told
            except JointgenError as error:
                remarks += [f"{run}: no pictures: {line}" for line in str(error).split("\n")]
            counter(done, len(models))
    found: list[Picture] = []
    for variable in dict.fromkeys(one.variable for one in shown):
        of = [one for one in shown if one.variable == variable]
        several = len({one.variable for one in shown}) > 1
        found += _samples(of, f" of {variable}" if several else "")
        found += _reconstructions(of, f" of {variable}" if several else "")
        if not any(_image(one, one.samples) for one in of):
            remarks.append(f"{variable} is {of[0].space}, which makes no picture")
    return Pictures(tuple(found), tuple(remarks))


@torch.no_grad()
def _shown(label: str, run: str, device: str) -> tuple[list[Shown], list[str]]:
    model, remarks = open_run(run, device)
    split = open_split(model.compiled, "test")
    batch = gallery.fixed_batch(model, split, min(SAMPLES, len(split)))
    truth, _ = model.observe(batch)
    found = []
    for variable in model.observed:
        rebuilt = model.rebuild(batch, variable)[1][:REBUILT].cpu() if model.can_reconstruct(variable) else None
        samples = gallery.samples_of(model, variable, SAMPLES, batch).cpu()
        found.append(Shown(label, variable, model.spaces[variable], truth[variable].cpu(), samples, rebuilt))
    return found, remarks


# --- the two pictures ------------------------------------------------------------------------------------------------


def _samples(shown: Sequence[Shown], of: str) -> Iterable[Picture]:
    made = [(one.label, image) for one in shown if (image := _image(one, one.samples)) is not None]
    if made:
        truth = _image(shown[0], shown[0].truth)
        assert truth is not None, "samples are of the data's space"
        caption = (
            f"Samples{of}, {SAMPLES} of each model: means of p at the same draws of the codes' noise; "
            "held-out data first."
        )
        yield Picture("samples" + of.replace(" of ", "-"), caption, _png([("held-out data", truth), *made]))


def _reconstructions(shown: Sequence[Shown], of: str) -> Iterable[Picture]:
    able = [one for one in shown if one.rebuilt is not None and pictures.render(one.rebuilt, one.space) is not None]
    if able:
        first = able[0]
        panels = [("truth", _grid(first, first.truth[:REBUILT]))]
        panels += [(one.label, _grid(one, one.rebuilt)) for one in able if one.rebuilt is not None]
        caption = (
            f"Reconstructions{of} of the same held-out rows, the same places in each block: the mean of p at q's mean "
            "code."
        )
        yield Picture("reconstructions" + of.replace(" of ", "-"), caption, _png(panels))


def _image(one: Shown, values: Tensor) -> Image.Image | None:
    """A grid of images, or points in the plane over the true ones."""
    images = pictures.render(values, one.space)
    if images is not None:
        return pictures.grid(images, COLUMNS)
    return pictures.scatter(values, one.truth) if one.space.shape == (2,) else None


def _grid(one: Shown, values: Tensor) -> Image.Image:
    images = pictures.render(values, one.space)
    assert images is not None, "see _reconstructions"
    return pictures.grid(images, REBUILT_COLUMNS)


# --- panels ----------------------------------------------------------------------------------------------------------


def _png(panels: Sequence[tuple[str, Image.Image]]) -> bytes:
    buffer = io.BytesIO()
    side_by_side(panels).save(buffer, format="PNG")
    return buffer.getvalue()


def side_by_side(panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Panels with their titles above them, in as few rows as WIDTH allows."""
    width, height = (max(getattr(image, side) for _, image in panels) for side in ("width", "height"))
    down = math.ceil(len(panels) / max(1, (WIDTH + _BETWEEN) // (width + _BETWEEN)))
    across = math.ceil(len(panels) / down)
    font = ImageFont.load_default(_TITLE)
    titles = [_wrapped(title, width, font) for title, _ in panels]
    line = _TITLE + 4
    head = line * max(title.count("\n") + 1 for title in titles) + 6
    size = (across * (width + _BETWEEN) - _BETWEEN + 2 * _MARGIN, down * (head + height + _BETWEEN) - _BETWEEN)
    canvas = Image.new("RGB", (size[0], size[1] + 2 * _MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (title, (_, image)) in enumerate(zip(titles, panels, strict=True)):
        left = _MARGIN + i % across * (width + _BETWEEN)
        top = _MARGIN + i // across * (head + height + _BETWEEN)
        middle = (left + width / 2, top + head - 6)
        draw.multiline_text(middle, title, fill=_INK, font=font, anchor="md", align="center")
        canvas.paste(image, (left, top + head))
    return canvas


def _wrapped(title: str, width: int, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """In lines that are not wider than `width` pixels, broken after words where that is enough."""
    lines = [""]
    for word in re.findall(r"[^\s_,/-]*[\s_,/-]*", title):
        if font.getlength((lines[-1] + word).strip()) > width:
            lines.append("")
        for letter in word:
            if font.getlength((lines[-1] + letter).strip()) > width:
                lines.append("")
            lines[-1] += letter
    return "\n".join(line.strip() for line in lines if line.strip())
