"""The loops that jointgen's step is measured against: plain PyTorch, written by hand for one model.

`BareVAE`, `BarePlanarVAE`, `BareASVAE` and `BareALI` train the networks of a recipe, rebuilt here from torch's own
layers with the recipe's starting weights. They have what such loops have: images kept as uint8 and indexed by a
permutation, torch's global generator, an Adam for each player, the recipe's learning rate, one backward pass for each
player, the critic frozen while it is only looked at, samples detached where they are only looked at, a running mean of
the losses that is read off now and then, and if wanted an average of the weights. They have no logged parts of the
loss, no gradient norm, no named noise, and no choice of anything.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from jointgen_families.flows.planar import CONTEXT_SCALE, PlanarTransform
from jointgen_nets.conv import ConvDecoder, ConvDiscriminator, ConvEncoder
from jointgen_nets.mlp import MLP, MLPDiscriminator
from torch import Tensor, nn
from torch.nn import functional as F

from jointgen.compiler.parts import Parts
from jointgen.config.recipe import Recipe

LOG_2PI = math.log(2 * math.pi)


class Generator:
    """Draws from torch's global generator."""

    def normal(self, *shape: int, device: torch.device) -> Tensor:
        return torch.randn(shape, device=device)

    def uniform(self, *shape: int, device: torch.device) -> Tensor:
        return torch.rand(shape, device=device)


class Replay(Generator):
    """Replays recorded numbers in their order, so that two loops can be compared."""

    def __init__(self, drawn: Iterable[tuple[str, Tensor]]):
        self.left: dict[tuple[str, torch.Size], deque[Tensor]] = {}
        for kind, numbers in drawn:
            self.left.setdefault((kind, numbers.shape), deque()).append(numbers)

    def normal(self, *shape: int, device: torch.device) -> Tensor:
        return self.left["normal", torch.Size(shape)].popleft().to(device)

    def uniform(self, *shape: int, device: torch.device) -> Tensor:
        return self.left["uniform", torch.Size(shape)].popleft().to(device)


# --- networks --------------------------------------------------------------------------------------------------------


def mlp(config: MLP, inputs: int, outputs: int) -> nn.Sequential:
    assert config.activation == "relu" and not config.dropout
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise([inputs, *config.hidden]):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear([inputs, *config.hidden][-1], outputs))


def conv_down(widths: list[int], shape: tuple[int, ...], activation: nn.Module, tail: list[nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise([shape[0], *widths]):
        layers += [nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1), activation]
    return nn.Sequential(*layers, nn.Flatten(), *tail)


def flat_size(widths: list[int], shape: tuple[int, ...]) -> int:
    return widths[-1] * math.prod(side >> len(widths) for side in shape[1:])


def conv_encoder(config: ConvEncoder, shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    assert config.activation == "silu" and config.norm == "none" and not config.dropout
    return conv_down(config.widths, shape, nn.SiLU(), [nn.Linear(flat_size(config.widths, shape), outputs)])


def conv_decoder(config: ConvDecoder, inputs: int, shape: tuple[int, ...]) -> nn.Sequential:
    assert (config.activation, config.norm, config.upsample) == ("silu", "none", "nearest") and not config.dropout
    start = (config.widths[0], *(side >> len(config.widths) for side in shape[1:]))
    layers: list[nn.Module] = [nn.Linear(inputs, math.prod(start)), nn.Unflatten(1, start)]
    for before, after in pairwise([*config.widths, shape[0]]):
        layers += [nn.SiLU(), nn.Upsample(scale_factor=2), nn.Conv2d(before, after, kernel_size=3, padding=1)]
    return nn.Sequential(*layers)


def conv_critic(config: ConvDiscriminator, shape: tuple[int, ...]) -> nn.Sequential:
    assert not config.dropout and not config.spectral_norm
    hidden = nn.Linear(flat_size(config.widths, shape), config.features)
    tail = [hidden, nn.LeakyReLU(0.2), nn.Linear(config.features, 1)]
    return conv_down(config.widths, shape, nn.LeakyReLU(0.2), tail)


class PairCritic(nn.Module):
    """A fully connected critic of (x, z), in which z enters the first hidden layer."""

    def __init__(self, config: MLPDiscriminator, x: int, z: int):
        super().__init__()
        assert not config.dropout and not config.spectral_norm
        self.of_x, self.of_z = nn.Linear(x, config.hidden[0]), nn.Linear(z, config.hidden[0], bias=False)
        layers: list[nn.Module] = []
        for before, after in pairwise([*config.hidden, 1]):
            layers += [nn.LeakyReLU(0.2), nn.Linear(before, after)]
        self.rest = nn.Sequential(*layers)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.rest(self.of_x(x.flatten(1)) + self.of_z(z))  # type: ignore[no-any-return]


def starting_at(network: nn.Module, theirs: nn.Module) -> nn.Module:
    """Copy the weights of another network that has the same layers in the same order."""
    pairs = zip(network.parameters(), theirs.parameters(), strict=True)
    with torch.no_grad():
        for copy, other in pairs:
            copy.copy_(other)
    return network


# --- the VAE ---------------------------------------------------------------------------------------------------------


class BareVAE:
    """-E_q [log p(x|z) + log p(z) - log q(z|x)], Bernoulli bits or a Gaussian with a scale per channel."""

    def __init__(self, recipe: Recipe, parts: Parts, images: Tensor, adam: dict[str, bool], *, ema: float | None):
        """adam: whether it is fused or foreach."""
        self.device = next(parts.modules.parameters()).device
        self.recipe, self.images, self.adam, self.ema = recipe, images.to(self.device), adam, ema
        self.shape, self.size = tuple(images.shape[1:]), math.prod(parts.spaces["z"].shape)
        self.bits = parts.spaces["x"].kind == "binary"
        self.flip = bool(getattr(recipe.data, "flip", False))
        self.pairs: list[tuple[nn.Parameter, nn.Parameter]] = []
        theirs: Any = parts.modules
        self.encoder = self._network("encoder", theirs)
        self.decoder = self._network("decoder", theirs)
        self.offset_z = self._own(self.gaussian(theirs["encoder"].family).offset)
        self.offset_x = self._own(theirs["decoder"].family.offset)
        family = theirs["decoder"].family
        self.log_scale = self._own(family.log_scale) if hasattr(family, "log_scale") else None
        self.params = [copy for copy, _ in self.pairs]
        self.optimizer = self._adam(self.params, recipe.optimizer.model)
        self.average = [p.detach().clone() for p in self.params] if ema else []
        self.generator, self.order, self.at, self.done = Generator(), torch.empty(0, dtype=torch.long), 0, 0
        self.running = torch.zeros((), device=self.device)

    def _network(self, name: str, theirs: Any) -> nn.Module:
        config, trunk = self.recipe.all_conditionals()[name].network, theirs[name].trunk
        x, z = self.shape, self.size
        if isinstance(config, MLP):
            made = mlp(config, math.prod(x), self.code_outputs()) if name == "encoder" else mlp(config, z, math.prod(x))
        else:
            made = conv_encoder(config, x, self.code_outputs()) if name == "encoder" else conv_decoder(config, z, x)
        return self._started(made, trunk)

    def code_outputs(self) -> int:
        """How many numbers the encoder's network puts out."""
        return 2 * self.size

    def gaussian(self, family: Any) -> Any:
        """The module of the encoder's Gaussian."""
        return family

    def _started(self, network: nn.Module, theirs: nn.Module) -> nn.Module:
        network = starting_at(network.to(self.device), theirs)
        self.pairs += zip(network.parameters(), theirs.parameters(), strict=True)
        return network

    def _own(self, theirs: nn.Parameter) -> nn.Parameter:
        copy = nn.Parameter(theirs.detach().clone())
        self.pairs.append((copy, theirs))
        return copy

    def _adam(self, params: list[nn.Parameter], settings: Any) -> torch.optim.Adam:
        return torch.optim.Adam(params, settings.lr, settings.betas, settings.eps, **self.adam)

    # --- a step

    def step(self, rows: Tensor | None = None) -> None:
        x = self.batch(self.rows() if rows is None else rows)
        loss = self.loss(x)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.finish(loss)

    def rows(self) -> Tensor:
        batch = self.recipe.train.batch
        if self.at + batch > len(self.order):
            self.order, self.at = torch.randperm(len(self.images)), 0
        self.at += batch
        return self.order[self.at - batch : self.at]

    def batch(self, rows: Tensor) -> Tensor:
        """(B, C, H, W): bits with the grey levels as probabilities, or dequantised on [0, 1)."""
        x = self.images[rows.to(self.device)]
        if self.flip:
            heads = self.generator.uniform(len(x), device=self.device) < 0.5
            x = torch.where(heads.view(-1, 1, 1, 1), x.flip(-1), x)
        u = self.generator.uniform(*x.shape, device=self.device)
        return (u < x.float() / 255).float() if self.bits else (x.float() + u) / 256

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_scale = self.encoder(2 * x - 1).chunk(2, 1)
        return mean + self.offset_z, log_scale.clamp(-6, 3)

    def decode(self, z: Tensor) -> Tensor:
        """(B, C, H, W): logits of bits, or means."""
        out = self.decoder(z).view(-1, *self.shape) + self.offset_x
        return out if self.bits else torch.sigmoid(out)

    def loss(self, x: Tensor) -> Tensor:
        mean, log_scale = self.encode(x)
        eps = self.generator.normal(*mean.shape, device=self.device)
        z = mean + log_scale.exp() * eps
        log_ratio = (0.5 * (eps.square() - z.square()) + log_scale).sum()  # log p(z) - log q(z|x), z its own draw
        return (self.reconstruction(self.decode(z), x) - log_ratio) / len(x)

    def reconstruction(self, out: Tensor, x: Tensor) -> Tensor:
        """-log p(x|z), nats, summed over the batch."""
        if self.log_scale is None:
            return F.binary_cross_entropy_with_logits(out, x, reduction="sum")
        log_scale = self.log_scale.clamp(-6, 3)
        squares = ((x - out) * torch.exp(-log_scale)).square()
        return (0.5 * squares + log_scale).sum() + 0.5 * LOG_2PI * x.numel()

    @torch.no_grad()
    def finish(self, loss: Tensor) -> None:
        self.running += loss.detach()
        if self.ema:
            decay = min(self.ema, (1 + self.done) / (10 + self.done))
            torch._foreach_lerp_(self.average, self.params, 1 - decay)
        self.done += 1

    def read(self) -> float:
        """Return the running mean of the loss, and reset it."""
        value, self.running = self.running.item(), torch.zeros_like(self.running)
        return value


# --- the VAE with a planar flow --------------------------------------------------------------------------------------


class BarePlanarVAE(BareVAE):
    """q(z|x) is a Gaussian sent through K planar layers of each row's own (Rezende & Mohamed 2015), in a plain loop.

    The transform itself is jointgen's, on both sides: benchmarks/flows.py compares it with others.
    """

    def __init__(self, recipe: Recipe, parts: Parts, images: Tensor, adam: dict[str, bool], *, ema: float | None):
        self.length = recipe.all_conditionals()["encoder"].family.length
        super().__init__(recipe, parts, images, adam, ema=ema)

    def _network(self, name: str, theirs: Any) -> nn.Module:
        if name == "encoder":
            flow = theirs["encoder"].family.flow
            self.u, self.w, self.b = (self._own(p) for p in (flow.u, flow.w, flow.b))
        return super()._network(name, theirs)

    def code_outputs(self) -> int:
        return 2 * self.size + self.length * (2 * self.size + 1)

    def gaussian(self, family: Any) -> Any:
        return family.base

    def loss(self, x: Tensor) -> Tensor:
        K, D = self.length, self.size
        base, context = self.encoder(2 * x - 1).split([2 * D, K * (2 * D + 1)], 1)
        mean, log_scale = base.chunk(2, 1)
        mean, log_scale = mean + self.offset_z, log_scale.clamp(-6, 3)
        eps = self.generator.normal(*mean.shape, device=self.device)
        u, w, b = (CONTEXT_SCALE * context).split([K * D, K * D, K], 1)
        flow = PlanarTransform(u.unflatten(1, (K, D)) + self.u, w.unflatten(1, (K, D)) + self.w, b + self.b)
        z, log_det = flow.forward(mean + log_scale.exp() * eps)
        log_ratio = (0.5 * (eps.square() - z.square()) + log_scale).sum() + log_det.sum()
        return (self.reconstruction(self.decode(z), x) - log_ratio) / len(x)


# --- AS-VAE ----------------------------------------------------------------------------------------------------------


class BareASVAE(BareVAE):
    """The decomposed form with the critic d = log p(x)/q(x), which sees both sides with the decoder's noise; R1."""

    def __init__(self, recipe: Recipe, parts: Parts, images: Tensor, adam: dict[str, bool], *, ema: float | None):
        super().__init__(recipe, parts, images, adam, ema=ema)
        self.model = list(self.params)
        self.critic = self._started(conv_critic(recipe.discriminator, self.shape), parts.modules["d"])
        self.params = [copy for copy, _ in self.pairs]
        self.average = [p.detach().clone() for p in self.params] if ema else []
        self.critics = self._adam(list(self.critic.parameters()), recipe.optimizer.critics)
        self.weight, self.w = recipe.objective.lambda_, recipe.objective.w
        (self.r1,) = recipe.objective.critic.penalties

    def step(self, rows: Tensor | None = None) -> None:
        x = self.batch(self.rows() if rows is None else rows)
        self.critic.requires_grad_(False)
        loss, fake = self.model_loss(x)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.critic.requires_grad_(True)
        critic_loss = self.critic_loss(x, fake.detach())
        self.critics.zero_grad()
        critic_loss.backward()
        self.critics.step()
        self.finish(loss)

    def model_loss(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(what the encoder and the decoder minimise, draws of p(x) blurred by the decoder's noise)."""
        loss = self.loss(x)
        z = self.generator.normal(len(x), self.size, device=self.device)
        mean, scale = self.decode(z), self.scale()
        fake = mean + scale.detach() * self.generator.normal(*x.shape, device=self.device)
        mean_z, log_scale = self.encode(fake.detach())
        log_q = -(0.5 * ((z - mean_z) * torch.exp(-log_scale)).square() + log_scale).sum() - 0.5 * LOG_2PI * z.numel()
        return loss - (self.w * log_q - self.weight * self.score(fake).sum()) / len(x), fake

    def critic_loss(self, x: Tensor, fake: Tensor) -> Tensor:
        noise = self.generator.normal(*x.shape, device=self.device)
        is_penalised = self.done % self.r1.every == 0
        real = (x + self.scale().detach() * noise).requires_grad_(is_penalised)
        score = self.score(real)  # one forward pass for the loss and the penalty, as Mescheder et al.'s own code has it
        loss = F.softplus(-self.score(fake)).mean() + F.softplus(score).mean()
        if not is_penalised:
            return loss
        (slope,) = torch.autograd.grad(score.sum(), real, create_graph=True)
        return loss + self.r1.every * 0.5 * self.r1.weight * slope.square().sum() / len(x)

    def score(self, x: Tensor) -> Tensor:
        return self.critic(2 * x - 1).squeeze(1)

    def scale(self) -> Tensor:
        assert self.log_scale is not None
        return self.log_scale.clamp(-6, 3).exp()


# --- ALI -------------------------------------------------------------------------------------------------------------


class BareALI(BareVAE):
    """A critic of (x, z) on q(x) q(z|x) and p(z) p(x|z), swapped labels, both gradients at the same point; R1 at q.

    One forward pass, and a backward pass to the parameters of each player.
    """

    def __init__(self, recipe: Recipe, parts: Parts, images: Tensor, adam: dict[str, bool], *, ema: float | None):
        super().__init__(recipe, parts, images, adam, ema=ema)
        self.model = list(self.params)
        critic = PairCritic(recipe.discriminator, math.prod(self.shape), self.size)
        self.critic = self._started(critic, parts.modules["f"])
        self.critic_params = list(self.critic.parameters())
        self.params = [copy for copy, _ in self.pairs]
        self.average = [p.detach().clone() for p in self.params] if ema else []
        self.critics = self._adam(self.critic_params, recipe.optimizer.critics)
        (self.r1,) = recipe.objective.critic.penalties

    def step(self, rows: Tensor | None = None) -> None:
        x = self.batch(self.rows() if rows is None else rows)
        is_penalised = self.done % self.r1.every == 0
        mean, log_scale = self.encode(x)
        code = mean + log_scale.exp() * self.generator.normal(*mean.shape, device=self.device)
        z = self.generator.normal(len(x), self.size, device=self.device)
        of_q, of_p = self.critic(2 * x - 1, code).squeeze(1), self.critic(2 * self.decode(z) - 1, z).squeeze(1)
        loss = F.softplus(of_q).mean() + F.softplus(-of_p).mean()
        critic_loss = F.softplus(-of_q).mean() + F.softplus(of_p).mean()
        if is_penalised:
            # the slope by x is that of the critic alone, not through the encoder: x enters it a second time there
            slopes = self.slopes(x.detach(), code.detach())
            critic_loss = critic_loss + self.r1.every * 0.5 * self.r1.weight * slopes / len(x)
        self.optimizer.zero_grad()
        self.critics.zero_grad()
        loss.backward(retain_graph=True, inputs=self.model)
        critic_loss.backward(inputs=self.critic_params)
        self.optimizer.step()
        self.critics.step()
        self.finish(loss)

    def slopes(self, x: Tensor, code: Tensor) -> Tensor:
        """The sum over rows of the squared slope of the critic by both of its inputs."""
        seen = x.requires_grad_(), code.requires_grad_()
        found = torch.autograd.grad(self.critic(2 * seen[0] - 1, seen[1]).sum(), seen, create_graph=True)
        return sum(slope.square().sum() for slope in found)  # type: ignore[return-value]
