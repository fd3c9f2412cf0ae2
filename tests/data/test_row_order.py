from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

from jointgen.data.row_order import RowOrder
from jointgen.errors import ConfigError


class Numbered:
    """Row i is the number i."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def take(self, index: Tensor) -> dict[str, Tensor]:
        return {"x": index.double()[:, None]}


@pytest.mark.parametrize(
    ("rows", "batch"), [(10, 10), (10, 3), (12, 4), (7, 6), (297, 64), (1, 1), (3, 8), (5, 12), (1, 4)]
)
def test_every_row_once_per_epoch(rows: int, batch: int) -> None:
    loader = RowOrder(Numbered(rows), batch, seed=0)
    seen = torch.cat([loader.rows_of(i) for i in range(3 * rows)])  # 3 * batch whole epochs
    for epoch in seen.split(rows):
        assert epoch.sort().values.tolist() == list(range(rows))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first = [RowOrder(Numbered(50), 50, seed=0).rows_of(i).tolist() for i in range(3)]
    other = RowOrder(Numbered(50), 50, seed=1).rows_of(0).tolist()
    assert len({tuple(order) for order in [*first, other, range(50)]}) == 5


def test_any_batch_can_be_asked_for_first() -> None:
    through = RowOrder(Numbered(23), 8, seed=3)
    batches = [through.rows_of(i) for i in range(40)]
    for i in [39, 0, 17, 16, 18, 2, 39]:
        assert torch.equal(RowOrder(Numbered(23), 8, seed=3).rows_of(i), batches[i])
        assert torch.equal(through.rows_of(i), batches[i])  # whatever it remembers by now


def test_remembers_two_epochs_at_the_most() -> None:
    rows = 10_007  # no other tensor has so many
    loader = RowOrder(Numbered(rows), 3000, seed=0)
    for i in range(15):
        loader.rows_of(i)
        assert sum(type(kept) is Tensor and kept.shape == (rows,) for kept in gc.get_objects()) <= 2


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_take_slices_of_the_same_batch(world: int) -> None:
    whole = RowOrder(Numbered(30), 8, seed=5)
    shards = [RowOrder(Numbered(30), 8, seed=5, rank=rank, world=world) for rank in range(world)]
    for i in range(20):
        assert torch.equal(torch.cat([shard.rows_of(i) for shard in shards]), whole.rows_of(i))


def test_a_split_smaller_than_a_batch_gives_whole_epochs_within_it() -> None:
    """Of five rows a batch of twelve has two epochs and two rows of the third, whatever process takes which of them."""
    whole = RowOrder(Numbered(5), 12, seed=5)
    first = whole.rows_of(0).tolist()
    assert sorted(first[:5]) == sorted(first[5:10]) == [0, 1, 2, 3, 4]
    assert first[:5] != first[5:10]
    assert sorted([*first[10:], *whole.rows_of(1).tolist()[:3]]) == [0, 1, 2, 3, 4]
    shards = [RowOrder(Numbered(5), 12, seed=5, rank=rank, world=3) for rank in range(3)]
    for i in (7, 0, 1):
        assert torch.equal(torch.cat([shard.rows_of(i) for shard in shards]), whole.rows_of(i))


def test_no_rows_at_all() -> None:
    with pytest.raises(ConfigError, match=r"^train\.batch: the training split of toy has no row$"):
        RowOrder(Numbered(0), 512, seed=0, name="the training split of toy")


@pytest.mark.parametrize(("batch", "world"), [(10, 4), (0, 1), (-2, 1)])
def test_batch_must_divide(batch: int, world: int) -> None:
    with pytest.raises(ConfigError, match=rf"^train\.batch: {batch} does not divide over {world}"):
        RowOrder(Numbered(20), batch, seed=0, world=world)
