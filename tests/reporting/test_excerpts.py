"""Parts of passages."""

from __future__ import annotations

from fedrag.reporting.excerpts import Excerpt, excerpt

WIDE = 400
LONG = f"{'before ' * 100}the answer{' after' * 100}"


def whole(part: Excerpt) -> str:
    return part.before + part.match + part.after


def test_a_short_passage_is_shown_whole_with_its_first_right_answer():
    assert excerpt("It ends at Eight, at eight.", ["at eight"], WIDE) == Excerpt("It ends ", "at Eight", ", at eight.")
    assert excerpt("No answer here.", ["at eight"], WIDE) == Excerpt("", "", "No answer here.")
    assert excerpt("b then a", ["a", "b"], WIDE).match == "b"


def test_a_long_passage_is_cut_around_the_answer_between_words():
    part = excerpt(LONG, ["THE ANSWER"], width=60)
    assert part.match == "the answer"
    assert part.before.startswith("… before ")
    assert part.after.endswith(" after …")
    assert 50 <= len(whole(part)) <= 66


def test_a_long_passage_without_an_answer_is_shown_from_its_beginning():
    part = excerpt(LONG, ["nothing"], width=60)
    assert whole(part).startswith("before before")
    assert whole(part).endswith("before …")


def test_a_text_without_spaces_is_cut_anywhere():
    assert excerpt("x" * 100, [], width=10) == Excerpt("", "", f"{'x' * 10} …")


def test_letters_that_change_their_length_do_not_shift_the_mark():
    """casefold makes two letters of one ß: the place of the answer is then another."""
    part = excerpt("ß ß ß then the answer.", ["the answer"], WIDE)
    assert part.match in ("", "the answer")
    assert whole(part) == "ß ß ß then the answer."
