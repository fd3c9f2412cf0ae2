"""`jointgen score`, `interpolate`, `edit` and `complete`: questions that people have about their own rows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from jointgen.cli.arguments import FILM, Arguments
from jointgen.cli.evaluate import chosen_metrics
from jointgen.cli.models import open_model_of, origins_of, rows_of
from jointgen.cli.output_files import Output, write_table
from jointgen.cli.output_values import check_values, write_film, write_values
from jointgen.contracts.space import Space
from jointgen.data.split import open_split
from jointgen.errors import ConfigError, placing
from jointgen.evaluation.scores import RowFigure, ranks, row_figures, score
from jointgen.images.decode import read_image, upright_size
from jointgen.inference import bulk as inference
from jointgen.inference.attributes import Attribute
from jointgen.inference.completion import complete, completed_variable
from jointgen.inference.encoded_rows import decode_between, encode_rows
from jointgen.inference.row_batches import reconstructed_variable
from jointgen.reports import pictures
from jointgen.runtime.console import say
from jointgen.runtime.progress import Counter
from jointgen.runtime.regular_files import check_regular, user_path

RARE = 0.05
"""The share of held-out rows by which `score` says how many rows are unusual."""
GREY = 0.5
"""What a missing pixel looks like, on the way from the lowest value to the highest."""
FRAME_MS = 80
"""How long a picture of a film is shown, in milliseconds."""


# --- score -----------------------------------------------------------------------------------------------------------


def score_command(arguments: Arguments) -> None:
    """Write figures of every row, and which share of held-out rows is as bad or worse."""
    output: Output = arguments.output
    model, _ = open_model_of(arguments)
    variable = inference.encoded_variable(model) if arguments.images else model.observed[0]
    figures = row_figures(chosen_metrics(arguments.metrics, model), model, asked=arguments.metrics is not None)
    split = rows_of(arguments, model, variable, arguments.split)
    is_own = arguments.images is None and arguments.values is None and arguments.split == "test"
    ranked = [one for one in figures if one.figure.better is not None] if arguments.reference else []
    held_out = None if is_own or not ranked else open_split(model.compiled.binding, "test").spread(arguments.reference)
    table = model.compiled.recipe.eval
    settings = {"batch": table.batch, "seed": model.compiled.recipe.seed}
    with Counter("scoring") as counter:
        found = score(model, split, figures, **settings, progress=counter)
    reference = {}
    if held_out is not None:
        with Counter("scoring held-out rows") as counter:
            reference = score(model, held_out, ranked, **settings, progress=counter)
    ranked_by = {
        one.figure.name: ranks(found[one.figure.name], reference.get(one.figure.name), one.figure.better or "higher")
        for one in ranked
    }
    numbers, files = origins_of(split, model, variable)
    columns: dict[str, list[Any]] = {"file": files["files"]} if files else {"row": numbers["rows"].tolist()}
    columns |= {one.figure.name: found[one.figure.name].tolist() for one in figures}
    columns |= {f"{name}_rank": rank.tolist() for name, rank in ranked_by.items()}
    write_table(output.path, list(columns), zip(*columns.values(), strict=True))
    say(f"{output}: {len(split)} rows; {', '.join(_described(one) for one in figures)}")
    for name, rank in ranked_by.items():
        rare = int((rank <= RARE).sum())
        say(f"{name}_rank <= {RARE}: {rare} rows; of as many held-out rows about {RARE * len(split):.3g}")


def _described(one: RowFigure) -> str:
    better = f", {one.figure.better} is better" if one.figure.better else ""
    return f"{one.figure.name} ({one.figure.unit}{better})"


# --- interpolate and edit --------------------------------------------------------------------------------------------


def interpolate_command(arguments: Arguments) -> None:
    """Decode what lies between the codes of rows, from each to the next."""
    output: Output = arguments.output
    model, _ = open_model_of(arguments)
    variable = reconstructed_variable(model)
    space = model.spaces[variable]
    check_values(output, variable, space)
    split = rows_of(arguments, model, variable, "test")
    split = split.spread(arguments.n) if arguments.images is None and arguments.values is None else split
    if len(split) < 2:
        given = "--images" if arguments.values is None else "--values"
        raise ConfigError(f"{len(split)} row: it takes two to go from one to the other", given)
    pairs, steps = len(split) - 1, arguments.steps
    output.check_free(0, pairs * steps)
    with Counter("encoding") as counter:
        rows = encode_rows(model, split, arguments.given, progress=counter)
    begins = torch.arange(pairs)
    path = decode_between(rows, begins, begins + 1, steps)
    lines = path.unflatten(0, (pairs, steps))
    if output.ending == FILM:
        path = torch.cat([lines[0], lines[1:, 1:].flatten(0, 1)])  # where one line ends, the next begins
        write_film(output.path, [pictures.grid(image[None]) for image in _rendered(path, space)], FRAME_MS)
    else:
        ends = torch.cat([rows.truth[:-1, None], lines, rows.truth[1:, None]], 1)
        write_values(output, variable, path, space, lambda: _lines(ends, space))
    say(f"{output}: {len(path)} images, {steps} from each of {len(split)} rows to the next")


def edit_command(arguments: Arguments) -> None:
    """Give rows an attribute: move their codes towards those of a class, or give the decoder the class itself."""
    output: Output = arguments.output
    attribute = Attribute.read(arguments.attribute)
    model, _ = open_model_of(arguments)
    variable = reconstructed_variable(model)
    space = model.spaces[variable]
    check_values(output, variable, space)
    split = rows_of(arguments, model, variable, "test").spread(arguments.n)
    amounts = arguments.amount
    output.check_free(0, len(split) * len(amounts))
    with Counter("encoding") as counter:
        rows = encode_rows(model, split, arguments.given, progress=counter)
        edited = torch.stack(list(attribute.edit(rows, amounts, counter)), 1)
    arrays, texts = origins_of(split, model, variable)
    beside = torch.cat([rows.truth[:, None], edited], 1)
    write_values(
        output,
        variable,
        edited.flatten(0, 1),
        space,
        lambda: _lines(beside, space),
        arrays={"truth": rows.truth.numpy(), "amount": np.array(amounts), **arrays},
        texts=texts,
    )
    many = f", {len(amounts)} of each row" if len(amounts) > 1 else ""
    say(f"{output}: {edited.shape[0] * len(amounts)} rows of {variable} with {arguments.attribute}{many}")


def _rendered(values: Tensor, space: Space) -> Tensor:
    images = pictures.render(values, space)
    assert images is not None, "check_values was called before"
    return images


def _lines(values: Tensor, space: Space) -> Image.Image:
    """Draw values (N, M, *X) as N rows of M images."""
    return pictures.grid(_rendered(values.flatten(0, 1), space), columns=values.shape[1])


# --- complete --------------------------------------------------------------------------------------------------------


def complete_command(arguments: Arguments) -> None:
    """Draw the missing pixels of images given the others."""
    output: Output = arguments.output
    model, _ = open_model_of(arguments)
    variable = completed_variable(model)
    space = model.spaces[variable]
    check_values(output, variable, space)
    whole = rows_of(arguments, model, variable, "test")
    photographs = origins_of(whole, model, variable)[1].get("files", [])
    missing = read_mask(arguments.mask, space, variable, photographs)
    split = whole.spread(arguments.n)
    output.check_free(0, len(split) * arguments.draws)
    with Counter("completing") as counter:
        found = complete(
            model,
            split,
            missing,
            arguments.given,
            draws=arguments.draws,
            moves=arguments.moves,
            seed=arguments.seed,
            progress=counter,
        )
    low, high = space.range or (0.0, 1.0)
    shown = torch.where(missing, torch.tensor(low + GREY * (high - low)), found.truth)
    beside = torch.cat([shown[:, None], found.filled], 1)
    arrays, texts = origins_of(split, model, variable)
    write_values(
        output,
        variable,
        found.filled.flatten(0, 1),
        space,
        lambda: _lines(beside, space),
        arrays={"codes": found.codes.flatten(0, 1).numpy(), "mask": missing.numpy(), **arrays},
        texts=texts,
    )
    share = float(missing.double().mean())
    say(
        f"{output}: {len(split)} rows, {share:.0%} of each missing, completed {arguments.draws} times; "
        f"acceptance {found.acceptance:.2f}"
    )


def read_mask(path: str, space: Space, variable: str, photographs: Sequence[str] = ()) -> Tensor:
    """Read which pixels are missing: those that are white, brighter than half.

    Args:
        path: An image of the variable's size, or of the size of the photographs, which is fitted as they are.
        space: Of the variable.
        variable: Its name.
        photographs: The files of the rows, where they are images in files.

    Returns:
        (C, H, W) bool.
    """
    if not space.is_image:
        raise ConfigError(f"{variable} is {space}, and a mask is for images", "--mask")
    channels, height, width = space.shape
    with placing("--mask"):
        file = user_path(path)
        check_regular(file)
        try:
            size = upright_size(file)
            pixels = read_image(file, height, width, 1)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
        if size != (width, height):
            _check_size(path, size, f"{variable} is {width} x {height}", photographs)
    missing = torch.from_numpy(pixels[0] > 127)
    if not missing.any() or missing.all():
        what = "black: no pixel is missing" if not missing.any() else "white: no pixel is observed"
        raise ConfigError(f"{path}: is all {what}", "--mask")
    return missing.expand(channels, height, width).clone()


def _check_size(path: str, size: tuple[int, int], model_size: str, photographs: Sequence[str]) -> None:
    """Raise ConfigError if a mask, which is not of the model's size, is not of the size of every photograph."""
    sizes = {name: upright_size(name) for name in photographs if os.path.isfile(name)}
    other = next((f", {name} {of[0]} x {of[1]}" for name, of in sizes.items() if of != size), "")
    if other or not sizes:
        which = "one of these sizes" if other else "this size"
        raise ConfigError(f"{path}: is {size[0]} x {size[1]} pixels; {model_size}{other}: draw it in {which}")
