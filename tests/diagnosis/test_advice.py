"""What the counts of causes lead to: the parts that are named, the figures and the lines of the scenario."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_federation import tiny_config

from fedrag.config.scenario import Config
from fedrag.diagnosis.advice import advise
from fedrag.diagnosis.causes import CAUSES
from fedrag.diagnosis.scenario_lines import Situation
from fedrag.diagnosis.tally import Tally


def untouched(**settings: Any) -> Situation:
    return Situation.of(tiny_config(**settings), base=True, has_labels=True)


@pytest.mark.parametrize(
    ("counts", "recommendation", "lines"),
    [
        ({"right": 100}, "nothing", ()),
        (
            {"right": 40, "not_found": 50, "recovered": 40, "labelled": 100, "not_used": 10},
            "retriever",
            ("[federation]", 'schedule = "retriever"'),
        ),
        (
            {"right": 40, "not_found": 10, "not_used": 30, "worded_otherwise": 20},
            "generator",
            ("[federation]", 'schedule = "generator"'),
        ),
        ({"not_found": 45, "recovered": 45, "not_used": 55}, "both", ("[federation]", 'schedule = "joint"')),
        ({"right": 40, "not_in_corpus": 50, "not_used": 10}, "documents", ()),
        ({"right": 40, "cut": 50, "not_used": 10}, "limits", ("[rag]", "prompt_tokens = 384")),
        (
            {"right": 40, "cut": 50, "too_long": 50, "not_used": 10},
            "limits",
            ("[rag]", "answer_tokens = 48"),
        ),
    ],
)
def test_the_part_with_most_of_the_wrong_answers_is_recommended(counts, recommendation, lines):
    situation = Situation.of(tiny_config(), base=True, has_labels=True, answer_needs=40)
    advice = advise(Tally(questions=100, **counts), situation)
    assert (advice.recommendation, advice.scenario) == (recommendation, lines)


def test_a_retriever_that_would_not_pay_alone_is_trained_with_the_generator():
    """The generator answers 10 of the 50 questions that search missed even when it is given the passage."""
    advice = advise(Tally(questions=100, right=45, not_found=50, recovered=10, labelled=100, not_used=5), untouched())
    assert advice.recommendation == "both"


def test_a_search_that_would_bring_nothing_and_answers_that_run_on_are_said():
    """As untouched models do: whole sentences, stopped before they come to the point."""
    tally = Tally(questions=100, not_found=55, labelled=100, not_used=45, ran_on=40)
    retriever, generator, *_ = advise(tally, untouched()).reasons
    assert (
        "With this generator a better search alone brings nothing: given the labelled passage, 0 % match." in retriever
    )
    assert "40 % run on until they are stopped at 8 tokens, although a right answer fits." in generator


def test_each_reason_has_its_figure():
    tally = Tally(
        questions=200, right=80, not_found=90, near=60, not_used=30, labelled=200, labelled_found=80, labelled_given=150
    )
    retriever, generator, near = advise(tally, untouched()).reasons
    assert "was not found in 75 % of the wrong answers (45 % of all)" in retriever
    assert "75 % of the answers would match exactly instead of 40 %" in retriever
    assert "in 25 % of the wrong answers (15 % of all)" in generator
    assert near.startswith("Of the passages that were not found, 67 % rank among the first 5: rag.passages = 5")


def test_what_the_run_trained_already_is_trained_for_more_rounds_and_keeps_the_best():
    tally = Tally(questions=100, right=40, not_found=50, recovered=40, not_used=10)
    trained = advise(tally, Situation.of(tiny_config(federation={"rounds": 3}), has_labels=True))
    assert trained.scenario == ("[federation]", "rounds = 6", 'keep = "best"')
    generator_alone = tiny_config(federation={"schedule": "generator"})
    assert advise(tally, Situation.of(generator_alone)).scenario == ("[federation]", 'schedule = "joint"')


def test_without_labelled_passages_the_retriever_learns_from_the_generator():
    tally = Tally(questions=100, not_found=100, recovered=90)
    advice = advise(tally, Situation.of(tiny_config(), base=True, has_labels=False))
    assert advice.scenario == ("[federation]", 'schedule = "retriever"', "[retriever]", 'loss = "lsr"')


def test_a_closed_book_is_told_to_open_it():
    advice = advise(
        Tally(questions=100, not_found=100), untouched(rag={"passages": 0}, federation={"schedule": "generator"})
    )
    assert advice.reasons[0] == "Nothing is searched (rag.passages = 0), so no passage with the answer is found."
    assert advice.scenario[:2] == ("[rag]", "passages = 2")


def test_a_search_by_words_alone_is_told_to_use_the_retriever_that_learns():
    tally = Tally(questions=100, right=40, not_found=60, recovered=60)
    advice = advise(tally, untouched(rag={"search": "bm25"}, federation={"schedule": "generator"}))
    assert "Search is by words alone" in advice.reasons[0]
    assert advice.scenario[:2] == ("[rag]", 'search = "hybrid"')


@pytest.mark.parametrize("rag", [{"passages": 0}, {"passages": 2}])
@pytest.mark.parametrize("base", [True, False])
def test_the_lines_of_any_advice_are_a_scenario(rag, base):
    """Every part is named at once: each section stands once, and the settings are valid."""
    tally = Tally(questions=100, not_found=30, not_used=20, worded_otherwise=10, cut=40, too_long=10)
    config = tiny_config(rag=rag, federation={"schedule": "generator"})
    advice = advise(tally, Situation.of(config, base=base, has_labels=False, answer_needs=20))
    text = "\n".join(['name = "advised"', *advice.scenario, "[data]", 'sites = "data"'])
    advised = Config.from_toml(text)
    assert advised.rag.prompt_tokens == 2 * config.rag.prompt_tokens
    assert advised.rag.answer_tokens == 32
    assert (advised.federation.schedule, advised.retriever.loss) == ("joint", "lsr")
    assert advised.rag.passages == 2


def test_few_questions_and_passages_that_do_not_help_are_said():
    advice = advise(Tally(questions=10, right=2, closed_book=3, not_used=8), untouched())
    assert advice.reasons[-2:] == (
        "Without any passage 30 % match exactly, with passages 20 %: so far the passages do not help.",
        "These are 10 questions: so few tell little.",
    )


def test_tallies_add_up_and_come_back_from_their_counts():
    first, second = Tally(questions=3, right=1, cut=2), Tally(questions=2, not_used=2)
    both = first + second
    assert both == Tally(questions=5, right=1, cut=2, not_used=2)
    assert Tally.from_counts(both.to_json() | {"unknown": 1.0}) == both
    assert both.wrong == sum(both.of(cause) for cause in CAUSES)
