"""Systems whose losses are about values given to networks: cycles, identities, energies, pairs and features.

Each recipe's objective is compiled with tiny networks on digits; loss and gradients must be those of the published
loss, written by hand on the very draws that the update made.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from support.systems import ROWS, Drawn, check_update, small_recipe
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, leaky_relu, logsigmoid, relu

from jointgen.engine.drivers import DrivenState, Drivers


def l1(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).abs().flatten(1).sum(1)


def l2(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().flatten(1).sum(1)


def test_cyclegan() -> None:
    """LSGAN, both cycles, and the identity of each generator at an image of its own domain (Zhu et al. 2017)."""

    def generators(drawn: Drawn) -> Tensor:
        x, z = drawn["q.x"], drawn["p.z"]
        to_z, to_x = (lambda v, part=part: drawn.mean(part, v) for part in ("encoder", "decoder"))
        of_z = (drawn.critic("fx", to_x(z)) - 1).square() + 0.1 * l1(z, to_z(to_x(z))) + 0.05 * l1(z, to_z(z))
        of_x = (drawn.critic("fz", to_z(x)) - 1).square() + 0.1 * l1(x, to_x(to_z(x))) + 0.05 * l1(x, to_x(x))
        return (of_z + of_x).mean()

    check_update(small_recipe("cyclegan_digits"), "model", generators)


def test_alice_with_an_implicit_cycle() -> None:
    """ALI, and a critic h of the pairs (x, x) and (x, x'), whose inputs are in alphabetical order: w, x."""

    def model_side(drawn: Drawn) -> Tensor:
        x, z, code = drawn["q.x"], drawn["p.z"], drawn["q.z"]
        made, rebuilt = drawn.mean("decoder", z), drawn.mean("decoder", encoded(drawn, x, code))
        ali = logsigmoid(-drawn.critic("f", x, encoded(drawn, x, code))) + logsigmoid(drawn.critic("f", made, z))
        return -(ali + logsigmoid(drawn.critic("h", rebuilt, x))).mean()

    def encoded(drawn: Drawn, x: Tensor, code: Tensor) -> Tensor:
        law = drawn.parts["encoder"](x)
        return law.mean + law.scale * ((code - law.mean) / law.scale).detach()

    def critic(drawn: Drawn) -> Tensor:
        x, rebuilt = drawn["q.x"], drawn["c.w"]
        return -(logsigmoid(drawn.critic("h", x, x)) + logsigmoid(-drawn.critic("h", rebuilt, x))).mean()

    model = small_recipe("alice_implicit_mnist")
    check_update(model, "model", model_side)
    without_penalty = model.update("h").plan.summands[:2]
    assert [str(one.term) for one in without_penalty] == ["log s(h)", "log s(-h)"]


def test_ebgan() -> None:
    """max(0, m - D(G(z))) for the autoencoder, which sees G's images as they are; D(G(z)) for the generator."""

    def energy(drawn: Drawn, x: Tensor) -> Tensor:
        return l2(x, drawn.mean("rebuilder", drawn.mean("coder", x)))

    model = small_recipe("ebgan_mnist")

    def generator(drawn: Drawn) -> Tensor:
        x = drawn.mean("decoder", drawn["p.z"])
        codes = drawn.mean("coder", x)
        squares = cosine_similarity(codes[:, None], codes[None], dim=2).square()
        apart = (squares.sum() - squares.trace()) / (len(x) * (len(x) - 1))
        return energy(drawn, x).mean() + 0.1 * apart

    check_update(model, "generator", generator)
    check_update(
        model,
        "autoencoder",
        lambda drawn: (energy(drawn, drawn["q.x"]) + relu(20.0 - energy(drawn, drawn["p.x"]))).mean(),
    )


def test_infogan() -> None:
    """Chen et al. 2016, eq. 6: the generator fools f and is read by both heads, which sit on f's last features."""

    def read_off(drawn: Drawn, x: Tensor) -> Tensor:
        """log q(y|x) + log q(c|x) at the codes that x was drawn with."""
        features = hidden_of(drawn.parts["f"], x)
        logits = drawn.parts["classifier"](features).logits
        mean = drawn.parts["regressor"](features).mean
        of_class = (drawn["p.y"] * logits.log_softmax(1)).sum(1)
        return of_class - ((drawn["p.c"] - mean).square() / 2 + math.log(2 * math.pi) / 2).sum(1)

    def image(drawn: Drawn) -> Tensor:
        return drawn.mean("decoder", drawn["p.y"], drawn["p.c"], drawn["p.z"])

    model = small_recipe("infogan_mnist")
    check_update(
        model,
        "generator",
        lambda drawn: -(logsigmoid(drawn.critic("f", image(drawn))) + read_off(drawn, image(drawn))).mean(),
    )
    check_update(model, "recognition", lambda drawn: -read_off(drawn, image(drawn).detach()).mean())
    (of_f,) = [update for update in model.plan.updates if update.name == "f"]
    assert [str(one.term) for one in of_f.summands[:2]] == ["log s(f)", "log s(-f)"]


def test_acgan() -> None:
    """Odena et al. 2017: L_C on data and on draws trains trunk and head, L_S - L_C the generator."""

    def log_class(drawn: Drawn, x: Tensor, y: Tensor) -> Tensor:
        return (y * drawn.parts["classifier"](hidden_of(drawn.parts["f"], x)).logits.log_softmax(1)).sum(1)

    def made(drawn: Drawn) -> Tensor:
        return drawn.mean("decoder", drawn["p.y"], drawn["p.z"])

    model = small_recipe("acgan_mnist")
    check_update(
        model,
        "generator",
        lambda drawn: (
            -(logsigmoid(drawn.critic("f", made(drawn))) + log_class(drawn, made(drawn), drawn["p.y"])).mean()
        ),
    )
    check_update(
        model,
        "classes",
        lambda drawn: (
            -(
                log_class(drawn, drawn["q.x"], drawn["q.y"]) + log_class(drawn, made(drawn).detach(), drawn["p.y"])
            ).mean()
        ),
    )


def test_bigbigan() -> None:
    """Donahue & Simonyan 2019, eq. 2: three scores; J is on the features of F and H, through which the model learns."""

    def scores(drawn: Drawn, x: Tensor, z: Tensor) -> Tensor:
        of_x, of_z = hidden_of(drawn.parts["sx"], x), hidden_of(drawn.parts["sz"], z)
        return drawn.critic("sx", x) + drawn.critic("sz", z) + drawn.critic("sxz", of_x, of_z)

    def model_side(drawn: Drawn) -> Tensor:
        x, z = drawn["q.x"], drawn["p.z"]
        return (scores(drawn, x, drawn.mean("encoder", x)) - scores(drawn, drawn.mean("decoder", z), z)).mean()

    def joint_critic(drawn: Drawn) -> Tensor:
        def of(x: Tensor, z: Tensor) -> Tensor:
            seen = (hidden_of(drawn.parts["sx"], x).detach(), hidden_of(drawn.parts["sz"], z).detach())
            return drawn.critic("sxz", *seen)

        q, p = of(drawn["q.x"], drawn["q.z"]), of(drawn["p.x"], drawn["p.z"])
        return (relu(1 - q) + relu(1 + p)).mean()

    model = small_recipe("bigbigan_mnist")
    check_update(model, "model", model_side)
    check_update(model, "sxz", joint_critic)


def test_vae_gan() -> None:
    """Larsen et al. 2016, algorithm 1: the error is in a layer of the critic and trains encoder and decoder."""
    wanted = "f = log-ratio q(x) : 0.5 p(x) + 0.5 r(x)"
    model = small_recipe("vaegan_mnist", discriminator={"type": "mlp", "hidden": [5, 4]})
    assert model.plan.objective.ratios["f"].definition == wanted

    def error(drawn: Drawn, z: Tensor) -> Tensor:
        x, critic = drawn["q.x"], drawn.parts["f"]
        return l2(hidden_of(critic, x), hidden_of(critic, drawn.mean("decoder", z)))

    def encoder(drawn: Drawn) -> Tensor:
        law = drawn.parts["encoder"](drawn["q.x"])
        eps = ((drawn["q.z"] - law.mean) / law.scale).detach()
        rate = (law.scale.square() + law.mean.square() - 1 - 2 * law.scale.log()).sum(1) / 2
        return (0.5 * error(drawn, law.mean + law.scale * eps) + rate).mean()

    def decoder(drawn: Drawn) -> Tensor:
        fooled = [logsigmoid(drawn.critic("f", drawn.mean("decoder", drawn[z]))) for z in ("p.z", "r.z")]
        return (0.1 * error(drawn, drawn["q.z"]) - 0.5 * fooled[0] - 0.5 * fooled[1]).mean()

    check_update(model, "encoder", encoder)
    check_update(model, "decoder", decoder)


def test_vae_gans_margins() -> None:
    """The critic makes way where either loss is below 0.33, the decoder above 1.03, neither where both would."""
    model = small_recipe("vaegan_mnist")
    for real, of_p, of_r, pausing in (
        (0.7, 0.7, 0.7, None),
        (0.3, 0.7, 0.7, "f"),
        (0.7, 0.3, 0.3, "f"),
        (0.7, 0.2, 0.5, None),  # 0.35 in the mean
        (1.1, 0.7, 0.7, "decoder"),
        (0.7, 1.5, 0.7, "decoder"),
        (0.3, 1.1, 1.1, None),
    ):
        state = DrivenState()
        labels = ("E[q(x)] log s(f)", "E[p(x)] log s(-f)", "E[r(x)] log s(-f)")
        state.figures = {
            f"f/{label}": torch.tensor(-loss) for label, loss in zip(labels, (real, of_p, of_r), strict=True)
        }
        due = Drivers(model.plan, state).due(model.inputs(ROWS))
        assert due == {"encoder": True, "decoder": pausing != "decoder", "f": pausing != "f"}


def hidden_of(critic: Any, x: Tensor) -> Tensor:
    """The last activations of a critic of one variable, layer by layer, with leaky ReLUs of slope 0.2."""
    (centred,) = critic.centre(x)
    h = critic.first(centred.flatten(1))
    for layer in list(critic.rest)[:-1]:
        h = leaky_relu(h, 0.2) if not isinstance(layer, nn.Linear) else layer(h)
    return h
