"""The laws of a pixel given its features: its channels in order, as levels.

A law has modules of its own, and turns the features of each pixel, (B, F, h, w), into the probability of its levels,
(B, C, h, w) of 0..L-1. It works on whole images and on one pixel alike.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jointgen.plugin import NoiseSource, Space, at_least_float32, sum_event
from jointgen_families.autoregressive.streams import CausalConv
from jointgen_families.logistic_mixture import LogisticMixture


class PixelLaw(Protocol):
    """The law of a pixel."""

    def log_mass(self, features: Tensor, level: Tensor) -> Tensor:
        """Return the log-probability of the levels, summed over pixels and channels, (B,) nats."""

    def draw(self, features: Tensor, noise: NoiseSource) -> Tensor:
        """Return drawn levels, (B, C, h, w)."""


def centred(level: Tensor, count: int) -> Tensor:
    """Return the middles of levels on [-1, 1]; of two levels, the ends."""
    return 2 * level - 1 if count == 2 else (2 * level + 1) / count - 1


class CategoricalLaw(nn.Module):
    """A softmax over the levels of each channel, given the channels before it (van den Oord et al. 2016, section 3).

    In the papers, masks inside every layer let a channel see those before it in its pixel. Here the layers see earlier
    pixels only, and each channel has two layers of its own behind them, which are given the earlier channels.

    Args:
        width: F, the number of features.
        channels: C.
        levels: L.
    """

    def __init__(self, width: int, channels: int, levels: int):
        super().__init__()
        self.levels = levels
        self.hidden = nn.ModuleList(CausalConv(width + c, width) for c in range(channels))
        self.logits = nn.ModuleList(CausalConv(width, levels, start_scale=0.1) for _ in range(channels))

    def log_mass(self, features: Tensor, level: Tensor) -> Tensor:
        """See `PixelLaw.log_mass`."""
        x = centred(level, self.levels)
        scores = [
            F.cross_entropy(at_least_float32(self._logits(c, features, x[:, :c])), level[:, c].long(), reduction="none")
            for c in range(level.shape[1])
        ]
        return -sum_event(torch.stack(scores, 1))

    def draw(self, features: Tensor, noise: NoiseSource) -> Tensor:
        """See `PixelLaw.draw`: by the inverse of the distribution function of each channel."""
        u = noise.uniform(len(self.hidden), *features.shape[2:])
        level = features.new_empty(len(features), 0, *features.shape[2:])
        for c in range(len(self.hidden)):
            logits = at_least_float32(self._logits(c, features, centred(level, self.levels)))
            below = logits.softmax(1).cumsum(1)[:, :-1]  # the last level takes what rounding leaves
            level = torch.cat([level, (u[:, c : c + 1] >= below).sum(1, keepdim=True).to(level.dtype)], 1)
        return level

    def _logits(self, channel: int, features: Tensor, earlier: Tensor) -> Tensor:
        hidden = self.hidden[channel](torch.cat([features, earlier], 1))
        out: Tensor = self.logits[channel](F.elu(hidden))
        return out


class LogisticMixtureLaw(nn.Module):
    """The mixture of discretised logistics of PixelCNN++, whose channels share a component and are coupled linearly.

    Args:
        width: F, the number of features.
        space: The Space of the image.
        components: The number of components.
    """

    def __init__(self, width: int, space: Space, components: int):
        super().__init__()
        family = LogisticMixture(components=components)
        self.pixel = Space((space.shape[0], 1, 1), low=space.low, high=space.high, bins=space.bins)
        self.mixture = family.build(self.pixel)
        self.outputs = CausalConv(width, family.outputs(self.pixel)[0], start_scale=0.1)
        self.low, self.width = space.low, space.bin_width

    def log_mass(self, features: Tensor, level: Tensor) -> Tensor:
        """See `PixelLaw.log_mass`."""
        nats: Tensor = self.mixture(self.outputs(features)).log_prob_bins(self._value(level))
        return nats

    def draw(self, features: Tensor, noise: NoiseSource) -> Tensor:
        """See `PixelLaw.draw`."""
        law = self.mixture(self.outputs(features))
        level: Tensor = law.bins.level(law.draw_values(noise))
        return level

    def _value(self, level: Tensor) -> Tensor:
        assert self.low is not None and self.width is not None
        return self.low + (level + 0.5) * self.width
