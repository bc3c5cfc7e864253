"""A federation whose retriever is no cosine model of one prompt: trained, measured and exported as the model is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tiny_federation import federate, tiny_config, write_small_sites

from fedrag.components.export import export_models
from fedrag.config.scenario import Config
from fedrag.data.chunking import chunk_passages
from fedrag.data.site_folder import load_site
from fedrag.evaluation.measure import measure_site
from fedrag.models.resident import RoundModels, resident_retriever
from fedrag.reporting.round_log import temperatures
from fedrag.types import Site


@pytest.fixture
def sites(tmp_path: Path) -> Path:
    return write_small_sites(tmp_path / "sites", a=4, b=4)


@pytest.mark.parametrize("loss", ["contrastive", "lsr"])
@pytest.mark.parametrize(("similarity", "truncate_dim"), [("dot", 0), ("cosine", 16)])
def test_it_ranks_in_the_stock_library_as_it_was_trained_and_measured_here(
    sites: Path, tmp_path: Path, made_encoder: Callable[..., str], similarity: str, truncate_dim: int, loss: str
) -> None:
    name = made_encoder(f"made-{similarity}-{loss}", {"query": "Q: ", "passage": "P: "}, similarity, normalise=False)
    config = tiny_config(
        sites,
        models={"retriever": name},
        rag={"chunk_tokens": 40, "chunk_overlap": 8},
        retriever={"loss": loss, loss: {"side": "both"}, "truncate_dim": truncate_dim, "learning_rate": 1e-2},
        federation={"rounds": 1, "schedule": "retriever"},
    )
    state, run = federate(config, tmp_path / "run")
    export_models(config, state, tmp_path / "final")
    folder = tmp_path / "final" / "retriever"
    sides = [folder / side if (folder / side).is_dir() else folder for side in ("query", "document")]
    asks, tells = (SentenceTransformer(str(side), device="cpu") for side in sides)

    site, retriever = load_site(sites / "a"), RoundModels(config, state).retriever
    assert retriever.chunk_tokens == 40
    told = run.rounds()[0]["sites"]["a"]
    used = retriever.scale("auto") if loss == "contrastive" else retriever.tau_r("auto")
    assert told["retriever.scale" if loss == "contrastive" else "retriever.tau_r"] == pytest.approx(used)
    assert temperatures(run.rounds()) == [f"{'contrastive scale' if loss == 'contrastive' else 'tau_r'} {used:g}"]

    unit = similarity == "cosine"
    texts, questions = [passage.text[:30] for passage in site.passages], [question.question for question in site.test]
    queries = asks.encode_query(questions, normalize_embeddings=unit)
    passages = tells.encode_document(texts, normalize_embeddings=unit)
    np.testing.assert_allclose(queries, retriever.encode_queries(questions), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(passages, retriever.encode_passages(texts), atol=1e-4, rtol=1e-4)
    assert asks.similarity_fn_name == similarity
    assert [m.retrieved for m in measure_site(site, "test", config, retriever, None)] == ranked_by_hand(
        asks, tells, config, site
    )


def ranked_by_hand(
    asks: SentenceTransformer, tells: SentenceTransformer, config: Config, site: Site
) -> list[tuple[str, ...]]:
    """Return the passages that the stock library ranks first, each by its best chunk of the index."""
    tokenizer = resident_retriever(config, "cpu").encoder.tokenizer
    chunks = chunk_passages(site.passages, tokenizer, config.rag.chunk_tokens, config.rag.chunk_overlap)
    vectors = tells.encode_document([chunk.text for chunk in chunks])
    found = []
    for question in site.test:
        scores = asks.similarity(asks.encode_query([question.question]), vectors)[0].tolist()
        best: dict[str, float] = {}
        for chunk, score in zip(chunks, scores, strict=True):
            best[chunk.passage_id] = max(score, best.get(chunk.passage_id, -np.inf))
        found.append(tuple(sorted(best, key=lambda name: -best[name])[: config.rag.passages]))
    return found
