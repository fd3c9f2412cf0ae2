"""Whatever somebody puts in the place of a run's file: commands name it in a line, and none ends in a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import Said
from support.tampering import SPECIAL

from jointgen.errors import FileError
from jointgen.evaluation import partial_results
from jointgen.evaluation.partial_results import PartialResults
from jointgen.runs.folder import RunFolder

Say = Callable[..., Said]


def write(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def edit(*keys: str, value: Any) -> Callable[[Path], object]:
    """Put a value into a JSON file."""

    def change(path: Path) -> None:
        whole = json.loads(path.read_text())
        inner = whole
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        path.write_text(json.dumps(whole))

    return change


NOISE = {
    "noise": write(b"\315\000\377{"),
    "empty": write(b""),
    "a list": write(b"[]"),
    "a number": write(b"1" * 5000),
    "deep": write(b"[" * 100_000),
    "NaN": write(b'{"status": "done", "step": NaN}'),
}
SUMMARIES = {
    "no status": edit("status", value=None),
    "a status of control characters": edit("status", value="\x1b]0;X\x07red"),
    "a step that is none": edit("step", value=-1),
    "a step of 80 bits": edit("step", value=2**80),
    "a figure of text": edit("metrics", "elbo", "value", value="1"),
    "a figure without a unit": edit("metrics", "extra", value={"value": 1.0}),
    "an unknown bound": edit("metrics", "elbo", "bound", value="upmost"),
    "no display": edit("metrics", "elbo", "display", value=[]),
    "a critic without a step": edit("critics", value={"f": {"trusted": False}}),
    "an unknown role": edit("data_keys", "data", "path", value="origin"),
    "a key of a later version": edit("later", value=1),
}
WAYS = {**NOISE, **{replace.__name__: replace for replace in SPECIAL}}


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def commands(run: Path) -> dict[str, tuple[Any, ...]]:
    return {
        "sample": ("sample", run, "-n", 1, "-o", run.parent / "s.npz"),
        "compare": ("compare", run),
        "eval": ("eval", run, "--metrics", "rmse"),
        "report": ("report", run),
    }


def lines_on(said: Said, file: Path) -> list[str]:
    return [line for line in said.problems if line.startswith(f"jointgen: {file}: ")]


@pytest.mark.parametrize("way", [*WAYS, *SUMMARIES])
def test_a_damaged_summary(copied: Path, say: Say, way: str) -> None:
    """`sample` and `eval` do without it, and say so; who needs it says what to do. Nobody replaces it."""
    summary = RunFolder(copied).summary
    {**WAYS, **SUMMARIES}[way](summary)
    for name, words in commands(copied).items():
        if name == "eval" and way not in ("noise", "no display"):
            continue  # as slow as all else together, and reads it as `sample` does
        said = say(*words)
        assert len(lines_on(said, summary)) == 1, (name, said)
        assert said.status == (0 if name in ("sample", "eval") else 2)
        assert "\x1b" not in said.out + "".join(said.problems)


EVALUATIONS = {
    "a checkpoint's name that is none": write(b'{"../step-1": {"metrics": {}}}'),
    "no metrics": write(b'{"step-00000020": {}}'),
    "a figure that is none": write(b'{"step-00000020": {"metrics": {"rmse": 3}}}'),
    "display is a list": write(b'{"step-00000020": {"metrics": {"rmse": {"display": []}}}}'),
    "half": write(b'{"step-00000020": {"metr'),
}


@pytest.mark.parametrize("way", [*WAYS, *EVALUATIONS])
def test_a_damaged_evaluation(copied: Path, say: Say, way: str) -> None:
    """Only `sample` has no use for it. `eval` refuses it before it evaluates, and does not replace it."""
    evaluation = RunFolder(copied).evaluation
    {**WAYS, **EVALUATIONS}[way](evaluation)
    for name, words in commands(copied).items():
        said = say(*words)
        if name == "sample":
            assert (said.status, said.problems) == (0, [])
        else:
            assert (said.status, len(said.problems), len(lines_on(said, evaluation))) == (2, 1, 1), (name, said)


@pytest.mark.parametrize("way", [*WAYS, "gone"])
def test_a_damaged_recipe(copied: Path, say: Say, way: str) -> None:
    recipe = RunFolder(copied).recipe
    WAYS.get(way, Path.unlink)(recipe)
    for name, words in commands(copied).items():
        said = say(*words)
        assert said.status == 2 and said.problems, (name, said)
        assert all(recipe.name in line for line in said.problems)


def test_a_recipe_that_follows_another_file(copied: Path, say: Say) -> None:
    """What a run has trained stands in its folder: nothing is read from elsewhere, not even by one of the commands."""
    recipe = RunFolder(copied).recipe
    (copied.parent / "elsewhere.toml").write_text("seed = 7\n")
    recipe.write_text(f'base = "../elsewhere.toml"\n{recipe.read_text()}')
    problem = f"{recipe}: base: the recipe of a run is based on no other, got '../elsewhere.toml'"
    for name, words in commands(copied).items():
        said = say(*words)
        assert (said.status, said.problems) == (2, [f"jointgen: {problem}"]), (name, said)
    with pytest.raises(FileError) as refused:
        RunFolder(copied).goes_on(resume=True)
    assert str(refused.value) == f"{problem}; remove it, and it is written again from the checkpoint"


@pytest.mark.parametrize("replace", SPECIAL)
def test_a_log_that_is_no_file(copied: Path, say: Say, replace: Callable[[Path], object]) -> None:
    replace(RunFolder(copied).metrics)
    said = say("report", copied)
    assert (said.status, len(said.problems), len(lines_on(said, RunFolder(copied).metrics))) == (2, 1, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (lambda lines: b"".join(lines)[:-20], "has lost 1 of the 1 events that the run logged up to step 20"),
        (lambda lines: b"", "has lost 1 of the 1 events that the run logged up to step 20"),
        (lambda lines: b"\xff\n" + b"".join(lines), "damaged and left as it is: line 1 (byte 0 is not UTF-8)"),
        (lambda lines: b"".join(lines * 2), "has 2 events up to step 20, and the run logged 1"),
    ],
)
def test_what_the_log_has_lost_is_said_by_report(
    copied: Path, say: Say, text: Callable[[list[bytes]], bytes], said: str
) -> None:
    metrics = RunFolder(copied).metrics
    metrics.write_bytes(text(metrics.read_bytes().splitlines(keepends=True)))
    shown = say("report", copied)
    assert shown.status == 0
    assert shown.problems == [f"jointgen: {metrics}: {said}"]


def test_a_folder_of_partial_results_that_is_a_link_is_not_written_through(
    copied: Path, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PartialResults, "discard", lambda self: None)
    monkeypatch.setattr(partial_results, "WRITE_EVERY_S", 0.0)
    say("eval", copied, "--metrics", "rmse")
    (folder,) = (copied / "evaluations").iterdir()
    shutil.rmtree(folder)
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    said = say("eval", copied, "--metrics", "rmse")
    assert said.status == 2
    assert lines_on(said, folder) == [
        f"jointgen: {folder}: is a link, and a run writes into its own folder only; remove it"
    ]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_report_without_a_checkpoint_says_so(copied: Path, say: Say) -> None:
    shutil.rmtree(copied / "checkpoints")
    said = say("report", copied)
    line = "no whole checkpoint; the page is written without what needs a checkpoint"
    assert lines_on(said, copied / "checkpoints") == [f"jointgen: {copied / 'checkpoints'}: {line}"]
