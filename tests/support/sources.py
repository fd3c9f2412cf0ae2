"""What tests of data sources share."""

from __future__ import annotations

from typing import Any

import torch


def everything(rows: Any) -> dict[str, torch.Tensor]:
    """All rows of an opened split."""
    return rows.take(torch.arange(len(rows)))  # type: ignore[no-any-return]
