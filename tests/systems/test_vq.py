"""VQ-VAE: its loss and gradients by hand, and the prior of equal codes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from jointgen_families.vq import VQ, Codebook, positions, together
from support.models import small_model

from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.engine.gradient_check import check_ownership
from jointgen.errors import ConfigError
from jointgen.objectives import Objective, parse

TEXT = "E[q(x,z)](log p(x|z) - l2(stop(encoded z), code z) - 0.25*l2(encoded z, stop(code z)))"
ENCODER = {"network": {"type": "mlp", "hidden": []}, "family": {"type": "vq", "codes": 5, "dim": 2}}


def model_of(encoder: dict[str, Any] = ENCODER) -> Any:
    return small_model(Objective.of(parse(TEXT)), prior={"type": "codebook", "size": 6}, encoder=encoder).double()


def test_loss_and_gradients_by_hand() -> None:
    """Eq. 3: decoder and, straight-through, encoder by the likelihood; the codebook by the second term alone."""
    model = model_of()
    update, inputs = model.update(), model.inputs(4)
    figures, values = update.gradient(inputs)
    found = {name: p.grad.clone() for name, p in model.parts.modules.named_parameters() if p.grad is not None}
    (x,) = (value for node, value in zip(update.program.nodes, values, strict=True) if node.title == "q.x")
    encoder, decoder = model.parts.modules["encoder"], model.parts.modules["decoder"]
    encoded, book = encoder.trunk(x), encoder.family.book
    vectors = encoded.reshape(4, 3, 2)
    nearest = (vectors[:, :, None] - book).square().sum(3).argmin(2)
    code = book[nearest].reshape(4, 6)
    straight = encoded + (code - encoded).detach()
    loss = -decoder(straight).log_prob(x).mean()
    loss = (
        loss
        + (encoded.detach() - code).square().sum(1).mean()
        + 0.25 * (encoded - code.detach()).square().sum(1).mean()
    )
    assert figures["model/loss"].item() == pytest.approx(loss.item(), abs=1e-10)
    names = list(found)
    wanted = torch.autograd.grad(loss, [dict(model.parts.modules.named_parameters())[name] for name in names])
    for name, gradient in zip(names, wanted, strict=True):
        assert torch.allclose(found[name], gradient, rtol=0, atol=1e-10), name
    assert check_ownership(model.plan, model.parts, model.data(6), 6) == {}


def test_positions_of_vectors_and_of_maps() -> None:
    flat, image = torch.arange(12.0).view(2, 6), torch.arange(24.0).view(2, 3, 2, 2)
    assert positions(flat, 2)[0].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert positions(image, 3)[0].tolist() == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
    for value, dim in ((flat, 2), (image, 3)):
        assert torch.equal(together(positions(value, dim), tuple(value.shape[1:])), value)


def test_the_prior_draws_codes_of_the_encoder() -> None:
    model = model_of()
    book = model.parts.modules["encoder"].family.book
    prior = model.parts.prior("prior", 4000, Noise(0, dtype=torch.float64))
    drawn = positions(prior.draw(Noise(0, dtype=torch.float64).named("z", 4000)).read("sample"), 2)
    number = (drawn[:, :, None] - book).abs().sum(3).argmin(2)
    assert torch.equal(book[number], drawn)
    share = torch.bincount(number.flatten(), minlength=5) / number.numel()
    assert share.tolist() == pytest.approx([0.2] * 5, abs=0.02)


def test_mistakes_are_one_line() -> None:
    with pytest.raises(ConfigError, match=r"4 numbers a code do not divide a variable of shape \[6\]"):
        VQ(dim=4).capabilities(Space((6,)))
    gaussian = {"network": {"type": "mlp", "hidden": []}, "family": {"type": "gaussian"}}
    with pytest.raises(ConfigError, match="'encoder' has no codebook"):
        small_model(
            Objective.of(parse("E[q(x,z)](log p(x|z))")), prior={"type": "codebook", "size": 6}, encoder=gaussian
        )
    assert Codebook(size=[3, 2, 2]).space == Space((3, 2, 2))
