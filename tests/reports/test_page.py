"""report.html without a browser: what stands in it, and that it loads nothing and runs nothing of the user's."""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
import shutil
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import plotly.offline
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA
from support.commands import in_words
from support.paths import QUICKSTART
from support.tampering import SPECIAL
from torch import Tensor

import jointgen
from jointgen.config.documents import as_document
from jointgen.contracts.figures import Estimate
from jointgen.contracts.noise import Noise
from jointgen.contracts.space import Space
from jointgen.data.split import open_split
from jointgen.errors import ConfigError, WriteError
from jointgen.reports.comparison.runs import read_runs
from jointgen.reports.page import figures, training_pictures
from jointgen.reports.page.codes import (
    code_map,
    interpolation_rows,
    interpolations,
    map_codes,
    principal_plane,
    traversal,
)
from jointgen.reports.page.curves import curves, frame, thinned
from jointgen.reports.page.equation import typeset
from jointgen.reports.run_figures import RunFigures, figures_of_run
from jointgen.runs.log_file import LogEvent
from jointgen.runs.records import Evaluation, Summary

LOADS = {"src", "href", "srcset", "data", "poster", "action", "background"}


class Page(HTMLParser):
    """The elements of a page, and its text outside of scripts and styles."""

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.title = ""
        self._within = ""
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "title":
            self.title += data
        if self._within not in ("script", "style"):
            self.text.append(data)

    def __contains__(self, text: str) -> bool:
        return " ".join(text.split()) in " ".join(" ".join(self.text).split())


@pytest.fixture
def copied(trained: Path, here: Path) -> Path:
    """A run that may be changed."""
    shutil.copytree(trained, "run")
    return Path("run")


@pytest.fixture
def reported(say: Callable[..., Any], copied: Path) -> Callable[[], Page]:
    """Writes the page of the copied run anew, and reads it."""

    def report() -> Page:
        said = say("report", copied)
        assert said.status == 0, said
        assert said.out == f"{copied / 'report.html'}: the run's page, for a browser\n"
        return Page(copied / "report.html")

    return report


def test_a_run_records_what_the_keys_of_its_data_mean(trained: Path) -> None:
    summary = json.loads((trained / "summary.json").read_text())
    assert summary["data_keys"] == {"data": {"observe": "reading", "labels": "loading"}}


# --- the file --------------------------------------------------------------------------------------------------------


def test_a_run_writes_its_page_and_the_command_writes_the_same(trained: Path, reported: Callable[[], Page]) -> None:
    """Bit for bit, pictures included."""
    assert reported().html == (trained / "report.html").read_text(encoding="utf-8")


def test_nothing_is_loaded_from_anywhere(trained: Path) -> None:
    page = Page(trained / "report.html")
    links = [value for _, attributes in page.elements for name, value in attributes.items() if name in LOADS and value]
    assert {link.partition(":")[0] if ":" in link else link[0] for link in links} == {"data", "#"}
    assert not [tag for tag, _ in page.elements if tag in ("link", "iframe", "object", "embed", "base")]
    styles = page.html.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in styles and "@import" not in styles
    (policy,) = [a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none'; img-src data: blob:;")


def test_the_library_that_draws_stands_gzipped_in_the_page(trained: Path) -> None:
    """It is plotly's own text, and the page with it is below 2.3 MB."""
    page = (trained / "report.html").read_text(encoding="utf-8")
    packed = page.partition('<script type="application/gzip" id="plotly">')[2].partition("</script>")[0]
    assert gzip.decompress(base64.b64decode(packed, validate=True)).decode() == plotly.offline.get_plotlyjs()
    assert len(page.encode()) < 2_300_000


def test_a_page_that_cannot_be_written_costs_neither_the_figures_nor_the_checkpoint(tmp_path: Path) -> None:
    def make_a_folder_in_its_place() -> int:
        (tmp_path / "run/report.html").mkdir(exist_ok=True)
        return 0

    changes = [word for word in in_words(train__steps="2") if word != "--set"]
    with pytest.raises(WriteError, match=r"report\.html could not be written"):
        jointgen.run(QUICKSTART, changes, out=tmp_path / "run", quiet=True, stop=make_a_folder_in_its_place)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["status"] == "done" and summary["metrics"]["elbo"]["value"] is not None
    assert jointgen.load(tmp_path / "run").sample(1).shape == (1, 1, 8, 8)


def test_what_users_write_is_text(copied: Path, reported: Callable[[], Page]) -> None:
    bad = "</script><script>alert('x')</script><img src=x onerror=y>"
    name = "<img src=x onerror=y>"  # a name is that of a folder, and has no slash
    recipe = (copied / "recipe.toml").read_text().replace('name = "quickstart"', f'name = "{name}"')
    (copied / "recipe.toml").write_text(recipe)
    summary = json.loads((copied / "summary.json").read_text())
    summary["note"] = summary["environment"]["device"] = summary["metrics"]["elbo"]["note"] = bad
    verdict = {"ratio": bad, "trusted": False, "distrusted_since": None, "step": 20, "rows": 64}
    summary["critics"] = {bad: {**verdict, "note": bad, "figures": {bad: 1.0}}}
    (copied / "summary.json").write_text(json.dumps(summary))
    with open(copied / "metrics.jsonl", "a") as file:
        file.write(
            json.dumps({"step": 20, "images_seen": 1, "wall_s": 1.0, f"eval/{bad}": 1.0, f"{bad}/loss": 1.0}) + "\n"
        )
    page = reported()
    assert page.title == f"{name} · done"
    assert "<script>alert" not in page.html and "<img src=x" not in page.html
    assert page.text.count(bad) >= 6
    assert not [a for _, a in page.elements if "onerror" in a]


# --- runs that lack something ----------------------------------------------------------------------------------------


def test_a_run_without_a_checkpoint(copied: Path, reported: Callable[[], Page], say: Callable[..., Any]) -> None:
    """As one that has only begun: its recipe and the plan are there."""
    shutil.rmtree(copied / "checkpoints")
    for name in ("summary.json", "metrics.jsonl"):
        (copied / name).unlink()
    shutil.rmtree(copied / "samples")
    page = reported()
    assert "There is nothing to show: run/checkpoints: no whole checkpoint." in page
    assert "There are no pictures: none was drawn yet." in page
    assert "There are no curves: nothing was logged yet." in page
    assert "There are no final figures: the run is unknown." in page
    assert "encoder, decoder: Adam (betas 0.5, 0.999), lr 0.001" in page


def test_held_out_rows_that_are_gone(copied: Path, reported: Callable[[], Page]) -> None:
    """The folder of the images is not on this machine."""
    data = '[data]\ntype = "image_folder"\nroot = "gone"\nsize = 8\nchannels = 1\n'
    recipe = (copied / "recipe.toml").read_text()
    (copied / "recipe.toml").write_text(re.sub(r"\[data\]\n(.+\n)+", data, recipe))
    page = reported()
    assert "There is nothing to show: data.root: " in page
    assert page.html.count('<div class="frame"') == 1


def test_a_folder_that_is_no_run(say: Callable[..., Any], here: Path) -> None:
    assert say("report", "nothing").refusal == "nothing: not a run folder (it has no recipe.toml)"
    assert not Path("nothing").exists()


def test_a_checkpoint_that_is_not_there(copied: Path, say: Callable[..., Any]) -> None:
    problem = say("report", copied, "--checkpoint", "step-00000021").refusal
    assert problem.startswith("--checkpoint: 'step-00000021' is not in run/checkpoints; did you mean 'step-00000020'?")


# --- numbers ---------------------------------------------------------------------------------------------------------


def figure(value: float | None, **more: Any) -> dict[str, Any]:
    return {"value": value, "unit": "nats", "estimator": "", "split": "test", "n": 4, "note": "", **more}


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (-100.00878, 0.2847, "-100.01"),  # two digits of the error: 0.28
        (28.82127, 0.0815, "28.821"),
        (12345.6, 123.0, "12346"),
        (0.001234567, None, "0.0012346"),
        (2.5, 0.0, "2.5"),
        (1e-7, 3e-9, "0.0000001000"),
    ],
)
def test_a_number_has_the_digits_that_its_error_leaves(value: float, error: float | None, shown: str) -> None:
    assert figures.in_digits(value, error) == shown


SUMMARY = as_document({"status": "done", "step": 20, "metrics": {"elbo": figure(-3.0), "rmse": figure(5.0)}}, Summary)


def evaluation_of(found: Mapping[str, Any]) -> Evaluation:
    return as_document({name: {"metrics": metrics} for name, metrics in found.items()}, Evaluation)


def test_a_run_stands_for_the_figures_of_its_summarys_checkpoint() -> None:
    """An evaluation of the same checkpoint replaces and adds figures; those of other weights are left out."""
    evaluation = {
        "step-00000020": {"elbo": figure(-2.0), "fid": figure(7.0)},
        "step-00000030": {"elbo": figure(-1.0)},
        "step-00000010": {"elbo": figure(-9.0), "kid": figure(1.0)},
    }
    run = figures_of_run(SUMMARY, evaluation_of(evaluation))
    assert run.checkpoint == "step-00000020"
    assert {name: found.value for name, found in run.figures.items()} == {"elbo": -2.0, "rmse": 5.0, "fid": 7.0}
    assert run.from_eval == {"elbo", "fid"}
    assert run.other_checkpoints == ("step-00000010", "step-00000030")


def test_a_run_without_final_figures_stands_for_its_newest_evaluation() -> None:
    """By the number of the step: 100 is newer than 20."""
    evaluation = evaluation_of({name: {"elbo": figure(-float(name[5:]))} for name in ("step-100", "step-20")})
    for summary in (None, Summary(status="stopped", step=120)):
        run = figures_of_run(summary, evaluation)
        assert (run.checkpoint, run.figures["elbo"].value) == ("step-100", -100.0)
    assert figures_of_run(None, {}).figures == {}


def test_page_and_comparison_show_the_same_figures(copied: Path, reported: Callable[[], Page], say: Any) -> None:
    """Also after another checkpoint was evaluated, whose figures are of other weights."""
    last = json.loads((copied / "summary.json").read_text())["step"]
    before = json.loads((copied / "summary.json").read_text())["metrics"]["rmse"]["value"]
    found = {
        f"step-{last - 1:08d}": {"metrics": {"rmse": figure(1.25), "fid/net": figure(3.5)}},
        f"step-{last:08d}": {"metrics": {"ssim": figure(0.5, unit="similarity")}},
    }
    (copied / "evaluation.json").write_text(json.dumps(found))
    page = reported()
    shown = {a["data-figure"]: a["data-value"] for _, a in page.elements if "data-figure" in a}
    (row,) = read_runs([str(copied)])
    of_run = {"parameters", "train_s"}  # which the page has in its words
    figures = {name: f for name, f in row.figures.items() if f.value is not None and name not in of_run}
    assert {name: repr(-f.value if f.nll else f.value) for name, f in figures.items()} == shown
    assert (shown["rmse"], shown["ssim"]) == (repr(before), "0.5")
    assert "fid/net" not in shown
    assert f"All figures are those of checkpoint step-{last:08d} ." in page
    assert f"jointgen eval was also given step-{last - 1:08d};" in page


def test_what_is_said_first() -> None:
    """The headlines of metrics, then other figures of the model, then those of single critics; six at most."""

    def displayed(group: str, order: int = 100, headline: bool = False) -> dict[str, Any]:
        return figure(1.0, display={"title": "", "group": group, "order": order, "headline": headline, "nll": False})

    found = {
        "f/accuracy": displayed("critics"),
        "mine_64": displayed("codes", 2),
        "mine_5": displayed("codes", 2),
        "a": displayed("codes", 1),
        "b": displayed("likelihood"),
        "c": displayed("other"),
        "scores": displayed("samples", 3, headline=True),
    }
    rows = figures.figure_rows(RunFigures("step-1", as_document(found, dict[str, Estimate])))
    assert [row["name"] for row in rows] == ["b", "scores", "a", "mine_5", "mine_64", "c", "f/accuracy"]
    assert [row["name"] for row in figures.highlights(rows)] == ["scores", "b", "a", "mine_5", "mine_64", "c"]


def test_a_figure_is_headed_by_its_title(copied: Path, reported: Callable[[], Page]) -> None:
    """The page knows no metric: a third party's figure is shown as it describes itself."""
    summary = json.loads((copied / "summary.json").read_text())
    display = {"title": "Acme score", "group": "samples", "order": 0, "headline": True, "nll": False}
    summary["metrics"] = {"acme/7": figure(4.25, display=display), "plain_name": figure(1.0)}
    (copied / "summary.json").write_text(json.dumps(summary))
    page = reported()
    assert "Acme score 4.25 nats" in page
    assert "plain name" in page


def test_figures_that_do_not_exist_say_why(copied: Path, reported: Callable[[], Page]) -> None:
    summary = json.loads((copied / "summary.json").read_text())
    summary["metrics"] = {"elbo": figure(None, note="the decoder has no density"), "rmse": figure(4.25, bound="upper")}
    (copied / "summary.json").write_text(json.dumps(summary))
    page = reported()
    assert "These figures do not exist for this model: elbo (the decoder has no density)." in page
    assert "upper bound: the true value is at most this" in page
    rows = {a["data-figure"]: a["data-value"] for _, a in page.elements if "data-figure" in a}
    assert rows == {"rmse": "4.25"}


def test_the_health_of_critics_is_shown_with_its_warning(copied: Path, reported: Callable[[], Page]) -> None:
    summary = json.loads((copied / "summary.json").read_text())
    summary["critics"] = {
        "d": {
            "ratio": "log p(x)/q(x)",
            "trusted": False,
            "distrusted_since": 10,
            "step": 20,
            "rows": 32,
            "figures": {"max_abs": 12.5},
            "note": "d cannot be trusted",
        }
    }
    (copied / "summary.json").write_text(json.dumps(summary))
    page = reported()
    assert "d cannot be trusted" in page
    assert "trusted no distrusted since 10 step 20 rows 32 max abs 12.5" in page


# --- curves ----------------------------------------------------------------------------------------------------------


def event(step: int, **values: float | None) -> LogEvent:
    return LogEvent(step, 8 * step, step / 2, values)


def plots(events: list[LogEvent], figures: Any = None) -> dict[str, dict[str, Any]]:
    found = curves(events, figures or {}, 512)
    return {f"{s['title']}: {p['title']}": p for s in found["sections"] for p in s["plots"]}


def test_what_belongs_together_shares_a_plot() -> None:
    names = [
        "model/E[q(x,z)] log p(x|z)",
        "model/E[q(x,z)] log q(z|x)",
        "model/loss",
        "model/grad_norm",
        "d/R1(d)",
        "d/loss",
        "d/grad_norm",
        "d/positive_mean",
        "d/negative_mean",
        "d/saturation",
        "lr/model",
        "images_per_s",
        "eval/elbo",
        "stray",
    ]
    found = plots([event(1, **dict.fromkeys(names, 1.0))])
    assert {title: [line["name"] for line in plot["lines"]] for title, plot in found.items()} == {
        "Evaluations: elbo": ["between steps, at most 512 rows"],
        "Losses and terms: model: loss": ["loss"],
        "Losses and terms: model: terms": ["E[q(x,z)] log p(x|z)", "E[q(x,z)] log q(z|x)"],
        "Losses and terms: d: loss": ["loss"],
        "Losses and terms: d: terms": ["R1(d)"],
        "Critics: d: mean": ["positive_mean", "negative_mean"],
        "Critics: d: saturation": ["saturation"],
        "Optimisation: gradient norms": ["model", "d"],
        "Optimisation: learning rates": ["model"],
        "Optimisation: speed": ["images_per_s"],
        "Others: stray": ["stray"],
    }


def test_curves_of_one_clock_share_it_and_gaps_stay_gaps() -> None:
    events = [event(1, a=1.0, b=2.0), event(2, a=None, b=3.0), event(2, c=4.0), event(3, a=5.0, b=math.inf)]
    found = curves(events, {}, 512)
    (section,) = found["sections"]
    lines = {plot["title"]: plot["lines"][0] for plot in section["plots"]}
    assert [lines[name]["y"] for name in "abc"] == [[1.0, None, 5.0], [2.0, 3.0, None], [4.0]]
    assert [lines[name]["clock"] for name in "abc"] == [0, 0, 1]
    assert found["clocks"][0] == {"step": [1, 2, 3], "images_seen": [8, 16, 24], "wall_s": [0.5, 1.0, 1.5]}


def test_evaluations_end_at_the_final_figure() -> None:
    final = as_document(figure(-3.5, standard_error=0.25), Estimate)
    plot = plots([event(1, **{"eval/elbo": -4.0})], {"elbo": final})["Evaluations: elbo"]
    assert (plot["unit"], plot["final"]) == ("nats", {"value": -3.5, "standard_error": 0.25, "n": 4})
    assert "final" not in plots([event(1, **{"eval/elbo": -4.0})])["Evaluations: elbo"]


@pytest.mark.parametrize(
    ("values", "log"), [([1.0, 10.0], True), ([1.0, 9.9], False), ([0.0, 10.0], False), ([None], False)]
)
def test_a_logarithmic_axis_is_for_positive_numbers_that_span_a_decade(values: list[float | None], log: bool) -> None:
    events = [event(i, **{"lr/model": value}) for i, value in enumerate(values)]
    assert plots(events)["Optimisation: learning rates"]["log"] is log


def test_long_curves_are_thinned_evenly_to_their_end() -> None:
    """4,001 events in at most 1,500 points: every third, 0, 3, ..., 3999, and the last, 4000."""
    events = [event(i) for i in range(4001)]
    assert [e.step for e in thinned(events)] == [*range(0, 4000, 3), 4000]
    assert thinned(events[:1500]) == events[:1500]


def test_a_few_spikes_do_not_flatten_a_curve() -> None:
    """100 numbers from 0 to 0.99 and a spike of 1000: the view leaves 2 of 101 out at either end, 0.02 to 0.98, and
    adds a tenth of that at either side."""
    values = [i / 100 for i in range(100)]
    found = frame([*values, 1000.0])
    assert found is not None and found["outside"] == 1
    assert found["range"] == pytest.approx([0.02 - 0.096, 0.98 + 0.096])
    assert frame(values) is None
    assert frame([1.0] * 100) is None
    assert frame([1.0, 1000.0]) is None


# --- pictures over training ------------------------------------------------------------------------------------------


def write_pictures(folder: Path, steps: range, size: int = 8) -> None:
    image = Image.fromarray(np.random.RandomState(0).randint(0, 255, (size, size, 3)).astype(np.uint8))
    for step in steps:
        for what in ("samples", "reconstructions"):
            image.save(folder / f"{what}-step-{step:08d}.png")


def test_a_slider_has_thirty_frames_at_most(tmp_path: Path) -> None:
    """Of 59 steps 1..59, every second: 1, 3, ..., 59."""
    write_pictures(tmp_path, range(1, 60))
    (tmp_path / "notes.png").write_bytes(b"no picture of a step")
    found = training_pictures.frames(tmp_path)
    assert found["of"] == 59
    assert [f["step"] for f in found["frames"]] == [*range(1, 60, 2)]
    assert [p["title"] for p in found["frames"][0]["pictures"]] == ["samples", "reconstructions"]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [*SPECIAL, _cut, _empty])
def test_what_is_no_picture_is_said_and_left_out(
    tmp_path: Path, damage: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path, range(1, 3))
    damage(tmp_path / "samples-step-00000001.png")
    found = training_pictures.frames(tmp_path)
    assert [[p["title"] for p in f["pictures"]] for f in found["frames"]] == [
        ["reconstructions"],
        ["samples", "reconstructions"],
    ]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"jointgen: {tmp_path}/samples-step-00000001.png: ")
    assert line.endswith("; it is not on the page")


def test_large_pictures_are_fewer_and_the_newest_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for four pictures of one size, two a step: the first step and the last."""
    write_pictures(tmp_path, range(1, 8))
    size = (tmp_path / "samples-step-00000001.png").stat().st_size
    for room, steps in ((5 * size, [1, 7]), (6 * size, [1, 4, 7]), (size, [7])):
        monkeypatch.setattr(training_pictures, "MAX_BYTES", room)
        assert [f["step"] for f in training_pictures.frames(tmp_path)["frames"]] == steps


# --- codes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(50, 7), (12, 90)])
def test_the_plane_is_that_of_principal_component_analysis(shape: tuple[int, int]) -> None:
    """Against scikit-learn's, but for the signs of its axes."""
    rows = torch.randn(shape, dtype=torch.float64) * torch.linspace(1, 5, shape[1])
    places, shares = principal_plane(rows)
    pca = PCA(2, svd_solver="full")
    assert np.allclose(places.abs().numpy(), abs(pca.fit_transform(rows.numpy())), atol=1e-9)
    assert shares == pytest.approx(pca.explained_variance_ratio_.tolist())
    farthest = places.gather(0, places.abs().argmax(0, keepdim=True))
    assert (farthest > 0).all()


def test_maps_of_one_two_and_many_dimensions() -> None:
    codes = torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, 5.0], [2.0, math.nan, 0.0], [3.0, 1.5, 1.0]])
    labels = torch.tensor([4, 5, 6, 7])
    one, two, three = (code_map("z", codes[:, :n], labels) for n in (1, 2, 3))
    assert (one["places"], one["labels"]) == ([[0.0, 1.0, 2.0, 3.0]], [4, 5, 6, 7])
    assert two["places"] == [[0.0, 1.0, 3.0], [1.0, 1.0, 1.5]]
    assert (two["rows"], two["labels"], two["method"]) == ([0, 1, 3], [4, 5, 7], "the mean codes themselves")
    assert three["method"] == "principal component analysis of the mean codes, from 3 dimensions to 2"
    assert code_map("z", torch.randn(5, 2, 3, 3), None)["labels"] is None
    with pytest.raises(ConfigError, match="the codes z are not finite"):
        code_map("z", codes * math.nan, None)


class Identity:
    """Rows of a model whose decoder gives the code back."""

    variable, code = "x", "z"

    def __init__(self, codes: Tensor, space: Space):
        self.codes = self.truth = codes
        self.model = SimpleNamespace(spaces={"x": Space((2,)), "z": space})
        self.taken: list[int] = []

    def decode(self, codes: Tensor, rows: Tensor) -> Tensor:
        self.taken = rows.tolist()
        return codes


def test_interpolations_are_straight_lines_between_pairs() -> None:
    rows = Identity(torch.tensor([[0.0, 0.0], [8.0, 16.0], [1.0, 1.0], [1.0, 1.0], [9.0, 9.0]]), Space((2,)))
    first, second = interpolations(rows)["lines"]  # type: ignore[arg-type]
    assert first == {"name": "rows 0 and 1", "x": [*map(float, range(9))], "y": [*map(float, range(0, 17, 2))]}
    assert second["x"] == [1.0] * 9
    assert rows.taken == [0] * 9 + [2] * 9  # what else is known is the first row's


def test_a_traversal_moves_the_dimension_that_varies_most_within_its_bounds() -> None:
    """Mean codes (1, -1), (1, 3) vary by 0 and 8 around (1, 1): z[1] goes from 1 - 2.5 sqrt(8) to 1 + 2.5 sqrt(8), cut
    at -4 and 4, while z[0] stays the first row's; then z[0] stays at its mean."""
    codes = torch.tensor([[1.0, -1.0], [1.0, 3.0]])
    found = traversal(Identity(codes, Space((2,), low=-4.0, high=4.0)), codes)  # type: ignore[arg-type]
    first, second = found["lines"]
    reach = [min(4.0, max(-4.0, 1 + t * math.sqrt(8))) for t in np.linspace(-2.5, 2.5, 9)]
    assert (first["name"], first["x"]) == ("z[1]", [1.0] * 9)
    assert first["y"] == pytest.approx(reach)
    assert (second["name"], second["x"], second["y"]) == ("z[0]", [1.0] * 9, [-1.0] * 9)
    assert (found["active"], found["size"]) == (1, 2)


def test_paths_begin_and_end_at_reconstructions(trained: Path) -> None:
    """What stands at the ends of the trained run's interpolations is what the model makes of these rows."""
    model = jointgen.load(trained)
    split = open_split(model.compiled.binding, "test").first(12)
    rows = interpolation_rows(model, split)
    ends = rows.decode(rows.codes, torch.arange(len(rows.codes)))
    raw = split.take(torch.arange(12))["data"]["x"]
    assert torch.equal((rows.truth * 17).floor().to(torch.uint8), raw)
    noise = Noise(0, split.name).of_rows(0, 12).named("observe/x", 12)
    observed = (raw + noise.uniform(1, 8, 8)) / 17
    torch.testing.assert_close(ends, model.reconstruct(observed))


def test_a_single_held_out_row_makes_no_map(trained: Path) -> None:
    """A data set of one test image, or `eval.rows = 1`: no path leads from one code to itself, and nothing varies."""
    model = jointgen.load(trained)
    with pytest.raises(ConfigError, match="it takes two held-out rows, and there is 1"):
        map_codes(model, open_split(model.compiled.binding, "test").spread(1))


def test_labels_are_found_though_the_run_does_not_read_them(trained: Path, tmp_path: Path) -> None:
    """With `data.labels = false`, of the same rows."""
    model = jointgen.load(trained)
    _, labels = map_codes(model, open_split(model.compiled.binding, "test"))
    recipe = (trained / "recipe.toml").read_text().replace("labels = true", "labels = false")
    shutil.copytree(trained, tmp_path / "copy")
    (tmp_path / "copy/recipe.toml").write_text(recipe)
    (tmp_path / "copy/data.json").unlink()  # it says that there is a y
    with pytest.warns(UserWarning, match="data.labels: true -> false"):
        other = jointgen.load(tmp_path / "copy")
    codes, found = map_codes(other, open_split(other.compiled.binding, "test"))
    assert labels is not None and found is not None
    assert torch.equal(labels, found) and len(set(labels.tolist())) == 10
    assert len(codes["z"]) == 64  # as many as eval.rows


# --- the equation ----------------------------------------------------------------------------------------------------


def test_an_equation_is_typeset() -> None:
    text = "E[p(x,z)](w*log q(z|stop(x)) - lambda*d1)"
    assert typeset(text) == (
        '<b class="e">𝔼</b><sub><i>p</i>(<i>x</i>,<i>z</i>)</sub>(<i>w</i>⋅<span class="fn">log</span> <i>q</i>'
        '(<i>z</i>\u2009|\u2009<span class="fn">stop</span>(<i>x</i>)) − <i>λ</i>⋅<i>d</i><sub>1</sub>)'
    )
    assert typeset("log s(-f) < 1") == '<span class="fn">log</span> <span class="fn">σ</span>(−<i>f</i>) &lt; 1'
