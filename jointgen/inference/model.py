"""A trained model to use from Python: sample, encode, decode, reconstruct, draw, and bound log p(x)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jointgen.contracts.noise import Noise
from jointgen.contracts.observation import Observation
from jointgen.contracts.space import Space
from jointgen.data.step_inputs import StepInputs
from jointgen.errors import ConfigError
from jointgen.inference.view import PartsView, require_given
from jointgen.objectives.bounds import elbo
from jointgen.objectives.distributions import Joint

if TYPE_CHECKING:
    from jointgen.compiler.compiled_recipe import CompiledRecipe
    from jointgen.compiler.parts import Parts

Given = Mapping[str, Tensor] | None
"""Values of variables that are not to be drawn, by name: {"y": one-hot labels}."""


class Model:
    """A trained model: `jointgen.load(RUN)`, or `jointgen.run(RECIPE).model`.

    By convention the joint "q" is the inference side (encoder) and "p" the model side (prior and decoder). Values are
    in model space, such as [0, 1] for images: x (B, *X) and z (B, *Z). Results depend on the weights, the arguments
    and the seed alone, never on the state of a global random generator, and carry no gradient.

    Args:
        compiled: The recipe that the parts were built from.
        parts: The parts with their weights; of a finished run, their averages.
        device: The device that the parts are on.
        checkpoint: The name of the checkpoint that the weights are from, if any.

    Attributes:
        spaces: The Space (shape, kind and range) of each variable.
        joints: The objective's joints by name.
        observed: The variables that data sources yield and that some conditional draws: x.
        view: The model as metrics see it.
    """

    def __init__(
        self, compiled: CompiledRecipe, parts: Parts, device: torch.device | str = "cpu", checkpoint: str | None = None
    ):
        self.compiled, self.parts, self.device = compiled, parts, torch.device(device)
        self.checkpoint = checkpoint or ""
        self.binding = compiled.binding
        self.spaces: Mapping[str, Space] = self.binding.spaces
        self.joints: Mapping[str, Joint] = self.binding.joints
        self.observed = self.binding.observed
        self.view = PartsView(compiled, parts, device)

    def sample(self, n: int, given: Given = None, *, seed: int = 0, reading: str = "mean") -> Tensor:
        """Draw from p: codes from the prior, then the decoder.

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
        return self.draw("p", given or {}, n, self.noise(seed, "sample"), reading)[variable]

    def encode(self, x: Tensor, given: Given = None, *, seed: int | None = None) -> Tensor:
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
        known = {variable: x, **(given or {})}
        return self.draw("q", known, len(x), self.noise(seed or 0, "encode"), reading)[self._only_code()]

    def decode(self, z: Tensor, given: Given = None) -> Tensor:
        """Decode codes (B, *Z) to the mean of p(x|z), (B, *X); `given` has values of what else p is given."""
        variable = self._only_observed("decode")
        known = {self._only_code(): z, **(given or {})}
        return self.draw("p", known, len(z), self.noise(0, "decode"), "mean")[variable]

    def reconstruct(self, x: Tensor, given: Given = None) -> Tensor:
        """Decode the mean code of x: (B, *X) to (B, *X)."""
        return self.decode(self.encode(x, given), given)

    def elbo(self, x: Tensor, given: Given = None, *, seed: int = 0) -> Tensor:
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
        observed = {**(given or {}), self._only_observed("elbo"): x}
        for joint in joints:
            for factor in filter(self.binding.is_data, joint.factors):
                require_given(joint, factor, observed)
        observed = {name: value.to(self.device, self.view.dtype) for name, value in observed.items()}
        variables = {part: self.binding.variables_of(part) for part in self.binding.data_parts}
        data = {part: {v: Observation(observed[v], observed[v]) for v in names} for part, names in variables.items()}
        per_row = self.view.per_row(expr, as_observed=True)
        with self.view.evaluating():
            return per_row(StepInputs(data, self.noise(seed, "elbo"), len(x)))

    def draw(
        self, joint: str, given: Mapping[str, Tensor], rows: int, noise: Noise, reading: str = "sample"
    ) -> dict[str, Tensor]:
        """Draw every variable of a joint, for models with several codes or observed variables.

        See `jointgen.plugin.ModelView.draw`; the noise is `model.noise(seed, name)`.
        """
        return self.view.draw(joint, given, rows, noise, reading)

    def noise(self, seed: int, name: str) -> Noise:
        """The noise of a draw, a pure function of the seed and the name."""
        return self.view.noise(seed, name)

    def _only_code(self) -> str:
        codes = self.binding.latents
        if len(codes) != 1:
            raise ConfigError(f"the codes are {', '.join(codes) or 'none'}: this needs exactly one; use draw()")
        return codes[0]

    def _only_observed(self, method: str) -> str:
        if len(self.observed) != 1:
            raise ConfigError(f"{method}() is for one observed variable, not {self.observed}; use draw()")
        return self.observed[0]
