"""Measures the cost of a step: jointgen's training loop beside a bare PyTorch loop of the same model (`bare.py`).

    python benchmarks/overhead.py [--mnist DIR] [--cifar DIR] [--imagenet DIR] [--rows NAME...] [--device cuda]
        [--set KEY=VALUE]... [--count]

jointgen's side is `Trainer.fit` itself: data, noise, statistics, averaged weights, a log event in every 50 steps. The
bare side starts from the same weights. Both run in one process in turns, a window of steps each; a round is one window
of every arm, and the figures are medians over rounds: of the time of a step, and of the ratio within a round. On a CPU
that is the process's own time on one thread, since other work shares the machine, and wall time beside it; on a GPU
CUDA events, and the device is waited for at the ends of a window only.

Before anything is timed, jointgen's first step is repeated by the bare loop with the numbers and rows that jointgen
drew, and every parameter's gradient has to be the same up to rounding. Then the operations that torch dispatches are
counted on both sides, forward and backward, as means over a few steps without a log event, and the largest amount of
memory that tensors take in a step, above what they take between steps: figures without noise. --count measures these
alone, on any machine, and says which operations differ.

--set reaches jointgen's recipe only, so that an option's gain shows against the plain bare loop. Without folders the
images are random bytes.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from bare import BareALI, BareASVAE, BarePlanarVAE, BareVAE, Replay
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from jointgen.config.recipe import read_recipe
from jointgen.contracts.noise import NamedNoise
from jointgen.data.row_order import RowOrder
from jointgen.registry.discovery import load_plugins
from jointgen.training.check import check_run
from jointgen.training.setup import set_up_training
from jointgen.training.trainer import Trainer

RECIPES = Path(__file__).parent.parent / "recipes"
ROUNDING = 2e-4  # of a float32 gradient, relative to the largest number of its tensor
COUNTED = 4  # steps whose operations and memory are measured: a period of the gradient penalty
LOG_EVERY = 50  # the recipes' own


@attrs.frozen
class Row:
    """A line of the table. `window` is a number of steps on a CPU, 4 for a period of the penalty; a GPU has 200."""

    title: str
    recipe: str
    loop: type[BareVAE]
    folder: str
    shape: tuple[int, int, int]
    window: int
    rounds: int
    settings: tuple[str, ...] = ()
    observe: str = "dequantise"


NEAREST = "decoder.network.upsample='nearest'"
GAUSSIAN = "decoder.family={type='gaussian', scale='per_channel', init_scale=0.135, mean='sigmoid'}"
EVERY_TERM = (
    NEAREST,
    GAUSSIAN,
    "objective.vae_first=0.0",
    "objective.ramp=0.0",
    "objective.lambda=300.0",
    "objective.gamma=0.0",
)
NO_DROPOUT = ("discriminator.dropout=0.0",)
CONV_VAE = (NEAREST, GAUSSIAN, "objective.type='vae'")
ROWS = {
    "mlp": Row("VAE, MLP, 28x28, batch 128", "vae_mnist", BareVAE, "mnist", (1, 28, 28), 50, 41, observe="binarise"),
    "conv": Row("VAE, conv, 32x32, batch 64", "asvae_cifar10", BareVAE, "cifar", (3, 32, 32), 4, 21, CONV_VAE),
    "asvae32": Row(
        "AS-VAE, conv, 32x32, batch 64", "asvae_cifar10", BareASVAE, "cifar", (3, 32, 32), 4, 15, EVERY_TERM
    ),
    "asvae64": Row(
        "AS-VAE, conv, 64x64, batch 32", "asvae_imagenet", BareASVAE, "imagenet", (3, 64, 64), 4, 15, EVERY_TERM
    ),
    "ali": Row("ALI, MLP, 28x28, batch 128", "ali_mnist", BareALI, "mnist", (1, 28, 28), 40, 41, NO_DROPOUT),
    "planar": Row(
        "VAE, planar flow of 80 layers, 28x28, batch 128",
        "nfvae_mnist",
        BarePlanarVAE,
        "mnist",
        (1, 28, 28),
        10,
        41,
        observe="binarise",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for source in ("mnist", "cifar", "imagenet"):
        parser.add_argument(f"--{source}", help="data.root of the real images")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, help="instead of each row's own number")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of jointgen's recipe")
    parser.add_argument("--count", action="store_true", help="operations and memory alone; nothing is timed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    columns = ["model"]
    if not arguments.count:
        columns += ["bare loop", "jointgen", "ratio", "ratio, wall", "without averaging, either"]
    columns += ["operations, bare", "jointgen", "ratio", "peak of a step, bare", "jointgen", "gradients differ by"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    differences = {}
    for name in arguments.rows:
        comparison = Comparison(ROWS[name], arguments)
        print(comparison.line(), flush=True)
        differences[comparison.row.title] = comparison.found.more_operations()
    if arguments.count:
        for title, more in differences.items():
            print(f"\n{title}, jointgen less bare: {', '.join(f'{name} {count:+g}' for name, count in more.items())}")


# --- one line --------------------------------------------------------------------------------------------------------


class Comparison:
    """Times jointgen with and without averaged weights, each in turns with the bare loop of the same kind."""

    found: Interleaved

    def __init__(self, row: Row, arguments: argparse.Namespace):
        self.row, self.arguments = row, arguments

    def line(self) -> str:
        self.found = found = self.measured([])
        cells = [self.row.title]
        if not self.arguments.count:
            plain = self.measured(["train.ema=0.0"])
            cells += [f"{1e3 * statistics.median(found.seconds[arm]):.2f} ms" for arm in ("bare", "jointgen")]
            cells += [shown(found.ratios()), f"{statistics.median(found.ratios(wall=True)):.3f}", shown(plain.ratios())]
        bare, ours = (found.operations[arm].total() / COUNTED for arm in ("bare", "jointgen"))
        cells += [f"{bare:g}", f"{ours:g}", f"{ours / bare:.3f}"]
        cells += [f"{found.peaks[arm] / 2**20:.1f} MiB" for arm in ("bare", "jointgen")]
        return f"| {' | '.join([*cells, f'{found.difference:.0e}'])} |"

    def measured(self, settings: list[str]) -> Interleaved:
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(MeasuredError):
            window = self.row.window if self.arguments.device == "cpu" else 200
            loop = [
                "train.steps=1000000",
                f"train.log_every={LOG_EVERY}",
                f"train.device='{self.arguments.device}'",
            ]
            never = [f"train.{what}_every=1000000" for what in ("eval", "sample", "checkpoint")]
            data = self.data(Path(folder))
            given = [*self.row.settings, *data, *loop, *never, *settings, *self.arguments.set]
            registry = load_plugins().registry
            checked = check_run(read_recipe(RECIPES / f"{self.row.recipe}.toml", given, registry=registry), registry)
            rounds = self.row.rounds if self.arguments.rounds is None else self.arguments.rounds
            arms = Interleaved(window, rounds, only_counted=getattr(self.arguments, "count", False))
            trainer = set_up_training(checked, Path(folder) / "run", stop=arms.after_step)
            arms.bare = bare_loop(self.row.loop, trainer)
            with arms.recorded:
                trainer.fit()
        return arms

    def data(self, folder: Path) -> list[str]:
        if root := getattr(self.arguments, self.row.folder):
            return [f"data.root='{root}'"]
        generator = np.random.default_rng(0)
        for split, rows in (("train", 4096), ("test", 64)):
            np.save(folder / f"{split}.npy", generator.integers(0, 256, (rows, *self.row.shape), dtype=np.uint8))
        files = [f"data.{key}='{folder / name}'" for key, name in (("path", "train.npy"), ("test_path", "test.npy"))]
        return ["data.type='arrays'", *files, f"data.observe='{self.row.observe}'"]


def bare_loop(loop: type[BareVAE], trainer: Trainer) -> BareVAE:
    """Make a bare loop with the trainer's weights, images and implementation of Adam."""
    recipe, state = trainer.compiled.recipe, trainer.state
    rows = recipe.data.open("train")
    (group,) = state.optimizers.of(trainer.compiled.plans[-1].updates[0].trains)[0].param_groups
    adam = {"fused": bool(group["fused"]), "foreach": bool(group["foreach"])}
    images = rows.take(torch.arange(len(rows)))["x"]
    return loop(recipe, state.parts, images, adam, ema=recipe.train.ema or None)


def shown(ratios: list[float]) -> str:
    """Write the median and the quartiles of some ratios."""
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


# --- taking turns ----------------------------------------------------------------------------------------------------


class MeasuredError(Exception):
    """Raised to leave the trainer's loop once everything is measured."""


class Interleaved:
    """Runs both loops in turns and times them. The trainer calls it as its `stop` after every step."""

    bare: BareVAE

    def __init__(self, window: int, rounds: int, only_counted: bool = False):
        self.window, self.rounds, self.only_counted = window, rounds, only_counted
        self.steps, self.difference, self.recorded = 0, float("nan"), Recorded()
        self.seconds: dict[str, list[float]] = {"jointgen": [], "bare": []}
        self.wall: dict[str, list[float]] = {"jointgen": [], "bare": []}
        self.operations: dict[str, collections.Counter[str]] = {}
        self.peaks: dict[str, float] = {}

    def after_step(self) -> int:
        self.steps += 1
        if self.steps == 1:
            self.difference = self.recorded.difference(self.bare)
        if self.rounds == 0:  # only compared
            raise MeasuredError
        if self.steps <= 3 * COUNTED:
            self.count()
            return 0
        if self.only_counted:
            raise MeasuredError
        since = self.steps - 3 * COUNTED
        if since % self.window:
            return 0
        if since > self.window:  # the first window warms up
            self.record("jointgen", self.watch)
        watch = Stopwatch(self.bare.device)
        for _ in range(self.window):
            self.bare.step()
        self.bare.read()
        if since > self.window:
            self.record("bare", watch)
        if len(self.seconds["bare"]) == self.rounds:
            raise MeasuredError
        self.watch = Stopwatch(self.bare.device)
        return 0

    def count(self) -> None:
        """Count operations and then memory in a few steps each, after as many others, on both sides."""
        if self.steps % COUNTED:
            return
        if self.steps == COUNTED:
            self.counter = Operations()
            self.counter.__enter__()
            return
        if self.steps == 2 * COUNTED:
            self.counter.__exit__(None, None, None)
            with Operations() as bare:
                self.bare_steps()
            self.operations = {"jointgen": self.counter.counts, "bare": bare.counts}
            self.memory = Memory(self.bare.device)
            return
        self.peaks["jointgen"] = self.memory.peak()
        memory = Memory(self.bare.device)
        self.bare_steps()
        self.peaks["bare"] = memory.peak()

    def bare_steps(self) -> None:
        for _ in range(COUNTED):
            self.bare.step()

    def more_operations(self) -> dict[str, float]:
        """By how many a step of jointgen has more of each operation, negative where it has less."""
        ours, theirs = (self.operations[arm] for arm in ("jointgen", "bare"))
        found = {name: (ours[name] - theirs[name]) / COUNTED for name in sorted(ours | theirs)}
        return {name.removeprefix("aten."): count for name, count in found.items() if count}

    def record(self, arm: str, watch: Stopwatch) -> None:
        seconds, wall = watch.read()
        self.seconds[arm].append(seconds / self.window)
        self.wall[arm].append(wall / self.window)

    def ratios(self, wall: bool = False) -> list[float]:
        of = self.wall if wall else self.seconds
        return [ours / theirs for ours, theirs in zip(of["jointgen"], of["bare"], strict=True)]


class Operations(TorchDispatchMode):
    """Counts the operations that torch dispatches while it is entered, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = collections.Counter[str]()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        self.counts[str(function)] += 1
        return function(*arguments, **(options or {}))


class Memory:
    """Measures the largest amount of memory, in bytes, that tensors take above what they took when it was made.

    On a CPU it adds up what torch's profiler records of every allocation.
    """

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            self.profile = torch.autograd.profiler.profile(profile_memory=True)
            self.profile.__enter__()

    def peak(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() - self.before
        self.profile.__exit__(None, None, None)
        events = [event for event in self.profile.kineto_results.events() if event.name() == "[memory]"]
        sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
        return max(itertools.accumulate(sizes), default=0)


class Stopwatch:
    """Measures seconds since it was made: of the process on a CPU, of CUDA events on a GPU, and of the wall clock."""

    def __init__(self, device: torch.device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.synchronize()
            self.event = torch.cuda.Event(enable_timing=True)
            self.event.record()
        self.own, self.wall = time.process_time(), time.perf_counter()

    def read(self) -> tuple[float, float]:
        if self.device.type == "cpu":
            return time.process_time() - self.own, time.perf_counter() - self.wall
        end = torch.cuda.Event(enable_timing=True)
        end.record()
        torch.cuda.synchronize()
        return self.event.elapsed_time(end) / 1e3, time.perf_counter() - self.wall


# --- the same arithmetic ---------------------------------------------------------------------------------------------


class Recorded(contextlib.ExitStack):
    """Records the random numbers and gradients of the trainer's first step."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[tuple[str, Tensor]] = []
        self.gradients: dict[int, Tensor] = {}
        for kind in ("normal", "uniform"):
            self.replace(NamedNoise, kind, partial(self.draw, kind, getattr(NamedNoise, kind)))
        self.hook = register_optimizer_step_pre_hook(self.keep)
        self.callback(self.hook.remove)

    def replace(self, owner: type, name: str, function: Any) -> None:
        self.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, lambda *given: function(*given))

    def draw(self, kind: str, original: Any, source: NamedNoise, *shape: int) -> Tensor:
        numbers: Tensor = original(source, *shape)
        self.drawn.append((kind, numbers))
        return numbers

    def keep(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            self.gradients.update({id(p): p.grad.detach().clone() for p in group["params"] if p.grad is not None})

    def difference(self, bare: BareVAE) -> float:
        """Return the largest difference of a gradient, relative to its largest entry; the bare loop takes a step."""
        random, bare.generator = bare.generator, Replay(self.drawn)
        rows = RowOrder(bare.images, bare.recipe.train.batch, bare.recipe.seed).rows_of(0)
        bare.step(rows)
        bare.generator = random
        self.close()
        found = [relative(self.gradients[id(param)], self.gradients[id(other)]) for param, other in bare.pairs]
        assert max(found) < ROUNDING, f"the bare loop computes something else: gradients differ by {max(found):.0e}"
        return max(found)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-30))


if __name__ == "__main__":
    main()
