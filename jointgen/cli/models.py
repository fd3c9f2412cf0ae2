"""`jointgen sample`, `reconstruct`, `encode` and `decode`: a trained model at work."""

from __future__ import annotations

import numpy as np
import torch

from jointgen.cli.arguments import ARRAY, FOLDER, PICTURE, TABLE, Arguments
from jointgen.cli.output_files import Output, write_arrays, write_table
from jointgen.cli.output_tables import check_table, rows_of_table
from jointgen.cli.output_values import check_values, write_values
from jointgen.data.split import Split, open_split
from jointgen.errors import placing_options
from jointgen.images.user_images import UserImages, read_user_images
from jointgen.inference import bulk as inference
from jointgen.inference.data_paths import DataPaths, read_data_paths
from jointgen.inference.given_arrays import read_codes, read_rows
from jointgen.inference.loading import open_run
from jointgen.inference.model import Model
from jointgen.inference.row_batches import for_each_class, reconstructed_variable
from jointgen.reports.gallery import grid_of, pairs_of
from jointgen.runtime.console import log_once, say, warn_once
from jointgen.runtime.progress import Counter
from jointgen.runtime.workers import Workers

SAMPLES, SAMPLES_OF_A_CLASS = 64, 8
"""So many are drawn where -n does not say."""


def sample_command(arguments: Arguments) -> None:
    """Generate rows and write them as a picture, as arrays or as images in a folder."""
    output: Output = arguments.output
    model, _ = open_model_of(arguments)
    if output.ending == TABLE:
        _sample_table(arguments, output, model)
        return
    variable = inference.generated_variable(model)
    space = model.spaces[variable]
    check_values(output, variable, space, points=True)
    every = for_each_class(arguments.given, model)
    n = arguments.n or (SAMPLES if len(every) == 1 else SAMPLES_OF_A_CLASS)
    first, count = arguments.start, n * len(every)
    output.check_free(first, count, "--start with a number that is behind the last one adds others")
    with Counter("sampling") as counter:
        options = {"seed": arguments.seed, "reading": arguments.reading, "first": first, "progress": counter}
        samples = torch.cat([inference.sample_many(model, n, given, **options) for given in every])
    columns = n if len(every) > 1 else None
    write_values(output, variable, samples, space, lambda: grid_of(samples, space, columns), first=first)
    say(f"{output}: {count} samples of {variable}, {space}")


def _sample_table(arguments: Arguments, output: Output, model: Model) -> None:
    """Generate rows of every variable together, and write them as a table."""
    variables = inference.generated_variables(model)
    names = check_table(model, variables)
    every = for_each_class(arguments.given, model)
    n = arguments.n or (SAMPLES if len(every) == 1 else SAMPLES_OF_A_CLASS)
    options = {"seed": arguments.seed, "reading": arguments.reading, "first": arguments.start}
    with Counter("sampling") as counter:
        parts = [inference.draw_many(model, n, variables, given, **options, progress=counter) for given in every]
    draws = {variable: torch.cat([part[variable] for part in parts]) for variable in variables}
    write_table(output.path, names, rows_of_table(model, draws))
    say(f"{output}: {n * len(every)} rows of {', '.join(names)}")


def reconstruct_command(arguments: Arguments) -> None:
    """Encode and decode rows and write them beside their reconstructions, or the reconstructions alone."""
    output: Output = arguments.output
    model, _ = open_model_of(arguments)
    variable = reconstructed_variable(model)
    space = model.spaces[variable]
    check_values(output, variable, space)
    split = rows_of(arguments, model, variable, "test").spread(arguments.n)
    output.check_free(0, len(split))
    with Counter("reconstructing") as counter:
        truth, rebuilt = inference.reconstruct_many(
            model, split, arguments.given, arguments.codes_from, progress=counter
        )
    arrays, texts = origins_of(split, model, variable)
    arrays = {"truth": truth.numpy(), **arrays}
    write_values(output, variable, rebuilt, space, lambda: pairs_of(truth, rebuilt, space), arrays=arrays, texts=texts)
    shown = {
        PICTURE: "pairs, each truth with its reconstruction at its right",
        FOLDER: f"reconstructions of {variable}, in the order of the rows",
        ARRAY: f"reconstructions, {variable}, and the truth",
    }
    say(f"{output}: {len(truth)} {shown[output.ending]}")


def encode_command(arguments: Arguments) -> None:
    """Write the codes of rows, their labels where the data has them, and the rows or files that they are of."""
    output: Output = arguments.output
    model, _ = open_model_of(arguments)
    variable = inference.encoded_variable(model)
    split = rows_of(arguments, model, variable, arguments.split)
    with Counter("encoding") as counter:
        codes = inference.encode_many(model, split, arguments.given, progress=counter)
    places, texts = origins_of(split, model, variable)
    write_arrays(output.path, {**places, **{name: values.numpy() for name, values in codes.items()}}, texts)
    say(f"{output}: {', '.join(f'{name} {tuple(values.shape)}' for name, values in codes.items())}")


def decode_command(arguments: Arguments) -> None:
    """Decode codes of a file and write what they give as a picture, as arrays or as images in a folder."""
    output: Output = arguments.output
    model, _ = open_model_of(arguments)
    variable = inference.generated_variable(model)
    space = model.spaces[variable]
    check_values(output, variable, space, points=True)
    codes = read_codes(model, arguments.codes, variable)
    output.check_free(0, len(next(iter(codes.values()))))
    with Counter("decoding") as counter:
        decoded = inference.decode_many(
            model, codes, arguments.given, seed=arguments.seed, reading=arguments.reading, progress=counter
        )
    write_values(output, variable, decoded, space, lambda: grid_of(decoded, space))
    say(f"{output}: {len(decoded)} rows of {variable}, decoded from {', '.join(codes)}")


# --- the model, and the rows that it looks at ------------------------------------------------------------------------


def open_model_of(arguments: Arguments) -> tuple[Model, Workers]:
    """Open the run's model; print a line for each damaged checkpoint, and one if the run is not finished."""
    workers = workers_on(arguments.device)
    with placing_options("checkpoint"):
        model, remarks = open_run(arguments.run, str(workers.device), arguments.checkpoint, data_paths_of(arguments))
    log_once(*remarks)
    return model, workers


def data_paths_of(arguments: Arguments) -> DataPaths:
    """Return where --data says that the run's data lies, for commands that have the option."""
    return read_data_paths(getattr(arguments, "data_paths", ()))


def workers_on(device: str) -> Workers:
    """Start this process on a device. Raises ConfigError if the machine has no such --device."""
    with placing_options("device"):
        return Workers.start(device)


def rows_of(arguments: Arguments, model: Model, variable: str, split: str) -> Split:
    """Open the rows of --images or --values if they name any, otherwise a split of the run's data.

    Args:
        arguments: Those of the command.
        model: The model.
        variable: The variable that the user's rows are of.
        split: The split.
    """
    if arguments.images is not None:
        return user_rows(arguments, model, variable)
    if arguments.values is not None:
        return read_rows(model, arguments.values, variable)
    return open_split(model.compiled.binding, split)


def user_rows(arguments: Arguments, model: Model, variable: str | None = None) -> Split:
    """Read the user's own images in the place of a variable; None: the one that q encodes."""
    variable = variable or inference.encoded_variable(model)
    with Counter("reading images") as counter:
        read = [read_user_images(path, model.spaces[variable], variable, counter) for path in arguments.images]
    warn_once(*(f"skipped {line}" for images in read for line in images.skipped))
    return inference.as_split(UserImages.joined(read), model)


def origins_of(split: Split, model: Model, variable: str) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """Say where the rows of a split come from.

    Returns:
        ({}, {"files": the file of each}) of the user's own images, and otherwise ({"rows": their numbers, (N,)}, {}).
    """
    part = model.binding.source_of(variable)
    rows = split.sources[part]
    if isinstance(rows, UserImages):
        chosen = range(len(rows)) if split.chosen is None else split.chosen.tolist()
        return {}, {"files": [rows.origins[i] for i in chosen]}
    return {"rows": split.places(part).numpy()}, {}
