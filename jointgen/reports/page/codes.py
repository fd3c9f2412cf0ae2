"""Shows a model's latent codes: a map of them, paths between them, and the effect of single dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor

from jointgen.contracts.space import Space
from jointgen.data.split import Split
from jointgen.errors import ConfigError
from jointgen.inference.bulk import encode_many
from jointgen.inference.encoded_rows import EncodedRows, decode_between, encode_rows, latent_variables
from jointgen.inference.row_batches import reconstructed_variable
from jointgen.reports import pictures
from jointgen.reports.html import png_uri
from jointgen.reports.page.curves import rounded
from jointgen.runtime.devices import in_float64

if TYPE_CHECKING:
    from jointgen.inference.model import Model

MAP_ROWS = 1000
"""At most so many held-out rows are on the map of codes."""
PATHS, PATH_STEPS = 6, 9
"""So many pairs of rows are interpolated between, with so many pictures each."""
MAX_DIMENSIONS, MAX_DEVIATIONS = 8, 2.5
"""So many dimensions are traversed, up to so many standard deviations to either side."""
ACTIVE_VARIANCE = 0.01
"""A dimension whose mean code varies more over rows is active (Burda et al. 2016, section 5.2)."""


def interpolation_rows(model: Model, split: Split) -> EncodedRows:
    """Encode the first held-out rows, to interpolate between.

    Raises:
        ConfigError: The model cannot decode a code, what it decodes makes no picture, or there are no two rows.
    """
    if len(split) < 2:
        raise ConfigError(f"it takes two held-out rows, and there is {len(split)}")
    latent_variables(model)
    variable = reconstructed_variable(model)
    if reason := pictures.no_picture(variable, model.spaces[variable]):
        raise ConfigError(reason)
    return encode_rows(model, split.first(2 * PATHS))


# --- between the codes of two rows -----------------------------------------------------------------------------------


def interpolations(rows: EncodedRows) -> dict[str, Any]:
    """Decode points on the straight lines between the codes of rows 0 and 1, of rows 2 and 3, and so on.

    Returns:
        {"images": [first ends, paths, second ends]}, or {"lines": ...} where the variable is a point in the plane.
    """
    begins = torch.arange(0, len(rows.codes) - 1, 2)
    decoded = decode_between(rows, begins, begins + 1, PATH_STEPS)
    if not rows.model.spaces[rows.variable].is_image:
        return {"lines": _lines(decoded, [f"rows {i} and {i + 1}" for i in begins.tolist()])}
    draw = _drawer(rows)
    return {"images": [draw(rows.truth[begins], 1), draw(decoded, PATH_STEPS), draw(rows.truth[begins + 1], 1)]}


# --- along one dimension ---------------------------------------------------------------------------------------------


def traversal(rows: EncodedRows, codes: Tensor) -> dict[str, Any]:
    """Move the first row's code along the dimensions in which the mean codes vary most, and decodes it.

    Each dimension goes from MAX_DEVIATIONS standard deviations below the mean of the codes to as many above it, within
    the bounds of the code's Space.

    Args:
        rows: The rows.
        codes: Mean codes of many rows, (N, *Z).
    """
    flat = in_float64(codes.flatten(1))
    variance, mean = flat.var(0), flat.mean(0)
    top = variance.argsort(descending=True, stable=True)[:MAX_DIMENSIONS]
    reach = torch.linspace(-MAX_DEVIATIONS, MAX_DEVIATIONS, PATH_STEPS, dtype=torch.float64)
    places = mean[top, None] + reach * variance[top, None].sqrt()
    space: Space = rows.model.spaces[rows.code]
    if space.low is not None or space.high is not None:
        places = places.clamp(space.low, space.high)
    moved = rows.codes[:1].flatten(1).repeat(len(top) * PATH_STEPS, 1)
    moved[torch.arange(len(moved)), top.repeat_interleave(PATH_STEPS).to(moved.device)] = places.flatten().to(moved)
    decoded = rows.decode(moved.view(-1, *rows.codes.shape[1:]), torch.zeros(len(moved), dtype=torch.long))

    titles = [f"{rows.code}{_index(int(d), codes.shape[1:])}" for d in top]
    dimensions: list[dict[str, Any]] = [
        {"title": title, "variance": f"{variance[d]:.3g}"} for title, d in zip(titles, top, strict=True)
    ]
    shown = {
        "dimensions": dimensions,
        "active": int((variance > ACTIVE_VARIANCE).sum()),
        "size": flat.shape[1],
        "threshold": ACTIVE_VARIANCE,
        "reach": MAX_DEVIATIONS,
    }
    if not rows.model.spaces[rows.variable].is_image:
        return {**shown, "lines": _lines(decoded, titles)}
    draw = _drawer(rows)
    for dimension, strip in zip(dimensions, decoded.view(len(top), PATH_STEPS, *decoded.shape[1:]), strict=True):
        dimension["image"] = draw(strip, PATH_STEPS)
    return shown


def _index(flat_index: int, shape: torch.Size) -> str:
    """Write the place of a dimension: [7] in a vector; [0, 3, 3] in a code of channels, rows and columns."""
    return str([int(i) for i in torch.unravel_index(torch.tensor(flat_index), shape)])


# --- the map ---------------------------------------------------------------------------------------------------------


def map_codes(model: Model, split: Split) -> tuple[dict[str, Tensor], Tensor | None]:
    """Encode held-out rows for the map.

    Returns:
        The mean codes (N, *Z) by latent variable, and the labels (N,) of the rows where the data has any, also where
        the run did not read them.

    Raises:
        ConfigError: The model has no codes, or there is a single row.
    """
    names = latent_variables(model)
    rows = split.spread(min(MAP_ROWS, model.compiled.recipe.eval.rows or MAP_ROWS))
    if len(rows) < 2:
        raise ConfigError(f"it takes two held-out rows, and there is {len(rows)}")
    codes = encode_many(model, rows, progress=lambda done, total: None)
    encoded_parts = dict.fromkeys(model.binding.data_roots(model.joints["q"]).values())
    encoded = attrs.evolve(rows, components={part: rows.components[part] for part in encoded_parts})
    labels = encoded.labels(torch.arange(len(rows)))
    return {name: codes[name] for name in names}, next(iter(labels.values()), None)


def code_map(name: str, codes: Tensor, labels: Tensor | None) -> dict[str, Any]:
    """Places mean codes in the plane.

    Codes of one or two dimensions are shown as they are (one dimension: a histogram), others along their two main
    axes. Rows whose code is not finite are left out.

    Args:
        name: The latent variable.
        codes: (N, *Z).
        labels: (N,), or None.

    Raises:
        ConfigError: Fewer than two codes are finite.
    """
    flat = in_float64(codes.flatten(1))
    finite = flat.isfinite().all(1)
    flat = flat[finite]
    if len(flat) < 2:
        raise ConfigError(f"the codes {name} are not finite numbers")
    size = flat.shape[1]
    if size <= 2:
        places, method = flat, "the mean codes themselves"
        titles = [f"{name}[{i}]" for i in range(size)]
    else:
        places, shares = principal_plane(flat)
        method = f"principal component analysis of the mean codes, from {size:,} dimensions to 2"
        titles = [f"axis {i + 1}: {share:.0%} of the variance" for i, share in enumerate(shares)]
    return {
        "places": [[rounded(v) for v in axis] for axis in places.T.tolist()],
        "titles": titles,
        "method": method,
        "rows": finite.nonzero().flatten().tolist(),
        "labels": labels[finite].tolist() if labels is not None else None,
    }


def principal_plane(rows: Tensor) -> tuple[Tensor, list[float]]:
    """Projects rows (N, D) onto the two axes along which they vary most (principal component analysis).

    The farthest row lies on the positive side of each axis, so that the signs are always the same.

    Returns:
        The coordinates (N, 2), and the share of the variance that each axis has.
    """
    u, s, _ = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    places = u[:, :2] * s[:2]
    farthest = places.gather(0, places.abs().argmax(0, keepdim=True))  # (1, 2)
    total = float(s.square().sum())
    return places * farthest.sign(), [float(v) / total if total else 0.0 for v in s[:2].square()]


# --- drawing ---------------------------------------------------------------------------------------------------------


def _drawer(rows: EncodedRows) -> Callable[[Tensor, int], dict[str, Any]]:
    """Make a function that draws values (N, *X) as a grid of so many columns."""
    space = rows.model.spaces[rows.variable]

    def draw(values: Tensor, columns: int) -> dict[str, Any]:
        images = pictures.render(values, space)
        assert images is not None, "interpolation_rows gives only rows that can be drawn"
        image = pictures.grid(images, columns)
        return {"uri": png_uri(pictures.as_png(image)), "width": image.width, "height": image.height}

    return draw


def _lines(points: Tensor, names: list[str]) -> list[dict[str, Any]]:
    """Cuts points (lines * PATH_STEPS, 2) into named lines in the plane."""
    lines = in_float64(points).view(-1, PATH_STEPS, 2).tolist()
    return [
        {"name": name, "x": [rounded(x) for x, _ in line], "y": [rounded(y) for _, y in line]}
        for name, line in zip(names, lines, strict=True)
    ]
