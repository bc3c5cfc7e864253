"""Web pages, Word files, Markdown and text become the same blocks; a folder is read whatever lies in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from office_files import write_docx, write_pdf, write_scan

from fedrag.data.documents.document import Block, Document, UnreadableDocument, require_library
from fedrag.data.documents.plain_text import read_markdown, read_plain_text
from fedrag.data.documents.reading_folder import read_folder
from fedrag.data.documents.webpage import document_of_html, read_webpage
from fedrag.data.documents.word_file import read_word_file
from fedrag.errors import ConfigError, DataError

PAGE = """<!doctype html><html><head><title>Visits | St. Mary's</title><style>p {}</style></head><body>
<header><a href="/">Home</a></header>
<nav><ul><li><a>Wards</a></li><li><a>Visits</a></li></ul></nav>
<div><h1>Visits</h1><!-- a remark -->
<p>Visits <b>end</b> at eight.<br>Children need an adult.</p>
<ul><li>no flowers</li><li>no <a>food</a></li></ul>
<div>By <i>tram</i> 4.<table><tr><th>Ward</th><th>Hours</th></tr><tr><td>A</td><td>3 to 8</td></tr></table></div>
<ul><li><a>Next page</a></li><li><a>Previous page</a></li><li><a>Top</a></li></ul>
<p><strong>Intensive care</strong></p><p>By appointment.</p>
<p hidden>Not shown.</p></div>
<footer>© St. Mary's</footer><script>alert("x")</script></body></html>"""


def texts(document: Document) -> list[str]:
    return [block.text for block in document.blocks]


def test_a_web_page_is_read_without_its_menus_head_foot_and_what_is_hidden(tmp_path: Path) -> None:
    (tmp_path / "visits.html").write_text(PAGE, encoding="utf-8")
    document = read_webpage(tmp_path / "visits.html", "visits.html")
    assert document.title == "Visits | St. Mary's"
    assert document.blocks == (
        Block("Visits", 1),
        Block("Visits end at eight. Children need an adult."),
        Block("- no flowers"),
        Block("- no food"),
        Block("By tram 4."),
        Block("Ward | Hours"),
        Block("A | 3 to 8"),
        Block("Intensive care", 7),
        Block("By appointment."),
    )


def test_the_main_part_of_a_page_is_read_where_it_is_marked() -> None:
    html = "<div>Cookies?</div><main><header><h1>Visits</h1></header><p>They end at eight.</p></main><p>Imprint</p>"
    assert texts(document_of_html(html, "a.html")) == ["Visits", "They end at eight."]


def test_lines_of_links_are_no_text_but_sentences_with_links_are() -> None:
    html = (
        "<p>Next: <a>Fees</a>, Up: <a>Rules</a> [<a>Index</a>]</p><h2>Visits<a> ¶</a></h2>"
        "<p>See <a>the fees</a> and <a>the house rules</a>.</p><ul><li><a>one</a> visitor at a time</li></ul>"
    )
    assert texts(document_of_html(html, "a.html")) == [
        "Visits",
        "See the fees and the house rules.",
        "- one visitor at a time",
    ]


def test_a_page_in_another_encoding_is_read_as_it_says(tmp_path: Path) -> None:
    html = '<html><head><meta charset="gb2312"></head><body><p>探视时间为下午三点。</p></body></html>'
    (tmp_path / "zh.html").write_bytes(html.encode("gb2312"))
    assert texts(read_webpage(tmp_path / "zh.html", "zh.html")) == ["探视时间为下午三点。"]


def test_a_word_file_is_read_by_its_styles_without_head_and_contents(tmp_path: Path) -> None:
    parts = [
        "Every patient is admitted at the front desk.",
        "# Papers",
        "- an identity card",
        "**On arrival**",
        "Take a number.",
        "## Fees",
        [["Room", "Fee"], ["Single", "80 euros"]],
    ]
    path = write_docx(tmp_path / "admission.docx", parts, "Admission", "St. Mary's, confidential")
    document = read_word_file(path, path.name)
    assert document.title == "Admission"
    assert document.blocks == (
        Block("Admission", 1),
        Block("Every patient is admitted at the front desk."),
        Block("Papers", 1),
        Block("- an identity card"),
        Block("On arrival", 7),
        Block("Take a number."),
        Block("Fees", 2),
        Block("Room | Fee"),
        Block("Single | 80 euros"),
    )


def test_an_encrypted_and_a_damaged_word_file_are_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600))
    with pytest.raises(UnreadableDocument, match="it is encrypted, or of Word before 2007"):
        read_word_file(tmp_path / "a.docx", "a.docx")
    whole = write_docx(tmp_path / "b.docx", ["Text."]).read_bytes()
    (tmp_path / "b.docx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableDocument, match="it is damaged or no Word file"):
        read_word_file(tmp_path / "b.docx", "b.docx")


def test_markdown_is_read_with_its_tables_and_without_its_front_matter(tmp_path: Path) -> None:
    text = (
        "---\nauthor: me\n---\n# Visits\n\nThey *end* at\neight.\n\n- no flowers\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    (tmp_path / "visits.md").write_text(text)
    document = read_markdown(tmp_path / "visits.md", "visits.md")
    assert texts(document) == ["Visits", "They end at eight.", "- no flowers", "a | b", "1 | 2"]
    assert document.blocks[0].level == 1


def test_plain_text_has_headings_of_their_own_and_paragraphs_between_blank_lines(tmp_path: Path) -> None:
    text = (
        "Giờ thăm\n========\nTừ ba giờ\nđến tám giờ.\r\n\r\n- one\n- two,\n  and more\n\nOpening hours\n\nFrom nine.\n"
    )
    (tmp_path / "a.txt").write_text(text, encoding="utf-8", newline="")
    document = read_plain_text(tmp_path / "a.txt", "a.txt")
    assert document.blocks == (
        Block("Giờ thăm", 1),
        Block("Từ ba giờ đến tám giờ."),
        Block("- one"),
        Block("- two, and more"),
        Block("Opening hours", 2),
        Block("From nine."),
    )


def test_short_lines_of_a_text_stay_apart_and_wrapped_ones_are_joined(tmp_path: Path) -> None:
    wrapped = "The handover takes place at 21:15 in the kitchen of\nthe ward. It takes twenty minutes, no\nlonger.\n"
    (tmp_path / "night.txt").write_text(f"{wrapped}\nPorter: 100\nFire: 112\n")
    document = read_plain_text(tmp_path / "night.txt", "night.txt")
    assert texts(document) == [" ".join(wrapped.split()), "Porter: 100", "Fire: 112"]


def test_a_folder_is_read_whatever_lies_in_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "A.TXT").write_text("Text of a.")
    (tmp_path / "table.csv").write_text("question,answer\n")
    (tmp_path / ".hidden.txt").write_text("Hidden.")
    (tmp_path / "~$open.docx").write_bytes(b"Office's own")
    (tmp_path / "picture.png").write_bytes(b"x")
    (tmp_path / "latin.txt").write_bytes("für alle".encode("cp1252"))
    (tmp_path / "empty.html").write_text("<p> </p>")
    write_scan(tmp_path / "scan.pdf")
    write_pdf(tmp_path / "secret.pdf", ["Text."], password="x")
    read = read_folder(tmp_path, without=tmp_path / "table.csv")
    assert [document.path for document in read.documents] == ["sub/A.TXT"]
    assert read.other_kinds == ["picture.png"]
    assert list(read.unread) == ["empty.html", "latin.txt", "scan.pdf", "secret.pdf"]
    assert read.unread["empty.html"] == "it holds no text"
    assert read.unread["latin.txt"].startswith("not UTF-8 text (byte 2); if it comes from")
    read = read_folder(tmp_path, encoding="cp1252")
    assert texts(read.documents[0]) == ["für alle"]


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: no such folder"):
        read_folder(tmp_path / "none")
    (tmp_path / "a.txt").write_text("Text.")
    with pytest.raises(DataError, match=r"a\.txt: is a file; a folder was expected"):
        read_folder(tmp_path / "a.txt")


def test_a_missing_library_is_named_with_how_to_get_it() -> None:
    with pytest.raises(ConfigError, match=r"to read PDF the library not_there is needed; run: pip install 'fedrag\[do"):
        require_library("not_there", "PDF")
