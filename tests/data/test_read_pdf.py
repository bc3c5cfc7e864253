"""PDF files made by a real program are read as a person reads them: headings, paragraphs, pages, no running heads."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from office_files import CHINESE, PAGE_BREAK, Parts, write_pdf, write_scan

from fedrag.data.documents.document import Block, Document, UnreadableDocument
from fedrag.data.documents.pdf import read_pdf

HANDS = "Hands are disinfected for thirty seconds before and after each contact with a patient. Rings are taken off."
GLOVES = "Gloves do not replace disinfection, and they are changed between two patients."
PLAN: Parts = [
    "# Hygiene plan",
    "This plan applies to all wards. It is reviewed every two years by the committee, which meets on the first Monday "
    "of March and again in autumn.",
    "## 1 Hands",
    HANDS,
    "- before contact with a patient",
    "- after contact with body fluids",
    PAGE_BREAK,
    "## 2 Gloves",
    GLOVES,
    [["Ward", "Head nurse"], ["A1", "Ms Okafor"]],
    PAGE_BREAK,
    "Sterile gloves are kept in the cupboard of the ward.",
]


def read(path: Path) -> Document:
    return read_pdf(path, path.name)


def test_headings_paragraphs_items_and_rows_are_told_apart_with_their_pages(tmp_path: Path) -> None:
    document = read(write_pdf(tmp_path / "plan.pdf", PLAN, "St. Mary's Hospital", "Page {page} of 3", "Hygiene plan"))
    assert document.title == "Hygiene plan"
    assert document.notes == ()
    assert document.blocks == (
        Block("Hygiene plan", 1, 1),
        Block(str(PLAN[1]), 0, 1),
        Block("1 Hands", 2, 1),
        Block(HANDS, 0, 1),
        Block("• before contact with a patient", 0, 1),
        Block("• after contact with body fluids", 0, 1),
        Block("2 Gloves", 2, 2),
        Block(GLOVES, 0, 2),
        Block("Ward Head nurse", 0, 2),
        Block("A1 Ms Okafor", 0, 2),
        Block("Sterile gloves are kept in the cupboard of the ward.", 0, 3),
    )


def test_a_paragraph_goes_on_over_a_page_and_counts_where_it_begins(tmp_path: Path) -> None:
    sentences = (
        "Sharp objects go into the yellow box, which is closed once it is three quarters full and then sealed. " * 90
    )
    document = read(write_pdf(tmp_path / "waste.pdf", [sentences.strip()], "Waste", "- {page} -"))
    assert document.blocks == (Block(sentences.strip(), 0, 1),)


@pytest.mark.parametrize(
    ("head", "foot"),
    [
        ("", "{page}"),
        ("Chapter {page} of the handbook", ""),
        ("Hygiene plan, version 4 of 12 March 2024", "St. Mary's Hospital - confidential - {page}/40"),
    ],
)
def test_running_heads_and_page_numbers_are_dropped(tmp_path: Path, head: str, foot: str) -> None:
    words = ["first", "second", "third", "fourth"]
    parts = [part for word in words for part in (f"The {word} ward is on the {word} floor.", PAGE_BREAK)]
    document = read(write_pdf(tmp_path / "wards.pdf", parts, head, foot))
    assert [block.text for block in document.blocks] == [f"The {word} ward is on the {word} floor." for word in words]


def test_of_a_single_page_small_print_at_its_edges_is_dropped(tmp_path: Path) -> None:
    document = read(write_pdf(tmp_path / "leaflet.pdf", ["# Visits", HANDS], "St. Mary's", "v. 3, p. 1"))
    assert [block.text for block in document.blocks] == ["Visits", HANDS]


def test_chapters_that_are_counted_keep_their_headings(tmp_path: Path) -> None:
    parts = [part for n in range(1, 5) for part in (f"# Chapter {n}", f"What number {n} says.", PAGE_BREAK)]
    document = read(write_pdf(tmp_path / "book.pdf", parts, "The book"))
    assert [block.text for block in document.blocks if block.level] == [f"Chapter {n}" for n in range(1, 5)]


def test_a_table_of_contents_is_no_text(tmp_path: Path) -> None:
    parts = ["# Contents", "1 Hands . . . . . . . . . 3", "2 Gloves ........... 5", "It is short."]
    document = read(write_pdf(tmp_path / "contents.pdf", parts))
    assert [block.text for block in document.blocks] == ["Contents", "It is short."]


def test_vietnamese_and_chinese_are_read(tmp_path: Path) -> None:
    text = "Người nhà được thăm bệnh nhân từ ba giờ chiều đến tám giờ tối mỗi ngày."
    document = read(write_pdf(tmp_path / "vi.pdf", ["# Giờ thăm bệnh", text]))
    assert document.blocks == (Block("Giờ thăm bệnh", 1, 1), Block(text, 0, 1))
    text = "探视时间为每天下午三点至晚上八点。每位患者最多可有两名探视者。十二岁以下儿童须由成人陪同。"
    document = read(write_pdf(tmp_path / "zh.pdf", ["# 探视规定", text], font=CHINESE))
    assert document.blocks == (Block("探视规定", 1, 1), Block(text, 0, 1))


def test_a_scan_an_encrypted_file_and_a_damaged_one_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDocument, match=r"it holds no text, perhaps a scan; .*\(OCR\)"):
        read(write_scan(tmp_path / "scan.pdf"))
    with pytest.raises(UnreadableDocument, match="it is encrypted; save a copy without a password"):
        read(write_pdf(tmp_path / "secret.pdf", PLAN, password="open sesame"))
    whole = write_pdf(tmp_path / "whole.pdf", PLAN).read_bytes()
    for name, content in {"empty": b"", "text": b"no PDF at all", "cut": whole[:300]}.items():
        (tmp_path / f"{name}.pdf").write_bytes(content)
        with pytest.raises(UnreadableDocument, match="it is damaged or no PDF|it holds no text"):
            read(tmp_path / f"{name}.pdf")


def test_pages_without_text_are_told(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "half.pdf", ["There is text on the first page.", PAGE_BREAK, PAGE_BREAK])
    document = read(path)
    assert document.notes == ("half.pdf: no text on 1 page of 2, perhaps scanned",)


def test_five_hundred_pages_are_read_in_seconds(tmp_path: Path) -> None:
    paragraph = " ".join(f"Rule {n} of the house says what is to be done on day {n} of the year." for n in range(30))
    parts = [part for n in range(500) for part in (f"## Section {n}", f"{n}. {paragraph}", PAGE_BREAK)]
    path = write_pdf(tmp_path / "long.pdf", parts, "Rules of the house", "{page}")
    started = time.monotonic()
    document = read(path)
    assert time.monotonic() - started < 60  # 5 s on a slow core that has nothing else to do
    assert len(document.blocks) == 1000
    assert document.blocks[-1].page == 500
