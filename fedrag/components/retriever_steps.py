"""The retriever: what it does. It learns which passages help, from labels, from the generator's scores, or both."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fedrag.components.model_cards import write_retriever_card
from fedrag.components.model_errors import naming_model
from fedrag.components.noised_retriever import prepare_with_noise, split_pairs
from fedrag.components.retriever_check import require_dense_encoder, try_retriever
from fedrag.components.spec import Steps
from fedrag.components.work import Prepared, TrainingTerms, Work
from fedrag.config.scenario import Config
from fedrag.errors import ConfigError
from fedrag.evaluation.ranking import reciprocal_rank
from fedrag.models.resident import RoundModels, resident_retriever
from fedrag.models.retriever import Retriever
from fedrag.rag.answer_scores import ScoreCache, score_answers
from fedrag.rag.indexing import build_index
from fedrag.rag.pipeline import encode_questions, rank
from fedrag.seeding import derive_seed
from fedrag.training.losses import Losses
from fedrag.training.negatives import teaching_questions
from fedrag.training.process_group import Group
from fedrag.training.result import OnStep, TrainingResult
from fedrag.training.retriever_examples import (
    RetrieverExample,
    add_hard_negatives,
    choose_candidates,
    draw_hard_negatives,
    draw_questions,
    labelled_examples,
    lsr_pairs,
    merge_examples,
    scored_examples,
    share_labels,
    shortener,
)
from fedrag.training.retriever_training import train_retriever
from fedrag.types import Tensors
from fedrag.weights.compute import best_device, computing_dtype
from fedrag.weights.store import FetchedModel, count_parameters

_NAME = "retriever"


def _initial_state(config: Config, seed: int) -> Tensors:
    return resident_retriever(config, "cpu").initial_state(seed)


def _prepare(work: Work) -> Prepared | None:
    """Collect what the retriever learns from in this round."""
    if work.noise:
        return prepare_with_noise(work, work.noise, _score_candidates)
    examples = share_labels([example for part in work.searches for example in _examples(part)])
    teaching = teaching_questions(examples, work.bench.config.retriever)
    if not teaching:
        return None
    return Prepared(min(len(examples), len(work.bench.site.train)), lambda: _train(work, examples), teaching)


def _examples(work: Work) -> list[RetrieverExample]:
    site, settings = work.bench.site, work.bench.config.retriever
    labelled: list[RetrieverExample] = []
    scored: list[RetrieverExample] = []
    if settings.uses_contrastive:
        retriever = work.models.retriever
        overlap, size = work.bench.config.rag.chunk_overlap, settings.train_tokens
        labelled = labelled_examples(retriever, site.train, site.passages, overlap, size)
        named, wanted = settings.contrastive.named_negatives, settings.contrastive.hard_negatives
        labelled = draw_hard_negatives(labelled, named, derive_seed(work.seed(_NAME), "hard negatives"))
        if any(len(example.hard_negatives) < wanted for example in labelled):
            queries = encode_questions(retriever, [example.question for example in labelled])
            shorten = shortener(retriever, size)
            labelled = add_hard_negatives(labelled, queries, work.index(), settings.contrastive, shorten)
    if settings.uses_lsr:
        scored = _score_candidates(work)
    return merge_examples(labelled, scored)


def _score_candidates(work: Work) -> list[RetrieverExample]:
    """Let the generator score the candidates of the site's questions, from the cache where it can."""
    bench, models = work.bench, work.models
    lsr = bench.config.retriever.lsr
    drawn = draw_questions(
        bench.site.answered, lsr.max_questions, derive_seed(bench.config.seed, bench.site.name, "lsr")
    )
    untouched = lsr.candidates_from == "untouched"
    with models.retriever.untouched() if untouched else nullcontext():
        base = (
            build_index(models.retriever, bench.site.passages, bench.config.rag.chunk_overlap, bench.indexes)
            if untouched
            else work.index().dense
        )
        found = rank(models.retriever, base, drawn, lsr.candidates)
    chosen = [choose_candidates(ranking, lsr) for ranking in found]
    generator = models.generator
    passages = {passage.id: passage for passage in bench.site.passages}
    pairs = lsr_pairs(generator, drawn, chosen, passages, base, bench.config.rag)
    with generator.untouched() if lsr.scorer == "untouched" else nullcontext():
        cache = ScoreCache(bench.scores, models.generator_key(lsr.scorer == "untouched"))
        # With noise each question is scored by itself: in a batch of several its scores would depend on the others.
        parts = [[*pairs]] if work.noise is None else split_pairs(pairs, chosen)
        scores: list[float] = []
        for part in parts:
            done = len(scores)
            scores += score_answers(
                generator,
                part,
                lsr.batch_tokens,
                cache,
                lambda now, _, before=done: bench.on_progress("score", before + now, len(pairs)),  # type: ignore[misc]
            ).tolist()
    cache.prune()
    return scored_examples(drawn, chosen, scores, base)


@dataclass(frozen=True, slots=True)
class _Training:
    """A round's training, as each of the processes that train together does it."""

    config: Config
    examples: Sequence[RetrieverExample]
    seed: int
    losses: Losses
    terms: TrainingTerms

    def __call__(
        self, group: Group, /, retriever: Retriever | None = None, on_step: OnStep | None = None
    ) -> TrainingResult:
        """Train, in a process that helps with models of its own."""
        return train_retriever(
            retriever or RoundModels(self.config, {_NAME: self.terms["received"]}).retriever,
            self.examples,
            self.config.retriever,
            seed=self.seed,
            losses=self.losses,
            on_step=on_step,
            group=group,
            **self.terms,
        )


def _train(work: Work, examples: Sequence[RetrieverExample]) -> TrainingResult:
    bench = work.bench
    training = _Training(bench.config, examples, work.seed(_NAME), bench.losses, work.terms(_NAME))
    here = partial(training, retriever=work.models.retriever, on_step=work.on_step(_NAME))
    return bench.crew.run(here, training)


def _validate(work: Work) -> tuple[float, int]:
    """Return the reciprocal ranks of the first labelled passage and the number of labelled questions."""
    ranks = [
        reciprocal_rank(ranking.ranks)
        for part in work.searches
        for question, ranking in zip(part.bench.site.validation, part.rankings(), strict=True)
        if question.passage_ids
    ]
    return float(sum(ranks)), len(ranks)


def _export(config: Config, tensors: Tensors, folder: Path) -> None:
    """Write a model for sentence-transformers, or one for each side, and how other libraries load it."""
    retriever = RoundModels(config, {_NAME: tensors}).retriever
    retriever.export(folder)
    write_retriever_card(
        folder,
        retriever.fetched,
        two_sides=retriever.has_two_sides,
        query_prompt=retriever.prompt("query") or "",
        document_prompt=retriever.prompt("document") or "",
        similarity=retriever.encoder.similarity_fn_name,
    )


def _check_base(config: Config, model: FetchedModel) -> None:
    with naming_model(model):
        require_dense_encoder(model)
        _check_chunks(config, resident_retriever(config, "cpu"))


def _check_chunks(config: Config, retriever: Retriever) -> None:
    """Require that passages can be cut into what the retriever reads."""
    name, reads = retriever.fetched.name, retriever.tokens_read
    if config.rag.chunk_tokens > reads:
        raise ConfigError(
            f"rag.chunk_tokens = {config.rag.chunk_tokens}: must be at most the {reads} tokens of a passage that "
            f"{name} reads"
        )
    if config.rag.chunk_overlap >= retriever.chunk_tokens:
        of = f"a passage that {name} reads" if retriever.chunk_tokens == reads else "a chunk"
        raise ConfigError(
            f"rag.chunk_overlap = {config.rag.chunk_overlap}: must be smaller than the {retriever.chunk_tokens} "
            f"tokens of {of}"
        )
    if config.retriever.train_tokens and config.retriever.train_tokens <= retriever.special_tokens:
        raise ConfigError(
            f"retriever.train_tokens = {config.retriever.train_tokens}: {retriever.fetched.name} adds "
            f"{retriever.special_tokens} special tokens, nothing of a passage would be left"
        )


def _base_bytes(config: Config, model: FetchedModel) -> float:
    copies = 2 if config.retriever.weights == "full" else 1  # the base is kept, to take differences from
    learner = computing_dtype(config.models.retriever_dtype, best_device())
    shorter = config.retriever.weights == "lora" and learner.itemsize < 4  # a copy to train on
    return count_parameters(model.folder) * (4 * copies + shorter * learner.itemsize)


STEPS = Steps(
    _initial_state, _prepare, _validate, _export, _check_base, _base_bytes, try_retriever, export_copies_base=True
)
