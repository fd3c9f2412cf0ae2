"""What is computed in whole precision, also under autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def without_autocast(like: Tensor) -> AbstractContextManager[Any]:
    """Switch autocast off on a tensor's device, where it is on: an exported program can hold no switch without use."""
    kind = like.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
