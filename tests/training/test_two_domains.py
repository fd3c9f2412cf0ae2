"""A data source in the place of the prior: two sets of images, trained, drawn from and refused where it must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jointgen_ali.objective import ALI
from jointgen_data.digits import Digits
from jointgen_vae.objective import VAE
from PIL import Image
from support.models import small_model
from support.paths import REPO
from torch import Tensor

import jointgen
from jointgen.contracts.noise import Noise
from jointgen.data.row_order import RowOrder
from jointgen.errors import ConfigError
from jointgen.objectives import elbo, p, q

SMALL = {
    "encoder.network.hidden": [128],
    "decoder.network.hidden": [128],
    "discriminator.hidden": [128],
    "train.steps": 600,
    "train.sample_every": 300,
    "train.eval_every": 1000,
    "eval.rows": 64,
    "eval.samples": 8,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The shipped recipe, smaller. Tests only read it."""
    out = tmp_path_factory.mktemp("two") / "run"
    return jointgen.run(REPO / "recipes" / "two_domains.toml", SMALL, out=out, quiet=True)


def negatives(rows: int) -> Tensor:
    """Held-out rows of z, in model space, at the centres of their bins."""
    raw = Digits(negative=True).open("test").take(torch.arange(rows))["x"]
    return (raw + 0.5) / 17


def there(run: Any, joint: str, **known: Tensor) -> dict[str, Tensor]:
    (rows,) = map(len, known.values())
    drawn: dict[str, Tensor] = run.model.draw(joint, known, rows, run.model.noise(0, "there"), "mean")
    return drawn


def test_each_domain_becomes_the_other(run: Any) -> None:
    """A digit is dark with mean 0.31 (of 1), its negative light: 0.69 by hand, up to a bin's width of 1/17."""
    x = 1 - negatives(200)
    z = there(run, "q", x=x)["z"]
    back = there(run, "p", z=z)["x"]
    assert z.mean().item() == pytest.approx(1 - x.mean().item(), abs=0.1)
    assert (x - back).abs().mean() < 0.7 * (x - x.mean(0)).abs().mean()  # the mean image is what no code leaves


def test_pictures_show_both_domains(run: Any) -> None:
    names = {path.name for path in (run.path / "samples").iterdir()}
    assert {"samples-x-step-00000600.png", "samples-z-step-00000600.png", "reconstructions-step-00000600.png"} <= names
    assert len(names) == 6
    light = {}
    for name in "xz":
        with Image.open(run.path / "samples" / f"samples-{name}-step-00000600.png") as image:
            light[name] = np.asarray(image).mean()
    assert light["z"] > light["x"] + 50


def test_a_model_with_data_for_a_prior_has_no_bound_and_says_why(run: Any) -> None:
    summary = json.loads((run.path / "summary.json").read_text())["metrics"]
    for name in ("elbo", "bits_per_dim"):
        assert summary[name]["value"] is None
        assert summary[name]["note"] == "no bound: p(z) is data, whose density is not known, so there is no bound"
    with pytest.raises(ConfigError, match=r"p\(z\) is data, whose density is not known"):
        elbo(q, p, lambda factor: factor.is_root)


def test_samples_are_made_from_held_out_rows_of_the_other_domain(run: Any, say: Any, here: Path) -> None:
    """x at z = row i of the second source's test split; after its 297 rows the first one comes again."""
    assert say("sample", run.path, "-n", 300, "-o", "a.npz").out.startswith("a.npz: 300 samples of x")
    x = torch.from_numpy(np.load("a.npz")["x"])
    expected = there(run, "p", z=negatives(297))["x"]
    others = (x[:297] - expected.flip(0)).abs().mean()
    assert (x[:297] - expected).abs().mean() < 0.3 * others  # apart by the noise of dequantising z alone
    assert (x[297:] - expected[:3]).abs().mean() < 0.3 * others
    with pytest.raises(ConfigError, match=r"p\(z\) is a data root: give its values"):
        run.model.draw("p", {}, 4, run.model.noise(0, "there"))


# --- what is refused --------------------------------------------------------------------------------------------------

SECOND: dict[str, Any] = {"prior": None, "sources": {"prior": {"type": "moons", "rows": 64}}}


def test_a_source_takes_the_place_of_the_prior() -> None:
    declared = small_model(ALI().objective(), **SECOND).compiled.binding
    assert declared.traits["prior"].kind == "data"
    assert declared.data_parts == ["data", "prior"]


def test_its_density_is_not_asked_for() -> None:
    with pytest.raises(ConfigError) as caught:
        small_model(VAE().objective(), **SECOND)
    assert caught.value.lines == [
        "objective: log p(z): the data's density is not known; z is drawn from the data source 'sources.prior': use a "
        "prior that has a density, or an objective that only draws from it"
    ]


def test_a_missing_prior_says_what_can_take_its_place() -> None:
    with pytest.raises(ConfigError) as caught:
        small_model(ALI().objective(), prior=None)
    assert caught.value.lines == [
        "prior: missing; the objective draws p(z) from it; give it, or sources.prior, a data source whose rows take "
        "its place; the recipe has data"
    ]


def test_a_prior_and_a_source_of_its_name() -> None:
    with pytest.raises(ConfigError, match="prior: two parts have this name"):
        small_model(ALI().objective(), sources=SECOND["sources"])


# --- rows of two sources ----------------------------------------------------------------------------------------------


def test_rows_of_two_sources_are_not_paired(tmp_path: Path) -> None:
    """The same images in both: in one order each batch would show both networks the same rows side by side."""
    rows = Digits().open("train")
    one, other = (RowOrder(rows, 100, seed=0, order=order).rows_of(0) for order in ("order of rows", "of prior"))
    assert (one == other).sum() < 5  # of 100 at a chance of 1/1500 each
    named = Noise(0, "epoch 0").generator("order of rows")
    assert torch.equal(one, torch.randperm(len(rows), generator=named)[:100])
