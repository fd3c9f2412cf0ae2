"""A trained model at work on many rows: samples, reconstructions and codes, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jointgen.data.split import Split, open_split
from jointgen.data.step_inputs import StepInputs
from jointgen.errors import ConfigError, FileError, Problem, suggest
from jointgen.images.user_images import UserImages
from jointgen.inference.row_batches import BATCH, Progress, given_values, in_batches, reconstructed_variable
from jointgen.runtime.memory import GIB, machine_memory

if TYPE_CHECKING:
    from jointgen.inference.model import Model


# --- samples ---------------------------------------------------------------------------------------------------------


def generated_variable(model: Model) -> str:
    """The one variable that p generates. Raises ConfigError where there is none, or several."""
    found = generated_variables(model)
    if len(found) != 1:
        raise ConfigError(f"this model generates {', '.join(found) or 'nothing'}; expected one variable")
    return found[0]


def generated_variables(model: Model) -> list[str]:
    """The observed variables that p generates."""
    return [v for v in model.observed if model.binding.generator_of(v).name == "p"]


def sample_many(
    model: Model,
    n: int,
    given: Sequence[str] = (),
    *,
    seed: int = 0,
    reading: str = "mean",
    first: int = 0,
    progress: Progress,
) -> Tensor:
    """Sample any number of rows; up to a batch of them are `model.sample(n, seed=seed, reading=reading)`.

    The arguments are those of `draw_many`.

    Returns:
        (n, *shape) of `generated_variable(model)`, on the CPU.
    """
    variable = generated_variable(model)
    drawn = draw_many(model, n, [variable], given, seed=seed, reading=reading, first=first, progress=progress)
    return drawn[variable]


def draw_many(
    model: Model,
    n: int,
    variables: Sequence[str],
    given: Sequence[str] = (),
    *,
    seed: int = 0,
    reading: str = "mean",
    first: int = 0,
    progress: Progress,
) -> dict[str, Tensor]:
    """Draw some variables of p together, any number of rows.

    What p draws from data sources and is not given comes from their held-out rows, evenly apart; where there are fewer
    than n, they are taken again from the first one on.

    Args:
        model: The model.
        n: How many rows.
        variables: What is kept of each row.
        given: Values that are not drawn; see `given_values`.
        seed: The seed of the noise.
        reading: See `Model.sample`.
        first: The number of the first sample; the noise of a batch is named by the number of its first row.
        progress: Called after each batch.

    Returns:
        (n, *shape) of each of the variables, on the CPU.

    Raises:
        ConfigError: A given value does not fit, or so many rows do not fit into the memory of this machine.
    """
    size, done = sum(model.spaces[v].size for v in variables), dict[str, list[Tensor]]()
    needed = 2 * n * size * model.view.dtype.itemsize  # the batches, and all of them in one
    if needed > (memory := machine_memory()):
        reason = (
            f"{n:,} samples of {' and '.join(variables)} take {needed / GIB:,.0f} GiB of memory, and this machine has"
        )
        raise ConfigError(f"{reason} {memory / GIB:,.0f}", "-n")
    given_values(given, model, 1)  # finds mistakes before data is read
    roots = model.binding.data_roots(model.binding.joint("p", "sampling"))
    names = {text.partition("=")[0] for text in given}
    parts = [part for name, part in roots.items() if name not in names]
    try:
        held_out = open_split(model.compiled.binding, "test", parts).spread(first + n) if parts else None
    except FileError:  # there is data, and it is not what it should be
        raise
    except ConfigError as error:
        lacking = next(name for name in roots if name not in names)
        remedy = Problem(f"or give what p draws from the data, as in {lacking}=VALUE", "--given")
        raise ConfigError([*error.problems, remedy]) from None
    for start in range(first, first + n, BATCH):
        rows = min(BATCH, first + n - start)
        noise = model.noise(seed, f"sample {start}" if start else "sample")
        known = given_values(given, model, rows)
        if held_out is not None:
            raw = held_out.take((start + torch.arange(rows)) % len(held_out), model.device)
            _, samples = model.view.observe(StepInputs(raw, noise, rows))
            known = {**{v: samples[v] for v in roots if v in samples}, **known}
        drawn = model.view.draw("p", known, rows, noise, reading)
        for variable in variables:
            done.setdefault(variable, []).append(drawn[variable].cpu())
        progress(start - first + rows, n)
    return {variable: torch.cat(values) for variable, values in done.items()}


def decode_many(
    model: Model,
    codes: Mapping[str, Tensor],
    given: Sequence[str] = (),
    *,
    seed: int = 0,
    reading: str = "mean",
    progress: Progress,
) -> Tensor:
    """Decode codes of many rows.

    Codes of lower layers that are not among them are drawn by p from those that are.

    Args:
        model: The model.
        codes: (N, *shape) in model space by variable, one or more.
        given: Further values; see `given_values`.
        seed: The seed of the noise.
        reading: See `Model.sample`.
        progress: Called after each batch.

    Returns:
        (N, *shape) of `generated_variable(model)`, on the CPU.

    Raises:
        ConfigError: A given value does not fit, or the variable needs a value that is neither there nor drawn from one
            that is.
    """
    variable, n = generated_variable(model), len(next(iter(codes.values())))
    joint = model.binding.joint("p", "decoding")
    known = {*codes, *given_values(given, model, 1)}

    def is_known(name: str) -> bool:
        above = joint.drawn_by(name).given
        return name in known or (bool(above) and all(is_known(one) for one in above))

    if missing := [name for name in joint.drawn_by(variable).given if not is_known(name)]:
        held = ", ".join(sorted(known))
        raise ConfigError(f"p({joint.drawn_by(variable)}) needs {', '.join(missing)}; given are {held}", "CODES")
    done = []
    for start in range(0, n, BATCH):
        some = {name: values[start : start + BATCH] for name, values in codes.items()}
        rows = len(next(iter(some.values())))
        noise = model.noise(seed, f"decode {start}" if start else "decode")
        everything = {**some, **given_values(given, model, rows)}
        done.append(model.view.draw("p", everything, rows, noise, reading)[variable].cpu())
        progress(start + rows, n)
    return torch.cat(done)


# --- codes and reconstructions ---------------------------------------------------------------------------------------


def as_split(images: UserImages, model: Model) -> Split:
    """The user's images in the place of the data source that yields their variable."""
    part = model.binding.source_of(images.variable)
    return Split("images", {part: images}, {part: {images.variable: images.variable}})


def encoded_variable(model: Model) -> str:
    """The one observed variable that q encodes. Raises ConfigError where there is none, or several."""
    given = {v for f in model.binding.joint("q", "encoding").factors for v in f.given}
    found = [v for v in model.observed if v in given and v in model.binding.data_roots(model.binding.joints["q"])]
    if len(found) != 1:
        raise ConfigError(f"this model encodes {', '.join(found) or 'nothing'}; expected one variable")
    return found[0]


@torch.no_grad()
def encode_many(
    model: Model, split: Split, given: Sequence[str] = (), *, seed: int = 0, progress: Progress
) -> dict[str, Tensor]:
    """Encode every row of a split.

    Args:
        model: The model.
        split: The rows.
        given: Values that are not read from the rows; see `given_values`.
        seed: The seed of the noise that observes the rows.
        progress: Called after each batch.

    Returns:
        Every variable that q draws, (N, *shape), the mean of its conditional at the mean codes (of labels at the most
        probable ones) that it is given; and labels (N,), where there are any.
    """
    codes = [v for factor in model.binding.joint("q", "encoding").factors if not factor.is_root for v in factor.out]
    found: dict[str, list[Tensor]] = {}
    for batch in in_batches(model, split, seed, progress):
        _, observed = model.view.observe(batch)
        known = {**observed, **given_values(given, model, batch.rows)}
        drawn = model.view.mean_codes(known, batch.rows, batch.noise)
        for name, values in {**batch.labels(), **{v: drawn[v] for v in codes}}.items():
            found.setdefault(name, []).append(values.cpu())
    return {name: torch.cat(values) for name, values in found.items()}


@torch.no_grad()
def reconstruct_many(
    model: Model,
    split: Split,
    given: Sequence[str] = (),
    codes_from: Sequence[str] = (),
    *,
    seed: int = 0,
    progress: Progress,
) -> tuple[Tensor, Tensor]:
    """Reconstructs every row of a split; the arguments are those of `encode_many`, and `codes_from`.

    Args:
        codes_from: The codes that it is decoded from, such as the top layer's; p draws the others from them. Without
            any those that the variable's own conditional is given.

    Returns:
        (truth, reconstruction) of `reconstructed_variable(model)`, (N, *shape) each: the decoder's mean at the
        encoder's mean codes.

    Raises:
        ConfigError: A name in `codes_from` is no code.
    """
    variable = reconstructed_variable(model)
    codes = [v for factor in model.binding.joints["q"].factors if not factor.is_root for v in factor.out]
    for name in codes_from:
        if name not in codes:
            raise ConfigError(f"{name!r} is no code{suggest(name, codes)}", "--from")
    truths, reconstructions = [], []
    for batch in in_batches(model, split, seed, progress):
        means, samples = model.view.observe(batch)
        known = {**samples, **given_values(given, model, batch.rows), variable: samples[variable]}
        truths.append(means[variable].cpu())
        reconstructions.append(model.view.reconstruct_values(variable, known, codes_from).cpu())
    return torch.cat(truths), torch.cat(reconstructions)
