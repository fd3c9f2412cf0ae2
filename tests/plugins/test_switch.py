"""The switch network: each row runs the copy of its class, whichever way it is computed."""

from __future__ import annotations

import pytest
import torch
from jointgen_nets.mlp import MLP, MLPDiscriminator
from jointgen_nets.switch import SwitchDecoder, SwitchDiscriminator
from torch.nn import functional as F

from jointgen.contracts.space import Space
from jointgen.errors import ConfigError

torch.set_num_threads(1)

SPACES = {"i": Space((3,), "label"), "z": Space((2,))}


def test_each_row_runs_the_copy_of_its_class_and_only_that_copy_learns_from_it() -> None:
    net = SwitchDecoder("i", MLP(hidden=[4])).build(SPACES, (5,)).double()
    z = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classes = torch.tensor([2, 0, 2, 2, 0, 2])  # class 1 has no row
    label = F.one_hot(classes, 3).double()
    wanted = torch.stack([net.copies[c](z[row : row + 1])[0] for row, c in enumerate(classes.tolist())])
    assert (net(label, z) - wanted).abs().max() < 1e-12
    dense = net(label.clone().requires_grad_(), z)  # every copy on every row
    assert (dense - wanted).abs().max() < 1e-12
    assert len({tuple(copy(z[:1])[0].tolist()) for copy in net.copies}) == 3
    net(label, z).sum().backward()
    assert all(p.grad is None for p in net.copies[1].parameters())
    assert all(p.grad is not None for p in net.copies[2].parameters())


def test_a_soft_label_mixes_outputs_and_takes_a_gradient() -> None:
    net = SwitchDecoder("i", MLP(hidden=[4])).build(SPACES, (5,)).double()
    z, soft = torch.ones(1, 2).double(), torch.tensor([[0.5, 0.5, 0.0]]).double()
    wanted = 0.5 * net.copies[0](z) + 0.5 * net.copies[1](z)
    assert (net(soft, z) - wanted).abs().max() < 1e-12
    soft.requires_grad_()
    (slope,) = torch.autograd.grad(net(soft, z).sum(), soft)
    assert slope[0].tolist() == pytest.approx([copy(z).sum().item() for copy in net.copies])


@pytest.mark.parametrize(
    ("on", "spaces", "said"),
    [
        ("j", SPACES, "on: 'j' is no input of this network; did you mean 'i'?"),
        ("z", SPACES, "on: a switch turns on a label, z is 2 real"),
        ("i", {"i": SPACES["i"]}, "on: 'i' is the only input, so the copies would see nothing"),
    ],
)
def test_mistakes(on: str, spaces: dict[str, Space], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        SwitchDiscriminator(on, MLPDiscriminator(hidden=[4])).build(spaces)
    assert said.split(";")[0] in str(raised.value)
