"""Parts of a trained model as files for other programs, torch.export (.pt2) and ONNX (.onnx), checked on the way."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from jointgen.errors import RAISED, ComponentError, ConfigError
from jointgen.inference.model import Model
from jointgen.inference.part_module import PartModule
from jointgen.text import shortened

PROGRAM, ONNX = ".pt2", ".onnx"
METADATA = "jointgen"
"""The name of the metadata in the file: JSON."""
TRACED_ROWS, CHECKED_ROWS = 3, 5
TOLERANCE = 1e-4
"""A number of the file may differ by this share of the largest one ..."""
WRONG_SHARE = 1e-3
"""... and so many may differ by more: bits whose probability is drawn at its very edge."""


@attrs.frozen
class Exported:
    """A part as a file.

    Args:
        data: The content of the file.
        inputs: The shape of each argument, without the rows, by name.
        difference: The largest difference between what the file and the model give, on other rows than it was made by.
    """

    data: bytes
    inputs: Mapping[str, tuple[int, ...]]
    difference: float


def export_part(model: Model, part: str, reading: str | None, ending: str, about: Mapping[str, Any]) -> Exported:
    """Write a part of a model as a program for any number of rows, and compare what it gives with the model.

    Args:
        model: The model.
        part: The part.
        reading: What it returns; see `PartModule`. None: the mean, or the only reading.
        ending: `PROGRAM` or `ONNX`.
        about: What the metadata says besides the part, its reading and its spaces.

    Raises:
        ConfigError: There is no such part or reading, it cannot be traced, or a package is missing.
        ComponentError: The file gives other numbers than the model.
    """
    if ending == ONNX and (missing := [n for n in ("onnx", "onnxscript") if importlib.util.find_spec(n) is None]):
        raise ConfigError(
            f"ONNX needs {' and '.join(missing)}: uv sync --extra onnx, or pip install 'jointgen[onnx]'", "-o"
        )
    module = model.module(part, reading).eval()
    arguments = module.example(TRACED_ROWS)
    names = [*module.inputs, *(noise.name for noise in module.noise)]
    metadata = json.dumps({**about, **_described(module)})
    make = _program if ending == PROGRAM else _onnx
    with _tracing(part, module.reading, "torch.export" if ending == PROGRAM else "torch.onnx"):
        data = make(module, arguments, names, metadata)
    others = module.example(CHECKED_ROWS, seed=1)
    with torch.no_grad():
        expected = module(*others)
    with _tracing(part, module.reading, f"the reader of {ending}"):
        found = (_read_program(data) if ending == PROGRAM else _read_onnx(data))(others)
    difference = (found.to(expected) - expected).abs()
    reach = TOLERANCE * (1.0 + float(expected.abs().max()))
    if found.shape != expected.shape or float((difference > reach).double().mean()) > WRONG_SHARE:
        raise ComponentError(
            f"{part}: the file gives other numbers than the model, by up to {float(difference.max()):.3g}; nothing is "
            "written"
        )
    shapes = {name: tuple(value.shape[1:]) for name, value in zip(names, arguments, strict=True)}
    return Exported(data, shapes, float(difference.max()))


def _described(module: PartModule) -> dict[str, Any]:
    """The part, its reading, and what it takes and returns."""
    return {
        "part": module.part,
        "reading": module.reading,
        "inputs": {name: attrs.asdict(space) for name, space in module.inputs.items()},
        "noise": {noise.name: {"kind": noise.kind, "shape": noise.shape} for noise in module.noise},
        "output": None if module.output is None else attrs.asdict(module.output),
    }


@contextmanager
def _tracing(part: str, reading: str, tracer: str) -> Iterator[None]:
    """Say in one line why a part cannot be traced; torch's own remarks on the way are not for users."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except RAISED as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        said = re.sub(r"\x1b\[[0-9;]*m", "", str(cause))  # torch colours what it says
        line = next((line.strip() for line in said.splitlines() if line.strip()), "")
        reason = shortened(f"{type(cause).__name__}: {line}")
        raise ConfigError(f"the {reading} of {part} cannot be traced by {tracer} ({reason})", "--part") from error


def _any_rows(arguments: Sequence[Tensor]) -> tuple[Any, ...]:
    rows = torch.export.Dim("rows")
    return (tuple({0: rows} for _ in arguments),)


# --- torch.export ----------------------------------------------------------------------------------------------------


def _program(module: PartModule, arguments: tuple[Tensor, ...], names: Sequence[str], metadata: str) -> bytes:
    program = torch.export.export(module, arguments, dynamic_shapes=_any_rows(arguments))
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: metadata})
    return buffer.getvalue()


def _read_program(data: bytes) -> Callable[[tuple[Tensor, ...]], Tensor]:
    module = torch.export.load(io.BytesIO(data)).module()

    def run(arguments: tuple[Tensor, ...]) -> Tensor:
        with torch.no_grad():
            found: Tensor = module(*arguments)
        return found

    return run


# --- ONNX ------------------------------------------------------------------------------------------------------------


def _onnx(module: PartModule, arguments: tuple[Tensor, ...], names: Sequence[str], metadata: str) -> bytes:
    program = torch.onnx.export(
        module,
        arguments,
        dynamo=True,
        input_names=list(names),
        output_names=[module.reading],
        dynamic_shapes=_any_rows(arguments),
        verbose=False,
    )
    assert program is not None, "no file was named"
    proto = program.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA, metadata
    data: bytes = proto.SerializeToString()
    return data


def _read_onnx(data: bytes) -> Callable[[tuple[Tensor, ...]], Tensor]:
    """Read the file by onnxruntime where it is there, otherwise by ONNX's own reference evaluator."""
    if importlib.util.find_spec("onnxruntime") is not None:
        session = importlib.import_module("onnxruntime").InferenceSession(data, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
    else:
        session = importlib.import_module("onnx.reference").ReferenceEvaluator(
            importlib.import_module("onnx").load_model_from_string(data)
        )
        names = session.input_names

    def run(arguments: tuple[Tensor, ...]) -> Tensor:
        values = {name: value.cpu().numpy() for name, value in zip(names, arguments, strict=True)}
        return torch.from_numpy(np.ascontiguousarray(session.run(None, values)[0]))

    return run
