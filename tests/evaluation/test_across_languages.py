"""Questions over the passages of sites in other languages: which are asked, and what is refused."""

from __future__ import annotations

import pytest

from fedrag.errors import DataError
from fedrag.evaluation.across_languages import over_other_languages
from fedrag.types import Passage, Question, Site


def site(name: str, language: str, *passages: str, **splits: tuple[Question, ...]) -> Site:
    texts = tuple(Passage(identity, f"{identity} as {name} says it") for identity in passages)
    return Site(name, texts, language=language, **splits)


def asked(identity: str, *labels: str) -> Question:
    return Question(identity, f"{identity}?", ("so",), labels)


def test_each_direction_is_a_site_and_questions_stay_in_their_splits() -> None:
    vi = site("vi", "vi", "a", "b", train=(asked("q1", "a"),), test=(asked("q2", "b"),))
    en = site("en", "en", "a", "b", validation=(asked("q1", "a"),))
    first, second = over_other_languages([vi, en])
    assert (first.name, first.passages, first.language) == ("vi over en", en.passages, "en")
    assert (first.train, first.validation, first.test) == (vi.train, (), vi.test)
    assert (second.name, second.passages) == ("en over vi", vi.passages)
    assert (second.train, second.validation, second.test) == ((), en.validation, ())


def test_what_has_no_label_or_one_that_is_not_there_is_not_asked() -> None:
    test = (asked("none"), asked("both", "a", "b"), asked("half", "a", "c"), asked("other", "c"))
    (crossed,) = over_other_languages([site("vi", "vi", "a", "b", "c", test=test), site("en", "en", "a", "b")])
    assert [question.id for question in crossed.test] == ["both"]
    assert crossed.unanswered == ()


def test_sites_of_one_language_and_those_that_share_nothing_are_no_pair() -> None:
    vi, near = site("vi", "vi", "a", test=(asked("q1", "a"),)), site("near", "vi", "a", test=(asked("q2", "a"),))
    far = site("far", "en", "z", test=(asked("q3", "z"),))
    with pytest.raises(DataError, match="no passage is at two sites of different languages"):
        over_other_languages([vi, near, far])
    en = site("en", "en", "a")
    assert [each.name for each in over_other_languages([vi, near, far, en])] == ["vi over en", "near over en"]


def test_languages_with_no_common_question_are_refused() -> None:
    unlabelled = site("vi", "vi", "a", test=(asked("q1"),))
    with pytest.raises(DataError, match="by its id, with a question that names it"):
        over_other_languages([unlabelled, site("en", "en", "a", test=(asked("q2"),))])


def test_a_site_that_does_not_say_its_language_is_named() -> None:
    vi = site("vi", "vi", "a", test=(asked("q1", "a"),))
    with pytest.raises(DataError, match=r"^copy, old: not said in which language; .* such as {\"language\": \"vi\"}$"):
        over_other_languages([vi, site("copy", "", "a"), site("old", "", "a")])
