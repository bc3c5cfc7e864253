"""Passages are what a reader would want: a section or a part of one, with its title and where it stands."""

from __future__ import annotations

from fedrag.data.documents.boilerplate import without_boilerplate, without_duplicates
from fedrag.data.documents.document import Block, Document
from fedrag.data.documents.numbering import number_passages
from fedrag.data.documents.sections import PASSAGE_WORDS, Cut, cut_document, document_title
from fedrag.data.words import count_words
from fedrag.types import Passage

SENTENCE = "The ward keeps ten beds free for those who come at night."  # 12 words


def cuts(*blocks: Block, path: str = "rules/visits.html", title: str = "") -> list[Cut]:
    return cut_document(Document(path, blocks, title))


def test_a_section_becomes_a_passage_titled_by_document_and_headings() -> None:
    found = cuts(
        Block("House rules", 1),
        Block("They bind all."),
        Block("Visits", 2),
        Block("They end at eight."),
        Block("- no flowers"),
        Block("Children", 3),
        Block("With an adult."),
        Block("Parking", 2),
        Block("Two euros."),
    )
    assert found == [
        Cut("They bind all.", "House rules", "rules/visits.html"),
        Cut("They end at eight.\n- no flowers", "House rules – Visits", "rules/visits.html, Visits"),
        Cut("With an adult.", "House rules – Visits – Children", "rules/visits.html, Children"),
        Cut("Two euros.", "House rules – Parking", "rules/visits.html, Parking"),
    ]


def test_where_there_are_pages_the_source_names_the_one_on_which_a_passage_begins() -> None:
    found = cuts(Block("They end at eight.", 0, 7), Block("Or later.", 0, 8), path="a.pdf")
    assert [cut.source for cut in found] == ["a.pdf, page 7"]


def test_a_document_is_titled_by_its_only_top_heading_what_it_says_or_its_file() -> None:
    one, other = Block("Visits", 1), Block("Parking", 1)
    assert document_title(Document("a.pdf", (one,), "Rules")) == "Visits"
    assert document_title(Document("a.pdf", (one, other), "Rules")) == "Rules"
    assert document_title(Document("x/house_rules-2024.pdf", (one, other))) == "house rules 2024"


def test_a_long_section_is_cut_between_paragraphs_and_a_short_rest_joins_the_last_one() -> None:
    paragraph = " ".join([SENTENCE] * 6)  # 72 words
    found = cuts(*[Block(paragraph)] * 4, Block(SENTENCE))
    assert [cut.text.count(SENTENCE) for cut in found] == [12, 13]


def test_what_announces_a_list_stays_with_it() -> None:
    paragraph = " ".join([SENTENCE] * 12)
    found = cuts(Block(paragraph), Block("Bring with you:"), *[Block(f"- {SENTENCE}")] * 3)
    assert [cut.text.startswith("Bring") for cut in found] == [False, True]


def test_a_long_paragraph_is_cut_between_sentences_into_parts_of_similar_length() -> None:
    found = cuts(Block(" ".join([SENTENCE] * 30)))
    assert [cut.text.count(SENTENCE) for cut in found] == [10, 10, 10]
    assert all(cut.text.endswith("night.") for cut in found)
    chinese = "探视时间为每天下午三点至晚上八点。" * 30
    found = cuts(Block(chinese))
    assert "".join(cut.text for cut in found) == chinese
    assert all(cut.text.endswith("。") and count_words(cut.text) <= PASSAGE_WORDS for cut in found)


def test_a_text_without_sentences_is_cut_between_words() -> None:
    for text in ("word " * 1000, "字" * 1000):
        found = cuts(Block(text.strip()))
        assert max(count_words(cut.text) for cut in found) <= PASSAGE_WORDS
        assert sum(count_words(cut.text) for cut in found) == 1000


def test_a_paragraph_in_most_documents_is_dropped_and_versions_of_one_text_are_kept() -> None:
    notice = Block("This document is confidential.")
    documents = [Document(f"{n}.pdf", (Block(f"{n}. {SENTENCE}"), notice)) for n in range(3)]
    kept, dropped = without_boilerplate([*documents, Document("a.html", (notice,))])
    assert dropped == 3
    assert [len(document.blocks) for document in kept] == [1, 1, 1, 1]
    versions = [Document(f"v{n}.pdf", (Block(SENTENCE), Block(f"Version {n}"))) for n in range(3)]
    assert without_boilerplate(versions) == (versions, 0)


def test_a_passage_that_is_there_twice_is_dropped() -> None:
    found, dropped = without_duplicates([Cut("It ends.", "A", "a.txt"), Cut("it  ends.", "B", "b.txt")])
    assert (found, dropped) == ([Cut("It ends.", "A", "a.txt")], 1)


def test_ids_name_the_file_and_stay_where_the_text_stays() -> None:
    first = number_passages(
        [Cut("It ends.", "A", "x/a.txt"), Cut("Five beds.", "A", "x/a.txt"), Cut("Z.", "B", "b.md")]
    )
    assert [passage.id for passage in first.passages] == ["x-a-1", "x-a-2", "b-1"]
    later = number_passages(
        [Cut("New.", "A", "x/a.txt"), Cut("Six  beds.", "A", "x/a.txt"), Cut("it ends.", "C", "c.txt")], first.passages
    )
    assert [passage.id for passage in later.passages] == ["x-a-3", "x-a-2", "x-a-1"]
    assert later.passages[2] == Passage("x-a-1", "it ends.", "C", "c.txt")
    assert (later.changed, later.new) == ({"x-a-1", "x-a-2"}, {"x-a-3"})
