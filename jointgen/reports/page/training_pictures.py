"""Shows the pictures that a run drew while it trained, as frames of a slider."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from jointgen.errors import FileError
from jointgen.reports.html import png_uri
from jointgen.runtime.console import log_once
from jointgen.runtime.regular_files import check_regular, read_regular

MAX_FRAMES = 30
MAX_BYTES = 6_000_000
"""At most so many bytes of pictures; the newest frame is always shown."""
MAX_PICTURE = 256 << 20
"""The largest file of a picture."""
FILE_NAME = re.compile(r"(?P<kind>[^-]+)(?:-(?P<variable>.+))?-step-(?P<step>\d+)\.png")
CAPTIONS = {
    "samples": "samples from the model",
    "reconstructions": "held-out rows, each with its reconstruction to its right",
}


def frames(folder: Path) -> dict[str, Any]:
    """Read the pictures in a run's folder `samples`.

    Where there are many steps, or their pictures are large, evenly spaced ones are shown. What is no picture is left
    out, which is said.

    Returns:
        {"frames": for each step that is shown its number and its pictures, oldest first, "of": the number of steps
        that there are pictures of}.
    """
    found: dict[int, dict[Path, int]] = {}
    for path in sorted(folder.glob("*.png"), reverse=True):  # samples before reconstructions
        if match := FILE_NAME.fullmatch(path.name):
            with _leaving_out():
                found.setdefault(int(match["step"]), {})[path] = check_regular(path, MAX_PICTURE).st_size
    sizes = {step: sum(found[step].values()) for step in sorted(found) if found[step]}
    counts = range(min(MAX_FRAMES, len(sizes)), 1, -1)
    choices = (evenly_spaced(list(sizes), count) for count in counts)
    affordable = (steps for steps in choices if sum(sizes[step] for step in steps) <= MAX_BYTES)
    shown = next(affordable, list(sizes)[-1:])
    return {
        "frames": [{"step": step, "pictures": pictures} for step in shown if (pictures := _pictures(found[step]))],
        "of": len(sizes),
    }


def evenly_spaced(steps: Sequence[int], count: int) -> list[int]:
    """Choose `count` > 1 of the steps at even distances, the first and the last among them.

    >>> evenly_spaced([1, 2, 3, 4, 5], 3)
    [1, 3, 5]
    """
    return [steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)]


@contextmanager
def _leaving_out() -> Iterator[None]:
    try:
        yield
    except FileError as error:
        log_once(f"{error}; it is not on the page")


def _pictures(paths: Iterable[Path]) -> list[dict[str, Any]]:
    pictures = []
    for path in paths:
        with _leaving_out():
            pictures.append(_picture(path))
    return pictures


def _picture(path: Path) -> dict[str, Any]:
    """Read a picture. Its `ratio` is that of its width to its height. FileError where it is none."""
    match = FILE_NAME.fullmatch(path.name)
    assert match is not None, path
    title = path.name.partition("-step-")[0]
    caption = CAPTIONS.get(match["kind"], title) + (f": {match['variable']}" if match["variable"] else "")
    data = read_regular(path, MAX_PICTURE)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            ratio = image.width / image.height
            image.verify()
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise FileError(path, f"is no picture ({type(error).__name__})") from None
    return {"title": title, "caption": caption, "uri": png_uri(data), "ratio": round(ratio, 4)}
