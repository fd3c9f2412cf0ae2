"""`jointgen compare`: one table over runs. Run folders are written by hand, but for two that are trained."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from PIL import Image
from support.commands import in_words
from support.paths import QUICKSTART

from jointgen.cli.main import main
from jointgen.reports.comparison import published
from jointgen.reports.pictures import panels

MakeRun = Callable[..., str]


def display(title: str, group: str, order: int = 0, **more: Any) -> dict[str, Any]:
    return {"title": title, "group": group, "order": order, **more}


NLL_DISPLAY = {"headline": True, "nll": True}
ELBO = {"unit": "nats", "estimator": "one draw", "bound": "lower", "note": "x: bits", "better": "higher"}
ELBO |= {"display": display("ELBO", "likelihood", **NLL_DISPLAY)}
IWAE = {**ELBO, "display": display("IWAE-64", "likelihood", 3, **NLL_DISPLAY)}
RMSE = {"unit": "0-255", "estimator": "mean at the mean code", "better": "lower"}
RMSE |= {"display": display("RMSE", "reconstruction")}
ESTIMATE = {"unit": "nats", "estimator": "E[q(x,z)](log p(x|z) - t)", "bound": "estimate", "note": "no bound"}
ESTIMATE |= {"display": display("ELBO estimate", "likelihood", 1, **NLL_DISPLAY)}
FID = {"unit": "squared distance", "better": "lower", "display": display("FID, net", "samples")}
ACCURACY = {"unit": "share", "display": display("", "critics")}
KINDS = {
    "elbo": ELBO,
    "elbo_estimate": ESTIMATE,
    "rmse": RMSE,
    "iwae_64": IWAE,
    "fid/net": FID,
    "f/accuracy": ACCURACY,
}
DATA = {"type": "patterns", "size": 8, "observe": "binarise", "labels": False}
ROLES = {"root": "location", "observe": "reading", "labels": "loading", "size": "size"}
"""What a run records of its data source's keys; a run that has not recorded it is asked through the registry."""


def figure(name: str, value: float | None, error: float | None = 0.5, **more: Any) -> dict[str, Any]:
    whole = {"estimator": "", "split": "test", "n": 1000, "note": "", "protocol": "", "bound": None, **KINDS[name]}
    return {**whole, "value": value, "standard_error": error, **more}


def absent(name: str, why: str) -> dict[str, Any]:
    return figure(name, None, None, bound=None, estimator="", n=0, note=why)


@pytest.fixture
def make_run(here: Path) -> MakeRun:
    """make_run("a", elbo=-100.0, rmse={...}) -> "a", a run folder with these figures and no checkpoints."""

    def make(
        path: str,
        *,
        name: str = "",
        seed: int = 0,
        data: Mapping[str, Any] = DATA,
        train: Mapping[str, Any] | None = None,
        summary: Mapping[str, Any] | None = None,
        **figures: Any,
    ) -> str:
        recipe = {"format": 1, "name": name or path, "seed": seed, "data": data, "objective": {"type": name or path}}
        recipe["train"] = {"steps": 10, "device": "auto", **(train or {})}
        metrics = {key: figure(key, v) if isinstance(v, float) else v for key, v in figures.items()}
        Path(path).mkdir()
        Path(path, "recipe.toml").write_text(tomli_w.dumps(recipe))
        whole = {"status": "done", "step": 10, "seed": seed, "metrics": metrics, **(summary or {})}
        if data["type"] == "patterns":
            whole.setdefault("data_keys", {"data": ROLES})
        Path(path, "summary.json").write_text(json.dumps(whole))
        return path

    return make


@pytest.fixture
def table(say: Any, here: Path) -> Callable[..., dict[str, dict[str, str]]]:
    """table("a", "b") -> the CSV of the command on these words, by model, read back."""

    def make(*words: str) -> dict[str, dict[str, str]]:
        said = say("compare", *words, "-o", "table.csv", "--no-figures")
        assert (said.status, said.problems) == (0, [])
        return {row["model"]: row for row in csv.DictReader(io.StringIO(Path("table.csv").read_text()))}

    return make


NLL = "NLL elbo [nats, upper bound, test, observe = binarise]"
ESTIMATED = "NLL elbo_estimate [nats, estimate, test, observe = binarise]"
RMSES = "rmse [0-255, test]"


# --- figures ---------------------------------------------------------------------------------------------------------


def test_bounds_on_log_p_are_shown_as_nll_and_estimates_in_a_column_of_their_own(make_run: MakeRun, table: Any) -> None:
    make_run("vae", elbo=-100.25, rmse=20.0)
    make_run("avb", elbo=absent("elbo", "encoder has no density"), elbo_estimate=-90.0, rmse=21.0)
    rows = table("vae", "avb")
    assert (rows["vae"][NLL], rows["vae"][f"{NLL} ±"], rows["vae"][RMSES]) == ("100.25", "0.5", "20.0")
    assert (rows["avb"][NLL], rows["avb"][f"{NLL} notes"]) == ("", "encoder has no density")
    assert (rows["avb"][ESTIMATED], rows["vae"][ESTIMATED]) == ("90.0", "")
    assert rows["vae"][f"{ESTIMATED} notes"] == "not among this model's figures"


def test_what_eval_found_of_the_same_checkpoint_goes_over_the_summary(make_run: MakeRun, table: Any) -> None:
    make_run("a", elbo=-100.0, rmse=20.0)
    found = {
        "step-00000009": {"metrics": {"elbo": figure("elbo", -1.0)}},
        "step-00000010": {"metrics": {"rmse": figure("rmse", 19.0), "fid/net": figure("fid/net", 3.0)}},
    }
    Path("a/evaluation.json").write_text(json.dumps(found))
    row = table("a")["a"]
    assert (row[NLL], row[RMSES], row["fid/net [squared distance, test]"]) == ("100.0", "19.0", "3.0")


def test_figures_of_a_run_without_a_summary_are_those_of_its_newest_evaluation(make_run: MakeRun, table: Any) -> None:
    make_run("a", elbo=-100.0)
    Path("a/summary.json").unlink()
    found = {f"step-{step:08d}": {"metrics": {"rmse": figure("rmse", float(step))}} for step in (9, 8)}
    Path("a/evaluation.json").write_text(json.dumps(found))
    row = table("a")["a"]
    assert row[RMSES] == "9.0"
    assert row["notes"] == "not finished (no summary.json)"


def test_json_has_the_numbers_of_the_table(make_run: MakeRun, say: Any) -> None:
    make_run("a", elbo=-100.25, rmse=20.0)
    make_run("b", rmse=19.0)
    said = say("compare", "a", "b", "--json")
    (shown,) = json.loads(said.out)
    cells = {row["model"]: row["cells"] for row in shown["rows"]}
    assert (cells["a"][NLL]["value"], cells["a"][NLL]["spread"]) == (100.25, 0.5)
    assert cells["b"][NLL]["value"] is None and cells["b"][NLL]["notes"] == ["not among this model's figures"]
    assert [cells[name][RMSES]["best"] for name in "ab"] == [False, True]
    assert [column["better"] for column in shown["columns"]] == ["lower", "lower"]


def test_figures_that_no_run_has_are_named_below_with_why(make_run: MakeRun, say: Any) -> None:
    make_run("a", elbo=absent("elbo", "no bound: decoder has no density"), rmse=3.0)
    said = say("compare", "a")
    assert "No run has elbo (no bound: decoder has no density)." in said.out
    assert "NLL" not in said.out


def test_critics_that_cannot_be_trusted_and_unfinished_runs_are_marked(make_run: MakeRun, table: Any) -> None:
    verdict = {"ratio": "log q(x)/p(x)", "distrusted_since": None, "step": 4, "rows": 64, "figures": {}}
    critics = {"t": {**verdict, "trusted": False, "note": "critic t cannot be trusted"}}
    critics["f"] = {**verdict, "trusted": True, "note": ""}
    make_run("a", elbo=-3.0, summary={"critics": critics, "status": "stopped", "step": 4})
    assert table("a")["a"]["notes"] == "not finished (status stopped, step 4 of 10); critic t cannot be trusted"


# --- like with like --------------------------------------------------------------------------------------------------


def test_unequal_protocols_are_refused_by_the_runs_names(make_run: MakeRun, say: Any) -> None:
    make_run("a", iwae_64=figure("iwae_64", -90.0, protocol="p1"), rmse=1.0)
    make_run("b", iwae_64=figure("iwae_64", -91.0, protocol="p2"), rmse=2.0)
    make_run("c", iwae_64=figure("iwae_64", -92.0, protocol="p1"), rmse=2.0)
    problem = say("compare", "a", "b", "c").refusal
    assert problem.startswith("iwae_64: unequal protocol: 'p1' (a, c); 'p2' (b). Make them equal with `jointgen eval")
    assert say("compare", "a", "b", "c", "--metrics", "rmse").status == 0


def test_the_advice_names_the_metric_that_gives_the_figure(make_run: MakeRun, say: Any) -> None:
    make_run("a", rmse=figure("rmse", 1.0, n=10))
    make_run("b", rmse=figure("rmse", 1.0, n=20))
    problem = say("compare", "a", "b").refusal
    assert problem.startswith("rmse: unequal number of rows: n = 10 (a); n = 20 (b).")
    assert "`jointgen eval RUN --metrics rmse`" in problem


def test_other_splits_units_and_bounds_are_other_columns(make_run: MakeRun, table: Any) -> None:
    make_run("a", rmse=figure("rmse", 1.0), elbo=figure("elbo", -5.0, bound="lower"))
    make_run("b", rmse=figure("rmse", 2.0, split="train"), elbo=figure("elbo", -4.0, bound="exact"))
    rows = table("a", "b")
    assert (rows["a"][RMSES], rows["b"][RMSES], rows["b"]["rmse [0-255, train]"]) == ("1.0", "", "2.0")
    assert rows["b"][f"{RMSES} notes"] == "in another column: 0-255, train"
    assert rows["b"]["NLL elbo [nats, exact, test, observe = binarise]"] == "4.0"


def test_nats_of_data_that_is_read_otherwise_stand_apart_and_pixels_do_not(make_run: MakeRun, table: Any) -> None:
    make_run("a", elbo=-100.0, rmse=1.0)
    make_run("b", elbo=500.0, rmse=2.0, data={**DATA, "observe": "dequantise"})
    rows = table("a", "b")
    assert (rows["a"][NLL], rows["b"][NLL]) == ("100.0", "")
    assert rows["b"]["NLL elbo [nats, upper bound, test, observe = dequantise]"] == "-500.0"
    assert (rows["a"][RMSES], rows["b"][RMSES]) == ("1.0", "2.0")


def test_unequal_estimators_are_footnotes(make_run: MakeRun, table: Any) -> None:
    make_run("a", elbo=figure("elbo", -5.0, estimator="one draw"))
    make_run("b", elbo=figure("elbo", -4.0, estimator="two draws", note="x: bits, and more"))
    make_run("c", elbo=figure("elbo", -4.0, estimator="one draw"))
    rows = table("a", "b", "c")
    assert [rows[name][f"{NLL} notes"] for name in "abc"] == ["", "by two draws; x: bits, and more", ""]


def test_other_data_is_refused_unless_asked_for(make_run: MakeRun, say: Any) -> None:
    make_run("a", rmse=1.0)
    make_run("b", rmse=2.0, data={**DATA, "size": 16, "labels": True})
    said = say("compare", "a", "b")
    assert said.status == 2
    assert said.problems == [
        "jointgen: data.size: 8 (a), 16 (b): figures of different data cannot be compared",
        "jointgen: --data mixed makes a table for each of the 2 data sets",
    ]
    mixed = say("compare", "a", "b", "--data", "mixed").out
    assert [line.strip() for line in mixed.splitlines() if line.startswith("patterns")] == [
        "patterns (size = 8)",
        "patterns (size = 16)",
    ]
    assert "*" not in mixed  # each is alone in its table: there is no best


def test_data_of_another_type_differs_in_that(make_run: MakeRun, say: Any) -> None:
    """And not in every key that only one of the two has; how a folder is read changes nothing."""
    folder = {"type": "image_folder", "size": 8, "root": "/here", "workers": 0}
    make_run("a", rmse=1.0)
    make_run("b", rmse=2.0, data=folder)
    make_run("c", rmse=2.0, data={**folder, "workers": 1, "max_broken": 3})
    told, _ = say("compare", "a", "b").problems
    assert (
        told == "jointgen: data.type: 'patterns' (a), 'image_folder' (b): figures of different data cannot be compared"
    )
    assert say("compare", "b", "c").status == 0


def test_a_data_source_without_its_plugin_is_compared_by_every_key(make_run: MakeRun, say: Any) -> None:
    """As one of an older run whose source nobody describes: then it is the user's word that the data is the same."""
    make_run("a", rmse=1.0, data={"type": "acme_source", "place": "/here"})
    make_run("b", rmse=2.0, data={"type": "acme_source", "place": "/there"})
    difference, advice = say("compare", "a", "b").problems
    assert difference.startswith("jointgen: data.place: '/here' (a), '/there' (b)")
    assert "--data same" not in advice
    assert say("compare", "a", "b", "--data", "same").status == 0


def test_the_same_data_elsewhere_is_the_users_word(make_run: MakeRun, say: Any, table: Any) -> None:
    make_run("a", name="m", rmse=1.0, data={**DATA, "root": "/here"})
    make_run("b", name="m", rmse=2.0, data={**DATA, "root": "/there"}, seed=1)
    said = say("compare", "a", "b")
    assert said.problems[1].endswith("; if it is the same data, --data same")
    assert float(table("a", "b", "--data", "same")["m (2 seeds)"][RMSES]) == 1.5


# --- rows ------------------------------------------------------------------------------------------------------------


def test_seeds_become_a_mean_and_a_standard_deviation(make_run: MakeRun, table: Any, say: Any) -> None:
    for seed, value in enumerate((-101.0, -102.0, -103.0)):
        make_run(f"s{seed}", name="vae", seed=seed, elbo=value, train={"device": ("cpu", "cuda")[seed % 2]})
    make_run("other", elbo=-104.0)
    row = table("s2", "s0", "s1", "other")["vae (3 seeds)"]
    assert (float(row[NLL]), float(row[f"{NLL} ±"])) == (102.0, 1.0)  # sqrt((1 + 0 + 1) / 2)
    assert (row["runs"], row["seeds"]) == ("s0 s1 s2", "0 1 2")
    assert (
        "± is the standard deviation over seeds where a row has several, otherwise"
        in say("compare", "s0", "s1", "other").out
    )


def test_seeds_that_start_from_seeds_are_one_row(make_run: MakeRun, table: Any) -> None:
    """By what the runs that they start from are, not by where these are; a path that is gone is only itself."""
    for seed in (0, 1):
        make_run(f"vae{seed}", name="vae", seed=seed, rmse=1.0)
        make_run(f"next{seed}", name="next", seed=seed, rmse=2.0 + seed, train={"init_from": f"vae{seed}"})
        make_run(f"last{seed}", name="last", seed=seed, rmse=4.0, train={"init_from": {"run": f"next{seed}"}})
        make_run(f"lost{seed}", name="lost", seed=seed, rmse=5.0, train={"init_from": f"gone{seed}"})
    make_run("slow", name="vae", seed=1, rmse=1.0, train={"lr": 0.1})
    make_run("slower", name="next", seed=1, rmse=9.0, train={"init_from": "slow"})
    rows = table(*(f"{name}{seed}" for name in ("next", "last", "lost") for seed in (0, 1)), "slower")
    assert {model: row["runs"] for model, row in rows.items()} == {
        "next (train.init_from.run.train.lr = not set) (2 seeds)": "next0 next1",
        "next (train.init_from.run.train.lr = 0.1)": "slower",
        "last (2 seeds)": "last0 last1",
        "lost (train.init_from.run = 'gone0')": "lost0",
        "lost (train.init_from.run = 'gone1')": "lost1",
    }


def test_runs_that_start_from_each_other_are_compared_by_their_folders(make_run: MakeRun, table: Any) -> None:
    """As when a folder was deleted and its name used again."""
    make_run("a", name="vae", rmse=1.0, train={"init_from": "b"})
    make_run("b", name="vae", seed=1, rmse=2.0, train={"init_from": "a"})
    assert len(table("a", "b")) == 2


def test_a_figure_that_only_some_seeds_have_says_so(make_run: MakeRun, table: Any) -> None:
    make_run("s0", name="vae", elbo=-101.0, rmse=1.0)
    make_run("s1", name="vae", seed=1, elbo=-103.0)
    row = table("s0", "s1")["vae (2 seeds)"]
    assert (row[RMSES], row[f"{RMSES} ±"], row[f"{RMSES} notes"]) == ("1.0", "0.5", "1 of 2 seeds have it")


def test_rows_of_single_runs_are_called_by_their_folders(make_run: MakeRun, table: Any) -> None:
    Path("x").mkdir()
    Path("y").mkdir()
    runs = [make_run("x/one", name="vae", rmse=1.0), make_run("y/one", name="vae", seed=1, rmse=2.0)]
    assert list(table(*runs, "--no-aggregate", "--no-published")) == ["x/one", "y/one"]


def test_recipes_of_one_name_are_told_apart_by_their_settings(make_run: MakeRun, table: Any) -> None:
    make_run("a", name="vae", rmse=1.0, train={"lr": 0.1})
    make_run("b", name="vae", rmse=2.0, train={"lr": 0.2})
    assert list(table("a", "b")) == ["vae (train.lr = 0.1)", "vae (train.lr = 0.2)"]


def test_one_seed_twice_is_no_second_sample(make_run: MakeRun, say: Any) -> None:
    make_run("a", name="vae", rmse=1.0)
    make_run("b", name="vae", rmse=2.0)
    problem = say("compare", "a", "b").refusal
    assert problem == "b: has the recipe and the seed (0) of a; leave one out, or use --no-aggregate"


def test_every_mistake_is_named_at_once(make_run: MakeRun, say: Any) -> None:
    make_run("runs-a", rmse=1.0)
    make_run("empty", summary={"metrics": {}, "status": "running"})
    make_run("torn", rmse=1.0)
    Path("torn/summary.json").write_text('{"status": "do')
    said = say("compare", "runs-a", "./runs-a", "runs-b", "empty", "torn", "-o", "t.pdf", "--published", "mnits")
    assert said.status == 2
    assert said.problems == [
        "jointgen: -o: t.pdf: expected a file name that ends in .md or .csv or .html",
        "jointgen: --published: unknown table 'mnits'; did you mean 'mnist'? (known: cifar10, imagenet64, mnist)",
        "jointgen: ./runs-a: is given twice, also as runs-a",
        "jointgen: runs-b: not a run folder (it has no recipe.toml); did you mean 'runs-a'?",
        "jointgen: torn/summary.json: is damaged (Unterminated string starting at: line 1 column 12 (char 11)); "
        "remove it: `jointgen run` with --resume writes another",
        "jointgen: empty: has no figures (status running, step 10); find them: jointgen eval empty",
    ]


def test_runs_without_figures_are_left_out_beside_others(make_run: MakeRun, say: Any) -> None:
    make_run("a", rmse=1.0)
    make_run("b", summary={"status": "running", "step": 3})
    said = say("compare", "a", "b")
    assert said.status == 0 and "b (" not in said.out
    line = "b: has no figures (status running, step 3); find them: jointgen eval b"
    assert said.problems == [f"jointgen: left out: {line}"]
    assert say("compare", "b").problems == [f"jointgen: {line}"]


# --- columns and the best --------------------------------------------------------------------------------------------


def test_metrics_choose_columns_and_their_order(make_run: MakeRun, say: Any) -> None:
    make_run("a", elbo=-5.0, iwae_64=-4.0, rmse=1.0, **{"fid/net": 2.0, "f/accuracy": 0.5})
    said = say("compare", "a", "--metrics", "fid, iwae")
    head = next(line for line in said.out.splitlines() if "FID" in line)
    assert re.split(r"\s{2,}", head.strip()) == ["FID, net ↓", "NLL (IWAE-64) ↓"]
    problem = say("compare", "a", "--metrics", "fdi,rmse").refusal
    assert problem.startswith("--metrics: no run has a figure 'fdi'; known: elbo, ")


def test_the_best_is_bold_where_there_is_something_to_choose(make_run: MakeRun, say: Any, here: Path) -> None:
    make_run("a", elbo=-5.0, elbo_estimate=-3.0, rmse=1.0, **{"fid/net": 3.0})
    make_run("b", elbo=-4.0, elbo_estimate=-2.0, rmse=1.5)
    say("compare", "a", "b", "-o", "t.md", "--no-figures")
    bold = re.findall(r"\*\*(.*?)\*\*", Path("t.md").read_text())
    assert bold == ["patterns (size = 8)", "1.00 ± 0.50", "4.00 ± 0.50"]  # the title; the first row's; the second's


def test_digits_are_those_that_the_spread_leaves(make_run: MakeRun, say: Any) -> None:
    make_run("a", rmse=figure("rmse", 28.8213, 0.0815), **{"fid/net": figure("fid/net", 0.000123, 0.0000042)})
    assert {"28.821 ± 0.082", "0.0001230 ± 0.0000042"} <= set(re.findall(r"\d\S* ± \S+", say("compare", "a").out))


def test_one_large_figure_leaves_the_others_their_digits(make_run: MakeRun, say: Any) -> None:
    make_run("a", rmse=figure("rmse", 199014.7, 9474.1), **{"fid/net": figure("fid/net", 4621.3, None)})
    make_run("b", rmse=figure("rmse", 216.131, 0.954), **{"fid/net": figure("fid/net", 0.1637, None)})
    lines = say("compare", "a", "b").out.splitlines()
    large, small = (
        re.split(r"\s{2,}", next(x for x in lines if x.strip().startswith(f"{name} ")).strip()) for name in "ab"
    )
    assert large == ["a", "199015 ± 9474", "4621"]
    assert small == ["b", "*216.13 ± 0.95", "*0.16"]


def test_figures_of_the_model_are_in_the_order_of_a_papers_table(make_run: MakeRun, say: Any) -> None:
    make_run("a", **{"fid/net": 1.0, "f/accuracy": 0.5}, rmse=2.0, iwae_64=-3.0, elbo=-4.0)
    head = next(line for line in say("compare", "a").out.splitlines() if "FID" in line)
    assert re.split(r"\s{2,}", head.strip()) == ["NLL (ELBO) ↓", "NLL (IWAE-64) ↓", "RMSE ↓", "FID, net ↓"]


# --- published figures -----------------------------------------------------------------------------------------------


def test_published_figures_are_the_papers() -> None:
    def figures(name: str) -> dict[str, list[float]]:
        return {row: [figure.value for figure in found] for row, found in published.published_table(name).rows}

    assert figures("mnist") == {
        "NF (k = 80)": [85.1],
        "IAF": [80.9],
        "AVB": [79.5],
        "PixelRNN": [79.2],
        "AS-VAE-r": [81.14],
        "AS-VAE-g": [146.32],
        "AS-VAE": [82.51],
    }
    assert figures("cifar10") == {  # bits, RMSE, inception score
        "WGAN": [3.82],
        "MIX+WassersteinGAN": [4.05],
        "DCGAN": [4.89],
        "ALI": [14.53, 4.79],
        "PixelRNN": [3.06],
        "PixelCNN++": [2.96, 3.289, 5.51],
        "AS-VAE-r": [3.09, 3.17, 2.91],
        "AS-VAE-g": [93.12, 13.12, 6.89],
        "AS-VAE": [3.32, 3.36, 6.34],
    }
    assert figures("imagenet64") == {
        "DCGAN": [5.965],
        "PixelRNN": [3.63],
        "PixelCNN++": [3.27, 7.65],
        "AS-VAE": [3.71, 11.14],
    }


@pytest.mark.parametrize("name", ["mnist", "cifar10", "imagenet64"])
def test_every_published_figure_has_a_caveat_in_words(name: str) -> None:
    notes = [note for _, found in published.published_table(name).rows for figure in found for note in figure.notes]
    assert all(found.notes for _, row in published.published_table(name).rows for found in row)
    assert all(" " in note for note in notes)  # no key of published.toml that is not there


def test_published_rows_come_by_the_data_and_are_never_the_best(make_run: MakeRun, table: Any, say: Any) -> None:
    make_run("a", elbo=-100.0, data={**DATA, "type": "mnist"})
    make_run("b", elbo=-101.0, data={**DATA, "type": "mnist"})
    rows = table("a", "b")
    assert (rows["AS-VAE"][NLL], rows["a"]["source"]) == ("82.51", "run")
    assert rows["AS-VAE"]["source"] == "published: MNIST, Pu et al. 2017, table 1"
    assert rows["AVB"][NLL] == ""  # a critic's estimate is not in the bounds' column
    assert rows["AVB"]["NLL elbo_estimate [nats, estimate, observe = binarise]"] == "79.5"
    assert "*100.00 ± 0.50" in (shown := say("compare", "a", "b").out)
    assert "*79" not in shown
    assert set(table("a", "b", "--no-published")) == {"a", "b"}


def test_published_nats_of_bits_are_not_beside_nats_of_grey_levels(make_run: MakeRun, table: Any) -> None:
    make_run("a", elbo=-100.0, data={**DATA, "type": "mnist", "observe": "dequantise"})
    row = table("a")["AS-VAE"]
    assert row["NLL elbo [nats, upper bound, test, observe = dequantise]"] == ""
    assert row["NLL elbo [nats, upper bound, observe = binarise]"] == "82.51"


def test_published_bits_are_beside_those_of_photographs(make_run: MakeRun, table: Any) -> None:
    """Whose recipes have no key that says how values are observed: there is one way."""
    bits = {**figure("rmse", 6.4), "unit": "bits", "bound": "upper"}
    make_run("a", bits_per_dim=bits, data={"type": "cifar10", "root": "x"})
    rows = table("a")
    column = "bits_per_dim [bits, upper bound, test]"
    assert (rows["a"][column], rows["AS-VAE"][column]) == ("6.4", "3.32")


def test_published_columns_are_chosen_like_ours(make_run: MakeRun, table: Any) -> None:
    make_run("a", elbo=-100.0, rmse=3.0)
    assert set(table("a", "--published", "cifar10", "--metrics", "elbo")) == {"a"}
    assert "AS-VAE" in table("a", "--published", "cifar10", "--metrics", "rmse")


# --- what is written -------------------------------------------------------------------------------------------------


class Addresses(HTMLParser):
    """What a page would fetch, and the text that it shows."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value or "" for key, value in attributes if key in ("src", "href", "srcset", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_escaped_and_loads_nothing(make_run: MakeRun, say: Any, here: Path) -> None:
    make_run("a", name="<script>alert(1)</script>", elbo=absent("elbo", 'no <b>bound</b> & "so"'), rmse=2.0)
    make_run("b", elbo=-3.0, rmse=1.0, data=DATA)
    said = say("compare", "a", "b", "-o", "t.html", "--no-figures")
    assert (said.status, said.out) == (0, "t.html\n")
    page = Addresses(text := Path("t.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert 'no <b>bound</b> & "so"' in page.text
    assert all(address.startswith(("#", "data:")) for address in page.found)
    assert not re.search(r"url\(|@import|https?://", text)
    assert '<td class="best">1.00' in text


def test_markdown_cannot_be_broken_by_names(make_run: MakeRun, say: Any, here: Path) -> None:
    make_run("a", name="a|b_*c*", rmse=2.0)
    say("compare", "a", "-o", "t.md", "--no-figures")
    lines = Path("t.md").read_text(encoding="utf-8").splitlines()
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    assert {len(row) for row in rows} == {2}
    assert rows[2][0].strip() == r"a\|b\_\*c\*"


HOSTILE = "=cmd|x!A0 \x1b]0;X\x07\x9b31m\u202e [l](javascript:x) $m$"


def test_hostile_names_are_shown_and_nothing_more_in_every_format(make_run: MakeRun, say: Any, here: Path) -> None:
    run = make_run(os.fsdecode(b"-caf\xe9\x1b[31m\n"), name=HOSTILE, rmse=2.0)
    shown = {"terminal": say("compare", "--no-figures", "--", run).out}
    for ending in ("csv", "md", "html"):
        said = say("compare", "--no-figures", "-o", f"t.{ending}", "--", run)
        assert (said.status, said.problems) == (0, [])
        shown[ending] = Path(f"t.{ending}").read_text(encoding="utf-8")
    for text in shown.values():
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert "=cmd|x!A0 \\x1b]0;X\\x07\\x9b31m\\u202e" in shown["terminal"]
    assert "-caf\\udce9\\x1b[31m\\n" in shown["terminal"]
    (row,) = csv.DictReader(io.StringIO(shown["csv"]))
    assert row["model"].startswith("'=cmd|x!A0 \\x1b") and row["runs"].startswith("'-caf\\udce9\\x1b[31m\\n")
    assert row[RMSES] == "2.0"  # numbers stay numbers
    assert not re.search(r"(?<!\\)\]\(", shown["md"]) and "\\[l\\](javascript:x) \\$m\\$" in shown["md"]
    assert "=cmd|x!A0 \\x1b]0;X" in Addresses(shown["html"]).text


def test_a_table_to_a_full_disk_is_one_line(make_run: MakeRun) -> None:
    command = [sys.executable, "-m", "jointgen", "compare", "--no-figures", make_run("a", rmse=2.0)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "jointgen: the result could not be printed: the disk is full\n")


def test_tables_alone_import_no_torch(make_run: MakeRun) -> None:
    make_run("a", rmse=2.0)
    code = (
        "import sys\nfrom jointgen.cli.main import main\n"
        "assert main(['compare', 'a']) == 0\n"
        "assert main(['compare', 'a', '-o', 't.html', '--no-figures']) == 0\n"
        "print([name for name in ('torch', 'torchvision', 'sklearn', 'accelerate') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The shipped quickstart for a moment, with two seeds."""
    folder = tmp_path_factory.mktemp("seeds")
    for seed in (0, 1):
        words = [*in_words(seed=str(seed), train__steps="4"), "--quiet"]
        assert main(["run", str(QUICKSTART), "--out", str(folder / f"s{seed}"), *words]) == 0
    return [folder / "s0", folder / "s1"]


def test_trained_runs_have_pictures_of_the_same_rows(seeds: list[Path], say: Any, here: Path) -> None:
    said = say("compare", *seeds, "--no-aggregate", "-o", "t.md")
    assert (said.status, said.problems) == (0, [])
    assert said.out.split() == ["t.md", "t-samples.png", "t-reconstructions.png"]
    text = Path("t.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((.*)\)$", text, re.MULTILINE) == ["t-samples.png", "t-reconstructions.png"]
    with Image.open("t-samples.png") as image:
        assert image.width == 3 * image_width(8) + 2 * 24 + 2 * 12  # data and two models
    say("compare", *reversed(seeds), "--no-aggregate", "--figures", "turned")
    with Image.open("t-reconstructions.png") as one, Image.open("turned/reconstructions.png") as other:
        truth = (0, 40, 12 + image_width(3), one.height)
        assert one.crop(truth).tobytes() == other.crop(truth).tobytes()
        assert one.tobytes() != other.tobytes()


def image_width(columns: int) -> int:
    """Of a grid of 8x8 digits, enlarged six times, two pixels apart."""
    return columns * 50 - 2


def test_seeds_of_a_trained_model_are_one_row_and_its_page_holds_pictures(
    seeds: list[Path], say: Any, here: Path
) -> None:
    said = say("compare", *seeds, "-o", "t.html")
    assert (said.status, said.out) == (0, "t.html\n")
    page = Addresses(Path("t.html").read_text(encoding="utf-8"))
    assert "quickstart (2 seeds)" in page.text
    pictures = [address for address in page.found if address.startswith("data:image/png;base64,")]
    assert len(pictures) == 2
    for address in pictures:
        with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
            image.load()


def test_a_run_whose_checkpoints_are_gone_is_remarked_on(make_run: MakeRun, say: Any) -> None:
    make_run("a", rmse=1.0)
    said = say("compare", "a", "--figures", "pictures")
    assert said.status == 0
    assert said.problems[0].startswith("jointgen: a: no pictures: ")
    assert "RMSE" in said.out


def test_a_device_that_is_not_there(make_run: MakeRun, say: Any) -> None:
    make_run("a", rmse=1.0)
    assert say("compare", "a", "--figures", "x", "--device", "gpu").refusal.startswith("--device: 'gpu'")


def test_vectors_in_the_plane_are_scattered(say: Any, here: Path) -> None:
    recipe = {
        "format": 1,
        "data": {"type": "ring", "rows": 64},
        "objective": {"type": "vae"},
        "prior": {"type": "normal", "size": 2},
        "encoder": {"network": {"type": "mlp", "hidden": [4]}, "family": {"type": "gaussian"}},
        "decoder": {"network": {"type": "mlp", "hidden": [4]}, "family": {"type": "gaussian", "scale": "global"}},
        "train": {"steps": 1, "batch": 16, "trackers": []},
    }
    Path("ring.toml").write_text(tomli_w.dumps(recipe))
    assert say("run", "ring.toml", "--out", "ring", "--quiet").status == 0
    said = say("compare", "ring", "-o", "t.csv")
    assert (said.problems, said.out.split()) == ([], ["t.csv", "t-samples.png"])
    with Image.open("t-samples.png") as image:
        assert image.width == 2 * 480 + 24 + 2 * 12


def test_panels_have_titles_and_stand_in_few_even_rows() -> None:
    models = [(f"model {i}", Image.new("RGB", (500, 100), "navy")) for i in range(6)]
    image = panels(models)
    assert image.width == 3 * 500 + 2 * 24 + 2 * 12  # not four and two
    ink = [image.getpixel((x, y)) for x in range(12, 512) for y in range(12, 36)]
    assert any(pixel != (255, 255, 255) for pixel in ink)
    assert all(pixel == (255, 255, 255) for pixel in (image.getpixel((x, 5)) for x in range(image.width)))


def test_a_long_title_is_broken_into_lines() -> None:
    short, long = (panels([(title, Image.new("RGB", (140, 50)))]) for title in ("a", "a_rather_long_name"))
    assert short.width == long.width
    assert long.height - short.height == 24  # a_rather_ and long_name
