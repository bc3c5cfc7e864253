"""CSV files are read with the separator that they have."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedrag.data.importers.row_file import open_rows
from fedrag.errors import DataError


def rows_of(folder: Path, text: str, encoding: str = "utf-8") -> tuple[list[tuple[str, object]], list[str]]:
    (folder / "t.csv").write_bytes(text.encode(encoding))
    notes: list[str] = []
    return [
        (place.rpartition(":")[2], row) for place, row in open_rows(folder / "t.csv", None, None, notes.append)
    ], notes


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("q;a\nWho, if any?;Ada\n", "semicolons"),
        ("q\ta\nWho, if any?\tAda\n", "tabs"),
        ('"q"|"a"\nWho, if any?|Ada\n', "bars"),
    ],
)
def test_other_separators_are_found_and_said(tmp_path: Path, text: str, word: str) -> None:
    rows, notes = rows_of(tmp_path, text)
    assert rows == [("2", {"q": "Who, if any?", "a": "Ada"})]
    assert notes == [f"{tmp_path / 't.csv'}: its columns are separated by {word}, and were read so."]


def test_excels_line_of_the_separator_and_its_encoding_are_understood(tmp_path: Path) -> None:
    rows, _ = rows_of(tmp_path, "sep=;\r\nq;a\r\nWo?;Gießen\r\n", "utf-16")
    assert rows == [("3", {"q": "Wo?", "a": "Gießen"})]


def test_commas_are_said_nothing_of_and_a_separator_within_quotes_is_none(tmp_path: Path) -> None:
    rows, notes = rows_of(tmp_path, '"q;x;y;z", a\nWho?,Ada\n')
    assert rows == [("2", {"q;x;y;z": "Who?", "a": "Ada"})]
    assert notes == []


def test_a_list_or_an_object_in_a_cell_is_read_as_such(tmp_path: Path) -> None:
    text = 'q,a,p\nWho?,"[\'Ada\', ""it\'s Bo""]","{\'text\': [\'x\']}"\nWhy?,[1],[sic]\n'
    rows, notes = rows_of(tmp_path, text)
    assert [row for _, row in rows] == [
        {"q": "Who?", "a": ["Ada", "it's Bo"], "p": {"text": ["x"]}},
        {"q": "Why?", "a": "[1]", "p": "[sic]"},
    ]
    assert len(notes) == 1
    assert "cells that hold a list or an object" in notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q,a,q\nx,y,z\n", 'two columns are called "q"'),
        ("q,a\nWho?,\"['Ada' 'Bo']\"\n", r't\.csv:2: "a" holds a list without commas, as numpy writes it'),
    ],
)
def test_what_cannot_be_told_apart_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows_of(tmp_path, text)
