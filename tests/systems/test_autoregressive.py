"""PixelCNN and PixelCNN++: exact probabilities, causality, draws from caches, and what such a family cannot do."""

from __future__ import annotations

import itertools
import math
from typing import Any

import attrs
import pytest
import torch
from jointgen_families.autoregressive.family import (
    Autoregressive,
    AutoregressiveModule,
    PixelCNN,
    PixelCNNPP,
    PixelNoise,
    draw_levels,
    draw_levels_naively,
)
from jointgen_families.autoregressive.laws import centred
from support.models import SmallModel
from torch import Tensor
from torch.nn import functional as F

from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.recipe import read_recipe
from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.engine.gradient_check import check_ownership
from jointgen.errors import ConfigError
from jointgen.registry.components import Registry

GATED = PixelCNN(width=5, blocks=2, kernel=3, context=3)
RESIDUAL = PixelCNNPP(width=5, blocks=2, components=2, context=3)
BOTH = pytest.mark.parametrize(
    "config",
    [GATED, attrs.evolve(GATED, law="logistic_mixture"), RESIDUAL, attrs.evolve(RESIDUAL, law="categorical")],
    ids=lambda config: f"{config.name}-{config.law}",
)


def levels(shape: tuple[int, ...], bins: int) -> Space:
    return Space(shape, low=-1.0, high=1.0, bins=bins)


def built(config: Autoregressive, space: Space) -> Any:
    """The family's module, off its start so that nothing is small by chance, in double precision."""
    torch.manual_seed(0)
    module = config.build(space).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.6)
    return module


def law_of(config: Autoregressive, space: Space, rows: int) -> Any:
    torch.manual_seed(1)
    return built(config, space)(torch.randn(1, *config.outputs(space)).double().expand(rows, *config.outputs(space)))


def value_of(level: Tensor, space: Space) -> Tensor:
    assert space.low is not None and space.bin_width is not None
    return space.low + (level.double() + 0.5) * space.bin_width


def conditionals(module: AutoregressiveModule, context: Tensor, level: Tensor) -> Tensor:
    """log p(pixel | pixels before it) for each pixel by itself, (B, H, W)."""
    features = module.network(centred(level, module.levels), context)
    places = itertools.product(range(level.shape[2]), range(level.shape[3]))
    found = [
        module.law.log_mass(features[:, :, r : r + 1, c : c + 1], level[:, :, r : r + 1, c : c + 1]) for r, c in places
    ]
    return torch.stack(found, 1).unflatten(1, level.shape[2:])


# --- exact probabilities ---------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("shape", [(1, 2, 2), (2, 2, 1), (3, 1, 1)], ids=str)
def test_the_probabilities_of_all_images_sum_to_one(config: Autoregressive, shape: tuple[int, ...]) -> None:
    """Of images of three levels, channels among what is summed."""
    space = levels(shape, 3)
    every = torch.tensor(list(itertools.product(range(3), repeat=space.size))).view(-1, *shape)
    mass = law_of(config, space, len(every)).log_prob_bins(value_of(every, space)).exp()
    assert mass.sum().item() == pytest.approx(1.0, abs=1e-9)
    assert mass.max() > 1.5 / len(every)  # and they are not all alike


def test_bits_sum_to_one() -> None:
    space = Space((1, 2, 2), kind="binary", bins=256)
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=4))).view(-1, 1, 2, 2).double()
    assert law_of(GATED, space, 16).log_prob(every).exp().sum().item() == pytest.approx(1.0, abs=1e-9)


@BOTH
def test_log_p_is_the_sum_over_pixels_of_what_each_has_by_itself(config: Autoregressive) -> None:
    """Each pixel's factor is read off a pass in which all later pixels are replaced by others."""
    space = levels((3, 3, 4), 5)
    level = torch.randint(5, (2, *space.shape), generator=torch.Generator().manual_seed(2)).double()
    module, law = built(config, space), law_of(config, space, 2)
    by_hand = torch.zeros(2).double()
    for r, c in itertools.product(range(3), range(4)):
        later = torch.arange(12).view(3, 4) > 4 * r + c
        changed = torch.where(later, (level + 2) % 5, level)
        by_hand += conditionals(module, law._context, changed)[:, r, c]
    value = value_of(level, space)
    assert torch.allclose(law.log_prob_bins(value), by_hand, atol=1e-10)
    # as a density it is even within a bin, of width 2/5
    assert torch.allclose(law.log_prob(value + 0.19), by_hand - space.size * math.log(2 / 5), atol=1e-10)


def test_the_softmax_of_a_channel_is_given_the_channels_before_it_alone() -> None:
    module = built(GATED, levels((3, 2, 2), 4))
    features = torch.randn(1, 5, 2, 2).double()
    one, other = (
        torch.tensor(values).double().view(1, 3, 1, 1).expand(1, 3, 2, 2) for values in ([0, 1, 3], [0, 2, 1])
    )
    logits = [[module.law._logits(c, features, centred(x, 4)[:, :c]) for c in range(3)] for x in (one, other)]
    same = [torch.equal(a, b) for a, b in zip(*logits, strict=True)]
    assert same == [True, True, False]


@BOTH
def test_a_pixel_depends_on_every_pixel_before_it_and_on_no_other(config: Autoregressive) -> None:
    """No blind spot: the features of 16 pixels under a change of each of them, against the raster order."""
    module = built(attrs.evolve(config, blocks=4), levels((1, 4, 4), 5))
    x = torch.zeros(17, 1, 16).double()
    x[torch.arange(16), 0, torch.arange(16)] = 0.7
    features = module.network(x.view(17, 1, 4, 4), torch.zeros(1, 3, 1, 1).double()).flatten(2)
    depends = (features[:16] != features[16]).any(1)  # [changed pixel, pixel that sees it]
    assert torch.equal(depends, torch.ones(16, 16).triu(1).bool())


# --- draws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        GATED,
        attrs.evolve(GATED, law="logistic_mixture", context_map=True),
        RESIDUAL,
        attrs.evolve(RESIDUAL, law="categorical", context_map=True),
    ],
    ids=lambda config: f"{config.name}-{config.law}-{'map' if config.context_map else 'vector'}",
)
def test_draws_from_caches_are_those_of_whole_passes(config: Autoregressive) -> None:
    space = levels((3, 8, 8), 6)
    module, context = built(config, space), torch.randn(3, *config.outputs(space)).double()
    law = module(context)
    fast, slow = (
        draw(module, law._context, PixelNoise(Noise(0, dtype=torch.float64).named("x", 3), 8, 8))
        for draw in (draw_levels, draw_levels_naively)
    )
    assert torch.equal(fast, slow) and len(fast.unique()) == 6


def test_a_draw_takes_the_multiplications_of_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass for each pixel would take 64 times as many."""
    counted = [0]
    for name in ("conv2d", "linear"):
        run = getattr(F, name)

        def counting(x: Tensor, weight: Tensor, *rest: Any, run: Any = run) -> Tensor:
            out: Tensor = run(x, weight, *rest)
            counted[0] += out.numel() * weight[0].numel()
            return out

        monkeypatch.setattr(F, name, counting)
    module = built(GATED, levels((1, 8, 8), 4))
    context = torch.zeros(2, 3, 1, 1).double()
    module.network(torch.zeros(2, 1, 8, 8).double(), context)
    once, counted[0] = counted[0], 0
    draw_levels(module, context, PixelNoise(Noise(0, dtype=torch.float64).named("x", 2), 8, 8))
    assert 1.0 <= counted[0] / once < 1.3  # the law of a pixel is counted here and not there


@pytest.mark.parametrize("config", [GATED, RESIDUAL], ids=lambda config: config.name)
def test_draws_have_the_probabilities_that_are_computed(config: Autoregressive) -> None:
    """The four images of two pixels and two levels, 4000 draws: within four standard errors."""
    space = levels((1, 1, 2), 2)
    law = law_of(config, space, 4000)
    every = torch.tensor(list(itertools.product(range(2), repeat=2))).view(4, 1, 1, 2)
    expected = law_of(config, space, 4).log_prob_bins(value_of(every, space)).exp()
    drawn = law.draw(Noise(0, dtype=torch.float64).named("x", 4000)).read("sample")
    assert bool(((drawn >= -1) & (drawn < 1)).all())
    level = (drawn > 0).long().flatten(1)
    found = torch.bincount(2 * level[:, 0] + level[:, 1], minlength=4) / 4000
    assert bool(((found - expected).abs() < 4 * (expected * (1 - expected) / 4000).sqrt()).all())


# --- the start -------------------------------------------------------------------------------------------------------


def test_layers_start_with_the_scale_that_they_are_given(registry: Registry) -> None:
    """What goes into the first gate has mean 0 and standard deviation 1 over rows of data (Salimans & Kingma 2016)."""
    torch.manual_seed(0)
    space = levels((1, 6, 6), 8)
    module: Any = PixelCNN(width=4, blocks=1, kernel=3).build(space).double()
    rows = value_of(torch.randint(8, (50, 1, 6, 6)), space)
    module.start_at_values(rows)
    left = F.pad(F.pad(centred(module.level(rows), 8), (1, 0))[..., :-1], (0, 0, 0, 0, 0, 1), value=1.0)
    out = module.network.layers[0].to_horizontal(left)
    assert torch.allclose(out.mean((0, 2, 3)), torch.zeros(8).double(), atol=1e-9)
    assert torch.allclose(out.std((0, 2, 3)), torch.ones(8).double(), atol=1e-9)


# --- in models -------------------------------------------------------------------------------------------------------

PIXELCNN: dict[str, Any] = {"type": "pixelcnn", "width": 4, "blocks": 1, "kernel": 3, "context": 2}
ROOT: dict[str, Any] = {
    "data": {"type": "digits", "observe": "binarise"},
    "prior": {"type": "learned", "like": "x", "family": PIXELCNN},
    "objective": {"type": "expression", "maximize": "E[q(x)](log p(x))", "joints": {"q": "q(x)", "p": "p(x)"}},
    "train": {"steps": 3, "batch": 16},
}
DECODER: dict[str, Any] = {
    "data": {"type": "digits", "observe": "binarise"},
    "prior": {"type": "normal", "size": 3},
    "encoder": {"network": {"type": "mlp", "hidden": [6]}, "family": {"type": "gaussian"}},
    "decoder": {"network": {"type": "mlp", "hidden": [6]}, "family": PIXELCNN},
    "objective": {"type": "vae"},
    "train": {"steps": 3, "batch": 16},
}


def compiled(registry: Registry, tables: dict[str, Any], changes: Any = ()) -> SmallModel:
    return SmallModel(compile_recipe(read_recipe(tables, changes, registry=registry), registry))


def inputs_of_draws(model: SmallModel) -> tuple[Any, dict[str, Tensor]]:
    runner = model.update()
    values = runner.program.run(model.inputs())
    found = {node.title: values[i] for i, node in enumerate(runner.program.nodes)}
    return runner, found


def test_the_root_minimises_the_code_length_of_the_data(registry: Registry) -> None:
    """pixelcnn_mnist: loss and gradient are those of the summed cross-entropies, pixel by pixel."""
    model = compiled(registry, ROOT).double()
    prior: Any = model.parts.modules["prior"]
    runner, found = inputs_of_draws(model)
    loss = runner.loss(model.inputs())[0]
    context = prior.output.expand(8, -1)[:, :, None, None]
    by_hand = -conditionals(prior.family, context, found["q.x"]).sum((1, 2)).mean()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-10)
    parameters = list(prior.parameters())
    for a, b in zip(*(torch.autograd.grad(one, parameters) for one in (loss, by_hand)), strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-12)


def test_a_decoder_takes_its_context_from_the_code(registry: Registry) -> None:
    """pixelvae_mnist: the bound by hand, and its gradient in the encoder, the decoder's network and the PixelCNN."""
    model = compiled(registry, DECODER).double()
    decoder: Any = model.parts.modules["decoder"]
    encoder: Any = model.parts.modules["encoder"]
    runner = model.update()
    loss, _, values = runner.loss(model.inputs())
    at = {node.title: values[i] for i, node in enumerate(runner.program.nodes)}
    (x, z) = (next(v for title, v in at.items() if title.endswith(f".{name}")) for name in ("x", "z"))
    posterior, standard = encoder(x), torch.distributions.Normal(0.0, 1.0)
    context = decoder.trunk(z)[:, :, None, None]
    bound = conditionals(decoder.family, context, x).sum((1, 2)) + standard.log_prob(z).sum(1)
    by_hand = -(bound - torch.distributions.Normal(posterior.mean, posterior.scale).log_prob(z).sum(1)).mean()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-10)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    for a, b in zip(*(torch.autograd.grad(one, parameters, retain_graph=True) for one in (loss, by_hand)), strict=True):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-12) and bool(a.abs().sum() > 0)


@pytest.mark.parametrize("tables", [ROOT, DECODER], ids=["root", "decoder"])
def test_gradients_reach_what_the_plan_says(registry: Registry, tables: dict[str, Any]) -> None:
    model = compiled(registry, tables)
    assert check_ownership(model.plan, model.parts, model.data(4), 4, 0) == {}


@pytest.mark.parametrize("tables", [ROOT, DECODER], ids=["root", "decoder"])
def test_micro_batches_equal_the_whole(registry: Registry, tables: dict[str, Any]) -> None:
    whole, parts = (compiled(registry, tables, {"train.micro_batches": n}).double() for n in (1, 4))
    for model, n in ((whole, 1), (parts, 4)):
        model.step(micro_batches=n)(lambda r, model=model: model.inputs(repetition=r))
    for a, b in zip(whole.parts.modules.parameters(), parts.parts.modules.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def of_family(registry: Registry, **family: Any) -> dict[str, Any]:
    return {**ROOT, "prior": {"type": "learned", "like": "x", "family": {"type": "pixelcnn", **family}}}


REFUSED: dict[str, tuple[dict[str, Any], Any, str]] = {
    "a path through its draws": (
        DECODER,
        {"objective.type": "asvae", "discriminator.type": "mlp"},
        "decoder.family: the objective needs a gradient path through the reading 'sample' of its draws",
    ),
    "bits as a mixture of logistics": (
        ROOT,
        {"prior.family.law": "logistic_mixture"},
        'prior.family.law: "logistic_mixture" is a law of quantised grey levels; "categorical" is one of bits',
    ),
    "points": (
        ROOT,
        {"data": {"type": "ring", "rows": 64}},
        'prior.family.type: "pixelcnn" is a family of images (C, H, W), this variable is 2 real',
    ),
    "an even kernel": (ROOT, {"prior.family.kernel": 4}, "prior.family.kernel: must be odd, got 4"),
    "a code": (
        {
            **DECODER,
            "encoder": {**DECODER["encoder"], "family": PIXELCNN},
            "prior": {"type": "normal", "size": [1, 2, 2]},
        },
        (),
        'encoder.family.type: "pixelcnn" is a family of levels, and this variable has none: 1x2x2 real',
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_do_is_refused(registry: Registry, name: str) -> None:
    tables, changes, line = REFUSED[name]
    if isinstance(changes, dict) and isinstance(changes.get("data"), dict):
        tables, changes = {**tables, **changes}, ()
    with pytest.raises(ConfigError) as refused:
        compiled(registry, tables, changes)
    assert any(said.startswith(line) for said in refused.value.lines), refused.value.lines


def test_its_draws_are_declared_to_take_a_pass_for_each_number() -> None:
    can = GATED.capabilities(levels((1, 2, 2), 3))
    assert str(can) == (
        "readings sample (none); own density analytic; foreign density analytic; exact bin mass; draws in D passes"
    )
