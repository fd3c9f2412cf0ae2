"""The promises of metrics: statistics collected over rows, and numbers that are finished from them.

An evaluation goes through *streams* of rows (a split of the data, or draws of the model) batch by batch, on any number
of processes. A metric says which statistics it wants of which stream (`StatisticSpec`) and how a figure is finished
from them (`MetricFigure`); equal statistics are collected once. It sees the model through a `ModelView` and the rows
through a `Batch`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import attrs
import torch
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
"""The stream of a statistic: the split that is evaluated, another one, or draws of the model side p."""

FigureValue = tuple[float | None, float | None]
"""(value, standard error), each None where it does not exist."""


# --- what a metric sees ----------------------------------------------------------------------------------------------


class RawBatch(Protocol):
    """Some rows of the data sources, and the noise that observes them."""

    @property
    def data(self) -> Mapping[str, Mapping[str, Any]]:
        """Raw rows by source and variable, (rows, ...) each, as the source yields them."""

    @property
    def noise(self) -> Noise:
        """The noise of these rows."""

    @property
    def rows(self) -> int:
        """The number of rows."""


class Batch(RawBatch, Protocol):
    """Some rows of a stream. Of the stream "draws", the rows are those that p's data roots take, if it has any.

    The noise is a function of the rows' numbers, so that how an evaluation is split does not change it
    (see Noise.of_rows).
    """

    @property
    def index(self) -> Tensor:
        """(rows,) int64: the numbers of the rows in the stream."""

    def recall(self, key: str, compute: Callable[[], T]) -> T:
        """Return what `compute` gave the first time that it was called with this key.

        Several statistics of one batch share a costly value in this way.
        """

    def labels(self, source: str = "") -> dict[str, Tensor]:
        """(rows,) int64 class numbers by the source's name for them, whether or not the model uses them.

        Args:
            source: The data source whose rows are meant, by its part; by default all of them.
        """


class RowFunction(Protocol):
    """An expression of expectations as a function of a batch; see `ModelView.row_function`."""

    def __call__(self, batch: Batch, noise: Noise | None = None) -> Tensor:
        """Evaluate the expression for each row, without gradients.

        Args:
            batch: The rows.
            noise: Other noise than the batch's for what is drawn, such as `batch.noise.repeated(rows, draws)` where an
                expectation is over several draws of each row.

        Returns:
            (B,) numbers; none where the expression re-pairs rows and the batch has too few for that.
        """


class ModelView(Protocol):
    """The model as a metric sees it. By convention the joint "q" is the inference side and "p" the model side.

    Values are in model space, (B, *shape), and densities in nats, (B,).
    """

    # --- its graph

    @property
    def spaces(self) -> Mapping[str, Space]:
        """The Space of each variable."""

    @property
    def joints(self) -> Mapping[str, Joint]:
        """The objective's joints by name."""

    @property
    def observed(self) -> list[str]:
        """The variables that data sources yield and that some conditional draws: x."""

    @property
    def sources(self) -> Mapping[str, Any]:
        """The recipe's data sources by part."""

    @property
    def reports(self) -> Mapping[str, Expr]:
        """The expressions that the objective's last stage asks to have reported, by name."""

    @property
    def ratios(self) -> Mapping[str, Ratio]:
        """The learned log-ratios and scores of the objective's last stage, by name."""

    def is_data(self, factor: Conditional) -> bool:
        """Whether a factor is a root that a data source draws, so that it has no density here."""

    def source_of(self, variable: str) -> str:
        """The data source that yields a variable, by its part's name."""

    def can_reconstruct(self, variable: str) -> bool:
        """Whether q encodes the variable to codes from which p draws it again."""

    def capabilities(self, factor: Conditional) -> Capabilities:
        """The capabilities that the family of a conditional, or a prior, declares; data roots have none."""

    def recall(self, key: str, compute: Callable[[], T]) -> T:
        """Return what `compute` gave the first time that it was called with this key.

        Several metrics of one model share what is costly to make in this way.
        """

    # --- expressions and densities

    def missing(self, expr: Expr) -> str:
        """Explains why an expression cannot be evaluated with this model's families; empty where it can."""

    def row_function(self, expr: Expr, observed: bool = False) -> RowFunction:
        """Turn an expression of expectations into a function of a batch.

        Args:
            expr: A sum of expectations over the model's joints.
            observed: Whether all functions share one observation of each batch, so that their figures are of the same
                drawn bits or dequantised values.
        """

    def log_prob(
        self, joint: str, variables: tuple[str, ...], values: Mapping[str, Tensor], noise: Noise, mass: bool = False
    ) -> Tensor:
        """Sum the log densities of the conditionals and priors of a joint that draw some variables.

        Args:
            joint: The name of the joint.
            variables: The variables whose densities are summed.
            values: A value of every variable that these need. The gradient flows to them.
            noise: The noise of priors that go through other parts.
            mass: Whether to take the exact probability of a quantised value's bin, where the family has it.

        Returns:
            (B,) nats.

        Raises:
            ConfigError: For a data root, or a conditional without a density.
        """

    def log_prob_pairs(self, joint: str, variable: str, values: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """Scores each of N values of a variable under its conditional given each of M rows.

        Args:
            joint: The name of the joint.
            variable: The variable, drawn by a conditional with a density at points that it did not draw.
            values: (N, *shape)
            given: (M, ...) rows of what the conditional is given.

        Returns:
            (N, M) nats.
        """

    def nearest_codes(self, joint: str, variable: str, given: Mapping[str, Tensor]) -> Tensor:
        """Number the vectors of a codebook that a conditional draws.

        Args:
            joint: The name of the joint.
            variable: The variable, drawn by a conditional whose capabilities have `codes`.
            given: (B, ...) rows of what the conditional is given.

        Returns:
            (B, P) int64, the number of the vector at each of a row's P positions.
        """

    # --- values

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""

    @property
    def dtype(self) -> torch.dtype:
        """The floating type that the model computes in."""

    def noise(self, seed: int, name: str) -> Noise:
        """Noise for what is drawn apart from the rows of a batch."""

    def observe(self, batch: RawBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Read the data of a batch.

        Returns:
            (means, samples): every variable that the data sources yield, (B, *shape). A sample is what encoders and
            likelihoods see (drawn bits, dequantised levels), a mean its expectation (grey levels).
        """

    def draw(
        self, joint: str, given: Mapping[str, Tensor], rows: int, noise: Noise, reading: str = "sample"
    ) -> dict[str, Tensor]:
        """Draw every variable of a joint, ancestors first.

        Args:
            joint: The name of the joint.
            given: Values that are taken as they are, (rows, *shape).
            rows: How many rows to draw.
            noise: The noise to draw with.
            reading: What conditionals pass on: "sample", "mean", or a reading of some family; where a conditional has
                no such reading, a sample.

        Returns:
            (rows, *shape) of each variable.

        Raises:
            ConfigError: For a data root that is not given, and a reading that no conditional has.
        """

    def sample_batch(self, batch: RawBatch, reading: str = "mean") -> dict[str, Tensor]:
        """Draw from p for a batch of the stream "draws".

        Codes are drawn, and what they are decoded to has this reading.

        Returns:
            (B, *shape) of each variable of p.
        """

    def reconstruct_batch(self, batch: RawBatch, variable: str) -> tuple[Tensor, Tensor]:
        """Decode the mean codes of a batch.

        Returns:
            (truth, reconstruction), (B, *shape) each: the variable, and the decoder's mean at the encoder's mean code.
        """


# --- what a metric gives ---------------------------------------------------------------------------------------------


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
        each: Where the statistic is the mean of a number of each row: these numbers, (B,), of a batch.
    """

    key: str
    compute: Callable[[Batch], Statistic]
    kind: type[Statistic] = Mean
    over: Over = "eval"
    rows: int | None = None
    of_data: bool | Callable[[], str] = False
    max_batch: int | None = None
    each: Callable[[Batch], Tensor] | None = None

    @property
    def name(self) -> str:
        """The key, stream and number of rows, which together identify the statistic."""
        return f"{self.key} over {self.rows or 'all'} of {self.over}"

    def dependency(self) -> str:
        """Name what a statistic of data depends on besides the data, for the key of its cache."""
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
    values: Callable[[Batch], Tensor],
    over: Over = "eval",
    rows: int | None = None,
    max_batch: int | None = None,
) -> StatisticSpec:
    """Specify the mean over rows of what `values` gives for a batch, (B,) numbers; see `StatisticSpec`."""
    return StatisticSpec(
        key, lambda batch: Mean.of(values(batch)), over=over, rows=rows, max_batch=max_batch, each=values
    )


def mean_and_error(mean: Mean) -> FigureValue:
    """Finishes a figure that is a mean over rows."""
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
        remark: Maps the merged statistics to what a reader should know of this very number, such as too few rows; ""
            for nothing.
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
    remark: Callable[..., str] = lambda *statistics: ""


@runtime_checkable
class Metric(Protocol):
    """A component of kind "metric". One that is registered as costly is evaluated only where it is asked for."""

    def figures(self, model: ModelView) -> list[MetricFigure]:
        """The figures of this model, without evaluating any; one that the model cannot have says why in its note.

        Two metrics that give the same object (see `ModelView.recall`) give one figure; two of one name are refused.
        """


# --- features of generated rows ---------------------------------------------------------------------------------------


@attrs.frozen(eq=False)
class FeatureBatch:
    """The features of some rows.

    Args:
        features: (B, F) floating numbers.
        logits: (B, K) of classes, where the extractor has classes.
    """

    features: Tensor
    logits: Tensor | None = None


class Features(Protocol):
    """An extractor for one variable of a data source. `absent` costs next to nothing; the rest may be slow."""

    @property
    def absent(self) -> str:
        """Explains in one line why it cannot be had here and what can be done about it; empty where it can."""

    def identity(self) -> str:
        """Name what decides its numbers, with a hash of its weights: "classifier@1a2b3c4d (99.1 % on test)"."""

    def __call__(self, rows: Tensor) -> FeatureBatch:
        """Extract the features of each row by itself.

        Args:
            rows: (B, *shape) in what the extractor `takes`, on any device; the features stay there.
        """


@runtime_checkable
class Extractor(Protocol):
    """A component of kind "extractor": chooses the features that generated rows are scored on."""

    @property
    def name(self) -> str:
        """The name in figures, as in "fid/NAME"."""

    @property
    def takes(self) -> Literal["pixels", "values"]:
        """The input: "pixels", uint8 (B, C, H, W), 0 to 255, of images; or "values" of any variable, in model space."""

    @property
    def has_classes(self) -> bool:
        """Whether it gives logits."""

    def build(self, space: Space, variable: str, source: Any) -> Features:
        """Make the features of a variable of a data source. Cheap: reads, fetches and trains nothing.

        Args:
            space: The variable's Space.
            variable: The source's name for it.
            source: The data source.
        """
