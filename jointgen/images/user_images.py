"""Reads the user's own images (`--images PATH`) as raw rows of a model's observed variable."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jointgen.contracts.space import Space
from jointgen.errors import ConfigError, FileError, placing
from jointgen.images.decode import error_text, fit_image, quiet_pillow, read_image
from jointgen.images.folders import list_images
from jointgen.runtime.regular_files import check_regular, user_path

Progress = Callable[[int, int], None]
ARRAYS = (".npy", ".npz")
COLOURS = (3, 4)  # channels of a colour image, without and with transparency


@attrs.frozen
class UserImages:
    """Images as the rows of one variable, in the place of a data source's rows.

    Args:
        variable: The variable's name.
        values: (N, *shape) levels 0..bins-1, or model-space values where the Space has no bins.
        origins: The file, or the file and the position in it, that each row comes from.
        skipped: A line for each file that could not be read.
    """

    variable: str
    values: Tensor
    origins: list[str]
    skipped: list[str] = attrs.field(factory=list)

    @classmethod
    def joined(cls, several: Sequence[UserImages]) -> UserImages:
        """Return the images of several paths, one behind the other; there is one at the least."""
        return cls(
            several[0].variable,
            torch.cat([images.values for images in several]),
            [origin for images in several for origin in images.origins],
            [line for images in several for line in images.skipped],
        )

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """Take rows by (B,) int64 index."""
        return {self.variable: self.values[index]}


def read_user_images(
    path: str | Path, space: Space, variable: str = "image", progress: Progress = lambda done, total: None
) -> UserImages:
    """Read images in the size, the colours and the levels of a Space.

    Args:
        path: An image file, a folder of them at any depth, or a .npy or .npz file of uint8 images.
        space: Of the variable.
        variable: Its name.
        progress: Called with (files done, files in all).

    Raises:
        ConfigError: The Space is not of images, the path does not exist, or no image there can be read.
    """
    size = _image_shape(space, variable)
    with placing("--images"):
        path = user_path(path)
        files = _files(path)
    if path.suffix.lower() in ARRAYS and files == [path]:
        pixels, origins = _read_array(path, size, variable)
        skipped: list[str] = []
    else:
        pixels, origins, skipped = _read_files(files, size, progress)
    if not origins:
        raise ConfigError(skipped[:10], "--images")
    return UserImages(variable, to_levels(torch.from_numpy(pixels), space), origins, skipped)


def to_levels(pixels: Tensor, space: Space) -> Tensor:
    """Map uint8 pixels to the levels 0..bins-1 of a Space with bins, otherwise to values between its bounds."""
    if space.bins == 256:
        return pixels
    if space.bins is not None:
        return (pixels.double() * ((space.bins - 1) / 255)).round().long()
    assert space.low is not None and space.high is not None, "checked when the shape was"
    return space.low + pixels.float() * ((space.high - space.low) / 255)


Size = tuple[int, int, int]
"""(height, width, channels)"""


def _image_shape(space: Space, variable: str) -> Size:
    if len(space.shape) != 3 or space.shape[0] not in (1, 3) or space.kind == "label":
        raise ConfigError(f"{variable} is {space}, not a grey or colour image", "--images")
    if space.bins is None and (space.low is None or space.high is None):
        raise ConfigError(f"{variable} is {space}, without a range that pixels could be brought to", "--images")
    channels, height, width = space.shape
    return height, width, channels


# --- files -----------------------------------------------------------------------------------------------------------


def _files(path: Path) -> list[Path]:
    """The file, or every image under the folder by its ending, sorted; hidden files are left out."""
    if not os.path.isdir(path):
        check_regular(path)
        return [path]
    Image.init()
    names = list_images(path, Image.registered_extensions())
    if not names:
        raise FileError(path, "no image in this folder")
    return [path / name for name in names]


def _read_files(files: list[Path], size: Size, progress: Progress) -> tuple[np.ndarray, list[str], list[str]]:
    """(pixels (N, C, H, W) uint8, N paths, a line for each file that cannot be read)."""

    def decode(file: Path) -> np.ndarray | str:
        try:
            return read_image(file, *size)
        except Exception as error:  # damaged files make decoders raise anything from SyntaxError to struct.error
            return error_text(error)

    pixels, paths, skipped = [], [], []
    with quiet_pillow(), ThreadPoolExecutor() as pool:  # Pillow decodes on several threads at once
        for done, (file, image) in enumerate(zip(files, pool.map(decode, files), strict=True), 1):
            if isinstance(image, str):
                skipped.append(f"{file}: cannot be read: {image}")
            else:
                pixels.append(image)
                paths.append(str(file))
            progress(done, len(files))
    return np.stack(pixels) if pixels else np.empty(0, np.uint8), paths, skipped


# --- arrays ----------------------------------------------------------------------------------------------------------


def _read_array(path: Path, size: Size, variable: str) -> tuple[np.ndarray, list[str]]:
    """(pixels (N, C, H, W) uint8, "FILE[i]" for each)."""
    images = _as_images(_load_array(path, variable), path)
    with quiet_pillow():
        pixels = [fit_image(Image.fromarray(image), *size) for image in images]
    return np.stack(pixels), [f"{path}[{i}]" for i in range(len(pixels))]


def _load_array(path: Path, variable: str) -> np.ndarray:
    try:
        with open(path, "rb") as file:  # numpy leaves a torn .npz open when it is given the path
            loaded = np.load(file, allow_pickle=False)
            arrays = {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except Exception as error:  # a torn zip, a pickle, a header of another format
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())}", "--images") from error
    return arrays[_choose(arrays, variable, path)]


def _choose(arrays: dict[str, np.ndarray], variable: str, path: Path) -> str:
    """The array of that variable, or the only one that could be images."""
    fitting = [name for name, array in arrays.items() if array.dtype == np.uint8 and array.ndim >= 2]
    if variable in fitting:
        return variable
    if len(fitting) == 1:
        return fitting[0]
    held = ", ".join(f"{f'{name}: ' if name else ''}{a.dtype} {a.shape}" for name, a in arrays.items()) or "nothing"
    raise ConfigError(
        f"{path}: expected uint8 images, in a .npz as the only such array or as {variable!r}; it holds {held}",
        "--images",
    )


def _as_images(array: np.ndarray, path: Path) -> Iterable[np.ndarray]:
    """Split (N, H, W), (N, H, W, C), (N, C, H, W) or a single image into images (H, W) or (H, W, C)."""
    channels, shape = (1, *COLOURS), array.shape
    if array.ndim == 2 or (array.ndim == 3 and shape[-1] in COLOURS):
        array = array[None]
    if array.ndim == 4 and shape[-1] not in channels:
        array = array.transpose(0, 2, 3, 1)
    if not array.size or array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] not in channels):
        raise ConfigError(f"{path}: shape {shape} is not (N, H, W), (N, H, W, C) or (N, C, H, W)", "--images")
    return [image[..., 0] if image.shape[2:] == (1,) else np.ascontiguousarray(image) for image in array]
