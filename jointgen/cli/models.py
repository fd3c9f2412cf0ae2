"""`jointgen sample`, `reconstruct` and `encode`: a trained model at work."""

from __future__ import annotations

from jointgen.cli.arguments import ARRAY, PICTURE, TENSORS, Arguments
from jointgen.cli.output_files import check_output, write_arrays, writing_output
from jointgen.data.split import Split, open_split
from jointgen.errors import placing_options
from jointgen.images.user_images import UserImages, read_user_images
from jointgen.inference import bulk as inference
from jointgen.inference.loading import open_run
from jointgen.inference.model import Model
from jointgen.reports.gallery import check_picture, draw_pairs, draw_samples
from jointgen.runtime.console import log_once, say, warn_once
from jointgen.runtime.progress import Counter
from jointgen.runtime.workers import Workers


def sample_command(arguments: Arguments) -> None:
    """Generate rows and write them as a picture or as arrays."""
    path = check_output(arguments.output, PICTURE, ARRAY)
    model, _ = open_model_of(arguments)
    variable = inference.generated_variable(model)
    space = model.spaces[variable]
    if path.suffix.lower() == PICTURE:
        check_picture(variable, space, points=True)
    with Counter("sampling") as counter:
        samples = inference.sample_many(
            model, arguments.n, arguments.given, seed=arguments.seed, reading=arguments.reading, progress=counter
        )
    if path.suffix.lower() == PICTURE:
        with writing_output(path):
            draw_samples(samples, space, path)
    else:
        write_arrays(path, {variable: samples.numpy()}, {})
    say(f"{path}: {len(samples)} samples of {variable}, {space}")


def reconstruct_command(arguments: Arguments) -> None:
    """Encode and decode images and write them beside their reconstructions."""
    path = check_output(arguments.output, PICTURE)
    model, _ = open_model_of(arguments)
    variable = inference.reconstructed_variable(model)
    space = model.spaces[variable]
    check_picture(variable, space, points=False)
    split = _rows(arguments, model, variable, "test").spread(arguments.n)
    with Counter("reconstructing") as counter:
        truth, rebuilt = inference.reconstruct_many(
            model, split, arguments.given, arguments.codes_from, progress=counter
        )
    with writing_output(path):
        draw_pairs(truth, rebuilt, space, path)
    say(f"{path}: {len(truth)} pairs, each truth with its reconstruction at its right")


def encode_command(arguments: Arguments) -> None:
    """Write the codes of images, their labels where the data has them, and the rows or files that they are of."""
    path = check_output(arguments.output, ARRAY, TENSORS)
    model, _ = open_model_of(arguments)
    variable = inference.encoded_variable(model)
    split = _rows(arguments, model, variable, arguments.split)
    with Counter("encoding") as counter:
        codes = inference.encode_many(model, split, arguments.given, progress=counter)
    origins = [rows.origins for rows in split.sources.values() if isinstance(rows, UserImages)]
    texts = {"files": origins[0]} if origins else {}
    places = {} if origins else {"rows": split.places(model.binding.source_of(variable))}
    write_arrays(path, {name: values.numpy() for name, values in {**places, **codes}.items()}, texts)
    say(f"{path}: {', '.join(f'{name} {tuple(values.shape)}' for name, values in codes.items())}")


def open_model_of(arguments: Arguments) -> tuple[Model, Workers]:
    """Open the run's model; print a line for each damaged checkpoint, and one if the run is not finished."""
    workers = workers_on(arguments.device)
    with placing_options("checkpoint"):
        model, remarks = open_run(arguments.run, str(workers.device), arguments.checkpoint)
    log_once(*remarks)
    return model, workers


def workers_on(device: str) -> Workers:
    """Start this process on a device. Raises ConfigError if the machine has no such --device."""
    with placing_options("device"):
        return Workers.start(device)


def _rows(arguments: Arguments, model: Model, variable: str, split: str) -> Split:
    """Open the user's own images if --images names any, otherwise a split of the run's data."""
    if arguments.images is not None:
        return user_rows(arguments, model, variable)
    return open_split(model.compiled.binding, split)


def user_rows(arguments: Arguments, model: Model, variable: str | None = None) -> Split:
    """Read the user's own images in the place of a variable; None: the one that q encodes."""
    variable = variable or inference.encoded_variable(model)
    with Counter("reading images") as counter:
        images = read_user_images(arguments.images, model.spaces[variable], variable, counter)
    warn_once(*(f"skipped {line}" for line in images.skipped))
    return inference.as_split(images, model)
