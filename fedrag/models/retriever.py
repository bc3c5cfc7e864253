"""The retriever: a sentence-transformers bi-encoder, trained as a LoRA adapter or with all its weights."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import PreTrainedModel

from fedrag.config.training_settings import RetrieverConfig
from fedrag.errors import ModelError
from fedrag.federation.lora_factors import SIDE
from fedrag.models.adapters import (
    adapter_disabled,
    add_lora,
    as_tensor,
    initial_lora,
    lora_parameters,
    remove_lora,
)
from fedrag.models.encoder_copies import copy_sharing, in_short_format, token_embeddings
from fedrag.models.encoder_settings import Similarity, Task, apply_settings, kept, prompt_of, similarity_of
from fedrag.models.plain_encoder import make_plain, save_side
from fedrag.models.probe_texts import PASSAGES, QUESTIONS
from fedrag.models.side_adapter import set_side, side_parameters
from fedrag.models.temperature import fitting_scale
from fedrag.types import Array, Tensors
from fedrag.weights.identity import identity_of
from fedrag.weights.store import FetchedModel

MOST_CHUNK_TOKENS = 256
"""Most tokens of a chunk where a scenario names no number."""

_PROBE = "A text whose vector tells one way of encoding passages from another."
# sentence-transformers pools token embeddings itself and ignores a transformer's own pooler.
_UNUSED = ("pooler",)


class Retriever:
    """A bi-encoder that trains its query side or both sides.

    One encoder serves both sides. If the passage side is frozen, passages are encoded without the adapter or, if all
    weights are trained, by a second copy. An adapter may train on a copy in a shorter number format; the vectors for
    searching always come from the float32 encoder.

    Args:
        encoder: The sentence-transformers model; with an adapter if `config.weights` is "lora".
        config: Says what is trained.
        fetched: Where the model came from.
        dtype: Number format in which an adapter trains.
        chunk_tokens: Most tokens of a chunk; 0: `MOST_CHUNK_TOKENS`. Never more than the encoder reads.
    """

    def __init__(
        self,
        encoder: SentenceTransformer,
        config: RetrieverConfig,
        fetched: FetchedModel,
        dtype: torch.dtype = torch.float32,
        chunk_tokens: int = 0,
    ) -> None:
        self.encoder = encoder.eval()
        shorter = config.weights == "lora" and dtype != torch.float32
        self.learner = in_short_format(encoder, dtype) if shorter else encoder
        """The encoder that trains."""
        self.config = config
        self.fetched = fetched
        self._most_chunk_tokens = chunk_tokens or MOST_CHUNK_TOKENS
        self._lora = config.weights == "lora"
        self._at_base = False
        self._embeddings = {} if config.token_embeddings else token_embeddings(encoder)
        self._base = {} if self._lora else {n: p.detach().clone() for n, p in self.parameters().items()}
        split = not self._lora and not config.trains_passage_side
        self._passage_encoder = copy_sharing(encoder, self._embeddings) if split else encoder
        if not self._lora:
            for embedding in self._embeddings.values():
                embedding.requires_grad_(False)

    @classmethod
    def load(
        cls,
        fetched: FetchedModel,
        config: RetrieverConfig,
        device: str,
        dtype: torch.dtype = torch.float32,
        chunk_tokens: int = 0,
    ) -> Retriever:
        """Load a fetched encoder, ready to train as the configuration says."""
        if fetched.kind != "encoder":
            raise ModelError(f"{fetched.name} is not a sentence-transformers model and cannot be the retriever")
        encoder = SentenceTransformer(
            str(fetched.folder),
            device=device,
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"dtype": torch.float32},  # some are stored in half precision
        )
        apply_settings(encoder, config, fetched.name)
        if config.weights == "lora":
            add_lora(encoder, config.lora, exclude=_UNUSED)
        retriever = cls(encoder, config, fetched, dtype, chunk_tokens)
        retriever.set_state(retriever.initial_state(seed=0))
        return retriever

    @property
    def chunk_tokens(self) -> int:
        """Most tokens of a chunk of a passage, without special tokens and the passages' prompt."""
        return min(self._most_chunk_tokens, self.tokens_read)

    @property
    def tokens_read(self) -> int:
        """Tokens of a passage that the encoder reads, without special tokens and the passages' prompt."""
        prompt = self.encoder.tokenizer(prompt_of(self.encoder, "document") or "", add_special_tokens=False)
        taken = self.special_tokens + len(prompt["input_ids"])
        return int(self.encoder.get_max_seq_length() or 512) - taken

    @property
    def special_tokens(self) -> int:
        """The number of special tokens that every text gets."""
        return len(self.encoder.tokenizer("")["input_ids"])

    @property
    def similarity(self) -> Similarity:
        """How vectors are compared; those of a dot product keep their lengths."""
        return similarity_of(self.encoder)

    @cached_property
    def fitting_scale(self) -> float:
        """The contrastive scale that fits the spread of the base model's similarities."""
        questions = [text for texts in QUESTIONS.values() for text in texts]
        passages = [text for texts in PASSAGES.values() for text in texts]
        with self.untouched():
            queries, found = self.encode_queries(questions), self.encode_passages(passages)
        n = len(QUESTIONS)
        pairs = zip(np.split(queries, n), np.split(found, n), strict=True)
        return fitting_scale([some @ others.T for some, others in pairs], self.similarity)

    def scale(self, setting: float | Literal["auto"]) -> float:
        """Return the factor on similarities in the contrastive loss."""
        return self.fitting_scale if setting == "auto" else setting

    def tau_r(self, setting: float | Literal["auto"]) -> float:
        """Return the temperature of similarities in LSR, and where answers are weighed by their passages."""
        return 1.0 / self.fitting_scale if setting == "auto" else setting

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters by name."""
        if self._lora:
            return lora_parameters(self.learner)
        return {
            name: parameter
            for name, parameter in self.encoder.named_parameters()
            if name not in self._embeddings and not any(part in _UNUSED for part in name.split("."))
        }

    def initial_state(self, seed: int) -> Tensors:
        """Return the state before the first round, which encodes exactly as the base does.

        For an adapter it holds the factors; for all weights the difference from the base, zero.
        """
        shapes = {name: tuple(parameter.shape) for name, parameter in self.parameters().items()}
        if self._lora:
            return initial_lora(shapes, seed)
        return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

    def set_state(self, state: Tensors) -> None:
        """Load a state as `initial_state` describes it.

        Raises:
            ModelError: It holds other weights than those that are trained.
        """
        factors = {name for name in state if SIDE not in name}
        if unlike := sorted(self.parameters().keys() ^ factors):
            embeddings = "; set retriever.token_embeddings = true" if self._embeddings.keys() >= {*unlike} else ""
            raise ModelError(
                f"{self.fetched.name}: the state has other weights than are trained: {unlike[0]}{embeddings}"
            )
        with torch.no_grad():
            for name, parameter in self.parameters().items():
                parameter.copy_(as_tensor(state[name], parameter))
                if not self._lora:
                    parameter.add_(self._base[name])
            if self.learner is not self.encoder:
                for name, parameter in lora_parameters(self.encoder).items():
                    parameter.copy_(as_tensor(state[name], parameter))
        if self._lora:
            for encoder in {self.learner, self.encoder}:
                set_side(encoder, state)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Encode with the base weights, whatever the state is."""
        if self._lora:
            self._at_base = True
            try:
                with adapter_disabled(self.encoder):
                    yield
            finally:
                self._at_base = False
            return
        kept = {name: parameter.detach().clone() for name, parameter in self.parameters().items()}
        self._overwrite(self._base)
        try:
            yield
        finally:
            self._overwrite(kept)

    def passage_key(self) -> str:
        """Return all that the vectors of passages depend on but their texts: weights, way of encoding, machine.

        A passage side that is not trained has the same key in every round, as has an adapter that changes nothing.
        """
        digest = hashlib.sha256()
        for name, parameter in self._trained_passage_weights().items():
            digest.update(name.encode() + parameter.detach().float().cpu().numpy().tobytes())
        # Longest text, pooling and number format show in the vector of any text.
        digest.update(self.encode_passages([_PROBE]).tobytes())
        parts = (
            *astuple(identity_of(self.fetched)),
            digest.hexdigest(),
            repr(prompt_of(self.encoder, "document")),
            self.similarity,
            self.encoder.truncate_dim,
            self.encoder.device,
            torch.backends.cpu.get_cpu_capability(),
            torch.get_num_threads(),
            torch.__version__,
        )
        return "|".join(map(str, parts))

    def _trained_passage_weights(self) -> dict[str, nn.Parameter]:
        """Return the trained weights with which passages are encoded now; none where they are the base's."""
        if self._lora:
            if self._at_base or not self.config.trains_passage_side:
                return {}
            factors = lora_parameters(self.encoder) | side_parameters(self.encoder)
            # With a B of zeros an adapter changes nothing, whatever its A.
            return factors if any(bool(b.any()) for name, b in factors.items() if ".lora_B." in name) else {}
        if self._passage_encoder is not self.encoder:
            return {}
        weights = self.parameters()
        return {} if all(torch.equal(weights[name], base) for name, base in self._base.items()) else weights

    def encode_queries(self, texts: Sequence[str]) -> Array:
        """Return vectors (texts, dim) of questions, of unit length if compared by cosine."""
        return self._encode(self.encoder.encode_query, texts)

    def encode_passages(self, texts: Sequence[str]) -> Array:
        """Return vectors (texts, dim) of passages or their chunks, of unit length if compared by cosine."""
        with self._passage_side():
            return self._encode(self._passage_encoder.encode_document, texts)

    def embed_queries(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the vectors of `encode_queries`, through which gradients flow."""
        return self._embed(self.learner, texts, "query")

    def embed_passages(self, texts: Sequence[str]) -> torch.Tensor:
        """Return the vectors of `encode_passages`; gradients flow if the passage side is trained."""
        if self._lora:
            frozen = not self.config.trains_passage_side
            with adapter_disabled(self.learner) if frozen else nullcontext():
                return self._embed(self.learner, texts, "document")
        return self._embed(self._passage_encoder, texts, "document")

    @property
    def has_two_sides(self) -> bool:
        """Whether questions and passages are encoded with different weights or prompts."""
        return not self.config.trains_passage_side or self.prompt("query") != self.prompt("document")

    def prompt(self, task: Task) -> str | None:
        """Return what is put before the texts of a side."""
        return prompt_of(self.encoder, task)

    def export(self, folder: Path) -> None:
        """Write the trained model, adapter merged, for sentence-transformers: `encode()` gives the vectors of a search.

        One folder serves both sides where they are the same. Otherwise it holds two: `query` and `document`.
        """
        encoder = self._without_adapter(self.encoder, merge=True)
        if not self.has_two_sides:
            save_side(encoder, self.prompt("query"), folder)
            return
        save_side(encoder, self.prompt("query"), folder / "query")
        if not self.config.trains_passage_side:
            encoder = self._without_adapter(self._passage_encoder, merge=False)
        save_side(encoder, self.prompt("document"), folder / "document")

    def _without_adapter(self, encoder: SentenceTransformer, *, merge: bool) -> SentenceTransformer:
        copied = copy.deepcopy(encoder)
        if self._lora:
            remove_lora(copied, merge=merge)
        return make_plain(copied)

    def _passage_side(self) -> Any:
        frozen = self._lora and not self.config.trains_passage_side
        return adapter_disabled(self.encoder) if frozen else nullcontext()

    def _overwrite(self, tensors: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.parameters().items():
                parameter.copy_(tensors[name])

    def _encode(self, encode: Any, texts: Sequence[str]) -> Array:
        vectors = encode(
            list(texts),
            batch_size=64,
            convert_to_numpy=True,
            normalize_embeddings=self.similarity == "cosine",
            show_progress_bar=False,
        )
        return cast(Array, np.ascontiguousarray(vectors, dtype=np.float32))

    def query_features(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return what the encoder that trains reads of questions: tokens (texts, length) and their mask."""
        return _features(self.learner, texts, "query")

    def embed_features(self, features: dict[str, Any]) -> torch.Tensor:
        """Return the vectors of questions of which the features are at hand, through which gradients flow."""
        vectors: torch.Tensor = self.learner(dict(features), task="query")["sentence_embedding"]
        return kept(vectors, self.learner)

    def token_table(self) -> nn.Embedding:
        """Return the layer of the encoder that trains which holds a vector for each token."""
        transformer = next(m for m in self.learner.modules() if isinstance(m, PreTrainedModel))
        return cast(nn.Embedding, transformer.get_input_embeddings())

    def _embed(self, encoder: SentenceTransformer, texts: Sequence[str], task: Task) -> torch.Tensor:
        vectors: torch.Tensor = encoder(_features(encoder, texts, task), task=task)["sentence_embedding"]
        return kept(vectors, encoder)


def _features(encoder: SentenceTransformer, texts: Sequence[str], task: Task) -> dict[str, Any]:
    features = encoder.preprocess(list(texts), prompt=prompt_of(encoder, task), task=task)
    return {k: v.to(encoder.device) if torch.is_tensor(v) else v for k, v in features.items()}
