"""Rows and their codes, to decode what lies between the codes of two rows or beside that of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from jointgen.errors import ConfigError
from jointgen.inference.row_batches import BATCH, Progress, given_values, in_batches, reconstructed_variable

if TYPE_CHECKING:
    from jointgen.data.split import Split
    from jointgen.inference.model import Model


@attrs.frozen
class EncodedRows:
    """Rows of the data and their codes.

    Args:
        model: The model.
        variable: The variable that is encoded and decoded.
        code: The name of its code.
        truth: The rows (N, *X), on the CPU.
        known: The other values that the decoder may need of these rows, (N, *shape) each.
        codes: The mean codes of the rows, (N, *Z).
    """

    model: Model
    variable: str
    code: str
    truth: Tensor
    known: Mapping[str, Tensor]
    codes: Tensor

    def decode(self, codes: Tensor, rows: Tensor) -> Tensor:
        """Decode codes (M, *Z) to means of p, (M, *X) on the CPU; other values are those of `rows` (M,)."""
        decoded = []
        for i in range(0, len(codes), BATCH):
            some = codes[i : i + BATCH]
            given = {name: value[rows[i : i + BATCH]] for name, value in self.known.items()} | {self.code: some}
            drawn = self.model.view.draw("p", given, len(some), self.model.noise(0, "report"), "mean")
            decoded.append(drawn[self.variable].cpu())
        return torch.cat(decoded)


@torch.no_grad()
def encode_rows(
    model: Model, split: Split, given: Sequence[str] = (), *, progress: Progress = lambda done, total: None
) -> EncodedRows:
    """Encode rows to decode what lies beside them.

    Args:
        model: The model.
        split: The rows.
        given: Values that are not read from the rows; see `given_values`.
        progress: Called after each batch.

    Raises:
        ConfigError: The model cannot decode a code, or not from a single real one.
    """
    names, variable = latent_variables(model), reconstructed_variable(model)
    decoder = model.binding.joints["p"].drawn_by(variable)
    moved = [name for name in decoder.given if name in names and model.spaces[name].kind == "real"]
    if len(moved) != 1:
        raise ConfigError(f"{variable} is decoded from {', '.join(moved) or 'no real code'}; it takes one real code")
    (code,) = moved
    truth, known, codes = list[Tensor](), dict[str, list[Tensor]](), list[Tensor]()
    for batch in in_batches(model, split, 0, progress):
        means, samples = model.view.observe(batch)
        observed = {**samples, **given_values(given, model, batch.rows), variable: samples[variable]}
        found = model.view.mean_codes(observed, batch.rows, batch.noise)
        beside = {name: model.view.decided(name, value) for name, value in found.items() if name in decoder.given}
        for name, value in {**observed, **beside}.items():
            if name not in (variable, code):
                known.setdefault(name, []).append(value.to(model.device, codes[0].dtype if codes else value.dtype))
        truth.append(means[variable].cpu())
        codes.append(found[code])
    return EncodedRows(
        model,
        variable,
        code,
        torch.cat(truth),
        {name: torch.cat(values) for name, values in known.items()},
        torch.cat(codes),
    )


def decode_between(rows: EncodedRows, begins: Tensor, ends: Tensor, steps: int) -> Tensor:
    """Decode points on the straight lines between the codes of two rows.

    Args:
        rows: The rows.
        begins: (P,) the rows at which the lines begin, whose other values are taken.
        ends: (P,) the rows at which they end.
        steps: How many points a line has, with both ends.

    Returns:
        (P * steps, *X), line by line.
    """
    share = torch.linspace(0, 1, steps, device=rows.codes.device).view(1, -1, *[1] * (rows.codes.ndim - 1))
    start, end = rows.codes[begins, None], rows.codes[ends, None]
    path = (start + share * (end - start)).flatten(0, 1)
    return rows.decode(path, begins.repeat_interleave(steps))


def latent_variables(model: Model) -> list[str]:
    """List the variables that q draws and no data source yields.

    Raises:
        ConfigError: There is none.
    """
    model.binding.joint("q", "a code")
    if found := model.binding.latents:
        return found
    raise ConfigError("this model has no latent code: q draws nothing that is not data")
