"""Diagonal Gaussians."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import attrs
import torch
from torch import Tensor, nn

from jointgen.capabilities import Capabilities, Path
from jointgen.errors import ConfigError
from jointgen.interfaces import Draw, sum_event
from jointgen.nats import LOG_2PI
from jointgen.noise import NoiseSource
from jointgen.space import Space
from jointgen_families.bins import log_bin_mass
from jointgen_families.means import MeanModule, MeanName, check_mean

ScaleName = Literal["per_element", "global", "per_channel", "fixed"]


class GaussianDraw:
    """One eps ~ N(0, I) and its readings; each is computed when it is read."""

    def __init__(self, mean: Tensor, scale: Tensor, eps: Tensor):
        self._mean, self._scale, self._eps = mean, scale, eps

    def read(self, reading: str) -> Tensor:
        """(B, *shape): sample, mean + scale eps; smoothed, the same with the scale's gradient stopped; mean."""
        if reading == "mean":
            return self._mean
        assert reading in ("sample", "smoothed"), f"a Gaussian draw has no reading {reading!r}"
        scale = self._scale.detach() if reading == "smoothed" else self._scale
        return self._mean + scale * self._eps


class DiagonalGaussian:
    """B independent N(mean, scale^2).

    mean: (B, *shape); log_scale: any shape that broadcasts to it.
    space: of the variable, for the bins of quantised data.
    """

    def __init__(self, mean: Tensor, log_scale: Tensor, space: Space):
        self.mean, self.log_scale, self.space = mean, log_scale, space

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp()

    def draw(self, noise: NoiseSource) -> GaussianDraw:
        """One eps per element; z = mean + scale eps (Kingma & Welling 2014, section 2.4)."""
        return GaussianDraw(self.mean, self.scale, noise.normal(*self.mean.shape[1:]))

    def log_prob(self, value: Tensor) -> Tensor:
        """(B, *shape) -> (B,) nats: -sum 1/2 ((v - mean) / scale)^2 + log scale + 1/2 log 2 pi."""
        return -sum_event(0.5 * self.standardize(value) ** 2 + self.log_scale + 0.5 * LOG_2PI)

    def moments(self) -> DiagonalGaussian:
        """Itself, without a gradient."""
        return DiagonalGaussian(self.mean.detach(), self.log_scale.detach(), self.space)

    def standardize(self, value: Tensor) -> Tensor:
        """(B, *shape): (value - mean) / scale."""
        return (value - self.mean) * torch.exp(-self.log_scale)

    def log_prob_bins(self, value: Tensor) -> Tensor:
        """(B, *shape) -> (B,) nats: log of the exact mass of the bin in which each value lies (papers.md Q-d).

        Bin i is [low + i w, low + (i + 1) w], w the bin width. The bins at the edges are *not* extended to
        infinity (the AS-VAE paper's and IAF's formula): mass outside [low, high] is lost, so the code length
        stays valid but is a little looser than PixelCNN++'s.
        """
        low, width = self.space.low, self.space.bin_width
        assert low is not None and width is not None and self.space.bins is not None, f"no bins in {self.space}"
        level = ((value - low) / width).floor().clamp(0, self.space.bins - 1)
        centre = low + (level + 0.5) * width
        per_unit = torch.exp(-self.log_scale)  # 1 / scale
        return sum_event(log_bin_mass((centre - self.mean) * per_unit, (width * per_unit).expand_as(centre)))

    def kl_to(self, other: DiagonalGaussian) -> Tensor:
        """(B,) nats: KL(self || other) = sum log(s'/s) + (s^2 + (m - m')^2) / (2 s'^2) - 1/2.

        To N(0, I) this is Kingma & Welling 2014, appendix B.
        """
        log_ratio = other.log_scale - self.log_scale  # log s'/s
        standard = (self.mean - other.mean) * torch.exp(-other.log_scale)
        return sum_event(log_ratio + 0.5 * (torch.exp(-2 * log_ratio) + standard**2 - 1))


@attrs.frozen
class Gaussian:
    """Diagonal Gaussian, for encoders and decoders of real variables.

    scale: where the standard deviation comes from
        per_element: the trunk puts out log scales beside the means;
        global, per_channel: learned numbers that depend on no input (per_channel: one per entry of the first axis);
        fixed: init_scale.
    init_scale: the standard deviation at the start (per_element: at a zero output), in the variable's units.
    min_log_scale, max_log_scale: log scales are clamped to these.
    mean: linear, or sigmoid for a variable of known range.
    """

    scale: ScaleName = attrs.field(default="per_element", validator=attrs.validators.in_(get_args(ScaleName)))
    init_scale: float = attrs.field(default=1.0, validator=attrs.validators.gt(0.0))
    min_log_scale: float = -6.0
    max_log_scale: float = 3.0
    mean: MeanName = attrs.field(default="linear", validator=attrs.validators.in_(get_args(MeanName)))

    @init_scale.validator
    def _within_bounds(self, attribute: Any, value: float) -> None:
        if self.min_log_scale > self.max_log_scale:
            raise ValueError(f"'min_log_scale' must be <= max_log_scale = {self.max_log_scale}: {self.min_log_scale}")
        if not self.min_log_scale <= math.log(value) <= self.max_log_scale:
            raise ValueError(
                f"'init_scale' must lie in exp([min_log_scale, max_log_scale]) = "
                f"[{math.exp(self.min_log_scale):.3g}, {math.exp(self.max_log_scale):.3g}]: {value}"
            )

    def capabilities(self, space: Space) -> Capabilities:
        self._check(space)
        paths: dict[str, Path] = {"sample": "exact", "mean": "exact"}
        if self.scale != "per_element":  # else the scale's path goes through the trunk, and none is left to stop
            paths["smoothed"] = "exact"
        return Capabilities(paths, kl_to=("normal", "gaussian"), bin_mass=space.bins is not None, moments=True)

    def outputs(self, space: Space) -> tuple[int, ...]:
        self._check(space)
        return (2 * space.shape[0], *space.shape[1:]) if self.scale == "per_element" else space.shape

    def build(self, space: Space) -> nn.Module:
        self._check(space)
        return GaussianModule(self, space)

    def _check(self, space: Space) -> None:
        if space.kind != "real":
            raise ConfigError(f'type: "gaussian" is a family of real variables, this one is {space}')
        check_mean(self.mean, space)


class GaussianModule(MeanModule):
    """(B, *outputs) -> DiagonalGaussian. Keeps the learned log scale, where the scale is no output of the trunk."""

    def __init__(self, config: Gaussian, space: Space):
        super().__init__(space, config.mean)
        self.config, self.space = config, space
        if config.scale in ("global", "per_channel"):
            shape = () if config.scale == "global" else (space.shape[0], *[1] * (len(space.shape) - 1))
            self.log_scale = nn.Parameter(torch.full(shape, math.log(config.init_scale)))

    def forward(self, params: Tensor) -> DiagonalGaussian:
        if self.config.scale != "per_element":
            return DiagonalGaussian(self.mean_of(params), self._shared_log_scale(params), self.space)
        out, log_scale = params.chunk(2, dim=1)
        return DiagonalGaussian(self.mean_of(out), self._clamped(log_scale + self._start), self.space)

    def view(self, reading: str, draw: Draw, noise: NoiseSource) -> Tensor:
        """(B, *shape) of observed data: "smoothed" is x + stop(scale) eps, data blurred as the model's draws are.

        Both sides of a ratio then have full support (asvae-images.md section 4, view "both").
        """
        assert reading == "smoothed" and self.config.scale != "per_element", f"no reading {reading!r} of data here"
        x = draw.read("sample")
        return x + self._shared_log_scale(x).exp().detach() * noise.normal(*x.shape[1:])

    @property
    def _start(self) -> float:
        return math.log(self.config.init_scale)

    def _clamped(self, log_scale: Tensor) -> Tensor:
        return log_scale.clamp(self.config.min_log_scale, self.config.max_log_scale)

    def _shared_log_scale(self, like: Tensor) -> Tensor:
        """The log scale that depends on no input."""
        # a fixed one is made here: a float32 buffer cast to float64 would keep its rounding
        return like.new_full((), self._start) if self.config.scale == "fixed" else self._clamped(self.log_scale)
