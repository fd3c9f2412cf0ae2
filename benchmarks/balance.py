"""Measures in three places how strongly the critic of finished AS-VAE runs pulls on the decoder.

    python benchmarks/balance.py RUN...

A Markdown table: for the number that each run has for lambda, or ended at, the relative strength r that it amounts to
where gradients are taken with respect to what the decoder's network puts out (which is what `lambda = { r = ... }`
does), to x (for the likelihood: to its mean, or the logits of bits) and to the weights of the decoder's last layer
(VQGAN's way); in brackets the spread over batches of either norm. Needs the runs' data.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jointgen.compiler.balanced_weights import balances_of
from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.compiler.nodes import CriticNode, DensityNode, ordered
from jointgen.compiler.parts import load_weights
from jointgen.config.recipe import read_recipe
from jointgen.data.batches import TrainingBatches
from jointgen.data.split import open_split
from jointgen.data.step_inputs import StepInputs
from jointgen.engine.balance_meter import GradientPair
from jointgen.engine.program import Program
from jointgen.engine.terms import summand_function
from jointgen.registry.discovery import load_plugins
from jointgen.runs.checkpoint import find
from jointgen.runs.folder import RunFolder
from jointgen.runtime.workers import Workers

BATCHES = 8
PLACES = ("decoder's outputs", "x", "last layer")


def main() -> None:
    print(f"| run | lambda | {' | '.join(PLACES)} |")
    print("|---|---|---|---|---|")
    for run in map(Path, sys.argv[1:]):
        number, norms = measured(run)
        means, spread = norms.mean(0), norms.std(0) / norms.mean(0)
        cells = [f"{number * a / b:.2f} ({s:.0%}, {t:.0%})" for (a, b), (s, t) in zip(means, spread, strict=True)]
        print(f"| {run.name} | {number:g} | {' | '.join(cells)} |")


def measured(run: Path) -> tuple[float, Tensor]:
    """The run's lambda, and (batches, places, 2) norms: of the critic's gradient and of the likelihood's."""
    registry = load_plugins().registry
    recipe: Any = read_recipe(run / "recipe.toml", {"train.trackers": []}, registry=registry)
    number = recipe.objective.lambda_
    if not isinstance(number, int | float):  # the run found it itself: where it ended
        number = [json.loads(line).get("weight/lambda") for line in RunFolder(run).metrics.open()][-1]
    balanced = {"objective.lambda": {"r": 1.0}, "objective.ramp": 0.0}
    compiled = compile_recipe(read_recipe(run / "recipe.toml", balanced, registry=registry), registry)
    load_weights(compiled.parts, find(run / "checkpoints").parts, average=False)
    gauge = Gauge(compiled)
    feed = TrainingBatches(
        compiled.recipe, open_split(compiled.binding, "train"), Workers.start("cpu"), compiled.repeats
    )
    return number, torch.stack([gauge(feed.inputs(step, 1.0, 0)) for step in range(BATCHES)])


class Gauge:
    """The norms of both gradients in all three places."""

    def __init__(self, compiled: Any):
        plan, parts = compiled.plans[-1], compiled.parts
        (self.balance,) = balances_of(plan)
        self.pair = GradientPair(self.balance, parts)
        both = (self.balance.term, self.balance.against)
        nodes = ordered(node for summand in both for node in summand.nodes)
        self.program = Program(nodes, parts, self.balance.update.differentiable)
        self.terms = [summand_function(summand.lowered, self.program) for summand in both]
        self.seen = next(i for node in nodes if isinstance(node, CriticNode) for i in node.inputs if i.variable == "x")
        self.law = next(n.law for n in nodes if isinstance(n, DensityNode) and n.law.part == self.balance.part)
        self.last = [p for p in parts.modules[self.balance.part].trunk.parameters() if p.ndim > 1][-1]

    def __call__(self, moment: StepInputs) -> Tensor:
        """(places, 2)"""
        ours = self.pair(moment)
        values = self.program.run(moment)
        terms = [term(moment, values) for term in self.terms]
        law = values[self.program.index[self.law]]
        places = (values[self.program.index[self.seen]], law.logits if hasattr(law, "logits") else law.mean)
        at_x = [_by_row(term, place) for term, place in zip(terms, places, strict=True)]
        last = [torch.autograd.grad(term.mean(), self.last, retain_graph=True)[0].norm() for term in terms]
        return torch.stack([ours, torch.stack(at_x), torch.stack(last)])


def _by_row(term: Tensor, place: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(term.sum(), place, retain_graph=True)
    return gradient.flatten(1).norm(dim=1).mean()


if __name__ == "__main__":
    main()
