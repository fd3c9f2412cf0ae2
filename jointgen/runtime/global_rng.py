"""Seeds, saves and restores the global random generators of torch, numpy and Python.

Nothing in jointgen draws from them, but other people's layers may, and their runs resume as well.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from jointgen.runtime.devices import ACCELERATORS, generator_state, seed_device, set_generator_state

State = dict[str, Tensor]
"""The states of all generators, by name."""


def seed_globals(number: int, device: torch.device | str = "cpu") -> None:
    """Seed the generators of torch (on the CPU and on the device), numpy and Python."""
    random.seed(number)
    np.random.seed(np.random.SeedSequence(number).generate_state(8))
    torch.default_generator.manual_seed(number)
    if (place := torch.device(device)).type in ACCELERATORS:
        seed_device(place, number)


def global_state(device: torch.device | str = "cpu") -> State:
    """Return the states as tensors, whose shapes are the same in every process, so that they can be gathered."""
    version, words, spare = random.getstate()
    kind, keys, position, has_spare, numpy_spare = np.random.get_state(legacy=True)
    assert (version, kind) == (3, "MT19937"), "Python's own generator, and the one that numpy starts with"
    found = {
        "python": torch.tensor(words, dtype=torch.int64),  # 624 words and the position in them
        "python_spare": torch.tensor(float("nan") if spare is None else spare, dtype=torch.float64),
        "numpy": torch.tensor([*map(int, keys), position, has_spare], dtype=torch.int64),
        "numpy_spare": torch.tensor(numpy_spare, dtype=torch.float64),
        "torch": torch.default_generator.get_state(),
    }
    if (place := torch.device(device)).type in ACCELERATORS:
        found[place.type] = generator_state(place)
    return found


def set_global_state(state: Mapping[str, Tensor], device: torch.device | str = "cpu") -> None:
    """Restore what `global_state` returned. A generator that the state does not have is left as it is."""
    words, spare = state["python"].tolist(), state["python_spare"].item()
    random.setstate((3, tuple(words), None if spare != spare else spare))
    *keys, position, has_spare = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_spare, state["numpy_spare"].item()))
    # clones, because torch reads a view from the start of the memory below it, and crashes
    torch.default_generator.set_state(state["torch"].cpu().clone())
    if (place := torch.device(device)).type in state:
        set_generator_state(place, state[place.type].cpu().clone())


@contextlib.contextmanager
def seeded(number: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed the generators within; afterwards they are where they were before."""
    before = global_state(device)
    seed_globals(number, device)
    try:
        yield
    finally:
        set_global_state(before, device)
