"""Tampers with what the commands read, and counts how they take it.

    python benchmarks/fuzz.py --seconds 60              # as .ci/run does
    python benchmarks/fuzz.py --cases 500 --kinds run checkpoint prepared --seed 7
    python benchmarks/fuzz.py --only 7:137              # one case again, with all that it printed

Once it makes a run, a prepared data set, images, arrays and recipes. Each case copies some of it, tampers with it as
its seed says (bytes, JSON, names, links, pipes, devices, hostile text, absurd numbers), and calls one command in a
fork of this process. A command may answer, or refuse in a line that names the file. Faults are:

    traceback   an exception that is not ours, a signal, or a status that no page mentions
    hang        no answer in LIMIT_S seconds
    escape      a control character on the terminal, markup in a page, a formula in a table
    flood       a message that nobody reads
    outside     a file outside of the folder was written, through a link
    lost        a command that refused its input changed files that were there
    silent      a damaged file that the command reads, and an answer without a word about it

Exit status 1 where there is a fault, with the command that repeats it. It lives beside the benchmarks because it is a
program with a table as its result, and takes as long as it is given.
"""

from __future__ import annotations

import argparse
import collections
import csv
import hashlib
import itertools
import json
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import tomli_w
import torch
from PIL import Image
from safetensors.numpy import save_file
from tampering import (
    ANY,
    CASE,
    EDITS,
    NUMBERS,
    OUTSIDE,
    RAW,
    TEXTS,
    Tamper,
    folder_swap,
    image_tree,
    npy_header,
    places,
    reseal,
    strangers,
    values,
)

from jointgen.cli.main import main as jointgen
from jointgen.images.shards import PreparedManifest
from jointgen.registry.components import Registry
from jointgen.registry.discovery import load_plugins
from jointgen.text import visible

LIMIT_S = 20.0
"""A command that takes a second on a machine of its own has so long."""
MEMORY_BYTES = 6 << 30
"""What a command may take beyond what this process has: a device read to its end shows as a MemoryError."""
MAX_MESSAGE = 60_000
FAULTS = ("traceback", "hang", "escape", "flood", "outside", "lost", "silent")
ANSWERS = ("refused", "unnamed", "answered")

QUICKSTART = Path(__file__).parent.parent / "recipes" / "quickstart.toml"
SMALL = {
    "train.steps": 12,
    "train.batch": 16,
    "train.checkpoint_every": 5,
    "train.eval_every": 6,
    "train.sample_every": 6,
    "train.trackers": [],
    "eval.rows": 40,
    "eval.samples": 4,
    "prior.size": 4,
    "encoder.network.hidden": [8],
    "decoder.network.hidden": [8],
    "discriminator.hidden": [8],
}
LABELLED = {"data.type": "prepared", "data.labels": True}
FILE_ENDS = (".json", ".jsonl", ".toml", ".npy", ".npz", ".safetensors", ".png", "")


def words(settings: dict[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]


# --- what is tampered with --------------------------------------------------------------------------------------------


def build(base: Path) -> None:
    """Make the whole files that cases start from; the same bytes every time, so that a case can be repeated."""
    tick = itertools.count()
    clocks = {name: getattr(time, name) for name in ("monotonic", "perf_counter", "time")}
    for name in clocks:
        setattr(time, name, lambda: next(tick) / 1000)
    try:
        with quiet():
            _build(base)
    finally:
        for name, clock in clocks.items():
            setattr(time, name, clock)


def _build(base: Path) -> None:
    draw = np.random.default_rng(0)
    for split, cls, i in itertools.product(("train", "val"), ("cats", "dogs"), range(24)):
        file = base / "images" / split / cls / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (9, 8), np.uint8)).save(file)
    arrays = base / "arrays"
    arrays.mkdir()
    pixels = draw.integers(0, 256, (60, 8, 8), np.uint8)
    reals = draw.normal(size=(60, 5)).astype(np.float32)
    labels = draw.integers(0, 3, 60)
    np.save(arrays / "pixels.npy", pixels)
    np.save(arrays / "reals.npy", reals)
    np.savez(arrays / "both.npz", x=reals, y=labels)
    save_file({"x": reals, "y": labels}, arrays / "both.safetensors")
    (base / "recipes").mkdir()
    tables = tomllib.loads(QUICKSTART.read_text())
    tables["train"] |= {"steps": 2, "batch": 8, "eval_every": 2, "sample_every": 2, "trackers": []}
    tables["eval"] = {"rows": 16, "samples": 4}
    for table in (tables["encoder"]["network"], tables["decoder"]["network"], tables["discriminator"]):
        table["hidden"] = [8]
    (base / "recipes" / "mine.toml").write_text(tomli_w.dumps(tables))
    (base / "recipes" / "child.toml").write_text('base = "mine.toml"\nname = "child"\n[train]\nsteps = 1\n')
    for seed in (0, 1):
        run = base / f"run{seed}"
        call("run", QUICKSTART, *words(SMALL | {"seed": seed}), "--out", run, "--quiet")
        call("eval", run, "--metrics", "elbo, rmse")
    call("data", "prepare", base / "images", base / "prepared", "--size", 8, "--channels", 1, "--workers", 1)
    # every command once: what they import is then here in every fork
    call("data", "verify", base / "prepared")
    call("explain", QUICKSTART)
    call("list", "encoder")
    for seed in (0, 1):
        (base / f"run{seed}" / "report.html").unlink()  # large, and nothing reads it
        shutil.copytree(base / f"run{seed}", base / "warm" / f"run{seed}")
    for argv in run_commands(base / "warm" / "run0"):
        jointgen([str(word) for word in argv])
    shutil.rmtree(base / "warm")


def call(*argv: Any) -> None:
    status = jointgen([str(word) for word in argv])
    assert status == 0, (argv, status)


class quiet:  # noqa: N801 - a context
    """Sends stdout and stderr to nowhere."""

    def __enter__(self) -> None:
        self.kept, nowhere = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
        sys.stdout.flush(), sys.stderr.flush()
        os.dup2(nowhere, 1), os.dup2(nowhere, 2)

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush(), sys.stderr.flush()
        os.dup2(self.kept[0], 1), os.dup2(self.kept[1], 2)


# --- kinds of cases ---------------------------------------------------------------------------------------------------


@attrs.frozen
class Sandbox:
    """The folders of the cases.

    Args:
        root: Holds them.
        registry: The components.
    """

    root: Path
    registry: Registry

    @property
    def base(self) -> Path:
        """The whole files."""
        return self.root / "base"

    @property
    def here(self) -> Path:
        """The folder of the case, where its command runs."""
        return self.root / CASE

    @property
    def outside(self) -> Path:
        """A folder that belongs to somebody else."""
        return self.root / OUTSIDE

    def clear(self) -> None:
        for folder in (self.here, self.outside):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        (self.outside / "victim.txt").write_text("belongs to somebody else")

    def copy(self, *names: str) -> None:
        for name in names:
            shutil.copytree(self.base / name, self.here / name, symlinks=True)

    def other_component(self, draw: random.Random, path: Path) -> str:
        """Another type of a component, or one of its keys, anywhere in the recipe."""
        tables = tomllib.loads(path.read_text())
        if draw.random() < 0.3:
            soup = "E[q(x,z)]( log p(x|z) q z x f * + - ( ) ; k=5 logmeanexp KL(q(z|x) : p(z)) stop hold 1e3 λ , |"
            term = " ".join(draw.choices(soup.split(), k=draw.randrange(1, 12)))
            text = f"E[q(x,z)]({term}{draw.choice((')', '', '))'))}"
            tables["objective"] = {"type": "expression", "maximize": text}
            path.write_text(tomli_w.dumps(tables))
            return f"maximize = {text}"
        where = draw.choice(("encoder.network", "encoder.family", "decoder.family", "prior", "objective", "data"))
        kind = {"network": "encoder", "family": "family"}.get(where.split(".")[-1], where)
        holder = tables
        *above, last = where.split(".")
        for part in above:
            holder = holder[part]
        name = draw.choice(self.registry.names(kind))
        fields = attrs.fields(self.registry.get(kind, name).load())
        table: dict[str, Any] = {"type": name}
        for field in draw.sample(list(fields), min(len(fields), draw.randrange(3))):
            number = draw.choice([n for n in NUMBERS if isinstance(n, float) or abs(n) < 2**63])
            table[field.name.rstrip("_")] = draw.choice((number, [number], 8, 0.5, True, "x", [3, 3]))
        holder[last] = table
        path.write_text(tomli_w.dumps(tables))
        return f"{where} = {table}"


@attrs.frozen
class Case:
    """A command, and what it is given.

    Args:
        argv: The command line.
        told: What was tampered with, in words.
        file: The file, where it was one.
        harm: What the file is now: "damaged", where the command must say so if it reads it, or "".
    """

    argv: list[str]
    told: str
    file: Path | None = None
    harm: str = ""


def tampered(draw: random.Random, box: Sandbox, file: Path, more: tuple[Tamper, ...] = ()) -> tuple[str, str]:
    edits = [EDITS[file.suffix]] if file.suffix in EDITS else []
    tamper = draw.choice([*ANY, *edits * 10, *more * 4])
    told = tamper(draw, file)
    return f"{file.relative_to(box.here)}: {told}", "" if tamper in (*edits, values) else harm_of(file)


def harm_of(file: Path) -> str:
    """Whether a file is now something that its reader cannot take for what was written."""
    if not file.is_file():
        return "damaged"
    if file.suffix != ".npy" and file.stat().st_size > 1 << 27:
        return "damaged"
    try:
        if file.suffix == ".npy":
            with np.errstate(all="ignore"):
                np.load(file, mmap_mode="r")  # what follows the array is nobody's business
            return ""
        after = file.read_bytes()
        if file.suffix == ".json":
            json.loads(after)
        elif file.suffix == ".jsonl":
            whole = after.split(b"\n")[:-1]  # a torn last line is none
            [json.loads(line) for line in whole]
        elif file.suffix == ".toml":
            tomllib.loads(after.decode())
        return ""
    except Exception:  # numpy raises whatever it meets
        return "damaged"


def run_commands(run: Path) -> list[list[Any]]:
    more = words(SMALL | {"train.steps": 14, "seed": 0})
    return [
        ["report", run],
        ["sample", run, "-n", 2, "-o", run.with_name("out.npz")],
        ["eval", run, "--metrics", "elbo"],
        ["compare", run, run.with_name("run1"), "--no-figures"],
        ["compare", run, run.with_name("run1"), "--no-figures", "-o", run.with_name("table.csv")],
        ["compare", run, run.with_name("run1"), "--no-figures", "-o", run.with_name("table.html")],
        ["run", QUICKSTART, *words(SMALL | {"seed": 0}), "--out", run, "--resume", "--quiet"],
        ["run", QUICKSTART, *more, "--out", run, "--resume", "--allow-changes", "--quiet"],
        ["run", QUICKSTART, *words(SMALL | {"seed": 0}), "--out", run, "--quiet"],
        ["encode", run, "-o", run.with_name("codes.npz")],
        ["reconstruct", run, "-n", 2, "-o", run.with_name("out.png")],
    ]


OPTIONAL = {"evaluation.json", "summary.json", "latest", "metrics.jsonl"}
"""Files that a run has not written yet, or that nothing depends on; `metrics.jsonl` is asked for by --resume."""


def run_case(draw: random.Random, box: Sandbox) -> Case:
    box.copy("run0", "run1")
    run = box.here / "run0"
    argv = draw.choice(run_commands(run))
    if draw.random() < 0.15:
        folders = [run / name for name in ("samples", "tensorboard", "checkpoints") if (run / name).is_dir()]
        folder = draw.choice(folders)
        return Case(argv, f"{folder.name}: {folder_swap(draw, folder)}", folder)
    if draw.random() < 0.1:
        return Case(argv, strangers(draw, run))
    names = ["recipe.toml", "summary.json", "evaluation.json", "metrics.jsonl", "checkpoints/latest"]
    weights = [3, 4, 3, 4, 1]
    file = run / draw.choices(names, weights)[0]
    told, harm = tampered(draw, box, file)
    absent_is_fine = file.name in OPTIONAL and not os.path.lexists(file)
    return Case(argv, told, file, "" if absent_is_fine and "--resume" not in argv else harm)


def checkpoint_case(draw: random.Random, box: Sandbox) -> Case:
    box.copy("run0", "run1")
    run = box.here / "run0"
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    if draw.random() < 0.5:  # the one before would be used, and the damaged one only be named
        [shutil.rmtree(other) for other in newest.parent.glob("step-*") if other != newest]
    files = sorted(newest.iterdir())
    jsons = [file for file in files if file.suffix == ".json"]
    file = draw.choice(draw.choice((files, jsons, [newest / "manifest.json"])))
    before = file.read_bytes()
    told, _ = tampered(draw, box, file)
    changed = not holds(file, before)
    harm = "damaged" if changed else ""
    if changed and file.is_file() and file.stat().st_size < 1 << 27 and draw.random() < 0.5:
        try:
            reseal(newest)
            told, harm = f"{told}, and hashed again", ""
        except (ValueError, TypeError, RecursionError, OSError):
            pass
    argv = draw.choice([argv for argv in run_commands(run) if argv[0] not in ("report", "compare")])
    if argv[0] == "run" and "--resume" not in argv:
        harm = ""
    return Case(argv, told, file, harm)


def prepared_case(draw: random.Random, box: Sandbox) -> Case:
    box.copy("prepared", "images")
    folder = box.here / "prepared"
    train = {"train.steps": 1, "train.batch": 8, "eval.rows": 16}
    recipe = words(SMALL | LABELLED | train | {"data.path": str(folder)})
    commands = [
        ["data", "verify", folder],
        ["data", "verify", folder],
        ["run", QUICKSTART, *recipe, "--out", box.here / "new", "--quiet"],
        ["run", QUICKSTART, *recipe, "--set", "data.verify=true", "--out", box.here / "new", "--quiet"],
        ["explain", QUICKSTART, *recipe],
        ["data", "prepare", box.here / "images", folder, "--size", 8, "--channels", 1, "--workers", 1],
    ]
    argv = draw.choice(commands)
    if draw.random() < 0.1:
        return Case(argv, strangers(draw, folder))
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    file = draw.choice([*files, *[folder / "manifest.json"] * len(files)])
    before = file.read_bytes()
    told, harm = tampered(draw, box, file, (npy_header,) if file.suffix == ".npy" else ())
    if file.name == "manifest.json" and file.is_file() and file.stat().st_size < 1 << 27:
        harm = "damaged" if not same_json(before, file.read_bytes()) else ""
        if harm and argv[0] != "data" and draw.random() < 0.3:  # who hashes again writes a manifest of his own
            try:
                reseal_prepared(folder)
                told, harm = f"{told}, and hashed again", ""
            except (ValueError, TypeError, AttributeError, KeyError, RecursionError, OSError):
                pass
    elif argv[:2] == ["data", "verify"] or "data.verify=true" in argv:
        harm = "" if holds(file, before) else "damaged"
    return Case(argv, told, file, harm)


def holds(file: Path, data: bytes) -> bool:
    return file.is_file() and file.stat().st_size == len(data) and file.read_bytes() == data


def same_json(before: bytes, after: bytes) -> bool:
    try:
        return bool(json.loads(before) == json.loads(after))
    except (ValueError, RecursionError):
        return False


def reseal_prepared(folder: Path) -> None:
    held = json.loads((folder / "manifest.json").read_bytes())
    held.pop("sha256", None)
    digest = hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()
    if "sha256" in attrs.fields_dict(PreparedManifest):
        held["sha256"] = digest
    (folder / "manifest.json").write_text(json.dumps(held, indent=1) + "\n")


def recipe_commands(recipe: Path) -> list[list[Any]]:
    return [
        ["explain", recipe],
        ["run", recipe, "--dry-run"],
        ["run", recipe, "--out", recipe.parents[1] / "new", "--quiet"],
    ]


def recipe_case(draw: random.Random, box: Sandbox) -> Case:
    box.copy("recipes")
    recipe = box.here / "recipes" / draw.choice(("mine.toml", "mine.toml", "child.toml"))
    argv = draw.choice(recipe_commands(recipe))
    file = box.here / "recipes" / "mine.toml"
    told, harm = tampered(draw, box, file, (box.other_component, box.other_component, box.other_component))
    return Case(argv, told, file if harm else None, harm)  # a wrong value is named by its key


def word_case(draw: random.Random, box: Sandbox) -> Case:
    """Hostile words on the command line."""
    box.copy("recipes", "run0")
    recipe, run = box.here / "recipes" / "mine.toml", box.here / "run0"
    paths = [".".join(map(str, path)) for path in places(tomllib.loads(recipe.read_text()))]
    text = draw.choice([text for text in TEXTS if "\0" not in text and len(text) < 10_000])
    value = draw.choice((text, *map(str, NUMBERS), *RAW, "{}", "[]", "{a=1}", '"', "inf", "nan", "true", "1979-05-27"))
    key = draw.choice((*paths, text, "a" + ".a" * 3000, "train", "encoder.0", "9" * 6000, ""))
    out, long = box.here / "o.npz", "x" * 300
    metrics = draw.choice(("elbo", "elbo, iwae", "iwae{k=1000}", "iwae{k=", "elbo{}}", ",", "elbo,,rmse", "fid"))
    argv = draw.choice(
        [
            *[["explain", recipe, "--set", f"{key}={value}"]] * 5,
            ["run", recipe, "--dry-run", "--set", f"{key}={value}"],
            ["eval", run, "--metrics", draw.choice((metrics, text, f"iwae{{k={value}}}", metrics + text))],
            ["sample", run, "-n", draw.choice((value, "1", "-1", "9" * 30)), "-o", box.here / "out.npz"],
            [
                "sample",
                run,
                "-n",
                "2",
                "-o",
                draw.choice((text, str(box.here), "/dev/full", "x" * 300 + ".npz", "/proc/x/y.npz")),
            ],
            ["sample", run, "-n", "2", "-o", out, "--seed", value],
            [
                "sample",
                run,
                "-n",
                "2",
                "-o",
                box.here / "o.npz",
                "--given",
                f"{draw.choice(('x', 'z', 'y', text))}={value}",
            ],
            ["sample", run, "-n", "2", "-o", out, "--checkpoint", text],
            ["sample", run, "-n", "2", "-o", out, "--device", text],
            ["report", draw.choice((text, "/dev/null", "/dev/zero", str(recipe), "/proc/self/mem"))],
            ["explain", draw.choice((text, "/dev/null", "/dev/zero", str(run), "/proc/self/mem", "~nobody/x.toml"))],
            ["compare", run, text],
            ["compare", run, "--no-figures", "--metrics", draw.choice((text, "elbo", ","))],
            ["compare", run, "--no-figures", "-o", draw.choice((text, "/dev/full", "/proc/x/y.csv", str(box.here)))],
            ["list", text],
            ["copy", text, box.here / "c.toml"],
            ["copy", "quickstart", draw.choice((text, "/dev/full", "/proc/x/y"))],
            ["plugin", "new", draw.choice((text, "a-b", "class", "1a")), "--out", box.here / "p", "--kind", "family"],
            ["plugin", "new", "my_nets", "--out", draw.choice((text, "/dev/null", "/proc/x")), "--kind", text],
            ["run", recipe, "--out", draw.choice((text, "/dev/null", "/proc/x", long)), "--quiet"],
            ["data", "verify", draw.choice((text, "/dev/null", "/proc", str(run)))],
            [
                "data",
                "prepare",
                draw.choice((text, "/dev", str(recipe))),
                box.here / "d",
                "--size",
                draw.choice(("8", value)),
            ],
            [
                "encode",
                run,
                "-o",
                box.here / "c.npz",
                "--images",
                draw.choice((text, "/dev/zero", "/dev", str(recipe))),
            ],
            [text, *draw.choices(("--help", "-x", text, "run"), k=2)],
        ]
    )
    return Case([str(word) for word in argv], "words")


def array_case(draw: random.Random, box: Sandbox) -> Case:
    box.copy("arrays", "run0")
    file = box.here / "arrays" / draw.choice(("pixels.npy", "reals.npy", "both.npz", "both.safetensors"))
    settings = SMALL | {"data.type": "arrays", "data.path": str(file), "train.steps": 2, "eval.rows": 6}
    settings |= {"decoder.family.mean": "linear", "train.batch": 8}
    if file.name.startswith("both"):
        settings |= {"data.variables.x": "x", "data.variables.y": "y", "data.classes": 3}
    told, harm = tampered(draw, box, file, (values, npy_header) if file.suffix == ".npy" else (values,))
    argv = draw.choice(
        [
            ["explain", QUICKSTART, *words(settings)],
            ["run", QUICKSTART, *words(settings), "--out", box.here / "new", "--quiet"],
            ["run", QUICKSTART, *words(settings), "--out", box.here / "new", "--quiet"],
            ["encode", box.here / "run0", "-o", box.here / "codes.npz", "--images", file],
        ]
    )
    return Case(argv, told, file, harm)


def image_case(draw: random.Random, box: Sandbox) -> Case:
    box.copy("images", "run0")
    folder = box.here / "images"
    settings = SMALL | {"data.type": "image_folder", "data.root": str(folder), "data.size": 8, "data.channels": 1}
    told, file = image_tree(draw, folder)
    settings |= {"train.steps": 1, "train.batch": 4}
    argv = draw.choice(
        [
            ["data", "prepare", folder, box.here / "packed", "--size", 8, "--workers", 1, "--max-broken", 3],
            ["run", QUICKSTART, *words(settings), "--out", box.here / "new", "--quiet"],
            ["explain", QUICKSTART, *words(settings)],
            ["encode", box.here / "run0", "-o", box.here / "codes.npz", "--images", folder],
        ]
    )
    return Case(argv, told, file, "damaged" if file is not None and not is_picture(file) else "")


def is_picture(file: Path) -> bool:
    try:
        if file.is_file():
            with Image.open(file) as picture:
                picture.load()
            return True
    except Exception:  # Pillow raises whatever it meets
        pass
    return False


KINDS: dict[str, tuple[int, Callable[[random.Random, Sandbox], Case]]] = {
    "run": (5, run_case),
    "checkpoint": (3, checkpoint_case),
    "prepared": (4, prepared_case),
    "recipe": (4, recipe_case),
    "words": (4, word_case),
    "arrays": (3, array_case),
    "images": (3, image_case),
}


# --- one case ---------------------------------------------------------------------------------------------------------


@attrs.frozen
class Outcome:
    """How a command ended: one of FAULTS or ANSWERS, and what it printed."""

    verdict: str
    status: int | None
    text: str


def judged(box: Sandbox, case: Case, was: Contents, reads: set[str], ended: Ended) -> Outcome:
    text = ended.text.decode("utf-8", "replace")

    def outcome(verdict: str) -> Outcome:
        return Outcome(verdict, ended.status, text)

    if ended.status is None:
        return outcome("hang")
    if ended.status not in (0, 1, 2) or "Traceback (most recent call last)" in text:
        return outcome("traceback")
    if re.search(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]", ended.text) or markup(box.here):
        return outcome("escape")
    if len(text) > MAX_MESSAGE and case.argv[0] != "list":
        return outcome("flood")
    if contents(box.outside) != was.outside:
        return outcome("outside")
    now = contents(box.here)
    if ended.status == 2 and any(now.get(name) != digest for name, digest in was.here.items()):
        return outcome("lost")
    named = case.file is None or case.file.name in text
    if ended.status:
        return outcome("refused" if named else "unnamed")
    read = case.file is not None and str(case.file) in reads
    return outcome("silent" if case.harm and read and not named else "answered")


def markup(folder: Path) -> bool:
    """Whether a page or a table that was written holds somebody's script or formula."""
    for file in folder.rglob("*.html"):
        if file.is_file() and "<script>fuzz" in file.read_text("utf-8", "replace"):
            return True
    for file in folder.glob("*.csv"):
        cells = itertools.chain.from_iterable(csv.reader(file.read_text("utf-8", "replace").splitlines()))
        if any(re.match(r"\s*[=+@-](?![\d.])", cell) for cell in cells):
            return True
    return False


def contents(root: Path) -> dict[str, str]:
    """The hash of every regular file below a folder, links not followed."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            file = Path(folder, name)
            if file.is_symlink() or not file.is_file() or name in (".lock",) or file.stat().st_size > 1 << 26:
                continue
            found[str(file)] = hashlib.blake2b(file.read_bytes(), digest_size=8).hexdigest()
    return found


@attrs.frozen
class Contents:
    """The hashes of the files in the folder of the case and in that of somebody else, before the command."""

    here: dict[str, str]
    outside: dict[str, str]


@attrs.frozen
class Ended:
    """A command that ended: its status (None after a hang, negative for a signal), all it printed, files it opened."""

    status: int | None
    text: bytes
    opened: set[str]


def forked(box: Sandbox, argv: list[str], limit_s: float) -> Ended:
    """Call the command in a fork of this process, its output in a file."""
    log, opened_log = box.root / "said", box.root / "opened"
    opened_log.unlink(missing_ok=True)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(box.here, argv, log, opened_log)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], limit_s)  # the end of the child closes it
    if not ready:
        os.kill(pid, signal.SIGKILL)
    os.close(reader)
    _, code = os.waitpid(pid, 0)
    opened = set(opened_log.read_text("utf-8", "surrogateescape").split("\0")) if opened_log.exists() else set()
    return Ended(os.waitstatus_to_exitcode(code) if ready else None, log.read_bytes(), opened)


def _child(here: Path, argv: list[str], log: Path, opened_log: Path) -> None:
    os.setpgid(0, 0)
    out = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    os.dup2(out, 1), os.dup2(out, 2), os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30,) * 2)
    opened: list[str] = []

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
            opened.append(os.fsdecode(arguments[0]))

    sys.addaudithook(hook)
    os.chdir(here)
    status = 70
    try:
        status = jointgen(argv)
        if status not in (0, 1, 2, 141):
            print(f"Traceback (most recent call last): status {status}")
            status = 70
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush(), sys.stderr.flush()
    opened_log.write_text("\0".join(opened), "utf-8", "surrogateescape")
    os._exit(status)


class Fuzzer:
    """Makes cases by seed and number, and knows which files each command reads where nothing was tampered with."""

    def __init__(self, box: Sandbox, seed: int, kinds: list[str]):
        self.box, self.seed, self.kinds = box, seed, kinds
        self._reads: dict[str, set[str]] = {}

    def case(self, number: int) -> tuple[str, Case]:
        draw = random.Random(f"{self.seed}:{number}")
        every = list(KINDS)
        kind = draw.choices(every, [KINDS[name][0] for name in every])[0]
        if kind not in self.kinds:
            kind = draw.choice(self.kinds)
        self.box.clear()
        case = KINDS[kind][1](draw, self.box)
        return kind, attrs.evolve(case, argv=[str(word) for word in case.argv])

    def reads(self, kind: str, case: Case, number: int) -> set[str]:
        """The files that the same command opens where they are whole."""
        if case.file is None:
            return set()
        key = json.dumps([kind, case.argv])
        if key not in self._reads:
            self.box.clear()
            names = {"run": ("run0", "run1"), "checkpoint": ("run0", "run1"), "prepared": ("prepared", "images")}
            self.box.copy(*names.get(kind, ("recipes", "arrays", "images", "run0")))
            self._reads[key] = forked(self.box, case.argv, LIMIT_S).opened
            self.case(number)  # the tampered files again
        return self._reads[key]

    def outcome(self, kind: str, case: Case, number: int) -> Outcome:
        reads = self.reads(kind, case, number) if case.harm else set()
        was = Contents(contents(self.box.here), contents(self.box.outside))
        return judged(self.box, case, was, reads, forked(self.box, case.argv, LIMIT_S))


def shown(box: Sandbox, case: Case) -> str:
    argv = " ".join(word if len(word) < 60 else word[:57] + "..." for word in case.argv)
    argv = re.sub(r"(--set \S+ )+", lambda m: m[0] if len(m[0]) < 90 else "--set ... ", argv)
    return f"jointgen {argv.replace(str(box.here) + '/', '')}   [{case.told}]"[:300].encode("unicode_escape").decode()


def last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:200].encode("unicode_escape").decode() if lines else "(nothing printed)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=None, help="stop after so long")
    parser.add_argument("--cases", type=int, default=None, help="stop after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument(
        "--only", metavar="SEED:NUMBER", nargs="+", default=[], help="repeat these cases, and show them"
    )
    parser.add_argument("--all", action="store_true", help="show every case, not only faults")
    parser.add_argument("--keep", type=Path, help="copy the folder of each case of --only here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        os.environ["JOINTGEN_CACHE"] = str(Path(root, "cache"))
        box = Sandbox(Path(root), load_plugins().registry)
        box.base.mkdir()
        build(box.base)
        return only(arguments, box) if arguments.only else many(arguments, box)


def only(arguments: argparse.Namespace, box: Sandbox) -> int:
    faults = 0
    for word in arguments.only:
        seed, number = map(int, word.split(":"))
        fuzzer = Fuzzer(box, seed, arguments.kinds)
        kind, case = fuzzer.case(number)
        if arguments.keep:
            shutil.copytree(box.here, arguments.keep / word.replace(":", "-"), symlinks=True, dirs_exist_ok=True)
        outcome = fuzzer.outcome(kind, case, number)
        print(f"--- {word} {kind}: {outcome.verdict} (status {outcome.status})\n{shown(box, case)}")
        print(visible(outcome.text[-6000:], keep="\n"))
        faults += outcome.verdict in FAULTS
    return 1 if faults else 0


def many(arguments: argparse.Namespace, box: Sandbox) -> int:
    fuzzer, began = Fuzzer(box, arguments.seed, arguments.kinds), time.monotonic()
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    cases = arguments.cases or (10**9 if arguments.seconds else 300)
    kinds = "" if len(arguments.kinds) == len(KINDS) else f" --kinds {' '.join(arguments.kinds)}"
    for number in range(cases):
        if arguments.seconds and time.monotonic() - began > arguments.seconds:
            break
        kind, case = fuzzer.case(number)
        outcome = fuzzer.outcome(kind, case, number)
        counts[kind, outcome.verdict] += 1
        if outcome.verdict in FAULTS or arguments.all:
            print(f"{outcome.verdict}: python benchmarks/fuzz.py --only {arguments.seed}:{number}{kinds}")
            print(f"    {shown(fuzzer.box, case)}\n    {last_line(outcome.text)}", flush=True)
    print(f"{'':12}" + "".join(f"{verdict:>11}" for verdict in (*ANSWERS, *FAULTS)))
    for kind in arguments.kinds:
        print(f"{kind:12}" + "".join(f"{counts[kind, verdict]:>11}" for verdict in (*ANSWERS, *FAULTS)))
    faults = sum(count for (_, verdict), count in counts.items() if verdict in FAULTS)
    print(f"{sum(counts.values())} cases in {time.monotonic() - began:.0f} s, {faults} faults (seed {arguments.seed})")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
