"""Compiled losses: what they compute, what they hand over, and what happens where torch cannot compile them.

The backend "eager" traces a loss as every other does, and then runs what it traced: seconds instead of minutes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from jointgen_ali.objective import ALI, ALICE
from jointgen_asvae.objective import ASVAE
from jointgen_avb.objective import AVB
from jointgen_critics.penalties import R1, GradientPenalty
from jointgen_vae.objective import IWAE, VAE
from support.models import SmallModel, small_model
from support.runs import stop_after, train_small, weights
from torch import Tensor, nn

from jointgen.compiler.nodes import ReadNode, RootNode, SampleNode
from jointgen.engine import balance_meter
from jointgen.engine.step import Step
from jointgen.engine.torch_compile import TorchCompiler, nodes_when_compiled
from jointgen.errors import StoppedError
from jointgen.objectives import (
    BalanceTable,
    CriticTable,
    E,
    Objective,
    Update,
    WeightTable,
    divergence,
    elbo,
    joint_from_text,
    log_aggregate,
    log_ratio,
    p,
    q,
    statistic,
)
from jointgen.runtime.workers import Workers

CPU = torch.device("cpu")
DROPPING = {"type": "mlp", "hidden": [6], "dropout": 0.3}


def network(family: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"network": {"type": "mlp", "hidden": [6], **keys}, "family": family}


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """Nothing that another test compiled is still counted, or kept."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def trained(
    model: Any, compiler: TorchCompiler | None, steps: int, micro_batches: int = 1
) -> tuple[dict[str, Tensor], list[dict[str, float]], list[int]]:
    """Parameters and buffers after so many steps of Adam, each step's figures, and how many graphs there were then."""

    def rule(names: Sequence[str]) -> list[torch.optim.Optimizer]:
        parameters = model.parts.parameters(names)
        return [torch.optim.Adam(parameters, 1e-2)] if parameters else []

    rules = {u.name: rule(u.trains) for u in model.plan.updates}
    plan = attrs.evolve(model.plan, separate=compiler is not None)
    step = Step(plan, model.parts, Workers.start("cpu"), rules, 1.0, micro_batches, compiler)
    figures, counts = [], []
    for i in range(steps):

        def moment(repetition: int, i: int = i) -> Any:
            return model.inputs(step=i, repetition=repetition, progress=i / steps, pair_block=4)

        figures.append({name: value.item() for name, value in step(moment, until_log=0).items()})
        counts.append(graphs())
    return dict(model.parts.modules.state_dict()), figures, counts


def compare(
    make: Callable[[], Any], compiler: TorchCompiler, steps: int, micro_batches: int = 1, error: float = 1e-10
) -> list[int]:
    """Asserts that compiled and eager runs are one. Returns how many graphs there were after each step."""
    parameters, figures, _ = trained(make().double(), None, steps, micro_batches)
    mine, my_figures, counts = trained(make().double(), compiler, steps, micro_batches)
    assert mine.keys() == parameters.keys()
    for name, value in parameters.items():
        torch.testing.assert_close(mine[name], value, rtol=0, atol=error, msg=name)
    for one, other in zip(my_figures, figures, strict=True):
        assert one == pytest.approx(other, rel=error, abs=error)
    return counts


def of(objective: Any, **changes: Any) -> Callable[[], SmallModel]:
    return lambda: small_model(objective.objective() if hasattr(objective, "objective") else objective, **changes)


# --- equality ---------------------------------------------------------------------------------------------------------


def test_a_compiled_step_is_the_eager_one() -> None:
    """With dropout, two weights that move over 6 of 7 steps, one of them a penalty's that is due at every second, draws
    handed over, micro-batches.

    One graph for the model and two for the critic, with its penalty (step 0) and without (step 1), and never another.
    """
    critic = CriticTable(penalties=[R1(WeightTable(start=1.0, to=0.1, over=0.9), every=2)])
    make = of(
        ASVAE(ramp=0.9, critic=critic), discriminator=DROPPING, encoder=network({"type": "gaussian"}, dropout=0.2)
    )
    notes: list[str] = []
    counts = compare(lambda: make(), TorchCompiler("default", CPU, notes.append, "eager"), 7, micro_batches=2)
    assert counts == [2, 3, 3, 3, 3, 3, 3]
    assert [note.partition(" in ")[0] for note in notes if "compiled" in note] == [
        "train.compile: model compiled",
        "train.compile: T compiled",
        "train.compile: T for steps with other penalties compiled",
    ]


def test_a_balanced_weight_is_a_number_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured at steps 0, 2 and 4, outside the graphs, of which there is one for each update throughout."""
    monkeypatch.setattr(balance_meter, "STEPS_BETWEEN", 2)
    make = of(ASVAE(lambda_=BalanceTable(0.5)))
    notes: list[str] = []
    counts = compare(lambda: make(), TorchCompiler("default", CPU, notes.append, "eager"), 6, micro_batches=2)
    assert set(counts) == {2}
    assert not [note for note in notes if "eagerly" in note]


def test_an_update_that_is_not_due_still_draws_what_the_next_one_is_handed() -> None:
    """Of the ELBO, the decoder's update is handed z and log p(z) by the encoder's, which is due every second step."""
    a, b = Update("a", elbo(q, p), trains="encoder", every=2), Update("b", elbo(q, p), trains="decoder")
    compare(lambda: small_model(Objective((a, b))), TorchCompiler("default", CPU, [].append, "eager"), 5)


def exact_sum() -> SmallModel:
    """A label given a code: the rows of its probabilities are no repetition of the code's."""
    joint = joint_from_text("q", "q(x) q(z|x) q(y|z)", {"q(y|z)": "head"})
    model = joint_from_text("p", "p(y) p(z) p(x|z)", {"p(y)": "label"})
    terms = model.log("x|z") + model.log("y") + model.log("z") - joint.log("y|z") - joint.log("z|x")
    return small_model(
        Objective.of(E(joint.on("x", "y", "z"), terms, k=2, sums="y")),
        encoders={"head": network({"type": "categorical"})},
        priors={"label": {"type": "categorical", "classes": 3}},
    )


EVERYTHING = {
    "vae, warm-up": of(VAE(beta=2.0, warm_up=0.5)),
    "vae, mixture of posteriors": of(VAE(), prior={"type": "vamp", "size": 2, "components": 5}),
    "iwae": of(IWAE(k=3)),
    "avb": of(AVB(critic=CriticTable(steps=2))),
    "adaptive contrast": of(
        AVB(adaptive_contrast=True, critic=CriticTable(steps=2)), encoder=network({"type": "implicit_basis"})
    ),
    "ali": of(ALI()),
    "alice": of(ALICE()),
    "exact sum": exact_sum,
    "terms of the batch": of(
        Objective.of(elbo(q, p) - divergence("sliced_wasserstein", q.z, p.z) - statistic("covariance", q.z))
    ),
    "aggregate densities": of(
        Objective.of(
            E(q.xz, p.log_x_given_z - log_ratio(q.z, q.z.by_dimension, name="t") - log_aggregate(q.z, each=True))
        )
    ),
    "asvae": of(ASVAE(ramp=0.9)),
    "asvae, literal": of(ASVAE(form="literal")),
    "asvae, splines": of(ASVAE(), encoder=network({"type": "coupling", "transform": "spline", "length": 2})),
    "iaf": of(VAE(), encoder=network({"type": "iaf", "hidden": [8], "length": 2})),
    "penalties, dropout, spectral norm": of(
        Objective.of(
            E(p.x, log_ratio(q.x, p.x, name="f", penalties=(R1(every=2, at="numerator"), GradientPenalty(every=3)))),
            order="critics, model",
        ),
        discriminator={**DROPPING, "spectral_norm": True},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", EVERYTHING)
def test_every_objective_compiles_whole_and_to_the_same_numbers(name: str, backend: str) -> None:
    """Over 13 steps, two rounds of the penalties of "penalties"; no graph comes after the first 7."""
    notes: list[str] = []
    counts = compare(lambda: EVERYTHING[name](), TorchCompiler("default", CPU, notes.append, backend), 13)
    assert not [note for note in notes if "eagerly" in note]
    assert counts[-1] == counts[6] > 0


# --- falling back -----------------------------------------------------------------------------------------------------


def broken(graph: Any, inputs: Any) -> Any:
    raise RuntimeError("this machine has no compiler\nof any kind")


def wrong(graph: Any, inputs: Any) -> Any:
    """A compiler with a fault: the first number that comes out is twice what it should be."""
    return lambda *values: (lambda out: (2 * out[0], *out[1:]))(graph(*values))


@pytest.mark.parametrize(
    ("backend", "reason"),
    [(broken, "this machine has no compiler"), (wrong, r"compiled, the loss is \S+ where it should be")],
)
def test_a_loss_that_does_not_compile_runs_eagerly_and_says_so(backend: Any, reason: str) -> None:
    notes: list[str] = []
    compare(lambda: of(ASVAE())(), TorchCompiler("default", CPU, notes.append, backend), 3, error=0.0)
    told = [note for note in notes if "eagerly" in note]
    assert [note.partition(" runs eagerly: ")[0] for note in told] == [
        "train.compile: model is not compiled and",
        "train.compile: T is not compiled and",
    ]
    for note in told:
        assert "\n" not in note
        assert re.search(reason, note)


class Looking(nn.Module):
    """A trunk that decides by its values, which cannot be compiled, and counts its runs."""

    runs: Tensor

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, *inputs: Tensor) -> Tensor:
        self.runs.add_(1)
        out = self.inner(*inputs)
        return out if out.sum() > 1e9 else out * 2


def test_a_network_that_cannot_be_compiled_leaves_no_trace_of_the_attempt() -> None:
    """Its update runs eagerly; a buffer that its forward pass moves has moved once a step."""

    def make() -> Any:
        model = of(VAE())()
        model.parts.modules["encoder"].trunk = Looking(model.parts.modules["encoder"].trunk)
        return model

    notes: list[str] = []
    compare(make, TorchCompiler("default", CPU, notes.append, "eager"), 3, error=0.0)
    assert [note for note in notes if "model is not compiled and runs eagerly" in note]


def test_cuda_graphs_without_cuda_are_not_asked_for() -> None:
    notes: list[str] = []
    compiler = TorchCompiler("reduce-overhead", CPU, notes.append)
    assert compiler.compile.keywords["mode"] == "default"
    assert notes == ["train.compile: 'reduce-overhead' needs CUDA graphs, and the device is a cpu; 'default' runs"]


# --- what is handed over ----------------------------------------------------------------------------------------------


def test_compiled_updates_hand_over_tensors() -> None:
    """The critic of AS-VAE sees four values that the model's update drew, and draws nothing itself."""
    plan = of(ASVAE())().plan
    nodes, imported = nodes_when_compiled(plan, 1)
    assert {node.title for node in imported} == {"p.z", "p(x|z).x", "q.x", "q(z|x).z"}
    assert all(isinstance(node, ReadNode) for node in imported)
    assert not [node for node in nodes if isinstance(node, RootNode | SampleNode)]


# --- runs -------------------------------------------------------------------------------------------------------------


def run(out: Path, stop: Any = lambda: 0, resume: bool = False, **changes: Any) -> Path:
    overrides = {"train.checkpoint_every": 10, **{key.replace("__", "."): value for key, value in changes.items()}}
    train_small(out, overrides, stop=stop, resume=resume, quiet=False)
    return out


def test_a_machine_without_a_compiler_trains_eagerly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "no-such-compiler"))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    out = run(tmp_path / "run", objective={"type": "vae"}, train__steps=1, train__compile="default")
    said = capsys.readouterr().err
    assert "model is not compiled and runs eagerly" in said and "Traceback" not in said
    assert json.loads((out / "summary.json").read_text())["status"] == "done"


@pytest.mark.slow
def test_a_compiled_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Stopped at step 17 of 40; the averaged weights are compared, too."""
    changes = {"train__steps": 40, "train__compile": "default"}
    whole = weights(run(tmp_path / "whole", **changes) / "checkpoints/step-00000040")
    with pytest.raises(StoppedError):
        run(tmp_path / "cut", stop=stop_after(17), **changes)
    resumed = weights(run(tmp_path / "cut", resume=True, **changes) / "checkpoints/step-00000040")
    assert any(name.startswith("ema.") for name in whole)
    assert all(torch.equal(resumed[name], value) for name, value in whole.items())
