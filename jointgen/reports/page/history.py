"""The pictures of a run over its training, as frames of a slider."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

MOST_FRAMES = 30
MOST_BYTES = 6_000_000  # of all pictures; the newest frame is always shown
NAME = re.compile(r"(?P<what>.+)-step-(?P<step>\d+)\.png")
CAPTIONS = {
    "samples": "samples from the model",
    "reconstructions": "held-out rows, each with its reconstruction at its right",
}


def frames(folder: Path) -> dict[str, Any]:
    """The pictures in `folder` by step, oldest first: evenly spaced ones where there are many or they are large.

    `of` is how many steps there are pictures of.
    """
    found: dict[int, list[tuple[str, Path]]] = {}
    for path in sorted(folder.glob("*.png"), reverse=True):  # samples before reconstructions
        if match := NAME.fullmatch(path.name):
            found.setdefault(int(match["step"]), []).append((match["what"], path))
    steps = _affordable({step: sum(path.stat().st_size for _, path in found[step]) for step in sorted(found)})
    shown = [{"step": step, "pictures": [_picture(what, path) for what, path in found[step]]} for step in steps]
    return {"frames": shown, "of": len(found)}


def _affordable(sizes: dict[int, int]) -> list[int]:
    """As many of the steps as there is room for, evenly spaced, the last one among them."""
    steps = list(sizes)
    for count in range(min(MOST_FRAMES, len(steps)), 1, -1):
        chosen = spaced(steps, count)
        if sum(sizes[step] for step in chosen) <= MOST_BYTES:
            return chosen
    return steps[-1:]


def spaced(steps: Sequence[int], count: int) -> list[int]:
    """`count` > 1 of them at even distances, the first and the last among them.

    >>> spaced([1, 2, 3, 4, 5], 3)
    [1, 3, 5]
    """
    return [steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)]


def _picture(what: str, path: Path) -> dict[str, Any]:
    """`ratio`: of its width to its height."""
    kind, _, variable = what.partition("-")
    caption = CAPTIONS.get(kind, what) + (f": {variable}" if variable else "")
    with Image.open(path) as image:
        ratio = image.width / image.height
    return {"what": what, "caption": caption, "uri": png_uri(path.read_bytes()), "ratio": round(ratio, 4)}


def png_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
