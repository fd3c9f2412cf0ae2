"""Everything that a plugin may use: the one door beside `jointgen`, `jointgen.objectives` and `jointgen.testing`.

A component is an attrs class whose fields are the recipe's keys. Its package registers it::

    from jointgen import Registrar, hookimpl

    @hookimpl
    def jointgen_register(registry: Registrar) -> None:
        registry.encoder("wide_mlp", "my_package.networks:WideMLP", paper="...")

and the component's own module takes what it needs from here::

    from jointgen.plugin import Space, positive

A name is imported when it is first asked for, so that importing this module loads neither torch nor torchvision.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jointgen.config.fields import MAX_SIZE as MAX_SIZE
    from jointgen.config.fields import AugmentationField as AugmentationField
    from jointgen.config.fields import ConstraintField as ConstraintField
    from jointgen.config.fields import CriticLossField as CriticLossField
    from jointgen.config.fields import DataField as DataField
    from jointgen.config.fields import DecoderField as DecoderField
    from jointgen.config.fields import DiscriminatorField as DiscriminatorField
    from jointgen.config.fields import DivergenceField as DivergenceField
    from jointgen.config.fields import EncoderField as EncoderField
    from jointgen.config.fields import ExtractorField as ExtractorField
    from jointgen.config.fields import FamilyField as FamilyField
    from jointgen.config.fields import MetricField as MetricField
    from jointgen.config.fields import ObjectiveField as ObjectiveField
    from jointgen.config.fields import OptimizerField as OptimizerField
    from jointgen.config.fields import PenaltyField as PenaltyField
    from jointgen.config.fields import PriorField as PriorField
    from jointgen.config.fields import ScheduleField as ScheduleField
    from jointgen.config.fields import TrackerField as TrackerField
    from jointgen.config.fields import below_one as below_one
    from jointgen.config.fields import between as between
    from jointgen.config.fields import fraction as fraction
    from jointgen.config.fields import non_negative as non_negative
    from jointgen.config.fields import positive as positive
    from jointgen.config.fields import valid_count as valid_count
    from jointgen.config.fields import valid_depth as valid_depth
    from jointgen.config.fields import valid_layers as valid_layers
    from jointgen.config.fields import valid_log_scale as valid_log_scale
    from jointgen.config.fields import valid_seed as valid_seed
    from jointgen.config.fields import valid_shape as valid_shape
    from jointgen.config.fields import valid_share as valid_share
    from jointgen.config.fields import valid_side as valid_side
    from jointgen.config.fields import valid_size as valid_size
    from jointgen.config.fields import valid_size_or_none as valid_size_or_none
    from jointgen.config.optimizers import Rate as Rate
    from jointgen.contracts.augmentations import Augmentation as Augmentation
    from jointgen.contracts.augmentations import augmented_values as augmented_values
    from jointgen.contracts.capabilities import Capabilities as Capabilities
    from jointgen.contracts.capabilities import DensityKind as DensityKind
    from jointgen.contracts.capabilities import PathKind as PathKind
    from jointgen.contracts.constraints import Constraint as Constraint
    from jointgen.contracts.critics import CriticCall as CriticCall
    from jointgen.contracts.critics import CriticLoss as CriticLoss
    from jointgen.contracts.critics import HasBoundary as HasBoundary
    from jointgen.contracts.critics import Penalty as Penalty
    from jointgen.contracts.critics import PointwiseTerm as PointwiseTerm
    from jointgen.contracts.data_keys import LOADING as LOADING
    from jointgen.contracts.data_keys import LOCATION as LOCATION
    from jointgen.contracts.data_keys import READING as READING
    from jointgen.contracts.data_keys import SIZE as SIZE
    from jointgen.contracts.distributions import ClosedFormKL as ClosedFormKL
    from jointgen.contracts.distributions import Distribution as Distribution
    from jointgen.contracts.distributions import Draw as Draw
    from jointgen.contracts.distributions import Family as Family
    from jointgen.contracts.distributions import FamilyModule as FamilyModule
    from jointgen.contracts.distributions import HasBinMass as HasBinMass
    from jointgen.contracts.distributions import HasCodebook as HasCodebook
    from jointgen.contracts.distributions import HasDensity as HasDensity
    from jointgen.contracts.distributions import HasMoments as HasMoments
    from jointgen.contracts.distributions import HasValues as HasValues
    from jointgen.contracts.distributions import MatchedGaussian as MatchedGaussian
    from jointgen.contracts.distributions import PartCall as PartCall
    from jointgen.contracts.distributions import Prior as Prior
    from jointgen.contracts.distributions import PriorOfFamily as PriorOfFamily
    from jointgen.contracts.distributions import PriorOfVariable as PriorOfVariable
    from jointgen.contracts.distributions import PriorThroughParts as PriorThroughParts
    from jointgen.contracts.distributions import ReadyDraw as ReadyDraw
    from jointgen.contracts.distributions import ScoredDraw as ScoredDraw
    from jointgen.contracts.distributions import ScoresEachDimension as ScoresEachDimension
    from jointgen.contracts.distributions import StartsAtMean as StartsAtMean
    from jointgen.contracts.distributions import StartsAtRows as StartsAtRows
    from jointgen.contracts.distributions import StartsAtValues as StartsAtValues
    from jointgen.contracts.distributions import ViewsData as ViewsData
    from jointgen.contracts.distributions import sum_event as sum_event
    from jointgen.contracts.divergences import Divergence as Divergence
    from jointgen.contracts.estimators import Estimator as Estimator
    from jointgen.contracts.estimators import Law as Law
    from jointgen.contracts.figures import Display as Display
    from jointgen.contracts.metrics import Batch as Batch
    from jointgen.contracts.metrics import Extractor as Extractor
    from jointgen.contracts.metrics import FeatureBatch as FeatureBatch
    from jointgen.contracts.metrics import Features as Features
    from jointgen.contracts.metrics import FigureValue as FigureValue
    from jointgen.contracts.metrics import Metric as Metric
    from jointgen.contracts.metrics import MetricFigure as MetricFigure
    from jointgen.contracts.metrics import ModelView as ModelView
    from jointgen.contracts.metrics import Provenance as Provenance
    from jointgen.contracts.metrics import StatisticSpec as StatisticSpec
    from jointgen.contracts.metrics import mean_and_error as mean_and_error
    from jointgen.contracts.metrics import per_row as per_row
    from jointgen.contracts.networks import Discriminator as Discriminator
    from jointgen.contracts.networks import Dropout as Dropout
    from jointgen.contracts.networks import Follower as Follower
    from jointgen.contracts.networks import Network as Network
    from jointgen.contracts.networks import NoisyLayer as NoisyLayer
    from jointgen.contracts.networks import OffersFeatures as OffersFeatures
    from jointgen.contracts.noise import NOISE_BLOCK as NOISE_BLOCK
    from jointgen.contracts.noise import Noise as Noise
    from jointgen.contracts.noise import NoiseSource as NoiseSource
    from jointgen.contracts.numerics import LOG_2PI as LOG_2PI
    from jointgen.contracts.numerics import at_least_float32 as at_least_float32
    from jointgen.contracts.numerics import bits_per_dim as bits_per_dim
    from jointgen.contracts.numerics import log1mexp as log1mexp
    from jointgen.contracts.numerics import log_mean_exp as log_mean_exp
    from jointgen.contracts.observation import has_pixels as has_pixels
    from jointgen.contracts.observation import observe as observe
    from jointgen.contracts.observation import pixels as pixels
    from jointgen.contracts.observation import place_in_bin as place_in_bin
    from jointgen.contracts.optimizers import Optimizer as Optimizer
    from jointgen.contracts.optimizers import Schedule as Schedule
    from jointgen.contracts.reductions import ChecksDraws as ChecksDraws
    from jointgen.contracts.reductions import GradientReduction as GradientReduction
    from jointgen.contracts.reductions import Reduction as Reduction
    from jointgen.contracts.reductions import TermDraws as TermDraws
    from jointgen.contracts.sources import AugmentedRows as AugmentedRows
    from jointgen.contracts.sources import Column as Column
    from jointgen.contracts.sources import CountedSource as CountedSource
    from jointgen.contracts.sources import DataSource as DataSource
    from jointgen.contracts.sources import NamedClasses as NamedClasses
    from jointgen.contracts.sources import NamedColumns as NamedColumns
    from jointgen.contracts.sources import OptionalLabels as OptionalLabels
    from jointgen.contracts.sources import PlacedRows as PlacedRows
    from jointgen.contracts.sources import RemarkedRows as RemarkedRows
    from jointgen.contracts.sources import Rows as Rows
    from jointgen.contracts.sources import StoredRows as StoredRows
    from jointgen.contracts.sources import labelled as labelled
    from jointgen.contracts.space import Space as Space
    from jointgen.contracts.statistics import KeptRows as KeptRows
    from jointgen.contracts.statistics import Mean as Mean
    from jointgen.contracts.statistics import Statistic as Statistic
    from jointgen.contracts.trackers import StartedTracker as StartedTracker
    from jointgen.contracts.trackers import Tracker as Tracker
    from jointgen.contracts.trackers import TrackerOptions as TrackerOptions
    from jointgen.errors import ConfigError as ConfigError
    from jointgen.errors import FileError as FileError
    from jointgen.errors import MissingFileError as MissingFileError
    from jointgen.errors import Problem as Problem
    from jointgen.errors import placing as placing
    from jointgen.errors import suggest as suggest
    from jointgen.images.decode import decoding_images as decoding_images
    from jointgen.images.decode import drop_rows as drop_rows
    from jointgen.images.decode import error_text as error_text
    from jointgen.images.decode import quiet_pillow as quiet_pillow
    from jointgen.images.decode import read_image as read_image
    from jointgen.images.decode import too_many_broken as too_many_broken
    from jointgen.images.folders import Listing as Listing
    from jointgen.images.folders import class_names as class_names
    from jointgen.images.folders import list_source as list_source
    from jointgen.images.folders import split_folders as split_folders
    from jointgen.images.shards import PreparedManifest as PreparedManifest
    from jointgen.images.shards import check_files as check_files
    from jointgen.images.shards import map_split as map_split
    from jointgen.images.shards import read_manifest as read_manifest
    from jointgen.inference.hmc import HMC_TARGET as HMC_TARGET
    from jointgen.inference.hmc import HMCPath as HMCPath
    from jointgen.inference.hmc import hmc_move as hmc_move
    from jointgen.inference.hmc import next_step_sizes as next_step_sizes
    from jointgen.inference.hmc import with_slope as with_slope
    from jointgen.registry.components import Registrar as Registrar
    from jointgen.registry.components import Registry as Registry
    from jointgen.registry.hooks import Commands as Commands
    from jointgen.registry.hooks import RunView as RunView
    from jointgen.registry.hooks import Section as Section
    from jointgen.runtime.cache import CacheFile as CacheFile
    from jointgen.runtime.cache import cached as cached
    from jointgen.runtime.cache import fingerprint as fingerprint
    from jointgen.runtime.console import log as log
    from jointgen.runtime.console import log_once as log_once
    from jointgen.runtime.console import warn_once as warn_once
    from jointgen.runtime.devices import in_float64 as in_float64
    from jointgen.runtime.memory import machine_memory as machine_memory
    from jointgen.runtime.progress import Counter as Counter
    from jointgen.runtime.regular_files import check_regular as check_regular
    from jointgen.runtime.regular_files import read_regular as read_regular
    from jointgen.runtime.regular_files import user_path as user_path
    from jointgen.text import listed as listed

_MODULES = {
    "config.fields": (
        "AugmentationField",
        "OptimizerField",
        "ScheduleField",
        "TrackerField",
        "ConstraintField",
        "CriticLossField",
        "DataField",
        "DecoderField",
        "DiscriminatorField",
        "DivergenceField",
        "EncoderField",
        "ExtractorField",
        "FamilyField",
        "MetricField",
        "ObjectiveField",
        "PenaltyField",
        "PriorField",
        "MAX_SIZE",
        "between",
        "valid_count",
        "valid_layers",
        "valid_depth",
        "valid_seed",
        "valid_share",
        "valid_side",
        "valid_log_scale",
        "valid_size",
        "valid_size_or_none",
        "valid_shape",
        "below_one",
        "fraction",
        "non_negative",
        "positive",
    ),
    "config.optimizers": ("Rate",),
    "contracts.augmentations": ("Augmentation", "augmented_values"),
    "contracts.optimizers": ("Optimizer", "Schedule"),
    "contracts.trackers": ("StartedTracker", "Tracker", "TrackerOptions"),
    "contracts.capabilities": (
        "Capabilities",
        "DensityKind",
        "PathKind",
    ),
    "contracts.constraints": ("Constraint",),
    "contracts.critics": (
        "CriticCall",
        "CriticLoss",
        "HasBoundary",
        "Penalty",
        "PointwiseTerm",
    ),
    "contracts.data_keys": (
        "LOADING",
        "LOCATION",
        "READING",
        "SIZE",
    ),
    "contracts.distributions": (
        "ClosedFormKL",
        "Distribution",
        "Draw",
        "Family",
        "FamilyModule",
        "HasBinMass",
        "HasCodebook",
        "HasDensity",
        "HasMoments",
        "HasValues",
        "MatchedGaussian",
        "PartCall",
        "Prior",
        "PriorOfFamily",
        "PriorOfVariable",
        "PriorThroughParts",
        "ReadyDraw",
        "ScoredDraw",
        "ScoresEachDimension",
        "StartsAtMean",
        "StartsAtRows",
        "StartsAtValues",
        "ViewsData",
        "sum_event",
    ),
    "contracts.divergences": ("Divergence",),
    "contracts.estimators": ("Estimator", "Law"),
    "contracts.figures": ("Display",),
    "contracts.metrics": (
        "Batch",
        "Extractor",
        "FeatureBatch",
        "Features",
        "FigureValue",
        "Metric",
        "MetricFigure",
        "ModelView",
        "Provenance",
        "StatisticSpec",
        "mean_and_error",
        "per_row",
    ),
    "contracts.networks": (
        "Discriminator",
        "Dropout",
        "Follower",
        "Network",
        "NoisyLayer",
        "OffersFeatures",
    ),
    "contracts.noise": (
        "NOISE_BLOCK",
        "Noise",
        "NoiseSource",
    ),
    "contracts.numerics": (
        "LOG_2PI",
        "at_least_float32",
        "bits_per_dim",
        "log1mexp",
        "log_mean_exp",
    ),
    "contracts.observation": (
        "has_pixels",
        "observe",
        "pixels",
        "place_in_bin",
    ),
    "contracts.reductions": (
        "ChecksDraws",
        "GradientReduction",
        "Reduction",
        "TermDraws",
    ),
    "contracts.sources": (
        "AugmentedRows",
        "DataSource",
        "Column",
        "CountedSource",
        "NamedColumns",
        "NamedClasses",
        "OptionalLabels",
        "PlacedRows",
        "RemarkedRows",
        "Rows",
        "StoredRows",
        "labelled",
    ),
    "contracts.space": ("Space",),
    "contracts.statistics": (
        "KeptRows",
        "Mean",
        "Statistic",
    ),
    "errors": (
        "ConfigError",
        "FileError",
        "MissingFileError",
        "Problem",
        "placing",
        "suggest",
    ),
    "images.decode": (
        "decoding_images",
        "quiet_pillow",
        "read_image",
        "error_text",
        "too_many_broken",
        "drop_rows",
    ),
    "images.folders": (
        "Listing",
        "class_names",
        "list_source",
        "split_folders",
    ),
    "images.shards": (
        "PreparedManifest",
        "check_files",
        "map_split",
        "read_manifest",
    ),
    "inference.hmc": (
        "HMC_TARGET",
        "HMCPath",
        "hmc_move",
        "next_step_sizes",
        "with_slope",
    ),
    "registry.components": (
        "Registrar",
        "Registry",
    ),
    "registry.hooks": ("Commands", "RunView", "Section"),
    "runtime.cache": (
        "CacheFile",
        "cached",
        "fingerprint",
    ),
    "runtime.console": ("log", "log_once", "warn_once"),
    "runtime.devices": ("in_float64",),
    "runtime.memory": ("machine_memory",),
    "runtime.progress": ("Counter",),
    "runtime.regular_files": (
        "check_regular",
        "read_regular",
        "user_path",
    ),
    "text": ("listed",),
}
_HOME = {name: f"jointgen.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'jointgen.plugin' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_HOME)
