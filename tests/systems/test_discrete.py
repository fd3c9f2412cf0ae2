"""Exact sums over labels, and the systems that have them, against losses written by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.models import SmallModel, small_model
from torch import Tensor
from torch.nn import functional as F

from jointgen.compiler.nodes import ForwardNode
from jointgen.engine.gradient_check import check_ownership
from jointgen.errors import ConfigError
from jointgen.objectives import E, Expr, Objective, Vocabulary, joint_from_text, log_ratio, parse
from jointgen.objectives.recipe_text import Expression
from jointgen.registry.discovery import load_plugins

torch.set_num_threads(1)

CLASSES, ROWS = 3, 8
LABEL = {"type": "categorical", "classes": CLASSES}
LEARNED = LABEL | {"probabilities": "learned"}
HEAD = {"network": {"type": "mlp", "hidden": [5]}, "family": {"type": "categorical"}}

PARTS = {"q(y|x)": "head", "q(y|z)": "head", "p(y)": "py", "p(i)": "pi", "c(j)": "pj"}


def joint(text: str) -> Any:
    return joint_from_text(text[0], text, {k: v for k, v in PARTS.items() if k in text})


Q, P = joint("q(x) q(y|x) q(z|x,y)"), joint("p(y) p(z) p(x|y,z)")
BOUND = P.log("x|y,z") + P.log("y") + P.log("z") - Q.log("y|x") - Q.log("z|x,y")


def m2(expr: Expr, **more: Any) -> SmallModel:
    model = small_model(Objective.of(expr), encoders={"head": HEAD}, priors={"py": LEARNED}, **more)
    move(model)
    return model


def move(model: SmallModel) -> None:
    """Take the model off its start, in float64, so that no probability is uniform."""
    model.double()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parts.modules.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)


def observed(model: SmallModel, inputs: Any) -> Tensor:
    return model.rows(parse("E[q(x)](0*l1(x, x))")).program.run(inputs)[0]["x"].read("sample")


def by_hand(model: SmallModel, k: int = 1, reduce: str = "mean") -> Tensor:
    """sum_y q(y|x) 1/k sum_j log w(x, y, z_yj), or log sum_y q(y|x) 1/k sum_j w, (B,), one label after the other."""
    modules: Any = model.parts.modules
    inputs = model.inputs(ROWS)
    raw = inputs.data["data"]["x"].double()
    title = "q(z|x,y) sum y" + (f" k={k}" if k > 1 else "")
    eps = inputs.noise.named(title, ROWS * CLASSES * k).normal(2).view(ROWS, CLASSES, k, 2)
    head, total = modules["head"](raw).logits.log_softmax(1), []
    for y in range(CLASSES):
        one_hot = F.one_hot(torch.full((ROWS,), y), CLASSES).double()
        law = modules["encoder"](raw, one_hot)
        for j in range(k):
            z = law.mean + law.log_scale.exp() * eps[:, y, j]
            log_py = modules["py"].logits.log_softmax(0)[y]
            w = modules["decoder"](one_hot, z).log_prob(raw) + log_py - 0.5 * (z**2).sum(1) - 1.8378770664093453
            w = (
                w
                - head[:, y]
                + 0.5 * (eps[:, y, j] ** 2).sum(1)
                + law.log_scale.expand(ROWS, 2).sum(1)
                + 1.8378770664093453
            )
            total.append((head[:, y], w))
    weights, terms = (torch.stack(found, 1) for found in zip(*total, strict=True))
    if reduce == "mean":
        return (weights.exp() / k * terms).sum(1)
    return torch.log((weights.exp() / k * terms.exp()).sum(1))


@pytest.mark.parametrize(("k", "reduce"), [(1, "mean"), (3, "mean"), (3, "logmeanexp")])
def test_a_sum_is_the_loop_over_all_labels_with_every_gradient(k: int, reduce: Any) -> None:
    model = m2(E(Q.on("x", "y", "z"), BOUND, k=k, reduce=reduce, sums="y"))
    wanted = by_hand(model, k, reduce)
    modules = model.parts.modules
    parameters = dict(modules.named_parameters())
    gradients = torch.autograd.grad(-wanted.mean(), list(parameters.values()), allow_unused=True)
    update = model.update()
    figures, _ = update.gradient(model.inputs(ROWS))
    assert figures["model/loss"].item() == pytest.approx(-wanted.mean().item(), abs=1e-10)
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        assert parameter.grad is not None and gradient is not None, name
        assert (parameter.grad - gradient).abs().max() < 1e-10, name


def test_ownership_micro_batches_and_the_plan() -> None:
    """The classifier is reached through its probabilities alone, the encoder and the decoder each run once."""
    model = m2(E(Q.on("x", "y", "z"), BOUND, sums="y"))
    assert check_ownership(model.plan, model.parts, model.data(ROWS), ROWS) == {}
    (update,) = model.plan.updates
    assert update.runs() == {"head": 1, "encoder": 1, "decoder": 1}
    assert {*update.trains} == {"head", "encoder", "decoder", "py"}
    by_label = {summand.label: summand.gradient_paths for summand in update.summands}
    assert by_label["model/E[q(x,y,z); sum y] log p(y)"] == {"head": {"explicit"}, "py": {"explicit"}}
    assert by_label["model/E[q(x,y,z); sum y] log p(x|y,z)"]["head"] == {"explicit"}


def test_what_does_not_see_the_label_runs_without_it() -> None:
    """In q(x) q(z|x) q(y|z) the code is drawn k times for a row, and not for each label."""
    q, p = joint("q(x) q(z|x) q(y|z)"), joint("p(y) p(z) p(x|z)")
    terms = p.log("x|z") + p.log("y") + p.log("z") - q.log("y|z") - q.log("z|x")
    model = m2(E(q.on("x", "y", "z"), terms, k=2, sums="y"))
    (update,) = model.plan.updates
    rows = {node.part: node.rows for node in update.nodes if isinstance(node, ForwardNode)}
    assert rows == {"encoder": 2, "decoder": 2, "head": 2 * CLASSES}
    modules: Any = model.parts.modules
    inputs = model.inputs(ROWS)
    raw = inputs.data["data"]["x"].double()
    eps = inputs.noise.named("q(z|x) k=2", ROWS * 2).normal(2).view(ROWS, 2, 2)
    law, values = modules["encoder"](raw), []
    for j in range(2):
        z = law.mean + law.log_scale.exp() * eps[:, j]
        head, prior = modules["head"](z).logits.log_softmax(1), modules["py"].logits.log_softmax(0)
        kl = (head.exp() * (head - prior)).sum(1)  # the sum over y of everything that depends on y
        log_ratio_of_z = -0.5 * (z**2).sum(1) + 0.5 * (eps[:, j] ** 2).sum(1) + law.log_scale.expand(ROWS, 2).sum(1)
        values.append(modules["decoder"](z).log_prob(raw) + log_ratio_of_z - kl)
    loss, _, _ = model.update().loss(inputs)
    assert loss.item() == pytest.approx(-torch.stack(values).mean().item(), abs=1e-10)


def test_priors_are_summed_and_critics_see_every_pair() -> None:
    """MIX (Arora et al. 2017): sum_ij w_i u_j f_j(x_i), with the gradients of both softmaxes."""
    p, c, q = joint("p(i) p(z) p(x|i,z)"), joint("c(j)"), joint("q(x)")
    f = log_ratio(q.x * c.on("j"), p.x * c.on("j"), name="f")
    model = small_model(
        Objective.of(E(p.x * c.on("j"), f, sums="i, j")),
        priors={"pi": LEARNED, "pj": LEARNED | {"classes": 2}},
        encoder=None,
    )
    move(model)
    modules: Any = model.parts.modules
    inputs = model.inputs(ROWS)
    z = inputs.noise.named("p(z)", ROWS).normal(2)
    w, u = (modules[name].logits.softmax(0) for name in ("pi", "pj"))
    wanted = torch.zeros(())
    title = "p(x|i,z) sum i"
    eps = inputs.noise.named(title, ROWS * CLASSES).normal(2).view(ROWS, CLASSES, 2)
    for i in range(CLASSES):
        law = modules["decoder"](F.one_hot(torch.full((ROWS,), i), CLASSES).double(), z)
        x = law.mean + law.log_scale.exp() * eps[:, i]
        for j in range(2):
            one_hot = F.one_hot(torch.full((ROWS,), j), 2).double()
            wanted = wanted + w[i] * u[j] * modules["f"](one_hot, x).mean()
    loss, _, _ = model.update().loss(inputs)
    assert loss.item() == pytest.approx(-wanted.item(), abs=1e-10)
    trained = {name: p for name, p in modules.named_parameters() if not name.startswith("f.")}
    gradients = torch.autograd.grad(-wanted, list(trained.values()), allow_unused=True)
    model.update().gradient(inputs)
    for (name, parameter), gradient in zip(trained.items(), gradients, strict=True):
        assert gradient is not None and (parameter.grad - gradient).abs().max() < 1e-10, name
    check_ownership(model.plan, model.parts, model.data(ROWS), ROWS)


def test_it_prints_and_reads_back() -> None:
    words = Vocabulary({"q": Q, "p": P})
    for text in (
        "E[q(x,y,z); sum y](log p(x|y,z) - log q(y|x))",
        "E[q(x,y,z); sum y; k=3 logmeanexp](log p(x|y,z))",
        "E[q(x,y,z); sum y; k=3](log p(x|y,z))",
    ):
        assert str(parse(text, words)) == text
    assert str(parse("E[q(x,y,z); k=3; sum y](log p(x|y,z))", words)) == "E[q(x,y,z); sum y; k=3](log p(x|y,z))"
    two = Vocabulary({"p": joint("p(i) p(z) p(x|i,z)"), "c": joint("c(j)"), "q": joint("q(x)")})
    text = "E[p(x)c(j); sum i, j](l1(x, x))"
    assert str(parse(text, two)) == text


def test_a_composed_objective_is_written_as_text_and_read_back() -> None:
    registry = load_plugins().registry
    objective = Objective.of(E(Q.on("x", "y", "z"), BOUND, k=3, reduce="logmeanexp", sums="y"))
    text = Expression.of(objective, registry)
    assert str(text.updates["model"].maximize) == f"E[q(x,y,z); sum y; k=3 logmeanexp]({BOUND})"
    assert isinstance(again := text.objective(), Objective) and str(again) == str(objective)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("E[q(x,y,z); sum w](log p(y))", "sum w: q(x,y,z) draws no 'w'; known: x, y, z at character 17"),
        ("E[q(x,y,z); sum y, y](log p(y))", "sum y, y: names each variable once"),
        ("E[q(x,y,z); som y](log p(y))", "unknown option 'som'; did you mean 'sum'?"),
        ("E[q(x,y,z); sum y; sum y](log p(y))", "'sum' is given twice"),
        ("E[q(x,y,z); sum](log p(y))", "expected a variable"),
    ],
)  # fmt: skip
def test_a_mistake_is_marked(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(text, Vocabulary({"q": Q, "p": P}))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("expr", "said"),
    [
        (
            E(Q.on("x", "y", "z"), BOUND, sums="z"),
            "encoder.family: the objective needs a list of all values that 'z' can take, to sum over for q(z|x,y)",
        ),
        (E(Q.on("x", "y", "z"), BOUND, sums="x"), "sum x: q(x) is drawn from a data source, whose probabilities are"),
        (E(Q.on("x", "y") * Q.on("z"), P.log("y"), sums="y"), "sum y: q(x,y)q(z) draws it twice"),
    ],
)
def test_what_cannot_be_summed_is_refused_before_it_is_built(expr: Expr, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        m2(expr)
    assert said in str(raised.value)
