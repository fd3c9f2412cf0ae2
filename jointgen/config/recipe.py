"""The recipe: a TOML file that fully determines a run. The fields of these classes are its keys."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from jointgen.config.fields import (
    MAX_COUNT,
    MAX_SIZE,
    DataField,
    DecoderField,
    DiscriminatorField,
    EncoderField,
    FamilyField,
    MetricField,
    ObjectiveField,
    PriorField,
    SampledSource,
    TrackerField,
    below_one,
    between,
    positive,
    valid_count,
    valid_seed,
    valid_shape,
    valid_size,
)
from jointgen.config.optimizers import OptimizerTables
from jointgen.config.shipped import find_recipe, shipped_recipes
from jointgen.config.structure import structure, unstructure
from jointgen.config.toml import apply_overrides, load_tables, parse_toml, to_toml
from jointgen.config.values import show
from jointgen.errors import ConfigError, KeyPath, Problem, Problems
from jointgen.registry.components import Registry
from jointgen.text import visible

FORMAT = 1
MAX_NAME_BYTES = 200
"""So many bytes has a run's name, at the most: a folder may have 255."""


@attrs.frozen
class EncoderTable:
    """The table of q(z|x): a network, and the family of distributions whose parameters it puts out.

    Args:
        network: The network.
        family: The family.
        input: Values that the network sees in the place of the variables that it is given, such as "features f(x)".
    """

    network: EncoderField
    family: FamilyField
    input: str | None = None


@attrs.frozen
class DecoderTable:
    """The table of p(x|z): a network, and the family of distributions whose parameters it puts out.

    Args:
        network: The network.
        family: The family.
        input: Values that the network sees in the place of the variables that it is given.
    """

    network: DecoderField
    family: FamilyField
    input: str | None = None


@attrs.frozen
class EarlyStoppingTable:
    """The table `[train.early_stopping]`: a stage ends once the watched losses on held-out data stopped improving.

    Args:
        patience: The number of evaluations in a row in which none of them improves.
        watch: The figures that are watched, by name; none for those that metrics offer for it: the reconstruction
            losses of x and of z, as in Pu et al. 2017, section 5.
    """

    patience: int = attrs.field(default=5, validator=valid_count)
    watch: list[str] = attrs.field(factory=list)


def _names_something(instance: Any, attribute: Any, value: list[str] | None) -> None:
    if value == []:
        raise ValueError("'parts' must name a part, or be left out, got none")


@attrs.frozen
class WarmStartTable:
    """A run from whose weights the parts of the same names start: averaged weights, where it has them.

    Args:
        run: The folder of the run, which may be finished or stopped.
        checkpoint: "latest", "best", or the name of one.
        parts: The parts that start from it; None: all that both have. The others start as they are built.
    """

    run: str
    checkpoint: str = "latest"
    parts: list[str] | None = attrs.field(default=None, validator=_names_something)


@attrs.frozen
class Train:
    """The table `[train]`: the budget and how it is spent.

    Args:
        steps: The budget as a number of steps; give this or `images`.
        images: The budget as a number of rows that training sees.
        batch: The rows of a step, over all processes.
        micro_batches: The parts of a batch, run one after the other to save memory.
        pair_block: Where an objective re-pairs rows, they shift within blocks of so many.
        clip: The largest norm of each update's gradient; None: no limit.
        ema: The decay of the average of the weights, which evaluations and the finished model use; 0: none.
        init_from: A run to start from: its folder, or a table (WarmStartTable).
        device: "cpu", "cuda", ...; "auto" is an NVIDIA or AMD GPU, if there is one.
        threads: The threads of the CPU; None: torch decides.
        precision: fp32 without TF32, networks in bf16 by autocast, or everything in fp64.
        compile: How torch.compile fuses a step's operations.
        channels_last: Whether images and convolutions lie in NHWC memory: pays on a GPU, with bf16.
        deterministic: Whether only operations that repeat themselves bit for bit are used; matters on a GPU.
        resident: Whether the training split is kept on the accelerator; "auto": if it fits.
        log_every: The steps between two events of the log.
        eval_every: The steps between two evaluations; None: only at the end.
        sample_every: The steps between two pictures of draws and reconstructions; None: only at the end.
        checkpoint_every: The steps between two checkpoints; None: only at the end.
        keep_checkpoints: How many of the last checkpoints are kept.
        keep_best: A figure of an evaluation, such as "elbo": the checkpoint where it is best stays, too.
        early_stopping: When a stage ends early; None: never.
        trackers: Where figures and pictures go besides metrics.jsonl and samples/: names, or tables with settings.
    """

    steps: int | None = attrs.field(default=None, validator=valid_count)
    images: int | None = attrs.field(default=None, validator=between(1, 1000 * MAX_COUNT))
    batch: int = attrs.field(default=128, validator=valid_size)
    micro_batches: int = attrs.field(default=1, validator=valid_size)
    pair_block: int = attrs.field(default=16, validator=between(2, MAX_SIZE))
    clip: float | None = attrs.field(default=None, validator=positive)
    ema: float | None = attrs.field(default=0.99, validator=below_one)
    init_from: str | WarmStartTable | None = None
    device: str = "auto"
    threads: int | None = attrs.field(default=None, validator=between(1, 1024))
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    compile: Literal["off", "default", "reduce-overhead", "max-autotune"] = "off"
    channels_last: bool = False
    deterministic: bool = False
    resident: Literal["auto", "always", "never"] = "auto"
    log_every: int = attrs.field(default=50, validator=positive)
    eval_every: int | None = attrs.field(default=None, validator=positive)
    sample_every: int | None = attrs.field(default=None, validator=positive)
    checkpoint_every: int | None = attrs.field(default=None, validator=positive)
    keep_checkpoints: int = attrs.field(default=3, validator=positive)
    keep_best: str | None = None
    early_stopping: EarlyStoppingTable | None = None
    trackers: list[str | TrackerField] = attrs.field(factory=lambda: ["tensorboard"])

    @property
    def warm_start(self) -> WarmStartTable | None:
        """The table that `init_from` stands for, or None."""
        return WarmStartTable(self.init_from) if isinstance(self.init_from, str) else self.init_from

    @property
    def total_steps(self) -> int:
        """The budget as a number of steps."""
        assert self.steps is not None or self.images is not None, "checked when the recipe is read"
        return self.steps if self.steps is not None else max(1, (self.images or 0) // self.batch)


Split = Literal["test", "train", "validation"]


@attrs.frozen
class Eval:
    """The table `[eval]`: what is measured at the end, and every `train.eval_every` steps on `quick_rows` rows.

    Args:
        metrics: The metrics, as tables or text; with none, all that are not costly.
        split: The split whose rows are evaluated.
        rows: At most so many rows, evenly apart; None: all.
        quick_rows: At most so many rows in an evaluation between steps.
        batch: The rows that are evaluated at once.
        samples: The pictures in a grid.
    """

    metrics: list[MetricField] = attrs.field(factory=list)
    split: Split = "test"
    rows: int | None = attrs.field(default=None, validator=positive)
    quick_rows: int = attrs.field(default=512, validator=positive)
    batch: int = attrs.field(default=256, validator=valid_size)
    samples: int = attrs.field(default=64, validator=between(1, 10_000))


@attrs.frozen
class PluginTable:
    """A Python file with components of the recipe's own. Its path alone stands for the table.

    Args:
        file: Its path, relative to the recipe's folder.
        sha256: The hash that it must have; empty for any.
    """

    file: str
    sha256: str = ""


@attrs.frozen
class LatentTable:
    """The Space of a variable that no data source and no prior draws. A size or a shape stands for { size = .. }.

    Args:
        classes: The number of classes of a label.
        size: The size or the shape of a real variable.
        low, high: The range of its values, where it has one.
        like: A variable whose Space it has.
    """

    classes: int | None = attrs.field(default=None, validator=between(2, MAX_SIZE))
    size: int | list[int] | None = attrs.field(default=None, validator=valid_shape)
    low: float | None = None
    high: float | None = None
    like: str | None = None

    def __attrs_post_init__(self) -> None:
        if sum(one is not None for one in (self.classes, self.size, self.like)) != 1:
            raise ConfigError("write classes, size or like, one of the three")
        if (self.low is None) != (self.high is None) or (self.low is not None and self.size is None):
            raise ConfigError("a range is both low and high, and belongs to a size")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ConfigError(f"must be > low = {self.low:g}, got {self.high:g}", "high")


def _are_sizes(instance: Any, attribute: Any, value: dict[str, int | list[int] | LatentTable]) -> None:
    problems = Problems()
    for variable, one in value.items():
        if isinstance(one, LatentTable):
            continue
        try:
            valid_shape(instance, attribute, one)
        except ValueError as error:
            problems.add(str(error).partition("' ")[2], variable)
    problems.raise_any()


def _is_plain_name(instance: Any, attribute: Any, value: str) -> None:
    """A name of a folder in runs/ and of a row in tables; "" stands for the name of the recipe's file."""
    if value and not _can_name_a_folder(value):
        raise ValueError(
            f"{attribute.name!r} must be a plain name of a folder, at most {MAX_NAME_BYTES} bytes, without / and "
            f"\\ and control characters, and neither blank nor '.' nor '..' nor beginning with '~', got {show(value)}"
        )


def _can_name_a_folder(name: str) -> bool:
    plain = name.strip() not in ("", ".", "..") and not name.startswith("~") and not {"/", "\\"} & set(name)
    return plain and name == visible(name) and len(name.encode()) <= MAX_NAME_BYTES


@attrs.frozen
class Recipe:
    """A recipe. `encoder` is the part of that name, `encoders.NAME` are further parts, and so for the other kinds.

    Args:
        data: The data source: what is modelled.
        objective: What is maximised, and by which critics.
        train: The budget and how it is spent.
        format: The version of the format; there is one so far.
        name: The name of the run; empty for that of the recipe's file.
        seed: Of the weights, the order of rows and all noise.
        sources: Further data sources, by name.
        latents: Size, shape or classes of variables that neither data nor a prior draw.
        prior: The distribution p(z) of the code.
        priors: Further priors, by name.
        encoder: q(z|x): a network, and the family whose parameters it puts out.
        encoders: Further conditionals of q, by name.
        decoder: p(x|z): a network, and the family whose parameters it puts out.
        decoders: Further conditionals of p, by name.
        discriminator: The network of each critic that has none of its own.
        discriminators: The networks of single critics, by the critic's name.
        optimizer: How parts are optimised.
        eval: What is measured.
        plugins: Python files with components of the recipe's own: paths, or tables with their hashes.
        cite: The papers that `jointgen cite` prints: keys of jointgen/reports/papers.bib, or BibTeX entries, "@...".
    """

    data: DataField
    objective: ObjectiveField
    train: Train
    format: int = FORMAT
    name: str = attrs.field(default="", validator=_is_plain_name)
    seed: int = attrs.field(default=0, validator=valid_seed)
    sources: dict[str, DataField] = attrs.field(factory=dict)
    latents: dict[str, int | list[int] | LatentTable] = attrs.field(factory=dict, validator=_are_sizes)
    prior: PriorField | None = None
    priors: dict[str, PriorField] = attrs.field(factory=dict)
    encoder: EncoderTable | None = None
    encoders: dict[str, EncoderTable] = attrs.field(factory=dict)
    decoder: DecoderTable | None = None
    decoders: dict[str, DecoderTable] = attrs.field(factory=dict)
    discriminator: DiscriminatorField | None = None
    discriminators: dict[str, DiscriminatorField] = attrs.field(factory=dict)
    optimizer: OptimizerTables = attrs.field(factory=OptimizerTables)
    eval: Eval = attrs.field(factory=Eval)
    plugins: list[str | PluginTable] | None = None
    cite: list[str] | None = None

    def all_sources(self) -> dict[str, Any]:
        """Return every data source by the name of its part."""
        tables = {"data": self.data, **self.sources}
        return {part: t.component if isinstance(t, SampledSource) else t for part, t in tables.items()}

    @property
    def held_out(self) -> Literal["test", "validation"]:
        """The split whose rows training shows: the test split, if evaluations do not look at another one."""
        return "validation" if self.eval.split == "validation" else "test"

    def sampling(self, part: str) -> SampledSource:
        """Return which training rows of a data source are used, and how many of them in a step."""
        table = {"data": self.data, **self.sources}[part]
        return table if isinstance(table, SampledSource) else SampledSource(table)

    def batch_of(self, part: str) -> int:
        """Return how many rows of a data source a step takes."""
        return self.sampling(part).batch or self.train.batch

    def all_priors(self) -> dict[str, Any]:
        """Return every prior by the name of its part."""
        return {**({"prior": self.prior} if self.prior is not None else {}), **self.priors}

    def all_conditionals(self) -> dict[str, EncoderTable | DecoderTable]:
        """Return every encoder and decoder by the name of its part."""
        one = {name: t for name, t in (("encoder", self.encoder), ("decoder", self.decoder)) if t is not None}
        return {**one, **self.encoders, **self.decoders}

    def path_of(self, part: str) -> KeyPath:
        """Return the key path of a part's table, such as ``("encoders", "q2")``."""
        kinds = ("sources", "priors", "encoders", "decoders", "discriminators")
        return next(((kind, part) for kind in kinds if part in getattr(self, kind)), (part,))


def read_recipe(
    source: str | Path | Mapping[str, Any], overrides: Iterable[str] | Mapping[str, Any] = (), *, registry: Registry
) -> Recipe:
    """Read and check a recipe.

    Args:
        source: A file, whose `base` is followed, or tables.
        overrides: Values to replace, see `apply_overrides`.
        registry: Where components are found.

    Raises:
        ConfigError: Every problem found, each with its key path.
    """
    recipe = structure(read_tables(source, overrides), Recipe, registry)
    problems = _problems(recipe, registry)
    if recipe.eval.split == "validation":
        for part in recipe.all_sources():
            if recipe.sampling(part).validation is None:
                key = ".".join(map(str, (*recipe.path_of(part), "validation")))
                problems.add(f"no rows are held out for it; say how many, as in {key} = 5000", "eval", "split")
    problems.raise_any()
    return recipe


def read_tables(
    source: str | Path | Mapping[str, Any], overrides: Iterable[str] | Mapping[str, Any] = ()
) -> dict[str, Any]:
    """Return the tables of a recipe, with its name. The arguments are those of `read_recipe`, which takes the result.

    Raises:
        ConfigError: The file cannot be read, or an override does not fit; the problems of both.
    """
    try:
        if not isinstance(source, Mapping | str | os.PathLike):
            wanted = "the path of a recipe, the name of one that comes with jointgen, or nested dicts"
            raise ConfigError(f"expected {wanted}, got {show(source)}", "recipe")
        if not isinstance(source, Mapping):
            source = find_recipe(os.fspath(source))
        tables = dict(source) if isinstance(source, Mapping) else load_tables(source, shipped_recipes())
    except ConfigError as error:
        problems = Problems()
        with problems.collect():
            apply_overrides({}, overrides)
        if not problems:
            raise
        raise ConfigError([*error.problems, *problems]) from None
    tables = apply_overrides(tables, overrides)
    if tables.get("name", "") == "":
        stem = "" if isinstance(source, Mapping) else Path(source).stem
        tables["name"] = stem if _can_name_a_folder(stem) else "run"
    return tables


def check_names(tables: Mapping[str, Any], *, registry: Registry) -> None:
    """Check what can be known without importing a component: names of tables and components, and the engine's own keys.

    Components take seconds to import, so who may end here looks first. `read_recipe` says all that this says, and what
    is wrong with the keys of components.

    Args:
        tables: Of `read_tables`.
        registry: Where components are found.

    Raises:
        ConfigError: Every problem found, each with its key path.
    """
    _problems(structure(tables, Recipe, registry, load=False), registry).raise_any()


def _problems(recipe: Recipe, registry: Registry) -> Problems:
    """Find what no single table can know to be wrong."""
    problems = Problems()
    if recipe.format != FORMAT:
        problems.add(f"this version reads format {FORMAT}, got {recipe.format}", "format")
    if (recipe.train.steps is None) == (recipe.train.images is None):
        problems.add("give the budget as steps or as images, one of the two", "train")
    elif recipe.train.total_steps > MAX_COUNT:
        problems.add(f"make more than {MAX_COUNT:,} steps of {recipe.train.batch} rows", "train", "images")
    for number, tracker in enumerate(recipe.train.trackers):
        if isinstance(tracker, str):
            with problems.collect("train", "trackers", number):
                registry.get("tracker", tracker)
    names = [*recipe.all_sources(), *recipe.all_priors(), *recipe.all_conditionals()]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.add("two parts have this name", name)
    return problems


def write_recipe(recipe: Recipe, registry: Registry) -> str:
    """Write the resolved recipe as TOML: running it repeats the run."""
    return to_toml(unstructure(recipe, registry))


def changed_keys(old: str | Mapping[str, Any], new: str | Mapping[str, Any]) -> list[Problem]:
    """List what differs between two resolved recipes, as text or tables, such as ``train.steps: 40 -> 60``.

    The papers that they cite may differ: they change no run.
    """
    try:
        before, after = (parse_toml(recipe) if isinstance(recipe, str) else recipe for recipe in (old, new))
    except ValueError as error:
        raise ConfigError(f"a recipe of the run is not TOML: {error}") from None
    before, after = ({key: table for key, table in tables.items() if key != "cite"} for tables in (before, after))
    return list(_changes(before, after, ()))


def _changes(old: Any, new: Any, at: KeyPath) -> Iterable[Problem]:
    if _is_table(old or new) and _is_table(old or {}) and _is_table(new or {}):
        before, after = old or {}, new or {}
        # with another type the other keys belong to another component
        retyped = "type" in before and "type" in after and before["type"] != after["type"]
        for key in ["type"] if retyped else dict.fromkeys([*before, *after]):
            yield from _changes(before.get(key), after.get(key), (*at, key))
    elif _are_tables(old) and _are_tables(new) and len(old) == len(new):
        for n, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _changes(one, other, (*at, n))
    elif old != new or type(old) is not type(new):
        before, after = _shown(old), _shown(new)
        before, after = (before, after) if before != after else (repr(old), repr(new))  # shortened to the same
        yield Problem(f"{before} -> {after}", *at)


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _are_tables(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_table, value))


def _shown(value: Any) -> str:
    return "not set" if value is None else show(value)
