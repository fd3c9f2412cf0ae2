from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from support.tampering import SPECIAL, reseal
from torch import Tensor

from jointgen.errors import CheckpointError, ConfigError
from jointgen.runs import checkpoint
from jointgen.runs.checkpoint import latest, load, problems, save
from jointgen.runs.tensor_tree import serialize
from jointgen.runtime import atomic_files as files

RECIPE = 'format = 1\n# "π", for one\n'


def tiny(root: Path, step: int, **options: Any) -> Path:
    """A checkpoint whose contents name the step."""
    parts = {"encoder": {"weight": torch.full((3,), float(step))}}
    return save(root, step, parts, {"progress": {"step": step}}, recipe=RECIPE, **options)


def steps(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def same(a: Any, b: Any) -> bool:
    """Equal in structure, in type and in every bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bits(a), _bits(b))
    if isinstance(a, dict):
        return type(b) is dict and [*a] == [*b] and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.resolve_conj().contiguous().flatten().view(torch.uint8) if tensor.numel() else tensor


# --- round trip ---


def test_every_bit_comes_back(tmp_path: Path) -> None:
    """A network, its EMA, Adam's state and whatever else training keeps, none of it rounded."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
    groups: list[dict[str, Any]] = [{"params": net[0].parameters(), "lr": 0.1}, {"params": net[2].parameters()}]
    adam = torch.optim.Adam(groups, lr=1e-3)
    for _ in range(3):
        adam.zero_grad()
        net(torch.randn(8, 4)).square().mean().backward()
        adam.step()
    odd = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45])
    parts = {
        "encoder": net.state_dict(),  # float32 and the int64 count of batch norm
        "ema": {},
        "mixed": {
            **{str(t): odd.to(t) for t in (torch.bfloat16, torch.float16, torch.float64)},
            **{str(t): torch.tensor([0, 1, 100]).to(t) for t in (torch.int8, torch.uint8, torch.int32, torch.bool)},
            "empty": torch.empty(0, 5),
            "scalar": torch.tensor(3),
            "complex": torch.tensor([1 + 2j]).conj(),
        },
    }
    state = {
        "adam": adam.state_dict(),
        "progress": {
            "images": 2**60,
            "best": -math.inf,
            "nan": math.nan,
            "third": 1 / 3,
            "text": "ε\n",
            "nested": (1, [True, ()], {}),
            "keys": {7: "seven", "7": "text", None: 0, True: torch.tensor(1.5)},
        },
        "nothing": {},
        "bare": torch.arange(3),
    }
    path = save(tmp_path, 1000, parts, state, recipe=RECIPE)
    found = load(path)
    assert path == tmp_path / "step-00001000" == found.path
    assert (found.step, found.recipe) == (1000, RECIPE)
    assert found.versions["torch"] == torch.__version__
    assert same(dict(found.parts), {name: dict(part) for name, part in parts.items()})
    assert same(found.state, state)
    resumed = torch.optim.Adam([{"params": net[0].parameters()}, {"params": net[2].parameters()}])
    resumed.load_state_dict(found.state["adam"])
    assert same(resumed.state_dict(), adam.state_dict())


def test_views_and_tied_weights(tmp_path: Path) -> None:
    """Transposed, strided, expanded and shared memory is written as what it looks like."""
    base = torch.arange(12.0).view(3, 4)
    part = {"a": base, "b": base, "t": base.T, "every": base[:, ::2], "one": base[:1, :1].expand(3, 3)}
    part["nhwc"] = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last)
    part["parameter"] = torch.nn.Parameter(base)
    found = load(save(tmp_path, 1, {"net": part}, {"s": [base, base]}, recipe="")).parts["net"]
    assert all(torch.equal(found[name], part[name]) for name in part)
    assert not found["parameter"].requires_grad


def test_what_is_loaded_is_its_own(tmp_path: Path) -> None:
    """Writing to loaded tensors, or discarding the folder under them, must not matter."""
    path = tiny(tmp_path, 1)
    weight = load(path).parts["encoder"]["weight"]
    weight.add_(1.0)
    assert not problems(path) and load(path).parts["encoder"]["weight"].tolist() == [1.0] * 3
    shutil.rmtree(path)
    assert weight.tolist() == [2.0] * 3


def test_one_file_explains_itself(tmp_path: Path) -> None:
    with safe_open(tiny(tmp_path, 3) / "encoder.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "jointgen_format": "1", "recipe": RECIPE}


def test_saving_the_same_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    a, b = tiny(tmp_path / "a", 1), tiny(tmp_path / "b", 1)
    assert {p.name: p.read_bytes() for p in a.iterdir()} == {p.name: p.read_bytes() for p in b.iterdir()}


class Enough:
    pass


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"adam": {"state": {0: Enough()}}}, r"^adam/state/0: .* not Enough$"),
        ({"p": [1, {"x": {1, 2}}]}, r"^p/1/x: .* not set$"),
        ({"p": {(1, 2): 3}}, r"^p: key \(1, 2\): .* not tuple$"),
        ({"p": {"dtype": torch.float32}}, r"^p/dtype: .* not dtype$"),
        ({"p": {"z": torch.zeros(1, dtype=torch.complex128)}}, r"^p/z: .* torch\.complex128$"),
        ({"p": (torch.eye(2).to_sparse(),)}, r"^p/0: .* torch\.sparse_coo tensor"),
    ],
)
def test_what_cannot_be_kept_is_named(tmp_path: Path, state: dict[str, Any], message: str) -> None:
    tiny(tmp_path, 1)
    with pytest.raises(TypeError, match=message):
        save(tmp_path, 2, {}, state, recipe="")
    assert steps(tmp_path) == ["step-00000001"]


@pytest.mark.parametrize(
    ("parts", "state"),
    [({"a/b": {}}, {}), ({"../x": {}}, {}), ({"a": {}}, {"a": 1}), ({"": {}}, {}), ({}, {"manifest": 1})],
)
def test_names_are_file_names(tmp_path: Path, parts: dict[str, Any], state: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        save(tmp_path, 1, parts, state, recipe="")


# --- damage ---

FILES = ["encoder.safetensors", "progress.safetensors", "progress.json", "manifest.json"]


def test_these_are_all_the_files(tmp_path: Path) -> None:
    assert sorted(os.listdir(tiny(tmp_path, 1))) == sorted(FILES)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize("damage", [_flip, _shorten, os.unlink])
@pytest.mark.parametrize("name", FILES)
def test_every_damage_is_found(tmp_path: Path, name: str, damage: Callable[[Path], object]) -> None:
    tiny(tmp_path, 1)
    path = tiny(tmp_path, 2)
    damage(path / name)
    (line,) = problems(path)
    assert line.startswith(f"{name}: ")
    assert latest(tmp_path) == tmp_path / "step-00000001"
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(caught.value) == (
        f"checkpoint {path} is damaged:\n  {line}\nthe newest whole one is {tmp_path}/step-00000001"
    )


def test_an_edited_manifest_is_found(tmp_path: Path) -> None:
    path = tiny(tmp_path, 2)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["step"] = 3
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert problems(path) == ["manifest.json: contents differ from what was written"]


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"format": 2}', "\xff"])
def test_no_manifest_of_ours(tmp_path: Path, text: str) -> None:
    path = tiny(tmp_path, 2)
    (path / "manifest.json").write_bytes(text.encode("latin-1"))
    (line,) = problems(path)
    assert line.startswith("manifest.json: ")
    with pytest.raises(CheckpointError, match=rf"there is no whole one in {tmp_path}"):
        load(path)


def test_a_later_format_says_so(tmp_path: Path) -> None:
    path = tiny(tmp_path, 2)
    (path / "manifest.json").write_text('{"format": 2, "digest": "of another kind"}')
    assert problems(path) == ["manifest.json: format 2, and this version of jointgen reads 1"]


def test_all_damage_is_told_at_once(tmp_path: Path) -> None:
    path = tiny(tmp_path, 2)
    os.unlink(path / "progress.json")
    _lengthen(path / "encoder.safetensors")
    size = (path / "encoder.safetensors").stat().st_size
    assert problems(path) == [
        f"encoder.safetensors: {size} bytes, {size - 1} expected",
        "progress.json: no such file",
    ]


def test_nothing_there(tmp_path: Path) -> None:
    assert latest(tmp_path) is None and latest(tmp_path / "no") is None
    with pytest.raises(CheckpointError, match=r"manifest\.json: no such file"):
        load(tmp_path / "step-00000001")


# --- tampered with, and given the hashes of what it is now ---


def without(*keys: str) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: [manifest.pop(key) for key in keys]


def setting(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: manifest.update({key: value})


SEAL = {"size": 0, "sha256": ""}
EDITS = {
    **{f"no {key}": without(key) for key in ("step", "versions", "recipe", "parts", "state", "files")},
    **{
        f"{key} = {value!r}": setting(key, value)
        for key in ("step", "versions", "recipe", "parts", "state", "files")
        for value in (None, -1, 1.5, "", [[]], [1], {"a": None}, {"../x": []})
        if (key, value) not in (("recipe", ""), ("step", 2))
    },
    "no files": setting("files", {}),
    "a file that is not its own": lambda manifest: manifest["files"].update({"../x": SEAL}),
    "a part that is not its own": lambda manifest: manifest["parts"].update({"../x": []}),
    "a state that is not its own": lambda manifest: manifest["state"].append("../x"),
    "a part without a file": lambda manifest: manifest["parts"].update({"decoder": []}),
    "a state twice": lambda manifest: manifest["state"].append("progress"),
    "a part that is a state": lambda manifest: manifest["parts"].update({"progress": []}),
    "a state that is the manifest": lambda manifest: manifest["state"].append("manifest"),
    "a size that is none": lambda manifest: manifest["files"].update({"progress.json": {"size": -1, "sha256": ""}}),
    "a seal that is none": lambda manifest: manifest["files"].update({"progress.json": 1}),
    "another step": setting("step", 3),
    "a later version's key": setting("later", 1),
    "no recipe": setting("recipe", "["),
    "a deep recipe": setting("recipe", "a = " + "[" * 5000),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_manifest_that_no_run_writes_is_damaged(tmp_path: Path, edit: str) -> None:
    tiny(tmp_path, 1)
    path = tiny(tmp_path, 2)
    reseal(path, EDITS[edit])
    (line,) = problems(path)
    assert line.startswith("manifest.json: ") and len(line) < 400
    with pytest.raises(CheckpointError, match=r"is damaged:\n  manifest\.json: "):
        load(path)
    found = checkpoint.find(tmp_path)
    assert (found.step, found.passed_over) == (1, (f"step-00000002 is damaged ({line})",))


def test_a_manifest_as_it_was_is_whole(tmp_path: Path) -> None:
    """So it is the edits that are found."""
    reseal(tiny(tmp_path, 2))
    assert load(tmp_path / "step-00000002").step == 2


META = {"format": "pt"}
CONTENTS = {
    "progress.json": [
        *(b"", b"\xff", b"[]", b"{}", b"[" * 100_000, b'{"dict": [["step", 1, 2]]}', b'{"dict": [[[], 1]]}'),
        *(b'{"dict": 1}', b'{"tensor": "gone"}', b'{"list": {}}', b'{"set": []}', b'{"dict": [], "list": []}'),
    ],
    "progress.safetensors": [b"", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0[[[[[[[["],
    "encoder.safetensors": [b"", serialize({}, META), serialize({"another": torch.zeros(1)}, META)],
}


@pytest.mark.parametrize(("name", "contents"), [(name, data) for name in CONTENTS for data in CONTENTS[name]])
def test_contents_that_no_run_writes_are_damaged(tmp_path: Path, name: str, contents: Any) -> None:
    """Though the hashes are right: the one before is used."""
    tiny(tmp_path, 1)
    path = tiny(tmp_path, 2)
    (path / name).write_bytes(b"".join(contents) if isinstance(contents, tuple) else contents)
    reseal(path)
    assert problems(path) == []
    with pytest.raises(CheckpointError, match=rf"is damaged:\n  {name}: .*\nthe newest whole one is .*step-00000001$"):
        load(path)
    assert checkpoint.find(tmp_path).step == 1


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("replace", SPECIAL)
def test_what_is_no_file_of_a_checkpoint_is_not_read(
    tmp_path: Path, name: str, replace: Callable[[Path], object]
) -> None:
    tiny(tmp_path, 1)
    path = tiny(tmp_path, 2)
    replace(path / name)
    (line,) = problems(path)
    assert line.startswith(f"{name}: ")
    assert checkpoint.find(tmp_path).step == 1


def test_links_are_no_part_of_a_checkpoint(tmp_path: Path) -> None:
    """Neither to a file elsewhere that is what it should be, nor to a folder."""
    tiny(tmp_path / "run", 1)
    path = tiny(tmp_path / "run", 2)
    os.rename(path / "progress.json", tmp_path / "progress.json")
    (path / "progress.json").symlink_to(tmp_path / "progress.json")
    assert problems(path) == ["progress.json: is a link; expected a file"]
    os.rename(tmp_path / "run/step-00000001", tmp_path / "elsewhere")
    (tmp_path / "run/step-00000001").symlink_to(tmp_path / "elsewhere")
    assert problems(tmp_path / "run/step-00000001") == ["is a link; expected a folder"]
    tiny(tmp_path / "run", 3, keep=1)
    assert steps(tmp_path / "run") == ["step-00000003"] and problems(tmp_path / "elsewhere") == []


@pytest.mark.parametrize("name", [".tmp-step-00000002", "step-00000002", "latest", "best"])
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "away").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "away")
    tiny(tmp_path / "run", 2, best="step-00000002")
    assert os.listdir(tmp_path / "away") == []
    assert load(tmp_path / "run/step-00000002").step == 2


@pytest.mark.parametrize(("text", "said"), [(b"\xff", "is not text"), (b"../../etc", "'../../etc' is not in")])
def test_a_name_of_the_best_that_is_none(tmp_path: Path, text: bytes, said: str) -> None:
    tiny(tmp_path, 1)
    (tmp_path / "best").write_bytes(text)
    with pytest.raises(ConfigError, match=said):
        checkpoint.find(tmp_path, "best")


# --- which ones stay ---


def test_latest_goes_by_number(tmp_path: Path) -> None:
    tiny(tmp_path, 99_999_999, keep=5)
    path = tiny(tmp_path, 100_000_000, keep=5)
    assert latest(tmp_path) == path and (tmp_path / "latest").read_text() == "step-100000000\n"


def test_torn_folders_are_no_checkpoints(tmp_path: Path) -> None:
    path = tiny(tmp_path, 5)
    (tmp_path / "step-00000009").mkdir()
    (tmp_path / ".tmp-step-00000008").mkdir()
    (tmp_path / ".tmp-step-00000008" / "encoder.safetensors").write_text("half")
    (tmp_path / "notes").mkdir()
    assert latest(tmp_path) == path
    tiny(tmp_path, 6)
    assert steps(tmp_path) == ["notes", "step-00000005", "step-00000006"]


def test_the_hint_is_not_trusted(tmp_path: Path) -> None:
    path = tiny(tmp_path, 5)
    for text in ("step-00000001", "", "../../etc"):
        (tmp_path / "latest").write_text(text)
        assert latest(tmp_path) == path
    (tmp_path / "latest").unlink()
    assert latest(tmp_path) == path


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_keeps_the_last_ones_and_the_protected(tmp_path: Path, keep: int) -> None:
    for step in range(1, 8):
        tiny(tmp_path, step, keep=keep, best="step-00000002" if step > 1 else None)
    expected = {2, *range(8 - keep, 8)}
    assert steps(tmp_path) == [f"step-{step:08d}" for step in sorted(expected)]
    assert not any(problems(tmp_path / name) for name in steps(tmp_path))


def test_a_future_not_taken_goes(tmp_path: Path) -> None:
    """Step 9 was damaged, so the run resumed from 4: what 9 was must not count as newer than 6, nor push it out."""
    tiny(tmp_path, 4)
    _flip(tiny(tmp_path, 9) / "progress.json")
    tiny(tmp_path, 6, keep=1)
    assert steps(tmp_path) == ["step-00000006"] and latest(tmp_path) == tmp_path / "step-00000006"


def test_the_same_step_again(tmp_path: Path) -> None:
    tiny(tmp_path, 3)
    tiny(tmp_path, 4)
    save(tmp_path, 4, {"encoder": {"weight": torch.zeros(1)}}, {}, recipe="name = 'other'", keep=2)
    assert steps(tmp_path) == ["step-00000003", "step-00000004"]
    assert load(tmp_path / "step-00000004").recipe == "name = 'other'"


# --- crashes ---


class Crash(BaseException):
    """As abrupt as an exception can be."""


def crash_at(monkeypatch: pytest.MonkeyPatch, name: str, nth: int, error: BaseException) -> None:
    """Makes the nth call of os.<name> from now raise."""
    real, calls = getattr(os, name), []

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == nth:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, call)


POINTS = [("fsync", n) for n in range(1, 9)] + [("rename", n) for n in (1, 2, 3)] + [("replace", 1), ("mkdir", 2)]


@pytest.mark.parametrize(
    "error", [Crash(), OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "I/O")]
)
@pytest.mark.parametrize("again", [False, True], ids=["next", "same"])
@pytest.mark.parametrize(("name", "nth"), POINTS)
def test_an_exception_anywhere_leaves_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, nth: int, again: bool, error: BaseException
) -> None:
    """Before the rename the previous one is the newest; after it the new one is. Never neither, even with keep=1."""
    tiny(tmp_path, 1, keep=1)
    with monkeypatch.context() as patch, contextlib.suppress(Crash, CheckpointError):
        crash_at(patch, name, nth, error)
        tiny(tmp_path, 1 if again else 2, keep=1)
    newest = latest(tmp_path)
    assert newest is not None and load(newest).step in ([1] if again else [1, 2])
    assert [name for name in steps(tmp_path) if name.startswith("step-") and problems(tmp_path / name)] == []
    path = tiny(tmp_path, 3, keep=1)  # and the next one finds its way, and cleans up
    assert steps(tmp_path) == ["step-00000003"] and latest(tmp_path) == path


@pytest.mark.parametrize("where", ["write", "fsync"])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    tiny(tmp_path, 1)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(
        files.os if where == "fsync" else checkpoint, "fsync" if where == "fsync" else "write_flushed", full
    )
    with pytest.raises(CheckpointError) as caught:
        tiny(tmp_path, 2)
    assert str(caught.value) == (
        f"checkpoint {tmp_path}/step-00000002 could not be written: the disk is full\n"
        f"the newest whole one is {tmp_path}/step-00000001"
    )
    assert steps(tmp_path) == ["step-00000001"]
    assert not problems(tmp_path / "step-00000001")
    assert (tmp_path / "latest").read_text() == "step-00000001\n"


def test_another_failure_says_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> None:
        raise OSError(errno.EIO, "Input/output error", "/disk/x")

    monkeypatch.setattr(checkpoint, "write_flushed", broken)
    with pytest.raises(
        CheckpointError, match=r"could not be written: .*Input/output error: '/disk/x'\nthere is no whole"
    ):
        tiny(tmp_path, 2)


def test_what_cannot_be_deleted_does_not_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    tiny(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", busy)
        path = tiny(tmp_path, 2, keep=1)
    assert latest(tmp_path) == path
    tiny(tmp_path, 3, keep=1)
    assert steps(tmp_path) == ["step-00000003"]


KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from jointgen.runs.checkpoint import latest, load, problems, save

torch.set_num_threads(1)
root, kills, half = Path(sys.argv[1]), int(sys.argv[2]), 0

def child():
    found = latest(root)
    step = load(found).step if found else 0
    while True:
        step += 1
        value = torch.full((50_000,), float(step))
        save(root, step, {"net": {"w": value}}, {"adam": {"m": value}, "progress": {"step": step}}, recipe="", keep=2)

dice, before = random.Random(0), 0
for _ in range(kills):
    pid = os.fork()
    if pid == 0:
        child()
    time.sleep(dice.uniform(0.05, 0.4))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    half += len([*root.glob(".tmp-step-*")])
    assert not [name for name in root.glob("step-*") if problems(name)], sorted(root.iterdir())
    newest = latest(root)
    if newest is not None:
        found = load(newest)
        assert found.step >= before, (found.step, before)
        assert (found.parts["net"]["w"] == found.step).all() and (found.state["adam"]["m"] == found.step).all()
        before = found.step
print("survived to step", before, "with", half, "half-written")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
def test_kill_9(tmp_path: Path) -> None:
    """One import of torch, many forks: each saves at every step until it is killed, wherever it is."""
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "checkpoints"), "10"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[3]) > 3, done.stdout
