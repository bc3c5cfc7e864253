"""PubMedQA's file: sections of abstracts become passages, all of an article right for its question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedrag.data.importers.pubmedqa import import_pubmedqa
from fedrag.errors import DataError
from fedrag.types import Passage, Question

TRAIN = (1.0, 0.0, 0.0)

# Made up, in the form that the README of PubMedQA's repository documents.
ARTICLE: dict[str, Any] = {
    "QUESTION": "Does walking in the park help gardeners' backs?",
    "CONTEXTS": ["Gardeners stoop. Their backs hurt.", "We asked forty gardeners to walk for an hour a week."],
    "LABELS": ["BACKGROUND", "METHODS"],
    "MESHES": ["Back Pain", "Gardening"],
    "YEAR": "2015",
    "reasoning_required_pred": "yes",
    "reasoning_free_pred": "yes",
    "final_decision": "yes",
    "LONG_ANSWER": "An hour of walking a week was followed by less pain.",
}
PASSAGES = (
    Passage("77-1", ARTICLE["CONTEXTS"][0], "Background"),
    Passage("77-2", ARTICLE["CONTEXTS"][1], "Methods"),
)


def pubmed_file(folder: Path, **articles: Any) -> Path:
    path = folder / "ori_pqal.json"
    path.write_text(json.dumps(articles, indent=4))
    return path


@pytest.mark.parametrize(("answer", "told"), [("decision", "yes"), ("long", ARTICLE["LONG_ANSWER"])])
def test_sections_are_passages_and_the_answer_is_the_one_that_is_asked_for(tmp_path, answer, told):
    imported = import_pubmedqa(pubmed_file(tmp_path, **{"77": ARTICLE}), answer, TRAIN)
    (site,) = imported.sites
    assert (site.name, site.passages) == ("ori-pqal", PASSAGES)
    assert site.train == (Question("77", ARTICLE["QUESTION"], (told,), ("77-1", "77-2")),)
    assert imported.skipped == {}


def test_articles_without_an_answer_are_counted_and_their_sections_stay(tmp_path):
    bare = {key: value for key, value in ARTICLE.items() if key != "final_decision"} | {"CONTEXTS": ["Other."]}
    imported = import_pubmedqa(pubmed_file(tmp_path, **{"77": ARTICLE, "78": bare}), "decision", TRAIN)
    (site,) = imported.sites
    assert [passage.id for passage in site.passages] == ["77-1", "77-2", "78-1"]
    assert site.passages[-1].title is None  # it has two headings for one section
    assert imported.skipped == {"articles without a question, a section or a final_decision": 1}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected one JSON object with an article for each PubMed id"),
        ('{"7": {"QUESTION": "Why?"}}', 'article "7": "QUESTION" and "CONTEXTS", a list of texts, were expected'),
        ("{}", "holds no question with an answer"),
    ],
)
def test_another_shape_is_refused(tmp_path, text, why):
    path = tmp_path / "ori_pqal.json"
    path.write_text(text)
    with pytest.raises(DataError, match=why):
        import_pubmedqa(path)
