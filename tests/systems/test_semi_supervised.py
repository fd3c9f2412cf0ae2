"""The shipped recipes of M2, M1+M2, semi-supervised AS-VAE, categorical VAE and MIX+WGAN against losses by hand.

Each loss takes one label after the other, in plain torch, on the model's own noise; it is compared with its gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.models import SmallModel, small_model
from support.paths import SHIPPED
from torch import Tensor
from torch.nn import functional as F

from jointgen.compiler.balanced_weights import balanced_weights
from jointgen.config.recipe import read_recipe
from jointgen.contracts.observation import observe
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.gradient_check import check_ownership
from jointgen.engine.update import UpdateRunner
from jointgen.registry.discovery import load_plugins

torch.set_num_threads(1)

ROWS, CLASSES, LOG_2PI = 4, 10, math.log(2 * math.pi)
DIGITS = {"type": "digits", "observe": "binarise"}
BASE: dict[str, Any] = {
    "data": DIGITS,
    "sources": {"labelled": DIGITS | {"labels": True}},
    "encoder": {"network": {"type": "mlp", "hidden": [5]}, "family": {"type": "gaussian"}},
    "decoder": {"network": {"type": "mlp", "hidden": [5]}, "family": {"type": "bernoulli"}},
}
HEAD = {"network": {"type": "mlp", "hidden": [5]}, "family": {"type": "categorical"}}
GAUSSIAN = {"network": {"type": "mlp", "hidden": [5]}, "family": {"type": "gaussian"}}
LABEL = {"label": {"type": "categorical", "classes": CLASSES}}


def small(recipe: str, **tables: Any) -> SmallModel:
    """The objective of a recipe on small parts in float64, a little off their start."""
    path = SHIPPED / f"{recipe}.toml"
    objective = read_recipe(path, registry=load_plugins().registry).objective.objective()
    model = small_model(objective, **{**BASE, **tables}).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parts.modules.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


class Hand:
    """What a loss by hand is made of: the inputs of a step, the modules, and draws with the noise of the plan."""

    def __init__(self, model: SmallModel):
        scales = {w.name: torch.ones((), dtype=torch.float64) for w in balanced_weights(model.plan.objective)}
        self.inputs: StepInputs = model.inputs(ROWS, progress=0.8, scales=scales)
        self.modules: Any = model.parts.modules
        self.spaces = model.parts.spaces

    def noise(self, title: str, rows: int = ROWS) -> Any:
        return self.inputs.noise.named(title, rows)

    def data(self, part: str, title: str) -> Tensor:
        raw = self.inputs.data[part]["x"]
        return observe(self.spaces["x"], raw, self.noise(f"{title}/x")).read("sample")

    def one_hot(self, y: int) -> Tensor:
        return F.one_hot(torch.full((ROWS,), y), CLASSES).double()

    def normal(self, title: str) -> Tensor:
        """(ROWS, CLASSES, 2) numbers of a code that is drawn for every label."""
        return self.noise(title, ROWS * CLASSES).normal(2).view(ROWS, CLASSES, 2)


def gaussian(law: Any, eps: Tensor) -> tuple[Tensor, Tensor]:
    """A draw and its log-density."""
    log_scale = law.log_scale.expand_as(law.mean)
    return law.mean + log_scale.exp() * eps, (-0.5 * eps**2 - log_scale - 0.5 * LOG_2PI).sum(1)


def standard(z: Tensor) -> Tensor:
    return (-0.5 * z**2 - 0.5 * LOG_2PI).sum(1)


def m2_objective(hand: Hand) -> Tensor:
    """E_u[sum_y q(y|x) (L(x,y) - log q(y|x))] + w E_l[L] + alpha E_l[log q(y|x)] (Kingma et al. 2014, eqs 6 to 9)."""
    m = hand.modules

    def bound(x: Tensor, label: Tensor, eps: Tensor) -> Tensor:
        z, log_q = gaussian(m["encoder"](x, label), eps)
        return m["decoder"](label, z).log_prob(x) - math.log(CLASSES) + standard(z) - log_q

    x = hand.data("data", "q(x)")
    log_q = m["classifier"](x).logits.log_softmax(1)
    eps = hand.normal("q(z|x,y) sum y")
    terms = [log_q[:, y].exp() * (bound(x, hand.one_hot(y), eps[:, y]) - log_q[:, y]) for y in range(CLASSES)]
    x_l = hand.data("labelled", "l(x,y)")
    label = F.one_hot(hand.inputs.data["labelled"]["y"], CLASSES).double()
    labelled = bound(x_l, label, hand.noise("l(z|x,y)").normal(2)).mean()
    supervised = (label * m["classifier"](x_l).logits.log_softmax(1)).sum(1).mean()
    return sum(terms).mean() + 0.1 * labelled + 20.0 * supervised


def ssasvae_objective(hand: Hand) -> Tensor:
    """M2's, and E_p[v log q(z|stop(x),y) + v log q(y|stop(x)) - lambda d(x)]."""
    m = hand.modules
    label = m["label"](ROWS).draw(hand.noise("p(y)")).read("sample")
    z = hand.noise("p(z)").normal(2)
    draw = m["decoder"](label, z).draw(hand.noise("p(x|y,z)"))
    x = draw.read("sample").detach()
    log_q_z = m["encoder"](x, label).log_prob(z)
    log_q_y = (label * m["classifier"](x).logits.log_softmax(1)).sum(1)
    v, lambda_ = 0.1, 0.5 * 0.8  # v has risen at half of the run; r rises over all of it, and the scale here is 1
    generated = v * log_q_z + v * log_q_y - lambda_ * m["d"](draw.read("relaxed"))
    return m2_objective(hand) + generated.mean()


def m1m2_objective(hand: Hand) -> Tensor:
    """M2 with a draw of the code a in the place of x."""
    m = hand.modules

    def bound(a: Tensor, label: Tensor, eps: Tensor) -> Tensor:
        z, log_q = gaussian(m["styles"](a, label), eps)
        return m["codes"](label, z).log_prob(a) - math.log(CLASSES) + standard(z) - log_q

    a, _ = gaussian(m["encoder"](hand.data("data", "q(x)")), hand.noise("q(a|x)").normal(2))
    a_l, _ = gaussian(m["encoder"](hand.data("labelled", "l(x,y)")), hand.noise("l(a|x)").normal(2))
    log_q = m["classifier"](a).logits.log_softmax(1)
    eps = hand.normal("q(z|a,y) sum y")
    terms = [log_q[:, y].exp() * (bound(a, hand.one_hot(y), eps[:, y]) - log_q[:, y]) for y in range(CLASSES)]
    label = F.one_hot(hand.inputs.data["labelled"]["y"], CLASSES).double()
    labelled = bound(a_l, label, hand.noise("l(z|a,y)").normal(2)).mean()
    supervised = (label * m["classifier"](a_l).logits.log_softmax(1)).sum(1).mean()
    return sum(terms).mean() + 0.1 * labelled + 20.0 * supervised


def categorical_objective(hand: Hand) -> Tensor:
    """E[log p(x|a,b,c,d)] - four KL(q(a|x) : 1/16), with straight-through draws."""
    m, x = hand.modules, hand.data("data", "q(x)")
    codes, total = [], torch.zeros(ROWS, dtype=torch.float64)
    for name in "abcd":
        law = m[f"e{name}"](x)
        codes.append(law.draw(hand.noise(f"q({name}|x)")).read("sample"))
        probabilities = law.logits.softmax(1)
        total = total - (probabilities * (probabilities.log() + math.log(16))).sum(1)
    return (m["decoder"](*codes).log_prob(x) + total).mean()


NORMAL = {"prior": {"type": "normal", "size": 2}}
CASES: dict[str, tuple[Callable[[Hand], Tensor], dict[str, Any], tuple[str, ...]]] = {
    "paper/m2_mnist": (
        m2_objective,
        NORMAL | {"priors": LABEL, "encoders": {"classifier": HEAD}, "discriminator": None},
        ("classifier", "decoder", "encoder"),
    ),
    "paper/ssasvae_mnist": (
        ssasvae_objective,
        NORMAL | {"priors": LABEL, "encoders": {"classifier": HEAD}},
        ("classifier", "decoder", "encoder"),
    ),
    "paper/m1m2_mnist": (
        m1m2_objective,
        {
            **NORMAL,
            "priors": LABEL | {"style": {"type": "normal", "size": 2}},
            "encoders": {"classifier": HEAD, "styles": GAUSSIAN},
            "decoders": {"codes": GAUSSIAN},
            "discriminator": None,
        },
        ("classifier", "codes", "styles"),
    ),
    "relatives/categorical_vae_mnist": (
        categorical_objective,
        {
            "sources": {},
            "prior": None,
            "priors": {"codes": {"type": "categorical", "classes": 16}},
            "encoder": None,
            "encoders": {f"e{name}": HEAD for name in "abcd"},
            "discriminator": None,
        },
        ("decoder", "ea", "eb", "ec", "ed"),
    ),
}


@pytest.mark.parametrize("recipe", CASES)
def test_a_recipe_is_its_loss_by_hand(recipe: str) -> None:
    objective, tables, trained = CASES[recipe]
    model = small(recipe, **tables)
    hand = Hand(model)
    wanted = -objective(hand)
    update = model.update()
    assert {*update.plan.trains} == {*trained}
    figures, _ = update.gradient(hand.inputs)
    assert figures["model/loss"].item() == pytest.approx(wanted.item(), rel=1e-10)
    parameters = {n: p for n, p in model.parts.modules.named_parameters() if n.split(".")[0] in trained}
    gradients = torch.autograd.grad(wanted, list(parameters.values()), allow_unused=True)
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        assert gradient is not None and parameter.grad is not None, name
        assert (parameter.grad - gradient).abs().max() < 1e-11 * (1 + gradient.abs().max()), name
    check_ownership(model.plan, model.parts, model.data(ROWS), ROWS)


def test_mix_is_the_payoff_of_every_pair_and_its_regularisers_are_entropies() -> None:
    """sum_ij w_i u_j E f_j(G_i(z)) and -eta/T sum_i log w_i up to a constant (Arora et al. 2017, section 4)."""
    switch = {"type": "switch", "of": {"type": "mlp", "hidden": [5]}}
    equal = {"type": "categorical", "classes": 3}
    learned = equal | {"probabilities": "learned"}
    model = small(
        "paper/mix_wgan_mnist",
        data={"type": "ring"},
        sources={},
        prior={"type": "uniform", "size": 2},
        priors={"generators": learned, "critics_weights": learned, "equal_i": equal, "equal_j": equal},
        encoder=None,
        decoder={"network": {**switch, "on": "i"}, "family": {"type": "implicit", "noise": 0}},
        discriminator={**switch, "on": "j"},
    )
    hand, m, eta = Hand(model), model.parts.modules, 0.1
    real, z = hand.inputs.data["data"]["x"].double(), 2 * hand.noise("p(z)").uniform(2) - 1
    w, u = (m[name].logits.softmax(0) for name in ("generators", "critics_weights"))
    one_hot = torch.eye(3, dtype=torch.float64).unsqueeze(1).expand(3, ROWS, 3)
    fake = [m["decoder"](one_hot[i], z).draw(hand.noise("none")).read("sample") for i in range(3)]
    payoff = sum(w[i] * u[j] * m["f"](one_hot[j], fake[i]).mean() for i in range(3) for j in range(3))
    on_real = sum(u[j] * m["f"](one_hot[j], real).mean() for j in range(3))
    wanted = {
        "model": payoff + eta * (w.log().mean() + math.log(3)),
        "weights": on_real + eta * (u.log().mean() + math.log(3)) - payoff,
    }
    for name, value in wanted.items():
        update = model.update(name)
        figures, _ = update.gradient(hand.inputs)
        assert figures[f"{name}/loss"].item() == pytest.approx(-value.item(), rel=1e-10)
        for part in update.plan.trains:
            parameters = list(m[part].parameters())
            gradients = torch.autograd.grad(-value, parameters, retain_graph=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                assert (parameter.grad - gradient).abs().max() < 1e-11, (name, part)


def test_the_first_stage_of_m1_m2_is_a_vae_of_the_code() -> None:
    _, tables, _ = CASES["paper/m1m2_mnist"]
    model = small("paper/m1m2_mnist", **tables)
    hand = Hand(model)
    x = hand.data("data", "q(x)")
    a, log_q = gaussian(hand.modules["encoder"](x), hand.noise("q(a|x)").normal(2))
    wanted = -(hand.modules["decoder"](a).log_prob(x) + standard(a) - log_q).mean()
    (first,) = model.compiled.plans[0].updates
    loss, _, _ = UpdateRunner(first, model.parts).loss(hand.inputs)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-10) and first.trains == ("encoder", "decoder")


def test_micro_batches_are_the_whole() -> None:
    _, tables, _ = CASES["paper/m2_mnist"]
    model = small("paper/m2_mnist", **tables)
    inputs, update = Hand(model).inputs, model.update()
    update.gradient(inputs)
    whole = {name: p.grad.clone() for name, p in model.parts.modules.named_parameters() if p.grad is not None}
    model.parts.modules.zero_grad(set_to_none=True)
    update.trained.activate()
    for part in inputs.split(2):
        update.add_gradient(part, share=0.5)
    for name, gradient in whole.items():
        found = model.parts.modules.get_parameter(name).grad
        assert (found - gradient).abs().max() < 1e-10, name
