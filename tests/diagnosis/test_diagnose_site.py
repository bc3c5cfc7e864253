"""A site diagnosed with real tiny models: every cause on a question made for it, and nothing generated twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_federation import SHIPPED, tiny_config

from fedrag.data.site_folder import load_site
from fedrag.diagnosis import trials
from fedrag.diagnosis.answer_cache import AnswerCache
from fedrag.diagnosis.diagnose_site import diagnose_site
from fedrag.diagnosis.diagnosed import Diagnosed
from fedrag.diagnosis.tally import means_of, tally_of
from fedrag.models.resident import RoundModels
from fedrag.rag.pipeline import Answered
from fedrag.types import Passage, Question, Site

PASSAGES = (
    Passage("tram", "Tram line 3 runs to the zoo."),
    Passage("tyre", "A flat tyre is repaired for four crowns."),
    Passage("long", "The tower is old. " * 60 + "It has nine bells. " + "The tower is old. " * 60, "Tower"),
)
CONFIG = {"rag": {"passages": 1, "prompt_tokens": 400, "answer_tokens": 24}}


def diagnosed(site: Site, folder: Path, **settings: Any) -> dict[str, Diagnosed]:
    config = tiny_config(**(CONFIG | settings))
    return {one.question_id: one for one in diagnose_site(site, "test", config, RoundModels(config, {}), folder)}


def test_every_cause_on_a_question_made_for_it(tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    question = "Where does tram line 3 run to?"
    best, other, _ = sorted(("tram", "tyre", "long"), key=lambda name: found_rank(question, name, tmp_path))
    asked = Question("q", question, ("to the zoo",), (best,))
    ten_words = "one two three four five six seven eight nine ten " * 3

    def cause(changed: Question) -> str | None:
        [one] = diagnosed(Site("east", PASSAGES, test=(changed,)), tmp_path).values()
        return one.cause

    assert cause(asked) == "not_used"
    assert cause(replace(asked, answers=(ten_words,))) == "cut"
    assert cause(replace(asked, passage_ids=(other,))) == "not_found"
    assert cause(replace(asked, passage_ids=("not-here",))) == "not_in_corpus"
    assert cause(replace(asked, answers=("a porter",), passage_ids=())) == "not_in_corpus"
    # The random generator never says anything right, so a model that does stands in for it.
    for answer, expected in (("To the zoo.", None), ("It runs to the zoo", "worded_otherwise")):
        monkeypatch.setattr(
            trials, "generate_answers", lambda _, asked, *rest, says=answer: [Answered(says)] * len(asked)
        )
        [one] = diagnosed(Site("east", PASSAGES, test=(asked,)), tmp_path / answer).values()
        assert (one.cause, one.trials["found"].exact_match) == (expected, float(expected is None))


def _answering(answer: str, generator: object, asked: Sequence[object], *settings: object) -> list[Answered]:
    return [Answered(answer) for _ in asked]


def found_rank(question: str, passage: str, folder: Path) -> int:
    site = Site("east", PASSAGES, test=(Question("q", question, ("zz",), (passage,)),))
    [one] = diagnosed(site, folder).values()
    assert one.rank is not None
    return one.rank


def test_of_a_passage_the_part_with_the_answer_must_stand_in_the_prompt(tiny_home: Path, tmp_path: Path):
    """The beginning of a chunk that does not fit is shown; the bells come later."""
    text = "The tower is old. " * 12 + "It has nine bells."
    tight = {"passages": 1, "prompt_tokens": 192, "answer_tokens": 24}
    site = Site("east", (Passage("long", text),), test=(Question("q", "How many bells?", ("nine bells",), ("long",)),))
    [one] = diagnosed(site, tmp_path, rag=tight).values()
    assert (one.cause, one.in_context, one.is_too_long) == ("cut", False, False)
    roomy = tight | {"prompt_tokens": 1024}
    [one] = diagnosed(site, tmp_path, rag=roomy).values()
    assert (one.cause, one.in_context) == ("not_used", True)


def test_time_tokens_and_scores_are_told_of_each_way_of_asking(tiny_home: Path, tmp_path: Path):
    site = load_site(SHIPPED / "north")
    found = list(diagnosed(site, tmp_path, rag={"passages": 2, "prompt_tokens": 600, "answer_tokens": 8}).values())
    means = means_of(found)
    assert [means[given]["n_questions"] for given in ("found", "labelled", "closed_book")] == [6, 6, 6]
    prompts = [means[given]["prompt_tokens"] for given in ("closed_book", "labelled", "found")]
    assert prompts == sorted(prompts)
    assert all(0 < means[given]["answer_tokens"] <= 8 for given in means)
    assert all(means[given]["seconds"] > 0 for given in means)
    tally = tally_of(found)
    assert (tally.questions, tally.labelled) == (6, 6)
    assert tally.right + tally.wrong == 6


def test_a_closed_book_finds_nothing_and_loads_no_retriever(tiny_home: Path, tmp_path: Path):
    site = Site("east", PASSAGES, test=(Question("q", "Where does it run?", ("to the zoo",), ("tram",)),))
    config = tiny_config(rag={"passages": 0, "answer_tokens": 24}, federation={"schedule": "generator"})
    models = RoundModels(config, {})
    [one] = diagnose_site(site, "test", config, models, tmp_path)
    assert (one.cause, one.rank) == ("not_found", None)
    assert set(one.trials) == {"found", "labelled", "closed_book"}
    assert one.trials["found"].generated.text == one.trials["closed_book"].generated.text
    assert "retriever" not in models._set


def test_what_a_model_wrote_and_what_has_no_answer_is_not_diagnosed(tiny_home: Path, tmp_path: Path):
    asked = Question("q", "Where does it run?", ("to the zoo",), ("tram",))
    questions = (
        asked,
        replace(asked, id="g", question="Where to?", origin="generated"),
        replace(asked, id="p", question="Where does line 3 go?", origin="pseudo"),
        replace(asked, id="n", question="Where does line 4 go?", answers=()),
    )
    assert list(diagnosed(Site("east", PASSAGES, test=questions), tmp_path)) == ["q"]


def test_an_interrupted_diagnosis_goes_on_and_one_asked_again_generates_nothing(
    tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    site = load_site(SHIPPED / "north")
    undisturbed = diagnosed(site, tmp_path / "undisturbed")
    real, calls = trials.generate_answers, []

    def counted(generator, asked, *rest):
        if len(calls) == 2:
            calls.append(0)
            raise KeyboardInterrupt
        calls.append(len(asked))
        return real(generator, asked, *rest)

    monkeypatch.setattr(trials, "AT_A_TIME", 2)
    monkeypatch.setattr(trials, "generate_answers", counted)
    with pytest.raises(KeyboardInterrupt):
        diagnosed(site, tmp_path / "interrupted")
    [file] = (tmp_path / "interrupted").iterdir()
    with file.open("a") as lines:
        lines.write('{"asked": "torn')
    again = diagnosed(site, tmp_path / "interrupted")
    generated = sum(calls)
    assert [one.cause for one in again.values()] == [one.cause for one in undisturbed.values()]
    diagnosed(site, tmp_path / "interrupted")
    assert sum(calls) == generated
    distinct = {
        (one.trials[given].generated.prompt_tokens, one.question_id) for one in again.values() for given in one.trials
    }
    assert generated <= len(distinct) + 6  # found and labelled share the answer to the same prompt
    assert len(AnswerCache(tmp_path / "interrupted", "another key")._known) == 0
