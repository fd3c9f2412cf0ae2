"""Ways to tamper with files: bytes, JSON, TOML, arrays, folders of images, links and pipes. For fuzz.py.

Each takes a random generator and a path, changes what is there, and says in words what it did.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from PIL import Image
from safetensors.numpy import save_file

CASE, OUTSIDE = "case", "outside"
"""The folder of a case, and the folder beside it that belongs to somebody else."""


def outside_of(path: Path) -> Path:
    """The folder of somebody else beside that of the case."""
    return next(folder for folder in path.parents if folder.name == CASE).with_name(OUTSIDE)


# --- hostile values ---------------------------------------------------------------------------------------------------

TEXTS = [
    "",
    " ",
    "\x1b]0;X\x07\x1b[31mred",
    "\x9b31m\x00",
    "line\nbreak\r\x08",
    "\u202eesrever",
    "=cmd|' /C calc'!A0",
    "@SUM(1)",
    "<script>fuzz()</script>",
    "../secret.npy",
    "/proc/version",
    "/dev/zero",
    "\udcff\udc80",
    "x" * 100_000,
    "%s%n{0}{x}",
    "nan",
    "null",
    "step-99999999",
    "日本",
]
NUMBERS = [0, -1, 1, 2, 3.5, -0.0, 1e-300, 1e308, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**70, 10**12, 10**40]
RAW = ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "[" * 3000 + "]" * 3000, '{"a":' * 1000 + "1" + "}" * 1000]


def hostile(draw: random.Random) -> Any:
    pick = draw.randrange(6)
    if pick == 0:
        return draw.choice(TEXTS)
    if pick == 1:
        return draw.choice(NUMBERS)
    if pick == 2:
        return draw.choice([None, True, False, [], {}, [[]], [None], {"": None}, [1, "a"], {"value": 1}])
    if pick == 3:
        return [hostile(draw) for _ in range(draw.randrange(4))]
    if pick == 4:
        return {draw.choice(TEXTS)[:50]: hostile(draw) for _ in range(draw.randrange(3))}
    return draw.choice([float("nan"), float("inf"), ["x"] * 10_000, {f"k{i}": i for i in range(3_000)}])


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path to a value in nested tables and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from places(inner, (*above, key))


def edited(draw: random.Random, value: Any) -> tuple[Any, str]:
    """A copy of nested values with one of them deleted, replaced, renamed, added or repeated."""
    value = json.loads(json.dumps(value))
    paths = list(places(value))
    if not paths or draw.random() < 0.05:
        return hostile(draw), "the whole document"
    *table, key = draw.choice(paths)
    holder = value
    for part in table:
        holder = holder[part]
    where = ".".join(map(str, (*table, key)))[:80]
    how = draw.choice(("replace", "replace", "replace", "delete", "add", "rename", "twin"))
    if how == "replace":
        other = draw.choice(paths)
        taken = value
        for part in other:
            taken = taken[part]
        holder[key] = hostile(draw) if draw.random() < 0.8 else json.loads(json.dumps(taken))
    elif how == "delete":
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(key, hostile(draw) if how == "add" else holder[key])
    elif how == "add":
        holder[draw.choice(TEXTS)[:100]] = hostile(draw)
    else:
        holder[draw.choice(TEXTS)[:100]] = holder.pop(key) if how == "rename" else holder[key]
    return value, f"{how} {where}"


# --- tampering with a file --------------------------------------------------------------------------------------------


def flip(draw: random.Random, path: Path) -> str:
    data = bytearray(path.read_bytes() or b"\0")
    places = [draw.randrange(min(len(data), draw.choice((200, 10**9)))) for _ in range(draw.choice((1, 1, 1, 3, 20)))]
    for place in places:
        data[place] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    return f"flipped bits at {places[:3]}"


def truncate(draw: random.Random, path: Path) -> str:
    size = path.stat().st_size
    left = draw.choice((0, 1, size // 2, max(0, size - 1), draw.randrange(size + 1)))
    os.truncate(path, left)
    return f"cut to {left} of {size} bytes"


def noise(draw: random.Random, path: Path) -> str:
    path.write_bytes(draw.choice((draw.randbytes(300), b"\xff\xfe{}", b"[]", b"null", b"0", b'""', b"\n\n", b"{}")))
    return "noise"


def append(draw: random.Random, path: Path) -> str:
    tail = draw.choice((b"\n", b"\0" * 100, b"}{", draw.randbytes(50), b'{"step": 1}\n', path.read_bytes()[:5000]))
    with path.open("ab") as file:
        file.write(tail)
    return f"appended {tail[:20]!r}"


def grow(draw: random.Random, path: Path) -> str:
    size = draw.choice((1 << 28, 1 << 33, 1 << 42))
    os.truncate(path, size)
    return f"sparse file of {size} bytes"


def delete(draw: random.Random, path: Path) -> str:
    path.unlink()
    return "deleted"


def swap(draw: random.Random, path: Path) -> str:
    others = sorted(file for file in path.parent.iterdir() if file.is_file() and file != path)
    if not others:
        return delete(draw, path)
    other = draw.choice(others)
    path.write_bytes(other.read_bytes())
    return f"holds what {other.name} holds"


def replaced(draw: random.Random, path: Path) -> str:
    how = draw.choice(("a folder", "a pipe", "a link to itself", "/dev/zero", "/dev/random", "a dead link", "a socket"))
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how == "a pipe":
        os.mkfifo(path)
    elif how == "a socket":
        os.mknod(path, 0o140600)
    else:
        path.symlink_to({"a link to itself": path, "a dead link": path.with_name("gone")}.get(how, how))
    return f"is {how}"


def linked_out(draw: random.Random, path: Path) -> str:
    """A link to the same bytes in a folder of somebody else's, where nothing may be written."""
    target = outside_of(path) / path.name
    shutil.move(path, target)
    path.symlink_to(target)
    return "is a link to the same file outside"


def json_edit(draw: random.Random, path: Path) -> str:
    lines = path.suffix == ".jsonl"
    texts = path.read_text().splitlines() if lines else [path.read_text()]
    at = draw.randrange(len(texts))
    value, what = edited(draw, json.loads(texts[at]))
    texts[at] = json.dumps(value, indent=None if lines else 1)
    if draw.random() < 0.15:  # what json.dumps does not write
        raw = draw.choice(RAW)
        texts[at] = re.sub(r"(?<=: )-?\d[\d.e+-]*", lambda _: raw, texts[at], count=1)
        what = f"{raw[:12]} for a number"
    elif draw.random() < 0.05:
        texts[at] = texts[at].replace("{", '{"step": 1, "step": 2, ', 1)
        what = "a key that stands twice"
    if lines and draw.random() < 0.3:
        gone = draw.randrange(len(texts))
        del texts[gone]
        what = f"lost line {gone + 1}"
    path.write_text("\n".join(texts) + "\n", errors="surrogatepass")
    return what


def toml_edit(draw: random.Random, path: Path) -> str:
    text = path.read_text()
    try:
        value, what = edited(draw, tomllib.loads(text))
        path.write_text(tomli_w.dumps(value))
        return what
    except (TypeError, AttributeError, UnicodeError, ValueError):  # TOML has no such value
        pass
    how = draw.randrange(8)
    if how == 0:
        text += "deep = " + "[" * 2000 + "]" * 2000 + "\n"
    elif how == 1:
        text = ".".join(["a"] * 3000) + " = 1\n" + text
    elif how == 2:
        text = "".join(f"unknown{i} = {i}\n" for i in range(5000)) + text
    elif how == 3:
        text = f"seed = {'9' * 6000}\n{text}"
    elif how == 4:
        text = f'name = "{draw.choice(TEXTS).encode("unicode_escape", "surrogatepass").decode()}"\n{text}'
    elif how == 5:
        text = text.replace("=", draw.choice(("==", "= inf #", "= nan #", "= 1979-05-27 #", "= -")), 1)
    elif how == 6:
        lines = text.splitlines()
        lines.insert(draw.randrange(len(lines)), draw.choice(lines))
        text = "\n".join(lines)
    else:
        bases = ("/dev/zero", path.name, "..", "/proc/version", "\\u001b[31m.toml", "x" * 5000, "child.toml")
        text = f'base = "{draw.choice(bases)}"\n{text}'
    path.write_text(text)
    return f"text edit {how}"


def npy_header(draw: random.Random, path: Path) -> str:
    headers = [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (4611686018427387904, 8, 8), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (60, 4611686018427387904), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 8, 8), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (0, 8, 8), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (60, 0), }",
        "{'descr': '|u1', 'fortran_order': True, 'shape': (60, 8, 8), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (60, 8), }",
        "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (60, 8), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (60, 8), }",
        "{'descr': '>f2', 'fortran_order': False, 'shape': (60, 8, 4), }",
        "{'descr': '<c16', 'fortran_order': False, 'shape': (60, 4), }",
        "{'descr': '<U4', 'fortran_order': False, 'shape': (60, 4), }",
        "{'descr': [('a', '|u1'), ('\x1b[31m', '|u1')], 'fortran_order': False, 'shape': (60, 4), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (60, 64), 'more': 1}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': [60, 64]}",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 64)}",
        "__import__('os').system('echo fuzz')",
        "(" * 200,
        "",
    ]
    header = draw.choice(headers)
    body = draw.choice((path.read_bytes()[128:], draw.randbytes(60 * 64)))
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    version = draw.choice((b"\x01\x00", b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x09\x00"))
    path.write_bytes(b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + body)
    return f"header {header[:70]}"


def values(draw: random.Random, path: Path) -> str:
    """An array of a legal file with values or a shape that mean nothing."""
    how = draw.randrange(10)
    rows = 60
    array: Any = {
        0: lambda: np.full((rows, 5), np.nan, np.float32),
        1: lambda: np.where(np.arange(rows * 5).reshape(rows, 5) == 37, np.inf, 1.0).astype(np.float32),
        2: lambda: np.zeros((rows, 5), np.float32),
        3: lambda: np.full((rows, 5), 3e38, np.float32),
        4: lambda: np.full((rows, 5), 1e300),
        5: lambda: np.zeros((rows, 8, 8), np.uint8),
        6: lambda: np.arange(draw.choice((0, 1, 2, 3, 9, 17)) * 5, dtype=np.float32).reshape(-1, 5),
        7: lambda: np.full((rows, 5), -(2**63), np.int64),
        8: lambda: np.ones((rows, 5), bool),
        9: lambda: np.zeros((rows,), np.float32),
    }[how]()
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        key = draw.choice(("x", "x", "x", "../x", "\x1b[31mx", "", "=1+1"))
        np.savez(path, **{key: array, "y": draw.choice((np.zeros(rows), np.full(rows, -5), np.array(["a"] * rows)))})
    else:
        save_file({draw.choice(("x", "x", "\x1b[31mx", "")): array, "y": np.zeros(7, np.int64)}, path)
    return f"values {how}"


PICTURES = {
    "bomb": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0" + b"\0" * 20,
    "empty": b"",
    "text": b"this is no picture",
    "jpeg's beginning": b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01",
    "gif": b"GIF89a\x08\0\x08\0\x80\0\0\0\0\0\xff\xff\xff",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}
NAMES = [
    b"\x1b[31mred.png",
    b"\xff\xfe.png",
    b"=cmd.png",
    b"new\nline.png",
    b"a" * 240 + b".png",
    b" .png",
    b".hidden.png",
    b"-rf.png",
    "日本.PNG".encode(),
    b"x.jpeg.png.tiff",
    b"nul.png",
    b"\xe2\x80\xae.png",
]


def image_tree(draw: random.Random, root: Path) -> tuple[str, Path | None]:
    """Changes a folder of images as folders of people are; also returns a broken image, if there is one."""
    folders = sorted(folder for folder in root.rglob("*") if folder.is_dir())
    folder = draw.choice([root, *folders])
    how = draw.randrange(14)
    picture = next(iter(sorted(root.rglob("*.png")))).read_bytes()
    if how == 0:
        (folder / "loop").symlink_to(root)
    elif how == 1:
        os.mkfifo(folder / "pipe.png")
    elif how == 2:
        (folder / "zero.png").symlink_to("/dev/zero")
    elif how == 3:
        for i in range(9):  # 2^9 paths
            inner = root / f"l{i}"
            inner.mkdir()
            (inner / "a").symlink_to(root / f"l{i + 1}")
            (inner / "b").symlink_to(root / f"l{i + 1}")
    elif how == 4:
        deep = os.fsencode(folder)
        for _ in range(draw.choice((30, 300))):
            deep += b"/d"
            os.mkdir(deep)
        Path(os.fsdecode(deep), "x.png").write_bytes(picture)
    elif how in (5, 6):
        name = draw.choice(NAMES)
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(picture)
    elif how == 7:
        (folder / os.fsdecode(draw.choice(NAMES)[:100])).mkdir()
    elif how == 8:
        shutil.rmtree(folder) if folder != root else [shutil.rmtree(inner) for inner in root.iterdir()]
    elif how == 9:
        for file in folder.rglob("*.png"):
            file.unlink()
    elif how in (10, 11):
        for file in draw.sample(sorted(root.rglob("*.png")), draw.choice((1, 1, 3, 30))):
            file.write_bytes(draw.choice([*PICTURES.values(), picture[: draw.randrange(len(picture))]]))
        return f"{file.name} is broken", file
    elif how == 12:
        for mode in ("1", "P", "RGBA", "I;16", "F", "CMYK", "LA"):
            file = folder / f"m{mode.replace(';', '')}"
            file = file.with_suffix(".tiff" if mode in ("F", "CMYK", "I;16") else ".png")
            Image.new(mode, (draw.choice((1, 8, 700)), draw.choice((1, 9)))).save(file)
    else:
        file = draw.choice(sorted(root.rglob("*.png")))
        return f"{file.name} {draw.choice((flip, truncate, replaced, grow))(draw, file)}", file
    return f"tree {how} at {folder.name}", None


def folder_swap(draw: random.Random, path: Path) -> str:
    """A folder is a link out of the run, a file, a pipe, or is gone."""
    how = draw.choice(("a link outside", "a file", "a pipe", "gone", "a link to itself", "a link to /dev"))
    if how == "a link outside":
        shutil.move(path, outside_of(path) / path.name)
        path.symlink_to(outside_of(path) / path.name)
        return how
    shutil.rmtree(path)
    if how == "a file":
        path.write_text("{}")
    elif how == "a pipe":
        os.mkfifo(path)
    elif how != "gone":
        path.symlink_to(path if how.endswith("itself") else "/dev")
    return how


def strangers(draw: random.Random, root: Path) -> str:
    """Links where a command writes its temporary files, and folders of checkpoints that nobody wrote."""
    victim = outside_of(root) / "victim.txt"
    how = draw.randrange(5)
    if how == 0:
        for file in sorted(root.rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                link = file.with_name(f".tmp-{file.name}")
                if not os.path.lexists(link):
                    link.symlink_to(victim)
        return "links for every temporary file"
    if how == 1:
        (root / "report.html").symlink_to(victim)
        return "report.html is a link outside"
    if how == 2:
        name = draw.choice(("step-99999999", "step-" + "9" * 40, ".old-0-step-00000099", "step-00000012x", ".tmp-x"))
        where = root / "checkpoints" if (root / "checkpoints").is_dir() else root
        (where / name).symlink_to(outside_of(root)) if draw.random() < 0.5 else (where / name).mkdir()
        return f"a stranger {name[:30]}"
    if how == 3:
        (root / "evaluations").symlink_to(outside_of(root))
        return "evaluations is a link outside"
    (root / ".lock").unlink(missing_ok=True)
    (root / ".lock").symlink_to(victim)
    return ".lock is a link outside"


Tamper = Callable[[random.Random, Path], str]
ANY: list[Tamper] = [flip, flip, flip, truncate, truncate, noise, append, delete, swap, replaced, replaced, linked_out]
ANY += [grow]
EDITS: dict[str, Tamper] = {".json": json_edit, ".jsonl": json_edit, ".toml": toml_edit}


def reseal(checkpoint: Path) -> None:
    """Hash everything again, as somebody would who writes a checkpoint by other means."""
    manifest = json.loads((checkpoint / "manifest.json").read_bytes())
    if not isinstance(manifest, dict):
        return
    files = manifest.get("files")
    for name in files if isinstance(files, dict) else ():
        file = checkpoint / name
        if isinstance(files[name], dict) and "/" not in name and "\0" not in name and file.is_file():
            data = file.read_bytes()
            files[name] |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest.pop("sha256", None)
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (checkpoint / "manifest.json").write_text(json.dumps({"sha256": digest, **manifest}, indent=1))
