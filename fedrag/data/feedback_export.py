"""Turns the feedback that a reviewer accepted into training questions of its site, each once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedrag.data.feedback_row import Feedback
from fedrag.data.feedback_store import FeedbackStore
from fedrag.data.questions import distinct_questions, question_key
from fedrag.data.site_folder import load_site
from fedrag.data.splitting import normalise_question
from fedrag.data.words import holds_words
from fedrag.data.writing import alone_at_site, append_training
from fedrag.types import Passage, Question, Site


@dataclass(frozen=True, slots=True)
class Export:
    """What an export did.

    Attributes:
        added: The new training questions.
        known: Questions of which train.jsonl had all before.
        held_out: Questions that stand in validation or test, and therefore stay out of training.
        lacking: Questions whose right passages are gone and that have no answer.
        disputed: Added questions for which train.jsonl has another answer.
    """

    added: tuple[Question, ...] = ()
    known: tuple[Question, ...] = ()
    held_out: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    disputed: tuple[Question, ...] = ()


def export_feedback(folder: Path) -> Export:
    """Add what a reviewer accepted to a site's train.jsonl; a second time there is nothing left to add.

    What a person said twice is one question. A question that is measured is not trained on: the same question is on
    the same side everywhere.

    Args:
        folder: The site's data folder.

    Raises:
        DataError: The site's data is malformed, or another process adds questions to it.
        StorageError: Its files cannot be written.
    """
    store = FeedbackStore(folder)
    if not store.path.exists():
        load_site(folder)  # what is wrong with the site is told all the same
        return Export()
    with alone_at_site(folder):
        return _export(load_site(folder), store)


def _export(site: Site, store: FeedbackStore) -> Export:
    passages = {passage.id: passage for passage in site.passages}
    measured = {normalise_question(question.question) for question in site.validation + site.test}
    before: dict[str, list[Question]] = defaultdict(list)
    for question in site.train:
        before[question_key(question.question)].append(question)
    fresh: list[Question] = []
    known: list[Question] = []
    held_out: list[str] = []
    lacking: list[str] = []
    with store.exporting() as (rows, exported):
        for row in rows:
            learned = training_question(row, passages)
            if normalise_question(row.question) in measured:
                held_out.append(row.question)
                continue
            if learned is None:
                lacking.append(row.question)
                continue
            is_known = any(_says_all(other, learned) for other in before[question_key(row.question)])
            (known if is_known else fresh).append(learned)
            exported.append(row.id)
        added = tuple(distinct_questions(fresh))
        if added:
            append_training(store.folder, added)
    return Export(added, tuple(known), tuple(held_out), tuple(lacking), tuple(_disputed(added, before)))


def training_question(row: Feedback, passages: Mapping[str, Passage]) -> Question | None:
    """Return what there is to learn from a row; None where its passages are gone and it has no answer.

    A shown passage is wrong where the person said so, or picked another one and it does not hold the answer.

    Args:
        row: The feedback.
        passages: The site's passages by id; what is no longer among them is left out.
    """
    answers = (row.right_answer,) if row.right_answer else ()
    right = tuple(identity for identity in row.right_ids if identity in passages)
    if not answers and not right:
        return None
    beside = row.shown if right and answers else ()
    wrong = dict.fromkeys(
        (*row.wrong_ids, *(i for i in beside if i in passages and not _holds_any(passages[i].full_text, answers)))
    )
    negatives = tuple(identity for identity in wrong if identity in passages and identity not in right)
    return Question(f"feedback-{row.id}", row.question, answers, right, negatives, "feedback")


def _holds_any(text: str, answers: Iterable[str]) -> bool:
    return any(holds_words(text, answer) for answer in answers)


def _says_all(other: Question, question: Question) -> bool:
    """Return whether there is nothing to learn from a question beside another one."""
    pairs = (
        (question.answers, other.answers),
        (question.passage_ids, other.passage_ids),
        (question.hard_negative_ids, other.hard_negative_ids),
    )
    return all(set(these) <= set(those) for these, those in pairs)


def _disputed(added: Iterable[Question], before: Mapping[str, Sequence[Question]]) -> Iterator[Question]:
    for question in added:
        others = before.get(question_key(question.question), ())
        if any(set(other.answers) - set(question.answers) for other in others):
            yield question
