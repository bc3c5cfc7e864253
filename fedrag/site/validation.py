"""A site's measure of the global state on its own validation questions: sums and counts leave, nothing else."""

from __future__ import annotations

from fedrag.evaluation.ranking import reciprocal_rank
from fedrag.federation.messages import Reply, Request
from fedrag.models.resident import RoundModels
from fedrag.rag.answer_scores import score_answers
from fedrag.rag.pipeline import build_index, retrieve
from fedrag.site.steps import Workbench
from fedrag.training.ralt import answer_examples


def validate_site(bench: Workbench, request: Request) -> Reply:
    """Return sums over the site's validation questions.

    For the generator the log-probability of the answers and their number of tokens; for the retriever
    the reciprocal ranks of the first labelled passage and the number of labelled questions.
    """
    site, config = bench.site, bench.config
    if not site.validation:
        return Reply(refusal="no-examples")
    models = RoundModels(config, request.state)
    index = build_index(models.retriever, site.passages, config.rag.chunk_overlap)
    texts = [question.question for question in site.validation]
    hits = retrieve(models.retriever, index, texts, len(index))
    metrics: dict[str, float] = {}
    if "retriever" in request.components:
        ranks = [
            reciprocal_rank([hit.passage_id for hit in found], question.passage_ids)
            for question, found in zip(site.validation, hits, strict=True)
            if question.passage_ids
        ]
        metrics |= {"retriever.sum": float(sum(ranks)), "retriever.count": len(ranks)}
    if "generator" in request.components:
        passages = {passage.id: passage for passage in site.passages}
        shown = [found[: config.rag.passages] for found in hits]
        examples = answer_examples(models.generator, site.validation, shown, passages, config.rag, 0.0, 0)
        means = score_answers(models.generator, examples, config.evaluation.batch_tokens)
        total = sum(float(mean) * len(example.answer) for mean, example in zip(means, examples, strict=True))
        metrics |= {"generator.sum": total, "generator.count": sum(len(example.answer) for example in examples)}
    return Reply(metrics=metrics)
