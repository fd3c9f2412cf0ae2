"""What makes `jointgen.run` pleasant in a notebook: a bar in its place, interrupts, cells that run twice, HTML."""

from __future__ import annotations

import signal
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.runs import logged, train_small

import jointgen
from jointgen.errors import RunInterrupted
from jointgen.runtime.progress import Progress


class Display:
    """Stands in for IPython.display: keeps what is shown."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def __call__(self, bundle: dict[str, str], *, raw: bool, display_id: bool) -> Display:
        assert raw and display_id
        return self.take(bundle)

    def take(self, bundle: dict[str, str]) -> Display:
        self.shown.append(bundle)
        return self

    def update(self, bundle: dict[str, str], *, raw: bool) -> None:
        self.take(bundle)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Display:
    """An IPython that runs the kernel of a notebook."""
    shell, display = types.SimpleNamespace(kernel=object()), Display()
    ipython: Any = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    shown: Any = types.ModuleType("IPython.display")
    shown.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    return display


def test_progress_stands_in_one_place_with_losses_notes_and_a_picture(notebook: Display, tmp_path: Path) -> None:
    (picture := tmp_path / "samples.png").write_bytes(b"a picture")
    with Progress(total=10) as bar:
        bar.update(4, 100.0, {"model/loss": 2.5})
        bar.show_pictures([picture])
        bar.note("step 4: elbo < 0")
    last = notebook.shown[-1]
    assert '<progress value="4" max="10"' in last["text/html"] and "model/loss 2.5" in last["text/html"]
    assert "step 4: elbo &lt; 0" in last["text/html"] and "data:image/png;base64,YSBwaWN0dXJl" in last["text/html"]
    assert last["text/plain"].endswith("model/loss 2.5\nstep 4: elbo < 0")


def test_a_quiet_run_shows_nothing_there(notebook: Display) -> None:
    with Progress(total=10, quiet=True) as bar:
        bar.update(4, 100.0, {})
    assert notebook.shown == []


def interrupt_after(steps: int) -> Any:
    """A `stop` that never stops the run, and presses Ctrl-C in a step."""
    calls = iter(range(1, 10**6))

    def stop() -> int:
        if next(calls) == steps:
            signal.raise_signal(signal.SIGINT)
        return 0

    return stop


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own answer to SIGINT, which a shell's background jobs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_cell_leaves_a_checkpoint_and_goes_on_to_the_same_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = train_small(tmp_path / "whole", {"train.steps": 8})
    with pytest.raises(
        KeyboardInterrupt, match=r"status stopped, step 3 of 8\), with a checkpoint: .*resume=\"auto\""
    ) as e:
        train_small(tmp_path / "run", {"train.steps": 8}, stop=interrupt_after(3))
    assert isinstance(e.value, RunInterrupted) and e.value._render_traceback_() == [f"RunInterrupted: {e.value}"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert "stopping after this step" in capfd.readouterr().err
    rest = train_small(tmp_path / "run", {"train.steps": 8}, resume="auto")
    assert rest.summary["step"] == 8 and logged(tmp_path / "run") == logged(whole.path)


def test_a_caller_that_handles_interrupts_keeps_them(tmp_path: Path) -> None:
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        train_small(tmp_path / "run", {"train.steps": 3}, stop=interrupt_after(2))
    finally:
        signal.signal(signal.SIGINT, before)
    assert came == [signal.SIGINT]


def test_a_cell_that_runs_again_says_what_to_do_and_overwrites_where_asked(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_small(out, {"train.steps": 2})
    (out / "notes.txt").write_text("mine")
    with pytest.raises(jointgen.ConfigError, match=r'resume="auto".* or overwrite=True') as e:
        train_small(out, {"train.steps": 3})
    assert e.value._render_traceback_() == [f"ConfigError: {e.value}"]
    with pytest.raises(jointgen.ConfigError, match=r"^overwrite: a run goes on or starts anew"):
        train_small(out, overwrite=True, resume="auto")
    with pytest.raises(jointgen.ConfigError, match=r"^train\.steps"):  # nothing is removed for a wrong recipe
        train_small(out, {"train.steps": -1}, overwrite=True)
    assert (out / "checkpoints" / "step-00000002").is_dir()
    run = train_small(out, {"train.steps": 3, "train.ema": None}, overwrite=True)
    assert all(p.requires_grad for p in run.model.parameters()) and not run.model.training
    assert repr(run.model).startswith("Model of quickstart, step-00000003, on cpu\n")
    assert run.summary["step"] == 3 and [folder.name for folder in (out / "checkpoints").glob("step-*")] == [
        "step-00000003"
    ]
    assert (out / "notes.txt").read_text() == "mine"
    shown = run._repr_html_()
    assert "ELBO" in shown and "data:image/png;base64," in shown
