"""Values that a caller gives to a model, brought to model space or refused: one door for Python and for commands."""

from __future__ import annotations

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from jointgen.contracts.observation import affine
from jointgen.contracts.space import Space
from jointgen.errors import ConfigError
from jointgen.text import listed

MAX_OVERSHOOT = 0.9
"""So many widths of its range, at most, does a value lie outside of it. Decoders overshoot, those that have hardly been
trained the most; values that were scaled in another way, to [-1, 1] or by a mean and a deviation, go further."""
FEW_ROWS = 5
SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)


@attrs.frozen
class Input:
    """A variable whose values a caller may give.

    Args:
        name: Its name, which messages begin with.
        space: Its Space.
        is_data: Whether a data source yields it, so that its range is that of the data. Codes have no such range.
        bits_only: Whether a binary variable must be given as bits, because they are scored; otherwise grey values,
            the probabilities of ones, will do.
        dtype: What the model computes with.
    """

    name: str
    space: Space
    is_data: bool
    bits_only: bool = False
    dtype: torch.dtype = torch.float32

    def read(self, value: object) -> Tensor:
        """Bring values to model space.

        - Labels are class numbers, (B,) whole numbers, or rows (B, classes) that sum to 1.
        - Whole numbers of a variable with levels are levels: each becomes the middle of its bin, or a grey value.
          Zeros and ones of a binary variable are bits. A uint8 image of a variable without levels has 0 to 255 at
          the ends of its range.
        - Real numbers are values in model space, finite and in the range of the data.

        Args:
            value: A tensor, an array, or nested lists of numbers, with rows along the first axis.

        Returns:
            (B, *shape), on the device where it was, floating point.

        Raises:
            ConfigError: It is none of these.
        """
        tensor = self._tensor(value)
        if self.space.kind == "label":
            return self._labels(tensor)
        self._check_shape(tensor)
        if tensor.is_floating_point():
            self._check_finite(tensor)
        if not self.is_data:
            return _floating(tensor)
        return self._in_range(tensor) if tensor.is_floating_point() else self._from_whole(tensor)

    def _tensor(self, value: object) -> Tensor:
        """Return a tensor of real or whole numbers; whole numbers have a sign, or are uint8."""
        wanted = f"expected numbers {self._shape}"
        if not isinstance(value, Tensor):
            try:
                array = np.asarray(value)
            except (ValueError, TypeError):
                array = np.empty(0, object)
            if array.dtype.kind not in "biuf":
                kind = array.dtype if isinstance(value, np.ndarray) else type(value).__name__
                raise ConfigError(f"{wanted}, got {kind}", self.name)
            kept = "u1" if array.dtype == np.uint8 else {"b": "i8", "i": "i8", "u": "i8"}.get(array.dtype.kind, "f8")
            single = array.dtype in (np.float16, np.float32)
            value = torch.from_numpy(np.array(array, "f4" if single else kept))
        if value.is_complex() or value.layout is not torch.strided or value.is_quantized or value.is_meta:
            raise ConfigError(f"{wanted}, got {value.dtype} {value.layout}", self.name)
        if value.is_floating_point():
            return value
        return value if value.dtype in (torch.uint8, *SIGNED) else value.to(torch.int64)

    @property
    def _shape(self) -> str:
        if self.space.kind == "label":
            return f"(B,) of whole class numbers 0 to {self.space.shape[0] - 1}, or rows (B, {self.space.shape[0]})"
        return f"(B{''.join(f', {axis}' for axis in self.space.shape)})"

    def _labels(self, tensor: Tensor) -> Tensor:
        classes = self.space.shape[0]
        if tensor.ndim == 1 and len(tensor) and not tensor.is_floating_point():
            low, high = int(tensor.min()), int(tensor.max())
            if low < 0 or high >= classes:
                raise ConfigError(f"{low if low < 0 else high} is not a class; allowed: 0 to {classes - 1}", self.name)
            return F.one_hot(tensor.long(), classes).float()
        self._check_shape(tensor)
        rows = _floating(tensor)
        self._check_finite(rows)
        self._check_rows(((rows < 0).any(1) | ((rows.sum(1) - 1).abs() > 1e-3)), "does not sum to 1 over the classes")
        return rows

    def _check_shape(self, tensor: Tensor) -> None:
        given, shape = tuple(tensor.shape), self.space.shape
        if given[1:] == shape and given[0] > 0:
            return
        hint = ""
        if given == shape:
            hint = f"; a single row needs a batch axis: {self.name}[None]"
        elif given[1:] == shape:
            hint = ", which is no row"
        elif len(shape) == 3 and given[1:] == (*shape[1:], shape[0]):
            hint = "; the channels come first"
        elif len(shape) == 3 and given[1:] == shape[1:] and shape[0] == 1:
            hint = f"; grey images have a channel axis: {self.name}[:, None]"
        raise ConfigError(f"expected shape {self._shape}, got {given}{hint}", self.name)

    def _check_finite(self, tensor: Tensor) -> None:
        self._check_rows(~tensor.isfinite().flatten(1).all(1), "is not finite")
        held = tensor.to(self.dtype).isfinite().flatten(1).all(1)
        self._check_rows(~held, f"is too large for {str(self.dtype).removeprefix('torch.')}")

    def _check_rows(self, wrong: Tensor, what: str) -> None:
        """Raise ConfigError for rows that are wrong, (B,) bool; names the first."""
        if not wrong.any():
            return
        rows = wrong.nonzero().flatten().tolist()
        raise ConfigError(f"{what} in row{'s' if len(rows) > 1 else ''} {listed(rows, most=FEW_ROWS)}", self.name)

    def _from_whole(self, tensor: Tensor) -> Tensor:
        """Bring levels, bits or whole numbers to model space."""
        space, low, high = self.space, int(tensor.min()), int(tensor.max())
        if space.bins is None and space.kind == "real":
            if tensor.dtype == torch.uint8 and space.is_image and space.range is not None:
                bottom, top = space.range
                return bottom + (top - bottom) * _floating(tensor) / 255
            return self._in_range(_floating(tensor))
        if space.kind == "binary" and low >= 0 and high <= 1:
            return _floating(tensor)
        if space.bins is None or low < 0 or high >= space.bins:
            levels = f" or levels 0 to {space.bins - 1}" if space.bins else ""
            allowed = f"bits{levels}" if space.kind == "binary" else f"levels 0 to {(space.bins or 1) - 1}"
            raise ConfigError(f"whole numbers from {low} to {high}; {self.name} has {allowed}", self.name)
        if space.kind == "binary":
            return self._in_range(_floating(tensor) / (space.bins - 1))
        return affine(_floating(tensor) + 0.5, space)

    def _in_range(self, tensor: Tensor) -> Tensor:
        ends = self.space.range
        if ends is None:
            return tensor
        low, high = float(tensor.detach().min()), float(tensor.detach().max())
        reach = MAX_OVERSHOOT * (ends[1] - ends[0])
        if low < ends[0] - reach or high > ends[1] + reach:
            levels = f"; levels 0 to {self.space.bins - 1} are given as uint8" if self.space.bins else ""
            if not levels and self.space.is_image:
                levels = "; images of 0 to 255 are given as uint8"
            raise ConfigError(
                f"values from {low:.4g} to {high:.4g}; {self.name} is in [{ends[0]:g}, {ends[1]:g}]{levels}", self.name
            )
        if self.bits_only and self.space.kind == "binary" and not ((tensor == 0) | (tensor == 1)).all():
            raise ConfigError(
                "grey values, but a probability of zeros and ones is asked for; draw bits: "
                f"(torch.rand_like({self.name}) < {self.name}).float()",
                self.name,
            )
        return tensor


def _floating(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_floating_point() else tensor.to(torch.float64 if tensor.is_cpu else torch.float32)
