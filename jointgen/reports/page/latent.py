"""What a model's codes are like: a map of them, paths between them, and what each dimension does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from jointgen.contracts.space import Space
from jointgen.data.split import Split
from jointgen.errors import ConfigError
from jointgen.inference.bulk import BATCH, encode_rows, rebuildable
from jointgen.inference.model import Model
from jointgen.reports import pictures
from jointgen.reports.gallery import fixed_batch
from jointgen.reports.page.curves import rounded
from jointgen.reports.page.history import png_uri

MAPPED = 1000  # held-out rows on the map of codes
PATHS, STEPS = 6, 9  # pairs of rows between which is interpolated, and the pictures of a path
DIMENSIONS, REACH = 8, 2.5  # how many are traversed, and how many standard deviations to each side
ACTIVE = 0.01
"""A dimension whose mean code varies more is active (Burda et al. 2016, section 5.2)."""


@attrs.frozen
class Rows:
    """A few held-out rows: what was observed of them, by variable, and their codes (N, *Z)."""

    model: Model
    variable: str
    code: str
    truth: Tensor
    known: dict[str, Tensor]
    codes: Tensor

    def decode(self, codes: Tensor, rows: Tensor) -> Tensor:
        """(M, *Z), (M,) rows that the other variables are taken from -> means of p, (M, *X), on the CPU."""
        found = [self._decode(codes[i : i + BATCH], rows[i : i + BATCH]) for i in range(0, len(codes), BATCH)]
        return torch.cat(found)

    def _decode(self, codes: Tensor, rows: Tensor) -> Tensor:
        given = {name: value[rows] for name, value in self.known.items()} | {self.code: codes}
        noise = self.model.noise(0, "report")
        return self.model.draw("p", given, len(codes), noise, "mean")[self.variable].cpu()


def latents(model: Model) -> list[str]:
    """Variables that q draws and no data source yields. Raises ConfigError where there are none."""
    factors = model.joint("q", "a code").factors
    observed = {v for joint in model.joints.values() for v in model.data_roots(joint)}
    if found := [v for f in factors if not f.is_root for v in f.out if v not in observed]:
        return found
    raise ConfigError("this model has no latent code: q draws nothing that is not data")


def rows_of(model: Model, split: Split) -> Rows:
    """The rows that are interpolated between. Raises ConfigError where nothing can be decoded, or made a picture of."""
    names, variable = latents(model), rebuildable(model)
    space = model.spaces[variable]
    if not (_is_image(space) or space.shape == (2,)):
        raise ConfigError(f"{variable} is {space}, which makes no picture")
    (code,) = names  # as `rebuildable` promises
    batch = fixed_batch(model, split, min(2 * PATHS, len(split)))
    means, samples = model.observe(batch)
    given = {name: value for name, value in samples.items() if name != code}
    codes = model.draw("q", given, batch.rows, model.noise(0, "encode"), "mean")[code]
    known = {name: value for name, value in given.items() if name != variable}
    return Rows(model, variable, code, means[variable].cpu(), known, codes)


def _is_image(space: Space) -> bool:
    return pictures.render(torch.zeros(1, *space.shape), space) is not None


# --- between the codes of two rows -----------------------------------------------------------------------------------


def interpolations(rows: Rows) -> dict[str, Any]:
    """Along the straight line between the codes of rows 0 and 1, of 2 and 3, and so on."""
    begins = torch.arange(0, len(rows.codes) - 1, 2)
    share = torch.linspace(0, 1, STEPS, device=rows.codes.device).view(1, -1, *[1] * (rows.codes.ndim - 1))
    start, end = rows.codes[begins, None], rows.codes[begins + 1, None]
    path = (start + share * (end - start)).flatten(0, 1)  # (pairs * STEPS, *Z)
    found = rows.decode(path, begins.repeat_interleave(STEPS))
    ends = rows.truth[begins], rows.truth[begins + 1]
    if not _is_image(rows.model.spaces[rows.variable]):
        return {"lines": _polylines(found, STEPS, [f"rows {i} and {i + 1}" for i in begins.tolist()])}
    draw = _drawer(rows)
    return {"images": [draw(ends[0], 1), draw(found, STEPS), draw(ends[1], 1)]}


# --- along one dimension ---------------------------------------------------------------------------------------------


def traversal(rows: Rows, codes: Tensor) -> dict[str, Any]:
    """The first row's code, moved along the dimensions in which the mean codes (N, *Z) vary most.

    From REACH standard deviations below the codes' mean to as many above it, within the code's own bounds.
    """
    flat = codes.flatten(1).double()
    variance, mean = flat.var(0), flat.mean(0)
    top = variance.argsort(descending=True, stable=True)[:DIMENSIONS]
    reach = torch.linspace(-REACH, REACH, STEPS, dtype=torch.float64)
    places = _bounded(mean[top, None] + reach * variance[top, None].sqrt(), rows.model.spaces[rows.code])
    moved = rows.codes[:1].flatten(1).repeat(len(top) * STEPS, 1)
    moved[torch.arange(len(moved)), top.repeat_interleave(STEPS).to(moved.device)] = places.flatten().to(moved)
    found = rows.decode(moved.view(-1, *rows.codes.shape[1:]), torch.zeros(len(moved), dtype=torch.long))
    titles = [f"{rows.code}{_place(int(d), codes.shape[1:])}" for d in top]
    described = [{"title": t, "variance": f"{variance[d]:.3g}"} for t, d in zip(titles, top, strict=True)]
    counts = {"active": int((variance > ACTIVE).sum()), "size": flat.shape[1]}
    if not _is_image(rows.model.spaces[rows.variable]):
        return {**counts, "dimensions": described, "lines": _polylines(found, STEPS, titles)}
    draw, strips = _drawer(rows), found.view(len(top), STEPS, *found.shape[1:])
    return {**counts, "dimensions": [{**d, "image": draw(s, STEPS)} for d, s in zip(described, strips, strict=True)]}


def _bounded(values: Tensor, space: Space) -> Tensor:
    return values.clamp(space.low, space.high) if space.low is not None or space.high is not None else values


def _place(index: int, shape: torch.Size) -> str:
    """[7] in a vector; [0, 3, 3] in a code of channels, rows and columns."""
    return str([int(i) for i in torch.unravel_index(torch.tensor(index), shape)])


# --- the map ---------------------------------------------------------------------------------------------------------


def code_map(name: str, codes: Tensor, labels: Tensor | None) -> dict[str, Any]:
    """(N, *Z) mean codes in the plane: as they are, or along their two main axes; of one dimension a histogram."""
    flat = codes.flatten(1).double()
    finite = flat.isfinite().all(1)
    flat = flat[finite]
    if len(flat) < 2:
        raise ConfigError(f"the codes {name} are not finite numbers")
    places, titles, how = _plane(name, flat)
    return {
        "places": [[rounded(v) for v in axis] for axis in places.T.tolist()],
        "titles": titles,
        "how": how,
        "rows": finite.nonzero().flatten().tolist(),
        "labels": labels[finite].tolist() if labels is not None else None,
    }


def _plane(name: str, flat: Tensor) -> tuple[Tensor, list[str], str]:
    size = flat.shape[1]
    if size <= 2:
        return flat, [f"{name}[{i}]" for i in range(size)], "the mean codes themselves"
    places, shares = principal_plane(flat)
    titles = [f"axis {i + 1}: {share:.0%} of the variance" for i, share in enumerate(shares)]
    return places, titles, f"principal component analysis of the mean codes, from {size:,} dimensions to 2"


def principal_plane(rows: Tensor) -> tuple[Tensor, list[float]]:
    """(N, D) -> their coordinates on the two axes along which they vary most, (N, 2), and the share of the variance
    that each has. The farthest row is on the positive side of an axis, so that the signs are always the same."""
    u, s, _ = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    places = u[:, :2] * s[:2]
    farthest = places.gather(0, places.abs().argmax(0, keepdim=True))  # (1, 2)
    total = float(s.square().sum())
    return places * farthest.sign(), [float(v) / total if total else 0.0 for v in s[:2].square()]


def map_codes(model: Model, split: Split) -> tuple[dict[str, Tensor], Tensor | None]:
    """Mean codes of held-out rows by latent variable, (N, *Z), and the labels (N,) of the rows where there are any."""
    names = latents(model)
    rows = split.first(min(MAPPED, model.compiled.recipe.eval.rows or MAPPED))
    found = encode_rows(model, rows, progress=lambda done, total: None)
    return {name: found[name] for name in names}, _labels(model, rows)


def _labels(model: Model, split: Split) -> Tensor | None:
    """Of the rows that q encodes, also where the run did not read them."""
    roots = model.data_roots(model.joints["q"]).values()
    of_q = attrs.evolve(split, components={part: split.components[part] for part in dict.fromkeys(roots)})
    return next(iter(of_q.labels(torch.arange(len(split))).values()), None)


# --- drawing ---------------------------------------------------------------------------------------------------------


def _drawer(rows: Rows) -> Callable[[Tensor, int], dict[str, Any]]:
    """(N, *X), columns -> a picture of them."""
    space = rows.model.spaces[rows.variable]

    def draw(values: Tensor, columns: int) -> dict[str, Any]:
        images = pictures.render(values, space)
        assert images is not None, "rows_of makes only rows that can be drawn"
        image = pictures.grid(images, columns)
        return {"uri": png_uri(pictures.as_png(image)), "width": image.width, "height": image.height}

    return draw


def _polylines(points: Tensor, steps: int, names: list[str]) -> list[dict[str, Any]]:
    """(lines * steps, 2) -> lines in the plane."""
    lines = points.double().view(-1, steps, 2).tolist()
    return [
        {"name": name, "x": [rounded(x) for x, _ in line], "y": [rounded(y) for _, y in line]}
        for name, line in zip(names, lines, strict=True)
    ]
