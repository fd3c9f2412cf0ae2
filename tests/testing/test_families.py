"""Every check of a family can fail: families that break one promise each, and what is said of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from support.checks import failures
from torch import Tensor, nn

from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.distributions import sum_event
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError

LINE = Space((1,))
LEVELS = Space((1,), low=-1.0, high=1.0, bins=8)


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
            raise ConfigError(f"not for {space}", "type")
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
    assert failures("family", gaussian(), spaces=[LINE, Space((2,))]) == {}
    assert failures("family", gaussian(), spaces=[LEVELS]).keys() == {"extremes are finite"}  # this mass has no tails


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


def centred(self: Any, law: Any, eps: Tensor) -> None:
    GaussianDraw.__init__(self, law, eps - eps.mean(0))


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
    "draws with the mean of the batch": (
        gaussian(draw={"__init__": centred}),
        "draws do not mix rows",
        "reading 'sample' of a row alone is not its reading among others: ",
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
    "moments that are not there": (
        gaussian(moments=True),
        "capabilities are true",
        "moments are declared, but there is no moments()",
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
    found = failures("family", config, spaces=[LEVELS if "bin" in promise else LINE])
    assert promise in found
    assert message in found[promise]
    assert found[promise].startswith("Gaussian(")


class StudentDraw(GaussianDraw):
    def log_prob(self) -> Tensor:
        return self.law.log_prob(self.sample)


class StudentLaw(GaussianLaw):
    """Student's t of 2 degrees of freedom in each dimension: P(|t| > 40) is 1 in 1600, its variance infinite."""

    draw_class = StudentDraw

    def draw(self, noise: Any) -> Any:
        u = noise.uniform(*self.mean.shape[1:]).clamp(1e-6, 1 - 1e-6)
        return self.draw_class(self, (2 * u - 1) / (2 * u * (1 - u)).sqrt())  # the quantile function

    def log_prob(self, value: Tensor) -> Tensor:
        standard = (value - self.mean) * torch.exp(-self.log_scale)
        return -sum_event(1.5 * torch.log1p(standard**2 / 2) + 1.5 * math.log(2) + self.log_scale)


def test_heavy_tails_in_the_plane_are_integrated() -> None:
    module = type("Module", (GaussianModule,), {"law_class": StudentLaw})
    assert failures("family", Gaussian(module, attrs.evolve(EXACT, kl_to=())), spaces=[Space((2,))]) == {}
