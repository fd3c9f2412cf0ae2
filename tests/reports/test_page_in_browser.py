"""report.html in a browser: nothing fails, nothing is loaded, everything is drawn, for every kind of model."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from support.commands import in_words
from support.paths import QUICKSTART

import jointgen

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser to open pages in: none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as play:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        started = play.chromium.launch(executable_path=path, args=arguments)
        yield started
        started.close()


@attrs.frozen
class Opened:
    """A page, with what went wrong and what was asked for while it was open."""

    page: Page
    problems: list[str]
    requests: list[str]

    def all(self, script: str) -> Any:
        return self.page.evaluate(script)

    def until(self, condition: str) -> None:
        """Waits. Playwright's own waiting evaluates text within the page, which the page forbids."""
        deadline = time.monotonic() + 20
        while not self.all(condition):
            assert time.monotonic() < deadline, condition
            self.page.wait_for_timeout(20)


def open_page(browser: Browser, path: Path) -> Opened:
    """A page without a network, drawn."""
    found = Opened(browser.new_context(offline=True).new_page(), [], [])
    found.page.on("console", lambda m: found.problems.append(m.text) if m.type in ("error", "warning") else None)
    found.page.on("pageerror", lambda error: found.problems.append(str(error)))
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.goto(path.resolve().as_uri())
    found.until("[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('svg.main-svg'))")
    return found


@pytest.fixture
def open_one(browser: Browser) -> Iterator[Callable[[Path], Opened]]:
    """`open_page` for a page that is closed after the test."""
    found: list[Opened] = []

    def open_it(path: Path) -> Opened:
        found.append(open_page(browser, path))
        return found[-1]

    yield open_it
    for opened in found:
        opened.page.context.close()


def check(opened: Opened) -> None:
    """What holds for every page."""
    assert opened.problems == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in opened.requests if url.startswith("file:")]) == 1
    pictures = opened.all("[...document.images].map(image => [image.complete, image.naturalWidth])")
    assert all(complete and width > 0 for complete, width in pictures)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart's model for 20 steps, with pictures and evaluations every 10. Tests only read it."""
    changes = in_words(train__sample_every="10", train__eval_every="10", train__log_every="5")
    out = tmp_path_factory.mktemp("reported") / "run"
    jointgen.run(QUICKSTART, [word for word in changes if word != "--set"], out=out, quiet=True)
    return out


@pytest.fixture(scope="module")
def opened(browser: Browser, run: Path) -> Opened:
    """Its page, which takes a second or two to open. Tests leave it as they find it."""
    return open_page(browser, run / "report.html")


# --- one run, closely ------------------------------------------------------------------------------------------------


def test_the_page_of_a_run(run: Path, opened: Opened) -> None:
    """Its numbers are those of summary.json, and there is a plot for each kind of figure."""
    check(opened)
    assert opened.page.title() == "quickstart · done"
    shown = opened.all("[...document.querySelectorAll('[data-figure]')].map(r => [r.dataset.figure, r.dataset.value])")
    metrics = json.loads((run / "summary.json").read_text())["metrics"]
    assert {n: float(value) for n, value in shown} == {
        n: m["value"] for n, m in metrics.items() if m["value"] is not None
    }
    titles = opened.all("[...document.querySelectorAll('.plots figcaption')].map(c => c.firstChild.data.trim())")
    assert {"ELBO", "model: loss", "model: terms", "T: accuracy", "gradient norms", "learning rates"} <= {*titles}
    assert opened.all(
        "[...document.querySelectorAll('.curve')].every(plot => plot.querySelector('.scatterlayer .trace'))"
    )
    assert opened.all("document.querySelectorAll('.map .scatterlayer .trace').length") == 10  # labels
    assert opened.page.locator(".dimensions img").count() == 4  # z has 4 dimensions


def test_the_slider_changes_the_pictures(opened: Opened) -> None:
    """By the keyboard, from the last step to the first, and by playing back to the last."""
    visible = "[...document.querySelectorAll('.frames img')].filter(i => i.offsetParent).map(i => i.alt)"
    assert opened.all(visible) == ["samples at step 20", "reconstructions at step 20"]
    slider = opened.page.get_by_label("step of training")
    slider.focus()
    slider.press("ArrowLeft")
    assert opened.all(visible) == ["samples at step 10", "reconstructions at step 10"]
    assert opened.page.inner_text(".frames output") == slider.get_attribute("aria-valuetext") == "step 10"
    opened.page.get_by_label("play").click()
    opened.until(f"({visible})[0] === 'samples at step 20'")
    check(opened)


def test_curves_are_over_what_is_chosen(opened: Opened) -> None:
    """Steps 5 to 20 of 16 rows: 80 to 320 rows seen; and on a logarithmic axis."""
    loss = "document.querySelectorAll('#curves .plots')[1].querySelector('.plot')"
    assert opened.all(f"[...{loss}.data[0].x]") == [5, 10, 15, 20]
    opened.page.get_by_label("rows seen").check()
    assert opened.all(f"[...{loss}.data[0].x]") == [80, 160, 240, 320]
    assert opened.all(f"{loss}.layout.xaxis.title.text") == "rows seen"
    opened.page.get_by_label("logarithmic").check()
    assert opened.all(f"{loss}.layout.xaxis.type") == "log"
    opened.page.get_by_label("steps").check()
    opened.page.get_by_label("logarithmic").uncheck()
    check(opened)


def test_the_page_fits_a_telephone_and_the_dark(opened: Opened) -> None:
    usual, ink = opened.page.viewport_size, "document.querySelector('.curve').layout.font.color"
    light = json.dumps(opened.all(ink))
    opened.page.set_viewport_size({"width": 390, "height": 800})
    opened.page.emulate_media(color_scheme="dark")
    opened.until(f"{ink} !== {light}")
    opened.until("document.documentElement.scrollWidth === 390")
    assert usual is not None
    opened.page.set_viewport_size(usual)
    opened.page.emulate_media(color_scheme="light")
    opened.until(f"{ink} === {light}")
    check(opened)


# --- runs that lack something ----------------------------------------------------------------------------------------


def test_a_run_that_has_hardly_begun(run: Path, open_one: Callable[[Path], Opened], say: Any, here: Path) -> None:
    """One point, a null, and no checkpoint."""
    Path("begun").mkdir()
    shutil.copy(run / "recipe.toml", "begun/recipe.toml")
    event = {"step": 1, "images_seen": 16, "wall_s": 0.1, "model/loss": 1.5, "model/grad_norm": None, "d/loss": None}
    Path("begun/metrics.jsonl").write_text(json.dumps(event) + '\n{"step": 2, "torn')
    assert say("report", "begun").status == 0
    found = open_one(Path("begun/report.html"))
    check(found)
    assert found.page.locator(".curve").count() == 3
    assert found.page.locator(".curve .scatterlayer .points path").count() == 1
    assert "no whole checkpoint" in found.page.inner_text("#codes")


def test_a_browser_that_cannot_unpack_the_library_is_told(browser: Browser, run: Path) -> None:
    """The figures that do not need it are there, and nothing else fails."""
    context = browser.new_context(offline=True)
    context.add_init_script("delete window.DecompressionStream")
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((run / "report.html").resolve().as_uri())
    assert "not drawn: this browser has no DecompressionStream" in page.inner_text("header")
    assert page.locator(".plot:visible").count() == 0 and page.locator("[data-figure]:visible").count() > 0
    assert problems == []
    context.close()


# --- kinds of models -------------------------------------------------------------------------------------------------

MLP = {"type": "mlp", "hidden": [8]}
GAUSSIAN = {"network": MLP, "family": {"type": "gaussian"}}
IMPLICIT = {"network": MLP, "family": {"type": "implicit"}}
CONV = {"type": "conv", "widths": [4]}
VAE = {"type": "vae"}
RING = {
    "data": {"type": "ring", "rows": 64},
    "prior": {"type": "normal", "size": 2},
    "encoder": GAUSSIAN,
    "decoder": GAUSSIAN,
    "objective": VAE,
}
GAN = {
    "type": "expression",
    "maximize": "E[p(x)](log s(f))",
    "ratios": {"f": "q(x) : p(x)"},
    "joints": {"q": "q(x)"},
}
KINDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "points": (RING, ["the mean codes themselves", "z[1]"]),
    "one number": ({**RING, "prior": {"type": "normal", "size": 1}}, ["the mean codes themselves"]),
    "no code": (
        {**RING, "encoder": None, "decoder": IMPLICIT, "discriminator": MLP, "objective": GAN},
        ["this model has no latent code"],
    ),
    "implicit": (
        {**RING, "data": {"type": "digits"}, "encoder": IMPLICIT, "decoder": IMPLICIT, "discriminator": MLP}
        | {"objective": {"type": "ali"}},
        ["These figures do not exist for this model: ", "elbo (", "the mean codes themselves"],
    ),
    "code with channels": (
        {
            **RING,
            "data": {"type": "digits"},
            "prior": {"type": "normal", "size": [3, 2, 2]},
            "encoder": {"network": MLP, "family": {"type": "gaussian"}},
            "decoder": {"network": MLP, "family": {"type": "gaussian", "scale": "global"}},
        },
        ["from 12 dimensions to 2", "z[0, "],
    ),
    "two domains": (
        {
            **RING,
            "data": {"type": "digits"},
            "sources": {"prior": {"type": "digits", "negative": True}},
            "prior": None,
            "encoder": {"network": MLP, "family": {"type": "implicit", "noise": 0, "mean": "sigmoid"}},
            "decoder": {"network": MLP, "family": {"type": "implicit", "noise": 0, "mean": "sigmoid"}},
            "discriminator": MLP,
            "objective": {"type": "ali"},
        },
        ["this model has no latent code", "samples from the model: z"],
    ),
}


@pytest.mark.parametrize("kind", [*KINDS])
def test_every_kind_of_model_has_a_page(kind: str, open_one: Callable[[Path], Opened], tmp_path: Path) -> None:
    tables, words = KINDS[kind]
    train = {"steps": 2, "batch": 8, "log_every": 1, "trackers": []}
    recipe = {**tables, "format": 1, "train": train, "eval": {"rows": 32, "samples": 4}}
    recipe = {key: value for key, value in recipe.items() if value is not None}
    jointgen.run(recipe, out=tmp_path / "run", quiet=True)
    found = open_one(tmp_path / "run/report.html")
    check(found)
    text = found.page.inner_text("main")
    for word in words:
        assert word in text


def test_a_model_that_is_given_labels(labelled: Path, open_one: Callable[[Path], Opened]) -> None:
    """p(x|z,y): codes are decoded with the label of the row that a path begins at."""
    found = open_one(labelled / "report.html")
    check(found)
    assert "coloured by label" in found.page.inner_text("#codes")
    assert found.page.locator(".strip img").count() == 3
