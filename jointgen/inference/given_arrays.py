"""Arrays that a caller has in a file, as rows of a model's data or as codes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np
from safetensors.numpy import load as load_safetensors
from torch import Tensor

from jointgen.contracts.observation import raw_of
from jointgen.data.split import Split
from jointgen.errors import ConfigError, Problems, placing
from jointgen.runtime.regular_files import read_regular, user_path
from jointgen.text import listed

if TYPE_CHECKING:
    from jointgen.inference.model import Model

ENDINGS = (".npy", ".npz", ".safetensors")
MAX_BYTES = 8 << 30
"""The largest file that is read."""


@attrs.frozen(eq=False)
class GivenRows:
    """Arrays as the rows of variables, in the place of a data source's rows.

    Args:
        raw: (N, ...) raw rows by variable.
    """

    raw: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.raw.values())))

    def take(self, index: Tensor) -> dict[str, Tensor]:
        """Take rows by (B,) int64 index."""
        return {name: values[index] for name, values in self.raw.items()}


def read_rows(model: Model, path: str | Path, variable: str) -> Split:
    """Read rows of the model's data from a file of arrays.

    Args:
        model: The model.
        path: A .npy file, or a .npz or .safetensors file with an array for each variable.
        variable: The variable that must be there; the only array of a file is it, whatever its name.

    Raises:
        ConfigError: With every problem of the file.
    """
    roots = {v: part for joint in model.joints.values() for v, part in model.binding.data_roots(joint).items()}
    values = _read(model, path, [variable, *(v for v in roots if v != variable)], variable, "--values")
    parts: dict[str, dict[str, Tensor]] = {}
    for name, rows in values.items():
        parts.setdefault(roots[name], {})[name] = raw_of(rows, model.spaces[name])
    names = {part: {name: name for name in raw} for part, raw in parts.items()}
    return Split("values", {part: GivenRows(raw) for part, raw in parts.items()}, names)


def read_codes(model: Model, path: str | Path, variable: str) -> dict[str, Tensor]:
    """Read values of what p decodes a variable from, such as `jointgen encode` has written.

    Args:
        model: The model.
        path: A .npy file of the only code, or a .npz or .safetensors file with an array for each variable.
        variable: The variable that is decoded.

    Returns:
        (N, *shape) by variable; a label is its most probable value.

    Raises:
        ConfigError: With every problem of the file.
    """
    wanted = [v for v in model.binding.joint("p", "decoding").variables if v != variable]
    first = next((v for v in wanted if v in model.binding.latents), next(iter(wanted), variable))
    found = _read(model, path, wanted, first, "CODES")
    return {name: model.view.decided(name, values) for name, values in found.items()}


def _read(model: Model, path: str | Path, wanted: list[str], first: str, option: str) -> dict[str, Tensor]:
    """Read the arrays of some variables, (N, *shape) each in model space."""
    with placing(option):
        arrays = _load(user_path(path))
    if len(arrays) == 1 and not arrays.keys() & set(wanted):  # the only array, whatever its name
        arrays = {first: next(iter(arrays.values()))}
    found = [name for name in wanted if name in arrays]
    if not found:
        held = listed([f"{name} {array.dtype} {array.shape}" for name, array in arrays.items()])
        raise ConfigError(f"{path}: holds {held or 'nothing'}; expected {' or '.join(wanted)}", option)
    problems, values = Problems(), dict[str, Tensor]()
    for name in found:
        try:
            values[name] = model.input(name).read(arrays[name])
        except ConfigError as error:
            for problem in error.problems:
                problems.add(f"{path}: {name}: {problem.message}", option)
    counts = {name: len(rows) for name, rows in values.items()}
    if len(set(counts.values())) > 1:
        problems.add(f"{path}: {', '.join(f'{n} rows of {name}' for name, n in counts.items())}", option)
    problems.raise_any()
    return values


def _load(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a file by name; that of a .npy file has the name ""."""
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(f"{path}: expected a file of arrays, {', '.join(ENDINGS)}")
    data = read_regular(path, MAX_BYTES)
    try:
        if path.suffix.lower() == ".safetensors":
            return dict(load_safetensors(data))
        with io.BytesIO(data) as file:
            loaded = np.load(file, allow_pickle=False)
            return {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except Exception as error:  # a torn zip, a pickle, a header of another format
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
