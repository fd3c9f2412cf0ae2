"""The identity of data: what tells the rows of a split from those of another data set, wherever either lies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from jointgen.contracts.sources import Rows, SplitIdentity
from jointgen.data.chosen_rows import ChosenRows
from jointgen.runtime.cache import fingerprint

MAX_NUMBERS = 2**22
"""So many numbers of a split are hashed: all of a small one, and a sample of rows of a large one."""
MIN_ROWS = 16


def identity_of(rows: Rows, compared: int | None = None) -> SplitIdentity:
    """Return the identity of the rows of a source; of chosen ones that of all among which they were chosen.

    Args:
        rows: The opened rows.
        compared: How many of them to hash; None: as many as `MAX_NUMBERS` allows.
    """
    rows = rows.rows if isinstance(rows, ChosenRows) else rows
    if not (count := len(rows)):
        return SplitIdentity(0, 0, "")
    if compared is None:
        numbers = sum(values[0].numel() for values in rows.take(torch.tensor([0])).values())
        compared = max(MIN_ROWS, MAX_NUMBERS // numbers)
    compared = min(compared, count)
    taken = rows.take(torch.arange(compared) * count // max(1, compared))
    return SplitIdentity(count, compared, fingerprint([{name: taken[name] for name in sorted(taken)}]))


def identity_differences(recorded: Mapping[str, SplitIdentity], name: str, rows: Rows) -> Iterable[str]:
    """Yield what a record says otherwise of a split than its rows show.

    Args:
        recorded: The recorded identities of a source, by split.
        name: The split.
        rows: Its rows.
    """
    if (said := recorded.get(name)) is not None:
        yield from unlike(said, identity_of(rows, said.compared), name)


def unlike(said: SplitIdentity, found: SplitIdentity, name: str) -> Iterable[str]:
    """Yield what differs between the recorded identity of a split and the one that was found."""
    if found.rows != said.rows:
        yield f"its {name} split has {said.rows:,} rows in the file and {found.rows:,} in the data"
    elif found != said:
        what = "its" if said.compared == said.rows else f"the {said.compared:,} compared of its"
        fingerprints = f"{said.fingerprint[:8]} in the file and {found.fingerprint[:8]} in the data"
        yield f"{what} {said.rows:,} {name} rows are others, with the fingerprint {fingerprints}"
