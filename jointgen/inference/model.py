"""A trained model to use from Python: sample, encode, decode, reconstruct, draw, and bound log p(x)."""

from __future__ import annotations

import copy
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, TypeVar

import torch
from torch import Tensor, nn

from jointgen.contracts.noise import Noise
from jointgen.contracts.observation import Observation
from jointgen.contracts.sources import Column, NamedClasses, NamedColumns
from jointgen.contracts.space import Space
from jointgen.data.step_inputs import StepInputs
from jointgen.errors import ConfigError, Problems, suggest
from jointgen.inference.inputs import Input
from jointgen.inference.part_module import PartModule
from jointgen.inference.shown import model_html, model_text
from jointgen.inference.view import PartsView, require_given
from jointgen.objectives.bounds import elbo
from jointgen.objectives.distributions import Joint
from jointgen.text import shortened

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe
    from jointgen.compiler.parts import Parts

T = TypeVar("T")

Given = Mapping[str, Any] | None
"""Values of variables that are not to be drawn, by name: {"y": class numbers, or one-hot rows}."""

MAX_VALUE = 60
"""So many characters of a wrong argument are shown, at the most."""
DENSITY = re.compile(r"\s*(?P<joint>\w+)\s*\((?P<out>[^|()]*)(\|(?P<given>[^|()]*))?\)\s*")


class Model(nn.Module):
    """A trained model: `jointgen.load(RUN)`, or `jointgen.run(RECIPE).model`.

    By convention the joint "q" is the inference side (encoder) and "p" the model side (prior and decoder). Values are
    in model space, such as [0, 1] for images: x (B, *X) and z (B, *Z). They are given as tensors or arrays; whole
    numbers are levels of a variable that has levels (uint8 images: 0 to 255), and class numbers of a label. What does
    not fit the variable's Space is refused (`jointgen.inference.inputs`). Results depend on the weights, the arguments
    and the seed alone, never on the state of a global random generator.

    It is a `torch.nn.Module`: it moves by `.to(device)`, and gradients flow from what `encode`, `decode`,
    `reconstruct`, `elbo`, `log_prob` and `draw` return to the weights and to the values that were given. Where none are
    wanted, call it under `torch.no_grad()`; `sample` takes none. It is loaded in evaluation mode, and always computes
    in it. Called as a module, it reconstructs.

    Args:
        compiled: The recipe that the parts were built from.
        parts: The parts with their weights; of a finished run, their averages.
        device: The device that the parts are on.
        checkpoint: The name of the checkpoint that the weights are from, if any.

    Attributes:
        spaces: The Space (shape, kind and range) of each variable.
        joints: The objective's joints by name.
        observed: The variables that data sources yield and that some conditional draws: x.
        networks: The parts by name, as a `torch.nn.ModuleDict`.
        view: The model as metrics see it.
    """

    def __init__(
        self, compiled: CompiledRecipe, parts: Parts, device: torch.device | str = "cpu", checkpoint: str | None = None
    ):
        super().__init__()
        self.compiled, self.parts, self.device = compiled, parts, torch.device(device)
        self.networks, self.training = parts.modules, parts.modules.training
        self.checkpoint = checkpoint or ""
        self.binding = compiled.binding
        self.spaces: Mapping[str, Space] = self.binding.spaces
        self.joints: Mapping[str, Joint] = self.binding.joints
        self.observed = self.binding.observed
        self.view = PartsView(compiled, parts, device)

    @property
    def class_names(self) -> dict[str, list[str]]:
        """The names of the classes in order of each label variable whose data source has names for them."""
        recorded = self.binding.recorded
        return self._of_sources(
            None if recorded is None else recorded.class_names,
            lambda source: source.class_names() if isinstance(source, NamedClasses) else {},
        )

    @property
    def columns(self) -> dict[str, list[Column]]:
        """The columns of each variable whose data source is a table, in the order of the table's variables."""
        recorded = self.binding.recorded
        return self._of_sources(
            None if recorded is None else recorded.columns,
            lambda source: source.columns() if isinstance(source, NamedColumns) else {},
        )

    def _of_sources(
        self, recorded: Mapping[str, Mapping[str, Sequence[T]]] | None, ask: Callable[[Any], Mapping[str, Sequence[T]]]
    ) -> dict[str, list[T]]:
        """What data sources say of their variables, by the joints' names of these, in the sources' order.

        Args:
            recorded: What a run has recorded of it, by source and variable; None where the sources are asked.
            ask: Asks a source.
        """
        found: dict[str, list[T]] = {}
        for part in self.binding.data_parts:
            said = ask(self.compiled.recipe.all_sources()[part]) if recorded is None else recorded.get(part, {})
            joint_names = {name: variable for variable, name in self.binding.variables_of(part).items()}
            found |= {joint_names[name]: [*of] for name, of in said.items() if name in joint_names}
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the parts, as `.to` and `.double` of every module do, and all that knows where they are."""
        super()._apply(fn, recurse)
        self.device = fn(torch.empty(0, device=self.device)).device
        self.view = PartsView(self.compiled, self.parts, self.device)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        """Copy the weights; the recipe, which does not change, is shared."""
        return Model(self.compiled, copy.deepcopy(self.parts, memo), self.device, self.checkpoint)

    def __repr__(self) -> str:
        return model_text(self.compiled, self.parts, self.device, self.checkpoint)

    def _repr_html_(self) -> str:
        return model_html(self.compiled, self.parts, self.device, self.checkpoint)

    def forward(self, x: Any, given: Given = None) -> Tensor:
        """Reconstruct x: (B, *X) to (B, *X)."""
        return self.reconstruct(x, given)

    @torch.no_grad()
    def sample(self, n: int, given: Given = None, *, seed: int = 0, reading: str = "mean") -> Tensor:
        """Draw from p: codes from the prior, then the decoder. The result takes no gradient; `draw` gives one.

        Args:
            n: How many samples.
            given: Values of variables that are not drawn, (n, *shape) each, such as labels.
            seed: The seed of the noise.
            reading: "mean" for the decoder's mean, as papers show samples; "sample" adds the likelihood's own noise.

        Returns:
            (n, *X) in model space.

        Raises:
            ConfigError: If p draws from a data source whose values are not given, or has several observed variables.

        Example:
            >>> model = jointgen.load("runs/quickstart")  # doctest: +SKIP
            >>> model.sample(64).shape  # doctest: +SKIP
            torch.Size([64, 1, 8, 8])
        """
        variable = self._only_observed("sample")
        return self.draw("p", {} if given is None else given, n, self.noise(seed, "sample"), reading)[variable]

    def encode(self, x: Any, given: Given = None, *, seed: int | None = None) -> Tensor:
        """Encode data by q(z|x).

        Args:
            x: (B, *X) in model space.
            given: Values of what else q is given.
            seed: The seed of a draw of q(z|x); None for its mean.

        Returns:
            (B, *Z) codes.
        """
        variable = self._only_observed("encode")
        reading = "mean" if seed is None else "sample"
        known = self._read(("q",), {variable: x}, given)
        rows = len(known[variable])
        return self.view.drawn("q", known, rows, self.noise(seed or 0, "encode"), reading)[self._only_code()]

    def decode(self, z: Any, given: Given = None) -> Tensor:
        """Decode codes (B, *Z) to the mean of p(x|z), (B, *X); `given` has values of what else p is given."""
        variable = self._only_observed("decode")
        known = self._read(("p",), {self._only_code(): z}, given)
        rows = len(known[self._only_code()])
        return self.view.drawn("p", known, rows, self.noise(0, "decode"), "mean")[variable]

    def reconstruct(self, x: Any, given: Given = None) -> Tensor:
        """Decode the mean code of x: (B, *X) to (B, *X); `given` has values of what else q or p are given."""
        variable, code = self._only_observed("reconstruct"), self._only_code()
        known = self._read(("q", "p"), {variable: x}, given)
        others = {name: value for name, value in known.items() if name != variable}
        of_q, of_p = ({v: others[v] for v in others if v in self.joints[side].variables} for side in ("q", "p"))
        rows = len(known[variable])
        codes = self.view.drawn("q", {variable: known[variable], **of_q}, rows, self.noise(0, "encode"), "mean")[code]
        return self.view.drawn("p", {**of_p, code: codes}, rows, self.noise(0, "decode"), "mean")[variable]

    def elbo(self, x: Any, given: Given = None, *, seed: int = 0) -> Tensor:
        """Estimates the evidence lower bound on log p(x) (Kingma & Welling 2014, eq. 3).

        It is log p(x|z) + log p(z) - log q(z|x) at one draw z ~ q(z|x) for each row, which is unbiased for the bound.

        Args:
            x: (B, *X) in model space.
            given: Values of other data roots.
            seed: The seed of the draws.

        Returns:
            (B,) nats.

        Raises:
            ConfigError: If the model has no bound (an implicit encoder or decoder), or a data root is not given.
        """
        joints = self.binding.joint("q", "the ELBO"), self.binding.joint("p", "the ELBO")
        expr = elbo(*joints, self.binding.is_data)
        if reason := self.view.missing(expr):
            raise ConfigError(f"this model has no ELBO: {reason}")
        variable = self._only_observed("elbo")
        observed = self._read(("q", "p"), {variable: x}, given, scored=True)
        for joint in joints:
            for factor in filter(self.binding.is_data, joint.factors):
                require_given(joint, factor, observed)
        observed = {name: value.to(self.device, self.view.dtype) for name, value in observed.items()}
        variables = {part: self.binding.variables_of(part) for part in self.binding.data_parts}
        data = {
            part: {v: Observation(observed[v], observed[v]) for v in names if v in observed}
            for part, names in variables.items()
        }
        per_row = self.view.per_row(expr, as_observed=True)
        with self.view.evaluating():
            return per_row.values(StepInputs(data, self.noise(seed, "elbo"), len(observed[variable])))

    def log_prob(self, density: str, values: Mapping[str, Any], *, seed: int = 0) -> Tensor:
        """The log-density of values under factors of a joint.

        Args:
            density: "p(x|z)", "q(z|x)", "p(z)", or a product of such, "p(x,z)".
            values: The value of each variable in it, (B, *shape).
            seed: The seed of noise that some priors take.

        Returns:
            (B,) nats.

        Raises:
            ConfigError: It is no density of this model; names those that there are.

        Example:
            >>> model.log_prob("q(z|x)", {"z": z, "x": x}).shape  # doctest: +SKIP
            torch.Size([64])
        """
        name, variables = self._density(density)
        factors = [factor for factor in self.joints[name].factors if set(factor.out) <= set(variables)]
        needed = dict.fromkeys(v for factor in factors for v in (*factor.out, *factor.given))
        problems = Problems()
        for variable in needed:
            if variable not in values:
                problems.add("missing; its value is needed", variable)
        for variable in values:
            if variable not in needed:
                problems.add(f"{density} has no such variable{suggest(variable, needed)}", str(variable))
        problems.raise_any()
        known = self._read((name,), {}, values, scored=variables)
        known = {v: value.to(self.device, self.view.dtype) for v, value in known.items()}
        return self.view.log_prob(name, variables, known, self.noise(seed, "log_prob"))

    def _density(self, text: str) -> tuple[str, tuple[str, ...]]:
        """Return the joint that a density is of, and the variables that it is a density of."""
        found: dict[tuple[str, frozenset[str], frozenset[str]], str] = {}
        for joint in self.joints.values():
            factors = [factor for factor in joint.factors if not self.binding.is_data(factor)]
            for one in factors:
                found[joint.name, frozenset(one.out), frozenset(one.given)] = joint.written(one)
            if joint.has_root and len(factors) == len(joint.factors) > 1:
                found[joint.name, frozenset(joint.variables), frozenset()] = (
                    f"{joint.name}({','.join(sorted(joint.variables))})"
                )
        match = DENSITY.fullmatch(text) if isinstance(text, str) else None
        if match is not None:
            out, given = (_names(match[side] or "") for side in ("out", "given"))
            if (match["joint"], out, given) in found:
                return match["joint"], tuple(out)
        shown = shortened(repr(text), MAX_VALUE)
        raise ConfigError(f"{shown} is no density of this model{suggest(text, found.values())}", "density")

    def draw(
        self, joint: str, given: Mapping[str, Any], rows: int, noise: Noise, reading: str = "sample"
    ) -> dict[str, Tensor]:
        """Draw every variable of a joint, for models with several codes or observed variables.

        See `jointgen.plugin.ModelView.draw`; the noise is `model.noise(seed, name)`.
        """
        if (number := _integer(rows)) is None or number < 1:
            raise ConfigError(f"expected a number of rows >= 1, got {shortened(repr(rows), MAX_VALUE)}", "n")
        rows = number
        return self.view.drawn(joint, self._read((joint,), {}, given, rows), rows, noise, reading)

    def module(self, part: str, reading: str | None = None) -> PartModule:
        """One part as a plain `torch.nn.Module`, such as a decoder (B, *Z) -> (B, *X), to use or to export.

        It has the weights of this model, not a copy of them.

        Args:
            part: The name of an encoder, a decoder, a prior or a critic.
            reading: What it returns: of an encoder or a decoder "mean" (the default where there is one), "sample",
                whose noise is then an argument after the values, or "parameters", what its network returns; of a prior
                "sample"; of a critic "value".

        Returns:
            The module. Its arguments are the values of what the part is given, in the order of `module.inputs`, and
            then its noise, in the order of `module.noise`.

        Raises:
            ConfigError: There is no such part, or it has no such reading; names the nearest.

        Example:
            >>> decoder = model.module("decoder")  # doctest: +SKIP
            >>> decoder(torch.zeros(4, 16)).shape  # doctest: +SKIP
            torch.Size([4, 1, 8, 8])
            >>> drawing = model.module("decoder", "sample")  # doctest: +SKIP
            >>> drawing(torch.zeros(4, 16), *drawing.draw_noise(4)).shape  # doctest: +SKIP
            torch.Size([4, 1, 8, 8])
        """
        return PartModule(self.parts, self.binding, part, reading, self.device, self.view.dtype)

    def noise(self, seed: int, name: str) -> Noise:
        """The noise of a draw, a pure function of the seed and the name."""
        if (number := _integer(seed)) is None:
            raise ConfigError(f"expected a whole number, got {shortened(repr(seed), MAX_VALUE)}", "seed")
        return self.view.noise(number, name)

    def input(self, name: str, *, scored: bool = False) -> Input:
        """The variable of this name as one whose values are given.

        Args:
            name: A variable of the model.
            scored: Whether its probability is asked for.
        """
        is_data = any(name in self.binding.data_roots(joint) for joint in self.joints.values())
        return Input(name, self.spaces[name], is_data, scored, self.view.dtype)

    def _read(
        self,
        joints: tuple[str, ...],
        values: Mapping[str, Any],
        given: Given,
        rows: int | None = None,
        *,
        scored: bool | Collection[str] = False,
    ) -> dict[str, Tensor]:
        """Bring values that a caller gives to model space.

        Args:
            joints: The joints whose variables they are.
            values: Values of a variable that is an argument of its own.
            given: The argument `given`.
            rows: How many rows each has; None: as many as the first.
            scored: Whether the values' probability is asked for, so that only data can be given; or the variables
                whose probability is asked for, given all others.

        Raises:
            ConfigError: With every problem.
        """
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(f"expected values by variable, {{'y': ...}}, got {type(given).__name__}", "given")
        names = [v for joint in joints for v in self.binding.joint(joint, "drawing").variables]
        allowed = [v for v in dict.fromkeys(names) if scored is not True or self.input(v).is_data]
        problems, read = Problems(), dict[str, Tensor]()
        for name, value in [*values.items(), *(given or {}).items()]:
            if name not in allowed:
                problems.add(f"is not a variable that can be given{suggest(name, allowed)}", str(name))
            elif name in values and name in (given or {}):
                problems.add("is given twice", name)
            else:
                with problems.collect():
                    is_scored = scored if isinstance(scored, bool) else name in scored
                    read[name] = self.input(name, scored=is_scored).read(value)
        expected = next((len(value) for value in read.values()), 0) if rows is None else rows
        for name, tensor in read.items():
            if len(tensor) != expected:
                problems.add(f"has {len(tensor)} rows, expected {expected}", name)
        problems.raise_any()
        return read

    def _only_code(self) -> str:
        codes = self.binding.latents
        if len(codes) != 1:
            raise ConfigError(f"the codes are {', '.join(codes) or 'none'}: this needs exactly one; use draw()")
        return codes[0]

    def _only_observed(self, method: str) -> str:
        if len(self.observed) != 1:
            raise ConfigError(f"{method}() is for one observed variable, not {self.observed}; use draw()")
        return self.observed[0]


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def _integer(value: object) -> int | None:
    """Return an integer of any type, such as numpy's, as Python's; None of anything else, and of bool."""
    is_bool = isinstance(value, bool) or getattr(value, "dtype", None) is torch.bool
    if is_bool or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)
    except TypeError:  # an array that has several numbers, or one that is not whole
        return None
