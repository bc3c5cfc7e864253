"""MedQuAD's folders become sites."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedrag.data.importers.medquad import import_medquad
from fedrag.errors import DataError
from fedrag.types import Passage, Question

TRAIN = (1.0, 0.0, 0.0)
DOCUMENT = """<?xml version="1.0" encoding="UTF-8"?>
<Document id="7" source="X"><Focus>Gout</Focus><QAPairs>
<QAPair pid="1"><Question qid="7-1" qtype="information">What is (are) Gout ? ?</Question>
<Answer>A joint
      disease &amp;amp; it hurts.</Answer></QAPair>
<QAPair pid="2"><Question qid="7-2">Who is at risk?</Question><Answer> </Answer></QAPair>
<QAPair pid="3"><Question qid="7-3">Who gets it?</Question></QAPair>
<QAPair pid="4"><Question qid="7-4">How is it told ?</Question>
<Answer>A joint disease &amp; it hurts.</Answer></QAPair>
</QAPairs></Document>
"""


def write(path: Path, text: str = DOCUMENT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_source_is_a_site_and_an_answer_a_passage(tmp_path: Path) -> None:
    write(tmp_path / "5_NIDDK_QA" / "7.xml")
    write(tmp_path / "8_NHLBI_QA_XML" / "7.xml")
    (tmp_path / "readme.txt").write_text("notes")
    imported = import_medquad(tmp_path, TRAIN)
    assert [site.name for site in imported.sites] == ["niddk", "nhlbi"]
    text = "A joint disease & it hurts."
    assert imported.sites[0].passages == (Passage("niddk-1", text, "Gout"),)
    assert imported.sites[0].train == (
        Question("7-1", "What is (are) Gout?", (text,), ("niddk-1",)),
        Question("7-4", "How is it told?", (text,), ("niddk-1",)),
    )
    assert imported.skipped == {"pairs without question or answer": 4}


def test_one_sources_folder_is_one_site(tmp_path: Path) -> None:
    write(tmp_path / "12_MPlusHerbs_QA" / "7.xml")
    assert [site.name for site in import_medquad(tmp_path / "12_MPlusHerbs_QA").sites] == ["mplusherbs"]


def test_malformed_xml_is_named_with_its_line(tmp_path: Path) -> None:
    write(tmp_path / "A" / "1.xml", "<Document>\n<QAPairs></Document>")
    with pytest.raises(DataError, match=r"1\.xml:2: not valid XML: mismatched tag"):
        import_medquad(tmp_path)


def test_folders_without_xml_or_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds XML files"):
        import_medquad(tmp_path)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        import_medquad(tmp_path / "nowhere")
    write(tmp_path / "A" / "1.xml", "<Document><QAPair><Question>Why?</Question></QAPair></Document>")
    with pytest.raises(DataError, match="no question with an answer; 1 pairs without question or answer"):
        import_medquad(tmp_path)
