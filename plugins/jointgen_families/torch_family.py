"""Any distribution of `torch.distributions` whose draws have a sample path, as a family of independent elements.

These distributions draw from torch's global generator. Here the random functions that they call take named noise
instead, so that a draw depends on the seed, the step and its name alone (docs/concepts/noise-and-resume.md).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints, transform_to
from torch.overrides import TorchFunctionMode

from jointgen.plugin import (
    Capabilities,
    ConfigError,
    NoiseSource,
    ReadyDraw,
    Space,
    at_least_float32,
    between,
    suggest,
    sum_event,
)
from jointgen_families.location_scale import check_real
from jointgen_families.precision import without_autocast

TRIES = 16
"""So often a gamma variate is proposed; all are refused in one of 10^20 cases, where the last proposal is taken."""

WITHOUT_CENTRE = ("FisherSnedecor",)
"""Distributions that have neither a mean nor a mode where their parameters are small."""

# --- draws from named noise ------------------------------------------------------------------------------------------


class NamedRandomness(TorchFunctionMode):
    """Lets the random functions of torch that are called within it take their numbers from named noise.

    Args:
        noise: The noise; every random tensor must begin with its B rows.
    """

    def __init__(self, noise: NoiseSource):
        super().__init__()
        self.noise = noise

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace a random function; all others run as they are."""
        name = getattr(func, "__name__", "")
        if name in _RANDOM:
            return _RANDOM[name](self.noise, args, kwargs or {})
        if name in _UNNAMED:
            raise ConfigError(f"its draws use torch's {name}, for which there is no named noise", "distribution")
        return func(*args, **(kwargs or {}))


def _rows_of(shape: Any, noise: NoiseSource) -> tuple[int, ...]:
    """Return the shape without its rows."""
    rows, *event = shape
    assert rows == noise.rows, f"{rows} random rows of a distribution over {noise.rows}"
    return tuple(event)


class StandardGamma(torch.autograd.Function):
    """Gamma(a, 1) by Marsaglia & Tsang 2000, with a fixed number of proposals; for a < 1 as in their section 6.

    The gradient is torch's, by implicit reparameterisation (Figurnov, Mohamed & Mnih 2018).
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, noise: NoiseSource) -> Tensor:
        """Draw, of the shape of a."""
        shape = _rows_of(a.shape, noise)
        d = torch.where(a < 1, a + 1, a) - 1 / 3
        found, taken = d.clone(), torch.zeros_like(a, dtype=torch.bool)
        for _ in range(TRIES):
            x, u = noise.normal(*shape).to(a), noise.uniform(*shape).to(a)
            v = (1 + (9 * d).rsqrt() * x) ** 3
            log_v = torch.log(v.clamp_min(_tiny(a)))
            fits = (v > 0) & (torch.log(u) < 0.5 * x * x + d - d * v + d * log_v)
            found = torch.where(fits & ~taken, d * v, found)
            taken |= fits
        boost = torch.where(a < 1, torch.log1p(-noise.uniform(*shape).to(a)) / a, 0.0)
        drawn = (found * boost.exp()).clamp_min(_tiny(a))
        ctx.save_for_backward(a, drawn)
        return drawn

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of a."""
        a, drawn = ctx.saved_tensors
        return gradients[0] * torch._standard_gamma_grad(a, drawn), None


def _filled(of: Callable[[NoiseSource, tuple[int, ...], Any], Tensor]) -> Callable[[NoiseSource, Any, Any], Tensor]:
    """Return a function that fills its first argument."""

    def fill(noise: NoiseSource, args: Any, kwargs: Any) -> Tensor:
        held: Tensor = args[0]
        return held.copy_(of(noise, _rows_of(held.shape, noise), args[1:]))

    return fill


def _uniform(noise: NoiseSource, shape: tuple[int, ...], bounds: Any) -> Tensor:
    low, high = bounds or (0.0, 1.0)
    return low + (high - low) * noise.uniform(*shape)


def _cauchy(noise: NoiseSource, shape: tuple[int, ...], at: Any) -> Tensor:
    median, scale = at or (0.0, 1.0)
    return median + scale * torch.tan(math.pi * (noise.uniform(*shape) - 0.5))


def _shape_of(args: Any) -> Any:
    return args[0] if isinstance(args[0], list | tuple) else args


def _tiny(like: Tensor) -> float:
    return torch.finfo(like.dtype).tiny


_RANDOM: dict[str, Callable[[NoiseSource, Any, Any], Tensor]] = {
    "normal": lambda noise, args, kwargs: args[0] + args[1] * noise.normal(*_rows_of(args[0].shape, noise)),
    "rand": lambda noise, args, kwargs: noise.uniform(*_rows_of(_shape_of(args), noise)).to(kwargs.get("dtype")),
    "normal_": _filled(lambda noise, shape, at: noise.normal(*shape)),
    "uniform_": _filled(_uniform),
    "exponential_": _filled(lambda noise, shape, rate: -torch.log1p(-noise.uniform(*shape)) / (*rate, 1.0)[0]),
    "cauchy_": _filled(_cauchy),
    "_standard_gamma": lambda noise, args, kwargs: StandardGamma.apply(args[0], noise),
    "_sample_dirichlet": lambda noise, args, kwargs: _normalised(StandardGamma.apply(args[0], noise)),
}
_UNNAMED = (
    "bernoulli",
    "multinomial",
    "poisson",
    "binomial",
    "rand_like",
    "randn",
    "randn_like",
    "randint",
    "randperm",
)


def _normalised(gammas: Tensor) -> Tensor:
    return gammas / gammas.sum(-1, keepdim=True)


# --- the family ------------------------------------------------------------------------------------------------------

MEANLESS = ("Cauchy", "HalfCauchy", "InverseGamma", "LogNormal", "StudentT")
"""Distributions whose mean may be infinite, or none; their mode is finite."""


def _known() -> dict[str, Any]:
    """The distributions by name whose draws have a sample path and that are over single numbers."""
    every = {name: getattr(torch.distributions, name) for name in torch.distributions.__all__}
    return {
        name: cls
        for name, cls in every.items()
        if inspect.isclass(cls) and issubclass(cls, Distribution) and cls.has_rsample and _is_served(cls)
    }


def _is_served(cls: Any) -> bool:
    """Whether a distribution draws numbers of a fixed range, has a centre, and takes parameters alone."""
    if _support(cls) is None or cls.__name__ in WITHOUT_CENTRE:
        return False
    signature = inspect.signature(cls.__init__).parameters.values()
    others = [one for one in signature if one.default is one.empty and one.name not in ("self", *cls.arg_constraints)]
    return not others


def _support(cls: Any) -> Any:
    """Return the values that a distribution draws; None where they depend on its parameters or are vectors."""
    support: Any = cls.__dict__.get("support") or getattr(cls, "support", None)
    simple = isinstance(support, constraints.Constraint) and not isinstance(support, constraints._DependentProperty)
    return support if simple and support.event_dim == 0 and not support.is_discrete else None


def _ends(support: Any) -> tuple[float, float]:
    low = getattr(support, "lower_bound", -math.inf)
    return float(low), float(getattr(support, "upper_bound", math.inf))


def _parameters(cls: Any) -> list[str]:
    """Return the parameters of its constructor, logits where it takes either these or probabilities."""
    named = [name for name in inspect.signature(cls.__init__).parameters if name in cls.arg_constraints]
    return [name for name in named if not (name == "probs" and "logits" in named)]


@attrs.frozen
class Torch:
    """A distribution of `torch.distributions`: StudentT, Gumbel, Beta, Gamma, Cauchy, Kumaraswamy, ...

    Each number of the variable has a distribution of its own. The trunk outputs its parameters, without bounds: they
    are mapped to where the distribution has them, positive ones by exp, those between 0 and 1 by a sigmoid.

    Args:
        distribution: The name of its class.
        fixed: The values of parameters that are not learned, such as { df = 4.0 }.
        bound: Before they are mapped, parameters with bounds are held between -bound and bound.
    """

    distribution: str
    fixed: dict[str, float] = attrs.field(factory=dict)
    bound: float = attrs.field(default=6.0, validator=between(0.1, 40.0))

    def __attrs_post_init__(self) -> None:
        if self.distribution not in (known := _known()):
            raise ConfigError(
                f"{self.distribution!r} is no distribution over single numbers with a sample path and a fixed range"
                f"{suggest(self.distribution, known)}",
                "distribution",
            )
        for name, value in self.fixed.items():
            if name not in (names := _parameters(self.cls)):
                raise ConfigError(f"{self.distribution} has no such parameter{suggest(name, names)}", "fixed", name)
            constraint = self.cls.arg_constraints[name]
            if not bool(constraint.check(torch.tensor(value))):
                raise ConfigError(f"must be {_words(constraint)}, got {value:g}", "fixed", name)
        if not self.learned:
            raise ConfigError(f"fixes every parameter of {self.distribution}, so nothing is left to learn", "fixed")

    @property
    def cls(self) -> Any:
        """The class of torch."""
        return _known()[self.distribution]

    @property
    def learned(self) -> list[str]:
        """The names of the parameters that the trunk outputs."""
        return [name for name in _parameters(self.cls) if name not in self.fixed]

    def capabilities(self, space: Space) -> Capabilities:
        """Return what the family can do; raise ConfigError for a variable that it does not serve."""
        self.check(space)
        return Capabilities({"sample": "exact", "mean": "exact"}, each_density=True)

    def check(self, space: Space) -> None:
        """Raise ConfigError unless every value of the variable is one that the distribution draws."""
        check_real("torch", space)
        low, high = _ends(self.support)
        inside = (low, high) == (-math.inf, math.inf) or (
            space.low is not None and low <= space.low and (high == math.inf or (space.high or math.inf) <= high)
        )
        if not inside:
            raise ConfigError(
                f"{self.distribution} draws from {_words(self.support)}, this variable is {space}", "distribution"
            )

    @property
    def support(self) -> Any:
        """The values that it draws."""
        support = _support(self.cls)
        assert support is not None, "those known have one"
        return support

    def outputs(self, space: Space) -> tuple[int, ...]:
        """Return the shape of the parameters that the trunk must output, one after the other."""
        self.check(space)
        return (len(self.learned) * space.shape[0], *space.shape[1:])

    def build(self, space: Space) -> nn.Module:
        """Build the module that turns the trunk's output into a distribution."""
        self.check(space)
        starts = "loc" in self.learned and _ends(self.support) == (-math.inf, math.inf)
        return (LocatedModule if starts else TorchModule)(self, space)


def _words(constraint: Any) -> str:
    """Say what a constraint allows."""
    low, high = _ends(constraint)
    if (low, high) == (-math.inf, math.inf):
        return "a number"
    return f"> {low:g}" if high == math.inf else f"between {low:g} and {high:g}"


class TorchModule(nn.Module):
    """The family's module: (B, *outputs) -> TorchDistribution. `offset` is what it adds to the trunk's output."""

    def __init__(self, config: Torch, space: Space):
        super().__init__()
        self.cls: Any = config.cls
        self.fixed, self.bound, self.learned = config.fixed, config.bound, config.learned
        self.ends = _ends(config.support)
        self.offset = nn.Parameter(torch.zeros(len(self.learned), *space.shape))

    def forward(self, params: Tensor) -> TorchDistribution:
        """Return the distribution of each row."""
        with without_autocast(params):
            every = at_least_float32(params).unflatten(1, (len(self.learned), -1)) + self.offset
            named = {name: self._mapped(name, raw) for name, raw in zip(self.learned, every.unbind(1), strict=True)}
            like = next(iter(named.values()))
            named |= {name: torch.full_like(like, value) for name, value in self.fixed.items()}
            return TorchDistribution(self.cls(**named, validate_args=False), self.ends)

    def _mapped(self, name: str, raw: Tensor) -> Tensor:
        constraint = self.cls.arg_constraints[name]
        if constraint is constraints.real:
            return raw
        mapped: Tensor = transform_to(constraint)(raw.clamp(-self.bound, self.bound))
        return mapped


class LocatedModule(TorchModule):
    """The same of a distribution with a location, which can start at the mean of the data."""

    @torch.no_grad()
    def start_at(self, mean: Tensor) -> None:
        """Set the location's offset so that a zero output gives this mean, (*shape)."""
        offset = self.offset[self.learned.index("loc")]
        offset.copy_(mean)
        zeros = mean.new_zeros(1, len(self.learned) * mean.shape[0], *mean.shape[1:])
        offset.add_(mean - self(zeros).centre[0])


class TorchDistribution:
    """B rows of independent numbers of one distribution of torch.

    Args:
        distribution: It, of batch shape (B, *shape).
        ends: Between which its values lie.
    """

    def __init__(self, distribution: Any, ends: tuple[float, float]):
        self.distribution, self.ends = distribution, ends

    def draw(self, noise: NoiseSource) -> ReadyDraw:
        """Draw by named noise; the reading "mean" is the mode where there is no mean."""
        with NamedRandomness(noise):
            sample = self.distribution.rsample()
        return ReadyDraw(sample=sample, mean=self.centre)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density, (B, *shape) -> (B,) nats; minus infinity outside the range."""
        return sum_event(self.log_prob_each(value))

    def log_prob_each(self, value: Tensor) -> Tensor:
        """Return the log-density of every dimension, (B, *shape) -> (B, *shape) nats."""
        value = at_least_float32(value)
        low, high = self.ends
        inside = value.clamp(_beside(low, value.dtype, math.inf), _beside(high, value.dtype, -math.inf))
        density = self.distribution.log_prob(inside)
        return torch.where((value < low) | (value > high), -math.inf, density)

    @property
    def centre(self) -> Tensor:
        """The mean, or the mode where there is none, (B, *shape)."""
        centre: Tensor = self.distribution.mean
        if type(self.distribution).__name__ in MEANLESS:
            centre = torch.where(torch.isfinite(centre), centre, self.distribution.mode)
        return centre.expand(self.distribution.batch_shape)


def _beside(end: float, dtype: torch.dtype, towards: float) -> float:
    """The number next to an end of the range, at which densities are finite where those at the end are not."""
    if not math.isfinite(end):
        return end
    if end == 0.0:  # numbers below the smallest normal one lose their digits
        return math.copysign(torch.finfo(dtype).tiny, towards)
    return torch.nextafter(torch.tensor(end, dtype=dtype), torch.tensor(towards, dtype=dtype)).item()
