"""The language is not only for x and z: objectives with labels, two data domains, k draws and three players train.

Through `jointgen.run`, from tables, composed in Python or written as text.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from jointgen_data.toys import Ring
from torch import Tensor
from torch.nn import functional as F

import jointgen
from jointgen.errors import ConfigError
from jointgen.objectives import (
    E,
    Objective,
    Update,
    Weight,
    cycle,
    elbo,
    joint_from_text,
    log_ratio,
    log_sigmoid,
    p,
    q,
)

MLP: dict[str, Any] = {"type": "mlp", "hidden": [32]}
GAUSSIAN = {"type": "gaussian", "init_scale": 0.3}
ADAM = {"model": {"lr": 5e-3}, "critics": {"lr": 5e-3}}


def tables(steps: int, **changes: Any) -> dict[str, Any]:
    """A small run on the ring; a table that is None is left out."""
    base: dict[str, Any] = {
        "name": "toy",
        "data": {"type": "ring", "rows": 512},
        "prior": {"type": "normal", "size": 2},
        "encoder": {"network": MLP, "family": GAUSSIAN},
        "decoder": {"network": MLP, "family": GAUSSIAN},
        "discriminator": MLP,
        "objective": {"type": "vae"},
        "optimizer": ADAM,
        "train": {"steps": steps, "batch": 64, "device": "cpu", "log_every": max(1, steps // 10)},
        "eval": {"rows": 128, "samples": 4},
    }
    return {key: value for key, value in {**base, **changes}.items() if value is not None}


def logged(run: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def weights(run: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in run.model.parts.modules.state_dict().items()}


def done(run: Any, steps: int) -> None:
    assert run.summary["status"] == "done"
    assert run.summary["step"] == steps
    assert all(math.isfinite(v) for event in logged(run) for v in event.values() if isinstance(v, float))


# --- k draws ----------------------------------------------------------------------------------------------------------


def test_iwae_trains(tmp_path: Path) -> None:
    """Composed in Python: the bound rises by more than a nat, and the registered objective is the same one."""
    log_w = p.log_x_given_z + p.log_z - q.log_z_given_x
    composed = Objective.of(E(q.xz, log_w, k=5, reduce="logmeanexp"))
    run = jointgen.run(tables(60), objective=composed, out=tmp_path / "composed", quiet=True)
    done(run, 60)
    losses = [event["model/loss"] for event in logged(run) if "model/loss" in event]
    assert losses[-1] < losses[0] - 1
    registered = jointgen.run(tables(60, objective={"type": "iwae", "k": 5}), out=tmp_path / "registered", quiet=True)
    assert all(torch.equal(value, weights(registered)[name]) for name, value in weights(run).items())


# --- labels -----------------------------------------------------------------------------------------------------------

LABELLED = {
    "type": "expression",
    "joints": {"q": "q(x,y) q(z|x,y)", "p": "p(y) p(z) p(x|z,y)"},
    "parts": {"p(y)": "data"},
    "maximize": "E[q(x,y,z)](log p(x|z,y) + log p(z) - log q(z|x,y))",
}


def test_a_labelled_model_trains_and_draws_what_it_is_told(tmp_path: Path) -> None:
    """p(x|z,y) on the ring's eight modes, 0.1 wide and 1.53 apart: draws given y = m lie around mode m."""
    run = jointgen.run(
        tables(250, data={"type": "ring", "rows": 512, "labels": True}, objective=LABELLED),
        out=tmp_path / "run",
        quiet=True,
    )
    done(run, 250)
    y = torch.arange(8).repeat_interleave(50)
    given = {"y": F.one_hot(y, 8)}
    x = run.model.sample(400, given)
    centres = Ring().centres().float()
    assert torch.equal(torch.cdist(x, centres).argmin(1), y)
    assert (x - centres[y]).norm(dim=1).mean() < 0.3
    with pytest.raises(ConfigError, match=r"p\(y\) is a data root: give its values"):
        run.model.sample(400)
    codes = run.model.encode(x, given)
    assert codes.shape == (400, 2)
    assert run.model.elbo(x, given).shape == (400,)


def test_a_label_of_the_model_is_of_another_row_than_the_datas(tmp_path: Path) -> None:
    """With a draw under p beside the bound: q(x,y) and p(y) read one source, and the run is whole."""
    qq = joint_from_text("q", "q(x,y) q(z|x,y)")
    pp = joint_from_text("p", "p(y) p(z) p(x|z,y)", {"p(y)": "data"})
    f = log_ratio(qq.on("x", "y"), pp.on("x", "y"), name="f")
    objective = Objective.of(elbo(qq, pp) + 0.1 * E(pp.on("x", "y"), log_sigmoid(f)))
    data = {"type": "ring", "rows": 512, "labels": True}
    run = jointgen.run(tables(10, data=data), objective=objective, out=tmp_path / "run", quiet=True)
    done(run, 10)
    assert {"f/loss", "model/loss"} <= set(logged(run)[0])


# --- two data domains -------------------------------------------------------------------------------------------------


def test_two_domains_of_data_learn_to_rebuild_each_other(tmp_path: Path) -> None:
    """q(x) q(b|x) and p(b) p(x|b), b from a source of its own: both critics of DiscoGAN in one, and its two cycles."""
    qq = joint_from_text("q", "q(x) q(b|x)")
    pp = joint_from_text("p", "p(b) p(x|b)", {"p(b)": "moons"})
    f = log_ratio(qq.on("x", "b"), pp.on("x", "b"), name="f")
    game = E(qq.on("x", "b"), log_sigmoid(-f)) + E(pp.on("x", "b"), log_sigmoid(f))
    loops = E(qq.on("x", "b"), cycle(pp, "x|b", distance="l2")) + E(pp.on("x", "b"), cycle(qq, "b|x", distance="l2"))
    objective = Objective.of(game - Weight("c", 3.0) * loops, order="same point")
    run = jointgen.run(
        tables(120, prior=None, sources={"moons": {"type": "moons", "rows": 512}}),
        objective=objective,
        out=tmp_path / "run",
        quiet=True,
    )
    done(run, 120)
    events = logged(run)
    for term in ("model/E[q(x,b)] l2(x, mean p(x|b))", "model/E[p(x,b)] l2(b, mean q(b|x))"):
        assert events[-1][term] < 0.5 * events[0][term]
    x = Ring(rows=256).open("test").take(torch.arange(256))["x"]
    b = run.model.draw("q", {"x": x}, 256, run.model.noise(0, "there"), "mean")["b"]
    back = run.model.draw("p", {"b": b}, 256, run.model.noise(0, "back"), "mean")["x"]
    assert (x - back).square().sum(1).mean() < 0.5 * x.square().sum(1).mean()
    others = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))  # rows of b that belong to other x
    assert torch.equal(run.model.view.reconstruct_values("x", {"x": x, "b": others}), back)


# --- three players ----------------------------------------------------------------------------------------------------

THREE = {
    "type": "expression",
    "ratios": {"d": "q(x) : p(x)"},
    "weights": {"gamma": 0.1},
    "updates": {
        "encoder": {"maximize": "E[q(x,z)](log p(x|z) + log p(z) - log q(z|x))", "trains": ["encoder"]},
        "decoder": {
            "maximize": "gamma*E[q(x,z)](log p(x|z)) + E[p(x)](log s(d))",
            "trains": ["decoder"],
        },
    },
}


def test_three_players_train_on_digits(tmp_path: Path) -> None:
    """VAE/GAN-like: every player has its own loss, and all three networks have moved."""
    digits = tables(25, data={"type": "digits"}, objective=THREE)
    run = jointgen.run(digits, out=tmp_path / "run", quiet=True)
    done(run, 25)
    assert {"encoder/loss", "decoder/loss", "d/loss"} <= set(logged(run)[-1])
    still = jointgen.run(digits, {"train.steps": 1, "train.ema": 0.0}, out=tmp_path / "still", quiet=True)
    first, last = weights(still), weights(run)
    assert all(
        any(not torch.equal(first[n], last[n]) for n in first if n.startswith(part))
        for part in ("encoder", "decoder", "d.")
    )


def test_what_is_composed_in_python_repeats_from_its_run_folder(tmp_path: Path) -> None:
    """The folder's recipe is text, and the same run: three players, a weight on a ramp, unround numbers."""
    d = log_ratio(q.x, p.x, name="d")
    gamma = Weight("gamma", 1 / 3, start=0.0, over=0.5)
    encoder = Update("encoder", elbo(q, p), trains="encoder")
    decoder = Update(
        "decoder", gamma * E(q.xz, p.log_x_given_z) + E(p.x, -0.123456789 * -log_sigmoid(d)), trains="decoder"
    )
    run = jointgen.run(tables(6), objective=Objective((encoder, decoder)), out=tmp_path / "run", quiet=True)
    again = jointgen.run(run.path / "recipe.toml", out=tmp_path / "again", quiet=True)
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(run).items())
