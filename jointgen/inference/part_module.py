"""One part of a trained model as a plain torch module: tensors in, a tensor out, for use outside of jointgen."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn

from jointgen.compiler.features import parts_below
from jointgen.compiler.network_inputs import inputs_of, seen_value
from jointgen.contracts.networks import noisy_layers
from jointgen.contracts.noise import Kind, Noise
from jointgen.contracts.observation import example
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError, suggest
from jointgen.objectives.distributions import Conditional
from jointgen.objectives.values import Argument

if TYPE_CHECKING:
    from jointgen.compiler.binding import Binding
    from jointgen.compiler.parts import Parts

TRIED_ROWS = 2


@attrs.frozen
class NoiseInput:
    """Noise that a `PartModule` takes as an argument.

    Args:
        name: A name for it, unlike those of the other arguments: "eps", or "eps1", "eps2" where there are several.
        kind: "normal" for N(0, 1), "uniform" for [0, 1).
        shape: Its shape without the batch axis.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]


class PartModule(nn.Module):
    """A part of a model as a function of tensors: `model.module("decoder")`.

    Its weights are those of the model, not a copy, so training either trains both. It reads no random generator, but
    for the masks of dropout in training mode, as torch's own dropout does: what is random is an argument.

    Its readings, by what the part is:

    - A conditional, such as a decoder: "mean", "sample" and what else its family's draws can be read as, (B, *shape)
      of the variable; and "parameters", the output of its network, which its family turns into a distribution.
    - A prior: "sample", whose only arguments are noise.
    - A critic: "value", (B,), the output of its network for values of the variables that it sees.

    Args:
        parts: The parts of the model.
        binding: What they compute.
        part: The name of the part.
        reading: What to return.
        device: The device that the parts are on.
        dtype: What they compute with.

    Attributes:
        part: The name of the part.
        reading: What it returns.
        inputs: The Spaces of the values that it takes, by variable, in the order of its arguments.
        noise: The noise that it takes, in the order of the arguments that follow these.
        output: The Space of the variable that it returns; None of parameters and of a critic's value.

    Raises:
        ConfigError: There is no such part, or it has no such reading, or nothing to be a function of, as particles.

    Example:
        >>> decoder = model.module("decoder")                       # doctest: +SKIP
        >>> decoder(torch.zeros(4, 16)).shape                       # doctest: +SKIP
        torch.Size([4, 1, 8, 8])
    """

    def __init__(
        self,
        parts: Parts,
        binding: Binding,
        part: str,
        reading: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        if part not in parts.modules:
            raise ConfigError(f"{part!r} is no part that computes something{suggest(part, parts.modules)}", "part")
        self._binding, self._parts = binding, parts
        self.part, self.trait = part, binding.traits[part]
        allowed = self._readings()
        self.reading = allowed[0] if reading is None else reading
        if self.reading not in allowed:
            raise ConfigError(f"{part} has no {reading!r}{suggest(reading, allowed)}", "reading")
        self.networks = nn.ModuleDict({name: parts.modules[name] for name in _needed(binding, part)})
        self.factor = None if self.trait.kind == "critic" else binding.factor_of(part)[1]
        seen = binding.ratios[part].variables if self.factor is None else self.factor.given
        self.inputs: Mapping[str, Space] = {variable: binding.spaces[variable] for variable in seen}
        draws = self.factor is not None and self.reading != "parameters"
        self.output = binding.spaces[self.factor.out[0]] if draws and self.factor else None
        self.noise: tuple[NoiseInput, ...] = self._find_noise(device, dtype)
        if not self.inputs and not self.noise:
            raise ConfigError(
                f"{part} takes no value and no noise, so it is no function of anything; use draw()", "part"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> PartModule:
        """Copy the weights; what they compute, which does not change, is shared."""
        held = self._held()
        parts = attrs.evolve(self._parts, modules=copy.deepcopy(self.networks, memo))
        copied = PartModule(parts, self._binding, self.part, self.reading, held.device, held.dtype)
        copied.training = self.training
        return copied

    def _held(self) -> Tensor:
        """One of its numbers, which says where it is and what it computes with."""
        return next((p for p in self.parameters() if p.is_floating_point()), torch.zeros(()))

    def _readings(self) -> list[str]:
        """Return what this part can return; the first is what it does unless asked for another."""
        if self.trait.kind == "critic":
            return ["value"]
        if self.trait.kind == "prior":
            return ["sample"]
        offered = sorted(self._binding.capabilities[self.part].paths, key=lambda reading: reading != "mean")
        return [*offered, "parameters"]

    def _find_noise(self, device: torch.device | str, dtype: torch.dtype) -> tuple[NoiseInput, ...]:
        """Run the part once on made-up rows, and see what noise it asks for."""
        noise = Noise(0, "module", device=device, dtype=dtype)
        values = [
            example(space, Noise(0, name, dtype=dtype).named("made up", TRIED_ROWS)).to(device)
            for name, space in self.inputs.items()
        ]
        source = _Recorded(noise, TRIED_ROWS)
        modes = {module: module.training for module in self.modules()}
        self.eval()
        with torch.no_grad():
            self._run(values, source, TRIED_ROWS)
        for module, training in modes.items():
            module.training = training
        several = len(source.asked) > 1
        return tuple(
            NoiseInput(f"eps{i + 1}" if several else "eps", kind, shape) for i, (kind, shape) in enumerate(source.asked)
        )

    def forward(self, *arguments: Tensor) -> Tensor:
        """Compute the reading.

        Args:
            arguments: The value of each variable of `inputs`, (B, *shape) in model space (labels one-hot), and then
                the noise of each of `noise`, (B, *shape).

        Returns:
            (B, *shape).
        """
        known = len(self.inputs)
        wanted = [*self.inputs, *(noise.name for noise in self.noise)]
        if len(arguments) != len(wanted):
            raise TypeError(f"{self.part}: expected {', '.join(wanted)}, got {len(arguments)} arguments")
        rows = arguments[0].shape[0]
        return self._run(arguments[:known], _Given(arguments[known:], rows, arguments[0].dtype), rows)

    def example(self, rows: int = TRIED_ROWS, seed: int = 0) -> tuple[Tensor, ...]:
        """Return made-up arguments: values that lie in the Spaces of its inputs, and noise.

        Args:
            rows: B.
            seed: The seed of both.
        """
        held = self._held()
        noise = Noise(seed, self.part, device=held.device, dtype=held.dtype)
        values = [
            example(space, Noise(seed, name, dtype=held.dtype).named("made up", rows)).to(held.device)
            for name, space in self.inputs.items()
        ]
        return *values, *self.draw_noise(rows, seed, noise)

    def draw_noise(self, rows: int, seed: int = 0, noise: Noise | None = None) -> tuple[Tensor, ...]:
        """Draw the noise that it takes, (rows, *shape) each.

        Args:
            rows: B.
            seed: The seed.
            noise: Where the numbers come from; None for `seed`.
        """
        held = self._held()
        source = noise or Noise(seed, self.part, device=held.device, dtype=held.dtype)
        return tuple(source.numbers(one.name, one.kind, (rows, *one.shape)) for one in self.noise)

    def extra_repr(self) -> str:
        """Return the part, what it takes and what it returns."""
        taken = [f"{name} ({space})" for name, space in self.inputs.items()]
        taken += [f"{one.name} ({one.kind} {one.shape})" for one in self.noise]
        return f"{self.part}: {', '.join(taken)} -> {self.reading}" + (f" ({self.output})" if self.output else "")

    # --- what it computes

    def _run(self, values: Sequence[Tensor], source: Any, rows: Any) -> Tensor:
        if self.training:
            for layer in noisy_layers(self):
                layer.noise = _Global(self._held(), rows)
        known = dict(zip(self.inputs, values, strict=True))
        if self.trait.kind == "critic":
            return self._value_of_critic(known)
        if self.trait.kind == "prior":
            law = self._parts.prior(self.part, rows, Noise(0, "dropout"))
            drawn: Tensor = law.draw(source).read("sample")
            return drawn
        assert self.factor is not None
        eps = [source.normal(self.trait.noise_input)] if self.trait.noise_input else []
        if self.reading == "parameters":
            seen = inputs_of(self._parts, self.part, self.trait.seen(self.factor.given), known)
            network: Any = self.networks[self.part]
            output: Tensor = network.trunk(*seen, *eps)
            return output
        # a mean is the same whatever is drawn beside it, so that its noise is no argument
        noise = _Zeros(values[0], rows) if self.reading == "mean" else source
        read: Tensor = self._law(self.factor, known, eps).draw(noise).read(self.reading)
        return read

    def _law(self, factor: Conditional, known: Mapping[str, Tensor], eps: Sequence[Tensor] = ()) -> Any:
        """Run a conditional, with the parts whose distributions it merges."""
        trait = self._binding.traits[factor.part]
        merged = [self._law(other, known) for other in trait.merged]
        seen = inputs_of(self._parts, factor.part, trait.seen(factor.given), known)
        return self.networks[factor.part](*seen, *eps, merged=merged)

    def _value_of_critic(self, known: Mapping[str, Tensor]) -> Tensor:
        ratio = self._binding.ratios[self.part]
        views = {variable: ratio.reading(variable) for variable in ratio.variables}
        seen = [
            seen_value(self._parts, view, known) if isinstance(view, Argument) else known[variable]
            for variable, view in views.items()
        ]
        value: Tensor = self.networks[self.part](*seen)
        return value


def _needed(binding: Binding, part: str) -> list[str]:
    """Return a part and all others that are run with it: merged ones, and those whose features networks see."""
    below, found, todo = parts_below(binding.traits, binding.ratios), list[str](), [part]
    while todo:
        name = todo.pop()
        if name not in found:
            found.append(name)
            trait = binding.traits[name]
            todo += [*below.get(name, ()), *trait.through, *(factor.part for factor in trait.merged)]
    return found


# --- sources of noise ------------------------------------------------------------------------------------------------


class _Given:
    """A NoiseSource that hands out tensors in order."""

    def __init__(self, drawn: Sequence[Tensor], rows: Any, dtype: torch.dtype):
        self._left, self.rows, self.dtype = iter(drawn), rows, dtype

    def normal(self, *shape: int) -> Tensor:
        """Return the next tensor, (B, *shape)."""
        return next(self._left)

    def uniform(self, *shape: int) -> Tensor:
        """Return the next tensor, (B, *shape)."""
        return next(self._left)


class _Recorded:
    """A NoiseSource that lists what is asked for."""

    def __init__(self, noise: Noise, rows: int):
        self._source, self.rows, self.dtype = noise.named("tried", rows), rows, noise.dtype
        self.asked: list[tuple[Kind, tuple[int, ...]]] = []

    def normal(self, *shape: int) -> Tensor:
        """Return normal numbers, (B, *shape)."""
        self.asked.append(("normal", shape))
        return self._source.normal(*shape)

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform numbers, (B, *shape)."""
        self.asked.append(("uniform", shape))
        return self._source.uniform(*shape)


class _Global:
    """A NoiseSource that reads torch's global generator."""

    def __init__(self, like: Tensor, rows: Any):
        self.rows, self.dtype, self._device = rows, like.dtype, like.device

    def normal(self, *shape: int) -> Tensor:
        """Return normal numbers, (B, *shape)."""
        return torch.randn(self.rows, *shape, dtype=self.dtype, device=self._device)

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform numbers, (B, *shape)."""
        return torch.rand(self.rows, *shape, dtype=self.dtype, device=self._device)


class _Zeros:
    """A NoiseSource without randomness, for readings that do not depend on it."""

    def __init__(self, like: Tensor, rows: Any):
        self._like, self.rows, self.dtype = like, rows, like.dtype

    def normal(self, *shape: int) -> Tensor:
        """Return zeros, (B, *shape)."""
        return self._like.new_zeros((self.rows, *shape))

    uniform = normal
