"""The parts of a run as metrics see them: graph, expressions, densities and draws, always in evaluation mode."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import torch
from torch import Tensor

from jointgen.compiler.network_inputs import inputs_of
from jointgen.compiler.plan import Summand, lower_expression
from jointgen.compiler.requirements import is_met, law_names, requirements_of
from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.metrics import Batch, ModelView, RawBatch, RowFunction
from jointgen.contracts.noise import Noise
from jointgen.contracts.observation import Observation, observe
from jointgen.contracts.space import Space
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.terms import PerRow
from jointgen.errors import ConfigError, for_caller, suggest
from jointgen.objectives.algebra import Expr
from jointgen.objectives.distributions import Conditional, Joint
from jointgen.objectives.expressions import Expectation, Ratio
from jointgen.objectives.objective import resolved

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe
    from jointgen.compiler.parts import Parts

T = TypeVar("T")


class PartsView(ModelView):
    """A `ModelView` of the parts of a compiled recipe. Methods are documented there.

    Modules are in evaluation mode while a method runs them, and afterwards in the mode that they were in.

    Args:
        compiled: The recipe that the parts were built from.
        parts: The parts, with the weights to look at.
        device: The device that the parts are on.
    """

    def __init__(self, compiled: CompiledRecipe, parts: Parts, device: torch.device | str = "cpu"):
        self.compiled, self.parts = compiled, parts
        self.binding = compiled.binding
        self.rank, self.world = 0, 1
        self._device = torch.device(device)
        self._memo: dict[str, Any] = {}

    def share(self, rank: int, world: int) -> PartsView:
        """The same view for one of `world` processes: the rows that it draws are its share of a whole."""
        shared = copy.copy(self)
        shared.rank, shared.world = rank, world
        return shared

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put the modules into evaluation mode, and back into training mode where they were in it."""
        modules = self.parts.modules
        if not modules.training:
            yield
            return
        modules.eval()
        try:
            yield
        finally:
            modules.train()

    # --- the graph

    @property
    def spaces(self) -> Mapping[str, Space]:
        """See `ModelView.spaces`."""
        return self.binding.spaces

    @property
    def joints(self) -> Mapping[str, Joint]:
        """See `ModelView.joints`."""
        return self.binding.joints

    @property
    def observed(self) -> list[str]:
        """See `ModelView.observed`."""
        return self.binding.observed

    @property
    def sources(self) -> Mapping[str, Any]:
        """See `ModelView.sources`."""
        return self.compiled.recipe.all_sources()

    @property
    def reports(self) -> Mapping[str, Expr]:
        """See `ModelView.reports`."""
        return dict(self.compiled.stages[-1].objective.reports)

    @property
    def ratios(self) -> Mapping[str, Ratio]:
        """See `ModelView.ratios`."""
        return self.compiled.plans[-1].objective.ratios

    def is_data(self, factor: Conditional) -> bool:
        """See `ModelView.is_data`."""
        return self.binding.is_data(factor)

    def source_of(self, variable: str) -> str:
        """See `ModelView.source_of`."""
        return self.binding.source_of(variable)

    def can_reconstruct(self, variable: str) -> bool:
        """See `ModelView.can_reconstruct`."""
        return self.binding.can_reconstruct(variable)

    def capabilities(self, factor: Conditional) -> Capabilities:
        """See `ModelView.capabilities`."""
        return self.binding.capabilities[factor.part]

    def recall(self, key: str, compute: Callable[[], T]) -> T:
        """See `ModelView.recall`."""
        if key not in self._memo:
            self._memo[key] = compute()
        found: T = self._memo[key]
        return found

    # --- expressions and densities

    def missing(self, expr: Expr) -> str:
        """See `ModelView.missing`."""
        names = law_names(self.binding, self.compiled.registry)
        try:
            for summand in self._lower(expr):
                for need in requirements_of(summand, names):
                    if not is_met(need, self.binding):
                        return f"{need.part} has no {str(need).removeprefix('a ')}"
        except ConfigError as error:
            return str(error)
        return ""

    def row_function(self, expr: Expr, observed: bool = False) -> RowFunction:
        """See `ModelView.row_function`."""
        return _ExpressionOfRows(self, self.per_row(expr, as_observed=observed), observed, self._begins_at_data(expr))

    def _begins_at_data(self, expr: Expr) -> bool:
        """Whether every expectation of an expression is over a joint that draws what the model generates from data."""
        parts = resolved(expr, self.compiled.registry.default).walk()
        overs = [part.over for part in parts if isinstance(part, Expectation)]
        joints = [one.joint for over in overs for _, product in over.components for one in product.marginals]
        return all(set(self.observed) & self.binding.data_roots(joint).keys() for joint in joints)

    def per_row(self, expr: Expr, as_observed: bool) -> PerRow:
        """Compiles a sum of expectations for `StepInputs`, whose data are Observations if `as_observed`."""
        return PerRow(self._lower(expr), self.parts, as_observed=as_observed)

    def _lower(self, expr: Expr) -> tuple[Summand, ...]:
        return lower_expression(resolved(expr, self.compiled.registry.default), self.joints, self.binding.traits)

    def log_prob(
        self, joint: str, variables: tuple[str, ...], values: Mapping[str, Tensor], noise: Noise, mass: bool = False
    ) -> Tensor:
        """See `ModelView.log_prob`."""
        total: Any = 0.0
        for factor in self.binding.joint(joint, "a density").factors:
            if not set(factor.out) & set(variables):
                continue
            if self.is_data(factor) or (can := self.capabilities(factor)).foreign_density == "none":
                raise ConfigError(f"{joint}({factor}) has no density")
            value = values[factor.out[0]]
            in_bins = mass and self.spaces[factor.out[0]].bins is not None and can.bin_mass
            with self.evaluating():
                law = self._distribution(joint, factor, values, len(value), noise)
                total = total + (law.log_prob_bins(value) if in_bins else law.log_prob(value))
        return total

    def log_prob_each(self, joint: str, variable: str, values: Mapping[str, Tensor], noise: Noise) -> Tensor:
        """Score every dimension of a variable under a conditional whose capabilities have `each_density`.

        Args:
            joint: The name of the joint.
            variable: The variable.
            values: A value of it, and of every variable that its conditional needs. The gradient flows to them.
            noise: The noise of priors that go through other parts.

        Returns:
            (B, *shape) nats.
        """
        value = values[variable]
        with self.evaluating():
            law = self._distribution(joint, self.joints[joint].drawn_by(variable), values, len(value), noise)
            found: Tensor = law.log_prob_each(value)
        return found

    @torch.no_grad()
    def log_prob_pairs(self, joint: str, variable: str, values: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """See `ModelView.log_prob_pairs`."""
        factor = self.binding.joint(joint, "a density").drawn_by(variable)
        known = {v: given[v].to(self.device) for v in factor.given}
        n, m = len(values), len(known[factor.given[0]])
        with self.evaluating():  # the network runs once for each of the M rows
            law = self._run(factor, known, rows=torch.arange(m, device=self.device).repeat(n))
            law = law.moments() if factor.moments else law
            nats: Tensor = law.log_prob(values.to(self.device).repeat_interleave(m, 0))
        return nats.unflatten(0, (n, m))

    @torch.no_grad()
    def nearest_codes(self, joint: str, variable: str, given: Mapping[str, Tensor]) -> Tensor:
        """See `ModelView.nearest_codes`."""
        factor = self.binding.joint(joint, "codes").drawn_by(variable)
        with self.evaluating():
            found: Tensor = self._run(factor, {v: given[v].to(self.device) for v in factor.given}).nearest()
        return found

    def _distribution(
        self, joint: str, factor: Conditional, known: Mapping[str, Tensor], rows: int, noise: Noise
    ) -> Any:
        """The distribution of a factor that is not a data root, given what it is conditioned on."""
        if factor.is_root:
            return self.parts.prior(factor.part, rows, noise)
        size = self.binding.traits[factor.part].noise_input
        eps = [noise.named(f"{joint}({factor})/eps", rows).normal(size)] if size else []
        law = self._run(factor, known, *eps)
        return law.moments() if factor.moments else law

    def _run(self, factor: Conditional, known: Mapping[str, Tensor], *eps: Tensor, **options: Any) -> Any:
        """Run the part of a conditional, with the parts whose distributions it merges."""
        trait = self.binding.traits[factor.part]
        merged = [self._run(other, known, **options) for other in trait.merged]
        inputs = inputs_of(self.parts, factor.part, trait.seen(factor.given), known)
        return self.parts.modules[factor.part](*inputs, *eps, merged=merged, **options)

    # --- values

    @property
    def device(self) -> torch.device:
        """See `ModelView.device`."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """See `ModelView.dtype`."""
        return next((p.dtype for p in self.parts.modules.parameters() if p.is_floating_point()), torch.float32)

    def noise(self, seed: int, name: str) -> Noise:
        """See `ModelView.noise`."""
        return Noise(seed, name, rank=self.rank, world=self.world, device=self.device, dtype=self.dtype)

    def observe(self, batch: RawBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """See `ModelView.observe`."""
        seen: dict[str, Observation] = {}
        for part, values in self._observations(batch).items():
            seen |= {v: draw for v, draw in values.items() if v not in seen or part == self.binding.source_of(v)}
        return {v: draw.read("mean") for v, draw in seen.items()}, {v: draw.read("sample") for v, draw in seen.items()}

    def _observations(self, batch: RawBatch) -> dict[str, dict[str, Observation]]:
        """Every raw variable of a batch, observed, by source and variable."""

        def observation(variable: str, raw: Tensor) -> Observation:
            return observe(self.spaces[variable], raw, batch.noise.named(f"observe/{variable}", batch.rows))

        return {part: {v: observation(v, raw) for v, raw in values.items()} for part, values in batch.data.items()}

    @torch.no_grad()
    def draw(
        self, joint: str, given: Mapping[str, Tensor], rows: int, noise: Noise, reading: str = "sample"
    ) -> dict[str, Tensor]:
        """See `ModelView.draw`."""
        return self.drawn(joint, given, rows, noise, reading)

    def drawn(
        self, joint: str, given: Mapping[str, Tensor], rows: int, noise: Noise, reading: str = "sample"
    ) -> dict[str, Tensor]:
        """Draw as `draw` does, with the gradient to the weights and to the values that are given."""
        readings = ["sample", "mean", *(path for can in self.binding.capabilities.values() for path in can.paths)]
        if reading not in readings:
            raise ConfigError(f"no conditional has {reading!r}{suggest(reading, dict.fromkeys(readings))}", "reading")
        drawn = {name: value.to(self.device, noise.dtype) for name, value in given.items()}
        target = self.binding.joint(joint, "drawing")
        with self.evaluating():
            for factor in target.factors:
                if set(factor.out) <= drawn.keys():
                    continue
                if self.is_data(factor):
                    require_given(target, factor, drawn)
                law = self._distribution(joint, factor, drawn, rows, noise)
                draw = law.draw(noise.named(f"{joint}({factor})", rows))
                paths = self.capabilities(factor).paths
                offered = () if factor.is_root else ("sample", "mean") if factor.moments else paths
                drawn[factor.out[0]] = draw.read(reading if reading in offered else "sample")
        return drawn

    def sample_batch(self, batch: RawBatch, reading: str = "mean") -> dict[str, Tensor]:
        """See `ModelView.sample_batch`."""
        _, samples = self.observe(batch)
        given = {v: samples[v] for v in self.binding.data_roots(self.binding.joint("p", "drawing samples"))}
        return self.draw("p", given, batch.rows, batch.noise, reading)

    def reconstruct_batch(self, batch: RawBatch, variable: str) -> tuple[Tensor, Tensor]:
        """See `ModelView.reconstruct_batch`."""
        means, samples = self.observe(batch)
        return means[variable], self.reconstruct_values(variable, samples)

    def reconstruct_values(self, variable: str, known: Mapping[str, Tensor], codes_from: Container[str] = ()) -> Tensor:
        """Decode the mean codes of known values.

        A code is encoded from these rows, even where a data source has rows of the code too: those belong to others.

        Args:
            variable: A variable that `can_reconstruct`.
            known: Values of what q and p are given, (B, *shape).
            codes_from: The codes that are kept, such as that of the top layer; p draws the others' means from them.
                Without any it is all: the variable is then decoded from the codes that its own conditional is given.

        Returns:
            (B, *shape): p's mean of the variable at q's mean codes.
        """
        rows = len(known[variable])
        codes = self.mean_codes(known, rows, self.noise(0, "encode"))
        codes = {v: self.decided(v, value) for v, value in codes.items()}
        given = {v: value for v, value in known.items() if v != variable} | codes
        if codes_from:
            given = {v: value for v, value in given.items() if v not in codes or v in codes_from}
        return self.draw("p", given, rows, self.noise(0, "decode"), "mean")[variable]

    def mean_codes(self, known: Mapping[str, Tensor], rows: int, noise: Noise) -> dict[str, Tensor]:
        """Encode known values: the mean of each conditional of q at the mean codes that it is given.

        A label takes its most probable value where a later code is given it.

        Args:
            known: Values of what q is given, (B, *shape); codes among them are not looked at.
            rows: B.
            noise: The noise of encoders that take some.

        Returns:
            (B, *shape) of each variable that a conditional of q draws.
        """
        q = self.binding.joint("q", "encoding")
        encoders = [factor for factor in q.factors if not factor.is_root]
        codes = {v for factor in encoders for v in factor.out}
        for factor in q.factors:
            if self.is_data(factor):
                require_given(q, factor, known)
        given, found = {v: value for v, value in known.items() if v not in codes}, {}
        for factor in encoders:
            (code,) = factor.out
            found[code] = self._drawn_one("q", factor, given, rows, noise)
            given[code] = self.decided(code, found[code])
        return found

    def _drawn_one(
        self, joint: str, factor: Conditional, given: Mapping[str, Tensor], rows: int, noise: Noise
    ) -> Tensor:
        """The mean of one conditional, or a draw where its family has no mean to read."""
        alone = {v: given[v].to(self.device, noise.dtype) for v in factor.given}
        with self.evaluating(), torch.no_grad():
            draw = self._distribution(joint, factor, alone, rows, noise).draw(noise.named(f"{joint}({factor})", rows))
            has_mean = factor.moments or "mean" in self.capabilities(factor).paths
            return draw.read("mean" if has_mean else "sample")

    def decided(self, variable: str, value: Tensor) -> Tensor:
        """The most probable label of probabilities, (B, C), as a one-hot vector; any other value as it is."""
        if self.spaces[variable].kind != "label":
            return value
        return torch.nn.functional.one_hot(value.argmax(1), value.shape[1]).to(value.dtype)


@attrs.frozen(eq=False)
class _ExpressionOfRows:
    """A `RowFunction`; `begins_at_data` says whether its numbers are of the rows, and not of draws beside them."""

    view: PartsView
    per_row: PerRow
    observed: bool
    begins_at_data: bool

    def __call__(self, batch: Batch, noise: Noise | None = None) -> Tensor:
        """Evaluate the expression for each row; see `RowFunction`."""
        data = batch.recall("observed", lambda: self.view._observations(batch)) if self.observed else batch.data
        with self.view.evaluating():
            return self.per_row(StepInputs(data, noise or batch.noise, batch.rows))


def require_given(joint: Joint, factor: Conditional, given: Container[str]) -> None:
    """Raise ConfigError where values of a data root are not given."""
    if missing := [variable for variable in factor.out if variable not in given]:
        in_shell = " ".join(f"--given {variable}=VALUE" for variable in missing)
        in_python = f"given={{{', '.join(f'{variable!r}: ...' for variable in missing)}}}"
        raise ConfigError(f"{joint.name}({factor}) is a data root: give its values, {for_caller(in_shell, in_python)}")
