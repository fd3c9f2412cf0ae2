"""Files into models and out of them: folders of images, arrays of one's own, codes that are decoded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import jointgen
from jointgen.contracts.observation import raw_of
from jointgen.contracts.space import Space


def levels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


# --- a folder of images ----------------------------------------------------------------------------------------------


def test_samples_as_files_are_the_models_pixels(trained: Path, say: Any, here: Path) -> None:
    """17 levels lie evenly on 0..255; a value in [0, 1) is in the level that it is 17 times, rounded down."""
    assert say("sample", trained, "-n", 3, "-o", "out/").out.startswith("out/: 3 samples of x")
    assert sorted(p.name for p in Path("out").iterdir()) == ["000000.png", "000001.png", "000002.png"]
    values = jointgen.load(trained).sample(3).double().clamp(0, 1)
    expected = ((values * 17).floor().clamp(max=16) / 16 * 255).round()
    assert (levels(Path("out/000002.png")) == expected[2, 0].numpy()).all()


def test_more_samples_are_others_and_nothing_is_written_over(trained: Path, say: Any, here: Path) -> None:
    say("sample", trained, "-n", 2, "-o", "out/")
    before = {p.name: p.read_bytes() for p in Path("out").iterdir()}
    refused = say("sample", trained, "-n", 2, "-o", "out", "--start", 1).refusal
    assert (
        refused == "-o: out/000001.png is there already; --start with a number that is behind the last one adds others"
    )
    assert say("sample", trained, "-n", 2, "-o", "out", "--start", 2).status == 0
    after = {p.name: p.read_bytes() for p in Path("out").iterdir()}
    assert after.items() > before.items() and len(set(after.values())) == 4
    assert [p.name for p in here.iterdir()] == ["out"], "nothing is left beside it"


def test_a_disk_that_refuses_leaves_no_folder(trained: Path, say: Any, here: Path, monkeypatch: Any) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jointgen.cli.output_values.Image.Image.save", full)
    assert say("sample", trained, "-n", 2, "-o", "out/").refusal == "-o: out could not be written: the disk is full"
    assert list(here.iterdir()) == []


def test_a_folder_is_for_images_only(trained: Path, say: Any, here: Path) -> None:
    Path("a.png").write_bytes(b"")
    assert say("sample", trained, "-o", "a.png/").refusal == "-o: a.png/: is a file, not a folder"
    assert say("encode", trained, "-o", "out/").refusal.startswith("-o: out/: expected a file name that ends in .npz")


def test_a_file_that_was_there_is_named(trained: Path, say: Any, here: Path) -> None:
    assert say("sample", trained, "-n", 2, "-o", "a.png").out.startswith("a.png: 2 samples")
    assert say("sample", trained, "-n", 2, "-o", "a.png").out.startswith("a.png (replaced): 2 samples")


def test_what_a_command_reads_is_not_written_over(trained: Path, say: Any, here: Path) -> None:
    Image.new("L", (8, 8), 100).save("a.png")
    before = Path("a.png").read_bytes()
    refused = say("reconstruct", trained, "--images", "a.png", "-o", "./a.png").refusal
    assert refused == "-o: ./a.png: the command reads it, so it cannot be written"
    assert Path("a.png").read_bytes() == before


# --- every class -----------------------------------------------------------------------------------------------------


def test_every_class_has_the_same_codes(labelled: Path, say: Any, here: Path) -> None:
    """Rows 2 * 3 and 2 * 3 + 1 are those of class 3 alone; a grid has a row for each of ten classes."""
    assert say("sample", labelled, "-n", 2, "--given", "y=all", "-o", "all.npz").status == 0
    assert say("sample", labelled, "-n", 2, "--given", "y=3", "-o", "3.npz").status == 0
    every, threes = np.load("all.npz")["x"], np.load("3.npz")["x"]
    assert every.shape == (20, 1, 8, 8)
    assert (every[6:8] == threes).all()
    say("sample", labelled, "--given", "y=all", "-o", "all.png")
    assert levels(Path("all.png")).shape == (10 * 50 - 2, 8 * 50 - 2)


def test_all_is_for_labels(labelled: Path, say: Any, here: Path) -> None:
    assert "z=all: 'all' is not a number" in say("sample", labelled, "--given", "z=all", "-o", "a.png").refusal


# --- arrays in, arrays out -------------------------------------------------------------------------------------------


def test_codes_are_decoded_as_they_were_encoded(trained: Path, say: Any, here: Path) -> None:
    """Encode, change nothing, decode: the reconstruction; and a shifted code gives another image."""
    assert say("encode", trained, "-o", "z.npz").status == 0
    assert say("decode", trained, "z.npz", "-o", "x.npz").out == "x.npz: 297 rows of x, decoded from z\n"
    assert say("reconstruct", trained, "-n", 297, "-o", "r.npz").status == 0
    decoded, rebuilt, codes = np.load("x.npz")["x"], np.load("r.npz"), np.load("z.npz")
    assert np.abs(decoded - rebuilt["x"]).max() < 1e-6
    assert (rebuilt["rows"] == codes["rows"]).all()
    assert rebuilt["truth"].shape == (297, 1, 8, 8)
    np.save("shifted.npy", codes["z"][:2] + 1)
    assert say("decode", trained, "shifted.npy", "-o", "y.npz").status == 0
    expected = jointgen.load(trained).decode(codes["z"][:2] + 1).detach()
    assert (np.load("y.npz")["x"] == expected.numpy()).all()


def test_codes_and_labels_are_decoded_together(labelled: Path, say: Any, here: Path) -> None:
    z = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    np.savez("zy.npz", z=z, y=np.array([1, 2, 3]))
    assert say("decode", labelled, "zy.npz", "-o", "a.npz").status == 0
    expected = jointgen.load(labelled).decode(z, {"y": F.one_hot(torch.tensor([1, 2, 3]), 10)}).detach()
    assert (np.load("a.npz")["x"] == expected.numpy()).all()
    np.save("z.npy", z)
    assert say("decode", labelled, "z.npy", "-o", "b.npz").refusal == "CODES: p(x|z,y) needs y; given are z"
    assert say("decode", labelled, "z.npy", "--given", "y=2", "-o", "b.npz").status == 0
    assert (np.load("b.npz")["x"][1] == expected[1].numpy()).all()


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"w": (2, 4), "v": (2, 4)}, "CODES: a.npz: holds w float64 (2, 4), v float64 (2, 4); expected z"),
        ({"z": (2, 5)}, "CODES: a.npz: z: expected shape (B, 4), got (2, 5)"),
    ],
)
def test_codes_that_are_none(arrays: dict[str, Any], problem: str, trained: Path, say: Any, here: Path) -> None:
    np.savez("a.npz", **{name: np.zeros(shape) for name, shape in arrays.items()})
    assert say("decode", trained, "a.npz", "-o", "b.npz").refusal.startswith(problem)
    Path("a.txt").write_text("1 2 3")
    assert say("decode", trained, "a.txt", "-o", "b.npz").refusal == (
        "CODES: a.txt: expected a file of arrays, .npy, .npz, .safetensors"
    )


def test_arrays_are_encoded_like_the_data(trained: Path, say: Any, here: Path) -> None:
    """Levels as the source has them are observed with the same noise as images of one's own."""
    x = np.random.default_rng(0).integers(0, 17, (5, 1, 8, 8))
    np.save("x.npy", x)
    assert say("encode", trained, "--values", "x.npy", "-o", "z.npz").status == 0
    found = np.load("z.npz")
    assert found["rows"].tolist() == [0, 1, 2, 3, 4]
    assert found["z"].shape == (5, 4)
    np.save("grey.npy", (x[:, 0] + 0.5) / 17)  # the same in model space
    assert "expected shape (B, 1, 8, 8)" in say("encode", trained, "--values", "grey.npy", "-o", "y.npz").refusal
    np.save("grey.npy", (x + 0.5) / 17)
    assert say("encode", trained, "--values", "grey.npy", "-o", "y.npz").status == 0
    assert (np.load("y.npz")["z"] == found["z"]).all()


def test_arrays_with_labels_need_no_given(labelled: Path, say: Any, here: Path) -> None:
    x = np.random.default_rng(0).integers(0, 17, (2, 1, 8, 8))
    np.savez("a.npz", x=x, y=np.array([3, 3]))
    np.savez("b.npz", x=x)
    assert say("encode", labelled, "--values", "a.npz", "-o", "za.npz").status == 0
    assert say("encode", labelled, "--values", "b.npz", "--given", "y=3", "-o", "zb.npz").status == 0
    assert (np.load("za.npz")["z"] == np.load("zb.npz")["z"]).all()


@pytest.mark.parametrize(
    ("space", "values", "raw"),
    [
        (Space((1,), low=-1.0, high=1.0, bins=4), [[-1.0], [-0.01], [0.0], [1.2]], [[0], [1], [2], [3]]),
        (Space((1,), "binary", bins=256), [[0.0], [0.5], [1.0]], [[0], [128], [255]]),
        (Space((3,), "label"), [[0.1, 0.2, 0.7], [1.0, 0.0, 0.0]], [2, 0]),
        (Space((1,)), [[0.25]], [[0.25]]),
    ],
)
def test_raw_rows_of_values(space: Space, values: list[Any], raw: list[Any]) -> None:
    assert raw_of(torch.tensor(values), space).tolist() == raw
