"""The data set that ships keeps its promises: what it holds, how it asks, how it is split."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fedrag.config.training_settings import RetrieverConfig
from fedrag.data.check import check_sites
from fedrag.data.site_folder import load_site, site_folders
from fedrag.data.splitting import split_of
from fedrag.models.retriever import Retriever
from fedrag.types import SPLITS, Question, Site
from fedrag.weights.store import find_model

SPACE = Path(__file__).parents[2] / "simulations" / "data" / "space"
SHARES = (0.28, 0.37, 0.35)
SITES = [load_site(folder) for folder in site_folders(SPACE)]

each_site = pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)


def questions_of(site: Site) -> list[Question]:
    return [question for split in SPLITS for question in site.split(split)]


def words(text: str) -> list[str]:
    return re.findall(r"[\w'’-]+", text.casefold())


def test_six_agencies_take_part():
    assert [site.name for site in SITES] == ["cnsa", "esa", "isro", "jaxa", "nasa", "roscosmos"]


@each_site
def test_a_site_has_enough_passages_and_questions(site: Site):
    assert len(site.passages) >= 40
    assert len(questions_of(site)) >= 100


@each_site
def test_every_passage_has_a_title_and_names_its_source(site: Site):
    for line in (SPACE / site.name / "passages.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        assert row["title"].strip()
        assert len(words(row["source"])) >= 2, row["id"]


@each_site
def test_every_question_is_labelled_and_its_answer_stands_in_the_passage(site: Site):
    texts = {passage.id: passage.text for passage in site.passages}
    for question in questions_of(site):
        (passage_id,) = question.passage_ids
        assert question.answers[0] in texts[passage_id], question.id


@each_site
def test_answers_are_short_and_not_in_the_question(site: Site):
    for question in questions_of(site):
        for answer in question.answers:
            assert 1 <= len(answer.split()) <= 6, question.id
            assert answer.casefold() not in question.question.casefold(), question.id


@each_site
def test_questions_describe_and_do_not_name(site: Site):
    titles = {passage.id: passage.title for passage in site.passages}
    for question in questions_of(site):
        title = titles[question.passage_ids[0]]
        assert title
        assert title.casefold() not in question.question.casefold(), question.id


@each_site
def test_a_split_is_the_hash_of_the_question(site: Site):
    for split in SPLITS:
        assert site.split(split)
        for question in site.split(split):
            assert split_of(question.question, SHARES, seed=0) == split, question.id


@pytest.mark.parametrize("length", [2, 3])
def test_no_opening_phrase_begins_more_than_a_tenth_of_the_questions(length: int):
    for site in SITES:
        questions = questions_of(site)
        openings = Counter(" ".join(words(question.question)[:length]) for question in questions)
        phrase, count = openings.most_common(1)[0]
        assert count <= len(questions) / 10, (site.name, phrase)


def test_no_question_stands_on_both_sides_of_the_split():
    report = check_sites(site_folders(SPACE))
    assert report.errors == ()
    assert report.overlaps_within == report.overlaps_across == ()
    assert [site.n_repeated_questions for site in report.sites] == [0] * len(SITES)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("real_models")
@each_site
def test_the_untouched_retriever_finds_some_and_not_all(site: Site):
    fetched = find_model("sentence-transformers/all-MiniLM-L6-v2", "encoder")
    retriever = Retriever.load(fetched, RetrieverConfig(), "cpu")
    questions = questions_of(site)
    similarity = (
        retriever.encode_queries([question.question for question in questions])
        @ retriever.encode_passages([passage.full_text for passage in site.passages]).T
    )
    ids = np.array([passage.id for passage in site.passages])
    found = ids[similarity.argmax(axis=1)] == [question.passage_ids[0] for question in questions]
    assert 0.40 <= found.mean() <= 0.80
