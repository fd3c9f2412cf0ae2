"""pythae's trainer on its VAE beside `jointgen.run`: the same MLPs, bits, batch, loss and number of rows.

    uv pip install --target DIR --no-deps pythae pydantic pydantic-core annotated-types typing-inspection \
        cloudpickle imageio
    PYTHONPATH=DIR python benchmarks/against_pythae.py [--mnist DIR] [--epochs 2]

(pythae is no dependency of this repository; --no-deps keeps it from replacing torch. Give pydantic-core the version
that pydantic names.) Both train in one process in turns on one thread, from the same weights. Figures are medians over
rounds of the process's own time for an image and of the ratio within a round: for the epochs alone, and for the whole
call: theirs checks the data, trains and saves the model; ours checks every gradient, trains, keeps averaged weights
and a log, writes checkpoint and pictures, and evaluates `--eval-rows` images.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from bare import mlp, starting_at
from torch import Tensor, nn

import jointgen
from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.recipe import read_recipe
from jointgen.data.split import open_split
from jointgen.registry.discovery import load_plugins
from jointgen.runtime.workers import Workers
from jointgen.training.setup import place_parts, start_at_mean

try:
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
except ImportError as error:
    sys.exit(f"pythae is not installed ({error}): see the first lines of {__file__}")

RECIPE = Path(__file__).parent.parent / "recipes" / "vae_mnist.toml"
BATCH, ROWS = 128, 128 * 150  # whole batches, so that both see every row of an epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", help="the folder that holds MNIST/raw; random bits without it")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--eval-rows", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments, Path(folder))


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    bits = some_bits(arguments.mnist)  # (ROWS, 1, 28, 28) of 0 and 1
    np.savez(folder / "bits.npz", x=bits.numpy())
    settings = overrides(folder / "bits.npz", arguments)
    check_parity(settings, bits[:BATCH].float())
    found: dict[str, list[float]] = {}
    for number in range(arguments.rounds + 1):
        runs = [(jointgen_run, settings), (pythae_run, bits)]
        for run, given in runs if number % 2 else runs[::-1]:
            times = run(given, folder / f"{run.__name__}-{number}", arguments.epochs, settings)
            for what, seconds in times.items():
                if number:  # the first round warms up
                    found.setdefault(what, []).append(seconds / (ROWS * arguments.epochs))
    print("| | pythae, us an image | jointgen | jointgen / pythae |\n|---|---|---|---|")
    for what in ("epochs", "whole call"):
        ours, theirs = found[f"jointgen {what}"], found[f"pythae {what}"]
        ratio = median(a / b for a, b in zip(ours, theirs, strict=True))
        print(f"| {what} | {1e6 * median(theirs):.1f} | {1e6 * median(ours):.1f} | {ratio:.3f} |")


def some_bits(root: str | None) -> Tensor:
    if root is None:
        return (torch.rand(ROWS, 1, 28, 28, generator=torch.Generator().manual_seed(0)) < 0.13).to(torch.uint8)
    recipe = read_recipe(RECIPE, [f"data.root='{root}'"], registry=load_plugins().registry)
    return (recipe.data.open("train").take(torch.arange(ROWS))["x"] > 127).to(torch.uint8)


def overrides(file: Path, arguments: argparse.Namespace) -> list[str]:
    """Return settings that are pythae's: fixed bits, the KL in closed form, and all rows for training."""
    data = ["data.type='arrays'", f"data.path='{file}'", f"data.test_path='{file}'", "data.observe='binarise'"]
    loop = [f"train.steps={ROWS // BATCH * arguments.epochs}", f"train.batch={BATCH}", "train.device='cpu'"]
    once = [f"train.{what}_every=1000000" for what in ("eval", "sample", "checkpoint")]
    rest = ["data.levels=2", "objective.analytic=true", "optimizer.model.decay_from=1.0"]
    return [*data, *loop, *once, *rest, f"eval.rows={arguments.eval_rows}"]


# --- ours ------------------------------------------------------------------------------------------------------------


def jointgen_run(settings: list[str], out: Path, epochs: int, _: list[str]) -> dict[str, float]:
    marks: list[float] = []

    def after_step() -> int:
        marks.append(time.process_time())
        return 0

    begin = time.process_time()
    run = jointgen.run(RECIPE, settings, out=out, quiet=True, stop=after_step)
    whole = time.process_time() - begin
    assert run.summary["images_seen"] == ROWS * epochs
    per_step = (marks[-1] - marks[0]) / (len(marks) - 1)  # the first step has no beginning
    return {"jointgen epochs": per_step * len(marks), "jointgen whole call": whole}


def built(settings: list[str]) -> Any:
    registry = load_plugins().registry
    compiled = compile_recipe(read_recipe(RECIPE, settings, registry=registry), registry)
    start_at_mean(compiled, open_split(compiled.binding, "train"))
    return place_parts(compiled, Workers.start(compiled.recipe.train.device, compiled.recipe.train.precision))


# --- theirs ----------------------------------------------------------------------------------------------------------


class Encoder(BaseEncoder):
    def __init__(self, config: Any, theirs: Any):
        BaseEncoder.__init__(self)
        self.network = starting_at(mlp(config, 784, 32), theirs.trunk)
        self.offset = nn.Parameter(theirs.family.offset.detach().clone())

    def forward(self, x: Tensor) -> ModelOutput:
        mean, log_scale = self.network(2 * x - 1).chunk(2, 1)
        return ModelOutput(embedding=mean + self.offset, log_covariance=2 * log_scale.clamp(-6, 3))


class Decoder(BaseDecoder):
    def __init__(self, config: Any, theirs: Any):
        BaseDecoder.__init__(self)
        self.network = starting_at(mlp(config, 16, 784), theirs.trunk)
        self.offset = nn.Parameter(theirs.family.offset.detach().clone())

    def forward(self, z: Tensor) -> ModelOutput:
        logits = self.network(z).view(-1, 1, 28, 28) + self.offset
        return ModelOutput(reconstruction=torch.sigmoid(logits))


def pythae_model(settings: list[str]) -> VAE:
    recipe, parts = read_recipe(RECIPE, settings, registry=load_plugins().registry), built(settings)
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=16, reconstruction_loss="bce")
    encoder = Encoder(recipe.encoder.network, parts.modules["encoder"])
    decoder = Decoder(recipe.decoder.network, parts.modules["decoder"])
    return VAE(config, encoder=encoder, decoder=decoder)


def pythae_run(bits: Tensor, out: Path, epochs: int, settings: list[str]) -> dict[str, float]:
    model = pythae_model(settings)
    spent: list[float] = []
    rows: list[int] = []
    original = BaseTrainer.train_step

    def train_step(self: BaseTrainer, epoch: int) -> Any:
        begin = time.process_time()
        loss = original(self, epoch)
        spent.append(time.process_time() - begin)
        rows.append(len(self.train_loader.dataset))
        return loss

    config = BaseTrainerConfig(str(out), BATCH, num_epochs=epochs, learning_rate=1e-3, no_cuda=True)
    config.per_device_train_batch_size = BATCH
    BaseTrainer.train_step = train_step
    begin = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        TrainingPipeline(model, config)(bits.float())
    whole = time.process_time() - begin
    BaseTrainer.train_step = original
    assert sum(rows) == ROWS * epochs
    return {"pythae epochs": sum(spent), "pythae whole call": whole}


# --- the same model --------------------------------------------------------------------------------------------------


def check_parity(settings: list[str], x: Tensor) -> None:
    """Check that both have equally many parameters, and the same loss of the same rows with the same noise."""
    parts, theirs = built(settings), pythae_model(settings)
    count = sum(p.numel() for p in parts.modules.parameters())
    assert count == sum(p.numel() for p in theirs.parameters()), "the networks differ"
    eps = torch.randn(len(x), 16)
    theirs._sample_gauss = lambda mean, scale: (mean + eps * scale, eps)
    with torch.no_grad():
        law = parts.modules["encoder"](x)
        rate = law.kl_to(parts.modules["prior"](len(x)))
        ours = (rate - parts.modules["decoder"](law.mean + law.scale * eps).log_prob(x)).mean()
        loss = theirs(BaseDataset(x, torch.zeros(len(x)))[:]).loss
    assert abs(ours - loss) < 1e-5 * abs(loss), f"the losses differ: {ours} and {loss}"
    print(f"{count:,} parameters each; loss of {len(x)} rows {ours:.4f} and {loss:.4f}\n")


if __name__ == "__main__":
    main()
