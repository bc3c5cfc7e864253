"""Which passages the prompts of the generator's training show.

Those that were found, as when it answers later. At times the labelled ones are left out, so that it learns what to do
without (RAFT, Zhang et al. 2024); and where retrieval missed them, they may be shown all the same.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence

from fedrag.config.scenario import Config
from fedrag.models.retriever import Retriever
from fedrag.rag.pipeline import retrieve
from fedrag.rag.window import Shown, shown_hits, shown_passage
from fedrag.retrieval.index import PassageIndex
from fedrag.training.retriever_examples import chunk_with_answer
from fedrag.types import Hit, Passage, Question, Site


def passages_to_find(config: Config, questions: Sequence[Question]) -> int:
    """Return how many passages to retrieve: some more where others take the place of those that are left out."""
    spare = max((len(question.passage_ids) for question in questions), default=0)
    return config.rag.passages + (spare if config.generator.raft_drop else 0)


def find_training_passages(
    retriever: Retriever, index: PassageIndex, site: Site, config: Config, seed: int
) -> list[list[Shown]]:
    """Search for the answered questions of a site, and return the passages that training shows with each.

    Args:
        retriever: Encodes the questions, in its current state.
        index: The site's passages.
        site: The site.
        config: The scenario.
        seed: Seed of the choice of questions whose labelled passages are left out.
    """
    asked = [question.question for question in site.answered]
    hits = retrieve(retriever, index, asked, passages_to_find(config, site.answered))
    by_id = {passage.id: passage for passage in site.passages}
    return training_passages(site.answered, hits, by_id, index, config, seed)


def training_passages(
    questions: Sequence[Question],
    hits: Sequence[Sequence[Hit]],
    passages: Mapping[str, Passage],
    index: PassageIndex,
    config: Config,
    seed: int,
) -> list[list[Shown]]:
    """Return the passages of each question's prompts, `rag.passages` of them where there are as many.

    Args:
        questions: Training questions.
        hits: Passages found for each question, best first, `passages_to_find` of them.
        passages: The site's passages by id.
        index: In which they were found.
        config: Says whether labelled passages are left out, or shown where they were missed.
        seed: Seed of the choice of questions whose labelled passages are left out.
    """
    chance, most = random.Random(seed), config.rag.passages
    shown: list[list[Shown]] = []
    chunks = _chunks_of(questions, index) if config.rag.include_labelled else {}
    for question, found in zip(questions, hits, strict=True):
        labelled = question.passage_ids
        if chance.random() < config.generator.raft_drop:
            found, labelled = [hit for hit in found if hit.passage_id not in labelled], ()
        kept, missed = _places(found[:most], labelled, most) if config.rag.include_labelled else (found[:most], [])
        missing = [shown_passage(passages[one], chunk_with_answer(chunks[one], question.answers)) for one in missed]
        shown.append(shown_hits(kept, passages, index) + missing)
    return shown


def _places(found: Sequence[Hit], labelled: Sequence[str], most: int) -> tuple[list[Hit], list[str]]:
    """Return the hits that stay, and the labelled passages that take the places of the last ones without a label."""
    right = [hit for hit in found if hit.passage_id in labelled]
    missed = [one for one in labelled if one not in {hit.passage_id for hit in right}][: most - len(right)]
    n_others = most - len(right) - len(missed)
    others = [hit for hit in found if hit.passage_id not in labelled][:n_others]
    return [hit for hit in found if hit in right or hit in others], missed


def _chunks_of(questions: Sequence[Question], index: PassageIndex) -> dict[str, list[str]]:
    """Return the chunks of every labelled passage."""
    labelled = {passage_id for question in questions for passage_id in question.passage_ids}
    chunks: dict[str, list[str]] = defaultdict(list)
    for passage_id, text in zip(index.passage_ids, index.texts, strict=True):
        if passage_id in labelled:
            chunks[passage_id].append(text)
    return chunks
