"""The evaluation loop: streams, shared statistics, the cache, and going on after a kill."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from jointgen_metrics.reconstruction import RMSE
from safetensors.torch import load, save
from support.paths import QUICKSTART
from torch import Tensor

import jointgen
from jointgen.compiler.compiled_recipe import compile_recipe
from jointgen.config.recipe import read_recipe
from jointgen.contracts.figures import Display
from jointgen.contracts.metrics import Batch, MetricFigure, ModelView, StatisticSpec, per_row
from jointgen.contracts.statistics import KeptRows, Mean, pack, unpack
from jointgen.data.split import open_split
from jointgen.errors import ComponentError, StoppedError
from jointgen.evaluation.evaluate import evaluate, list_figures
from jointgen.evaluation.partial_results import PartialResults
from jointgen.objectives import E
from jointgen.registry.components import Registry
from jointgen.runtime.cache import cached
from jointgen.runtime.cache_folder import cache_folder
from jointgen.runtime.sealed_files import write_sealed
from jointgen.testing.evaluation import model_of, tiny


@attrs.frozen
class Given:
    """A metric of these measures."""

    measured: Callable[[ModelView], list[MetricFigure]]

    def figures(self, subject: ModelView) -> list[MetricFigure]:
        return self.measured(subject)


def kept(key: str, of: Callable[[Batch], Tensor], **how: Any) -> StatisticSpec:
    return StatisticSpec(key, lambda batch: KeptRows.of(batch.index, x=of(batch)), KeptRows, **how)


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of(tiny())


@pytest.fixture
def split(model: Any) -> Any:
    return open_split(model.compiled.binding, "test").first(40)


def test_streams(model: Any, split: Any) -> None:
    """The evaluated split whole, the first rows of another one, and a number of draws, each with its own n."""
    over = [
        MetricFigure("eval", "1", "", (per_row("a", lambda b: torch.ones(b.rows)),)),
        MetricFigure("train", "1", "", (per_row("b", lambda b: torch.ones(b.rows), over="train", rows=7),)),
        MetricFigure("draws", "1", "", (per_row("c", lambda b: torch.ones(b.rows), over="draws", rows=33),)),
    ]
    found = evaluate(model, split, [Given(lambda s: over)], batch=16)
    assert {name: (e.split, e.n) for name, e in found.items()} == {
        "eval": ("test", 40),
        "train": ("train", 7),
        "draws": ("draws", 33),
    }
    limited = evaluate(model, split, [Given(lambda s: over)], batch=16, limit=5)
    assert [e.n for e in limited.values()] == [5, 5, 5]


def test_a_metric_that_takes_long_is_given_few_rows_at_a_time(model: Any, split: Any) -> None:
    """Beside one that takes whole batches: each has its own, progress counts both, a row's noise is the same."""

    def noise(batch: Batch) -> Tensor:
        sizes.append(batch.rows)
        return batch.noise.named("z", batch.rows).normal()

    sizes: list[int] = []
    progress: list[int] = []
    quick = MetricFigure("quick", "1", "", (per_row("quick", noise),))
    slow = MetricFigure("slow", "1", "", (per_row("slow", noise, max_batch=16),))
    found = evaluate(
        model, split, [Given(lambda s: [quick, slow])], batch=32, progress=lambda done, total: progress.append(done)
    )
    assert sizes == [32, 8, 16, 16, 8]
    assert progress == [32, 40, 56, 72, 80]
    assert found["quick"].n == found["slow"].n == 40
    assert found["quick"].value == pytest.approx(found["slow"].value, abs=1e-7)
    assert found["quick"].standard_error == pytest.approx(found["slow"].standard_error, abs=1e-7)


def test_an_estimate_carries_how_its_figure_is_shown(model: Any, split: Any) -> None:
    shown = Display("ones", "codes", 3, headline=True)
    figure = MetricFigure("m", "1", "", (per_row("v", lambda b: torch.ones(b.rows)),), display=shown)
    absent = MetricFigure("a", "1", "", note="a reason", display=shown)
    found = evaluate(model, split, [Given(lambda s: [figure, absent])])
    assert [found[name].display for name in ("m", "a")] == [shown, shown]


def test_what_is_equal_is_collected_once(model: Any, split: Any) -> None:
    calls: list[str] = []

    def costly(batch: Batch) -> Tensor:
        def compute() -> Tensor:
            calls.append("costly")
            return batch.index.double()

        return batch.recall("costly", compute)

    measures = [
        MetricFigure("a", "1", "", (per_row("one", costly),)),
        MetricFigure("b", "1", "", (per_row("one", costly),)),
        MetricFigure("c", "1", "", (kept("other", costly),), finish=lambda rows: (float(rows.values["x"].sum()), None)),
    ]
    found = evaluate(model, split, [Given(lambda s: measures)], batch=16)
    assert len(calls) == 3  # batches of 16, 16 and 8 rows
    assert (found["a"].value, found["c"].value) == (19.5, 780.0)  # of 0, 1, ..., 39


def test_draws_of_a_model_do_not_depend_on_anything_but_the_batch(model: Any, split: Any) -> None:
    def of(metric_rows: int) -> Tensor:
        seen: list[KeptRows] = []

        def finish(rows: KeptRows) -> tuple[float, None]:
            seen.append(rows)
            return 0.0, None

        collect = StatisticSpec(
            "x",
            lambda b: KeptRows.of(b.index, x=model.view.sample_batch(b)["x"]),
            KeptRows,
            over="draws",
            rows=metric_rows,
        )
        evaluate(model, split, [Given(lambda s: [MetricFigure("m", "1", "", (collect,), finish=finish)])], batch=8)
        return seen[0].in_order()["x"]

    assert torch.equal(of(16), of(24)[:16])
    assert not torch.equal(of(16)[:8], of(16)[8:])


def test_labels_are_those_of_the_rows(registry: Registry) -> None:
    """Of a recipe that does not read them: 5 of the first 50 rows, evenly apart, are rows 0, 10, ..., 40."""
    compiled = compile_recipe(read_recipe(QUICKSTART, registry=registry), registry)
    split = open_split(compiled.binding, "test").first(50).spread(5)
    every = registry.get("data", "digits").load()(labels=True).open("test").take(torch.arange(50))
    index = torch.tensor([4, 0, 1])
    assert split.labels(index)["y"].tolist() == every["y"][[40, 0, 10]].tolist()
    assert torch.equal(split.take(index)["data"]["x"], every["x"][[40, 0, 10]])


@pytest.mark.parametrize(
    ("value", "finished", "note"),
    [
        (1.0, None, "cannot be had from 40 rows; a note"),
        (1.0, math.nan, "the model gives nan"),
        (1.0, -math.inf, "the model gives -inf"),
        (math.nan, 1.0, "the model gives NaN"),
    ],
)
def test_what_is_no_number_is_absent_and_says_why(
    model: Any, split: Any, value: float, finished: float | None, note: str
) -> None:
    """Also where a statistic has NaN, whatever would have become of it."""
    collects = (per_row("v", lambda batch: torch.full((batch.rows,), value)),)
    measure = MetricFigure("m", "1", "", collects, note="a note", finish=lambda mean: (finished, math.nan))
    found = evaluate(model, split, [Given(lambda s: [measure])])["m"]
    assert (found.value, found.standard_error, found.note, found.n) == (None, None, note, 40)


def test_an_error_that_is_no_number_is_absent(model: Any, split: Any) -> None:
    measure = MetricFigure(
        "m", "1", "", (per_row("v", lambda b: b.index.double()),), finish=lambda mean: (2.0, math.inf)
    )
    found = evaluate(model, split, [Given(lambda s: [measure])])["m"]
    assert (found.value, found.standard_error) == (2.0, None)


def test_a_last_batch_with_no_rows_to_be_re_paired_is_left_out() -> None:
    """p(y) is drawn from the data that q has, too, re-paired: of 9 rows in batches of 4, the last is one alone."""
    objective = {
        "type": "expression",
        "maximize": "E[q(x,y,z)](log p(x|z,y) + log p(z) - log q(z|x,y))",
        "joints": {"q": "q(x,y) q(z|x,y)", "p": "p(y) p(z) p(x|z,y)"},
        "parts": {"q(x,y)": "data", "p(y)": "data"},
    }
    labelled = model_of(tiny(tables={"data": {"type": "digits", "labels": True}, "objective": objective}))
    rows = open_split(labelled.compiled.binding, "test")

    def nats(subject: ModelView) -> list[MetricFigure]:
        p, q = subject.joints["p"], subject.joints["q"]
        return [MetricFigure("m", "1", "", (per_row("m", subject.row_function(E(p.everything, q.log("z|x,y")))),))]

    metric = Given(nats)
    assert evaluate(labelled, rows.first(9), [metric], batch=4)["m"].n == 8
    assert evaluate(labelled, rows.first(1), [metric])["m"].note == "cannot be had from 0 rows"


def test_figures_are_of_the_rows_of_q() -> None:
    """Twenty labelled rows beside all the others: a figure of the data is of all of them, and x is x of q(x)."""
    joints = {"l": "l(x,y) q(z|x)", "q": "q(x) q(z|x)", "p": "p(z) p(x|z)"}  # l first: the order does not matter
    objective = {
        "type": "expression",
        "maximize": "E[q(x,z)](log p(x|z) + log p(z) - log q(z|x)) + E[l(x,z)](log p(x|z))",
        "joints": joints,
        "parts": {"l(x,y)": "labelled"},
    }
    digits = {"type": "digits"}
    sources = {"labelled": {**digits, "labels": True, "rows": 20}}
    model = model_of(tiny(tables={"data": digits, "sources": sources, "objective": objective}))
    rows = model.compiled.recipe.data.open("train")
    seen: list[Tensor] = []

    def keep(batch: Batch) -> Tensor:
        seen.append(model.view.observe(batch)[0]["x"])
        return torch.ones(batch.rows)

    def found(name: str, over: str) -> Any:
        metric = Given(lambda s: [MetricFigure("m", "1", "", (per_row("m", keep, over=over),))])
        return evaluate(model, open_split(model.compiled.binding, name), [metric])["m"]

    means = (rows.take(torch.arange(len(rows)))["x"] + 0.5) / 17  # bins of the levels 0 to 16
    assert found("test", "train").n == len(rows)
    assert torch.allclose(torch.cat(seen), means)
    seen.clear()
    assert found("train", "eval").n == 20, "rows of both sources, side by side"
    assert torch.allclose(torch.cat(seen), means[:20])


# --- the cache -------------------------------------------------------------------------------------------------------


def test_statistics_of_the_data_come_from_the_cache(model: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("JOINTGEN_CACHE", str(tmp_path / "cache"))
    calls: list[int] = []

    def count(batch: Batch) -> Mean:
        calls.append(batch.rows)
        return Mean.of(batch.index.double())

    metric = Given(lambda s: [MetricFigure("m", "1", "", (StatisticSpec("features v1", count, of_data=True),))])
    rows = open_split(model.compiled.binding, "test")
    first = evaluate(model, rows.first(20), [metric], batch=16)
    assert calls == [16, 4]
    assert evaluate(model, rows.first(20), [metric], batch=8) == first
    assert calls == [16, 4], "the same rows are found again"
    evaluate(model, rows.first(19), [metric], batch=16)
    assert calls == [16, 4, 16, 3], "other rows are not those"
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("harm", ["torn", "no folder"])
def test_a_cache_that_fails_costs_time_alone(
    model: Any, split: Any, tmp_path: Path, monkeypatch: Any, capsys: Any, harm: str
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("JOINTGEN_CACHE", str(cache))
    collect = StatisticSpec("v1", lambda batch: Mean.of(batch.index.double()), of_data=True)
    metric = Given(lambda s: [MetricFigure("m", "1", "", (collect,))])
    first = evaluate(model, split, [metric])
    (file,) = cache.iterdir()
    if harm == "torn":
        file.write_bytes(file.read_bytes()[:40])
    else:
        shutil.rmtree(cache)
        cache.write_text("a file")
    assert evaluate(model, split, [metric]) == first
    said = {"torn": f"{file}: is damaged: contents differ from what was written; it is made again"}
    said["no folder"] = "nothing is kept for other runs"
    assert said[harm] in capsys.readouterr().err
    assert evaluate(model, split, [metric]) == first
    assert ("is damaged" in capsys.readouterr().err) is False
    with cached("v1").locked():
        pass


def test_where_the_cache_is(monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.delenv("JOINTGEN_CACHE", raising=False)
    assert cache_folder() == Path("/somewhere/jointgen")
    monkeypatch.setenv("JOINTGEN_CACHE", "/else")
    assert cache_folder() == Path("/else")


# --- going on --------------------------------------------------------------------------------------------------------


def test_an_evaluation_that_was_stopped_goes_on(model: Any, split: Any, tmp_path: Path) -> None:
    """Stopped in its third batch of five, twice: no batch that was done is done again, and the figures are those of
    one go."""
    partial, seen = PartialResults(tmp_path / "partial"), list[int]()

    def watched(stop_at: int | None) -> Given:
        def values(batch: Batch) -> Tensor:
            start = int(batch.index[0])
            if start == stop_at:
                raise StoppedError("stopped", 15)
            seen.append(start)
            return batch.noise.named("n", batch.rows).normal()

        rows = kept("rows", values)

        def last(found: KeptRows) -> tuple[float, None]:
            return float(found.in_order()["x"][-1]), None

        return Given(
            lambda s: [
                MetricFigure("m", "1", "", (per_row("m", values),)),
                MetricFigure("k", "1", "", (rows,), finish=last),
            ]
        )

    whole = evaluate(model, split, [watched(None)], batch=8)
    seen.clear()
    for stop_at in (16, 32):
        with pytest.raises(StoppedError):
            evaluate(model, split, [watched(stop_at)], batch=8, partial=partial)
    found = evaluate(model, split, [watched(None)], batch=8, partial=partial)
    assert seen == [0, 0, 8, 8, 16, 16, 24, 24, 32, 32]  # each batch once for each of the two statistics
    assert found["m"].n == 40
    assert found["m"].value == pytest.approx(whole["m"].value, abs=1e-15)
    assert found["k"] == whole["k"]
    partial.discard()
    assert not (tmp_path / "partial").exists()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:200] + b"?" + data[201:], lambda data: b""]
)
def test_damaged_partial_results_are_said_and_found_again(
    model: Any, split: Any, tmp_path: Path, capsys: Any, damage: Callable[[bytes], bytes]
) -> None:
    """A byte of a number that has changed would be a wrong figure."""
    partial = PartialResults(tmp_path / "partial")
    file, metric = stopped_evaluation(model, split, partial)
    file.write_bytes(damage(file.read_bytes()))
    found = evaluate(model, split, [metric], batch=8, partial=partial)
    assert (found["m"].n, found["m"].value) == (40, 19.5)
    line = f"{file}: is damaged: contents differ from what was written; its rows are evaluated again"
    assert line in capsys.readouterr().err


def stopped_evaluation(model: Any, split: Any, partial: PartialResults) -> tuple[Path, Given]:
    """An evaluation that was stopped after two batches of five: its one file, and the metric that goes on."""

    def metric(stop_at: int | None) -> Given:
        def values(batch: Batch) -> Tensor:
            if int(batch.index[0]) == stop_at:
                raise StoppedError("stopped", 15)
            return batch.index.double()

        return Given(lambda s: [MetricFigure("m", "1", "", (per_row("m", values),))])

    with pytest.raises(StoppedError):
        evaluate(model, split, [metric(16)], batch=8, partial=partial)
    (file,) = partial.folder.iterdir()
    return file, metric(None)


@pytest.mark.parametrize(
    "name", ["{}-1-0.sealed", "{}-0-1.sealed", "{}-0-0 (copy).sealed", "{}-x-0.sealed", "{}--.sealed", "{}-00-0.sealed"]
)
def test_a_copy_of_partial_results_counts_no_row_twice(
    model: Any, split: Any, tmp_path: Path, capsys: Any, name: str
) -> None:
    """The mean of the row numbers 0 to 39 is 19.5; of rows that count twice it would be another, and n 56."""
    partial = PartialResults(tmp_path / "partial")
    file, metric = stopped_evaluation(model, split, partial)
    copy = file.with_name(name.format(file.name.removesuffix("-0-0.sealed")))
    shutil.copy(file, copy)
    found = evaluate(model, split, [metric], batch=8, partial=partial)
    assert (found["m"].n, found["m"].value) == (40, 19.5)
    (line,) = capsys.readouterr().err.splitlines()
    assert str(copy) in line


def test_partial_results_of_another_evaluation_are_not_taken(
    model: Any, split: Any, tmp_path: Path, capsys: Any
) -> None:
    file, metric = stopped_evaluation(model, split, PartialResults(tmp_path / "of step 10"))
    shutil.copytree(file.parent, tmp_path / "of step 20")
    evaluate(model, split, [metric], batch=8, partial=PartialResults(tmp_path / "of step 20"))
    copy = tmp_path / "of step 20" / file.name
    assert f"{copy}: was written under another name; its rows are evaluated again" in capsys.readouterr().err


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.__delitem__(name)


def with_(name: str, value: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.__setitem__(name, value)


@pytest.mark.parametrize(
    "edit",
    [
        None,
        without("done"),
        without("file"),
        without("0/n_mean_m2"),
        with_("done", torch.tensor([0, -8])),
        with_("done", torch.tensor([0, 40])),
        with_("done", torch.tensor([0, 4])),
        with_("done", torch.tensor([0, 0])),
        with_("done", torch.tensor([0.0, 8.0])),
        with_("0/n_mean_m2", torch.zeros(3, 4)),
        with_("0/n_mean_m2", torch.tensor([16.0, float("nan"), 1.0])),
        with_("0/n_mean_m2", torch.tensor([-16.0, 1.0, 1.0])),
        with_("0/n_mean_m2", torch.tensor([1.5, 1.0, 1.0])),
    ],
)
def test_partial_results_that_were_edited_and_sealed_again_count_for_nothing(
    model: Any, split: Any, tmp_path: Path, capsys: Any, edit: Callable[[dict[str, Tensor]], None] | None
) -> None:
    partial = PartialResults(tmp_path / "partial")
    file, metric = stopped_evaluation(model, split, partial)
    body = file.read_bytes().partition(b"\n")[2]
    tensors = load(body)
    assert tensors["0/n_mean_m2"].tolist() == [16.0, 7.5, 340.0]  # rows 0 to 15
    metadata = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])["__metadata__"]
    if edit is not None:
        edit(tensors)
    write_sealed(file, b"junk" if edit is None else save(tensors, metadata))
    found = evaluate(model, split, [metric], batch=8, partial=partial)
    assert (found["m"].n, found["m"].value) == (40, 19.5)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"jointgen: {file}: ")
    assert line.endswith("; its rows are evaluated again")


def test_statistics_as_bytes() -> None:
    statistics = {
        "a mean": Mean.of(torch.tensor([1.0, 2.0, 6.0])),
        "rows": KeptRows.of(torch.tensor([4, 2]), z=torch.eye(2), y=torch.tensor([1, 0])),
    }
    again = unpack(pack(statistics, done=torch.arange(3)), {"a mean": Mean, "rows": KeptRows})
    assert again["a mean"] == statistics["a mean"]
    rows = again["rows"]
    assert isinstance(rows, KeptRows)
    assert rows.in_order()["z"].tolist() == [[0.0, 1.0], [1.0, 0.0]]  # row 2 comes before row 4
    assert rows.in_order()["y"].tolist() == [0, 1]


# --- between the steps of a run --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kept", "figures"), [({}, {"elbo"}), ({"keep_best": "iwae_2"}, {"elbo", "iwae_2"})])
def test_costly_metrics_wait_for_the_end(kept: dict[str, str], figures: set[str], tmp_path: Path) -> None:
    """But for the one that the best is kept by."""
    part = {"network": {"type": "mlp", "hidden": [4]}, "family": {"type": "gaussian"}}
    recipe = {
        "data": {"type": "ring", "rows": 64},
        "prior": {"type": "normal", "size": 2},
        "encoder": part,
        "decoder": part,
        "objective": {"type": "vae"},
        "train": {"steps": 2, "batch": 16, "eval_every": 1, "trackers": [], **kept},
        "eval": {"metrics": [{"type": "elbo"}, {"type": "iwae", "k": 2}], "rows": 16, "samples": 4},
    }
    run = jointgen.run(recipe, out=tmp_path / "run", quiet=True)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert {name.removeprefix("eval/") for line in lines for name in line if name.startswith("eval/")} == figures
    assert set(run.metrics) == {"elbo", "iwae_2"}


# --- processes -------------------------------------------------------------------------------------------------------


def test_two_processes_find_what_one_does(trained: Path, tmp_path: Path) -> None:
    """Also where there are fewer batches than processes (64 rows in one batch)."""
    run = shutil.copytree(trained, tmp_path / "run")
    command = [sys.executable, "-m", "jointgen", "eval", str(run), "--json", "--processes", "2"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    found, reported = json.loads(done.stdout), json.loads((trained / "summary.json").read_text())["metrics"]
    assert found == reported
    assert json.loads((run / "evaluation.json").read_text()) == {"step-00000020": {"metrics": found}}


def test_a_run_and_eval_look_at_rows_that_are_evenly_apart(trained: Path, say: Any) -> None:
    """The run has eval.rows = 64 of 297: row floor(297 i / 64), and so has --rows 64."""
    model = jointgen.load(trained)
    rows = open_split(model.compiled.binding, "test").spread(64)
    assert rows.chosen is not None
    assert rows.chosen.tolist() == [297 * i // 64 for i in range(64)]
    reported = json.loads((trained / "summary.json").read_text())["metrics"]["rmse"]["value"]
    assert evaluate(model, rows, [RMSE()], seed=model.compiled.recipe.seed)["rmse"].value == reported
    asked = json.loads(say("eval", trained, "--metrics", "rmse", "--rows", 64, "--json").out)
    assert asked["rmse"]["value"] == reported


# --- a metric that raises --------------------------------------------------------------------------------------------


def divide(batch: Batch) -> Tensor:
    return torch.ones(batch.rows) * (1 // (batch.index[0].item() - 16))  # the second batch of 16 rows divides by 0


def broken(subject: ModelView) -> list[MetricFigure]:
    shared = per_row("a", lambda batch: torch.ones(batch.rows))
    return [
        MetricFigure("divides", "1", "", (per_row("d", divide),)),
        MetricFigure("halves", "1", "", (shared,), finish=lambda mean: (mean.mean / 0, None)),  # type: ignore
        MetricFigure("tensor", "1", "", (shared,), finish=lambda mean: (torch.ones(()), None)),  # type: ignore
        MetricFigure("other kind", "1", "", (StatisticSpec("k", lambda batch: Mean(1, 1.0, 0.0), KeptRows),)),
    ]


def test_a_metric_that_raises_costs_its_own_figures_only(model: Any, split: Any) -> None:
    sound = Given(lambda s: [MetricFigure("sound", "1", "", (per_row("a", lambda batch: torch.ones(batch.rows)),))])
    failed: list[str] = []
    found = evaluate(model, split, [Given(broken), sound], batch=16, failed=failed)
    assert {name: estimate.value for name, estimate in found.items()} == {
        "divides": None,
        "halves": None,
        "tensor": None,
        "other kind": None,
        "sound": 1.0,
    }
    owner = f"metric {Given.__module__}.Given raises"
    assert found["divides"].note == f"{owner} ZeroDivisionError: integer division or modulo by zero"
    assert found["halves"].note == f"{owner} ZeroDivisionError: float division by zero"
    assert "finish() of 'tensor' gives (tensor(1.), None), it must be a pair of numbers" in found["tensor"].note
    assert found["other kind"].note == f"{owner} TypeError: 'k' gives a Mean, not a KeptRows"
    assert sorted(failed) == sorted(found[name].note for name in ("divides", "halves", "tensor", "other kind"))


def test_without_a_list_for_it_the_error_of_a_metric_is_raised(model: Any, split: Any) -> None:
    with pytest.raises(ComponentError, match=r"test_evaluate\.Given raises ZeroDivisionError: integer division"):
        evaluate(model, split, [Given(lambda s: broken(s)[:1])], batch=16)


def test_figures_must_be_figures(model: Any) -> None:
    with pytest.raises(ComponentError, match=r"Given: figures\(\) has a str, it must be a MetricFigure"):
        list_figures([Given(lambda s: ["elbo"])], model.view)  # type: ignore[list-item]


def number_of_rows(rows: Any) -> tuple[float, None]:
    return float(rows.n), None


def test_what_a_metric_that_raises_leaves_is_not_gone_on_from(model: Any, split: Any, tmp_path: Path) -> None:
    """Batches that the broken metric has seen half are done again, for every statistic, and none is counted twice."""
    partial = PartialResults(tmp_path / "partial")
    metric = Given(
        lambda s: [
            broken(s)[0],
            MetricFigure("rows", "1", "", (kept("rows", lambda b: b.index.float()),), finish=number_of_rows),
        ]
    )

    def stop(done: int, total: int) -> None:
        if done >= 32:
            raise StoppedError("stopped", 15)

    with pytest.raises(StoppedError):
        evaluate(model, split, [metric], batch=16, partial=partial, progress=stop, failed=[])
    failed: list[str] = []
    found = evaluate(model, split, [metric], batch=16, partial=partial, failed=failed)
    assert found["rows"].value == 40.0
    assert failed == [found["divides"].note]


def test_draws_take_rows_that_are_evenly_apart(labelled: Path) -> None:
    """p(y) is data: 5 draws take the labels of rows 0, 59, 118, 178 and 237 of 297; twice as many as there are
    rows begin again."""
    model = jointgen.load(labelled)
    split = open_split(model.compiled.binding, "test")
    labels = split.labels(torch.arange(297))["y"]

    def drawn(n: int) -> list[int]:
        seen: list[KeptRows] = []

        def finish(rows: KeptRows) -> tuple[float, None]:
            seen.append(rows)
            return 0.0, None

        collect = kept("y", lambda batch: batch.labels()["y"], over="draws", rows=n)
        evaluate(model, split, [Given(lambda s: [MetricFigure("m", "1", "", (collect,), finish=finish)])])
        return seen[0].in_order()["x"].tolist()

    assert drawn(5) == labels[[0, 59, 118, 178, 237]].tolist()
    assert drawn(594) == [*labels.tolist(), *labels.tolist()]
