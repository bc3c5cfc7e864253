"""Records of measured questions: written and read, and means over them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedrag.config.rag_settings import RagConfig
from fedrag.errors import RunError
from fedrag.evaluation.records import (
    METRICS,
    Measured,
    cut_lines,
    measured_lines,
    read_measured,
    scores_by_question,
    summarise,
)


def measured(question: str, answer: str | None = None, **metrics: float) -> Measured:
    return Measured("a", question, ("p1", "p2"), answer, dict.fromkeys(METRICS) | metrics)


def test_what_is_written_is_read_back(tmp_path: Path):
    """str.splitlines cuts at U+2028 and U+0085, which answers may hold."""
    records = [measured("q1", "a\u2028b\x85c\nd", f1=0.5), measured("q2", mrr=1.0)]
    (tmp_path / "x.jsonl").write_text(measured_lines(records), encoding="utf-8")
    assert read_measured(tmp_path / "x.jsonl") == records


def test_what_was_cut_is_written_and_read_and_older_records_tell_nothing_of_it(tmp_path: Path):
    item = replace(measured("q1", "a"), cut={"prompts": 1, "passages": 2})
    line = measured_lines([item])
    (tmp_path / "x.jsonl").write_text(line + line.replace(', "cut": {"prompts": 1, "passages": 2}', ""))
    assert [found.cut for found in read_measured(tmp_path / "x.jsonl")] == [item.cut, {}]


def test_the_summary_tells_what_was_cut_where_anything_was():
    cut = [replace(measured("q1"), cut={"prompts": 1, "passages": 2}), replace(measured("q2"), cut={"answers": 1})]
    assert summarise(cut)["cut"] == {"prompts": 1, "passages": 2, "answers": 1}
    assert "cut" not in summarise([measured("q1")])
    rag = RagConfig(prompt_tokens=64, answer_tokens=8)
    assert cut_lines({"a": summarise(cut), "b": summarise([measured("q1")]), "c": summarise(cut[1:])}, rag) == [
        "a: cut to fit 64 tokens: 1 prompt, in them 2 passages; cut at 8 tokens: 1 answer",
        "c: cut at 8 tokens: 1 answer",
    ]


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"site": "a"}'])
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str):
    (tmp_path / "x.jsonl").write_text(measured_lines([measured("q1")]) + line + "\n", encoding="utf-8")
    with pytest.raises(RunError, match=r"x\.jsonl:2: expected the JSON record"):
        read_measured(tmp_path / "x.jsonl")


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(RunError, match=r"x\.jsonl: cannot be read"):
        read_measured(tmp_path / "x.jsonl")


def test_a_question_that_several_models_answered_has_the_mean_of_their_scores():
    scores = scores_by_question([measured("q1", f1=0.0), measured("q1", f1=1.0), measured("q2", f1=0.25)])
    assert {key: found["f1"] for key, found in scores.items()} == {("a", "q1"): 0.5, ("a", "q2"): 0.25}
    assert scores["a", "q1"]["mrr"] is None
