"""The pictures of `jointgen compare`, in a module of their own, since they load torch and tables do not."""

from __future__ import annotations

from collections.abc import Sequence

from jointgen.cli.models import workers_on
from jointgen.reports.comparison.drawings import draw
from jointgen.reports.comparison.formats import Pictures


def pictures_of(models: Sequence[tuple[str, str]], device: str) -> Pictures:
    """Draw the pictures of a comparison: (label, run folder) of each model, on a device as --device names it."""
    return draw(models, str(workers_on(device).device))
