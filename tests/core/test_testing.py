"""Every check of the conformance suite can fail: components that break one promise each, and what is said of them."""

from __future__ import annotations

import math
import unittest
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

from jointgen.capabilities import Capabilities
from jointgen.errors import ConfigError
from jointgen.interfaces import Dropout, Measure, sum_event
from jointgen.objectives import E, Objective, Pointwise, cycle, exp, log_sigmoid, p, q
from jointgen.space import Space
from jointgen.testing import Check, checks

torch.set_num_threads(1)

LINE, BITS = Space((1,)), Space((2,), kind="binary", bins=2)
LEVELS = Space((1,), low=-1.0, high=1.0, bins=8)


def told(kind: str, config: Any, **given: Any) -> dict[str, str]:
    """What the checks that fail say, by promise."""
    found: dict[str, str] = {}
    for check in checks(kind, config, **given):
        try:
            check()
        except AssertionError as error:
            found.setdefault(check.promise, str(error))
        except unittest.SkipTest:
            continue
    return found


# --- a family that keeps every promise, in four pieces that a test replaces ------------------------------------------


class GaussianDraw:
    def __init__(self, law: Any, eps: Tensor):
        self.law, self.eps = law, eps
        self.sample = law.mean + law.log_scale.exp() * eps

    def read(self, reading: str) -> Tensor:
        return {"sample": self.sample, "mean": self.law.mean}[reading]

    def log_prob(self) -> Tensor:
        return -sum_event(0.5 * self.eps**2 + self.law.log_scale + 0.5 * math.log(2 * math.pi))


class GaussianLaw:
    draw_class: Any = GaussianDraw

    def __init__(self, mean: Tensor, log_scale: Tensor, space: Space):
        self.mean, self.log_scale, self.space = mean, log_scale, space

    def draw(self, noise: Any) -> Any:
        return self.draw_class(self, noise.normal(*self.mean.shape[1:]))

    def log_prob(self, value: Tensor) -> Tensor:
        standard = (value - self.mean) * torch.exp(-self.log_scale)
        return -sum_event(0.5 * standard**2 + self.log_scale + 0.5 * math.log(2 * math.pi))

    def log_prob_bins(self, value: Tensor) -> Tensor:
        width = self.space.bin_width
        assert width is not None and self.space.low is not None
        left = self.space.low + ((value - self.space.low) / width).floor() * width
        a, b = ((edge - self.mean) * torch.exp(-self.log_scale) for edge in (left, left + width))
        return sum_event(torch.log((torch.special.ndtr(b) - torch.special.ndtr(a)).clamp(min=1e-300)))

    def kl_to(self, other: Any) -> Tensor:
        log_ratio = other.log_scale - self.log_scale
        standard = (self.mean - other.mean) * torch.exp(-other.log_scale)
        return sum_event(log_ratio + 0.5 * (torch.exp(-2 * log_ratio) + standard**2 - 1))


class GaussianModule(nn.Module):
    law_class: Any = GaussianLaw

    def __init__(self, space: Space):
        super().__init__()
        self.space = space
        self.offset = nn.Parameter(torch.zeros(space.shape))

    def forward(self, params: Tensor) -> Any:
        mean, log_scale = params.float().chunk(2, 1) if params.dtype == torch.bfloat16 else params.chunk(2, 1)
        return self.law_class(mean + self.offset, log_scale.clamp(-6, 3), self.space)

    def start_at(self, mean: Tensor) -> None:
        self.offset.data.copy_(mean)


EXACT = Capabilities({"sample": "exact", "mean": "exact"}, kl_to=("normal",))


@attrs.frozen
class Gaussian:
    module_class: Any = GaussianModule
    can: Capabilities = EXACT

    def capabilities(self, space: Space) -> Capabilities:
        if space.kind != "real":
            raise ConfigError(f"type: not for {space}")
        return attrs.evolve(self.can, bin_mass=space.bins is not None)

    def outputs(self, space: Space) -> tuple[int, ...]:
        return (2 * space.shape[0], *space.shape[1:])

    def build(self, space: Space) -> Any:
        return self.module_class(space)


def gaussian(draw: Any = None, law: Any = None, module: Any = None, **can: Any) -> Gaussian:
    """The family with methods of its pieces replaced, and other capabilities declared."""
    draw_class = type("Draw", (GaussianDraw,), draw or {})
    law_class = type("Law", (GaussianLaw,), {"draw_class": draw_class, **(law or {})})
    module_class = type("Module", (GaussianModule,), {"law_class": law_class, **(module or {})})
    return Gaussian(module_class, attrs.evolve(EXACT, **can))


def test_a_family_that_keeps_its_promises_passes() -> None:
    assert told("family", gaussian(), spaces=[LINE, Space((2,))]) == {}
    assert told("family", gaussian(), spaces=[LEVELS]).keys() == {"extremes are finite"}  # this mass has no tails


def as_law(method: str, change: Callable[..., Any]) -> dict[str, Any]:
    """{"law": {method: ...}} where `change` is given the law, its own result and the arguments."""
    own = getattr(GaussianLaw, method)
    return {"law": {method: lambda self, *a: change(self, own(self, *a), *a)}}


class KeepsParameter(GaussianDraw):
    """Reads its module's parameter when it is read, not when it was drawn."""

    def read(self, reading: str) -> Tensor:
        return self.sample + 0 * self.eps if reading == "mean" else self.law.late() + self.eps


class LateLaw(GaussianLaw):
    draw_class = KeepsParameter


class LateModule(GaussianModule):
    def forward(self, params: Tensor) -> Any:
        law = LateLaw(params.chunk(2, 1)[0] + self.offset, params.chunk(2, 1)[1], self.space)
        law.late = lambda: params.chunk(2, 1)[0] + self.offset  # type: ignore[attr-defined]
        return law


class Greedy(GaussianModule):
    """Its parameter `idle` is used for nothing."""

    def __init__(self, space: Space):
        super().__init__(space)
        self.idle = nn.Parameter(torch.zeros(2))


class Forgetful(GaussianModule):
    """What it computes is not all in its state."""

    def __init__(self, space: Space):
        super().__init__(space)
        self.hidden = torch.rand(space.shape).double()

    def forward(self, params: Tensor) -> Any:
        return super().forward(params + self.hidden.to(params).mean())


class Moody(GaussianModule):
    def forward(self, params: Tensor) -> Any:
        return super().forward(params if self.training else params + 0.1)


class Overflowing(GaussianModule):
    def forward(self, params: Tensor) -> Any:
        mean, log_scale = params.chunk(2, 1)
        return self.law_class(mean + self.offset, torch.log(log_scale.exp() + 1e-30), self.space)


def global_draw(self: Any, noise: Any) -> Any:
    noise.normal(*self.mean.shape[1:])
    return self.draw_class(self, torch.randn_like(self.mean))


def same_noise(self: Any, noise: Any) -> Any:
    noise.normal(*self.mean.shape[1:])
    return self.draw_class(self, torch.zeros_like(self.mean))


def half_precision(self: Any, value: Tensor) -> Tensor:
    return GaussianLaw.log_prob(self, value) + (0.1 if value.dtype == torch.float32 else 0.0)


def biased(self: Any, law: Any, eps: Tensor) -> None:
    """The value of a Gaussian draw with half its gradient through the scale."""
    GaussianDraw.__init__(self, law, eps)
    scale = law.log_scale.exp()
    self.sample = law.mean + (0.5 * scale + 0.5 * scale.detach()) * eps


def mixing(law: Any, found: Tensor, *arguments: Any) -> Tensor:
    return found + 0.1 * found.roll(1, 0).detach()


def scaled(self: Any, law: Any, eps: Tensor) -> None:
    GaussianDraw.__init__(self, law, 1.1 * eps)


FAMILIES: dict[str, tuple[Gaussian, str, str]] = {
    "a density off by a constant": (
        gaussian(**as_law("log_prob", lambda law, found, v: found + 0.1)),
        "density integrates to one",
        "integral of exp(log_prob): 1.10517, expected 1 (within 0.001)",
    ),
    "rows that mix": (
        gaussian(**as_law("log_prob", mixing)),
        "log prob does not mix rows",
        "log_prob of permuted rows is not the permuted log_prob: ",
    ),
    "a sum over the batch": (
        gaussian(draw={"log_prob": lambda self: GaussianDraw.log_prob(self).sum()}),
        "log prob is one number per row",
        "log_prob of 5 rows has shape (), it must be (5,)",
    ),
    "draws wider than the density": (
        gaussian(draw={"__init__": scaled}),
        "expectations under draws are those under the density",
        "draws and by the density: ",
    ),
    "draws of another distribution function": (
        gaussian(draw={"__init__": lambda self, law, eps: scaled(self, law, eps.abs())}),
        "draws have the distribution function of the density",
        "the distribution function of 8000 draws is 0.",
    ),
    "an own density that is not normalised": (
        gaussian(draw={"log_prob": lambda self: GaussianDraw.log_prob(self) - 0.3}),
        "own densities weigh draws rightly",
        "E[h(z) / q(z)] over 8000 draws of q, h a density: 1.3",
    ),
    "a draw that scores itself otherwise": (
        gaussian(draw={"log_prob": lambda self: GaussianDraw.log_prob(self) - 0.1}),
        "a draws own log prob is that of its distribution",
        "draw.log_prob() and log_prob(draw.read('sample')): ",
    ),
    "a draw's density with another gradient": (
        gaussian(draw={"log_prob": lambda self: GaussianDraw.log_prob(self).detach() + 0 * self.sample.sum()}),
        "a draws own log prob is that of its distribution",
        "the total gradient to params of draw.log_prob()",
    ),
    "a density without its log-determinant": (
        gaussian(
            law={"log_prob": lambda self, v: -sum_event(0.5 * (v - self.mean) ** 2 / torch.exp(2 * self.log_scale))},
            draw={"log_prob": lambda self: -sum_event(0.5 * self.eps**2)},
        ),
        "log prob has the log determinant of the draw",
        "against the normal noise's log density: ",
    ),
    "a gradient that is cut": (
        gaussian(law={"log_prob": lambda self, v: _cut(self).log_prob(v)}),
        "gradients of log prob are its slopes",
        "is not its slope by finite differences",
    ),
    "bins that are too heavy": (
        gaussian(**as_law("log_prob_bins", lambda law, found, v: found + 0.1)),
        "bins have the mass of the density",
        "mass of an inner bin and the density's integral over it: ",
    ),
    "bins that draws do not fall into": (
        gaussian(**as_law("log_prob_bins", lambda law, found, v: found + 0.5)),
        "draws fall into bins by their mass",
        "share of 8000 draws in an inner bin and its mass: ",
    ),
    "a mass that is a density": (
        gaussian(law={"log_prob_bins": lambda self, v: self.log_prob(v) + math.log(0.25)}),
        "a bin has one mass wherever in it a value lies",
        "log_prob_bins at two values of one bin: ",
    ),
    "a cut gradient of bins": (
        gaussian(law={"log_prob_bins": lambda self, v: GaussianLaw.log_prob_bins(_cut(self), v)}),
        "gradients of log prob bins are its slopes",
        "the gradient of log_prob_bins to params",
    ),
    "an own density that is infinite": (
        gaussian(
            draw={"log_prob": lambda self: torch.where(self.eps[:, 0] > 3, math.inf, GaussianDraw.log_prob(self))}
        ),
        "own densities of many draws are finite",
        "has the value inf, it must be finite",
    ),
    "a KL that is half": (
        gaussian(**as_law("kl_to", lambda law, found, other: 0.5 * found)),
        "kl to is the integral",
        "and the integral of q (log q - log p): ",
    ),
    "a KL to itself": (
        gaussian(**as_law("kl_to", lambda law, found, other: found.detach())),
        "kl to itself is zero and its gradients are its slopes",
        "the gradient of kl_to to params is not its slope",
    ),
    "a KL to what is not there": (
        gaussian(kl_to=("nrmal",)),
        "kl to is the integral",
        "kl_to declares 'nrmal', which is no registered family or prior",
    ),
    "an undeclared density": (
        gaussian(own_density="none", foreign_density="none"),
        "capabilities are true",
        "no density is declared, but there is a log_prob",
    ),
    "a reading of another shape": (
        gaussian(draw={"read": lambda self, reading: self.sample.flatten(1).sum(1)}),
        "readings have the shape of the variable",
        "reading 'sample' of 5 rows of 1 real has shape (5,), it must be (5, 1)",
    ),
    "an undeclared path": (
        gaussian(paths={"sample": "none", "mean": "exact"}),
        "declared paths are the gradients there are",
        "reading 'sample' has a gradient, its declared path is 'none'",
    ),
    "a path that is not there": (
        gaussian(draw={"read": lambda self, reading: self.sample.detach()}),
        "declared paths are the gradients there are",
        "reading 'sample' has no gradient, its declared path is 'exact'",
    ),
    "an idle parameter": (
        attrs.evolve(gaussian(), module_class=Greedy),
        "gradients reach every parameter and every output of the trunk",
        "no gradient of a draw or a density reaches 'idle'",
    ),
    "an output of the trunk that is not used": (
        gaussian(
            module={"forward": lambda self, params: GaussianModule.forward(self, params * torch.tensor([[1.0, 0.0]]))}
        ),
        "gradients reach every parameter and every output of the trunk",
        "the trunk's outputs (2,) are not all used, such as [[1]]",
    ),
    "a biased path called exact": (
        gaussian(draw={"__init__": biased}),
        "exact path is unbiased",
        "through the path declared exact, and by the density: ",
    ),
    "global randomness": (
        gaussian(law={"draw": global_draw}),
        "the same noise gives the same draw",
        "a draw reads torch's global generator",
    ),
    "noise that is not used": (
        gaussian(law={"draw": same_noise}),
        "the same noise gives the same draw",
        "other noise gives the same draw, though there is a density",
    ),
    "draws of rows that mix": (
        gaussian(draw={"read": lambda self, reading: self.sample + 0.1 * self.sample.roll(1, 0)}),
        "draws do not mix rows",
        "reading 'sample' of permuted rows is not the permuted reading: ",
    ),
    "a draw that keeps a raw parameter": (
        attrs.evolve(gaussian(), module_class=LateModule),
        "a draw stays when parameters move",
        "the sample of a draw changed with its parameters, after it was drawn",
    ),
    "a start elsewhere": (
        gaussian(module={"start_at": lambda self, mean: None}),
        "start at brings the mean to the datas",
        "after start_at(mean) the reading 'mean' of zeros is ",
    ),
    "a state that is not whole": (
        attrs.evolve(gaussian(), module_class=Forgetful),
        "state survives a round trip and a copy",
        "a module loaded from its state_dict computes something else",
    ),
    "training that differs": (
        attrs.evolve(gaussian(), module_class=Moody),
        "training and evaluation agree",
        "train() and eval() give different results",
    ),
    "float32 that differs": (
        gaussian(law={"log_prob": half_precision}),
        "float32 is near float64 and bfloat16 is finite",
        "log_prob in float32 and in float64: ",
    ),
    "NaN at extremes": (
        attrs.evolve(gaussian(), module_class=Overflowing),
        "extremes are finite",
        "at params of sizes (0.0, 1e-06, 1.0, 30.0, 10000.0)",
    ),
}


def _cut(law: Any) -> GaussianLaw:
    """The scale's gradient is lost."""
    return GaussianLaw(law.mean, law.log_scale.detach(), law.space)


@pytest.mark.parametrize("fault", FAMILIES)
def test_a_family_that_breaks_a_promise_is_told_which(fault: str) -> None:
    config, promise, message = FAMILIES[fault]
    found = told("family", config, spaces=[LEVELS if "bin" in promise else LINE])
    assert promise in found
    assert message in found[promise]
    assert found[promise].startswith("Gaussian(")


# --- bits, views, and families of nothing ----------------------------------------------------------------------------


class BitsLaw:
    def __init__(self, logits: Tensor, grey: bool):
        self.logits, self.grey = logits, grey

    def draw(self, noise: Any) -> Any:
        u = noise.uniform(*self.logits.shape[1:])
        probability = torch.sigmoid(self.logits)
        values = {"sample": probability if self.grey else (u < probability).to(u.dtype), "mean": probability}
        return type("Bits", (), {"read": staticmethod(values.__getitem__)})

    def log_prob(self, value: Tensor) -> Tensor:
        return sum_event(value * self.logits - nn.functional.softplus(self.logits))


class BitsModule(nn.Module):
    def __init__(self, grey: bool):
        super().__init__()
        self.grey = grey

    def forward(self, params: Tensor) -> BitsLaw:
        return BitsLaw(params, self.grey)

    def view(self, reading: str, draw: Any, noise: Any) -> Tensor:
        return draw.read("mean").sum(1)


@attrs.frozen
class Bits:
    grey: bool = False

    def capabilities(self, space: Space) -> Capabilities:
        paths: Any = {"sample": "none", "mean": "exact"}
        return Capabilities({**paths, "relaxed": "exact"} if self.grey else paths)

    def outputs(self, space: Space) -> tuple[int, ...]:
        return space.shape

    def build(self, space: Space) -> BitsModule:
        return BitsModule(self.grey)


def test_bits_are_summed_over_all_patterns_and_must_be_bits() -> None:
    assert told("family", Bits(), spaces=[BITS]) == {}
    found = told_of_bits(Bits(grey=True))
    assert "draws of a binary variable have the values" in found["draws lie in the space"]
    assert "view('relaxed') of 5 rows of data has shape (5,)" in found["views of data match the readings"]


def told_of_bits(config: Bits) -> dict[str, str]:
    found = {}
    for check in checks("family", config, spaces=[BITS]):
        if check.promise in ("draws lie in the space", "views of data match the readings"):
            with pytest.raises(AssertionError) as error:
                check()
            found[check.promise] = str(error.value)
    return found


def test_a_component_that_serves_nothing_is_one_case_that_fails() -> None:
    def refuse(self: Any, space: Space) -> Capabilities:
        raise ConfigError("type: never")

    cls: Any = attrs.frozen(type("Never", (), {"capabilities": refuse, "__annotations__": {}}))
    (check,) = checks("family", cls())
    with pytest.raises(AssertionError, match=r"Never\(\) serves none of the Spaces tried"):
        check()


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown kind of component 'famly'; did you mean 'family'"):
        checks("famly", Gaussian())


def test_a_check_is_named_by_its_component_and_promise() -> None:
    (check,) = [c for c in checks("family", Gaussian(), spaces=[LINE]) if c.promise == "capabilities are true"]
    assert isinstance(check, Check) and str(check) == "Gaussian() on 1 real: capabilities are true"


# --- priors ----------------------------------------------------------------------------------------------------------


class PriorModule(nn.Module):
    def __init__(self, size: int, extra: float):
        super().__init__()
        self.extra = extra
        self.mean = nn.Parameter(torch.zeros(size))

    def forward(self, rows: int) -> Any:
        mean = self.mean.expand(rows, -1)
        law = GaussianLaw(mean, torch.zeros_like(mean) + self.extra, Space(mean.shape[1:]))
        law.draw_class = type("Wide", (GaussianDraw,), {"log_prob": lambda draw: GaussianDraw.log_prob(draw)})
        return (
            law if not self.extra else type("Off", (GaussianLaw,), {"log_prob": _off})(mean, law.log_scale, law.space)
        )


def _off(law: GaussianLaw, value: Tensor) -> Tensor:
    return GaussianLaw.log_prob(law, value) + 0.2


@attrs.frozen
class LearnedPrior:
    size: int = 3
    extra: float = 0.0

    @property
    def space(self) -> Space:
        return Space((self.size,))

    def capabilities(self, space: Space) -> Capabilities:
        return Capabilities({"sample": "exact", "mean": "exact"})

    def build(self) -> PriorModule:
        return PriorModule(self.size, self.extra)


def test_priors_are_integrated_at_small_sizes() -> None:
    assert told("prior", LearnedPrior()) == {}
    found = told("prior", LearnedPrior(extra=0.5))
    assert "LearnedPrior(size=1, extra=0.5) on 1 real" in found["density integrates to one"]


class MixedPosteriors(nn.Module):
    """N(mean of the encoder's means at K learned inputs, 1/4), less `off` nats."""

    def __init__(self, inputs: dict[str, Space], off: float):
        super().__init__()
        self.off = off
        self.x = nn.Parameter(torch.randn(4, *inputs["x"].shape))

    def forward(self, rows: int, encoder: Any) -> Any:
        posterior = encoder(self.x.mean(0, keepdim=True), k=rows)
        if not self.off:
            return posterior
        return type("Off", (), {"draw": posterior.draw, "log_prob": lambda own, z: posterior.log_prob(z) - self.off})()


@attrs.frozen
class ThroughEncoder:
    """A prior that is made of a part of the model."""

    off: float = 0.0
    size: int = 2
    through = ("encoder",)

    @property
    def space(self) -> Space:
        return Space((self.size,))

    def capabilities(self, space: Space, encoder: Capabilities) -> Capabilities:
        return Capabilities({"sample": "exact"}, encoder.own_density, encoder.foreign_density)

    def build(self, inputs: dict[str, Space]) -> nn.Module:
        return MixedPosteriors(inputs, self.off)


def test_a_prior_made_of_a_part_is_given_one() -> None:
    assert told("prior", ThroughEncoder()) == {}
    assert "integral of exp(log_prob): 0.9" in told("prior", ThroughEncoder(off=0.1))["density integrates to one"]


# --- networks --------------------------------------------------------------------------------------------------------


class Mixes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + x.roll(1, 0)


class Net(nn.Module):
    def __init__(self, config: Network, size: int):
        super().__init__()
        self.fault = config.fault
        self.linear = nn.Linear(size, 2)
        self.idle = nn.Linear(1, 1) if config.fault == "idle" else None
        self.drop = nn.Dropout(0.5) if config.fault == "dropout" else Dropout(0.0)
        self.norm = Mixes() if config.fault == "mixes" else nn.Identity()
        self.hidden = torch.rand(1).double()

    def forward(self, *inputs: Tensor) -> Tensor:
        values = [v.flatten(1) for v in inputs]
        if self.fault == "ignores":
            values = [values[0], *(0 * v for v in values[1:])]
        out = self.drop(self.norm(self.linear(torch.cat(values, 1))))
        if self.fault == "forgets":
            out = out + self.hidden.to(out)
        if self.fault == "moody" and self.training:
            out = 2 * out
        if self.fault == "random":
            out = out + torch.randn(1).to(out)
        return out.sum(1) if self.fault == "shape" else out


@attrs.frozen
class Network:
    fault: str = ""

    def build(self, inputs: Any, output: tuple[int, ...]) -> nn.Module:
        if self.fault == "seed":
            torch.manual_seed(torch.seed() % 1000)
        if any(len(space.shape) > 1 for space in inputs.values()):
            raise ConfigError("type: vectors only")
        return Net(self, sum(space.size for space in inputs.values()))


NETWORKS = {
    "shape": ("output has the shape asked for", "the output for 6 rows has shape (6,), it must be (6, 2)"),
    "mixes": ("rows do not mix", "outputs of permuted rows"),
    "idle": ("gradients reach every parameter and every input", "no gradient reaches 'idle.weight'"),
    "ignores": ("gradients reach every parameter and every input", "no gradient reaches the input 'eps'"),
    "dropout": ("evaluation is deterministic and reads no global generator", "use jointgen.interfaces.Dropout"),
    "random": ("evaluation is deterministic and reads no global generator", "reads torch's global generator"),
    "forgets": ("state survives a round trip and a copy", "a network loaded from the state_dict"),
    "moody": ("training and evaluation agree without dropout", "train() and eval() give different outputs"),
    "seed": ("the build is a function of the seed", "differs between two builds of one seed"),
}
TWO = [({"x": Space((5,)), "eps": Space((3,))}, (2,))]


def test_a_network_that_keeps_its_promises_passes() -> None:
    assert told("encoder", Network(), settings=TWO) == {}


@pytest.mark.parametrize("fault", NETWORKS)
def test_a_network_that_breaks_a_promise_is_told_which(fault: str) -> None:
    promise, message = NETWORKS[fault]
    found = told("encoder", Network(fault), settings=TWO)
    assert message in found[promise]


# --- critic losses, penalties, terms ---------------------------------------------------------------------------------


@attrs.frozen
class Loss:
    up: Any = log_sigmoid
    down: Any = attrs.field(default=lambda f: log_sigmoid(-f))
    is_ratio: bool = True

    def positive(self, f: Any) -> Any:
        return self.up(f)

    def negative(self, f: Any) -> Any:
        return self.down(f)


def test_critic_losses() -> None:
    assert told("critic_loss", Loss()) == {}
    swapped = told("critic_loss", Loss(lambda f: log_sigmoid(-f), log_sigmoid))
    assert "at f = 0 positive(f) has slope -0.5 and negative(f) 0.5" in swapped["gradients have the right sign"]
    score = told("critic_loss", Loss(lambda f: f, lambda f: -f))
    assert (
        "the slope of E_a positive(f) + E_b negative(f) at f = log a/b"
        in score["ratio losses are stationary at the log ratio"]
    )
    wild = told("critic_loss", Loss(lambda f: f, lambda f: -exp(exp(f)), is_ratio=False))
    assert "negative(f) at f = -50 and 50 has the value -inf" in wild["losses are finite for large outputs"]
    tensor = told("critic_loss", Loss(lambda f: 1.0))
    assert "positive(f) is a float, it must be an expression" in tensor["both sides are expressions of the critic"]


@attrs.frozen
class Penalty:
    of: Callable[..., Any]
    every: int = 1

    def __call__(self, critic: Any, positive: Any, negative: Any, noise: Any) -> Tensor:
        return self.of(critic(*positive))


def test_penalties() -> None:
    assert told("penalty", Penalty(torch.square)) == {}
    one = "penalty is one number per row and not negative"
    assert "has shape (), it must be (6,)" in told("penalty", Penalty(lambda f: f.square().mean()))[one]
    assert "it must not be negative" in told("penalty", Penalty(lambda f: f))[one]
    cut = told("penalty", Penalty(lambda f: f.square().detach()))["penalty has a finite gradient to the critic"]
    assert "the penalty's gradient to the critic does not exist" in cut
    root = told("penalty", Penalty(lambda f: f.square().sqrt()))["penalty of a flat critic is finite"]
    assert "the gradient of the penalty of a flat critic has the value nan" in root


@attrs.frozen
class Term:
    of: Callable[..., Any]

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return self.of(a, b)


def test_terms() -> None:
    assert told("term", Term(lambda a, b: sum_event((a - b).abs()))) == {}
    assert "it must be (5,)" in told("term", Term(lambda a, b: (a - b).square()))["term is one number per row"]
    mixed = told("term", Term(lambda a, b: sum_event(a - b.flip(0))))["term does not mix rows"]
    assert "the term of permuted rows is not the permuted term" in mixed
    cut = told("term", Term(lambda a, b: sum_event((a - b).abs()).detach()))["term has a gradient"]
    assert "the term's gradient to its values does not exist" in cut


# --- data ------------------------------------------------------------------------------------------------------------


class Table:
    def __init__(self, values: Tensor):
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Tensor) -> dict[str, Tensor]:
        return {"x": self.values[index]}


@attrs.frozen
class Source:
    value: Callable[[str], Tensor]
    space: Space = LEVELS

    def spaces(self) -> dict[str, Space]:
        return {"x": self.space}

    def open(self, split: str) -> Table:
        return Table(self.value(split))


def levels(split: str) -> Tensor:
    return (torch.arange(32) * (3 if split == "train" else 5) % 8)[:, None]


def test_data_sources() -> None:
    assert told("data", Source(levels)) == {}
    rows = "rows match the spaces"
    assert "has shape (8,), it must be (8, 1)" in told("data", Source(lambda s: levels(s)[:, 0]))[rows]
    assert "levels are whole numbers" in told("data", Source(lambda s: levels(s).float()))[rows]
    assert "is not in 0..7" in told("data", Source(lambda s: levels(s) + 1))[rows]
    assert "is not in [-inf, 0.0]" in told("data", Source(lambda s: levels(s).float(), Space((1,), high=0.0)))[rows]
    random = told("data", Source(lambda s: torch.randint(0, 8, (32, 1))))["rows taken again are the same"]
    assert "reads torch's global generator" in random
    same = told("data", Source(lambda s: levels("train")))["train and test differ"]
    assert "begin with the same rows" in same


# --- objectives and metrics ------------------------------------------------------------------------------------------


@attrs.frozen
class Composed:
    of: Callable[[], Any]

    def objective(self) -> Any:
        return self.of()


class Restless:
    """A distance that changes from call to call, so that no gradient is the sum of its terms'."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        self.calls += 1
        return self.calls * sum_event((a - b).square())


@attrs.frozen
class Misprinted(Pointwise):
    def __str__(self) -> str:
        return "seven"


def test_objectives() -> None:
    bound = E(q.xz, p.log_x_given_z + p.log_z - q.log_z_given_x)
    assert told("objective", Composed(lambda: Objective.of(bound))) == {}
    count = iter(range(1, 100))
    restless = told("objective", Composed(lambda: Objective.of(next(count) * bound)))
    assert "two calls of objective() give different objectives" in restless["objective is built and prints"]
    none = told("objective", Composed(lambda: bound))
    assert "raises TypeError" in none["objective is built and prints"]
    cycled = told("objective", Composed(lambda: Objective.of(E(q.xz, -cycle(p, "x|z", distance=Restless())))))
    assert "is not the sum of its terms'" in cycled["gradients reach what the objective says"]
    misprinted = told(
        "objective", Composed(lambda: Objective.of(E(q.xz, p.log_x_given_z - Misprinted("exp", p.log_z))))
    )
    assert "cannot be read: unknown ratio or weight 'seven'" in misprinted["the text that it prints is read back"]
    pixels = E(q.xz, cycle(p, "x|z", distance=lambda a, b: a - b))
    wide = told("objective", Composed(lambda: Objective.of(bound, reports=(("pixels", pixels),))))
    assert "raises RuntimeError" in wide["reports are numbers of rows"]


@attrs.frozen
class Metric:
    measure: Callable[[Any], Measure]

    def measures(self, subject: Any) -> list[Measure]:
        return [self.measure(subject)]


def test_metrics() -> None:
    good = Metric(lambda s: Measure("rows", "rows", "counted", lambda batch: torch.ones(batch.rows)))
    assert told("metric", good) == {}
    summed = told("metric", Metric(lambda s: Measure("n", "rows", "", lambda batch: torch.ones(()))))
    assert "values of n for 6 rows has shape (), it must be (6,)" in summed["measures are numbers of rows"]
    mute = told("metric", Metric(lambda s: Measure("n", "rows", "", None)))
    assert "its note does not say why" in mute["measures say what they are"]
    count = iter(range(1000))
    drifting = told(
        "metric", Metric(lambda s: Measure("n", "", "", lambda b: torch.full((b.rows,), float(next(count)))))
    )
    assert "n on the same rows again" in drifting["measures are estimated and repeat"]
