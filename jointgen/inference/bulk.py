"""A trained model at work on many rows: samples, reconstructions and codes, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.data.split import Split, open_split
from jointgen.data.step_inputs import StepInputs
from jointgen.errors import ConfigError, suggest
from jointgen.images.user_images import UserImages
from jointgen.inference.model import Model
from jointgen.inference.streams import Batch, batches

Progress = Callable[[int, int], None]
BATCH = 256


# --- the run ---------------------------------------------------------------------------------------------------------


# --- values that are given -------------------------------------------------------------------------------------------


def given_values(texts: Iterable[str], model: Model, rows: int) -> dict[str, Tensor]:
    """["y=3"] -> {"y": one-hot (rows, classes)}; of other variables, one number or all of them: "z=0.5", "z=1,-1".

    Raises ConfigError with every problem.
    """
    values: dict[str, Tensor] = {}
    problems = []
    for text in texts:
        name, _, value = text.partition("=")
        try:
            values[name] = _value(name, value, model)[None].expand(rows, *model.spaces[name].shape)
        except ConfigError as error:
            problems += [f"--given {text}: {problem}" for problem in error.lines]
    if problems:
        raise ConfigError(problems)
    return values


def _value(name: str, text: str, model: Model) -> Tensor:
    """(*shape) in model space."""
    if name not in model.spaces:
        raise ConfigError(f"expected VARIABLE=VALUE; unknown variable {name!r}{suggest(name, model.spaces)}")
    space = model.spaces[name]
    if space.kind == "label":
        return _one_hot(text, space)
    try:
        numbers = torch.tensor([float(number) for number in text.split(",")])
    except ValueError:
        raise ConfigError(f"{text!r} is not a number, nor numbers between commas") from None
    if len(numbers) not in (1, space.size):
        raise ConfigError(f"{len(numbers)} numbers; {name} takes {space.size}, or one for all of them")
    return numbers.expand(space.size).reshape(space.shape)


def _one_hot(text: str, space: Space) -> Tensor:
    classes = space.shape[0]
    if not (text.isdecimal() and int(text) < classes):
        raise ConfigError(f"{text!r} is not a class; allowed: 0 to {classes - 1}")
    return F.one_hot(torch.tensor(int(text)), classes).float()


# --- samples ---------------------------------------------------------------------------------------------------------


def generated(model: Model) -> str:
    """The one variable that p generates. ConfigError where there is none, or several."""
    found = [v for v in model.observed if model.generator_of(v).name == "p"]
    if len(found) != 1:
        raise ConfigError(f"this model generates {', '.join(found) or 'nothing'}; expected one variable")
    return found[0]


def sample_rows(
    model: Model, n: int, given: Sequence[str] = (), *, seed: int = 0, reading: str = "mean", progress: Progress
) -> Tensor:
    """(n, *shape) of `generated(model)`; up to a batch of them are `model.sample(n, seed=seed, reading=reading)`.

    What p draws from data sources and is not given comes from their held-out rows, again from the first one where
    there are fewer than n.
    """
    variable, done = generated(model), []
    given_values(given, model, 1)  # mistakes are found before data is read
    held = _held_out_roots(model, {text.partition("=")[0] for text in given})
    for start in range(0, n, BATCH):
        rows = min(BATCH, n - start)
        noise = model.noise(seed, f"sample {start}" if start else "sample")
        known = {**_rows_of(held, model, start, rows, noise), **given_values(given, model, rows)}
        done.append(model.draw("p", known, rows, noise, reading)[variable].cpu())
        progress(start + rows, n)
    return torch.cat(done)


def _held_out_roots(model: Model, given: set[str]) -> Split | None:
    """The held-out split of those data sources of p that are asked for a variable which is not given."""
    roots = model.data_roots(model.joint("p", "sampling"))
    parts = [part for variable, part in roots.items() if variable not in given]
    return open_split(model.compiled.binding, "test", parts) if parts else None


def _rows_of(split: Split | None, model: Model, start: int, rows: int, noise: Noise) -> dict[str, Tensor]:
    """p's data roots at these rows of a split, observed, (rows, *shape)."""
    if split is None:
        return {}
    raw = split.take((start + torch.arange(rows)) % len(split), model.device)
    _, samples = model.observe(StepInputs(raw, noise, rows))
    return {v: samples[v] for v in model.data_roots(model.joint("p", "sampling")) if v in samples}


# --- rows to encode --------------------------------------------------------------------------------------------------


def held_out(model: Model, split: str) -> Split:
    return open_split(model.compiled.binding, split)


def as_split(images: UserImages, model: Model) -> Split:
    """The user's images in the place of the data source that yields their variable."""
    part = _source_of(images.variable, model)
    return Split("images", {part: images}, {part: {images.variable: images.variable}})


def encoded_variable(model: Model) -> str:
    """The one observed variable that q encodes."""
    given = {v for f in model.joint("q", "encoding").factors for v in f.given}
    found = [v for v in model.observed if v in given]
    if len(found) != 1:
        raise ConfigError(f"this model encodes {', '.join(found) or 'nothing'}; expected one variable")
    return found[0]


def _source_of(variable: str, model: Model) -> str:
    return next(f.part for j in model.joints.values() for f in j.factors if model.is_data(f) and variable in f.out)


def _counted(model: Model, split: Split, seed: int, progress: Progress) -> Iterator[Batch]:
    """The split's batches; each is reported once it has been worked on."""
    for batch in batches(model, split, BATCH, seed):
        yield batch
        progress(int(batch.index[-1]) + 1, len(split))


# --- codes and reconstructions ---------------------------------------------------------------------------------------


@torch.no_grad()
def encode_rows(
    model: Model, split: Split, given: Sequence[str] = (), *, seed: int = 0, progress: Progress
) -> dict[str, Tensor]:
    """Every variable that q draws, (N, *shape): the mean of each conditional; and labels (N,), where there are any."""
    codes = _codes(model)
    found: dict[str, list[Tensor]] = {}
    for batch in _counted(model, split, seed, progress):
        _, observed = model.observe(batch)
        known = {**observed, **given_values(given, model, batch.rows)}
        drawn = model.draw("q", {v: known[v] for v in known if v not in codes}, batch.rows, batch.noise, "mean")
        for name, values in {**model.labels(batch), **{v: drawn[v] for v in codes}}.items():
            found.setdefault(name, []).append(values.cpu())
    return {name: torch.cat(values) for name, values in found.items()}


def _codes(model: Model) -> list[str]:
    return [v for factor in model.joint("q", "encoding").factors if not factor.is_root for v in factor.out]


@torch.no_grad()
def rebuild_rows(
    model: Model, split: Split, given: Sequence[str] = (), *, seed: int = 0, progress: Progress
) -> tuple[Tensor, Tensor]:
    """(truth, reconstruction) of `rebuildable(model)`, (N, *shape): the decoder's mean at the encoder's mean code."""
    variable = rebuildable(model)
    truths, rebuilt = [], []
    for batch in _counted(model, split, seed, progress):
        means, samples = model.observe(batch)
        known = {**samples, **given_values(given, model, batch.rows)}
        truths.append(means[variable].cpu())
        rebuilt.append(model.rebuilt(variable, {**known, variable: samples[variable]}).cpu())
    return torch.cat(truths), torch.cat(rebuilt)


def rebuildable(model: Model) -> str:
    """The observed variable that can be reconstructed. Raises ConfigError where there is none."""
    found = [v for v in model.observed if model.can_reconstruct(v)]
    if not found:
        raise ConfigError("this model reconstructs nothing: it has no code that q encodes and p decodes")
    return found[0]
