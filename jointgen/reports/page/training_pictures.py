"""Shows the pictures that a run drew while it trained, as frames of a slider."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from jointgen.reports.html import png_uri

MAX_FRAMES = 30
MAX_BYTES = 6_000_000
"""At most so many bytes of pictures; the newest frame is always shown."""
FILE_NAME = re.compile(r"(?P<kind>[^-]+)(?:-(?P<variable>.+))?-step-(?P<step>\d+)\.png")
CAPTIONS = {
    "samples": "samples from the model",
    "reconstructions": "held-out rows, each with its reconstruction to its right",
}


def frames(folder: Path) -> dict[str, Any]:
    """Read the pictures in a run's folder `samples`.

    Where there are many steps, or their pictures are large, evenly spaced ones are shown.

    Returns:
        {"frames": for each step that is shown its number and its pictures, oldest first, "of": the number of steps
        that there are pictures of}.
    """
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.glob("*.png"), reverse=True):  # samples before reconstructions
        if match := FILE_NAME.fullmatch(path.name):
            found.setdefault(int(match["step"]), []).append(path)
    sizes = {step: sum(path.stat().st_size for path in found[step]) for step in sorted(found)}
    counts = range(min(MAX_FRAMES, len(sizes)), 1, -1)
    choices = (evenly_spaced(list(sizes), count) for count in counts)
    affordable = (steps for steps in choices if sum(sizes[step] for step in steps) <= MAX_BYTES)
    shown = next(affordable, list(sizes)[-1:])
    return {
        "frames": [{"step": step, "pictures": list(map(_picture, found[step]))} for step in shown],
        "of": len(found),
    }


def evenly_spaced(steps: Sequence[int], count: int) -> list[int]:
    """Choose `count` > 1 of the steps at even distances, the first and the last among them.

    >>> evenly_spaced([1, 2, 3, 4, 5], 3)
    [1, 3, 5]
    """
    return [steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)]


def _picture(path: Path) -> dict[str, Any]:
    """Read a picture. Its `ratio` is that of its width to its height."""
    match = FILE_NAME.fullmatch(path.name)
    assert match is not None, path
    title = path.name.partition("-step-")[0]
    caption = CAPTIONS.get(match["kind"], title) + (f": {match['variable']}" if match["variable"] else "")
    with Image.open(path) as image:
        ratio = image.width / image.height
    return {"title": title, "caption": caption, "uri": png_uri(path.read_bytes()), "ratio": round(ratio, 4)}
