"""Systems whose losses are about values given to networks: cycles, identities, energies, pairs and features.

Each recipe's objective is compiled with tiny networks on digits; loss and gradients must be those of the published
loss, written by hand on the very draws that the update made.
"""

from __future__ import annotations

from support.systems import Drawn, check_update, small_recipe
from torch import Tensor
from torch.nn.functional import logsigmoid, relu


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
    check_update(model, "generator", lambda drawn: energy(drawn, drawn.mean("decoder", drawn["p.z"])).mean())
    check_update(
        model,
        "autoencoder",
        lambda drawn: (energy(drawn, drawn["q.x"]) + relu(20.0 - energy(drawn, drawn["p.x"]))).mean(),
    )
