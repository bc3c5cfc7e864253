"""Examples of questions, with the passages and answers before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedrag.data.questions import distinct_questions
from fedrag.data.site_folder import hash_site, load_site, site_folders, site_name
from fedrag.errors import DataError
from fedrag.evaluation.records import Measured
from fedrag.languages.catalogue import ENGLISH, Words
from fedrag.reporting.choice import Pair, by_site, chosen, kinds
from fedrag.reporting.excerpts import Excerpt, excerpt
from fedrag.runs.run_folder import RunFolder
from fedrag.types import SPLITS, Passage, Question, Site

WIDTH = 420  # characters of a passage that are shown


@dataclass(frozen=True, slots=True)
class Texts:
    """A site's measured questions and its passages by their ids."""

    questions: dict[str, Question]
    passages: dict[str, Passage]


@dataclass(frozen=True, slots=True)
class Source:
    """A retrieved passage: its title or id, whether it is labelled as right, and an excerpt of its text."""

    title: str
    is_labelled: bool
    excerpt: Excerpt


@dataclass(frozen=True, slots=True)
class ShownQuestion:
    """A question with what was retrieved and answered; `before` is None where nothing was measured before."""

    title: str
    question: str
    answers: tuple[str, ...]
    before: str | None
    after: str | None
    sources_before: list[Source] | None
    sources_after: list[Source]


@dataclass(frozen=True, slots=True)
class Block:
    """The examples of a site.

    Attributes:
        site: Its name.
        counts: Number of questions by what became of them.
        examples: The questions to show.
        gone: Why no text can be shown, or None.
    """

    site: str
    counts: dict[str, int]
    examples: list[ShownQuestion]
    gone: str | None = None


def example_blocks(
    arms: Mapping[str, Sequence[Measured]], texts_of: Callable[[str], Texts], words: Words = ENGLISH
) -> list[Block]:
    """Return a block for each site that was measured with the federated models.

    Args:
        arms: The records of each arm.
        texts_of: Returns the texts of a site by its name; a DataError says why there are none.
        words: The language of the titles.
    """
    before = arms.get("untouched")
    titles = kinds(before is not None, words)
    blocks = []
    for site, pairs in by_site(before, arms.get("federated", ())).items():
        counts = {title: len(pairs[kind]) for kind, title in titles.items()}
        try:
            texts = texts_of(site)
        except DataError as error:
            blocks.append(Block(site, counts, [], str(error)))
            continue
        shown = chosen(pairs, before is not None)
        blocks.append(Block(site, counts, [_example(titles[kind], pair, texts) for kind, pair in shown.items()]))
    return blocks


def _example(title: str, pair: Pair, texts: Texts) -> ShownQuestion:
    question = texts.questions[pair.after.question_id]

    def source(passage: Passage) -> Source:
        labelled = passage.id in question.passage_ids
        return Source(passage.title or passage.id, labelled, excerpt(passage.text, question.answers, WIDTH))

    def sources(measured: Measured) -> list[Source]:
        return [source(texts.passages[passage_id]) for passage_id in measured.retrieved]

    return ShownQuestion(
        title,
        question.question,
        question.answers,
        pair.before.answer if pair.before else None,
        pair.after.answer,
        sources(pair.before) if pair.before else None,
        sources(pair.after),
    )


def read_texts(run: RunFolder, site: str) -> Texts:
    """Read the questions and passages of a site that was measured.

    Raises:
        DataError: They are missing, or no longer what the run used.
    """
    folders = {site_name(folder): folder for folder in site_folders(Path(run.config.data.sites))}
    if site not in folders:
        raise DataError(f"{run.config.data.sites}: no site {site}")
    if run.facts.get("data", {}).get(site) not in (None, hash_site(folders[site])):
        raise DataError(f"{folders[site]}: has changed since the run")
    return texts_of_site(load_site(folders[site]), run.config.evaluation.split)


def texts_of_site(site: Site, split: str) -> Texts:
    """Return the texts of a site.

    Args:
        site: The site.
        split: The questions that were measured: a split, or "all".
    """
    asked = [q for name in SPLITS if split in (name, "all") for q in site.split(name)]
    return Texts({q.id: q for q in distinct_questions(asked)}, {p.id: p for p in site.passages})
