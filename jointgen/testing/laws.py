"""Laws: a family on one Space, or a prior, from which the checks get distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from jointgen.contracts.capabilities import Capabilities
from jointgen.contracts.distributions import PriorThroughParts
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.testing.check import described, expect
from jointgen.testing.randomness import noise, normal_like, perturb
from jointgen.testing.standin import GIVEN, STAND_IN, StandIn

SPACES = (
    Space((1,)),
    Space((2,)),
    Space((1,), low=0.0, high=1.0),
    Space((1,), low=-1.0, high=1.0, bins=8),
    Space((2, 1, 2), low=0.0, high=1.0, bins=4),
    Space((1,), kind="binary", bins=2),
    Space((3,), kind="binary", bins=2),
    Space((1, 2, 2), kind="binary", bins=4),
    Space((3,), kind="label"),
)
"""The Spaces on which a family is checked by default, if it serves them: one or more of each kind."""


@attrs.frozen
class Law:
    """A family on a Space, or a prior, which takes "params" of size 0 so that both are called alike.

    Args:
        config: The component.
        space: The Space of the variable.
        is_prior: Whether the component is a prior.
        memory: What several checks share.
    """

    config: Any
    space: Space
    is_prior: bool = False
    memory: dict[str, Any] = attrs.field(factory=dict, eq=False, repr=False)

    def remembered(self, what: str, make: Callable[[], Any]) -> Any:
        """Return what several checks of this law need; `make` is called once."""
        if what not in self.memory:
            self.memory[what] = make()
        return self.memory[what]

    @property
    def can(self) -> Capabilities:
        """The capabilities that the component declares."""
        return self.config.capabilities(self.space, *(STAND_IN for _ in self.through))

    @property
    def through(self) -> tuple[str, ...]:
        """The names of the parts that a prior is made of, which stand-ins replace."""
        return self.config.through if self.is_prior and isinstance(self.config, PriorThroughParts) else ()

    @property
    def outputs(self) -> tuple[int, ...]:
        """The shape of one row of params."""
        return (0,) if self.is_prior else tuple(self.config.outputs(self.space))

    def built(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """Return a module a little off its start, the same at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            module = self.fresh()
        expect(isinstance(module, nn.Module), f"build() returns a {type(module).__name__}, it must be an nn.Module")
        perturb(module)
        return module.to(dtype)

    def fresh(self) -> nn.Module:
        """Return a module as it is built."""
        return self.config.build(*(GIVEN for _ in self.through)) if self.is_prior else self.config.build(self.space)

    def params(self, rows: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return what a trunk might output, (rows, *outputs), the same at every call."""
        return 0.5 * normal_like("params", rows, *self.outputs).to(dtype)

    def at(self, module: nn.Module, params: Tensor) -> Any:
        """Return the distribution for these params."""
        if not self.is_prior:
            return module(params)
        parts = [StandIn(self.space) for _ in self.through]
        return module(len(params), *parts)

    def draws(self, module: nn.Module, row: Tensor, n: int, name: str) -> Tensor:
        """Return samples of the distribution of one row of params, (n, *shape)."""
        with torch.no_grad():
            return self.at(module, row.expand(n, *row.shape)).draw(noise(n, name)).read("sample")

    def __str__(self) -> str:
        return f"{described(self.config)} on {self.space}"


def leaves(module: nn.Module, params: Tensor) -> dict[str, Tensor]:
    """Return everything that a gradient can reach: the module's own parameters, and the params if there are any."""
    found: dict[str, Tensor] = dict(module.named_parameters())
    return {**found, "params": params} if params.numel() else found


# --- which laws a component has --------------------------------------------------------------------------------------


def laws_of_family(config: Any, spaces: Sequence[Space] | None) -> list[Law]:
    """Return the family on the given Spaces, or on all of SPACES that it serves."""
    found = [Law(config, space) for space in spaces or SPACES if spaces or _serves(config, space)]
    expect(found, f"{described(config)} serves none of the Spaces tried ({', '.join(map(str, SPACES))}); give spaces")
    return found


def _serves(config: Any, space: Space) -> bool:
    try:
        config.capabilities(space)
    except ConfigError:
        return False
    return True


def laws_of_prior(config: Any) -> list[Law]:
    """Return the prior as it is and, if it has the key `size`, of sizes 1 and 2, whose density can be integrated."""
    return [Law(one, one.space, is_prior=True) for one in _sizes_of(config)]


def _sizes_of(config: Any) -> Iterable[Any]:
    yield config
    if any(field.name == "size" for field in attrs.fields(type(config))):
        yield from (attrs.evolve(config, size=size) for size in (1, 2) if config.space.shape != (size,))


# --- what a law declares ---------------------------------------------------------------------------------------------


def scores_own(law: Law) -> bool:
    """Return whether the law has a density at its own draws."""
    return law.can.own_density != "none"


def scores_any(law: Law) -> bool:
    """Return whether the law has a density at any point."""
    return law.can.foreign_density != "none"


def has_grid(law: Law) -> bool:
    """Return whether an integral over the variable is affordable."""
    return law.space.size <= {"label": 64, "binary": 4, "real": 2}[law.space.kind]


def can_integrate(law: Law) -> bool:
    """Return whether the density can be integrated."""
    return scores_any(law) and has_grid(law)


def has_bins(law: Law) -> bool:
    """Return whether the law knows the mass of bins."""
    return law.can.bin_mass


def is_line(law: Law) -> bool:
    """Return whether the variable is one real number."""
    return law.space.kind == "real" and law.space.size == 1
