"""Recipe: a TOML file that fully determines a run, as a strict attrs tree. The fields below are its keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from jointgen.config import (
    DataField,
    DecoderField,
    DiscriminatorField,
    EncoderField,
    FamilyField,
    MetricField,
    ObjectiveField,
    PriorField,
    below_one,
    fraction,
    non_negative,
    positive,
    structure,
    unstructure,
)
from jointgen.errors import ConfigError
from jointgen.registry import Registry
from jointgen.tables import apply_overrides, load_tables, to_toml

FORMAT = 1


@attrs.frozen
class EncoderTable:
    """q(z|x): a trunk network and the family that its output parametrises."""

    network: EncoderField
    family: FamilyField


@attrs.frozen
class DecoderTable:
    """p(x|z): a trunk network and the family that its output parametrises."""

    network: DecoderField
    family: FamilyField


@attrs.frozen
class Adam:
    """Adam (Kingma & Ba 2015). The rate falls linearly to `final` of itself from `decay_from` (a share) to the end."""

    lr: float = attrs.field(default=1e-3, validator=positive)
    betas: tuple[float, float] = attrs.field(default=(0.9, 0.999), validator=below_one)
    eps: float = attrs.field(default=1e-8, validator=positive)
    weight_decay: float = attrs.field(default=0.0, validator=non_negative)
    decay_from: float = attrs.field(default=1.0, validator=fraction)
    final: float = attrs.field(default=1.0, validator=fraction)

    def rate(self, progress: float) -> float:
        """The learning rate at `progress` in [0, 1] through the run."""
        if progress <= self.decay_from or self.decay_from >= 1.0:
            return self.lr
        done = (progress - self.decay_from) / (1.0 - self.decay_from)
        return self.lr * max(self.final, 1.0 - (1.0 - self.final) * done)


@attrs.frozen
class Optimizers:
    """One for the model's parts, one for the critics."""

    model: Adam = attrs.field(factory=Adam)
    critics: Adam = attrs.field(factory=Adam)


@attrs.frozen
class EarlyStopping:
    """Stops a stage when the mean reconstruction losses of x and of z on held-out data have both stopped improving.

    patience: evaluations without an improvement of either (AS-VAE section 5, papers.md 1.3).
    """

    patience: int = attrs.field(default=5, validator=positive)


@attrs.frozen
class Train:
    """The budget and how it is spent. `steps` are model updates; give it or `images`, not both."""

    steps: int | None = attrs.field(default=None, validator=positive)
    images: int | None = attrs.field(default=None, validator=positive)
    batch: int = attrs.field(default=128, validator=positive)  # rows of the global batch
    micro_batches: int = attrs.field(default=1, validator=positive)  # parts of a batch, run one after the other
    pair_block: int = attrs.field(default=16, validator=attrs.validators.ge(2))  # re-pairings shift within so many rows
    clip: float | None = attrs.field(default=None, validator=positive)
    ema: float | None = attrs.field(default=0.99, validator=fraction)
    device: str = "auto"
    threads: int | None = attrs.field(default=None, validator=positive)  # of torch on the CPU; None: torch decides
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"  # torch.compile's modes; see README
    channels_last: bool = False  # images and convolutions in NHWC memory: pays on a GPU, with bf16
    deterministic: bool = False
    log_every: int = attrs.field(default=50, validator=positive)
    eval_every: int | None = attrs.field(default=None, validator=positive)
    sample_every: int | None = attrs.field(default=None, validator=positive)
    checkpoint_every: int | None = attrs.field(default=None, validator=positive)
    keep_checkpoints: int = attrs.field(default=3, validator=positive)
    early_stopping: EarlyStopping | None = None

    @property
    def total_steps(self) -> int:
        assert self.steps is not None or self.images is not None, "checked when the recipe is read"
        return self.steps if self.steps is not None else max(1, (self.images or 0) // self.batch)


@attrs.frozen
class Eval:
    """What is measured at the end, and every `train.eval_every` steps on `quick_rows` rows of the test split."""

    metrics: list[MetricField] = attrs.field(factory=list)
    split: Literal["test", "train"] = "test"
    rows: int | None = attrs.field(default=None, validator=positive)
    quick_rows: int = attrs.field(default=512, validator=positive)
    batch: int = attrs.field(default=256, validator=positive)
    samples: int = attrs.field(default=64, validator=positive)  # pictures in a grid


@attrs.frozen
class Recipe:
    """See each table's class. `encoder` is the part of that name; `encoders.NAME` names further parts, and so on."""

    data: DataField
    objective: ObjectiveField
    train: Train
    format: int = FORMAT
    name: str = ""
    seed: int = attrs.field(default=0, validator=[attrs.validators.ge(0), attrs.validators.lt(2**63)])
    sources: dict[str, DataField] = attrs.field(factory=dict)
    latents: dict[str, int | list[int]] = attrs.field(factory=dict)
    prior: PriorField | None = None
    priors: dict[str, PriorField] = attrs.field(factory=dict)
    encoder: EncoderTable | None = None
    encoders: dict[str, EncoderTable] = attrs.field(factory=dict)
    decoder: DecoderTable | None = None
    decoders: dict[str, DecoderTable] = attrs.field(factory=dict)
    discriminator: DiscriminatorField | None = None
    discriminators: dict[str, DiscriminatorField] = attrs.field(factory=dict)
    optimizer: Optimizers = attrs.field(factory=Optimizers)
    eval: Eval = attrs.field(factory=Eval)

    def all_sources(self) -> dict[str, Any]:
        return {"data": self.data, **self.sources}

    def all_priors(self) -> dict[str, Any]:
        return {**({"prior": self.prior} if self.prior is not None else {}), **self.priors}

    def all_conditionals(self) -> dict[str, EncoderTable | DecoderTable]:
        one = {name: t for name, t in (("encoder", self.encoder), ("decoder", self.decoder)) if t is not None}
        return {**one, **self.encoders, **self.decoders}


def read_recipe(
    source: str | Path | Mapping[str, Any], overrides: Iterable[str] | Mapping[str, Any] = (), *, registry: Registry
) -> Recipe:
    """A recipe from a file (following `base`) or from tables, with overrides, checked whole.

    Raises ConfigError with every problem found, each with its key path.
    """
    tables = dict(source) if isinstance(source, Mapping) else load_tables(source)
    recipe = structure(apply_overrides(tables, overrides), Recipe, registry)
    problems = list(_problems(recipe))
    if problems:
        raise ConfigError(problems)
    if not recipe.name:
        recipe = attrs.evolve(recipe, name="run" if isinstance(source, Mapping) else Path(source).stem)
    return recipe


def _problems(recipe: Recipe) -> Iterable[str]:
    """What no single table can know."""
    if recipe.format != FORMAT:
        yield f"format: this version reads format {FORMAT}, got {recipe.format}"
    if (recipe.train.steps is None) == (recipe.train.images is None):
        yield "train: give the budget as steps or as images, one of the two"
    for variable, size in recipe.latents.items():
        if size == [] or any(n < 1 for n in (size if isinstance(size, list) else [size])):
            yield f"latents.{variable}: must be a size >= 1 or a list of such, got {size}"
    names = [*recipe.all_sources(), *recipe.all_priors(), *recipe.all_conditionals()]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{name}: two parts have this name"


def write_recipe(recipe: Recipe, registry: Registry) -> str:
    """The resolved recipe as TOML: running it repeats the run."""
    return to_toml(unstructure(recipe, registry))
