"""What is cut, counted against the prompts themselves; tokens are bytes."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from fedrag.config.rag_settings import RagConfig
from fedrag.rag.cuts import Cuts, count_cuts, sum_of_cuts
from fedrag.rag.prompt import PromptBuilder
from fedrag.types import Passage, Question, Site
from fedrag.weights.store import find_model

pytestmark = pytest.mark.usefixtures("tiny_home")

# With its label and the blank line a passage has eleven bytes more; a question has a space.
PASSAGES = tuple(Passage(f"p{size}", "x" * (size - 11)) for size in (40, 100, 100, 100, 300, 5000))


def builder_of(config: RagConfig) -> PromptBuilder:
    tokenizer = AutoTokenizer.from_pretrained(find_model("fedrag/tiny-causal").folder)
    return PromptBuilder(tokenizer, config, seq2seq=False)


def site_of(*questions: tuple[int, int, tuple[str, ...]]) -> Site:
    """Return a site with questions of (bytes, bytes of the answer, labelled passages)."""
    asked = [
        Question(str(n), "q" * (size - 1), ("a" * answer,), ids) for n, (size, answer, ids) in enumerate(questions)
    ]
    return Site("s", PASSAGES[:1] + PASSAGES[3:], train=tuple(asked[:2]), test=tuple(asked[2:]))


def config_with_room(room: int, **settings: int) -> RagConfig:
    plenty = RagConfig(instruction="Answer.", **settings)
    around = plenty.prompt_tokens - builder_of(plenty).room
    return plenty.model_copy(update={"prompt_tokens": around + room})


def test_passages_prompts_and_answers_that_do_not_fit_are_counted():
    config = config_with_room(400, passages=2, answer_tokens=8)
    site = site_of((20, 8, ("p40",)), (20, 9, ("p100",)), (20, 3, ("p5000",)), (300, 3, ("p40",)), (20, 3, ()))
    # Beside a question of 20 bytes two passages have 190 each; the median passage has 200, so a question may take 200.
    assert count_cuts(site, builder_of(config), config) == Cuts(
        passages=2, n_passages=4, prompts=2, answers=1, n_questions=5
    )


def test_a_prompt_counts_as_cut_just_where_it_is():
    config = config_with_room(400, passages=1)
    for size, cut in ((379, False), (380, False), (381, True)):
        passage = Passage("p", "x" * (size - 11))
        question = Question("q", "q" * 19, ("a",), ("p",))
        found = count_cuts(Site("s", (passage,), train=(question,)), builder_of(config), config)
        fitted = builder_of(config).fit(question.question, [passage.full_text])
        assert (found.prompts, found.passages) == (cut, cut)
        assert (len(fitted.passages[0]) < size) == cut


def test_a_closed_book_cuts_no_passage():
    config = config_with_room(100, passages=0)
    found = count_cuts(site_of((20, 3, ("p5000",)), (101, 3, ())), builder_of(config), config)
    assert found == Cuts(0, 4, 1, 0, 2)


def test_an_empty_site_and_several_sites():
    config = config_with_room(400)
    assert not count_cuts(Site("empty", ()), builder_of(config), config).any
    assert sum_of_cuts([Cuts(1, 2, 3, 4, 5), Cuts(10, 20, 30, 40, 50)]) == Cuts(11, 22, 33, 44, 55)
