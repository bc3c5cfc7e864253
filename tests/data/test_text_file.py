"""Files of other people are read in the encoding that they have, or it is said how."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fedrag.data.importers.text_file import read_json_or_lines, read_rows, read_text
from fedrag.errors import ConfigError, DataError

TEXT = '{"q": "Wo liegt die Straße?"}\n'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_names_the_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t").write_bytes(TEXT.encode(encoding))
    assert read_text(tmp_path / "t") == TEXT


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-16-be", "gb18030"])
def test_any_encoding_is_read_where_it_is_named(tmp_path: Path, encoding: str, mark: str) -> None:
    text = TEXT if encoding == "cp1252" else mark + TEXT
    (tmp_path / "t").write_bytes(text.encode(encoding))
    assert read_text(tmp_path / "t", encoding) == TEXT


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (TEXT.encode("cp1252"), None, r"t: not UTF-8 text \(byte 25\); .* give --encoding cp1252, or save it as UTF-8"),
        (TEXT.encode("utf-16-le"), None, "looks like UTF-16 without a byte order mark: give --encoding utf-16-le"),
        (b'{"q": 1}'.decode().encode("utf-16-be"), None, "null characters; it looks like UTF-16 without"),
        ("北京。".encode("utf-16-le"), None, "t: not UTF-8 text"),
        (b"\xff\xfea", None, r"t: not utf-16 text \(byte 3\)"),
        (b"\x81", "cp1252", r"t: not cp1252 text \(byte 1\)"),
    ],
)
def test_what_cannot_be_read_is_told_with_a_way_out(
    tmp_path: Path, content: bytes, encoding: str | None, message: str
) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_text(tmp_path / "t", encoding)


def test_an_unknown_encoding_is_the_callers_fault(tmp_path: Path) -> None:
    (tmp_path / "t").write_text(TEXT)
    with pytest.raises(ConfigError, match="--encoding cp9999: no such encoding"):
        read_text(tmp_path / "t", "cp9999")


def rows_of(folder: Path, text: str) -> tuple[list[object], list[str]]:
    (folder / "t.jsonl").write_text(text)
    notes: list[str] = []
    return list(read_rows(folder / "t.jsonl", None, notes.append)), notes


def test_an_array_where_lines_are_expected_is_read_and_said_once(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows, notes = rows_of(tmp_path, json.dumps([{"q": 1}, {"q": 2}], indent=2))
    assert rows == [(f"{path}: [0]", {"q": 1}), (f"{path}: [1]", {"q": 2})]
    assert notes == [f"{path} is one JSON array, not JSON lines; its items were read as lines."]
    assert rows_of(tmp_path, '{"q": 1}\r\n\r\n{"q": 2}') == ([(f"{path}:1", {"q": 1}), (f"{path}:3", {"q": 2})], [])


def test_an_object_of_columns_is_read_as_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows, notes = rows_of(tmp_path, '{"q": {"0": "a", "1": "b"}, "n": {"0": 1, "1": 2}}')
    assert rows == [(f"{path}: row 0", {"q": "a", "n": 1}), (f"{path}: row 1", {"q": "b", "n": 2})]
    assert notes == [f"{path} is one JSON object of columns, not JSON lines; their items were read as lines."]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n "q": 1\n}', r"t\.jsonl:1: .*; JSON lines hold one whole object a line"),
        ('["a"]\n["b"]\n', r"t\.jsonl:2: .*; each line may hold one object, no array"),
        ('["a"]', r"t\.jsonl: \[0\]: must be a JSON object"),
        ('{"q": 1}\n7\n', r"t\.jsonl:2: must be a JSON object"),
    ],
)
def test_rows_of_another_shape_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows_of(tmp_path, text)


def test_lines_where_one_document_is_expected_are_read_and_said_once(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    notes: list[str] = []
    assert read_json_or_lines(path, None, notes.append) == [{"a": 1}, {"a": 2}]
    assert notes == [f"{path} is JSON lines, not one JSON document; its lines were read as the items of a list."]
    path.write_text('{"a": 1} x')
    with pytest.raises(DataError, match=r"t\.json:1: not valid JSON: Extra data"):
        read_json_or_lines(path, None, notes.append)
