from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from jointgen.config.documents import parse_document, read_document
from jointgen.errors import FileError


@attrs.frozen
class Figure:
    value: float | None
    n: int = 0


@attrs.frozen
class Held:
    figures: dict[str, Figure]


def test_a_document_is_read_into_its_class() -> None:
    assert parse_document(b'{"figures": {"a": {"value": 1.5}, "b": {"value": null, "n": 2}}}', Held) == Held(
        {"a": Figure(1.5), "b": Figure(None, 2)}
    )


@pytest.mark.parametrize(
    "text, says",
    [
        (b"", "Expecting value"),
        (b"\xff", "byte 0 is not UTF-8"),
        (b"[]", "expected a table"),
        (b'{"figures": []}', "figures: expected a table"),
        (b'{"figures": {}, "more": 1}', "more: unknown key"),
        (b'{"figures": {"a": {"value": "1"}}}', "figures.a.value: expected a number, got '1'"),
        (b'{"figures": {"a": {"value": NaN}}}', "NaN is not JSON"),
        (b'{"figures": {}, "figures": {}}', "a key stands twice"),
        (b'{"figures": {"a": {"value": 1, "n": 1%s}}}' % (b"0" * 5000), "more than 64 bits"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_file_and_the_remedy(tmp_path: Path, text: bytes, says: str) -> None:
    file = tmp_path / "held.json"
    file.write_bytes(text)
    with pytest.raises(FileError) as caught:
        read_document(file, Held, "remove it")
    line = str(caught.value)
    assert line.startswith(f"{file}: is damaged (") and says in line and line.endswith("; remove it")
    assert "\n" not in line and len(line) < 400
