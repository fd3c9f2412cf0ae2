"""Image GANs and autoencoders as their recipes write them, against their losses written by hand in plain torch.

Each recipe's objective is compiled with tiny networks on the bundled digits. The same networks are then called by hand
on the very draws that the update made, the published loss is written out with torch's functions, and loss and gradient
of every parameter must agree: a sign, a side or a missing stop changes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import attrs
import pytest
import torch
from support.models import SmallModel
from support.paths import SHIPPED
from torch import Tensor
from torch.func import grad
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.compiler.nodes import RootNode, SampleNode
from jointgen.config.recipe import read_recipe
from jointgen.config.toml import load_tables
from jointgen.data.step_inputs import StepInputs
from jointgen.registry.discovery import load_plugins

MLP = {"type": "mlp", "hidden": [5], "activation": "tanh"}
ROWS = 8
DRIVEN = 0.3
"""The value of weights that figures drive."""


@attrs.frozen
class Drawn:
    """What an update drew, and the networks that it ran.

    Args:
        values: Each draw, (B, ...), by the joint and the variable: "q.x".
        parts: The conditionals, which return a law, and the critic.
        inputs: The inputs of the step.
    """

    values: Mapping[str, Tensor]
    parts: Mapping[str, Any]
    inputs: StepInputs

    def __getitem__(self, name: str) -> Tensor:
        return self.values[name]

    def f(self, *values: Tensor) -> Tensor:
        found: Tensor = self.parts["f"](*values)
        return found

    def image(self, *given: Tensor) -> Tensor:
        """What a deterministic decoder makes."""
        found: Tensor = self.parts["decoder"](*given).mean
        return found

    def code(self, *given: Tensor) -> Tensor:
        """What a deterministic encoder makes."""
        found: Tensor = self.parts["encoder"](*given).mean
        return found

    def bits(self, x: Tensor, *given: Tensor) -> Tensor:
        """log p(x|z) of a Bernoulli decoder, (B,)."""
        logits = self.parts["decoder"](*given).logits
        return -binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)


def of_recipe(name: str) -> SmallModel:
    """A recipe's objective and families with tiny networks on digits, in float64."""
    tables = load_tables(next(SHIPPED.rglob(f"{name}.toml")))
    kept = {key: value for key, value in tables["data"].items() if key in ("observe", "labels")}
    prior = {**tables["prior"], "size": 3} | ({"components": 4} if tables["prior"]["type"] == "vamp" else {})
    critic = tables.get("discriminator", {})
    small = {
        "format": 1,
        "data": {"type": "digits", **kept},
        "prior": prior,
        "encoder": {"network": MLP, "family": tables["encoder"]["family"]},
        "decoder": {"network": MLP, "family": tables["decoder"]["family"]},
        **{kind: _small(tables[kind]) for kind in ("encoders", "decoders") if kind in tables},
        **({"latents": dict.fromkeys(tables["latents"], 2)} if "latents" in tables else {}),
        "discriminator": {"type": "mlp", "hidden": [5], "spectral_norm": critic.get("spectral_norm", False)},
        "objective": tables["objective"],
        "train": {"steps": 1, "batch": ROWS, "pair_block": 4},
    }
    registry = load_plugins().registry
    return SmallModel(compile_recipe(read_recipe(small, registry=registry), registry)).double()


def _small(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"network": MLP, "family": table["family"]} for name, table in parts.items()}


def check(model: SmallModel, update: str, by_hand: Callable[[Drawn], Tensor]) -> None:
    """Compare loss and gradients of an update with those of a loss written by hand."""
    driven = {
        name: torch.tensor(DRIVEN, dtype=torch.float64) for name, w in model.plan.objective.weights.items() if w.control
    }
    runner, inputs = model.update(update), model.inputs(ROWS, progress=0.05, scales=driven)
    modules = model.parts.modules
    modules.zero_grad()
    figures, values = runner.gradient(inputs)
    found = {name: p.grad.clone() for name, p in modules.named_parameters() if p.grad is not None}
    drawn = {}
    for node in runner.plan.nodes:
        if isinstance(node, RootNode | SampleNode):
            for variable, draw in values[runner.program.index[node]].items():
                owner = node.joint if isinstance(node, RootNode) else node.title.split("(")[0]
                drawn[f"{owner}.{variable}"] = draw.read("sample").detach()
    loss = by_hand(Drawn(drawn, dict(modules.items()), inputs))
    trained = {name: p for name, p in modules.named_parameters() if name.split(".")[0] in runner.plan.trains}
    assert set(found) == set(trained)  # no other part takes a gradient
    wanted = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
    torch.testing.assert_close(figures[f"{update}/loss"], loss.detach(), rtol=1e-9, atol=1e-9)
    for (name, parameter), gradient in zip(trained.items(), wanted, strict=True):
        expected = torch.zeros_like(parameter) if gradient is None else gradient
        torch.testing.assert_close(
            found[name], expected, rtol=1e-8, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}"
        )
    assert any(gradient is not None and bool(gradient.abs().max() > 1e-6) for gradient in wanted)


def r1(critic: Callable[..., Tensor], *at: Tensor) -> Tensor:
    """1/2 |grad f|^2 over all inputs, the mean over rows (Mescheder et al. 2018, eq. 9)."""
    slopes = grad(lambda *values: critic(*values).sum(), argnums=tuple(range(len(at))))(*at)
    return 0.5 * sum(slope.flatten(1).square().sum(1) for slope in slopes).mean()


def log_normal(z: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    return -(0.5 * ((z - mean) / scale).square() + scale.log() + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


# --- the published losses --------------------------------------------------------------------------------------------


def gan_decoder(d: Drawn) -> Tensor:
    """Goodfellow et al. 2014, section 3: the generator maximises log D(G(z))."""
    return -logsigmoid(d.f(d.image(d["p.z"]))).mean()


def gan_critic(d: Drawn) -> Tensor:
    """Their eq. 1, with the recipe's penalty at data."""
    fake = d.image(d["p.z"]).detach()
    return softplus(-d.f(d["q.x"])).mean() + softplus(d.f(fake)).mean() + 0.1 * 4 * r1(d.f, d["q.x"])


def dcgan_critic(d: Drawn) -> Tensor:
    return softplus(-d.f(d["q.x"])).mean() + softplus(d.f(d.image(d["p.z"]).detach())).mean()


def bigan_model(d: Drawn) -> Tensor:
    """Donahue et al. 2017, eq. 3, with the labels swapped as in their section 3.1; f = log q(x,z)/p(x,z)."""
    return -(logsigmoid(-d.f(d["q.x"], d.code(d["q.x"]))) + logsigmoid(d.f(d.image(d["p.z"]), d["p.z"]))).mean()


def bigan_critic(d: Drawn) -> Tensor:
    x, z, fake, code = d["q.x"], d["p.z"], d.image(d["p.z"]).detach(), d.code(d["q.x"]).detach()
    return (softplus(-d.f(x, code)) + softplus(d.f(fake, z))).mean() + 0.1 * 4 * r1(d.f, x, code)


def aae_autoencoder(d: Drawn) -> Tensor:
    """Makhzani et al. 2015, section 2: the reconstruction phase."""
    return -d.bits(d["q.x"], d.code(d["q.x"])).mean()


def aae_encoder(d: Drawn) -> Tensor:
    """The encoder's codes pass for draws of the prior: f = log q(z)/p(z) is to be low."""
    return softplus(d.f(d.code(d["q.x"]))).mean()


def aae_critic(d: Drawn) -> Tensor:
    return softplus(-d.f(d.code(d["q.x"]).detach())).mean() + softplus(d.f(d["p.z"])).mean()


def wasserstein_decoder(d: Drawn) -> Tensor:
    """Gulrajani et al. 2017, algorithm 1, line 12."""
    return -d.f(d.image(d["p.z"])).mean()


def wgan_gp_critic(d: Drawn) -> Tensor:
    """Its eq. 3: f(fake) - f(real), and 10 (|grad f| - 1)^2 evenly between the two."""
    x, fake = d["q.x"], d.image(d["p.z"]).detach()
    share = d.inputs.noise.named("GradientPenalty(f)", ROWS).uniform()[:, None, None, None]
    between = share * x + (1 - share) * fake
    slope = grad(lambda v: d.f(v).sum())(between).flatten(1).norm(dim=1)
    return (d.f(fake) - d.f(x)).mean() + 10 * (slope - 1).square().mean()


def hinge_critic(d: Drawn) -> Tensor:
    """Miyato et al. 2018, eq. 16: -E min(0, f(x) - 1) - E min(0, -f(fake) - 1)."""
    return (1 - d.f(d["q.x"])).relu().mean() + (1 + d.f(d.image(d["p.z"]).detach())).relu().mean()


def cgan_decoder(d: Drawn) -> Tensor:
    """Mirza & Osindero 2014, eq. 2, non-saturating: the critic sees the label that the image was made for."""
    label = d["p.y"]
    return -logsigmoid(d.f(d.image(label, d["p.z"]), label)).mean()


def cgan_critic(d: Drawn) -> Tensor:
    label = d["p.y"]
    fake = d.image(label, d["p.z"]).detach()
    real = (d["q.x"], d["q.y"])
    return softplus(-d.f(*real)).mean() + softplus(d.f(fake, label)).mean() + 0.1 * 4 * r1(d.f, *real)


def posterior(d: Drawn, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The mean, the scale and the reparameterised draw of a Gaussian encoder, whose noise is read off its draw."""
    law = d.parts["encoder"](*given)
    mean, scale = law.mean, law.log_scale.exp()
    noise = ((d["q.z"] - mean) / scale).detach()
    return mean, scale, mean + scale * noise


def cvae(d: Drawn) -> Tensor:
    """Sohn et al. 2015, eq. 4: -log p(x|y,z) + log q(z|x,y) - log p(z), one draw."""
    x, y = d["q.x"], d["q.y"]
    mean, scale, z = posterior(d, x, y)
    prior = log_normal(z, torch.zeros_like(z), torch.ones_like(z))
    return -(d.bits(x, y, z) + prior - log_normal(z, mean, scale)).mean()


def vampprior(d: Drawn) -> Tensor:
    """Tomczak & Welling 2018, eq. 9, in the middle of the warm-up, where the rate counts half."""
    x = d["q.x"]
    mean, scale, z = posterior(d, x)
    pseudo = d.parts["encoder"](torch.sigmoid(d.parts["prior"].free["x"]))
    each = [log_normal(z, m[None], s[None]) for m, s in zip(pseudo.mean, pseudo.log_scale.exp(), strict=True)]
    prior = torch.stack(each).logsumexp(0) - math.log(len(each))
    return -(d.bits(x, z) + 0.5 * (prior - log_normal(z, mean, scale))).mean()


def wae_gan(d: Drawn) -> Tensor:
    """Tolstikhin et al. 2018, algorithm 1, in the authors' units: 0.05 |x - x'|^2 - log D(code)."""
    x, code = d["q.x"], d.code(d["q.x"])
    distance = (x - d.image(code)).square().flatten(1).sum(1)
    return (0.05 * distance + softplus(d.f(code))).mean()


def rae(d: Drawn) -> Tensor:
    """Ghosh et al. 2020, eq. 11, with beta/2 = 0.05: a constant is in log p(z) that has no gradient."""
    x, code = d["q.x"], d.code(d["q.x"])
    constant = 0.5 * math.log(2 * math.pi) * code.shape[1]
    return (-d.bits(x, code) + 0.05 * code.square().sum(1) + 0.1 * constant).mean()


def lsgan_critic(d: Drawn) -> Tensor:
    """Mao et al. 2017, eq. 9, with a = 0 and b = 1, and both squares whole where the paper halves them."""
    return (d.f(d["q.x"]) - 1).square().mean() + d.f(d.image(d["p.z"]).detach()).square().mean()


def lsgan_decoder(d: Drawn) -> Tensor:
    """Its generator, with c = 1."""
    return (d.f(d.image(d["p.z"])) - 1).square().mean()


def r1gan_critic(d: Drawn) -> Tensor:
    """Mescheder et al. 2018, with the weight 10 of the authors' code on |grad f|^2, which has no half there."""
    fake = d.image(d["p.z"]).detach()
    return softplus(-d.f(d["q.x"])).mean() + softplus(d.f(fake)).mean() + 10 * 2 * r1(d.f, d["q.x"])


def wgan_critic(d: Drawn) -> Tensor:
    """Arjovsky et al. 2017, algorithm 1: the clipping is no part of the loss."""
    return (d.f(d.image(d["p.z"]).detach()) - d.f(d["q.x"])).mean()


def kl_to_standard(law: Any) -> Tensor:
    """KL(N(mean, scale^2) : N(0, 1)) of each row, (B,)."""
    variance = (2 * law.log_scale).exp()
    return (0.5 * (law.mean.square() + variance - 1) - law.log_scale).flatten(1).sum(1)


def beta_vae(d: Drawn) -> Tensor:
    """Higgins et al. 2017, eq. 4, with beta = 4."""
    x = d["q.x"]
    _, _, z = posterior(d, x)
    return -(d.bits(x, z) - 4 * kl_to_standard(d.parts["encoder"](x))).mean()


def capacity_vae(d: Drawn) -> Tensor:
    """Burgess et al. 2018, eq. 8, row by row; C is 25 times the share of the run that is over."""
    x = d["q.x"]
    _, _, z = posterior(d, x)
    return -(d.bits(x, z) - 30 * (kl_to_standard(d.parts["encoder"](x)) - 25 * 0.05).abs()).mean()


def normal_image(x: Tensor, mean: Tensor, scale: float) -> Tensor:
    return log_normal(x, mean, torch.full_like(mean, scale))


def introvae_encoder(d: Drawn) -> Tensor:
    """Huang et al. 2018, eq. 11, without its reconstructions: samples are held, their KL is raised up to the margin."""
    x = d["q.x"]
    _, _, z = posterior(d, x)
    elbo = normal_image(x, d.image(z), 0.3) - kl_to_standard(d.parts["encoder"](x))
    return (-elbo + (60 - kl_to_standard(d.parts["encoder"](d["p.x"]))).relu()).mean()


def introvae_decoder(d: Drawn) -> Tensor:
    """Its eq. 12: the gradient of the KL goes through the sample to the decoder alone."""
    mean = d.image(d["p.z"])
    sample = mean + (d["p.x"] - mean).detach()
    return (-normal_image(d["q.x"], d.image(d["q.z"]), 0.3) + kl_to_standard(d.parts["encoder"](sample))).mean()


def energy(d: Drawn, x: Tensor) -> Tensor:
    """BEGAN's L(x), summed over the pixels, (B,)."""
    return (x - d.parts["rebuilder"](d.parts["coder"](x).mean).mean).abs().flatten(1).sum(1)


def began_critic(d: Drawn) -> Tensor:
    """Berthelot et al. 2017, section 3.3: L(x) - k L(G(z))."""
    return (energy(d, d["q.x"]) - DRIVEN * energy(d, d.image(d["p.z"]).detach())).mean()


def began_decoder(d: Drawn) -> Tensor:
    return energy(d, d.image(d["p.z"])).mean()


def geco(d: Drawn) -> Tensor:
    """Rezende & Viola 2018, eq. 2: KL + lambda (|x - mean|^2 - kappa)."""
    x = d["q.x"]
    _, _, z = posterior(d, x)
    error = (x - d.image(z)).square().flatten(1).sum(1)
    return (kl_to_standard(d.parts["encoder"](x)) + DRIVEN * (error - 20)).mean()


CASES: dict[str, dict[str, Callable[[Drawn], Tensor]]] = {
    "gan_mnist": {"model": gan_decoder, "f": gan_critic},
    "dcgan_cifar10": {"model": gan_decoder, "f": dcgan_critic},
    "bigan_mnist": {"model": bigan_model, "f": bigan_critic},
    "aae_mnist": {"autoencoder": aae_autoencoder, "encoder": aae_encoder, "f": aae_critic},
    "wgan_gp_cifar10": {"model": wasserstein_decoder, "f": wgan_gp_critic},
    "hinge_sn_cifar10": {"model": wasserstein_decoder, "f": hinge_critic},
    "cgan_mnist": {"model": cgan_decoder, "f": cgan_critic},
    "cvae_mnist": {"model": cvae},
    "wae_gan_mnist": {"model": wae_gan, "f": aae_critic},
    "rae_mnist": {"model": rae},
    "vampprior_mnist": {"model": vampprior},
    "wgan_mnist": {"model": wasserstein_decoder, "f": wgan_critic},
    "lsgan_mnist": {"model": lsgan_decoder, "f": lsgan_critic},
    "r1gan_mnist": {"model": gan_decoder, "f": r1gan_critic},
    "beta_vae_mnist": {"model": beta_vae},
    "capacity_vae_mnist": {"model": capacity_vae},
    "introvae_mnist": {"encoder": introvae_encoder, "decoder": introvae_decoder},
    "began_mnist": {"autoencoder": began_critic, "generator": began_decoder},
    "geco_mnist": {"model": geco},
}


@pytest.mark.parametrize("recipe", CASES)
def test_every_update_is_the_published_loss(recipe: str) -> None:
    model = of_recipe(recipe)
    assert {update.name for update in model.plan.updates} == set(CASES[recipe])
    for update, by_hand in CASES[recipe].items():
        check(model, update, by_hand)
