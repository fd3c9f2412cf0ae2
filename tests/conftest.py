"""What the core's tests share: the shipped components, and small models built from an objective.

There are no imports between test files (--import-mode=importlib), so the builders are fixtures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

from jointgen.cli.main import main
from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.compiler.compiled_recipe import compile_recipe as prepare_recipe
from jointgen.compiler.gradient_paths import PartTraits
from jointgen.compiler.lowering import Lowering
from jointgen.compiler.parts import Parts
from jointgen.compiler.plan import Plan, make_plan, make_summands
from jointgen.config.recipe import read_recipe
from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.step import Step
from jointgen.engine.terms import PerRow
from jointgen.engine.update import UpdateRunner
from jointgen.objectives import Expr, Objective
from jointgen.objectives.objective import Update, resolved
from jointgen.registry.components import Registry
from jointgen.registry.discovery import load_plugins
from jointgen.runtime.workers import Workers

torch.set_num_threads(1)

DOUBLE = torch.float64


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache is neither read nor written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOINTGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Modules that a test builds start alike, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data(repo: Path) -> Path:
    """Real data sets that lie beside the checkout. Tests that need them are skipped elsewhere."""
    found = repo.parent / "shared" / "data"
    if not found.is_dir():
        pytest.skip(f"no data sets in {found}")
    return found


@pytest.fixture(scope="session")
def registry() -> Registry:
    return load_plugins().registry


@pytest.fixture(scope="session")
def resolve(registry: Registry) -> Callable[[str, str], Any]:
    """(kind, name) -> that component with its default settings."""
    return registry.default


# --- noise that a test writes down -----------------------------------------------------------------------------------


class WrittenSource:
    """One name's noise: the tensor that the test wrote for it, whatever kind is asked for."""

    def __init__(self, value: Tensor):
        self.value, self.dtype, self.rows = value, value.dtype, len(value)

    def normal(self, *shape: int) -> Tensor:
        assert self.value.shape[1:] == shape, f"noise {tuple(self.value.shape)} was written, {shape} is asked for"
        return self.value

    uniform = normal


class WrittenNoise:
    """In place of `Noise`: tensors by name. A name that the test did not write is an error."""

    def __init__(self, values: Mapping[str, Tensor]):
        self.values = dict(values)
        self.device = "cpu"
        self.dtype = next(iter(self.values.values())).dtype if self.values else DOUBLE

    def named(self, name: str, rows: int) -> Any:
        if name.partition("/")[2]:  # the noise of observing real data, which is never read
            return Noise(0, dtype=self.dtype).named(name, rows)
        assert name in self.values, f"noise {name!r} is drawn, written are {sorted(self.values)}"
        assert len(self.values[name]) == rows, f"{rows} rows of {name!r} are drawn"
        return WrittenSource(self.values[name])


@pytest.fixture(scope="session")
def written_noise() -> type[WrittenNoise]:
    return WrittenNoise


# --- small models ----------------------------------------------------------------------------------------------------

ALL_REAL: dict[str, Any] = {
    "data": {"type": "ring", "rows": 64},
    "prior": {"type": "normal", "size": 2},
    "encoder": {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "gaussian"}},
    "decoder": {
        "network": {"type": "mlp", "hidden": [6]},
        "family": {"type": "gaussian", "scale": "global", "init_scale": 0.5},
    },
    "discriminator": {"type": "mlp", "hidden": [6]},
    "objective": {"type": "vae"},  # `prepare` is handed the objective itself
    "train": {"steps": 1, "batch": 8},
}
"""x on a ring in the plane, z in the plane, one small hidden layer everywhere."""


@attrs.frozen
class Model:
    """A compiled recipe with what a test does to it."""

    compiled: CompiledRecipe

    @property
    def plan(self) -> Plan:
        return self.compiled.plans[-1]

    @property
    def parts(self) -> Parts:
        return self.compiled.parts

    def double(self) -> Model:
        self.parts.modules.double()
        return self

    def data(self, rows: int = 8) -> dict[str, dict[str, Tensor]]:
        """The first raw rows of every source."""
        declared = self.compiled.binding
        found = {}
        for part in declared.data_parts:
            opened = self.compiled.recipe.all_sources()[part].open("train").take(torch.arange(rows))
            found[part] = {name: opened[own] for name, own in declared.variables_of(part).items()}
        return found

    def moment(self, rows: int = 8, seed: int = 0, step: int = 0, repetition: int = 0, **more: Any) -> StepInputs:
        dtype = next((p.dtype for p in self.parts.modules.parameters()), torch.float32)
        noise = Noise(seed, f"{step}.{repetition}", dtype=dtype)
        return StepInputs(self.data(rows), noise, rows, step, **more)

    def update(self, name: str = "model") -> UpdateRunner:
        """One update on its own, which shares nothing."""
        return UpdateRunner(next(u for u in self.plan.updates if u.name == name), self.plan, self.parts)

    def rows(self, expr: Expr) -> PerRow:
        """An expression as (B,) numbers."""
        lowering = Lowering(self.compiled.binding.joints, self.compiled.binding.traits)
        update = Update("evaluation", resolved(expr, self.compiled.registry.default))
        return PerRow([s for s, _ in make_summands(update, lowering)], self.parts, lowering)

    def step(self, lr: float = 0.1, clip: float | None = None, plan: Plan | None = None, **more: Any) -> Step:
        """All updates, with plain gradient descent unless another rule is given."""
        return stepper(plan or self.plan, self.parts, lr, clip, **more)

    @contextmanager
    def forwards_counted(self) -> Iterator[dict[str, int]]:
        """How often each part's network is really called, by part; a held twin is its part, on the same memory."""
        counts: dict[str, int] = {}
        # of a conditional the trunk is counted, of a critic the whole
        watched = {n: getattr(m, "trunk", m) for n, m in self.parts.modules.items() if n not in self.priors}
        names = {memory(module): name for name, module in watched.items()}

        def count(module: nn.Module, *_: Any) -> None:
            if (name := names.get(memory(module))) is not None:
                counts[name] = counts.get(name, 0) + 1

        handle = nn.modules.module.register_module_forward_hook(count)
        yield counts
        handle.remove()

    def watched(self, *names: str) -> dict[str, Watched]:
        """These critics replaced by ones that keep what they are shown."""
        critics = {name: Watched() for name in names}
        self.parts.modules.update(critics)
        return critics

    @property
    def priors(self) -> set[str]:
        return {name for name, trait in self.compiled.binding.traits.items() if trait.kind == "prior"}


def memory(module: nn.Module) -> tuple[Any, ...]:
    """What a module is made of, wherever it is wrapped."""
    return (type(module), *(parameter.data_ptr() for parameter in module.parameters()))


def stepper(
    plan: Plan,
    parts: Parts,
    lr: float = 0.1,
    clip: float | None = None,
    rule: Callable[..., Any] = torch.optim.SGD,
    **more: Any,
) -> Step:
    def descent(names: Sequence[str]) -> list[torch.optim.Optimizer]:
        parameters = parts.parameters(names)
        return [rule(parameters, lr)] if parameters else []

    return Step(plan, parts, Workers.start("cpu"), {u.name: descent(u.trains) for u in plan.updates}, clip, **more)


@pytest.fixture(scope="session")
def make_step() -> Callable[..., Step]:
    """(plan, parts, lr, clip, rule) -> a Step, of plain gradient descent unless another rule is given."""
    return stepper


@pytest.fixture(scope="session")
def prepare(registry: Registry) -> Callable[..., Model]:
    """(objective, changes to the tables of ALL_REAL) -> a small model of it, from the shipped components.

    A table that is None is left out. Raises ConfigError as a run would.
    """

    def make(objective: Objective | Sequence[Any], **changes: Any) -> Model:
        tables = {key: value for key, value in {**ALL_REAL, **changes}.items() if value is not None}
        recipe = attrs.evolve(read_recipe(tables, registry=registry), objective=Composed(objective))
        return Model(prepare_recipe(recipe, registry))

    return make


@attrs.frozen
class Composed:
    """An objective in the place of a registered one."""

    composed: Any

    def objective(self) -> Any:
        return self.composed


@pytest.fixture(scope="session")
def assemble(resolve: Callable[[str, str], Any]) -> Callable[..., tuple[Plan, Parts]]:
    """(objective, modules by part, traits by part) -> its plan and parts, for networks that a test writes itself.

    Parts named data, encoder, decoder and prior have the traits of a model of real vectors unless given.
    """

    def make(
        objective: Objective,
        modules: Mapping[str, nn.Module],
        traits: Mapping[str, PartTraits] | None = None,
        spaces: Mapping[str, Space] | None = None,
    ) -> tuple[Plan, Parts]:
        whole = objective.complete(resolve)
        exact = {"sample": "exact", "mean": "exact"}
        usual = {
            "data": PartTraits("data"),
            "prior": PartTraits("prior", exact, trainable=False),
            "encoder": PartTraits("conditional", exact),
            "decoder": PartTraits("conditional", exact),
        }
        named = {factor.part for joint in whole.joints.values() for factor in joint.factors}
        known = {**{name: trait for name, trait in usual.items() if name in named}, **(traits or {})}
        known |= {name: PartTraits("critic") for name in whole.ratios}
        one = {v: Space((1,)) for joint in whole.joints.values() for v in joint.variables}
        return make_plan(whole, known), Parts(nn.ModuleDict(dict(modules)), {**one, **(spaces or {})})

    return make


# --- networks of one number, written out -----------------------------------------------------------------------------


class Gaussian:
    """N(mean, exp(log_scale)^2), (B, 1)."""

    def __init__(self, mean: Tensor, log_scale: Tensor):
        self.mean, self.log_scale = mean, log_scale

    def draw(self, noise: Any) -> Readings:
        eps = noise.normal(*self.mean.shape[1:])
        return Readings({"sample": self.mean + self.log_scale.exp() * eps, "mean": self.mean})

    def log_prob(self, value: Tensor) -> Tensor:
        standard = (value - self.mean) / self.log_scale.exp()
        return -(standard.square() / 2 + self.log_scale + math.log(2 * math.pi) / 2).sum(1)


class Readings:
    def __init__(self, readings: Mapping[str, Tensor]):
        self.readings = readings

    def read(self, reading: str) -> Tensor:
        return self.readings[reading]


class Line(nn.Module):
    """out | given = N(slope * given + offset, exp(log_scale)^2): an encoder or decoder of three parameters."""

    def __init__(self, slope: float, offset: float, log_scale: float):
        super().__init__()
        self.slope, self.offset, self.log_scale = map(number, (slope, offset, log_scale))

    def forward(self, given: Tensor, k: int = 1) -> Gaussian:
        mean = self.slope * given + self.offset
        return Gaussian(mean if k == 1 else mean.repeat_interleave(k, 0), self.log_scale)


class StandardNormal(nn.Module):
    def __init__(self, size: int = 1):
        super().__init__()
        self.size = size

    def forward(self, rows: int) -> Gaussian:
        return Gaussian(torch.zeros(rows, self.size, dtype=DOUBLE), torch.zeros((), dtype=DOUBLE))


class Polynomial(nn.Module):
    """w . (1, x, z, xz, x^2, z^2): a critic of two numbers, or of one (which it is given twice)."""

    def __init__(self, *weights: float):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=DOUBLE))

    def forward(self, *inputs: Tensor) -> Tensor:
        x, z = (inputs * 2)[:2]
        return (self.weights * torch.cat([torch.ones_like(x), x, z, x * z, x * x, z * z], 1)).sum(1)


class Written(nn.Module):
    """A critic that is a known function, (B, 1) each -> (B,), without parameters."""

    def __init__(self, function: Callable[..., Tensor]):
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs).squeeze(1)


class Watched(nn.Module):
    """A critic weight * sum(inputs) that keeps what it is shown."""

    def __init__(self, weight: float = 0.0):
        super().__init__()
        self.weight = number(weight)
        self.calls: list[tuple[Tensor, ...]] = []

    def forward(self, *inputs: Tensor) -> Tensor:
        self.calls.append(tuple(value.detach().clone() for value in inputs))
        return self.weight.to(inputs[0].dtype) * torch.stack([value.flatten(1).sum(1) for value in inputs]).sum(0)


def number(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(value, dtype=DOUBLE))


@pytest.fixture(scope="session")
def nets() -> SimpleNamespace:
    """Networks for `assemble`, in double precision."""
    return SimpleNamespace(
        Gaussian=Gaussian,
        Line=Line,
        Polynomial=Polynomial,
        Readings=Readings,
        StandardNormal=StandardNormal,
        Watched=Watched,
        Written=Written,
    )


# --- the command line, and small runs that tests only read ------------------------------------------------------------

SMALL = {
    "encoder.network.hidden": "[8]",
    "decoder.network.hidden": "[8]",
    "discriminator.hidden": "[8]",
    "prior.size": "4",
    "train.steps": "20",
    "train.batch": "16",
    "train.eval_every": "1000",
    "train.sample_every": "1000",
    "eval.rows": "64",
    "eval.samples": "4",
}

LABELLED = """
format = 1
data = { type = "digits", labels = true }
prior = { type = "normal", size = 4 }
[encoder]
network = { type = "mlp", hidden = [8] }
family = { type = "gaussian" }
[decoder]
network = { type = "mlp", hidden = [8], init = "torch" }
family = { type = "gaussian", scale = "global" }
[objective]
type = "expression"
maximize = "E[q(x,y,z)](log p(x|z,y) + log p(z) - log q(z|x,y))"
joints = { q = "q(x,y) q(z|x,y)", p = "p(y) p(z) p(x|z,y)" }
parts = { "q(x,y)" = "data", "p(y)" = "data" }
[train]
steps = 2
batch = 16
[eval]
rows = 32
"""


def in_words(**changes: str) -> list[str]:
    given = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    return [word for key, value in given.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="session")
def sets() -> Callable[..., list[str]]:
    """sets(train__steps="2") -> --set words for a run of seconds, with these changes."""
    return in_words


@pytest.fixture(scope="session")
def quickstart(repo: Path) -> str:
    return str(repo / "tests" / "fixtures" / "recipes" / "quickstart.toml")


@pytest.fixture(scope="session")
def trained(quickstart: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 steps on labelled digits. Tests only read it."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["run", quickstart, "--out", str(out), "--quiet", *in_words(data__labels="true")]) == 0
    return out


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of p(x|z,y), whose encoder and decoder are given a label. Tests only read it."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "labelled.toml").write_text(LABELLED)
    assert main(["run", str(folder / "labelled.toml"), "--out", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@attrs.frozen
class Said:
    """How a command ended: its status, stdout, and the lines of stderr."""

    status: int
    out: str
    problems: list[str]

    @property
    def refusal(self) -> str:
        """The one problem of a command whose input was wrong, without its prefix."""
        assert self.status == 2, self
        assert self.out == ""
        (line,) = self.problems
        return line.removeprefix("jointgen: ")


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """say("run", ...) calls the command line in this process."""

    def run(*argv: Any) -> Said:
        capsys.readouterr()
        status = main([str(word) for word in argv])
        shown = capsys.readouterr()
        return Said(status, shown.out, shown.err.splitlines())

    return run
