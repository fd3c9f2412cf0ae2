"""Where rows stay and how they come to the device changes when they are read, never what a step sees.

No accelerator is needed: copies are made on the CPU, and the decision is asked about a device that is only a name.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from jointgen.config.fields import SampledSource
from jointgen.contracts.noise import Noise, NoiseSource
from jointgen.contracts.sources import augmentation_of, reader_of
from jointgen.data import device as transfer
from jointgen.data.batches import TrainingBatches
from jointgen.data.device import ROWS_PER_COPY, DeviceRows, Prefetcher, copy_to_device, resides, size_of
from jointgen.data.row_order import RowOrder
from jointgen.data.split import Split
from jointgen.errors import ConfigError

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


class Numbered:
    """Row i is the number i, in 8 bytes, beside a label in 8 more."""

    def __init__(self, rows: int):
        self.rows, self.asked = rows, list[int]()

    def __len__(self) -> int:
        return self.rows

    def take(self, index: Tensor) -> dict[str, Tensor]:
        self.asked.append(len(index))
        return {"x": index.double()[:, None], "y": index}


class Windowed(Numbered):
    """Stores two numbers a row, and shows the first; training sees one of them, shaken."""

    def stored(self, index: Tensor) -> dict[str, Tensor]:
        return {"x": torch.stack([index, -index], 1).double(), "y": index}

    def take(self, index: Tensor) -> dict[str, Tensor]:
        return {"x": index.double()[:, None], "y": index}

    def augment(self, values: dict[str, Tensor], noise: NoiseSource) -> dict[str, Tensor]:
        side = (noise.uniform() < 0.5).long()[:, None]
        return values | {"x": values["x"].gather(1, side) + noise.normal(1)}


# --- the decision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "free", "expected"),
    [
        ("auto", 3200, True),  # 100 rows of 16 bytes are half of it
        ("auto", 3199, False),
        ("always", 1600, True),
        ("never", 10**9, False),
    ],
)
def test_data_stays_on_a_device_that_has_room(
    wanted: Any, free: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "free_memory", lambda device: free)
    assert size_of(Numbered(100)) == 1600
    assert resides(wanted, [Numbered(100)], GPU) is expected
    assert resides(wanted, [Numbered(40), Numbered(60)], GPU) is expected
    assert resides(wanted, [Numbered(100)], CPU) is False


def test_stored_rows_are_what_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """(2 * 8 + 8) * 100 bytes, though a row shows only 16 of its 24."""
    assert size_of(Windowed(100)) == 2400


def test_data_that_must_stay_and_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "free_memory", lambda device: 2**30)
    message = r"^train\.resident: 'always', but the training split has 3\.0 GiB and cuda:0 has 1\.0 GiB free$"
    with pytest.raises(ConfigError, match=message):
        resides("always", [Numbered(3 * 2**26)], GPU)


def test_on_the_cpu_nothing_is_read_to_decide() -> None:
    rows = Numbered(10)
    assert resides("auto", [rows], CPU) is False
    assert rows.asked == []


# --- what a step sees ------------------------------------------------------------------------------------------------


def test_a_copy_is_made_in_blocks_and_indexed() -> None:
    rows = Numbered(2 * ROWS_PER_COPY + 3)
    copy = copy_to_device(rows, CPU)
    assert rows.asked == [1, ROWS_PER_COPY, ROWS_PER_COPY, 3], "the first is asked for its shape"
    index = torch.tensor([2 * ROWS_PER_COPY + 2, 0, ROWS_PER_COPY, 0])
    rows.asked.clear()
    there, here = copy.stored(index), rows.take(index)
    assert rows.asked == [4]
    for name, value in here.items():
        assert torch.equal(there[name], value) and there[name].dtype == value.dtype


@pytest.mark.parametrize("rows", [Numbered(50), Windowed(50)])
def test_resident_rows_are_those_that_are_read_bit_for_bit(rows: Any) -> None:
    loader = RowOrder(rows, 8, seed=5)
    home, copy = (DeviceRows(rows, loader.rows_of, CPU, resident=resident) for resident in (False, True))
    augment = augmentation_of(rows)
    for number in (0, 1, 2, 7, 3):
        noise = [Noise(3, number).named("augment", 8) for _ in range(2)]
        one, two = (augment(fetch(number), n) for fetch, n in zip((home, copy), noise, strict=True))
        assert set(one) == set(two)
        assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("resident", [False, True])
def test_every_batch_is_sent_to_a_device_that_is_not_the_host(resident: bool) -> None:
    """The meta device keeps shapes only; what is not resident is read ahead, as for any accelerator."""
    loader = RowOrder(Windowed(50), 8, seed=5)
    fetch = DeviceRows(Windowed(50), loader.rows_of, torch.device("meta"), resident=resident)
    for number in (0, 1, 2, 5):
        values = fetch(number)
        assert {value.device.type for value in values.values()} == {"meta"}
        assert {name: value.shape for name, value in values.items()} == {"x": (8, 2), "y": (8,)}


def test_rows_without_more_to_store_are_taken() -> None:
    assert torch.equal(reader_of(Numbered(5))(torch.tensor([3]))["x"], torch.tensor([[3.0]], dtype=torch.float64))
    assert reader_of(Windowed(5))(torch.tensor([3]))["x"].tolist() == [[3.0, -3.0]]
    values = {"x": torch.zeros(1)}
    assert augmentation_of(Numbered(5))(values, Noise(0).named("augment", 1)) is values


class Alone:
    """The one process on the CPU, or one of two."""

    device, dtype = CPU, torch.float32

    def __init__(self, rank: int = 0, world: int = 1):
        self.rank, self.world = rank, world


class FakeRecipe:
    seed = 5

    class train:  # noqa: N801
        batch, resident, pair_block = 8, "auto", 4

    def batch_of(self, part: str) -> int:
        return self.train.batch

    def path_of(self, part: str) -> tuple[str, ...]:
        return (part,)

    def sampling(self, part: str) -> SampledSource:
        return SampledSource(None)


def feed(rows: Any, workers: Any, repeats: int = 1) -> TrainingBatches:
    recipe: Any = FakeRecipe()
    return TrainingBatches(
        recipe, Split("train", {"data": rows}, {"data": {"image": "x"}}), workers, lambda step: repeats
    )


def test_a_step_sees_the_rows_of_its_number_augmented_with_named_noise() -> None:
    rows = Windowed(30)
    seen = feed(rows, Alone(), repeats=3).inputs(4, 0.0, 2)
    index = RowOrder(rows, 8, 5).rows_of(4 * 3 + 2)
    expected = rows.augment(rows.stored(index), Noise(5, "4.2").named("augment", 8))
    assert list(seen.data["data"]) == ["image"]
    assert torch.equal(seen.data["data"]["image"], expected["x"])


def test_two_processes_see_the_halves_of_what_one_sees() -> None:
    whole = feed(Windowed(30), Alone()).inputs(4, 0.0, 0).data["data"]["image"]
    halves = [feed(Windowed(30), Alone(rank, 2)).inputs(4, 0.0, 0).data["data"]["image"] for rank in range(2)]
    assert torch.equal(torch.cat(halves), whole)


# --- reading ahead ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("numbers", [range(6), range(0, 30, 5), [7, 7, 3, 0, 1, 2, 9, 4]])
def test_reading_ahead_changes_nothing(numbers: Any) -> None:
    ahead = Prefetcher(lambda number: number**2)
    assert [ahead(number) for number in numbers] == [number**2 for number in numbers]


@pytest.mark.parametrize("stride", [1, 5])
def test_the_next_number_is_made_before_it_is_asked_for(stride: int) -> None:
    asked: list[int] = []
    begun = threading.Semaphore(0)

    def make(number: int) -> int:
        asked.append(number)
        begun.release()
        return number

    ahead = Prefetcher(make)
    for number in (stride, 2 * stride):
        ahead(number)
    while 3 * stride not in asked:  # made by its thread, without another call
        assert begun.acquire(timeout=30)
    calls = len(asked)
    ahead(3 * stride)
    assert asked.count(3 * stride) == 1 and calls >= 3


def test_what_goes_wrong_ahead_is_raised_when_it_is_asked_for() -> None:
    def make(number: int) -> int:
        if number == 2:
            raise OSError("torn")
        return number

    ahead = Prefetcher(make)
    assert [ahead(0), ahead(1)] == [0, 1]
    with pytest.raises(OSError, match="torn"):
        ahead(2)
