"""Times our planar flows beside those of Pyro and normflows, zuko's IAF and coupling, and a plain bisection.

    uv run --with pyro-ppl --with normflows python benchmarks/flows.py [--device cuda] [--quick]

Prints a Markdown table: milliseconds of one forward and backward pass (of all points and all parameters) and peak
memory above what the inputs take, batch 128, float32, one thread on a CPU. All implementations of a row are timed in
turns in one process, so their ratios stand whatever else the machine does; on a CPU it is the process's own time.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import normflows
import pyro.distributions.transforms as pyro_transforms
import torch
import zuko
from jointgen_families.flows.planar import PlanarTransform, bent
from torch import Tensor, nn

BATCH = 128
Pass = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repetitions")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lengths, sizes = ((10, 80), (16, 40, 64, 784)) if not arguments.quick else ((80,), (16, 64))
    rounds = 3 if arguments.quick else 7
    for title, make in TABLES.items():
        print(f"\n### {title}\n")
        for number, (K, D) in enumerate((K, D) for K in lengths for D in sizes):
            torch.manual_seed(0)
            row(number == 0, K, D, make(K, D, arguments.device), rounds, arguments.device)


def row(is_first: bool, K: int, D: int, passes: dict[str, Pass], rounds: int, device: str) -> None:
    """Return a line of a table: time and peak memory of each implementation, and the fastest other's time over ours."""
    memory = {name: peak_mebibytes(one, device) for name, one in passes.items()}
    times = timed(passes, rounds, device)
    ours, *others = passes
    if is_first:
        print("| K | D | " + " | ".join(passes) + " | fastest other / ours |")
        print("|---|---|" + "---|" * (len(passes) + 1))
    cells = [f"{1e3 * times[name]:.1f} ms, {memory[name]:.0f} MiB" for name in passes]
    ratio = min(times[name] for name in others) / times[ours]
    print(f"| {K} | {D} | " + " | ".join(cells) + f" | {ratio:.1f} |", flush=True)


# --- measuring -------------------------------------------------------------------------------------------------------


def timed(passes: dict[str, Pass], rounds: int, device: str) -> dict[str, float]:
    """Return the median seconds of each implementation, timed in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for number in range(rounds + 1):
        for name, one in passes.items():
            start = now(device)
            one()
            if number:  # the first round warms up
                seconds[name].append(now(device) - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def now(device: str) -> float:
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def peak_mebibytes(one: Pass, device: str) -> float:
    """Return the growth of memory at its peak. On a CPU it is that of a child process, counted from the fork."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        one()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    reader, writer = os.pipe()
    if os.fork() == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        one()
        os.write(writer, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before).encode())
        os._exit(0)
    os.wait()
    os.close(writer)
    with os.fdopen(reader) as answer:
        return int(answer.read()) / 1024


def backward(of: Callable[[], tuple[Tensor, Tensor]], leaves: list[Tensor]) -> Pass:
    """Return a function that runs a forward pass, and the gradient of the sum of its outputs for `leaves`."""

    def one() -> None:
        z, log_det = of()
        torch.autograd.grad(z.sum() + log_det.sum(), leaves, allow_unused=True)

    return one


def leaf(*shape: int, scale: float = 1.0, device: str) -> Tensor:
    return (scale * torch.randn(*shape, device=device)).requires_grad_()


# --- planar, forward -------------------------------------------------------------------------------------------------


def amortized(K: int, D: int, device: str) -> dict[str, Pass]:
    """Compare layers that differ by row: ours, a plain loop over the layers, and Pyro's ConditionalPlanar."""
    z = leaf(BATCH, D, device=device)
    u, w = (leaf(BATCH, K, D, scale=0.1, device=device) for _ in range(2))
    b = leaf(BATCH, K, scale=0.1, device=device)
    leaves = [z, u, w, b]
    return {
        "jointgen": backward(lambda: PlanarTransform(u, w, b).forward(z), leaves),
        "plain loop": backward(lambda: plain(z, u, w, b), leaves),
        "Pyro": backward(lambda: through_pyro(z, [conditioned(u, w, b, k) for k in range(K)]), leaves),
    }


def shared(K: int, D: int, device: str) -> dict[str, Pass]:
    """Compare one set of layers for all rows: ours, normflows' and Pyro's."""
    z = leaf(BATCH, D, device=device)
    u, w, b = (leaf(*shape, scale=0.1, device=device) for shape in ((K, D), (K, D), (K,)))
    theirs = nn.ModuleList(normflows.flows.Planar((D,)) for _ in range(K)).to(device)
    pyros = nn.ModuleList(pyro_transforms.Planar(D) for _ in range(K)).to(device)
    return {
        "jointgen": backward(lambda: PlanarTransform(u, w, b).forward(z), [z, u, w, b]),
        "normflows": backward(lambda: through(z, theirs), [z, *theirs.parameters()]),
        "Pyro": backward(lambda: through_pyro(z, list(pyros)), [z, *pyros.parameters()]),
    }


def plain(z: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    _, e = bent((u * w).sum(-1, keepdim=True), w.square().sum(-1, keepdim=True))
    u, total = u + e * w, z.new_zeros(len(z))
    for k in range(u.shape[-2]):
        h = torch.tanh((w[..., k, :] * z).sum(-1) + b[..., k])
        total = total + torch.log1p((1 - h * h) * (u[..., k, :] * w[..., k, :]).sum(-1))
        z = z + u[..., k, :] * h[:, None]
    return z, total


def through(z: Tensor, layers: nn.ModuleList) -> tuple[Tensor, Tensor]:
    total = z.new_zeros(len(z))
    for layer in layers:
        z, log_det = layer(z)
        total = total + log_det
    return z, total


def through_pyro(z: Tensor, layers: list) -> tuple[Tensor, Tensor]:  # type: ignore[type-arg]
    total, z = z.new_zeros(len(z)), z * 1  # Pyro keeps the last input and its result: a new tensor each time
    for layer in layers:
        out = layer(z)
        total, z = total + layer.log_abs_det_jacobian(z, out), out
    return z, total


def conditioned(u: Tensor, w: Tensor, b: Tensor, k: int) -> pyro_transforms.ConditionedPlanar:
    transform = pyro_transforms.ConditionalPlanar(lambda context: (b[:, k, None], u[:, k], w[:, k]))
    return transform.condition(None)


# --- planar, inverse -------------------------------------------------------------------------------------------------


def inverted(K: int, D: int, device: str) -> dict[str, Pass]:
    """Compare the inverse at foreign points with a bisection of every layer in float64 on D-dimensional vectors.

    The bisection has no gradient: its time is that of the forward pass alone, ours of both passes.
    """
    y = leaf(BATCH, D, device=device)
    u, w = (leaf(BATCH, K, D, scale=0.1, device=device) for _ in range(2))
    b = leaf(BATCH, K, scale=0.1, device=device)
    doubles = [x.detach().double() for x in (y, u, w, b)]
    ours = PlanarTransform(u, w, b)
    return {
        "jointgen, with gradients": backward(lambda: ours.inverse(y), [y, u, w, b]),
        "bisection, no gradients": no_grad(partial(bisected, *doubles)),
    }


def no_grad(run: Callable[[], object]) -> Pass:
    def one() -> None:
        with torch.no_grad():
            run()

    return one


def bisected(z: Tensor, u: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    c, e = bent((u * w).sum(-1), w.square().sum(-1))
    u, total = u + e[..., None] * w, z.new_zeros(len(z))
    for k in reversed(range(u.shape[1])):
        t, own = (w[:, k] * z).sum(-1), c[:, k]
        low, high = t - own.abs(), t + own.abs()
        for _ in range(56):
            middle = (low + high) / 2
            is_above = middle + own * torch.tanh(middle + b[:, k]) > t
            low, high = torch.where(is_above, low, middle), torch.where(is_above, middle, high)
        h = torch.tanh((low + high) / 2 + b[:, k])
        z, total = z - u[:, k] * h[:, None], total + torch.log1p(own * (1 - h * h))
    return z, total


# --- other flows -----------------------------------------------------------------------------------------------------


def others(K: int, D: int, device: str) -> dict[str, Pass]:
    """Compare planar layers with zuko's affine IAF and coupling of equally many steps, hidden layers (64, 64)."""
    z = leaf(BATCH, D, device=device)
    u, w, b = (leaf(*shape, scale=0.1, device=device) for shape in ((K, D), (K, D), (K,)))
    # sampling from an IAF is one pass of an autoregressive transform, as scoring with a MAF is
    iaf = zuko.flows.MAF(D, transforms=K, hidden_features=(64, 64)).to(device)
    coupling = zuko.flows.NICE(D, transforms=K, hidden_features=(64, 64)).to(device)
    return {
        "jointgen planar": backward(lambda: PlanarTransform(u, w, b).forward(z), [z, u, w, b]),
        "zuko IAF": backward(lambda: iaf.transform().call_and_ladj(z), [z, *iaf.parameters()]),
        "zuko coupling": backward(lambda: coupling.transform().call_and_ladj(z), [z, *coupling.parameters()]),
    }


TABLES: dict[str, Callable[[int, int, str], dict[str, Pass]]] = {
    "Planar, layers of each row's own (amortised), forward and backward": amortized,
    "Planar, one set of layers, forward and backward": shared,
    "Planar, inverse at foreign points": inverted,
    "Planar (one set of layers) beside zuko's flows, forward and backward": others,
}


# --- round trips -----------------------------------------------------------------------------------------------------


def round_trips() -> Iterator[str]:
    """Measure the error of a round trip, K = 80, D = 40, beside a plain bisection (docs/concepts/densities.md)."""
    yield "| scale | float64 | float64, margin 0.2 | float32 there, float64 back | plain bisection: fp32, fp64 |"
    yield "|---|---|---|---|---|"
    for scale, known in {0.1: "3e-6, 5e-15", 0.3: "1e-3, 6e-12", 0.6: "5, 2e-7", 1.0: "13, 2e-6 to 2e-5"}.items():
        torch.manual_seed(0)
        z0, u, w, b = (
            torch.randn(*shape, dtype=torch.float64) for shape in ((BATCH, 40), *2 * [(BATCH, 80, 40)], (BATCH, 80))
        )
        layers = [scale * x for x in (u, w, b)]
        cells = [error(z0, layers), error(z0, layers, 0.2), error(z0.float(), [x.float() for x in layers])]
        yield f"| {scale} | " + " | ".join(f"{cell:.0e}" for cell in cells) + f" | {known} |"


def error(z0: Tensor, layers: list[Tensor], margin: float = 0.0) -> float:
    flow = PlanarTransform(*layers, margin=margin)
    return float((flow.inverse(flow.forward(z0)[0])[0] - z0).abs().max())


if __name__ == "__main__":
    main()
    print("\n### Round trip of the inverse\n")
    print("\n".join(round_trips()))
