"""Tries and times jointgen on a GPU in one go, within a budget of minutes, the most valuable first.

    python benchmarks/gpu.py --minutes 9                        # on a machine with a GPU
    python benchmarks/gpu.py --minutes 1 --device cpu           # the same code, small, to see that it runs

It needs no network and no data: images are random bytes. It prints Markdown to paste into benchmarks/README.md, each
section when it is done; with $OUT set, `$OUT/gpu.json` has the figures and is written anew after each of them.

1. The machine, and the rate of its largest matrix products, in float32 and in bfloat16.
2. AS-VAE at 64x64 (recipes/asvae_imagenet.toml, the whole objective from its first step), eager: float32, bfloat16,
   channels-last, both; images a second, the share of the measured rate of the products' own type, the largest memory.
3. Every shipped recipe, AS-VAE's with the whole objective from the first step on: 20 steps, finite; the figures of its
   first step beside those of the CPU in float64, from the same random numbers, which are drawn on the CPU for this
   comparison; how often a step between two log events makes the host wait for the device. Figures of updates before
   anything has moved have to agree to float32's rounding. Adam turns rounding of tiny gradients into whole steps, so
   that those after it may lie further apart.
4. torch.compile: "default", and "reduce-overhead", which is CUDA graphs; one at a time, each in a process that is
   stopped when the time is up.
5. A run of one process under torch's launcher, whose gradients go through NCCL (gloo on a CPU), and one without.

Where packages are missing there (cattrs, pluggy, zuko), carry their wheels: the script imports only what a run does.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from data import write_mnist
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from jointgen.config.recipe import read_recipe
from jointgen.contracts.noise import Noise
from jointgen.engine.step import Step
from jointgen.registry.discovery import load_plugins
from jointgen.runtime.torch_settings import switched
from jointgen.training import setup
from jointgen.training.check import check_run
from jointgen.training.trainer import Trainer

REPO = Path(__file__).resolve().parent.parent
RECIPES = REPO / "recipes"
ASVAE = RECIPES / "asvae_imagenet.toml"
WHOLE = ("objective.vae_first=0.0", "objective.ramp=0.0")  # every term from the first step on
QUIET = (
    "train.steps=1000000",
    "train.trackers=[]",
    *(f"train.{what}_every=1000000" for what in ("log", "eval", "sample", "checkpoint")),
)
SMOKE_STEPS = 20
CLOSE = 1e-3  # relative, or absolute below 1: float32 sums of a few hundred thousand numbers
CLOSE_AFTER_A_STEP = 5e-2
EAGER = {
    "float32": (),
    "bfloat16": ("train.precision='bf16'",),
    "channels-last": ("train.channels_last=true",),
    "bfloat16, channels-last": ("train.precision='bf16'", "train.channels_last=true"),
    "float32, rows read batch by batch": ("train.resident='never'",),
}
COMPILED = {
    "compile, default": ("train.compile='default'",),
    "compile, CUDA graphs": ("train.compile='reduce-overhead'",),
    "compile, CUDA graphs, bfloat16, channels-last": (
        "train.compile='reduce-overhead'",
        "train.precision='bf16'",
        "train.channels_last=true",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--recipes", nargs="+", metavar="NAME", help="of the shipped recipes, to try these alone")
    parser.add_argument("--variant", help=argparse.SUPPRESS)  # in a child: time this one, and print JSON
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device; --device cpu tries the script itself")
    with (
        tempfile.TemporaryDirectory() as folder,
        switched(deterministic=False, threads=1 if is_cpu(arguments) else None),
    ):
        bench = Bench(arguments, Path(folder))
        if arguments.variant:
            print(json.dumps(bench.timed(arguments.variant, arguments.batch)))
            return
        bench.clock.ring()
        for name in SECTIONS:
            if name.split(",")[0] in arguments.only:
                bench.section(name)
        signal.setitimer(signal.ITIMER_REAL, 0)
    print(f"\n{bench.clock.spent():.0f} of {60 * arguments.minutes:.0f} s were spent.")


def is_cpu(arguments: argparse.Namespace) -> bool:
    return str(arguments.device) == "cpu"


class OutOfTimeError(BaseException):
    """Raised where what is next would not end within the budget, and by an alarm at its end wherever the program is."""


class Clock:
    """The budget.

    Args:
        minutes: Of wall time, from when it is made.
    """

    def __init__(self, minutes: float):
        self.began, self.seconds = time.monotonic(), 60 * minutes

    def spent(self) -> float:
        return time.monotonic() - self.began

    def left(self) -> float:
        return self.seconds - self.spent()

    def need(self, seconds: float, reserved: float = 0.0) -> None:
        """Raise OutOfTimeError unless so many seconds are left besides the share that is reserved for what follows."""
        if self.left() < seconds + reserved * self.seconds:
            raise OutOfTimeError

    def ring(self) -> None:
        """Raise OutOfTimeError in this program when the budget is spent."""

        def stop(*_: Any) -> None:
            raise OutOfTimeError

        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, max(0.1, self.left()))


class Bench:
    """Everything that is measured, and what was found so far."""

    def __init__(self, arguments: argparse.Namespace, folder: Path):
        self.arguments, self.folder, self.clock = arguments, folder, Clock(arguments.minutes)
        self.device, self.is_cpu = torch.device(arguments.device), is_cpu(arguments)
        self.registry = load_plugins().registry
        self.found: dict[str, Any] = {}
        self.runs = 0

    def section(self, name: str) -> None:
        """Run a section; what the time does not suffice for is said, and what fails too."""
        try:
            SECTIONS[name](self)
        except OutOfTimeError:
            print(f"\n(the rest of {name!r} is left out; {max(0, self.clock.left()):.0f} s are left)", flush=True)
        except Exception as error:  # the other sections are worth their time
            print(f"\n({name!r} failed: {type(error).__name__}: {str(error).splitlines()[:1]})", flush=True)
            self.keep(name, "failed", f"{type(error).__name__}: {error}")

    def keep(self, section: str, name: str, value: Any) -> None:
        """Remember a figure, and write all of them where they come back from."""
        self.found.setdefault(section, {})[name] = value
        if out := os.environ.get("OUT"):
            Path(out, "gpu.json").write_text(json.dumps(self.found, indent=1))

    def wait(self) -> None:
        if not self.is_cpu:
            torch.cuda.synchronize()

    # --- 1. the machine

    def machine(self) -> None:
        name = "CPU" if self.is_cpu else torch.cuda.get_device_name()
        print(f"{name}, torch {torch.__version__}, Python {sys.version.split()[0]}, {time.strftime('%d %B %Y')}\n")
        self.keep("machine", "name", name)
        self.keep("machine", "torch", torch.__version__)
        side = 512 if self.is_cpu else 8192
        for dtype in (torch.float32, torch.bfloat16):
            self.clock.need(5)
            rate = self.product_rate(side, dtype)
            what = str(dtype).removeprefix("torch.")
            self.keep("machine", f"products in {what}", rate)
            print(f"- products of {side}x{side} matrices in {what}: {rate / 1e12:.2f} TFLOP/s", flush=True)

    def product_rate(self, side: int, dtype: torch.dtype) -> float:
        """The operations a second of a product of random matrices, the median of ten after three to warm up."""
        a, b = (torch.randn(side, side, device=self.device).to(dtype) for _ in range(2))
        seconds = []
        for number in range(13):
            self.wait()
            began = time.perf_counter()
            a @ b
            self.wait()
            if number >= 3:
                seconds.append(time.perf_counter() - began)
        return float(2 * side**3 / statistics.median(seconds))

    # --- 2. and 4. AS-VAE 64x64

    def eager(self) -> None:
        self.variants("eager", EAGER, lambda name, batch: self.timed(name, batch), at_least=8)

    def compiled(self) -> None:
        self.variants("compiled", COMPILED, self.timed_in_child, at_least=20 if self.is_cpu else 60, reserved=0.1)

    def variants(
        self,
        section: str,
        which: dict[str, tuple[str, ...]],
        timed: Callable[[str, int], dict[str, Any]],
        at_least: float,
        reserved: float = 0.5,
    ) -> None:
        print("\n| AS-VAE, 64x64 | batch | ms a step | images/s | share of the products' rate | peak memory |")
        print("|---|---|---|---|---|---|")
        for batch in (4,) if self.is_cpu else (32, 256):
            for name in which:
                self.clock.need(at_least, reserved)
                try:
                    found = timed(name, batch)
                except subprocess.SubprocessError as error:
                    print(f"| {name} | {batch} | {type(error).__name__} | | | |", flush=True)
                    continue
                self.keep(section, f"{name}, batch {batch}", found)
                rate = self.found.get("machine", {}).get(f"products in {'bfloat16' if 'bfloat' in name else 'float32'}")
                share = f"{100 * found['flops'] / found['seconds'] / rate:.0f} %" if rate else "?"
                memory = f"{found['memory'] / 2**20:.0f} MiB" if found["memory"] else "?"
                for note in found["eagerly"]:
                    print(f"| {name}, NOT COMPILED: {note} | {batch} | | | | |", flush=True)
                print(
                    f"| {name} | {batch} | {1e3 * found['seconds']:.2f} | {batch / found['seconds']:,.0f} | {share} | "
                    f"{memory} |",
                    flush=True,
                )

    def timed_in_child(self, name: str, batch: int) -> dict[str, Any]:
        """Time a variant in a process of its own, which is killed when the time is up."""
        command = [sys.executable, __file__, f"--device={self.device}", f"--variant={name}", f"--batch={batch}"]
        left = max(1.0, self.clock.left() - 0.1 * self.clock.seconds)
        done = subprocess.run(command, capture_output=True, text=True, timeout=left, check=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    def timed(self, name: str, batch: int) -> dict[str, Any]:
        """The median seconds of a step, its floating-point operations and the largest memory, in bytes."""
        settings = [*WHOLE, *self.arrays((3, 64, 64)), f"train.batch={batch}", *QUIET, *(EAGER | COMPILED)[name]]
        warm_up, window, windows = (4, 4, 2) if self.is_cpu else (20, 20, 9)
        seconds: list[float] = []
        counter = Flops()
        counts = "compile" not in name
        began = 0.0

        def after_step(steps: int) -> bool:
            nonlocal began
            if counts and steps == 4:  # four steps are a period of the penalty
                counter.__enter__()
            if counts and steps == 8:
                counter.__exit__(None, None, None)
            done, rest = divmod(steps - warm_up - 4, window)
            if rest == 0 and done >= 0:
                self.wait()
                now = time.perf_counter()
                if done:
                    seconds.append((now - began) / window)
                elif not self.is_cpu:
                    torch.cuda.reset_peak_memory_stats()
                began = now
            return len(seconds) == windows

        self.train(ASVAE, settings, after_step)
        memory, notes = 0 if self.is_cpu else torch.cuda.max_memory_allocated(), self.notes
        flops = counter.count / 4 if counts else self.flops_of(batch)
        eagerly = [note for note in notes if "eagerly" in note]  # torch.compile failed: no figure of what is compiled
        return {"seconds": statistics.median(seconds), "flops": flops, "memory": memory, "eagerly": eagerly}

    def flops_of(self, batch: int) -> float:
        """Count the operations of an eager step."""
        counter = Flops()

        def after_step(steps: int) -> bool:
            if steps == 4:
                counter.__enter__()
            return steps == 8

        self.train(ASVAE, [*WHOLE, *self.arrays((3, 64, 64)), f"train.batch={batch}", *QUIET], after_step)
        counter.__exit__(None, None, None)
        return counter.count / 4

    def train(self, recipe: Path, settings: list[str], after_step: Callable[[int], bool]) -> Trainer:
        """Train until `after_step`, which is given the number of steps so far, says that it is enough."""
        steps = 0

        def stop() -> int:
            nonlocal steps
            steps += 1
            if after_step(steps):
                raise EnoughError
            return 0

        trainer = self.set_up(recipe, [*settings, f"train.device='{self.device}'"], stop)
        self.notes = list[str]()
        trainer.bar.note = self.notes.append  # type: ignore[method-assign]
        with contextlib.suppress(EnoughError):
            trainer.fit()
        return trainer

    def set_up(self, recipe: Path, settings: list[str], stop: Callable[[], int]) -> Trainer:
        self.runs += 1
        checked = check_run(read_recipe(recipe, settings, registry=self.registry), self.registry)
        with contextlib.redirect_stderr(io.StringIO()):  # remarks on made-up data
            return setup.set_up_training(checked, self.folder / f"run{self.runs}", stop=stop)

    def arrays(self, shape: tuple[int, int, int], labels: bool = False) -> list[str]:
        """Random images in a file, as settings of a recipe; with labels, one of ten classes each."""
        rows = 256 if self.is_cpu else 8192
        for split, count in (("train", rows), ("test", 64)):
            if not (file := self.folder / f"{split}-{shape[-1]}.npz").exists():
                images = np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
                np.savez(file, x=images, y=np.arange(count) % 10)
        paths = {"path": "train", "test_path": "test"}
        files = [f"data.{key}='{self.folder / f'{split}-{shape[-1]}.npz'}'" for key, split in paths.items()]
        variables = "data.variables={x='x', y='y'}" if labels else "data.variables={x='x'}"
        return ["data.type='arrays'", *files, variables, *(["data.classes=10"] if labels else [])]

    # --- 3. every recipe

    def recipes(self) -> None:
        self.try_recipes(reserved=0.35)

    def other_recipes(self) -> None:
        if self.left_recipes():
            self.try_recipes(reserved=0.0)

    def left_recipes(self) -> list[Path]:
        """The recipes that have not been tried yet: those of the paper's model first."""
        paths = sorted(RECIPES.rglob("*.toml"), key=lambda path: (path.parent != RECIPES, path.stem))
        wanted, tried = self.arguments.recipes, self.found.get("recipes", {})
        return [path for path in paths if path.stem not in tried and (not wanted or path.stem in wanted)]

    def try_recipes(self, reserved: float) -> None:
        print("\n| recipe | 20 steps | first figures, from the CPU's float64 | after a step | waits a step | seconds |")
        print("|---|---|---|---|---|---|")
        for path in self.left_recipes():
            self.clock.need(5, reserved)
            began = time.monotonic()
            try:
                found = self.smoke(path)
            except Exception as error:  # one recipe that fails must not keep the others from being tried
                found = {"status": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"}
            found["seconds"] = round(time.monotonic() - began, 1)
            self.keep("recipes", path.stem, found)
            cells = [shown(found.get(key)) for key in ("status", "first", "later", "waits", "seconds")]
            print(f"| {path.stem} | {' | '.join(cells)} |", flush=True)
        tried = self.found.get("recipes", {})
        failed = [name for name, one in tried.items() if one["status"] != "finite" or not one["is_close"]]
        print(f"\n{len(tried)} recipes; {len(failed)} are not finite, or not close: {', '.join(failed) or 'none'}")

    def smoke(self, path: Path) -> dict[str, Any]:
        """Train a recipe for some steps, and compare its first step with the CPU's in float64."""
        settings = [*QUIET, f"train.steps={SMOKE_STEPS}", *self.made_up(path), "train.batch=16"]
        waits, on_cpu = Waits(self.device), contextlib.ExitStack()
        on_cpu.enter_context(from_the_cpu())

        def after_step(steps: int) -> bool:
            if steps == 1:
                on_cpu.close()  # numbers that are drawn there are waited for
            if steps == 10:
                waits.__enter__()
            if steps == 14:
                waits.__exit__(None, None, None)
            return steps == SMOKE_STEPS

        with cheap_start(), on_cpu, recorded_figures() as figures:
            trainer = self.train(path, settings, after_step)
            is_finite = trainer.state.window.first_non_finite() is None
            with from_the_cpu(), contextlib.suppress(EnoughError):
                self.set_up(path, [*settings, "train.device='cpu'", "train.precision='fp64'"], enough).fit()
        updates = [update.name for update in trainer.compiled.plans[0].updates]
        at_once = updates if trainer.compiled.plans[0].objective.order == "same point" else updates[:1]
        ours, exact = figures[0], figures[-1]
        differences = {name: difference(ours[name], exact[name]) for name in exact if not is_norm(name)}
        # the terms of an update stand in front of its loss
        place = list(exact).index(f"{at_once[-1]}/loss") if f"{at_once[-1]}/loss" in exact else len(exact)
        first = set(list(exact)[: place + 1])
        of_first = max((d for name, d in differences.items() if name in first), default=0.0)
        of_later = max((d for name, d in differences.items() if name not in first), default=None)
        is_close = of_first < CLOSE and (of_later is None or of_later < CLOSE_AFTER_A_STEP)
        return {
            "status": "finite" if is_finite else "not finite",
            "first": of_first,
            "later": of_later,
            "waits": waits.count / 4,
            "is_close": is_close,
        }

    def made_up(self, path: Path) -> list[str]:
        """Settings that give a recipe random images in the files that its data source reads."""
        recipe, settings = read_recipe(path, registry=self.registry), list[str]()
        for part, source in recipe.all_sources().items():
            table, kind = "data" if part == "data" else f"sources.{part}", type(source).__name__
            if kind == "CIFAR10":  # it checks that its files are the published ones
                settings += self.arrays((3, 32, 32), labels=source.labels)
            elif kind in FILES:
                root = self.folder / kind
                if not root.exists():
                    FILES[kind](root)
                settings.append(f"{table}.root='{root}'")
        return [*settings, *(WHOLE if hasattr(recipe.objective, "vae_first") else ())]

    # --- 5. processes

    def process(self) -> None:
        backend = "gloo" if self.is_cpu else "NCCL"
        print("\n| AS-VAE, 64x64, a whole short run | images/s |\n|---|---|")
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
        for name, command in (("alone", [sys.executable]), (f"launched, one process, {backend}", launcher)):
            self.clock.need(15 if self.is_cpu else 25)
            rate = self.run_of(command)
            self.keep("process", name, rate)
            print(f"| {name} | {rate:,.0f} |", flush=True)

    def run_of(self, command: list[str]) -> float:
        """The images a second of a run in a process of its own, between its first log event and its last."""
        self.runs += 1
        out = self.folder / f"run{self.runs}"
        batch, steps, every = (4, 8, 4) if self.is_cpu else (256, 300, 50)
        settings = [*WHOLE, *self.arrays((3, 64, 64)), *QUIET, f"train.batch={batch}", f"train.device='{self.device}'"]
        settings += [
            f"train.steps={steps}",
            f"train.log_every={every}",
            "eval.rows=8",
            "eval.samples=4",
            "eval.metrics=[]",
        ]
        run = ["-m", "jointgen", "run", str(ASVAE), f"--out={out}", *(f"--set={one}" for one in settings)]
        subprocess.run([*command, *run], check=True, capture_output=True, timeout=max(1.0, self.clock.left()), cwd=REPO)
        events = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        first, last = (event for event in (events[0], [e for e in events if "images_seen" in e][-1]))
        return float((last["images_seen"] - first["images_seen"]) / (last["wall_s"] - first["wall_s"]))


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "machine": Bench.machine,
    "eager": Bench.eager,
    "recipes": Bench.recipes,
    "compiled": Bench.compiled,
    "process": Bench.process,
    "recipes, those left": Bench.other_recipes,
}
NAMES = [name for name in SECTIONS if "," not in name]


class EnoughError(Exception):
    """Raised to leave the trainer's loop."""


def enough() -> int:
    raise EnoughError


def shown(value: Any) -> str:
    if isinstance(value, float) and 0 < abs(value) < 0.01:
        return f"{value:.0e}"
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def is_norm(name: str) -> bool:
    return name.endswith("/grad_norm")


def difference(a: Tensor, b: Tensor) -> float:
    """How far two figures lie apart, relative to the second where that is above 1."""
    x, y = float(a), float(b)
    return abs(x - y) / max(1.0, abs(y)) if math.isfinite(x) and math.isfinite(y) else math.inf


# --- the first step, comparable --------------------------------------------------------------------------------------


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def cheap_start() -> Iterator[None]:
    """Leave out the check of gradients on a CPU, which every test run makes."""
    with replaced(setup, "check_gradients", lambda compiled, split: {}):
        yield


@contextlib.contextmanager
def from_the_cpu() -> Iterator[None]:
    """Draw all noise on the CPU in float32, whatever the device and the precision: other devices draw other numbers."""

    def numbers(self: Noise, key: str, kind: str, shape: tuple[int, ...]) -> Tensor:
        name = Noise(self.seed, self.step).generator(key)
        draw = torch.randn if kind == "normal" else torch.rand
        rows, *event = shape
        every = draw(rows * self.world, *event, generator=name)
        return every[self.rank * rows : (self.rank + 1) * rows].to(self.device, self.dtype)

    with replaced(Noise, "numbers", numbers):
        yield


@contextlib.contextmanager
def recorded_figures() -> Iterator[list[dict[str, Tensor]]]:
    """Record the figures of every step."""
    found: list[dict[str, Tensor]] = []
    call = Step.__call__

    def recording(self: Step, *given: Any, **named: Any) -> Any:
        found.append(call(self, *given, **named))
        return found[-1]

    with replaced(Step, "__call__", recording):
        yield found


class Flops(TorchDispatchMode):
    """Counts the floating-point operations of products and convolutions.

    Torch's own FlopCounterMode also names the modules, for which it hooks into backward passes that inner gradients
    cannot have.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        result = function(*arguments, **(options or {}))
        if (count := flop_registry.get(function._overloadpacket)) is not None:
            self.count += count(*arguments, **(options or {}), out_val=result)
        return result


READS = ("aten._local_scalar_dense", "aten.equal", "aten.nonzero", "aten.masked_select", "aten.is_nonzero")


class Waits(TorchDispatchMode):
    """Counts how often the host waits for the device: torch's own warnings on CUDA, operations that would on a CPU.

    On a CPU the planar flow ends its rounds where they have settled; here it runs them all, as an accelerator does.
    """

    def __init__(self, device: torch.device):
        super().__init__()
        self.device, self.count, self.caught = device, 0, contextlib.ExitStack()

    def __enter__(self) -> Any:
        if self.device.type != "cuda":
            self.caught.enter_context(mock.patch("jointgen_families.flows.recursion.may_look", lambda x: False))
            return super().__enter__()
        self.warned = self.caught.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        return self

    def __exit__(self, *error: Any) -> None:
        if self.device.type != "cuda":
            super().__exit__(*error)
            self.caught.close()
            return
        torch.cuda.set_sync_debug_mode("default")
        self.count += sum("synchroniz" in str(one.message) for one in self.warned)
        self.caught.close()

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        self.count += str(function.overloadpacket) in READS
        return function(*arguments, **(options or {}))


# --- made-up files ---------------------------------------------------------------------------------------------------


def write_folders(root: Path) -> None:
    """Write a folder of small images for each of two classes and both splits."""
    generator = np.random.default_rng(0)
    for split, rows in (("train", 64), ("val", 16)):
        for name in ("a", "b"):
            (folder := root / split / name).mkdir(parents=True)
            for number in range(rows):
                Image.fromarray(generator.integers(0, 256, (72, 72, 3), np.uint8)).save(folder / f"{number}.png")


FILES: dict[str, Callable[[Path], None]] = {
    "MNIST": lambda root: write_mnist(root, 4096),
    "ImageFolder": write_folders,
}


if __name__ == "__main__":
    main()
