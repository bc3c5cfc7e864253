"""Diagnoses one site: asks each of its questions three ways, and finds the cause of each wrong answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedrag.config.scenario import Config
from fedrag.data.questions import distinct_questions
from fedrag.diagnosis.answer_cache import AnswerCache
from fedrag.diagnosis.causes import Evidence, answer_passages, cause_of, holds_answer
from fedrag.diagnosis.diagnosed import GIVEN, Diagnosed, Given, Trial
from fedrag.diagnosis.trials import answers_of, rag_settings, scored
from fedrag.evaluation.measure import MeasuredSplit, OnProgress
from fedrag.models.resident import RoundModels
from fedrag.rag.indexing import build_index
from fedrag.rag.pipeline import Retrieved, answer_temperature, prompt_builder, prompt_groups, rank
from fedrag.rag.prompt import PromptBuilder
from fedrag.rag.window import Shown, shown_passage
from fedrag.retrieval.index import Ranking
from fedrag.types import TRAIN_ONLY, Passage, Question, Site

_IN_WORDS: dict[Given, str] = {
    "found": "what was found",
    "labelled": "the labelled passages",
    "closed_book": "nothing",
}


def diagnose_site(
    site: Site,
    split: MeasuredSplit,
    config: Config,
    models: RoundModels,
    answers: Path,
    on_progress: OnProgress = lambda what, done, total: None,
    indexes: Path | None = None,
) -> list[Diagnosed]:
    """Diagnose the questions of a split that have an answer; what a model wrote is no question to measure on.

    Args:
        site: The site.
        split: Its questions.
        config: The scenario.
        models: Generator and retriever in the state to diagnose.
        answers: The folder of cached answers.
        on_progress: Called with a description, the number done and the total.
        indexes: The folder of indexes; None: none are kept.
    """
    chosen = site.questions if split == "all" else site.split(split)
    questions = [
        question for question in distinct_questions(chosen) if question.answers and question.origin not in TRAIN_ONLY
    ]
    if not questions:
        return []
    asked = _asked(site, questions, config, models, indexes)
    generator = models.generator
    temperature = answer_temperature(
        models.retriever if config.rag.passages else None, config.rag, config.retriever.lsr.tau_r
    )
    language = site.language or config.evaluation.language
    trials: list[dict[Given, Trial]] = [{} for _ in questions]
    for given in GIVEN:
        rows = [row for row, one in enumerate(asked) if given in one.ways]
        cache = AnswerCache(answers, _key(config, models, given, temperature))
        label = f"answers of {site.name}, given {_IN_WORDS[given]}"
        told = answers_of(
            generator,
            [asked[row].ways[given] for row in rows],
            config,
            given,
            temperature,
            cache,
            lambda done, total, label=label: on_progress(label, done, total),  # type: ignore[misc]
        )
        for row, generated in zip(rows, told, strict=True):
            trials[row][given] = scored(questions[row], generated, language)
    builder = prompt_builder(generator, config.rag)
    return [
        _diagnosed(site.name, question, one, trial, builder, config, language)
        for question, one, trial in zip(questions, asked, trials, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question, the passages that hold its answer, those that were found, and the ways in which it is asked."""

    holders: frozenset[str]
    found: tuple[str, ...]
    rank: int | None
    ways: dict[Given, Retrieved]


def _asked(
    site: Site, questions: Sequence[Question], config: Config, models: RoundModels, indexes: Path | None
) -> list[_Asked]:
    passages = {passage.id: passage for passage in site.passages}
    index = None
    rankings = [Ranking((), (), ()) for _ in questions]
    if config.rag.passages:
        rag = config.rag
        index = build_index(models.retriever, site.passages, rag.chunk_overlap, indexes, rag.search)
        rankings = rank(models.retriever, index, questions, config.rag.passages)
    asked = []
    for question, ranking in zip(questions, rankings, strict=True):
        ways: dict[Given, Retrieved] = {
            "found": Retrieved.of(question.question, ranking.best, passages, index),
            "closed_book": Retrieved.of(question.question, (), passages, None),
        }
        most = max(config.rag.passages, 1)
        if index is not None and ranking.placed:
            ways["labelled"] = Retrieved.of(question.question, ranking.placed[:most], passages, index)
        elif labelled := [passages[name] for name in question.passage_ids if name in passages]:
            ways["labelled"] = _unsearched(question.question, labelled[:most])
        found = tuple(hit.passage_id for hit in ranking.best)
        holders = answer_passages(question, site.passages)
        asked.append(_Asked(holders, found, min(ranking.ranks, default=None), ways))
    return asked


def _unsearched(question: str, passages: Sequence[Passage]) -> Retrieved:
    """Return a question with passages that nobody searched for, as in a closed book."""
    return Retrieved(question, tuple(map(shown_passage, passages)), tuple(0.0 for _ in passages))


def _diagnosed(
    site: str,
    question: Question,
    asked: _Asked,
    trials: dict[Given, Trial],
    builder: PromptBuilder,
    config: Config,
    language: str,
) -> Diagnosed:
    texts, question_is_whole = _read(builder, asked.ways["found"], config)
    given = dict(zip(asked.found, texts, strict=True))
    holders = [name for name in asked.found if name in asked.holders]
    whole = dict(zip(asked.found, (shown.text for shown in asked.ways["found"].passages), strict=True))
    # Of a passage in which the answer does not stand word for word nobody can say which part of it is needed.
    shows = any(
        holds_answer(given[name], question.answers) or not holds_answer(whole[name], question.answers)
        for name in holders
    )
    needs = min(builder.answer_tokens(answer) for answer in question.answers)
    answer = trials["found"].generated
    is_too_long = needs > config.rag.answer_tokens
    cause = cause_of(
        Evidence(
            answer.text,
            question.answers,
            in_corpus=bool(asked.holders),
            found=bool(holders),
            fits=shows and question_is_whole and not is_too_long,
            language=language,
        )
    )
    in_context = any(holds_answer(text, question.answers) for text in texts)
    return Diagnosed(site, question.id, cause, in_context, asked.rank, needs, is_too_long, answer.is_stopped, trials)


def _read(builder: PromptBuilder, asked: Retrieved, config: Config) -> tuple[list[str], bool]:
    """Return what the prompts of a question show of its passages, and whether they hold the whole question."""
    texts: list[str] = []
    is_whole = True
    for _, group in prompt_groups(asked.passages, config.rag):
        passages: Sequence[Shown] = group
        fitted = builder.fit(asked.question, passages)
        texts += builder.shown_texts(fitted, passages)
        is_whole = is_whole and not fitted.cuts_question
    return texts, is_whole


def _key(config: Config, models: RoundModels, given: Given, temperature: float) -> str:
    """Return all that an answer depends on but its question and its passages."""
    rag = rag_settings(config.rag, given)
    # What does not change a prompt is left out: a question with the same passages has the same answer.
    settings = rag.model_dump_json(
        exclude={"passages", "passages_per_prompt", "chunk_tokens", "chunk_overlap", "include_labelled"}
    )
    several = 0 < rag.passages_per_prompt < rag.passages
    own = config.generator.generation_settings, config.generator.adapter_from
    prompts = (rag.passages_per_prompt, temperature) if several else bool(rag.passages)
    return "|".join(map(str, (models.generator_key(untouched=False), settings, prompts, own)))
