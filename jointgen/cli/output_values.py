"""Values of a variable as files for the user: a picture, arrays, images in a folder, a film."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from jointgen.cli.arguments import ARRAY, FOLDER, PICTURE
from jointgen.cli.output_files import Output, write_arrays, writing_output
from jointgen.contracts.observation import has_pixels, pixels
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.reports.gallery import check_picture
from jointgen.reports.pictures import save
from jointgen.runtime.atomic_files import replace_bytes, sync_folder

GREY_OR_COLOUR = (1, 3)
"""The channels of images that are written one by one."""


def check_values(output: Output, variable: str, space: Space, *, points: bool = False) -> None:
    """Check that values of a variable can be written there.

    Args:
        output: Where.
        variable: Its name.
        space: Its Space.
        points: Whether points in the plane make a picture, too.

    Raises:
        ConfigError: They are no images, or none with a range and the channels of a file.
    """
    if output.ending == FOLDER:
        if not has_pixels(space) or space.shape[0] not in GREY_OR_COLOUR:
            raise ConfigError(f"{variable} is {space}, not grey or colour images in a known range", "-o")
    elif output.ending != ARRAY:
        check_picture(variable, space, points=points)


def write_values(
    output: Output,
    variable: str,
    values: Tensor,
    space: Space,
    picture: Callable[[], Image.Image],
    *,
    arrays: Mapping[str, np.ndarray] | None = None,
    texts: Mapping[str, Sequence[str]] | None = None,
    first: int = 0,
) -> None:
    """Write values of a variable as a picture, as arrays, or as images in a folder.

    Args:
        output: Where; `check_values` has passed.
        variable: Its name.
        values: (N, *shape) in model space.
        space: Its Space.
        picture: Draws the picture.
        arrays: Further arrays that belong to the values.
        texts: Texts that belong to the values.
        first: The number of the first image in a folder.
    """
    if output.ending == PICTURE:
        with writing_output(output.path):
            save(picture(), output.path)
    elif output.ending == FOLDER:
        _write_images(output, pixels(values, space).cpu(), first)
    else:
        write_arrays(output.path, {variable: values.cpu().numpy(), **(arrays or {})}, texts or {})


def _write_images(output: Output, images: Tensor, first: int) -> None:
    """Write images (N, C, H, W) uint8 aside, and then move them to their places."""
    output.check_free(first, len(images))
    folder, place = output.path, output.path.resolve()  # "." has no name
    aside = place.with_name(f".tmp-{place.name}")
    with writing_output(folder):
        try:
            aside.mkdir()
            for number, image in enumerate(images, first):
                levels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
                Image.fromarray(levels.contiguous().numpy()).save(aside / output.image(number).name)
            if folder.exists():
                for file in sorted(aside.iterdir()):
                    file.rename(folder / file.name)
            else:
                aside.rename(folder)
            sync_folder(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def write_film(path: Path, frames: Sequence[Image.Image], milliseconds: int) -> None:
    """Write pictures of one size as a GIF that goes round for ever."""
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0)
    with writing_output(path):
        replace_bytes(path, buffer.getvalue())
