"""The conformance suite: checks of what every component must do, which a plugin's own tests can run.

A plugin's whole test file has one case for each promise, so that every broken promise shows::

    import pytest
    from jointgen.testing import checks

    from my_package import MyFamily

    @pytest.mark.parametrize("check", checks("family", MyFamily()), ids=str)
    def test_conformance(check):
        check()

A check raises AssertionError, which says what is broken, what was found and what was expected, or unittest.SkipTest
if it does not apply. jointgen runs the same checks over every registered component.
"""

from __future__ import annotations

import functools
import unittest
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jointgen.config.plugin_files import registry_of
from jointgen.contracts.space import Space
from jointgen.errors import RAISED, ConfigError, suggest
from jointgen.registry.components import KINDS, Component
from jointgen.testing.augmentations import AUGMENTATIONS
from jointgen.testing.batch_terms import BATCH_TERMS
from jointgen.testing.bins import BINS
from jointgen.testing.check import Check, checks_of, described, expect
from jointgen.testing.constraints import CONSTRAINTS
from jointgen.testing.critics import LOSSES, PENALTIES, TERMS, Subject
from jointgen.testing.densities import DENSITIES
from jointgen.testing.divergences import DIVERGENCES
from jointgen.testing.draws import DRAWS
from jointgen.testing.estimators import ESTIMATORS
from jointgen.testing.evaluation import tiny_model
from jointgen.testing.extractors import EXTRACTORS, on_sources
from jointgen.testing.laws import laws_of_family, laws_of_prior
from jointgen.testing.modules import MODULES
from jointgen.testing.moments import MOMENTS
from jointgen.testing.networks import NETWORKS, Setting, nets_of
from jointgen.testing.objectives import METRICS, OBJECTIVES, OnTinyModel
from jointgen.testing.optimizers import OPTIMIZERS, SCHEDULES
from jointgen.testing.reductions import REDUCTIONS
from jointgen.testing.sources import SOURCES
from jointgen.testing.trackers import TRACKERS

LAWS = [*DRAWS, *MODULES, *DENSITIES, *BINS, *DIVERGENCES, *MOMENTS]


def checks(
    kind: str,
    config: Any,
    *,
    spaces: Sequence[Space] | None = None,
    settings: Sequence[Setting] | None = None,
    tables: Mapping[str, Any] | None = None,
) -> list[Check]:
    """Return a check for each promise of a component.

    Args:
        kind: The registry kind, such as "family".
        config: The component with its settings.
        spaces: For a family, the Spaces of the variable; by default all of `jointgen.testing.laws.SPACES` that it
            serves.
        settings: For a network, (inputs by name, output shape) pairs; by default all of
            `jointgen.testing.networks.SETTINGS` that it serves.
        tables: For an objective or a metric that needs other parts, changes to the recipe of the tiny model (Gaussian
            parts, 8x8 images) on which it is checked, such as {"decoder": {...}}.

    Raises:
        ConfigError: There is no such kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown kind of component {kind!r}{suggest(kind, KINDS)}")
    of: dict[str, Callable[[], list[Check]]] = {
        "family": lambda: checks_of(laws_of_family(config, spaces), LAWS),
        "prior": lambda: checks_of(laws_of_prior(config), LAWS),
        "critic_loss": lambda: checks_of([Subject(config)], LOSSES),
        "penalty": lambda: checks_of([Subject(config)], PENALTIES),
        "constraint": lambda: checks_of([Subject(config)], CONSTRAINTS),
        "divergence": lambda: checks_of([Subject(config)], BATCH_TERMS),
        "term": lambda: checks_of([Subject(config)], TERMS),
        "estimator": lambda: checks_of([Subject(config)], ESTIMATORS),
        "reduction": lambda: checks_of([Subject(config)], REDUCTIONS),
        "data": lambda: checks_of([Subject(config)], SOURCES),
        "objective": lambda: checks_of([OnTinyModel(config, tables or {})], OBJECTIVES),
        "metric": lambda: checks_of([OnTinyModel(config, tables or {})], METRICS),
        "extractor": lambda: checks_of(on_sources(config), EXTRACTORS),
        "optimizer": lambda: checks_of([Subject(config)], OPTIMIZERS),
        "schedule": lambda: checks_of([Subject(config)], SCHEDULES),
        "tracker": lambda: checks_of([Subject(config)], TRACKERS),
        "augmentation": lambda: checks_of([Subject(config)], AUGMENTATIONS),
    }
    try:
        return of[kind]() if kind in of else checks_of(nets_of(kind, config, settings), NETWORKS)
    except AssertionError as error:  # it serves nothing that was tried: one case fails, and the test file still loads
        return [_failed(config, str(error))]
    except RAISED as error:  # whatever it raises where it is asked what it serves
        return [_failed(config, f"raises {type(error).__name__}: {error}")]


def _failed(config: Any, why: str) -> Check:
    return Check(described(config), "serves something", functools.partial(expect, False, why))


def check_file(path: str) -> dict[str, tuple[int, list[str]]]:
    """Check every component of a plugin file with its default settings.

    Args:
        path: The file.

    Returns:
        For each component, by its kind and name, how many promises it keeps, and a line for each that it breaks.

    Raises:
        ConfigError: The file cannot be run.
    """
    (file,) = registry_of({"plugins": [path]}).files
    return {f"{component.kind} {component.name}": _kept(component) for component in file.components}


def _kept(component: Component) -> tuple[int, list[str]]:
    cls: Any = component.load()
    try:
        config = cls()
    except TypeError as error:
        return 0, [f"{component} is checked with its default settings, and one has none: {error}"]
    kept, broken = 0, list[str]()
    for check in checks(component.kind, config):
        try:
            check()
            kept += 1
        except unittest.SkipTest:
            continue
        except AssertionError as error:
            broken.append(str(error))
    return kept, broken


__all__ = ["Check", "check_file", "checks", "tiny_model"]
