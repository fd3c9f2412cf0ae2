"""A trained model to use: sample, encode, decode, reconstruct, elbo. Also what metrics see of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from jointgen.compiler.compiled_recipe import CompiledRecipe
from jointgen.compiler.parts import Parts
from jointgen.compiler.plan import Summand, lower_expression
from jointgen.compiler.requirements import is_met, law_names, requirements_of
from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.noise import Noise
from jointgen.contracts.observation import Observation, observe
from jointgen.contracts.space import Space
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.terms import PerRow
from jointgen.errors import ConfigError, suggest
from jointgen.objectives.algebra import Expr
from jointgen.objectives.bounds import elbo
from jointgen.objectives.distributions import Conditional, Joint
from jointgen.objectives.expressions import Ratio
from jointgen.objectives.objective import resolved

Given = Mapping[str, Tensor] | None
"""Values of variables that are not to be drawn, by name: {"y": one-hot labels}."""


class Model:
    """The parts of a run in evaluation mode, with the weights given (of a finished run, their average).

    Shapes: x (B, *X), z (B, *Z); densities (B,) in nats. By convention q is the inference side, p the model side.
    """

    def __init__(
        self, compiled: CompiledRecipe, parts: Parts, device: torch.device | str = "cpu", checkpoint: str | None = None
    ):
        """checkpoint: the name of the one that the weights are from, if any."""
        self.compiled, self.parts, self.device = compiled, parts, torch.device(device)
        self.checkpoint = checkpoint or ""
        self.binding = compiled.binding
        self.rank, self.world = 0, 1
        self._memo: dict[str, Any] = {}
        parts.modules.eval()

    def share(self, rank: int, world: int) -> Model:
        """The same model for one of `world` processes: the rows that it draws are its share of a whole."""
        shared = copy.copy(self)
        shared.rank, shared.world = rank, world
        return shared

    # --- what is there

    @property
    def spaces(self) -> Mapping[str, Space]:
        return self.binding.spaces

    @property
    def joints(self) -> Mapping[str, Joint]:
        return self.binding.joints

    @property
    def sources(self) -> Mapping[str, Any]:
        """The recipe's data sources by part."""
        return self.compiled.recipe.all_sources()

    @property
    def reports(self) -> Mapping[str, Expr]:
        """The last stage's."""
        return dict(self.compiled.stages[-1].objective.reports)

    def recall(self, key: str, compute: Callable[[], Any]) -> Any:
        """What `compute` gave the first time."""
        if key not in self._memo:
            self._memo[key] = compute()
        return self._memo[key]

    @property
    def ratios(self) -> Mapping[str, Ratio]:
        """The last stage's."""
        return self.compiled.plans[-1].objective.ratios

    def is_data(self, factor: Conditional) -> bool:
        return factor.is_root and self.binding.traits[factor.part].kind == "data"

    def capabilities(self, factor: Conditional) -> Capabilities:
        return self.binding.capabilities[factor.part]

    @property
    def observed(self) -> list[str]:
        """Variables that data sources yield and the model side generates: x."""
        roots = {v for joint in self.joints.values() for f in joint.factors if self.is_data(f) for v in f.out}
        drawn = {v for joint in self.joints.values() for f in joint.factors if not f.is_root for v in f.out}
        return sorted(roots & drawn)

    def data_roots(self, joint: Joint) -> dict[str, str]:
        """The variables that a joint draws from data sources, with the source of each."""
        return {v: f.part for f in joint.factors if self.is_data(f) for v in f.out}

    def generator_of(self, variable: str) -> Joint:
        """The joint in which a conditional draws an observed variable."""
        return next(j for j in self.joints.values() if variable in j.variables and not j.drawn_by(variable).is_root)

    def can_reconstruct(self, variable: str) -> bool:
        """Whether q encodes the variable to one code from which p draws it again."""
        if not {"q", "p"} <= self.joints.keys() or variable not in self.joints["p"].variables:
            return False
        codes = [f for f in self.joints["q"].factors if not f.is_root]
        back = self.joints["p"].drawn_by(variable)
        return len(codes) == 1 and variable in codes[0].given and set(codes[0].out) <= set(back.given)

    def joint(self, name: str, use: str) -> Joint:
        if name not in self.joints:
            raise ConfigError(
                f"{use} needs the joint {name!r}, which the objective does not name{suggest(name, self.joints)}"
            )
        return self.joints[name]

    # --- drawing

    @torch.no_grad()
    def draw(
        self, joint: str, given: Mapping[str, Tensor], rows: int, noise: Noise, reading: str = "sample"
    ) -> dict[str, Tensor]:
        """Every variable of a joint, (rows, *shape), ancestors first; `given` variables are taken as they are.

        Conditionals feed what follows them with their `reading`, or a sample where they have no such. Raises
        ConfigError for a data root not given, and a reading that no conditional has.
        """
        self._check_reading(reading)
        drawn = {name: value.to(self.device, noise.dtype) for name, value in given.items()}
        target = self.joint(joint, "drawing")
        for factor in target.factors:
            if set(factor.out) <= drawn.keys():
                continue
            if self.is_data(factor):
                self._check_given(target, factor, drawn)
            draw = self._law(joint, factor, drawn, rows, noise).draw(noise.named(f"{joint}({factor})", rows))
            paths = self.binding.capabilities[factor.part].paths
            offered = () if factor.is_root else ("sample", "mean") if factor.moments else paths
            drawn[factor.out[0]] = draw.read(reading if reading in offered else "sample")
        return drawn

    def _check_given(self, joint: Joint, factor: Conditional, given: Container[str]) -> None:
        if missing := ", ".join(v for v in factor.out if v not in given):
            raise ConfigError(f"{joint.name}({factor}) is a data root: give its values, given={{{missing!r}: ...}}")

    def _check_reading(self, reading: str) -> None:
        own = [path for traits in self.binding.capabilities.values() for path in traits.paths]
        if reading not in (known := dict.fromkeys(["sample", "mean", *own])):
            raise ConfigError(f"no conditional has {reading!r}{suggest(reading, known)}", "reading")

    def noise(self, seed: int, name: str) -> Noise:
        return Noise(seed, name, rank=self.rank, world=self.world, device=self.device, dtype=self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Of its floating parameters: what its values are computed in."""
        return next((p.dtype for p in self.parts.modules.parameters() if p.is_floating_point()), torch.float32)

    def sample(self, n: int, given: Given = None, *, seed: int = 0, reading: str = "mean") -> Tensor:
        """(n, *X) from p: codes drawn from the prior, then the decoder.

        reading: "mean" is the decoder's mean, as the field shows samples; "sample" adds the likelihood's own noise.
        """
        (variable,) = self._one_observed("sample")
        return self.draw("p", given or {}, n, self.noise(seed, "sample"), reading)[variable]

    def encode(self, x: Tensor, given: Given = None, *, seed: int | None = None) -> Tensor:
        """(B, *X) in model space -> codes (B, *Z): the mean of q(z|x), or a draw where `seed` is given."""
        (variable,) = self._one_observed("encode")
        reading = "mean" if seed is None else "sample"
        known = {variable: x, **(given or {})}
        return self.draw("q", known, len(x), self.noise(seed or 0, "encode"), reading)[self.code]

    def decode(self, z: Tensor, given: Given = None) -> Tensor:
        """(B, *Z) -> the decoder's mean, (B, *X)."""
        (variable,) = self._one_observed("decode")
        return self.draw("p", {self.code: z, **(given or {})}, len(z), self.noise(0, "decode"), "mean")[variable]

    def reconstruct(self, x: Tensor, given: Given = None) -> Tensor:
        """x -> the decoder's mean at the mean of q(z|x), (B, *X)."""
        return self.decode(self.encode(x, given), given)

    def elbo(self, x: Tensor, given: Given = None, *, seed: int = 0) -> Tensor:
        """log p(x|z) + log p(z) - log q(z|x) at one draw z ~ q(z|x) per row, (B,) nats: unbiased for the bound.

        Raises ConfigError for a model without a bound (an implicit encoder or decoder) and a data root not given.
        """
        joints = self.joint("q", "the ELBO"), self.joint("p", "the ELBO")
        expr = elbo(*joints, self.is_data)
        if reason := self.missing(expr):
            raise ConfigError(f"this model has no ELBO: {reason}")
        observed = {**(given or {}), self._one_observed("elbo")[0]: x}
        for joint in joints:
            for factor in filter(self.is_data, joint.factors):
                self._check_given(joint, factor, observed)
        observed = {name: value.to(self.device, self.dtype) for name, value in observed.items()}
        variables = {part: self.binding.variables_of(part) for part in self.binding.data_parts}
        data = {part: {v: Observation(observed[v], observed[v]) for v in names} for part, names in variables.items()}
        rows = self.rows(expr, observed=True)
        return rows(StepInputs(data, self.noise(seed, "elbo"), len(x)))

    @property
    def code(self) -> str:
        """The one latent variable."""
        latents = [v for v in self.joint("q", "encoding").variables if v not in self._roots]
        if len(latents) != 1:
            raise ConfigError(f"the codes are {', '.join(latents) or 'none'}: this needs exactly one; use draw()")
        return latents[0]

    @property
    def _roots(self) -> set[str]:
        return {v for joint in self.joints.values() for f in joint.factors if self.is_data(f) for v in f.out}

    def _one_observed(self, use: str) -> list[str]:
        if len(self.observed) != 1:
            raise ConfigError(f"{use}() is for one observed variable, not {self.observed}; use draw()")
        return self.observed

    # --- expressions

    def missing(self, expr: Expr) -> str:
        """Why an expression cannot be evaluated with this model's families, or an empty string."""
        laws = law_names(self.binding, self.compiled.registry)
        try:
            for summand in self._lowered(expr):
                for need in requirements_of(summand, laws):
                    if not is_met(need, self.binding):
                        return f"{need.part} has no {str(need).removeprefix('a ')}"
        except ConfigError as error:
            return str(error)
        return ""

    def rows(self, expr: Expr, observed: bool = False) -> PerRow:
        """A sum of expectations as (B,) numbers of a StepInputs. `observed`: its data are Observations already."""
        return PerRow(self._lowered(expr), self.parts, as_observed=observed)

    def _lowered(self, expr: Expr) -> tuple[Summand, ...]:
        return lower_expression(resolved(expr, self.compiled.registry.default), self.joints, self.binding.traits)

    def rebuild(self, batch: StepInputs, variable: str) -> tuple[Tensor, Tensor]:
        """(truth, reconstruction) of a batch of raw data: observed through its noise, encoded, decoded."""
        means, samples = self.observe(batch)
        return means[variable], self.rebuilt(variable, samples)

    def rebuilt(self, variable: str, known: Mapping[str, Tensor]) -> Tensor:
        """A variable that `can_reconstruct`, (B, *X): p's mean of it at q's mean code of the known values.

        What q draws is drawn, also where a data source has rows of it: they are not these rows' codes.
        """
        (factor,) = (f for f in self.joint("q", "encoding").factors if not f.is_root)
        rows, code = len(known[variable]), factor.out[0]
        given = {v: value for v, value in known.items() if v != code}
        codes = self.draw("q", given, rows, self.noise(0, "encode"), "mean")[code]
        given = {v: value for v, value in given.items() if v != variable} | {code: codes}
        return self.draw("p", given, rows, self.noise(0, "decode"), "mean")[variable]

    def as_observed(self, batch: StepInputs, name: str = "") -> StepInputs:
        """The same rows, observed once, as a batch whose data are Observations. Noise by `name`, but the data's."""
        noise = batch.noise.renamed(name) if name else batch.noise
        data = {part: dict(self._observations(batch, part)) for part in batch.data}
        return StepInputs(data, noise, batch.rows)

    def log_prob(
        self, joint: str, variables: tuple[str, ...], values: Mapping[str, Tensor], noise: Noise, mass: bool = False
    ) -> Tensor:
        """(B,) nats: the sum of the log densities of a joint's factors that draw these variables; see
        jointgen.contracts.metrics.ModelView."""
        total: Any = 0.0
        for factor in self.joint(joint, "a density").factors:
            if not set(factor.out) & set(variables):
                continue
            if self.is_data(factor) or self.binding.capabilities[factor.part].foreign_density == "none":
                raise ConfigError(f"{joint}({factor}) has no density")
            value = values[factor.out[0]]
            law = self._law(joint, factor, values, len(value), noise)
            space = self.spaces[factor.out[0]]
            in_bins = mass and space.bins is not None and self.binding.capabilities[factor.part].bin_mass
            total = total + (law.log_prob_bins(value) if in_bins else law.log_prob(value))
        return total

    @torch.no_grad()
    def log_prob_pairs(self, joint: str, variable: str, values: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        """(N, M) nats: each of N values of a variable under its conditional given each of M rows, through the network
        once for each row; see jointgen.contracts.metrics.ModelView."""
        factor = self.joint(joint, "a density").drawn_by(variable)
        inputs = [given[v].to(self.device) for v in factor.given]
        n, m = len(values), len(inputs[0])
        law = self.parts.modules[factor.part](*inputs, rows=torch.arange(m, device=self.device).repeat(n))
        law = law.moments() if factor.moments else law
        nats: Tensor = law.log_prob(values.to(self.device).repeat_interleave(m, 0))
        return nats.unflatten(0, (n, m))

    def _law(self, joint: str, factor: Conditional, known: Mapping[str, Tensor], rows: int, noise: Noise) -> Any:
        """The distribution of a factor that is not a data root, given what it is conditioned on."""
        if factor.is_root:
            return self.parts.prior(factor.part, rows, noise)
        inputs = [known[v] for v in factor.given]
        if size := self.binding.traits[factor.part].noise_input:
            inputs.append(noise.named(f"{joint}({factor})/eps", rows).normal(size))
        law = self.parts.modules[factor.part](*inputs)
        return law.moments() if factor.moments else law

    def generate(self, batch: StepInputs, reading: str = "mean") -> dict[str, Tensor]:
        """p's draws for a batch whose data, if any, is what p's data roots take; (B, *shape) by variable."""
        _, samples = self.observe(batch)
        given = {v: samples[v] for v in self.data_roots(self.joint("p", "drawing samples"))}
        return self.draw("p", given, batch.rows, batch.noise, reading)

    def labels(self, batch: Any) -> dict[str, Tensor]:
        """(B,) int64 class numbers by the source's name for them, whether or not the model uses them."""
        return batch.source.labels(batch.index % len(batch.source)) if batch.source else {}

    def observe(self, batch: StepInputs) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(mean readings, samples) of every observed variable of a batch of raw data."""
        seen = {v: draw for part in batch.data for v, draw in self._observations(batch, part)}
        return {v: draw.read("mean") for v, draw in seen.items()}, {v: draw.read("sample") for v, draw in seen.items()}

    def _observations(self, batch: StepInputs, part: str) -> Iterator[tuple[str, Observation]]:
        for variable, raw in batch.data[part].items():
            noise = batch.noise.named(f"observe/{variable}", batch.rows)
            yield variable, observe(self.spaces[variable], raw, noise)
