"""The retriever's training examples: labelled pairs, hard negatives, and candidates with answer scores."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fedrag.config.rag_settings import RagConfig
from fedrag.config.training_settings import ContrastiveConfig, LsrConfig
from fedrag.data.chunking import chunk_passages, chunk_spans
from fedrag.data.questions import question_key
from fedrag.data.words import holds_words
from fedrag.models.generator import Generator
from fedrag.models.retriever import Retriever
from fedrag.rag.pipeline import prompt_builder
from fedrag.rag.window import shown_hits
from fedrag.retrieval.index import PassageIndex, Ranking
from fedrag.types import Array, Example, Hit, Passage, Question


@dataclass(frozen=True, slots=True)
class PassageText:
    """The text that represents a passage in a training step, usually one of its chunks."""

    passage_id: str
    text: str


@dataclass(frozen=True, slots=True)
class RetrieverExample:
    """A question with the inputs of both losses; each loss skips questions without its inputs.

    Attributes:
        question: The query.
        right_ids: All passages of the site that are labelled for this question text.
        positive: A labelled passage (contrastive).
        hard_negatives: Passages that the site names as such, then retrieved ones that are not labelled (contrastive).
        candidates: Retrieved passages (LSR).
        answer_scores: Mean log-probability of the answer given each candidate (LSR).
    """

    question: str
    right_ids: frozenset[str] = frozenset()
    positive: PassageText | None = None
    hard_negatives: tuple[PassageText, ...] = ()
    candidates: tuple[PassageText, ...] = ()
    answer_scores: tuple[float, ...] = ()


def labelled_examples(
    retriever: Retriever,
    questions: Sequence[Question],
    passages: Sequence[Passage],
    overlap: int,
    train_tokens: int = 0,
) -> list[RetrieverExample]:
    """Return one example for each question and labelled passage, with the hard negatives that the site names.

    The first chunk that contains an answer represents a long passage, the first chunk a passage that the question
    names as a hard negative.

    Args:
        retriever: Says how large a chunk is.
        questions: The site's training questions.
        passages: The site's passages.
        overlap: Tokens that neighbouring chunks of the index share.
        train_tokens: Most tokens of a text, special tokens included; 0: the chunks are those of the index.
    """
    labelled = {i for question in questions for i in question.passage_ids + question.hard_negative_ids}
    size = size_in_training(retriever, train_tokens)
    chunks: dict[str, list[str]] = defaultdict(list)
    used = [passage for passage in passages if passage.id in labelled]
    overlap = overlap if size == retriever.chunk_tokens else size // 4
    for chunk in chunk_passages(used, retriever.encoder.tokenizer, size, overlap):
        chunks[chunk.passage_id].append(chunk.text)
    right = right_passages(questions)
    return [
        RetrieverExample(
            question.question,
            right[question_key(question.question)],
            PassageText(passage_id, chunk_with_answer(chunks[passage_id], question.answers)),
            tuple(
                PassageText(wrong, chunks[wrong][0])
                for wrong in question.hard_negative_ids
                if wrong not in right[question_key(question.question)]
            ),
        )
        for question in questions
        for passage_id in question.passage_ids
    ]


def size_in_training(retriever: Retriever, train_tokens: int) -> int:
    """Return the most tokens of a passage's text that the contrastive loss reads."""
    return (
        min(train_tokens - retriever.special_tokens, retriever.chunk_tokens) if train_tokens else retriever.chunk_tokens
    )


def draw_hard_negatives(examples: Sequence[RetrieverExample], most: int, seed: int) -> list[RetrieverExample]:
    """Return examples with at most so many of the hard negatives that the site names, drawn with the seed."""
    chance = random.Random(seed)
    return [
        replace(example, hard_negatives=tuple(chance.sample(example.hard_negatives, most)))
        if len(example.hard_negatives) > most
        else example
        for example in examples
    ]


def right_passages(questions: Sequence[Question]) -> dict[str, frozenset[str]]:
    """Return, by question text, all passages that are labelled for it; a question may occur several times."""
    right: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        right[question_key(question.question)].update(question.passage_ids)
    return {key: frozenset(ids) for key, ids in right.items()}


def add_hard_negatives(
    examples: Sequence[RetrieverExample],
    queries: Array,
    index: PassageIndex,
    config: ContrastiveConfig,
    shorten: Callable[[str], str] = str,
) -> list[RetrieverExample]:
    """Fill up the hard negatives of each example with the best retrieved passages that are not labelled for it.

    Those that the site names stay, whatever their similarity and number. Of a passage, its best chunk is added.

    Args:
        examples: Labelled examples.
        queries: Vector of each example's question (examples, dim).
        index: Holds the vectors and texts of the chunks.
        config: Up to which number they are filled up, and by how much retrieved ones must be less similar than the
            labelled one.
        shorten: Cuts a chunk to the size of the labelled passages.
    """
    margin = config.hard_negative_margin
    found = index.hard_negatives(
        queries,
        config.hard_negatives,
        [example.positive.passage_id if example.positive else "" for example in examples],
        [example.right_ids | {text.passage_id for text in example.hard_negatives} for example in examples],
        lambda positive: positive - margin * abs(positive) if margin else math.inf,
    )

    def filled(example: RetrieverExample, hits: Sequence[Hit]) -> RetrieverExample:
        room = max(0, config.hard_negatives - len(example.hard_negatives))
        retrieved = tuple(PassageText(hit.passage_id, shorten(index.texts[hit.chunk])) for hit in hits[:room])
        return replace(example, hard_negatives=example.hard_negatives + retrieved)

    return [filled(example, hits) for example, hits in zip(examples, found, strict=True)]


def shortener(retriever: Retriever, train_tokens: int) -> Callable[[str], str]:
    """Return a function that cuts a chunk of the index to the size of the texts in the contrastive loss."""
    size, tokenizer = size_in_training(retriever, train_tokens), retriever.encoder.tokenizer
    if size == retriever.chunk_tokens:
        return str

    def shorten(text: str) -> str:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        start, end = chunk_spans(text, encoded["offset_mapping"], size, overlap=0)[0]
        return text[start:end]

    return shorten


def lsr_pairs(
    generator: Generator,
    questions: Sequence[Question],
    candidates: Sequence[Sequence[Hit]],
    passages: Mapping[str, Passage],
    index: PassageIndex,
    config: RagConfig,
) -> list[Example]:
    """Tokenise every question, with its first answer, once for each of its candidates in the index."""
    builder = prompt_builder(generator, config)
    pairs: list[Example] = []
    for question, hits in zip(questions, candidates, strict=True):
        answer = builder.answer(question.answers[0], end=False)
        for shown in shown_hits(hits, passages, index):
            pairs.append(builder.example(question.question, [shown], answer))
    return pairs


def scored_examples(
    questions: Sequence[Question],
    candidates: Sequence[Sequence[Hit]],
    scores: Sequence[float],
    index: PassageIndex,
) -> list[RetrieverExample]:
    """Return one LSR example for each question; `scores` has those of all candidates, question after question."""
    examples: list[RetrieverExample] = []
    start = 0
    for question, hits in zip(questions, candidates, strict=True):
        part = tuple(float(score) for score in scores[start : start + len(hits)])
        start += len(hits)
        texts = tuple(_text_of(hit, index) for hit in hits)
        examples.append(RetrieverExample(question.question, candidates=texts, answer_scores=part))
    return examples


def merge_examples(labelled: Sequence[RetrieverExample], scored: Sequence[RetrieverExample]) -> list[RetrieverExample]:
    """Merge the scores of a question into its labelled example, so that both losses use it in the same batch."""
    waiting: dict[str, list[RetrieverExample]] = defaultdict(list)
    for example in scored:
        waiting[example.question].append(example)
    merged: list[RetrieverExample] = []
    for example in labelled:
        same = waiting[example.question]
        found = same.pop(0) if same else RetrieverExample(example.question)
        merged.append(replace(example, candidates=found.candidates, answer_scores=found.answer_scores))
    return merged + [example for examples in waiting.values() for example in examples]


def share_labels(examples: Sequence[RetrieverExample]) -> list[RetrieverExample]:
    """Count as right, for every example, what is labelled for its question text in any of them.

    They may come from several sites whose data is pooled; of one site they stay as they are.
    """
    right: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        right[question_key(example.question)].update(example.right_ids)
    return [replace(example, right_ids=frozenset(right[question_key(example.question)])) for example in examples]


def choose_candidates(ranking: Ranking, config: LsrConfig) -> list[Hit]:
    """Return the top candidates; if the scenario says so, the labelled passages replace the last of them.

    Args:
        ranking: At least the top candidates, and the places of the labelled passages.
        config: How many candidates there are.
    """
    if not config.include_labelled:
        return list(ranking.best[: config.candidates])
    labelled = {hit.passage_id for hit in ranking.placed}
    others = [hit for hit in ranking.best if hit.passage_id not in labelled]
    return [*others[: max(0, config.candidates - len(labelled))], *ranking.placed]


def draw_questions(questions: Sequence[Question], limit: int, seed: int) -> list[Question]:
    """Return at most `limit` questions (0: all), drawn with the seed, in their original order."""
    if not limit or limit >= len(questions):
        return list(questions)
    rows = sorted(random.Random(seed).sample(range(len(questions)), limit))
    return [questions[row] for row in rows]


def chunk_with_answer(chunks: Sequence[str], answers: Sequence[str]) -> str:
    """Return the first chunk that holds an answer, else the first of all."""
    return next((chunk for chunk in chunks if any(holds_words(chunk, answer) for answer in answers)), chunks[0])


def _text_of(hit: Hit, index: PassageIndex) -> PassageText:
    return PassageText(hit.passage_id, index.texts[hit.chunk])
