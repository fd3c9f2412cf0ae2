"""What metrics promise: statistics collected over rows, and numbers that are finished from them.

An evaluation goes through *streams* of rows (a split of the data, or draws of the model) batch by batch, on any number
of processes. A metric says which statistics it wants of which stream; equal ones are collected once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import attrs
from torch import Tensor

from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.figures import Better, Bound, Display
from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.contracts.statistics import Mean, Statistic
from jointgen.objectives.algebra import Expr
from jointgen.objectives.distributions import Conditional, Joint
from jointgen.objectives.expressions import Ratio

T = TypeVar("T")

Over = Literal["eval", "train", "test", "draws"]
"""The split that is evaluated, another one, or draws of the model side p."""

FigureValue = tuple[float | None, float | None]
"""(value, standard error), each None where it does not exist."""


class Batch(Protocol):
    """Rows of a stream, as a metric sees them. Of "draws", the rows are those that p's data roots take, if it has any.

    noise: by the numbers of the rows, so that how an evaluation is split is no matter (see Noise.of_rows).
    index: (rows,) int64, which rows of the stream.
    """

    @property
    def rows(self) -> int: ...

    @property
    def noise(self) -> Noise: ...

    @property
    def index(self) -> Tensor: ...

    def recall(self, key: str, compute: Callable[[], T]) -> T:
        """What `compute` gave the first time: several statistics of one batch share what is costly."""


class ModelView(Protocol):
    """The model as a metric sees it. By convention the joint "q" is the inference side and "p" the model side."""

    @property
    def spaces(self) -> Mapping[str, Space]: ...

    @property
    def joints(self) -> Mapping[str, Joint]: ...

    @property
    def observed(self) -> list[str]:
        """Variables that data sources yield and the model side generates: x."""

    @property
    def sources(self) -> Mapping[str, Any]:
        """The recipe's data sources by part."""

    @property
    def reports(self) -> Mapping[str, Expr]:
        """Expressions that the objective asks to have reported, by name."""

    def recall(self, key: str, compute: Callable[[], T]) -> T:
        """What `compute` gave the first time: several metrics of one model share what is costly to make."""

    @property
    def ratios(self) -> Mapping[str, Ratio]:
        """The objective's learned log-ratios and scores, by name."""

    def is_data(self, factor: Conditional) -> bool:
        """Whether a root is drawn from a data source, so that it has no density here."""

    def capabilities(self, factor: Conditional) -> Capabilities:
        """What the family of a conditional, or a prior, declares that it can do; data roots have none."""

    # --- expressions

    def missing(self, expr: Expr) -> str:
        """Why an expression cannot be evaluated with this model's families, or an empty string."""

    def rows(self, expr: Expr, observed: bool = False) -> Callable[[Any], Tensor]:
        """An expression of expectations as a function of a batch that gives (B,) numbers, without gradients; none
        of a batch whose rows are too few to be re-paired, where the expression does.

        observed: of a batch that `as_observed` gave.
        """

    def as_observed(self, batch: Any, name: str = "") -> Any:
        """The same rows, observed once (bits or dequantisation noise drawn, as `observe` gives them), as a batch.

        Every call with another `name` has fresh noise for what is drawn of it, and the same observed data. Its `noise`
        may be replaced, by `batch.noise.repeated(rows, draws)` where an expectation is over several draws of each row.
        """

    def log_prob(
        self, joint: str, variables: tuple[str, ...], values: Mapping[str, Tensor], noise: Noise, mass: bool = False
    ) -> Tensor:
        """(B,) nats: the sum of the log densities of a joint's conditionals (or priors) that draw these variables.

        values: of every variable that they need, (B, *shape), in model space; the gradient flows to them. mass: the
        exact probability of their bins where the family has it and the data is quantised. noise: for priors that go
        through other parts. Raises ConfigError for a data root, or a conditional without a density.
        """

    def log_prob_pairs(self, joint: str, variable: str, values: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """(N, M) nats: each of N values (N, *shape) of a variable under its conditional given each of M rows.

        For a conditional with a density at points that it did not draw.
        """

    # --- values

    def noise(self, seed: int, name: str) -> Noise:
        """For what is drawn apart from the rows of a batch."""

    def observe(self, batch: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(mean readings, samples) of every observed variable of a batch, (B, *shape) in model space."""

    def draw(
        self, joint: str, given: Mapping[str, Tensor], rows: int, noise: Noise, reading: str = "sample"
    ) -> dict[str, Tensor]:
        """Every variable of a joint, (rows, *shape), ancestors first; `given` variables are taken as they are."""

    def generate(self, batch: Any, reading: str = "mean") -> dict[str, Tensor]:
        """p's draws for a batch of "draws", each variable (B, *shape): codes are drawn, what they decode to has this
        reading."""

    def rebuild(self, batch: Any, variable: str) -> tuple[Tensor, Tensor]:
        """(truth, reconstruction), (B, *shape) each: the decoder's mean at the encoder's mean code."""

    def can_reconstruct(self, variable: str) -> bool:
        """Whether q encodes the variable to one code from which p draws it again."""

    def labels(self, batch: Any) -> dict[str, Tensor]:
        """(B,) int64 class numbers by the source's name for them, whether or not the model uses them."""


@attrs.frozen(eq=False)
class StatisticSpec:
    """A statistic to collect over the rows of one stream.

    Args:
        key: Names the statistic within an evaluation. Equal keys over equal rows mean equal statistics, and these are
            collected once.
        compute: Maps a batch to the statistic of its rows.
        kind: The class of the statistic.
        over: The stream.
        rows: At most so many of its rows, evenly apart; of "draws", how many (None: as many as the split has rows).
        max_batch: At most so many rows at a time, where a row takes long. What is done is shown, saved and shared out
            over processes by batches.
        of_data: Whether the statistic depends on the data and `key` alone, not on the model, so that other runs on the
            same data find it in the cache; or a function that names what else it depends on (the weights of an
            extractor). The function may take long: it is called once the statistic is wanted.
    """

    key: str
    compute: Callable[[Any], Statistic]
    kind: type[Statistic] = Mean
    over: Over = "eval"
    rows: int | None = None
    of_data: bool | Callable[[], str] = False
    max_batch: int | None = None

    @property
    def name(self) -> str:
        """The key, stream and number of rows, which together identify the statistic."""
        return f"{self.key} over {self.rows or 'all'} of {self.over}"

    def dependency(self) -> str:
        """Names what a statistic of data depends on besides the data, for the key of its cache."""
        return self.of_data() if callable(self.of_data) else ""


@attrs.frozen
class Provenance:
    """The rows that a statistic was collected from.

    Args:
        over: The name of the stream.
        rows: How many rows it has.
        content: A hash of the rows, where the statistic is `of_data`.
    """

    over: str
    rows: int
    content: str = ""


def per_row(
    key: str,
    values: Callable[[Any], Tensor],
    over: Over = "eval",
    rows: int | None = None,
    max_batch: int | None = None,
) -> StatisticSpec:
    """Specifies the mean over rows of what `values` gives for a batch, (B,) numbers; see `StatisticSpec`."""
    return StatisticSpec(key, lambda batch: Mean.of(values(batch)), over=over, rows=rows, max_batch=max_batch)


def mean_and_error(mean: Mean) -> FigureValue:
    return mean.value, mean.standard_error


@attrs.frozen
class MetricFigure:
    """A number that a metric gives: the statistics that it is finished from, its meaning, and how it is shown.

    Args:
        name: The key of the figure in logs and files, such as "iwae_64".
        unit: Its unit, such as "nats".
        estimator: How it is estimated, in a few words.
        statistics: The statistics to collect. Empty where the figure does not exist for this model; `note` says why.
        bound: How the figure stands to the quantity that it is named for; None where that is not a question.
        note: What a reader should know besides, or why there is no figure.
        finish: Maps the merged statistics, one for each of `statistics`, to (value, standard error) in `unit`. The
            number of rows reported is that of the first one.
        better: Which way is better; None where that is not a question, and then a run cannot keep its best by it.
        protocol: All that must be equal for two figures of this name to be compared, beyond unit, estimator and split
            (how many samples, which features, ...). Where it is not known before, a function of a `Provenance` for
            each of `statistics`.
        display: How tables and pages show the figure.
        watched: Whether early stopping may watch it: a loss, which training lowers as long as it helps.
    """

    name: str
    unit: str
    estimator: str
    statistics: tuple[StatisticSpec, ...] = ()
    bound: Bound | None = None
    note: str = ""
    finish: Callable[..., FigureValue] = mean_and_error
    better: Better | None = None
    protocol: str | Callable[..., str] = ""
    display: Display = attrs.field(factory=Display)
    watched: bool = False


@runtime_checkable
class Metric(Protocol):
    """A component of kind "metric"; one that is registered as costly is evaluated where it is asked for."""

    def figures(self, subject: ModelView) -> list[MetricFigure]: ...


# --- features of generated rows ---------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class FeatureBatch:
    """features: (B, F), floating.  logits: (B, K) of classes, where the extractor has classes."""

    features: Tensor
    logits: Tensor | None = None


class Features(Protocol):
    """An extractor for one variable of a data source. `absent` costs next to nothing; the rest may be slow."""

    @property
    def absent(self) -> str:
        """Why it cannot be had here and what can be done about it, in one line; or an empty string."""

    def identity(self) -> str:
        """What decides its numbers, with a hash of its weights: "classifier@1a2b3c4d (99.1 % on test)"."""

    def __call__(self, rows: Tensor) -> FeatureBatch:
        """(B, *shape) rows in what the extractor `takes`, on any device -> their features there; each row by itself."""


@runtime_checkable
class Extractor(Protocol):
    """A component of kind "extractor": chooses the features that generated rows are scored on.

    name: what figures are called by, as in "fid/NAME".
    takes: "pixels", uint8 (B, C, H, W), 0 to 255, of a variable that is images; or "values" of any, in model space.
    has_classes: whether it gives logits.
    """

    @property
    def name(self) -> str: ...

    @property
    def takes(self) -> Literal["pixels", "values"]: ...

    @property
    def has_classes(self) -> bool: ...

    def build(self, space: Space, variable: str, source: Any) -> Features:
        """For a variable of a data source, by the source's name for it. Cheap: reads, fetches and trains nothing."""
