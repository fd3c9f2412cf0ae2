"""Features of networks: which networks have them, in what order networks are built that see others', and their shapes.

A value `features[2] f(x)` is what the second layer of the critic f makes of x. A critic's view and a conditional's
`input` may be such a value, so that one network sees what another has made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jointgen.compiler.gradient_paths import PartTraits
from jointgen.contracts.networks import OffersFeatures
from jointgen.errors import ConfigError, Problem
from jointgen.objectives.algebra import Tree
from jointgen.objectives.expressions import Ratio
from jointgen.objectives.values import Argument, Features, Value
from jointgen.registry.components import Registry

if TYPE_CHECKING:
    from jointgen.compiler.binding import Binding


def check_input(values: Iterable[Argument], part: str, given: Sequence[str]) -> None:
    """Check what the network of a conditional is to see in the place of the variables that it is given.

    Raises:
        ConfigError: It is no variable of these, and no features of networks at them.
    """
    for tree in (tree for value in values for tree in value.walk()):
        if isinstance(tree, Value) and tree.factor is not None:
            raise ConfigError(f"{tree} is a draw; a network sees variables and features of networks at them")
        if isinstance(tree, Value) and (tree.variable not in given or tree.reading != "sample"):
            raise ConfigError(f"{tree} is not what {part!r} is given, which is {', '.join(given)}")


def parts_seen(values: Iterable[Argument]) -> list[str]:
    """Return the parts whose features some values are made of, with those whose features these see."""
    trees = [tree for value in values for tree in value.walk()]
    return [tree.part for tree in trees if isinstance(tree, Features)]


def parts_below(traits: Mapping[str, PartTraits], ratios: Mapping[str, Ratio]) -> dict[str, list[str]]:
    """Return, for each part whose network sees features, the parts that make these."""
    below = {name: parts_seen(trait.input) for name, trait in traits.items() if trait.input}
    for name, ratio in ratios.items():
        if seen := parts_seen(value for _, value in ratio.view if isinstance(value, Argument)):
            below[name] = seen
    return below


def in_build_order(names: Iterable[str], below: Mapping[str, list[str]]) -> list[str]:
    """Return parts in the given order, but each after those whose features it sees.

    Raises:
        ConfigError: Two parts see each other's features.
    """
    order: dict[str, None] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ConfigError(f"parts see each other's features: {' -> '.join((*above, name))}", "objective")
        for one in below.get(name, ()):
            visit(one, (*above, name))
        order[name] = None

    for name in names:
        visit(name, ())
    return list(order)


def without_features(binding: Binding, trees: Iterable[Tree], registry: Registry | None) -> Iterator[Problem]:
    """Yield every value that asks a network for features that it does not have, with the networks that have some."""
    for tree in trees:
        if isinstance(tree, Features) and (found := _network_of(binding, tree.part)) is not None:
            kind, config, path = found
            layers = config.feature_layers if isinstance(config, OffersFeatures) else 0
            if not layers:
                able = [] if registry is None else [c.name for c, cls in registry.loadable(kind) if _offers(cls)]
                message = f"the objective needs {tree}, and this network shows no features"
                yield Problem(message + (f"; {kind}s that do: {', '.join(able)}" if able else ""), *path)
            elif isinstance(tree.layer, int) and tree.layer > layers:
                yield Problem(f"the objective needs {tree}, and this network shows {layers} layers", *path)


def _offers(component: Any) -> bool:
    return hasattr(component, "feature_layers")


def _network_of(binding: Binding, part: str) -> tuple[str, Any, tuple[str | int, ...]] | None:
    """The kind, the component and the key of the network of a part that the recipe has."""
    recipe = binding.recipe
    if part in binding.ratios:
        own = part in recipe.discriminators
        config = recipe.discriminators.get(part, recipe.discriminator)
        return (
            None if config is None else ("discriminator", config, recipe.path_of(part) if own else ("discriminator",))
        )
    table, path = recipe.all_conditionals().get(part), recipe.path_of(part)
    return None if table is None else (str(path[0]).removesuffix("s"), table.network, (*path, "network"))
