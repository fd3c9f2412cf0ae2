"""`explain` says what the plan holds: numbers derived by hand, texts as the papers write them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.paths import QUICKSTART

from jointgen.cli.main import main
from jointgen.compiler.compiled_recipe import CompiledRecipe, compile_recipe
from jointgen.config.recipe import read_recipe
from jointgen.registry.discovery import load_plugins
from jointgen.reports.explain.explain import explain
from jointgen.reports.explain.sizes import sizes_of

PINNED = {
    "prior.size": 16,
    "encoder.network.hidden": [256, 256],
    "decoder.network.hidden": [256, 256],
    "discriminator.hidden": [256, 256],
    "train.steps": 4000,
    "train.batch": 128,
}
"""What the numbers below rest on, whatever becomes of the recipe."""


def explained(**changes: Any) -> str:
    """What `explain` says of the quickstart with these changes of its pinned keys."""
    return explain(compiled({key.replace("__", "."): value for key, value in changes.items()}))


def compiled(changes: dict[str, Any]) -> CompiledRecipe:
    registry = load_plugins().registry
    return compile_recipe(read_recipe(QUICKSTART, {**PINNED, **changes}, registry=registry), registry)


def section(text: str, title: str) -> list[str]:
    """The lines below a title, without their indent."""
    block = next(block for block in text.split("\n\n") if block.startswith(title + "\n"))
    return [line.strip() for line in block.split("\n")[1:]]


def words(lines: list[str]) -> list[str]:
    """Lines with their columns closed up."""
    return [" ".join(line.split()) for line in lines]


# --- the quickstart, AS-VAE with the ratio T ------------------------------------------------------------------------


def test_the_equation_and_the_ratio() -> None:
    text = explained()
    assert text.split("\n")[:2] == [
        "quickstart: objective 'asvae' (Pu et al. 2017, eqs 5, 6 and 11)",
        "4,000 steps of 128 rows, 512,000 rows in all",
    ]
    assert words(section(text, "OBJECTIVE")) == [
        "model maximises E[q(x,z)](log p(x|z) + log p(z) - log q(z|x))",
        "+ E[p(x,z)](w*log q(z|stop(x)) - lambda*T)",
        "T maximises E[p(x,z)](log s(T))",
        "+ E[q(x,z)](log s(-T))",
        "- 0.1*R1(T)",
        "w = 1",
        "lambda = 0 to 10 over the first 10% of the stage",
        "T = log-ratio p(x,z) : q(x,z)",
        "a critic that sees x, z; loss Logistic; one update a step",
        "penalty R1(weight=0.1, every=4, at='denominator')",
        "order: model, T",
    ]


def test_a_penalty_on_a_schedule() -> None:
    falling = {"type": "r1", "weight": {"start": 1.0, "to": 0.1, "over": 0.5}}
    text = explained(**{"objective.critic.penalties": [falling, {"type": "r1", "at": "numerator"}]})
    said = words(section(text, "OBJECTIVE"))
    assert said[4:8] == [
        "- r1_T*R1(T)",
        "- 0.1*R1(T)",
        "w = 1",
        "lambda = 0 to 10 over the first 10% of the stage",
    ]
    assert "r1_T = 1 to 0.1 over the first 50% of the stage" in said
    assert "penalty R1(weight={ start = 1, to = 0.1, over = 0.5 }, every=4, at='denominator')" in said
    assert "T/R1(T) -r1_T (held) (held) explicit" in words(section(text, "GRADIENTS"))


def test_each_factor_has_its_part() -> None:
    text = explained()
    assert words(section(text, "JOINTS")) == [
        "q(x,z) = q(x) q(z|x)",
        "q(x) data digits",
        "q(z|x) encoder mlp + gaussian",
        "p(x,z) = p(z) p(x|z)",
        "p(z) prior normal",
        "p(x|z) decoder mlp + gaussian",
    ]
    assert words(section(text, "VARIABLES")) == [
        "x 1x8x8 real in [0, 1], 17 levels: 64 numbers, observed",
        "z 16 real: 16 numbers, latent",
    ]


def test_the_step_shows_what_is_drawn_run_and_reused() -> None:
    """The model: encoder at the data and at decoded x, decoder at codes and at the prior, the critic once. The critic's
    own update takes both joints' draws from the model's and runs twice."""
    assert words(section(explained(), "ONE STEP")) == [
        "1. model trains encoder, decoder",
        "draws q(x) from data",
        "q(z|x) by encoder(q.x)",
        "p(z) from prior",
        "p(x|z) by decoder(p.z)",
        "runs encoder(q.x)",
        "decoder(q(z|x).z)",
        "decoder(p.z)",
        "encoder(stop(p(x|z).x))",
        "T(p(x|z).x, p.z)",
        "2. T trains T",
        "draws p(z) from prior reused from model",
        "p(x|z) by decoder(p.z) reused from model",
        "q(x) from data reused from model",
        "q(z|x) by encoder(q.x) reused from model",
        "runs decoder(p.z) reused from model",
        "T(p(x|z).x, p.z)",
        "encoder(q.x) reused from model",
        "T(q.x, q(z|x).z)",
        "penalties R1(T): runs the critic again, every 4 steps",
        "forward runs when every update is due once: T 3, decoder 2, encoder 2, penalties not counted",
    ]


def test_the_table_of_gradients() -> None:
    """z ~ q(z|x) carries gradient to the encoder; x under p carries it to the decoder, unless it is stopped."""
    assert words(section(explained(), "GRADIENTS")) == [
        "how a term's gradient reaches a part weight encoder decoder T",
        "model/E[q(x,z)] log p(x|z) 1 samples explicit none",
        "model/E[q(x,z)] log p(z) 1 samples none none",
        "model/E[q(x,z)] log q(z|x) -1 explicit + samples none none",
        "model/E[p(x,z)] log q(z|stop(x)) w explicit none none",
        "model/E[p(x,z)] T -lambda none samples (held)",
        "T/E[p(x,z)] log s(T) 1 none (held) explicit",
        "T/E[q(x,z)] log s(-T) 1 (held) none explicit",
        "T/R1(T) -0.1 (held) (held) explicit",
        "(held): the update does not train this part",
    ]


def test_the_sizes() -> None:
    """encoder: 64*256 + 256 = 16,640; 256*256 + 256 = 65,792; 256*32 + 32 = 8,224 (a mean and a log scale for each of
    16 codes); 16 offsets of the mean: 90,672.
    decoder: 16*256 + 256 = 4,352; 65,792; 256*64 + 64 = 16,448; 64 offsets; one log scale: 86,657.
    T: 16,640 for x; 16*256 = 4,096 for z, without a bias of its own; 65,792; 256 + 1: 86,785.
    In all 264,114 numbers of 4 bytes, five times over (weights, gradients, two moments, average): 5,282,280 bytes,
    5.04 of 1,048,576.
    """
    assert words(section(explained(), "SIZES")) == [
        "encoder 90,672 parameters",
        "decoder 86,657 parameters",
        "T 86,785 parameters",
        "264,114 parameters in all",
        "memory 5.0 MiB: weights 1.0 MiB, gradients 1.0 MiB, optimizers 2.0 MiB, average (EMA) 1.0 MiB; "
        "activations are not counted",
    ]


def test_each_stage_has_its_optimizers() -> None:
    """The critic has one, in the only stage that trains it, so nothing is said of a stage there."""
    own = {"lr": 5e-4, "decay_from": 0.7}
    said = section(explained(**{"objective.vae_first": 0.5, "optimizer.stages.asvae.model": own}), "TRAINING")
    assert said[:3] == [
        "encoder, decoder in stage vae: Adam (betas 0.5, 0.999), lr 0.001, falling (linear) from 0.7 of the run on to "
        "2e-05",
        "encoder, decoder in stage asvae: Adam, lr 0.0005, falling (linear) from 0.7 of the stage on to 0",
        "T: Adam (betas 0.5, 0.99), lr 0.001",
    ]


def test_how_it_trains() -> None:
    text = explained(
        **{
            "optimizer.model.warmup": 0.1,
            "optimizer.model.schedule": "cosine",
            "optimizer.model.decay_from": 0.25,
            "optimizer.model.final": 0.0,
            "optimizer.parts.encoder": {"type": "sgd", "lr": 0.01, "decay_from": 0.5, "final": 0.1},
            "train.micro_batches": 4,
            "train.compile": "default",
            "train.precision": "bf16",
            "train.clip": 1.0,
            "train.ema": 0.9,
        }
    )
    said = "\n".join(section(text, "TRAINING"))
    assert "encoder: SGD, lr 0.01, falling (linear) from 0.5 of the run on to 0.001" in said
    rising = "decoder: Adam (betas 0.5, 0.999), lr 0.001, rising over the first 0.1 of the run"
    assert f"{rising}, falling (cosine) from 0.25 of the run on to 0" in said
    assert "a batch is run in 4 parts of 32 rows" in said
    assert all(word in said for word in ("compiled ('default')", "bf16", "the norm 1", "EMA 0.9"))
    assert "in 4 parts" not in explained() and "compiled" not in explained()


def test_what_is_needed_of_each_family() -> None:
    lines = section(explained(), "FAMILIES")
    encoder = lines[: next(i for i, line in enumerate(lines) if line.startswith("prior"))]
    assert encoder[0].startswith(
        "encoder (mlp + gaussian) has readings sample (exact), mean (exact); own density analytic"
    )
    assert sorted(encoder[1:]) == [
        "met: needs a density at its own draws",
        "met: needs a density at points that it did not draw",
        "met: needs a draw with the reading 'sample'",
        "met: needs a gradient path through the reading 'sample' of its draws",
    ]


@pytest.mark.parametrize(
    ("family", "cost"),
    [("iaf", ", which takes 16 passes"), ("planar", ", by a numeric inverse"), ("coupling", "")],
)
def test_points_that_a_flow_did_not_draw_have_a_cost(family: str, cost: str) -> None:
    lines = section(explained(encoder__family__type=family), "FAMILIES")
    assert f"met: needs a density at points that it did not draw{cost}" in lines


def test_like_compared_with_like_needs_no_advice() -> None:
    assert "ADVICE" not in explained()


# --- other objectives ------------------------------------------------------------------------------------------------


def test_stages_have_their_steps() -> None:
    """A quarter of 4,000 steps for the ELBO alone, which runs each network once; only the second stage has a critic."""
    text = explained(objective__vae_first=0.25)
    assert words(section(text, "OBJECTIVE OF STAGE 1, VAE"))[0] == "25% of the run, steps 1 to 1,000"
    assert words(section(text, "OBJECTIVE OF STAGE 2, ASVAE"))[0] == "75% of the run, steps 1,001 to 4,000"
    assert (
        section(text, "ONE STEP OF STAGE 1, VAE")[-1]
        == "forward runs when every update is due once: decoder 1, encoder 1"
    )
    assert "T" not in words(section(text, "GRADIENTS OF STAGE 1, VAE"))[0].split()
    assert text.count("SIZES") == 1


def test_a_stage_without_a_step_says_so() -> None:
    """A hundredth of 20 steps is less than one."""
    text = explained(objective__vae_first=0.01, train__steps=20)
    assert words(section(text, "OBJECTIVE OF STAGE 1, VAE"))[0] == "1% of the run, no step"


def test_adam_holds_nothing_for_a_part_that_is_never_trained() -> None:
    """Only the encoder: gradients of 90,672 numbers, no average. Buffers: the prior's 16 numbers, scale and peak."""
    tables = {
        "objective.type": "expression",
        "objective.updates": {"half": {"maximize": "E[q(x,z)](log p(x|z))", "trains": ["encoder"]}},
        "train.ema": 0.0,
    }
    sizes = sizes_of(compiled(tables))
    assert sizes.parameters == {"encoder": 90672, "decoder": 86657}
    assert sizes.memory == {"weights": 4 * (90672 + 86657 + 16 + 2), "gradients": 4 * 90672, "optimizers": 8 * 90672}


def expression(ratio: str, **more: str) -> dict[str, Any]:
    maximize = "E[q(x,z)](log p(x|z) - t) + E[p(x,z)](log q(z|x))"
    return {"type": "expression", "maximize": maximize, "ratios": {"t": {"of": ratio, **more}}}


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        ({"ratio": "q(x,z) : p(x,z)"}, None),
        ({"ratio": "q(x) : p(x)"}, None),
        ({"ratio": "q(x,z) : p(x)p(z)"}, "mutual information"),
        ({"ratio": "q(x)q(z) : p(x,z)"}, "mutual information"),
        ({"ratio": "q(x,z) : p(x)p(z)", "known": "log q(z|x) - log p(z)"}, None),
        ({"ratio": "q(x,z) : q(x)p(z)"}, "both sides share q(x), so at the optimum it is log q(z|x) - log p(z)."),
        ({"ratio": "q(x)q(z) : q(x,z)"}, "both sides share q(x), so at the optimum it is log q(z) - log q(z|x)."),
        ({"ratio": "q(x,z) : q(x)p(z)", "known": "log q(z|x) - log p(z)"}, None),
    ],
    ids=str,
)
def test_advice_on_a_joint_against_a_product(ratio: dict[str, str], said: str | None) -> None:
    text = explained(objective=expression(**ratio))
    if said is None:
        assert "ADVICE" not in text
    else:
        assert said in " ".join(section(text, "ADVICE"))


def test_settings_of_terms_that_are_not_there_are_named() -> None:
    """The recipe has ramp = 0.1; w = 1 and gamma = 0 are the defaults, so they are as good as not set."""
    left_out = "The recipe sets what this objective leaves out: "
    more = {"objective__ratio": "d", "objective__lambda": 5.0}
    advice = " ".join(section(explained(objective__form="literal", **more), "ADVICE"))
    assert f"{left_out}ratio, lambda, ramp." in advice
    advice = " ".join(section(explained(objective__weight_r=0.0, objective__gamma=3.0), "ADVICE"))
    assert f"{left_out}gamma." in advice


def test_an_objectives_own_note_is_the_advice() -> None:
    advice = " ".join(section(explained(objective__form="literal"), "ADVICE"))
    assert "form = 'decomposed' has the same fixed point p = q, where the model reaches it" in advice
    assert "compares a joint with a product" not in advice


def test_a_matched_gaussian_is_shown_where_it_stands() -> None:
    """Adaptive contrast: r shares q's data and encoder run; its draws carry no gradient."""
    text = explained(objective={"type": "avb", "adaptive_contrast": True})
    assert words(section(text, "JOINTS"))[-3:] == [
        "r(x,z) = q(x) r(z|x)",
        "q(x) data digits",
        "r(z|x) moments of encoder mlp + gaussian",
    ]
    assert "a critic that sees x, z as standardized r(z|x); loss Logistic; one update a step" in section(
        text, "OBJECTIVE"
    )
    step = words(section(text, "ONE STEP"))
    assert step[0] == "all updates are losses on one graph, which is run once"
    assert step[-7:] == [
        "draws q(x) from data reused from model",
        "q(z|x) by encoder(q.x) reused from model",
        "r(z|x) by moments of encoder(q.x)",
        "runs encoder(q.x) reused from model",
        "t(q.x, q(z|x).z standardized) reused from model",
        "t(q.x, r(z|x).z standardized)",
        "forward runs when every update is due once: decoder 1, encoder 1, t 2",
    ]
    gradients = words(section(text, "GRADIENTS"))
    assert "model/E[q(x,z)] log r(z|x) -1 samples none none" in gradients
    assert "t/E[r(x,z)] log s(-t) 1 none none explicit" in gradients
    assert "met: needs the moments of its draws" in section(text, "FAMILIES")


def test_an_update_that_is_not_always_due_says_when() -> None:
    text = explained(objective__critic={"steps": 5})
    lines = section(text, "OBJECTIVE")
    assert "5 times a step, with new draws after the first time" in lines
    assert "a critic that sees x, z; loss Logistic; 5 updates a step" in lines


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["--set", "objective.ratio=d", "--set", "objective.w=0.5"]
    assert main(["explain", str(QUICKSTART), *sets]) == 0
    shown = capsys.readouterr()
    assert "d = log-ratio p(x) : q(x)" in shown.out
    assert "w = 0.5" in shown.out
    assert shown.err == "jointgen: only a run, which reads the data, will check this: the values of data\n"


def test_the_command_prints_json(say: Any) -> None:
    """Every parameter has 4 bytes, its gradient 4, and Adam's two moments 8."""
    changes = ["prior.size=4", 'objective={type="vae"}', "train.steps=7"]
    said = say("explain", QUICKSTART, "--json", *(word for change in changes for word in ("--set", change)))
    found = json.loads(said.out)
    assert (found["objective"], found["steps"]) == ("vae", 7)
    assert {*found["parameters"]} == {"encoder", "decoder"}
    number = sum(found["parameters"].values())
    assert (found["memory_bytes"]["gradients"], found["memory_bytes"]["optimizers"]) == (4 * number, 8 * number)
    (stage,) = found["stages"]
    assert stage["maximize"] == {"model": "E[q(x,z)](log p(x|z) + log p(z) - log q(z|x))"}
    (update,) = stage["updates"]
    assert update["trains"] == ["encoder", "decoder"]
    gradients = {term["term"]: term["gradients"] for term in update["terms"]}
    assert gradients["model/E[q(x,z)] log p(z)"] == {"encoder": ["samples"]}
    assert found["joints"]["p(x,z) = p(z) p(x|z)"] == {"p(z)": "prior", "p(x|z)": "decoder"}
    assert found["components"]["data"] == "digits" and found["variables"]["z"]["size"] == 4
    assert found["requirements"] and all(need["met"] for need in found["requirements"])


def test_what_does_not_fit_is_said_before_anything_is_built(capsys: pytest.CaptureFixture[str]) -> None:
    """An implicit encoder has no density, which the decomposed objective needs at its own and at foreign draws."""
    recipe = str(QUICKSTART)
    assert main(["explain", recipe, "--set", "encoder.family.type=implicit"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    problems = shown.err.splitlines()
    assert all(line.startswith("jointgen: encoder") for line in problems)
    assert any("a density at its own draws" in line and "'implicit'" in line for line in problems)
    assert any("a density at points that it did not draw" in line and "gaussian" in line for line in problems)
