"""Damaged files of a run are read as what they say or refused in a line that names them; nothing else happens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jointgen.contracts.statistics import Mean
from jointgen.errors import CheckpointError, JointgenError
from jointgen.evaluation.partial_results import PartialResults
from jointgen.runs import checkpoint
from jointgen.runs.folder import RunFolder
from jointgen.runs.manifest import MANIFEST, problems
from jointgen.runs.tensor_tree import parse, split
from jointgen.runtime.hashing import sha256_of


def changed(data: st.DataObject, text: bytes) -> bytes:
    """Bytes of which some are replaced, left out, repeated or flipped."""
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 30)))
        piece = data.draw(st.sampled_from(["noise", "twice", "flip", "cut"]))
        middle = {
            "noise": lambda: data.draw(st.binary(max_size=8)),
            "twice": lambda start=start, end=end, text=text: text[start:end] * 2,
            "flip": lambda start=start, end=end, text=text: bytes(byte ^ 1 for byte in text[start:end]),
            "cut": lambda: b"",
        }[piece]()
        text = text[:start] + middle + text[end:]
    return text


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(["", "x", "\x1b[31m", "../x", "é"])
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["", "step", "a"]), inner, max_size=3),
    max_leaves=5,
)


def edited(data: st.DataObject, value: Any) -> Any:
    """A JSON value of which one part, at any depth, is another, is gone, or has company."""
    if not isinstance(value, dict | list) or not value or data.draw(st.integers(0, 9)) == 0:
        return data.draw(JSON)
    copy: Any = value.copy()
    key = data.draw(st.sampled_from(sorted(copy) if isinstance(copy, dict) else range(len(copy))))
    how = data.draw(st.sampled_from(["inside", "inside", "inside", "delete", "add"]))
    if how == "inside":
        copy[key] = edited(data, copy[key])
    elif how == "delete":
        del copy[key]
    elif isinstance(copy, dict):
        copy[data.draw(st.text(max_size=3))] = data.draw(JSON)
    else:
        copy.insert(key, data.draw(JSON))
    return copy


@pytest.fixture(scope="module")
def files(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A copy of a run, with an evaluation, whose files each example damages anew."""
    folder = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("report.html", "tensorboard"))
    run = RunFolder(folder)
    summary = run.read_summary()
    assert summary is not None
    run.add_evaluation("step-00000020", summary.metrics)
    return run


READERS = {
    "summary.json": RunFolder.read_summary,
    "evaluation.json": RunFolder.read_evaluation,
    "metrics.jsonl": RunFolder.read_log,
    "recipe.toml": RunFolder.read_recipe,
    "environment.json": RunFolder.read_sessions,
}


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
def test_a_damaged_file_is_refused_by_name_or_read(files: RunFolder, name: str, data: st.DataObject) -> None:
    file = files.path / name
    whole = file.read_bytes()
    try:
        if name.endswith(".json") and data.draw(st.booleans()):
            file.write_text(json.dumps(edited(data, json.loads(whole))))
        else:
            file.write_bytes(changed(data, whole))
        READERS[name](files)
    except JointgenError as error:
        assert name in str(error)
        assert "\n" not in str(error)
    finally:
        file.write_bytes(whole)
    READERS[name](files)  # whole again


# --- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of one part and one state, which each example damages anew."""
    parts = {"encoder": {"w": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(3)}}
    state = {"progress": {"step": 3, 1: (torch.ones(2), None), "losses": [1.0, float("inf")]}}
    return checkpoint.save(tmp_path_factory.mktemp("root"), 3, parts, state, recipe="format = 1\n")


def reseal(folder: Path) -> None:
    """Write the hashes that the files have now, as somebody who edits a checkpoint by other means would."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    for name in manifest["files"]:
        held = (folder / name).read_bytes()
        manifest["files"][name] = {"size": len(held), "sha256": sha256_of(held)}
    del manifest["sha256"]
    digest = sha256_of(json.dumps(manifest, sort_keys=True).encode())
    (folder / MANIFEST).write_text(json.dumps({"sha256": digest, **manifest}))


@given(data=st.data())
def test_a_checkpoint_with_a_changed_byte_is_damaged(saved: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(saved.iterdir())))
    whole = file.read_bytes()
    damaged = changed(data, whole)
    try:
        file.write_bytes(damaged)
        if file.name != MANIFEST:
            assert bool(problems(saved)) == (damaged != whole)
        try:
            checkpoint.load(saved)
        except CheckpointError as error:
            assert file.name in str(error)
    finally:
        file.write_bytes(whole)
    assert not problems(saved)


@given(data=st.data())
def test_a_checkpoint_that_was_hashed_again_is_read_or_refused(saved: Path, data: st.DataObject) -> None:
    file = data.draw(st.sampled_from(sorted(path for path in saved.iterdir() if path.name != MANIFEST)))
    kept = {path: path.read_bytes() for path in saved.iterdir()}
    try:
        if file.suffix == ".json" and data.draw(st.booleans()):
            file.write_text(json.dumps(edited(data, json.loads(kept[file]))))
        else:
            file.write_bytes(changed(data, kept[file]))
        reseal(saved)
        try:
            assert checkpoint.load(saved).step == 3
        except CheckpointError as error:
            assert file.stem in str(error)  # a state's tensors are missed where its .json names them
    finally:
        for path, held in kept.items():
            path.write_bytes(held)


@given(data=st.data())
def test_a_manifest_that_was_hashed_again_is_read_or_refused(saved: Path, data: st.DataObject) -> None:
    file = saved / MANIFEST
    whole = file.read_bytes()
    manifest = json.loads(whole)
    del manifest["sha256"]
    body = edited(data, manifest)
    try:
        if isinstance(body, dict):
            body = {"sha256": sha256_of(json.dumps(body, sort_keys=True).encode()), **body}
        file.write_text(json.dumps(body))
        try:
            checkpoint.load(saved)
        except CheckpointError as error:
            assert "manifest.json" in str(error) or "safetensors" in str(error) or "progress" in str(error)
    finally:
        file.write_bytes(whole)


INTEGERS = st.integers(-(2**63), 2**64 - 1)
SCALARS = st.one_of(st.none(), st.booleans(), INTEGERS, st.floats(allow_nan=False), st.text(max_size=5))
TREES = st.recursive(
    SCALARS | st.lists(st.floats(width=32), max_size=3).map(torch.tensor),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(INTEGERS | st.text(max_size=3), inner, max_size=3),
    ),
    max_leaves=8,
)


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one.nan_to_num(7.5), other.nan_to_num(7.5))
    if isinstance(one, dict):
        return type(other) is dict and [*one] == [*other] and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and bool(one == other)


@given(TREES)
def test_a_tree_of_values_and_tensors_is_joined_as_it_was(tree: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(split(tree, tensors, "state")).encode()
    assert equal(parse(text, tensors), tree)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"dict": [["a", 1], ["a", 2]]}', "a key stands twice"),
        ('{"dict": [], "dict": []}', "a key stands twice"),
        ("18446744073709551616", "more than 64 bits"),
    ],
)
def test_states_that_no_run_writes(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(text.encode(), {})


def test_a_loss_that_was_absent_is_kept_and_a_number_of_65_bits_is_not_written() -> None:
    assert equal(parse(json.dumps(split([float("nan"), float("inf")], {}, "s")).encode(), {})[1:], [float("inf")])
    with pytest.raises(TypeError, match="progress: a checkpoint holds integers of 64 bits"):
        split(2**64, {}, "progress")


# --- evaluations that were stopped ------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(data=st.data())
def test_damaged_partial_results_count_for_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("partial") / "same"  # its name is in the file, whose bytes are drawn from
    partial = PartialResults(folder)
    with (
        pytest.raises(KeyboardInterrupt),
        partial.open("test", {"a": Mean}, [0]).continued({"a": Mean(4, 1.0, 2.0)}, 0) as done,
    ):
        done(0)
        raise KeyboardInterrupt
    assert partial.open("test", {"a": Mean}, [0]).statistics == {"a": Mean(4, 1.0, 2.0)}
    (file,) = folder.iterdir()
    file.write_bytes(changed(data, file.read_bytes()))
    assert partial.open("test", {"a": Mean}, [0]).statistics in ({"a": Mean(4, 1.0, 2.0)}, {})
