"""What families of the form mean + scale * standard noise share: the scale's keys, the module, the draw, its blur."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, get_args

import attrs
import torch
from torch import Tensor, nn

from jointgen.plugin import ConfigError, Draw, NoiseSource, PathKind, Space, at_least_float32
from jointgen_families.bins import Bins
from jointgen_families.means import MeanModule, MeanName, check_mean

ScaleName = Literal["per_element", "global", "per_channel", "fixed"]


class LocationScaleDraw:
    """One eps of the standard distribution and its readings; each is computed when it is read."""

    def __init__(self, mean: Tensor, scale: Tensor, eps: Tensor):
        self._mean, self._scale, self._eps = mean, scale, eps

    def read(self, reading: str) -> Tensor:
        """(B, *shape): sample, mean + scale eps; smoothed, the same with the scale's gradient stopped; mean."""
        if reading == "mean":
            return self._mean
        assert reading in ("sample", "smoothed"), f"a location-scale draw has no reading {reading!r}"
        scale = self._scale.detach() if reading == "smoothed" else self._scale
        return self._mean + scale * self._eps


class LocationScaleDistribution:
    """Base of B rows of independent mean + scale * eps.

    mean: (B, *shape); log_scale: any shape that broadcasts to it.
    space: of the variable, for the bins of quantised data.
    """

    def __init__(self, mean: Tensor, log_scale: Tensor, space: Space):
        self.mean, self.log_scale, self.space = mean, log_scale, space

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp()

    def draw(self, noise: NoiseSource) -> LocationScaleDraw:
        raise NotImplementedError

    def standardize(self, value: Tensor) -> Tensor:
        """(B, *shape): (value - mean) / scale."""
        return (value - self.mean) * torch.exp(-self.log_scale)

    def standard_bins(self, level: Tensor, bins: Bins) -> tuple[Tensor, Tensor]:
        """(B, *shape) each: the centres of the bins `level`, standardised, and their widths over the scale."""
        m = self.standardize(bins.centre(level))
        return m, (bins.width * torch.exp(-self.log_scale)).expand_as(m)


@attrs.frozen
class LocationScale:
    """Base of the families' configs, with the keys that they share.

    scale: where the scale comes from
        per_element: the trunk puts out log scales beside the means;
        global, per_channel: learned numbers that depend on no input (per_channel: one per entry of the first axis);
        fixed: init_scale.
    init_scale: the scale at the start (per_element: at a zero output), in the variable's units.
    min_log_scale, max_log_scale: log scales are clamped to these.
    mean: linear, or sigmoid for a variable of known range.
    """

    name: ClassVar[str]

    scale: ScaleName = attrs.field(default="per_element", validator=attrs.validators.in_(get_args(ScaleName)))
    init_scale: float = attrs.field(default=1.0, validator=attrs.validators.gt(0.0))
    min_log_scale: float = -6.0
    max_log_scale: float = 3.0
    mean: MeanName = attrs.field(default="linear", validator=attrs.validators.in_(get_args(MeanName)))

    @init_scale.validator
    def _within_bounds(self, attribute: Any, value: float) -> None:
        check_init_scale(value, self.min_log_scale, self.max_log_scale)

    def readings(self, sample: PathKind = "exact") -> dict[str, PathKind]:
        """How the gradient reaches the parameters through each reading of a draw."""
        paths: dict[str, PathKind] = {"sample": sample, "mean": "exact"}
        if self.scale != "per_element":  # else the scale's path goes through the trunk, and none is left to stop
            paths["smoothed"] = "exact"
        return paths

    def outputs(self, space: Space) -> tuple[int, ...]:
        self.check(space)
        return (2 * space.shape[0], *space.shape[1:]) if self.scale == "per_element" else space.shape

    def check(self, space: Space) -> None:
        """Raises ConfigError for a variable that the family does not serve."""
        check_real(self.name, space)
        check_mean(self.mean, space)


def check_init_scale(value: float, min_log_scale: float, max_log_scale: float) -> None:
    """Raises ValueError for a start that the clamp would move."""
    if min_log_scale > max_log_scale:
        raise ValueError(f"'min_log_scale' must be <= max_log_scale = {max_log_scale}: {min_log_scale}")
    if not min_log_scale <= math.log(value) <= max_log_scale:
        raise ValueError(
            f"'init_scale' must lie in exp([min_log_scale, max_log_scale]) = "
            f"[{math.exp(min_log_scale):.3g}, {math.exp(max_log_scale):.3g}]: {value}"
        )


def check_real(name: str, space: Space) -> None:
    if space.kind != "real":
        raise ConfigError(f'"{name}" is a family of real variables, this one is {space}', "type")


def check_quantised(name: str, space: Space) -> None:
    check_real(name, space)
    if space.bins is None:
        raise ConfigError(f'"{name}" is a family of quantised data, this variable has no levels: {space}', "type")


class LocationScaleModule(MeanModule):
    """(B, *outputs) -> a distribution. Keeps the learned log scale, where the scale is no output of the trunk.

    distribution: called with the mean, the log scale and the Space.
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
        params = at_least_float32(params)
        if self.config.scale != "per_element":
            return self.distribution(self.mean_of(params), self._shared_log_scale(params), self.space)
        out, log_scale = params.chunk(2, dim=1)
        return self.distribution(self.mean_of(out), self._clamped(log_scale + self._start), self.space)

    def view(self, reading: str, draw: Draw, noise: NoiseSource) -> Tensor:
        """(B, *shape) of observed data: "smoothed" is x + stop(scale) eps, data blurred as the model's draws are.

        Both sides of a ratio then have full support (docs/as-vae-on-photographs.md).
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
        """The log scale that depends on no input."""
        # a fixed one is made here: a float32 buffer cast to float64 would keep its rounding
        return like.new_full((), self._start) if self.config.scale == "fixed" else self._clamped(self.log_scale)
