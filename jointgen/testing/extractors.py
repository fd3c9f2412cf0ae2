"""Checks of extractors: features of each row by itself, the same ones whenever they are computed."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import attrs
import torch
from torch import Tensor

from jointgen.contracts.metrics import FeatureBatch, Features
from jointgen.contracts.noise import Noise
from jointgen.contracts.observation import has_pixels, observe, pixels
from jointgen.contracts.space import Space
from jointgen.registry.discovery import load_plugins
from jointgen.testing.check import (
    Promises,
    described,
    expect,
    expect_close,
    expect_equal,
    expect_finite,
    expect_shape,
    promise,
    skip,
)
from jointgen.testing.randomness import no_global_randomness

EXTRACTORS: Promises = []
SOURCES = ("digits", "ring")
"""Data sources with images of 8x8 pixels and classes, and with points in the plane."""


@attrs.frozen(eq=False, slots=False)
class OnSource:
    """An extractor for the x of a registered data source.

    Args:
        config: The extractor.
        name: The data source.
    """

    config: Any
    name: str

    @property
    def source(self) -> Any:
        """The data source with its default settings."""
        cls: Any = load_plugins().registry.get("data", self.name).load()
        return cls()

    @property
    def space(self) -> Space:
        """The Space of x."""
        space: Space = self.source.spaces()["x"]
        return space

    @cached_property
    def features(self) -> Features:
        """The built extractor; the check is skipped if it is absent."""
        features = self.config.build(self.space, "x", self.source)
        if features.absent:
            skip(features.absent)
        found: Features = features
        return found

    def rows(self, n: int) -> Tensor:
        """Return rows as the extractor takes them."""
        raw = self.source.open("test").take(torch.arange(n))["x"]
        values = observe(self.space, raw, Noise(0).named("rows", n)).read("mean")
        return pixels(values, self.space) if self.config.takes == "pixels" else values

    def __str__(self) -> str:
        return f"{described(self.config)} on {self.name}"


def on_sources(config: Any) -> list[OnSource]:
    """Return the extractor for each of SOURCES that it can take."""
    found = [OnSource(config, name) for name in SOURCES]
    return [one for one in found if config.takes == "values" or has_pixels(one.space)]


@promise(EXTRACTORS)
def it_says_what_it_is(subject: OnSource) -> None:
    config = subject.config
    expect(isinstance(config.name, str) and config.name, "it has no name for figures to be called by")
    expect(config.takes in ("pixels", "values"), f"it takes {config.takes!r}, which is neither 'pixels' nor 'values'")
    expect(isinstance(config.has_classes, bool), "has_classes is neither True nor False")


@promise(EXTRACTORS)
def it_can_be_had_or_says_why_not(subject: OnSource) -> None:
    absent = subject.config.build(subject.space, "x", subject.source).absent
    expect(isinstance(absent, str), f"`absent` is a {type(absent).__name__}, it must be a string")
    expect(absent == absent.strip() and "\n" not in absent, "`absent` is not one line")


@promise(EXTRACTORS)
def features_are_finite_numbers_of_rows(subject: OnSource) -> None:
    found = subject.features(subject.rows(6))
    expect(isinstance(found, FeatureBatch), f"it gives a {type(found).__name__}, it must be a FeatureBatch")
    expect(found.features.is_floating_point(), f"features are {found.features.dtype}, they must be floating")
    expect_shape("features of 6 rows", found.features, (6, found.features.shape[-1]))
    expect_finite("a feature", found.features)
    expect((found.logits is not None) == subject.config.has_classes, "has_classes is not whether there are logits")
    if found.logits is not None:
        expect_shape("logits of 6 rows", found.logits, (6, found.logits.shape[-1]))
        expect_finite("a logit", found.logits)


@promise(EXTRACTORS)
def rows_do_not_mix(subject: OnSource) -> None:
    rows = subject.rows(6)
    whole, part = subject.features(rows).features, subject.features(rows[2:5]).features
    expect_close("features of three of six rows", part, whole[2:5], 1e-4)


@promise(EXTRACTORS)
def features_are_the_same_when_it_is_made_again(subject: OnSource) -> None:
    first, again = subject.features, subject.config.build(subject.space, "x", subject.source)
    with no_global_randomness("features"):
        one, two = first(subject.rows(4)), again(subject.rows(4))
    expect_equal("features differ when the extractor is made again", two.features, one.features)
    expect(first.identity() and first.identity() == again.identity(), "identity() differs when it is made again")
