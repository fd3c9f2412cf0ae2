"""What an objective asks of the families, and what is said where they do not have it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from jointgen_ali.objective import ALI
from jointgen_asvae.objective import ASVAE
from jointgen_avb.objective import AVB
from jointgen_vae.objective import IWAE, VAE
from support.models import small_model

from jointgen.compiler.requirements import Requirement, requirements
from jointgen.contracts.capabilities import Capabilities
from jointgen.errors import ConfigError
from jointgen.objectives import CriticTable, E, Objective, cycle, elbo, log_ratio, log_sigmoid, p, q

MLP: dict[str, Any] = {"type": "mlp", "hidden": [6]}
BITS: dict[str, Any] = {"type": "digits", "observe": "binarise"}


def part(family: str, **settings: Any) -> dict[str, Any]:
    return {"network": MLP, "family": {"type": family, **settings}}


def needs(model: Any) -> set[tuple[str, str, str]]:
    return {(need.part, need.ability, need.detail) for need in requirements(model.plan, {"prior": "normal"})}


# --- what is asked ----------------------------------------------------------------------------------------------------

SAMPLED_Z = {("encoder", "reading", "sample"), ("encoder", "path", "sample")}
SAMPLED_X = {("decoder", "reading", "sample"), ("decoder", "path", "sample")}
ELBO = {
    ("encoder", "own density", ""),
    ("decoder", "foreign density", ""),
    ("prior", "foreign density", ""),
    *SAMPLED_Z,
}

NEEDS: dict[str, tuple[Callable[[], Any], set[tuple[str, str, str]]]] = {
    "VAE": (lambda: VAE().objective(), ELBO),
    "IWAE": (lambda: IWAE().objective(), ELBO),
    "VAE, closed KL": (
        lambda: VAE(analytic=True).objective(),
        {("encoder", "KL", "normal"), ("decoder", "foreign density", ""), *SAMPLED_Z},
    ),
    "AVB": (lambda: AVB().objective(), {("decoder", "foreign density", ""), *SAMPLED_Z}),
    # r(z|x) has a density because the encoder has moments, and its draws have no gradient
    "AVB, adaptive contrast": (
        lambda: AVB(adaptive_contrast=True).objective(),
        {
            ("decoder", "foreign density", ""),
            ("prior", "foreign density", ""),
            ("encoder", "moments", ""),
            *SAMPLED_Z,
        },
    ),
    "ALI": (lambda: ALI().objective(), SAMPLED_X | SAMPLED_Z),
    # log q(z|x) at a z that p(z) drew; x is a sample, and stopped: no path of its own is asked for
    "sleep": (
        lambda: Objective.of(E(p.xz, q.log("z|x", stop="x"))),
        {("encoder", "foreign density", ""), ("decoder", "reading", "sample")},
    ),
    "AS-VAE, literal": (
        lambda: ASVAE(form="literal").objective(),
        {("decoder", "foreign density", ""), ("encoder", "foreign density", ""), *SAMPLED_X, *SAMPLED_Z},
    ),
    # the critic sees means; log q(z|stop(x)) sees draws
    "AS-VAE, d, means": (
        lambda: ASVAE(ratio="d", critic=CriticTable(view={"x": "mean"})).objective(),
        {
            *ELBO,
            ("encoder", "foreign density", ""),
            ("decoder", "reading", "sample"),
            ("decoder", "reading", "mean"),
            ("decoder", "path", "mean"),
        },
    ),
    "cycle": (
        lambda: Objective.of(E(q.xz, -cycle(p, "x|z"))),
        {("decoder", "reading", "mean"), ("decoder", "path", "mean"), *SAMPLED_Z},
    ),
    # the prior's density at its own draw, the decoder's at its own
    "own draws": (
        lambda: Objective.of(E(p.xz, p.log_z + p.log_x_given_z - log_ratio(p.x, q.x, name="d"))),
        {("prior", "own density", ""), ("decoder", "own density", ""), *SAMPLED_X},
    ),
}


@pytest.mark.parametrize("name", NEEDS)
def test_an_objective_asks_for_what_its_terms_need(name: str) -> None:
    make, expected = NEEDS[name]
    assert needs(small_model(make())) == expected


def test_a_view_of_data_is_asked_of_the_family_that_models_it() -> None:
    table = ASVAE(critic=CriticTable(view={"x": "relaxed"})).objective()
    model = small_model(table, data=BITS, decoder=part("bernoulli"))
    readings = {detail for name, ability, detail in needs(model) if name == "decoder" and ability == "reading"}
    assert readings == {"sample", "relaxed"}


@pytest.mark.parametrize(
    ("ability", "detail", "can", "cannot"),
    [
        ("own density", "", Capabilities(), Capabilities(own_density="none")),
        ("foreign density", "", Capabilities(foreign_density="D passes"), Capabilities(foreign_density="none")),
        ("bin mass", "", Capabilities(bin_mass=True), Capabilities()),
        ("reading", "mean", Capabilities({"mean": "none"}), Capabilities({"sample": "exact"})),
        ("path", "mean", Capabilities({"mean": "relaxed"}), Capabilities({"mean": "none"})),
        ("path", "mean", Capabilities({"mean": "straight-through"}), Capabilities({"sample": "exact"})),
        ("KL", "normal", Capabilities(kl_to=("normal",)), Capabilities(kl_to=("uniform",))),
        ("moments", "", Capabilities(moments=True), Capabilities()),
    ],
)
def test_capabilities_meet_requirements(ability: str, detail: str, can: Capabilities, cannot: Capabilities) -> None:
    need = Requirement("encoder", ability, detail, "a term")
    assert need.met_by(can)
    assert not need.met_by(cannot)


# --- what is refused --------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[], Any], dict[str, Any], list[str]]] = {
    "an implicit encoder has no bound": (
        lambda: VAE().objective(),
        {"encoder": part("implicit")},
        [
            "encoder.family: the objective needs a density at its own draws for q(z|x), in the term "
            "'model/E[q(x,z)] log q(z|x)'; the family 'implicit'",
            "families that do: coupling, gaussian",
        ],
    ),
    "nor has an implicit decoder": (
        lambda: VAE().objective(),
        {"decoder": part("implicit")},
        [
            "decoder.family: the objective needs a density at points that it did not draw for p(x|z)",
            "the family 'implicit'",
            "families that do: coupling, gaussian",
        ],
    ),
    "bits without a path in half g": (
        lambda: ASVAE(form="literal").objective(),
        {"data": BITS, "decoder": part("bernoulli", path="none")},
        [
            "decoder.family: the objective needs a gradient path through the reading 'sample' of its draws for p(x|z)",
            "in the term 'model/E[p(x,z)] log q(z|x)'",
            "bernoulli with path = 'straight-through'",
        ],
    ),
    "bits without a path, where only the critic would train the decoder": (
        lambda: ALI().objective(),
        {"data": BITS, "decoder": part("bernoulli", path="none")},
        [
            "decoder.family: the objective needs a gradient path through the reading 'sample' of its draws for p(x|z)",
            "in the term 'model/E[p(x,z)] log s(f)'",
        ],
    ),
    "a smoothed view of a scale that the trunk puts out": (
        lambda: ASVAE(critic=CriticTable(view={"x": "smoothed"})).objective(),
        {"decoder": part("gaussian", scale="per_element")},
        [
            "decoder.family: the objective needs a draw with the reading 'smoothed' for p(x|z)",
            "in the term 'model/E[p(x,z)] T'",
            "gaussian with scale = 'global' or 'per_channel' or 'fixed'",
        ],
    ),
    "a relaxed view of real numbers": (
        lambda: ASVAE(critic=CriticTable(view={"x": "relaxed"})).objective(),
        {},
        ["a draw with the reading 'relaxed' for p(x|z)", "the family 'gaussian'", "no registered family has it"],
    ),
    "a closed KL between families that have none": (
        lambda: VAE(analytic=True).objective(),
        {"prior": {"type": "uniform", "size": 2}},
        [
            "encoder.family: the objective needs KL to 'uniform' in closed form for q(z|x)",
            "no registered family has it",
        ],
    ),
    "a closed KL to something else than the family has it to": (
        lambda: VAE(analytic=True).objective(),
        {"prior": {"type": "learned", "size": 2, "family": {"type": "mixture"}}},
        ["needs KL to 'mixture' in closed form", "no registered family has it; 'gaussian' has it to normal, gaussian"],
    ),
    "a closed KL of a family that has none": (
        lambda: VAE(analytic=True).objective(),
        {"encoder": part("implicit")},
        ["encoder.family: the objective needs KL to 'normal' in closed form", "families that do: gaussian"],
    ),
    "the mass of bins of what was never quantised": (
        lambda: Objective.of(E(q.xz, p.log("x|z", mass=True)) + elbo(q, p)),
        {},
        ["the exact probability of a quantisation bin for p(x|z)", "'model/E[q(x,z)] log mass p(x|z)'"],
    ),
    "codes scored by a prior that has no density there": (
        lambda: VAE().objective(),
        {"prior": {"type": "uniform", "size": 2}},
        [
            "prior: the objective needs a density at points that it did not draw for p(z)",
            "priors that do: learned, modes, normal, vamp",
        ],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mismatch_names_both_sides_and_what_would_fit(name: str) -> None:
    make, tables, pieces = REFUSED[name]
    with pytest.raises(ConfigError) as error:
        small_model(make(), **tables)
    (problem,) = error.value.lines
    for piece in pieces:
        assert piece in problem


def test_every_mismatch_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        small_model(VAE().objective(), encoder=part("implicit"), decoder=part("implicit"))
    assert [problem.split(":")[0] for problem in error.value.lines] == ["decoder.family", "encoder.family"]


def test_a_prior_without_a_density_elsewhere_may_score_its_own_draws() -> None:
    f = log_ratio(p.xz, q.xz, name="f")
    small_model(Objective.of(E(p.xz, p.log_z - f) + E(q.xz, log_sigmoid(f))), prior={"type": "uniform", "size": 2})


# --- rows to re-pair --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "problem"),
    [
        ({"batch": 1, "pair_block": 4}, "train.batch: must be more than 1, by which the objective shifts rows"),
        ({"batch": 2, "pair_block": 2}, None),
        ({"batch": 3, "pair_block": 2}, None),  # no block divides it: one block of three
    ],
)
def test_re_pairing_needs_rows_to_pair_with(train: dict[str, int], problem: str | None) -> None:
    objective = ASVAE(form="literal").objective()
    if problem is None:
        small_model(objective, train={"steps": 1, **train})
        return
    with pytest.raises(ConfigError, match=problem):
        small_model(objective, train={"steps": 1, **train})


def test_a_third_marginal_needs_a_third_row() -> None:
    """q(x)q(z) re-paired shifts by one, and each further marginal of the joint by one more."""
    from_two = Objective.of(E(q.x * q.z, log_ratio(q.x * q.z, p.x * p.z, name="f")) + elbo(q, p))
    assert small_model(from_two).plan.furthest_pairing() == 1
    assert small_model(VAE().objective()).plan.furthest_pairing() == 0


def test_nothing_is_asked_of_rows_where_none_is_re_paired() -> None:
    small_model(VAE().objective(), train={"steps": 1, "batch": 1})
    small_model(AVB().objective(), train={"steps": 1, "batch": 1})
