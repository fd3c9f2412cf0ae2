"""The plan: how often networks run (counted on real steps), which draws are shared, and which must not be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from jointgen_ali.objective import ALI, ALICE
from jointgen_asvae.objective import ASVAE
from jointgen_avb.objective import AVB
from jointgen_critics.penalties import R1
from jointgen_vae.objective import IWAE, VAE
from support.models import assemble, small_model
from support.networks import WatchedCritic
from torch import Tensor, nn

from jointgen.compiler.gradient_paths import PartTraits
from jointgen.compiler.nodes import ReadNode, RootNode
from jointgen.compiler.plan import Plan
from jointgen.contracts.noise import Noise
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.program import re_pair
from jointgen.engine.update import UpdateRunner
from jointgen.errors import ConfigError
from jointgen.objectives import (
    Conditional,
    CriticTable,
    E,
    Joint,
    Objective,
    Update,
    elbo,
    joint_from_text,
    kl,
    log_ratio,
    log_sigmoid,
    p,
    q,
)

# --- how often networks run ------------------------------------------------------------------------------------------


def known_part() -> Objective:
    """Half r with f1 = rho + g1, rho = log q(z|x) - log p(z) written down."""
    rho = q.log_z_given_x - p.log_z
    return Objective.of(E(q.xz, p.log_x_given_z - log_ratio(q.xz, p.x * p.z, name="f1", known=rho)))


def vae_gan(order: Any = "model, critics") -> Objective:
    """Three players: the encoder bounds, the decoder rebuilds and fools, the critic tells data from draws."""
    d = log_ratio(q.x, p.x, name="d")
    encoder = Update("encoder", elbo(q, p), trains="encoder")
    decoder = Update("decoder", 0.1 * E(q.xz, p.log_x_given_z) + E(p.x, log_sigmoid(d)), trains="decoder")
    return Objective((encoder, decoder), order)


# part -> runs in one step. zq is a draw of q(z|x), xp one of p(x|z).
RUNS: dict[str, tuple[Callable[[], Any], dict[str, int]]] = {
    "VAE": (lambda: VAE().objective(), {"encoder": 1, "decoder": 1}),
    "VAE, closed KL": (lambda: VAE(analytic=True).objective(), {"encoder": 1, "decoder": 1}),
    "IWAE": (lambda: IWAE(k=5).objective(), {"encoder": 1, "decoder": 1}),
    # both gradients from one graph: t at (x, zq) for both, and at (x, z) for its own update
    "AVB": (lambda: AVB().objective(), {"encoder": 1, "decoder": 1, "t": 2}),
    # f at (x, zq) and (xp, z)
    "ALI": (lambda: ALI().objective(), {"encoder": 1, "decoder": 1, "f": 2}),
    # and the decoder at zq
    "ALICE": (lambda: ALICE().objective(), {"encoder": 1, "decoder": 2, "f": 2}),
    # t runs anew in its own update, on the model's draws
    "AVB, in turns": (
        lambda: Objective(AVB().objective().updates, "model, critics"),
        {"encoder": 1, "decoder": 1, "t": 3},
    ),
    # encoder at x and xp, decoder at z and zq; each critic once for the model, twice for itself. All draws of the
    # critics are the model's: f2's negatives re-pair x, f1's take a fresh z
    "AS-VAE, literal": (
        lambda: ASVAE(form="literal").objective(),
        {"encoder": 2, "decoder": 2, "f1": 3, "f2": 3},
    ),
    # the critic's negatives need xp, which the model's half r does not draw
    "AS-VAE-r, literal": (
        lambda: ASVAE(form="literal", weight_g=0.0).objective(),
        {"encoder": 1, "decoder": 2, "f1": 3},
    ),
    # and here zq
    "AS-VAE-g, literal": (
        lambda: ASVAE(form="literal", weight_r=0.0).objective(),
        {"encoder": 2, "decoder": 1, "f2": 3},
    ),
    "AS-VAE, T": (lambda: ASVAE(ratio="T").objective(), {"encoder": 2, "decoder": 2, "T": 3}),
    "AS-VAE, d": (lambda: ASVAE(ratio="d").objective(), {"encoder": 2, "decoder": 2, "d": 3}),
    # the encoder at x live (for zq) and held (for rho); in the critic's update, where rho is that of the encoder as it
    # has become, at x and at xp, and the decoder at z
    "known part": (known_part, {"encoder": 4, "decoder": 2, "f1": 3}),
    # the decoder at zq for the encoder's update, at zq and z for its own; the critic reuses xp and x
    "VAE/GAN": (vae_gan, {"encoder": 1, "decoder": 3, "d": 3}),
    # critics first: their draws are of networks that the model's update runs again, with its own graph
    "AS-VAE, T, critics first": (
        lambda: Objective(ASVAE(ratio="T").objective().updates, "critics, model"),
        {"encoder": 3, "decoder": 3, "T": 3},
    ),
    "VAE/GAN, critic first": (lambda: vae_gan("critics, model"), {"encoder": 1, "decoder": 4, "d": 3}),
}


@pytest.mark.parametrize("name", RUNS)
def test_networks_run_exactly_as_often_as_the_plan_says(name: str) -> None:
    make, expected = RUNS[name]
    model = small_model(make())
    assert model.plan.runs() == expected
    step = model.step()
    for number in range(2):  # the second step as the first
        with model.forwards_counted() as counted:
            step(lambda r, number=number: model.inputs(step=number, repetition=r))
        assert counted == expected


def test_repetitions_draw_for_themselves() -> None:
    """AVB with three critic steps: the two repetitions each run the encoder (zq) once more, and t twice."""
    model = small_model(AVB(critic=CriticTable(steps=3)).objective())
    with model.forwards_counted() as counted:
        model.step()(lambda r: model.inputs(repetition=r))
    assert counted == {"encoder": 1 + 2, "decoder": 1, "t": 3 + 2 * 2}


def test_a_penalty_runs_the_critic_when_it_is_due() -> None:
    """T runs three times (see above); R1 at the data differentiates one more run at every second step."""
    model = small_model(ASVAE(critic=CriticTable(penalties=[R1(every=2)])).objective())
    step, runs = model.step(), []
    for number in range(4):
        with model.forwards_counted() as counted:
            step(lambda r, number=number: model.inputs(step=number, repetition=r))
        runs.append(counted["T"])
    assert runs == [4, 3, 4, 3]


def test_an_update_that_is_not_due_runs_nothing_but_shared_draws() -> None:
    """The model is due at even steps. At odd ones its draws are made for the critic's sake (its whole program)."""
    d = log_ratio(q.x, p.x, name="d")
    model = small_model(Objective((Update("model", E(p.x, log_sigmoid(d)), every=2),)))
    step, runs = model.step(), []
    for number in range(4):
        with model.forwards_counted() as counted:
            step(lambda r, number=number: model.inputs(step=number, repetition=r))
        runs.append(counted)
    assert runs[0] == runs[2] == {"decoder": 1, "d": 3}
    assert all(run["decoder"] == 1 and run["d"] <= 3 for run in runs)


def test_k_draws_are_made_after_the_encoder_and_before_the_decoder() -> None:
    model = small_model(IWAE(k=5).objective())
    rows: dict[str, int] = {}
    for name in ("encoder", "decoder"):
        trunk: Any = model.parts.modules[name].trunk
        trunk.register_forward_hook(lambda module, args, out, name=name: rows.update({name: len(args[0])}))
    model.step()(lambda r: model.inputs(rows=8, repetition=r))
    assert rows == {"encoder": 8, "decoder": 40}


def test_only_the_updates_own_parts_are_run_anew() -> None:
    """Each update by itself, before anything is shared."""
    plan = small_model(ASVAE(form="literal").objective()).plan
    assert {u.name: u.runs() for u in plan.updates} == {
        "model": {"encoder": 2, "decoder": 2, "f1": 1, "f2": 1},
        "f1": {"encoder": 1, "decoder": 1, "f1": 2},
        "f2": {"encoder": 1, "decoder": 1, "f2": 2},
    }


# --- which gradients reach what --------------------------------------------------------------------------------------

EXPLICIT, SAMPLES = frozenset({"explicit"}), frozenset({"samples"})


def table_of(plan: Plan, update: str) -> dict[str, dict[str, frozenset[str]]]:
    """term -> trained part -> how its gradient arrives there."""
    found = next(u for u in plan.updates if u.name == update)
    return {
        s.label.partition("/")[2]: {part: ways for part, ways in s.gradient_paths.items() if part in found.trains}
        for s in found.summands
    }


def test_the_table_of_the_literal_asvae() -> None:
    plan = small_model(ASVAE(form="literal").objective()).plan
    assert table_of(plan, "model") == {
        "E[q(x,z)] log p(x|z)": {"decoder": EXPLICIT, "encoder": SAMPLES},
        "E[q(x,z)] f1": {"encoder": SAMPLES},
        "E[p(x,z)] log q(z|x)": {"encoder": EXPLICIT, "decoder": SAMPLES},
        "E[p(x,z)] f2": {"decoder": SAMPLES},
    }
    assert table_of(plan, "f1") == {
        "E[q(x,z)] log s(f1)": {"f1": EXPLICIT},
        "E[p(x)p(z)] log s(-f1)": {"f1": EXPLICIT},
    }


def test_the_table_of_the_decomposed_asvae() -> None:
    plan = small_model(ASVAE(ratio="d").objective()).plan
    assert table_of(plan, "model") == {
        "E[q(x,z)] log p(x|z)": {"decoder": EXPLICIT, "encoder": SAMPLES},
        "E[q(x,z)] log p(z)": {"encoder": SAMPLES},
        "E[q(x,z)] log q(z|x)": {"encoder": EXPLICIT | SAMPLES},
        "E[p(x,z)] log q(z|stop(x))": {"encoder": EXPLICIT},
        "E[p(x,z)] d": {"decoder": SAMPLES},
    }


def test_the_table_of_a_held_density_a_stop_and_a_cycle() -> None:
    """A known part is held; `stop` on an argument cuts the way through it."""
    rho = q.log_z_given_x - p.log_z
    f = log_ratio(q.xz, p.xz, name="f", known=rho)
    own = E(q.xz, p.log("x|z", stop="z") + q.log("z|x", hold=True) - log_sigmoid(f))
    plan = small_model(Objective.of(own + E(p.xz, q.log("z|x", hold=True)))).plan
    assert table_of(plan, "model") == {
        "E[q(x,z)] log p(x|stop(z))": {"decoder": EXPLICIT},
        "E[q(x,z)] hold(log q(z|x))": {"encoder": SAMPLES},
        "E[q(x,z)] log s(f)": {"encoder": SAMPLES},
        "E[p(x,z)] hold(log q(z|x))": {"decoder": SAMPLES},
    }


def test_a_divergence_in_a_known_part_is_held_too() -> None:
    """Only draws carry its gradient, and KL(q(z|x) : p(z)) is computed from no draw."""
    f = log_ratio(q.xz, p.xz, name="f", known=kl(q.log_z_given_x, p.log_z))
    plan = small_model(Objective.of(E(q.xz, p.log_x_given_z - log_sigmoid(f)))).plan
    assert table_of(plan, "model")["E[q(x,z)] log s(f)"] == {"encoder": SAMPLES}


def test_an_update_trains_what_its_gradient_reaches() -> None:
    generator = Objective.of(E(p.x, log_sigmoid(log_ratio(q.x, p.x, name="d"))))
    assert [(u.name, u.trains) for u in small_model(generator).plan.updates] == [("model", ("decoder",)), ("d", ("d",))]
    sleep = Objective.of(E(p.xz, q.log("z|x", stop="x")))
    assert [u.trains for u in small_model(sleep).plan.updates] == [("encoder",)]


@pytest.mark.parametrize(
    ("expr", "message"),
    [
        (E(q.xz, q.log_x), r"log q\(x\): the data's density is not known"),
        (E(q.x, p.log_x_given_z), r"needs 'z', which its expectation over x does not draw"),
        (E(p.z, p.log_x_given_z), r"needs 'x', which its expectation over z does not draw"),
        (E(q.x, log_ratio(q.xz, p.xz, name="f")), r"f needs 'z', which its expectation over x does not draw"),
    ],
)
def test_terms_that_need_what_is_not_drawn_are_refused(expr: Any, message: str) -> None:
    decoded = Objective.of(expr + E(q.xz, p.log_x_given_z))
    with pytest.raises(ConfigError, match=message):
        small_model(decoded)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (Update("model", elbo(q, p), trains="encodr"), "update 'model' trains 'encodr', .* did you mean 'encoder'"),
        (Update("model", elbo(q, p), trains=("encoder", "data")), "update 'model' trains 'data', which is no part"),
        (Update("model", E(p.z, p.log_z)), "update 'model' trains nothing"),
        (Update("model", E(p.x * q.z, p.log_z), trains="decoder"), "trains 'decoder', which no gradient of it reaches"),
    ],
)
def test_updates_that_would_train_nothing_are_refused(update: Update, message: str) -> None:
    whole = Objective((update, Update("other", elbo(q, p))))
    with pytest.raises(ConfigError, match=message):
        small_model(whole)


# --- which draws are shared ------------------------------------------------------------------------------------------


def test_the_critics_of_the_literal_asvae_see_the_models_draws() -> None:
    """Inputs are (x, z). f1's negatives pair xp with a z of their own; f2's pair zq with the x of the next row."""
    model = small_model(ASVAE(form="literal").objective())
    seen = model.watched("f1", "f2")
    model.step()(lambda r: model.inputs(rows=8, repetition=r, pair_block=4))
    (x, zq), positive1, negative1 = seen["f1"].calls
    (xp, zp), positive2, negative2 = seen["f2"].calls
    assert all(map(torch.equal, positive1, (x, zq)))
    assert all(map(torch.equal, positive2, (xp, zp)))
    assert torch.equal(negative1[0], xp)
    fresh = negative1[1]
    assert not torch.isclose(fresh, zp).any(), "the second draw of p(z) must be one of its own"
    assert not torch.isclose(fresh, zq).any()
    assert torch.equal(negative2[1], zq)
    assert torch.equal(negative2[0], x[[3, 0, 1, 2, 7, 4, 5, 6]])  # shifted within blocks of four rows


def test_the_prior_of_a_product_with_data_is_the_models_own_draw() -> None:
    """AVB's negatives: the same x with z ~ p(z), which no other row shares."""
    model = small_model(AVB().objective())
    seen = model.watched("t")["t"]
    model.step()(lambda r: model.inputs(rows=8, repetition=r))
    (x, zq), (x_negative, z) = seen.calls
    assert torch.equal(x_negative, x)
    assert torch.cdist(z, zq).min() > 1e-4
    assert len(z.unique(dim=0)) == 8


def test_three_players_share_what_none_of_them_moves() -> None:
    """The critic sees the decoder's own draw of its update, and the data once."""
    model = small_model(vae_gan())
    seen = model.watched("d")["d"]
    model.step()(lambda r: model.inputs(rows=8, repetition=r))
    (xp,), (positive,), (negative,) = seen.calls
    assert torch.equal(negative, xp)
    assert torch.equal(positive, model.data(8)["data"]["x"])


# --- re-pairing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [0, 2, 3, 4, 6, 12, 16])
@pytest.mark.parametrize("rows", [2, 3, 4, 7, 12, 13, 24])
def test_re_pairing_never_pairs_a_row_with_itself(rows: int, block: int) -> None:
    """Every shift that the block allows. Rows stay in their block; a batch that no block divides is one block."""
    whole = block if block and rows % block == 0 else rows
    index = torch.arange(rows)
    seen = [index]
    for shift in range(1, whole):
        paired = re_pair(index, shift, block)
        assert paired.sort().values.tolist() == index.tolist()  # every row once
        assert torch.equal(paired // whole, index // whole)
        assert all((paired != other).all() for other in seen), "no row may meet itself, nor a partner twice"
        seen.append(paired)


def test_no_shift_leaves_rows_where_they_are() -> None:
    index = torch.arange(6)
    assert torch.equal(re_pair(index, 0, 2), index)


@pytest.mark.parametrize(("shift", "block"), [(2, 2), (4, 2), (6, 0), (3, 3)])
def test_a_shift_by_whole_blocks_is_refused(shift: int, block: int) -> None:
    with pytest.raises(AssertionError, match="would leave rows where they were"):
        re_pair(torch.arange(6), shift, block)


def test_re_pairing_moves_whole_rows() -> None:
    x = torch.arange(24.0).reshape(4, 3, 2)
    assert torch.equal(re_pair(x, 1, 2), x[[1, 0, 3, 2]])


def test_a_third_marginal_of_one_joint_is_paired_with_neither() -> None:
    """q(x)q(z)q(w) of a joint with two codes: rows i, i + 1 and i + 2."""
    qq = joint_from_text("q", "q(x) q(z|x) q(w|z)", {"q(w|z)": "encoder_w"})
    pp = joint_from_text("p", "p(w) p(z|w) p(x|z)", {"p(z|w)": "decoder_z"})
    ratio = log_ratio(qq.on("x", "z", "w"), qq.on("x") * qq.on("z") * qq.on("w"), name="f")
    net = {"type": "mlp", "hidden": [6]}
    table = {"network": net, "family": {"type": "gaussian"}}
    objective = Objective.of(E(qq.on("x", "z", "w"), pp.log("x|z") + pp.log("z|w") - ratio))
    model = small_model(objective, encoders={"encoder_w": table}, decoders={"decoder_z": table}, latents={"z": 2})
    seen = model.watched("f")["f"]
    model.step()(lambda r: model.inputs(rows=8, repetition=r, pair_block=8))
    (w, x, z), _, (wn, xn, zn) = seen.calls  # critics take their variables by name
    partners = [(torch.cdist(a, b).argmin(1) - torch.arange(8)) % 8 for a, b in ((wn, w), (xn, x), (zn, z))]
    assert sorted({int(offset) for partner in partners for offset in partner}) == [0, 6, 7]
    assert all(len(partner.unique()) == 1 for partner in partners)


# --- several joints with one data source ------------------------------------------------------------------------------

SOURCE = Conditional("x", part="data")
Q = Joint("q", (SOURCE, Conditional("z", "x", part="encoder")))
R = Joint("r", (SOURCE, Conditional("w", "x", part="encoder_w")))


class Copy(nn.Module):
    """A deterministic conditional: its draw is its input."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, k: int = 1) -> Any:
        outer = self

        class Point:
            def draw(self, noise: Any) -> Any:
                return self

            def read(self, reading: str) -> Tensor:
                return outer.scale * x

        return Point()


def rows_seen(ratio: Any, rows: int = 12, block: int = 6) -> Any:
    """The critic of `ratio` after its own update, on data whose row i is the number i."""
    critic = WatchedCritic()
    modules = {"encoder": Copy(), "encoder_w": Copy(), ratio.name: critic}
    exact = PartTraits("conditional", {"sample": "exact"})
    plan, parts = assemble(Objective.of(E(ratio.num, ratio)), modules, {"encoder_w": exact})
    index = next(i for i, u in enumerate(plan.updates) if u.name == ratio.name)
    moment = StepInputs({"data": {"x": torch.arange(float(rows))[:, None]}}, Noise(0), rows, pair_block=block)
    UpdateRunner(plan.updates[index], parts).gradient(moment)
    return critic


def test_two_joints_with_one_source_do_not_share_rows() -> None:
    """q(z) and r(w) are independent: code z of row i never meets code w of row i."""
    seen = rows_seen(log_ratio(Q.on("z") * R.on("w"), R.on("w") * Q.on("z"), name="f"))
    for w, z in seen.calls:
        assert (w != z).all()
        assert w.sort(0).values.flatten().tolist() == list(range(12))


def test_a_re_paired_joint_does_not_meet_the_rows_of_another() -> None:
    """q(x)q(z)r(w): x, z and w come from three different rows of the source, in every row of the batch."""
    ratio = log_ratio(Q.on("x") * Q.on("z") * R.on("w"), Q.on("z") * R.on("w") * Q.on("x"), name="f")
    for w, x, z in rows_seen(ratio).calls:
        assert (w != x).all()
        assert (w != z).all()
        assert (x != z).all()


def test_both_joints_re_paired_are_four_rows() -> None:
    two = Joint("r", (Conditional("y", part="data"), Conditional("w", "y", part="encoder_w")))
    over = Q.on("x") * Q.on("z") * two.on("y") * two.on("w")
    critic = WatchedCritic()
    exact = PartTraits("conditional", {"sample": "exact"})
    ratio = log_ratio(over, over, name="f")
    modules = {"encoder": Copy(), "encoder_w": Copy(), "f": critic}
    plan, parts = assemble(Objective.of(E(over, ratio)), modules, {"encoder_w": exact})
    rows = torch.arange(12.0)[:, None]
    moment = StepInputs({"data": {"x": rows, "y": rows}}, Noise(0), 12, pair_block=6)
    UpdateRunner(plan.updates[1], parts).gradient(moment)
    for call in critic.calls:
        together = torch.cat(call, 1)  # (12, 4)
        assert all(len(row.unique()) == 4 for row in together)


def test_a_source_of_one_joint_is_read_as_it_comes() -> None:
    plan = small_model(VAE().objective()).plan
    roots = [node for u in plan.updates for node in u.nodes if isinstance(node, RootNode)]
    assert roots
    assert all(root.shift == 0 for root in roots)
    assert all(node.shift == 0 for u in plan.updates for node in u.nodes if isinstance(node, ReadNode))
