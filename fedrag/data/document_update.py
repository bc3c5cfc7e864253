"""Takes changed documents into a site: ids stay, and labels follow what became of their passages.

The site can be loaded at any moment of the writing, and doing it again ends what was interrupted: first the passages
are written with those that go still among them, then the questions, then the passages alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedrag.data.documents.boilerplate import text_key
from fedrag.data.documents.numbering import Numbered, number_passages, source_file
from fedrag.data.importers.document_folder import CutFolder, cut_folder
from fedrag.data.importers.draft import unique_name
from fedrag.data.importers.question_table import QuestionTable
from fedrag.data.labelling import AnswerFinder
from fedrag.data.site_folder import load_site
from fedrag.data.splitting import Fractions, normalise_question, split_of
from fedrag.data.words import holds_words
from fedrag.data.writing import alone_at_site, rewrite_site
from fedrag.display import Display, Quiet
from fedrag.errors import DataError
from fedrag.types import SPLITS, Passage, Question, Site, Split


@dataclass(frozen=True, slots=True)
class Relabelled:
    """A question whose passage went, or no longer holds its answer.

    Attributes:
        id: Its id.
        question: Its text.
        labels: Where its answer stands now; empty: in no passage.
        is_dropped: Whether it was taken out, for it has neither an answer nor a passage.
    """

    id: str
    question: str
    labels: tuple[str, ...]
    is_dropped: bool = False


@dataclass(frozen=True, slots=True)
class Update:
    """What taking documents in does to a site.

    Attributes:
        site: The site afterwards.
        found: What was read.
        numbered: The passages of the documents.
        gone: The passages that went.
        kept_unread: Files that could not be read now and whose passages stay as they were.
        relabelled: Questions whose label was lost.
        n_found: Questions without a label that have one now.
        n_asked: Questions that came from the table.
    """

    site: Site
    found: CutFolder
    numbered: Numbered
    gone: tuple[Passage, ...]
    kept_unread: tuple[str, ...]
    relabelled: tuple[Relabelled, ...]
    n_found: int
    n_asked: int

    @property
    def n_kept(self) -> int:
        """Number of passages of documents that were there before."""
        return len(self.numbered.passages) - len(self.numbered.new)


def update_site(
    folder: Path,
    documents: Path,
    table: QuestionTable | None,
    fractions: Fractions,
    seed: int = 0,
    encoding: str | None = None,
    without: Path | None = None,
    display: Display = Quiet(),
) -> Update:
    """Bring a site up to date with its documents.

    Passages that no document gave stay as they are.

    Args:
        folder: The site.
        documents: The folder of all its documents, as they are now.
        table: Further questions; one that the site has already is passed over.
        fractions: Shares of the splits of new questions.
        seed: Seed of the splits.
        encoding: Encoding of plain text; None: what its byte order mark says, else UTF-8.
        without: A file to pass over, such as the table.
        display: Shows progress.

    Raises:
        DataError: The site is malformed, no document can be read, or they have nothing in common with the site.
        ConfigError: A library is not installed.
        StorageError: A file cannot be written.
    """
    load_site(folder)  # what is wrong with it is said before the documents are read
    found = cut_folder(documents, encoding, without, display)
    if not found.cuts:
        raise DataError(f"{documents}: no document in it can be read, so {folder} stays as it is")
    with alone_at_site(folder):
        update = plan_update(load_site(folder), found, table, fractions, seed)
        if update.gone and not update.n_kept:
            raise DataError(
                f"{documents}: no passage of {folder} stands in these documents, so it stays as it is; is this the "
                "right folder? fedrag data import documents makes a new site"
            )
        rewrite_site(folder, update.site, update.gone)
    return update


def plan_update(
    before: Site, found: CutFolder, table: QuestionTable | None, fractions: Fractions, seed: int = 0
) -> Update:
    """Return what a site becomes with the passages of its documents as they are now; see `update_site`."""
    unread = {source_file(p.source) for p in before.passages} & found.read.unread.keys()
    of_documents = [p for p in before.passages if source_file(p.source) and source_file(p.source) not in unread]
    from_documents = {passage.id for passage in of_documents}
    others = [passage for passage in before.passages if passage.id not in from_documents]
    texts = {text_key(passage.text) for passage in others}
    cuts = [cut for cut in found.cuts if text_key(cut.text) not in texts]
    numbered = number_passages(cuts, of_documents, [passage.id for passage in others])
    after = (*others, *numbered.passages)
    ids = {passage.id for passage in after}
    gone = tuple(passage for passage in of_documents if passage.id not in ids)
    labels = LabelFollower(before.passages, after)
    splits = {split: [labels.follow(question) for question in before.split(split)] for split in SPLITS}
    relabelled = [followed.lost for split in SPLITS for followed in splits[split] if followed.lost]
    questions = {split: [f.question for f in splits[split] if not (f.lost and f.lost.is_dropped)] for split in SPLITS}
    n_asked = _add(questions, labels.finder, table, before.name, fractions, seed) if table else 0
    train, validation, test = (tuple(questions[split]) for split in SPLITS)
    unanswered = tuple(labels.follow(question).question for question in before.unanswered)
    site = replace(before, passages=after, train=train, validation=validation, test=test, unanswered=unanswered)
    n_found = sum(followed.is_found for split in SPLITS for followed in splits[split])
    return Update(site, found, numbered, gone, tuple(sorted(unread)), tuple(relabelled), n_found, n_asked)


@dataclass(frozen=True, slots=True)
class Followed:
    """A question after the update, what it lost, and whether its answer was found for the first time."""

    question: Question
    lost: Relabelled | None = None
    is_found: bool = False


class LabelFollower:
    """Follows the labels of questions from the passages before to those after."""

    def __init__(self, before: Sequence[Passage], after: Sequence[Passage]) -> None:
        self._before = {passage.id: passage for passage in before}
        self._after = {passage.id: passage for passage in after}
        self.finder = AnswerFinder(after)

    def follow(self, question: Question) -> Followed:
        """Return a question with the labels that still hold, or else with those of where its answer stands now."""
        kept = tuple(label for label in question.passage_ids if self._holds(question, label))
        negatives = tuple(label for label in question.hard_negative_ids if label in self._after and label not in kept)
        question = replace(question, hard_negative_ids=negatives)
        if question.passage_ids and len(kept) == len(question.passage_ids):
            return Followed(question)
        if kept:
            return Followed(replace(question, passage_ids=kept))
        found = tuple(self.finder.find(question.question, question.answers))
        negatives = tuple(label for label in negatives if label not in found)
        now = replace(question, passage_ids=found, hard_negative_ids=negatives)
        if not question.passage_ids:
            return Followed(now, is_found=bool(found))
        return Followed(now, Relabelled(now.id, now.question, found, is_dropped=not (found or now.answers)))

    def _holds(self, question: Question, label: str) -> bool:
        """Return whether a label is as right as it was: the passage is there, and has lost none of the answers."""
        if label not in self._after:
            return False
        before, after = self._before[label].text, self._after[label].text
        stood = [answer for answer in question.answers if holds_words(before, answer)]
        return before == after or not stood or any(holds_words(after, answer) for answer in stood)


def _add(
    questions: dict[Split, list[Question]],
    finder: AnswerFinder,
    table: QuestionTable,
    name: str,
    fractions: Fractions,
    seed: int,
) -> int:
    """Add the questions of a table that are not there yet, and return how many."""
    known = {normalise_question(question.question) for listed in questions.values() for question in listed}
    taken = {question.id for listed in questions.values() for question in listed}
    new = [row for row in table.questions if normalise_question(row.question) not in known]
    for row in new:
        identity = unique_name(f"{name}-q{len(taken) + 1}", taken)
        taken.add(identity)
        question = Question(identity, row.question, row.answers, tuple(finder.find(row.question, row.answers)))
        questions[split_of(row.question, fractions, seed)].append(question)
    return len(new)
