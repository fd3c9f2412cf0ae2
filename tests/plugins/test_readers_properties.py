"""Damaged arrays, pictures and prepared sets are read as what they say or refused; nothing else happens."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jointgen_data.arrays import Arrays
from jointgen_data.prepared import PreparedImages
from PIL import Image
from safetensors.numpy import save_file

from jointgen.contracts.space import Space
from jointgen.errors import ConfigError, JointgenError
from jointgen.images.prepare import prepare_images, verify
from jointgen.images.shards import MANIFEST
from jointgen.images.user_images import read_user_images


def changed(data: st.DataObject, text: bytes) -> bytes:
    """Bytes of which some, mostly at the beginning, are replaced, left out or repeated."""
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, min(len(text), data.draw(st.sampled_from([12, 200, 10**6])))))
        end = min(len(text), start + data.draw(st.integers(0, 20)))
        noise = st.one_of(
            st.binary(max_size=8), st.just(text[start:end] * 2), st.sampled_from([b"9" * 25, b"-1", b"O"])
        )
        text = text[:start] + data.draw(noise) + text[end:]
    return text


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Arrays, pictures and a prepared set, of which each example damages one file anew."""
    root, draw = tmp_path_factory.mktemp("readers"), np.random.default_rng(0)
    reals, labels = draw.normal(size=(40, 3)).astype(np.float32), draw.integers(0, 3, 40)
    np.save(root / "pixels.npy", draw.integers(0, 256, (40, 6, 6), np.uint8))
    np.save(root / "reals.npy", reals)
    np.savez(root / "both.npz", x=reals, y=labels)
    save_file({"x": reals, "y": labels}, root / "both.safetensors")
    for cls in ("cats", "dogs"):
        (root / "images" / cls).mkdir(parents=True)
        for i in range(8):
            Image.fromarray(draw.integers(0, 256, (6, 6), np.uint8)).save(root / "images" / cls / f"{i}.png")
    prepare_images(root / "images", root / "prepared", 6, 1, workers=1, test_fraction=0.25)
    return root


@pytest.mark.parametrize("name", ["pixels.npy", "reals.npy", "both.npz", "both.safetensors"])
@given(data=st.data())
def test_a_damaged_array_is_refused_by_name_or_read(folder: Path, name: str, data: st.DataObject) -> None:
    file = folder / name
    whole = file.read_bytes()
    source = Arrays(str(file), variables={"x": "x"})
    rows = source.open("train")
    before = len(rows)
    try:
        file.write_bytes(changed(data, whole))
        spaces = source.spaces()
        rows = source.open("train")
        values = rows.take(torch.arange(len(rows)))["x"]
        assert values.shape == (len(rows), *spaces["x"].shape)
        assert bool(torch.isfinite(values.double()).all())
    except ConfigError as error:
        assert len(error.lines) == 1
        assert "path" in error.lines[0]
    finally:
        file.write_bytes(whole)
    assert len(source.open("train")) == before


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF"])
@given(data=st.data())
def test_a_damaged_picture_is_refused_or_read(folder: Path, form: str, data: st.DataObject) -> None:
    held = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(held, form)
    file = folder / f"picture.{form.lower()}"
    file.write_bytes(changed(data, held.getvalue()))
    space = Space((1, 6, 6), "real", 0.0, 1.0, bins=256)
    try:
        images = read_user_images(file, space)
    except ConfigError as error:
        assert file.name in str(error)
    else:
        assert images.values.shape == (1, 1, 6, 6)
    finally:
        file.unlink()


# --- prepared sets ---------------------------------------------------------------------------------------------------


@given(data=st.data())
def test_a_prepared_file_with_a_changed_byte_is_not_verified(folder: Path, data: st.DataObject) -> None:
    prepared = folder / "prepared"
    names = sorted(file.name for file in prepared.iterdir() if not file.name.startswith("."))
    file = prepared / data.draw(st.sampled_from(names))
    whole = file.read_bytes()
    damaged = changed(data, whole)
    try:
        file.write_bytes(damaged)
        verify(prepared)
        assert damaged == whole or same_json(damaged, whole)
    except ConfigError as error:
        assert file.name in str(error)
    finally:
        file.write_bytes(whole)


def same_json(one: bytes, other: bytes) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


JSON = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 2**65),
    st.floats(),
    st.sampled_from(["", "../x.npy", "\x1b", [], {}, [1]]),
)


@settings(max_examples=60)
@given(data=st.data())
def test_an_edited_manifest_is_refused_by_name_or_read(folder: Path, data: st.DataObject) -> None:
    prepared = folder / "prepared"
    file = prepared / MANIFEST
    whole = file.read_bytes()
    held = json.loads(whole)
    place: Any = held
    while True:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(list(keys)))
        if not (isinstance(place[key], dict | list) and place[key] and data.draw(st.integers(0, 4))):
            break
        place = place[key]
    value = data.draw(JSON)
    if data.draw(st.booleans()):
        place[key] = value
    elif isinstance(place, dict):
        del place[key]
    else:
        place.append(value)
    try:
        file.write_text(json.dumps(held))
        source = PreparedImages(str(prepared), labels=True)
        source.spaces()
        rows = source.open("train")
        assert rows.take(torch.arange(len(rows)))["x"].shape[1:] == (1, 6, 6)
    except JointgenError as error:
        assert MANIFEST in str(error) or "labels" in str(error)
    else:
        assert held == json.loads(whole)
    finally:
        file.write_bytes(whole)


def test_the_whole_files_are_read(folder: Path) -> None:
    """What the tests above damage is fine before."""
    assert verify(folder / "prepared").splits.keys() == {"train", "test"}
    shutil.copytree(folder / "prepared", folder / "copy")
    assert len(PreparedImages(str(folder / "copy"), labels=True).open("train")) == 12
