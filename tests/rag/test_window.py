"""Windows: the part that was found is in the prompt, and prompts on the same part begin alike."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoTokenizer

from fedrag.config.rag_settings import RagConfig
from fedrag.rag.prompt import PromptBuilder
from fedrag.rag.window import WINDOW_STEP, PassageReader, Shown, shown_hits, shown_passage
from fedrag.retrieval.index import PassageIndex
from fedrag.types import Hit, Passage
from fedrag.weights.store import find_model

STAIRS = " ".join(f"Step {number} of the tower stairs creaks." for number in range(200))
FACT = "The miller hides his spare key under the third hive."
LONG = Passage("tower", f"{STAIRS} {FACT} {STAIRS}", "The old mill")
SHORT = Passage("menu", "Soup is served at noon.")


def letters(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def window(shown: Shown, limit: int, most: int = 10_000) -> str:
    return "".join(map(chr, PassageReader(letters, "Passage: ", most).within(shown, limit)))


def test_a_passage_that_fits_is_shown_as_it_is():
    text = f"Passage: {LONG.full_text}\n\n"
    assert window(shown_passage(LONG, FACT), len(text)) == text


@pytest.mark.parametrize("part", [FACT, f"The old mill\n{FACT}"])
def test_a_window_holds_the_part_with_as_much_before_as_after_it(part):
    text = window(shown_passage(LONG, part), 256)
    title, _, body = text.removesuffix("\n\n").partition("\n")
    assert (len(text), title) == (256, "Passage: The old mill")
    before, _, after = body.partition(FACT)
    assert abs(len(before) - len(after)) <= 1
    assert before in LONG.text
    assert after in LONG.text


def test_at_the_ends_of_a_passage_a_window_grows_to_the_other_side():
    first, last = (shown_passage(LONG, part) for part in (STAIRS[:30], STAIRS[-30:]))
    assert window(first, 256) == f"Passage: The old mill\n{LONG.text[: 256 - 24]}\n\n"
    last = Shown(last.text, last.head, len(last.text) - 30, len(last.text))
    assert window(last, 256) == f"Passage: The old mill\n{LONG.text[24 - 256 :]}\n\n"


def test_of_a_part_that_is_longer_than_the_window_the_beginning_is_shown():
    assert window(shown_passage(LONG, f"{FACT} {STAIRS}"), 96) == f"Passage: The old mill\n{FACT} {STAIRS[:19]}\n\n"


def test_a_part_that_does_not_fit_has_the_room_to_the_last_token():
    """Up to 15 tokens were left unused, of a part of which too little can be shown anyway."""
    shown = shown_passage(LONG, f"{FACT} {STAIRS}")
    for limit in range(96, 96 + WINDOW_STEP):
        assert window(shown, limit) == f"Passage: The old mill\n{FACT} {STAIRS[: 19 + limit - 96]}\n\n"


def test_a_part_that_just_fits_is_shown_whole():
    shown = shown_passage(LONG, FACT)
    around = len("Passage: The old mill\n\n\n")
    for limit in range(around + len(FACT), around + len(FACT) + WINDOW_STEP):
        assert FACT in window(shown, limit)


def test_a_title_without_room_is_left_out_and_the_part_is_not():
    titled = Passage("p", LONG.text, "A title that goes on and on and on and on and on")
    assert window(shown_passage(titled, FACT), 64) == f"Passage: {FACT} \n\n"


def test_limits_that_differ_by_less_than_a_step_leave_the_same_window():
    shown = shown_passage(LONG, FACT)
    assert len({window(shown, limit) for limit in range(256, 256 + WINDOW_STEP)}) == 1
    assert all(len(window(shown, limit)) <= limit for limit in range(1, 300))


def test_of_a_huge_passage_only_the_surroundings_of_the_part_are_tokenised():
    read: list[int] = []

    def counted(text: str) -> list[int]:
        read.append(len(text))
        return letters(text)

    shown = shown_passage(Passage("huge", f"{STAIRS * 100}{FACT}{STAIRS * 100}"), FACT)
    reader = PassageReader(counted, "Passage: ", 100)
    assert FACT in "".join(map(chr, reader.within(shown, 96)))
    assert max(read) < 5000 < len(shown.text)


def test_a_part_that_is_not_in_the_passage_shows_its_beginning():
    assert shown_passage(LONG, "no such words").start == len("The old mill\n")
    assert shown_passage(SHORT) == Shown(SHORT.text)


def test_hits_are_shown_with_their_chunks():
    chunks = [("tower", f"The old mill\n{STAIRS}"), ("tower", f"The old mill\n{FACT}"), ("menu", SHORT.text)]
    index = PassageIndex([one for one, _ in chunks], [text for _, text in chunks], np.eye(3, dtype=np.float32))
    first, second = shown_hits([Hit("menu", 0.9, 2), Hit("tower", 0.8, 1)], {"tower": LONG, "menu": SHORT}, index)
    assert first == Shown(SHORT.text, end=len(SHORT.text))
    assert second.text[second.start : second.end] == FACT


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
@pytest.mark.usefixtures("tiny_home")
def test_questions_on_the_same_chunk_share_what_they_begin_with(kind):
    tokenizer = AutoTokenizer.from_pretrained(find_model(f"fedrag/tiny-{kind}").folder)
    builder = PromptBuilder(tokenizer, RagConfig(instruction="Answer."), seq2seq=kind == "seq2seq")
    passages = [shown_passage(LONG, FACT), shown_passage(SHORT)]
    examples = [builder.example("Where is the key?"[:letters], passages) for letters in range(1, 17)]
    assert all(FACT in tokenizer.decode(example.prompt) for example in examples)
    beginnings = {tuple(example.prompt[:600]) for example in examples}
    assert len(beginnings) <= 2, "sixteen lengths of question lie in at most two steps of the window's size"
    assert len({(example.first_prefix, example.shared) for example in examples}) <= 2
