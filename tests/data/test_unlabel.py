"""`fedrag data unlabel`: labels are taken away, the same at every site."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.data.partition import partition
from fedrag.data.pooling import pool_sites
from fedrag.data.site_folder import hash_site, load_site, load_sites
from fedrag.data.unlabel import unlabel
from fedrag.data.writing import write_site
from fedrag.errors import DataError
from fedrag.types import Passage, Question, Site

TINY = Path(__file__).parents[2] / "simulations" / "data" / "tiny"


def site(name: str, count: int = 40) -> Site:
    questions = tuple(Question(f"q{n}", f"What is thing {n}?", (f"a{n}",), ("p",), ()) for n in range(count))
    return Site(name, (Passage("p", "All things."),), questions, questions[:1])


def test_a_share_keeps_its_labels_and_the_rest_is_unanswered():
    [found] = unlabel([site("a", 400)], 0.1)
    assert 20 < len(found.train) < 60
    assert len(found.train) + len(found.unanswered) == 400
    assert all(question.answers and question.passage_ids for question in found.train)
    assert not any(question.answers or question.passage_ids for question in found.unanswered)
    assert found.validation == site("a").validation


def test_a_question_keeps_its_labels_at_every_site_or_at_none():
    first, second = unlabel([site("a"), site("b")], 0.5)
    assert [question.id for question in first.train] == [question.id for question in second.train]
    assert unlabel([site("a")], 0.5, seed=1)[0].train != first.train


@pytest.mark.parametrize("keep", [0.0, 1.0, -1.0, 2.0])
def test_a_share_lies_between_0_and_1(keep):
    with pytest.raises(DataError, match="expected the share of questions that keep their labels, between 0 and 1"):
        unlabel([site("a")], keep)


def test_no_label_at_all_is_refused():
    with pytest.raises(DataError, match="no training question would keep its labels"):
        unlabel([site("a", 2)], 0.0001)


def test_the_command_writes_sites_with_a_file_of_unanswered_questions(tmp_path):
    result = CliRunner().invoke(app, ["data", "unlabel", str(TINY), str(tmp_path / "out"), "--keep", "0.5"])
    assert result.exit_code == 0, result.output
    assert "training questions keep their labels" in result.output
    before, after = load_sites(TINY), load_sites(tmp_path / "out")
    assert [len(s.train) for s in before] == [len(s.train) + len(s.unanswered) for s in after]
    assert any(s.unanswered for s in after)
    assert [s.test for s in before] == [s.test for s in after]
    waiting = ", ".join(f"{site.name} {len(site.unanswered)}" for site in after)
    checked = CliRunner().invoke(app, ["data", "check", str(tmp_path / "out")])
    assert f"Questions that nobody answered: {waiting}." in " ".join(checked.output.split())


def test_unanswered_questions_are_dealt_pooled_and_hashed_with_their_site(tmp_path):
    sites = unlabel([site("a"), site("b")], 0.5)
    dealt = partition(sites, 3, "iid")
    assert sum(len(s.unanswered) for s in dealt) == sum(len(s.unanswered) for s in sites)
    assert len({len(s.unanswered) for s in dealt}) <= 2
    pooled = pool_sites(sites)
    assert len(pooled.unanswered) == sum(len(s.unanswered) for s in sites)
    assert pooled.unanswered[0].id.startswith("a/")
    write_site(tmp_path / "a", sites[0])
    before = hash_site(tmp_path / "a")
    (tmp_path / "a" / "unanswered.jsonl").write_text('{"id": "1", "question": "Why?"}\n')
    assert hash_site(tmp_path / "a") != before
    assert [question.question for question in load_site(tmp_path / "a").unanswered] == ["Why?"]
