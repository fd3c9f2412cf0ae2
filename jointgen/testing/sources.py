"""Checks of data sources: Spaces that are known without reading, and rows that match them."""

from __future__ import annotations

import torch

from jointgen.contracts.observation import fault_of_raw, observe
from jointgen.contracts.sources import AugmentedRows, CountedSource, NamedClasses, reader_of
from jointgen.contracts.space import Space
from jointgen.testing.check import Promises, expect, expect_equal, expect_shape, promise, skip
from jointgen.testing.critics import Subject
from jointgen.testing.randomness import no_global_randomness, noise

SOURCES: Promises = []


@promise(SOURCES)
def spaces_are_known_without_reading(subject: Subject) -> None:
    spaces, again = subject.config.spaces(), subject.config.spaces()
    expect(spaces, "spaces() names no variable")
    expect(spaces == again, "two calls of spaces() differ")
    for name, space in spaces.items():
        expect(isinstance(space, Space), f"the space of {name!r} is a {type(space).__name__}, it must be a Space")


@promise(SOURCES)
def rows_match_the_spaces(subject: Subject) -> None:
    for split in ("train", "test"):
        rows, n = subject.config.open(split), 8
        expect(len(rows) >= 1, f"the split {split!r} has no rows")
        taken = rows.take(torch.arange(n) % len(rows))
        spaces = subject.config.spaces()
        expect(set(taken) == set(spaces), f"rows of {split!r} have {sorted(taken)}, spaces() promises {sorted(spaces)}")
        for name, space in spaces.items():
            expect(not (why := fault_of_raw(taken[name], space, n)), f"{name!r} of {n} rows of {split!r} {why}")


@promise(SOURCES)
def rows_are_counted_as_they_are_opened(subject: Subject) -> None:
    source = subject.config
    if not isinstance(source, CountedSource):
        skip("it has no count_rows()")
    for split in ("train", "test"):
        counted, opened = source.count_rows(split), len(subject.config.open(split))
        expect(counted == opened, f"count_rows({split!r}) is {counted}, and the opened split has {opened} rows")


@promise(SOURCES)
def classes_have_names_as_their_labels_have_classes(subject: Subject) -> None:
    source = subject.config
    if not isinstance(source, NamedClasses):
        skip("it has no class_names()")
    subject.config.open("train")
    named, spaces = source.class_names(), subject.config.spaces()
    for name, names in named.items():
        expect(all(isinstance(one, str) for one in names), f"the names of the classes of {name!r} are not all text")
        expect(len({*names}) == len(names), f"two classes of {name!r} have one name: {names}")
        if name in spaces:
            classes = spaces[name].size
            expect(len(names) == classes, f"{name!r} has {classes} classes, and class_names() has {len(names)} for it")


@promise(SOURCES)
def rows_taken_again_are_the_same(subject: Subject) -> None:
    with no_global_randomness("open() and take()"):
        first, second = subject.config.open("train"), subject.config.open("train")
        index = torch.tensor([0, len(first) - 1, len(first) // 2, 0])
        expect(len(first) == len(second), f"open('train') has {len(first)} rows, and {len(second)} when called again")
        one, two, three = first.take(index), second.take(index), first.take(index.flip(0))
    for name in one:
        expect_equal(f"{name!r} differs when the split is opened again", two[name], one[name])
        expect_equal(f"{name!r} of rows taken in another order is not in that order", three[name].flip(0), one[name])


@promise(SOURCES)
def train_and_test_differ(subject: Subject) -> None:
    train, test = (subject.config.open(split) for split in ("train", "test"))
    n = min(len(train), len(test))
    pairs = zip(*(rows.take(torch.arange(n)).values() for rows in (train, test)), strict=True)
    expect(not all(torch.equal(one, two) for one, two in pairs), "the splits train and test begin with the same rows")


@promise(SOURCES)
def rows_can_be_observed(subject: Subject) -> None:
    taken = subject.config.open("train").take(torch.arange(4))
    for name, space in subject.config.spaces().items():
        sample = observe(space, taken[name], noise(4)).read("sample")
        expect_shape(f"{name!r} as networks see it", sample, (4, *space.shape))
        if space.range is not None:
            low, high = space.range
            inside = bool((sample >= low).all() and (sample <= high).all())
            expect(inside, f"{name!r} as networks see it is not in [{low}, {high}]")


@promise(SOURCES)
def augmentation_keeps_shapes_and_types(subject: Subject) -> None:
    rows = subject.config.open("train")
    taken, whole = (read(torch.arange(4)) for read in (rows.take, reader_of(rows)))
    if not isinstance(rows, AugmentedRows):
        skip("it does not augment its rows")
    with no_global_randomness("augment()"):
        changed = rows.augment(whole, noise(4))
    for name, value in taken.items():
        expect_shape(f"augmented {name!r}", changed[name], value.shape)
        expect(changed[name].dtype == value.dtype, f"augmented {name!r} is {changed[name].dtype}, not {value.dtype}")
