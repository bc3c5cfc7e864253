"""Tries a retriever before anything is trained: each thing that a run does with it, once, on three small texts.

What fedrag computes is compared with the stock library's own computation on the same files: `encode_query` and
`encode_document` of sentence-transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from fedrag.components.finding import Finding, found
from fedrag.config.scenario import Config
from fedrag.errors import ModelError
from fedrag.models.adapters import adapted_weights
from fedrag.models.encoder_settings import known_prompts, prompt_of
from fedrag.models.retriever import Retriever
from fedrag.types import Array
from fedrag.weights.compute import best_device, computing_dtype
from fedrag.weights.store import FetchedModel

TEXTS = ("When does the pool open?", "The pool opens at seven in the morning and closes at noon.", "The porter.")
_NO_LIMIT = 10**9  # tokenizers that name no limit give a far larger number
_SAME_VECTOR = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}  # 1 - cosine


def try_retriever(config: Config, fetched: FetchedModel) -> Iterator[Finding]:
    """Try a retriever; each thing is a finding, and what cannot be tried without an earlier one is left out."""
    kind = found("kind", lambda: require_dense_encoder(fetched))
    yield kind
    if not kind.is_ok:
        return
    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers gives it no types
    loaded: list[Retriever] = []
    yield found("loading", lambda: _load(config, fetched, loaded))
    if not loaded:
        return
    trial = _Trial(loaded[0])
    checks: dict[str, Callable[[], str]] = {
        "tokenizer": trial.tokenizer,
        "length": trial.length,
        "adapter": trial.adapter,
        "vectors": trial.vectors,
        "prompts": lambda: prompts_text(loaded[0]),
        "similarity": lambda: similarity_text(loaded[0]),
        "training step": trial.gradient,
    }
    for name, check in checks.items():
        finding = found(name, check)
        yield finding
        if not finding.is_ok:  # what follows would be wrong for the same reason
            return


def require_dense_encoder(fetched: FetchedModel) -> str:
    """Refuse what sentence-transformers would load as something else than one encoder for both sides.

    Raises:
        ModelError: It is a Router, a sparse encoder or a cross-encoder.
    """
    modules = fetched.folder / "modules.json"
    types = [str(m.get("type")) for m in json.loads(modules.read_text(encoding="utf-8"))] if modules.is_file() else []
    for kind in types:
        name = kind.rpartition(".")[2]
        if name in ("Router", "Asym"):
            raise ModelError(
                "is a Router, with modules of its own for each side; fedrag trains one encoder that serves both: "
                "fetch the folder of one of its sides (fedrag 0.1 exported Routers; fedrag export writes such folders)"
            )
        if "sparse_encoder" in kind or name in ("SpladePooling", "MLMTransformer", "SparseAutoEncoder"):
            raise ModelError("is a sparse encoder; fedrag searches dense vectors")
    config = json.loads((fetched.folder / "config.json").read_text(encoding="utf-8")) if not types else {}
    architecture = str((config.get("architectures") or [""])[0])
    if architecture.endswith(("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")):
        raise ModelError(f"is a {architecture}, such as a cross-encoder, and gives no vectors that can be searched")
    return "one dense encoder for questions and passages"


def _load(config: Config, fetched: FetchedModel, loaded: list[Retriever]) -> str:
    device = best_device()
    dtype = computing_dtype(config.models.retriever_dtype, device)
    loaded.append(Retriever.load(fetched, config.retriever, device, dtype, config.rag.chunk_tokens))
    return f"{' + '.join(type(module).__name__ for module in loaded[0].encoder)} on {device}"


class _Trial:
    """The vectors of one retriever, and those of the stock library.

    Args:
        retriever: Loaded for the trial alone.
    """

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self._encoder: Any = retriever.encoder

    def tokenizer(self) -> str:
        """Check that texts can be padded, and the tokens against the embedding's rows."""
        tokenizer = self._encoder.tokenizer
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        if isinstance(self._transformer, PreTrainedModel):
            if getattr(tokenizer, "pad_token_id", None) is None:
                raise ModelError(
                    "has no padding token, so several texts cannot be read at a time; name one as pad_token in its "
                    "tokenizer_config.json, and fetch it again"
                )
            transformer: Any = self._transformer
            rows = int(transformer.get_input_embeddings().weight.shape[0])
            beyond = sorted(text for text, number in vocabulary.items() if number >= rows)
            if beyond:
                raise ModelError(
                    f"has {len(beyond)} tokens beyond the {rows} rows of the model's embedding, such as {beyond[0]!r}"
                )
        return f"{len(vocabulary):,} tokens"

    def length(self) -> str:
        """Encode a text of the longest length that the encoder claims to read."""
        limit = self._encoder.get_max_seq_length()
        if not isinstance(self._transformer, PreTrainedModel):
            return "no limit"
        positions = _positions(self._transformer)
        if positions is not None and (limit is None or limit > positions):
            claimed = f"{limit} tokens" if limit and limit < _NO_LIMIT else "texts of any length"
            raise ModelError(
                f"claims to read {claimed}, but has {positions} positions; set model_max_length = {positions} in its "
                "tokenizer_config.json (or max_seq_length in sentence_bert_config.json), and fetch it again"
            )
        return f"reads {limit if limit and limit < _NO_LIMIT else 'any number of'} tokens"

    def adapter(self) -> str:
        """Tell what of the model the adapter does not act on."""
        if self._retriever.config.weights == "full":
            return "all weights are trained"
        return adapted_weights(self._encoder)

    def vectors(self) -> str:
        """Compare vectors with those of a model that the stock library loaded, and those of a training step."""
        folder = str(self._retriever.fetched.folder)
        options = {"dtype": torch.float32}
        stock = SentenceTransformer(
            folder,
            prompts=self._encoder.prompts,
            similarity_fn_name=self._encoder.similarity_fn_name,
            truncate_dim=self._encoder.truncate_dim,
            device=str(self._encoder.device),
            local_files_only=True,
            model_kwargs=options,
        )
        retriever = self._retriever
        sides: dict[str, tuple[Array, Array, torch.Tensor]] = {
            "questions": (
                retriever.encode_queries(TEXTS),
                self._encoded(stock.encode_query),
                retriever.embed_queries(TEXTS),
            ),
            "passages": (
                retriever.encode_passages(TEXTS),
                self._encoded(stock.encode_document),
                retriever.embed_passages(TEXTS),
            ),
        }
        learner = next(iter(retriever.parameters().values())).dtype
        for side, (ours, theirs, trained) in sides.items():
            if not _gap(ours, theirs) <= _SAME_VECTOR[torch.float32]:
                raise ModelError(
                    f"the vectors of {side} are not those of encode: fedrag does not read it rightly; choose another"
                )
            in_training = trained.detach().float().cpu().numpy()
            if not _gap(ours, in_training) <= _SAME_VECTOR[learner]:
                raise ModelError(f"the vectors of {side} are others in training than in search")
        return f"{ours.shape[1]} dimensions, as sentence-transformers' encode gives them"

    def _encoded(self, encode: Any) -> Array:
        normalised = self._retriever.similarity == "cosine"
        vectors = encode(list(TEXTS), normalize_embeddings=normalised, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)

    def gradient(self) -> str:
        """Require that a step would change something."""
        parameters = list(self._retriever.parameters().values())
        vectors = self._retriever.embed_queries(TEXTS)
        loss = (vectors[0] * vectors[1]).sum()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        norm = float(np.sqrt(sum(float(g.float().norm()) ** 2 for g in gradients if g is not None)))
        if not np.isfinite(norm) or norm == 0.0:
            raise ModelError(f"the gradient has the norm {norm:g}: it would not learn")
        return f"gradient of norm {norm:.3g}"

    @property
    def _transformer(self) -> nn.Module | None:
        return next((m for m in self._encoder.modules() if isinstance(m, PreTrainedModel)), None)


def prompts_text(retriever: Retriever) -> str:
    """Tell what is put before questions and passages."""
    query, passage = (prompt_of(retriever.encoder, task) or "" for task in ("query", "document"))
    if query or passage:
        return f'"{query}" before questions, "{passage}" before passages'
    trained = known_prompts(retriever.fetched.name)
    if trained is None or "auto" not in (retriever.config.query_prompt, retriever.config.passage_prompt):
        return "none"
    return (
        f'none, though models of this name were trained with some: set retriever.query_prompt = "{trained[0]}" and '
        f'retriever.passage_prompt = "{trained[1]}"'
    )


def similarity_text(retriever: Retriever) -> str:
    """Tell how vectors are compared, and the temperatures of training."""
    settings = retriever.config
    scale, tau_r = retriever.scale(settings.contrastive.scale), retriever.tau_r(settings.lsr.tau_r)
    return f"{retriever.similarity}, contrastive scale {scale:g}, tau_r {tau_r:g}"


def _positions(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model's table of positions can number; None: it has none."""
    rows: int | None = None
    for path, module in model.named_modules():
        name = path.rpartition(".")[2]
        numbers = name == "wpe" or ("position" in name and "relative" not in name)  # wpe: GPT-2
        if isinstance(module, nn.Embedding) and numbers:
            # RoBERTa and its kin count from the padding token's number on; BART and OPT skip some rows.
            offset = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            rows = min(rows or module.num_embeddings, module.num_embeddings - offset)
    return rows


def _gap(one: Array, other: Array) -> float:
    """Return the largest difference between rows, in shares of their squared length: 1 - cosine for unit vectors."""
    squares = (one * one).sum(axis=1) + (other * other).sum(axis=1)
    return float((np.square(one - other).sum(axis=1) / squares).max())
