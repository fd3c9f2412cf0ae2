"""The base of families of the form mean + scale * standard noise: keys, module, distribution, draw and views."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal, get_args

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import ConfigError, Draw, NoiseSource, PathKind, Space, at_least_float32, positive, valid_log_scale
from jointgen_families.bins import Bins
from jointgen_families.means import MeanModule, MeanName, check_mean

ScaleName = Literal["per_element", "global", "per_channel", "fixed"]


class LocationScaleDraw:
    """A draw mean + scale eps; each reading is computed when it is read.

    Args:
        mean: The mean, (B, *shape).
        scale: The scale, of a shape that broadcasts to it.
        eps: Noise of the standard distribution, (B, *shape).
    """

    def __init__(self, mean: Tensor, scale: Tensor, eps: Tensor):
        self._mean, self._scale, self._eps = mean, scale, eps

    def read(self, reading: str) -> Tensor:
        """Return a reading, (B, *shape).

        Args:
            reading: "sample", mean + scale eps; "smoothed", the same without the scale's gradient; or "mean".
        """
        if reading == "mean":
            return self._mean
        assert reading in ("sample", "smoothed"), f"a location-scale draw has no reading {reading!r}"
        scale = self._scale.detach() if reading == "smoothed" else self._scale
        return self._mean + scale * self._eps


class LocationScaleDistribution:
    """The base of B rows of independent mean + scale * eps.

    Args:
        mean: The means, (B, *shape).
        log_scale: The logarithms of the scales, of a shape that broadcasts to it.
        space: The Space of the variable, for the bins of quantised data.
    """

    def __init__(self, mean: Tensor, log_scale: Tensor, space: Space):
        self.mean, self.log_scale, self.space = mean, log_scale, space

    @property
    def scale(self) -> Tensor:
        """The scale, of the shape of log_scale."""
        return self.log_scale.exp()

    def draw(self, noise: NoiseSource) -> LocationScaleDraw:
        """Draw from each row; subclasses say from which standard distribution."""
        raise NotImplementedError

    def standardize(self, value: Tensor) -> Tensor:
        """Return (value - mean) / scale, (B, *shape)."""
        return (value - self.mean) * torch.exp(-self.log_scale)

    def standard_bins(self, level: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
        """Return the standardised centres of the bins `level`, and their widths over the scale, (B, *shape) each."""
        m = self.standardize(bins.centre(level))
        return m, (bins.width * torch.exp(-self.log_scale)).expand_as(m)


@attrs.frozen
class LocationScale:
    """The base of these families' components, with the keys that they share.

    Args:
        scale: Where the scale comes from. per_element: the trunk outputs log scales beside the means. global and
            per_channel: learned numbers that depend on no input, one in all or one per entry of the first axis.
            fixed: init_scale.
        init_scale: The scale at the start (per_element: at a zero output of the trunk), in the variable's units.
        min_log_scale: Log scales are clamped to this from below.
        max_log_scale: Log scales are clamped to this from above.
        mean: Linear, or sigmoid for a variable of known range.
    """

    name: ClassVar[str]

    scale: ScaleName = attrs.field(default="per_element", validator=attrs.validators.in_(get_args(ScaleName)))
    init_scale: float = attrs.field(default=1.0, validator=positive)
    min_log_scale: float = attrs.field(default=-6.0, validator=valid_log_scale)
    max_log_scale: float = attrs.field(default=3.0, validator=valid_log_scale)
    mean: MeanName = attrs.field(default="linear", validator=attrs.validators.in_(get_args(MeanName)))

    @init_scale.validator
    def _within_bounds(self, attribute: attrs.Attribute[float], value: float) -> None:
        check_init_scale(value, self.min_log_scale, self.max_log_scale)

    def readings(self, sample: PathKind = "exact") -> dict[str, PathKind]:
        """Return how the gradient reaches the parameters through each reading of a draw."""
        paths: dict[str, PathKind] = {"sample": sample, "mean": "exact"}
        if self.scale != "per_element":  # otherwise the scale depends on the trunk and could not be stopped alone
            paths["smoothed"] = "exact"
        return paths

    def outputs(self, space: Space) -> tuple[int, ...]:
        """Return the shape of the parameters that the trunk must output, without the batch axis."""
        self.check(space)
        return (2 * space.shape[0], *space.shape[1:]) if self.scale == "per_element" else space.shape

    def check(self, space: Space) -> None:
        """Raise ConfigError for a variable that the family does not serve."""
        check_real(self.name, space)
        check_mean(self.mean, space)


def check_init_scale(value: float, min_log_scale: float, max_log_scale: float) -> None:
    """Raise ValueError for a start that the clamp would move."""
    if min_log_scale > max_log_scale:
        raise ValueError(f"'min_log_scale' must be <= max_log_scale = {max_log_scale}: {min_log_scale}")
    if not min_log_scale <= math.log(value) <= max_log_scale:
        raise ValueError(
            f"'init_scale' must lie in exp([min_log_scale, max_log_scale]) = "
            f"[{math.exp(min_log_scale):.3g}, {math.exp(max_log_scale):.3g}]: {value}"
        )


def check_real(name: str, space: Space) -> None:
    """Raise ConfigError for a variable that is not real."""
    if space.kind != "real":
        raise ConfigError(f'"{name}" is a family of real variables, this one is {space}', "type")


def check_quantised(name: str, space: Space) -> None:
    """Raise ConfigError for a variable that is not quantised data."""
    check_real(name, space)
    if space.bins is None:
        raise ConfigError(f'"{name}" is a family of quantised data, this variable has no levels: {space}', "type")


class LocationScaleModule(MeanModule):
    """The family's module: (B, *outputs) -> a distribution. It holds the learned log scale, where there is one.

    Args:
        config: The family's component.
        space: The Space of the variable.
        distribution: A function of the mean, the log scale and the Space that returns the distribution.
    """

    def __init__(
        self,
        config: LocationScale,
        space: Space,
        distribution: Callable[[Tensor, Tensor, Space], LocationScaleDistribution],
    ):
        super().__init__(space, config.mean)
        self.config, self.space, self.distribution = config, space, distribution
        if config.scale in ("global", "per_channel"):
            shape = () if config.scale == "global" else (space.shape[0], *[1] * (len(space.shape) - 1))
            self.log_scale = nn.Parameter(torch.full(shape, math.log(config.init_scale)))

    def forward(self, params: Tensor) -> LocationScaleDistribution:
        """Return the distribution of each row."""
        params = at_least_float32(params)
        if self.config.scale != "per_element":
            return self.distribution(self.mean_of(params), self._shared_log_scale(params), self.space)
        out, log_scale = params.chunk(2, dim=1)
        log_scale = log_scale + self._start if self._start else log_scale  # an operation less at the usual start, 1
        return self.distribution(self.mean_of(out), self._clamped(log_scale), self.space)

    def view(self, reading: str, draw: Draw, noise: NoiseSource) -> Tensor:
        """Return x + stop(scale) eps, data blurred as the model's draws are, (B, *shape).

        With this reading, "smoothed", both sides of a ratio have full support (docs/concepts/as-vae-on-photographs.md).
        """
        assert reading == "smoothed" and self.config.scale != "per_element", f"no reading {reading!r} of data here"
        x = draw.read("sample")
        return self.distribution(x, self._shared_log_scale(x), self.space).draw(noise).read("smoothed")

    @property
    def _start(self) -> float:
        return math.log(self.config.init_scale)

    def _clamped(self, log_scale: Tensor) -> Tensor:
        return log_scale.clamp(self.config.min_log_scale, self.config.max_log_scale)

    def _shared_log_scale(self, like: Tensor) -> Tensor:
        """Return the log scale that depends on no input."""
        # a fixed one is no buffer, because a float32 buffer cast to float64 would keep its rounding
        return like.new_full((), self._start) if self.config.scale == "fixed" else self._clamped(self.log_scale)
