"""rag.json beside exported models: with it another program finds the same passages and builds the same prompts.

```
format        1
run           name of the run, and of its scenario
models        for generator and retriever: id of the base model, its revision where one is known, hash of its tensors,
              and whether it was trained
retrieval     how passages are searched: by the retriever's vectors ("dense"), by words ("bm25"), or by both, joined by
              reciprocal rank ("hybrid"); how many for each question and in a prompt; tokens and overlap of a passage's
              chunks; what is put before questions and passages; how vectors are compared
prompt        pieces: texts in order. One that is filled with "passage" or "question" holds {passage} or {question};
              there is a passage piece for each passage. Where one is filled with "next_passage", that is for all
              passages after the first. Each piece is tokenised on its own and the ids are joined,
              between before_ids and after_ids. special_tokens: whether the tokenizer reads special tokens in it.
              tokens: longest prompt; fedrag shows a window of a passage that does not fit
              message: for an API that takes messages: "system", and the user's, which is "before", all pieces without
              special tokens, "after"
answer        most tokens; ids of the tokens that end it; whether it ends at a new line; it is decoded greedily
```

A passage is its title, a new line and its text, or its text alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedrag import __version__
from fedrag.exporting.trained_system import TrainedSystem
from fedrag.files import write_json
from fedrag.models.resident import resident_generator, resident_retriever
from fedrag.models.retriever import Retriever
from fedrag.rag.prompt import Piece, PromptBuilder
from fedrag.rag.wording import wording_of
from fedrag.weights.compute import best_device
from fedrag.weights.store import FetchedModel

RAG_FILE = "rag.json"
FORMAT = 1


def write_rag_file(folder: Path, system: TrainedSystem) -> None:
    """Write rag.json into a folder."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "run": {"name": system.name, "scenario": system.config.name, "fedrag": __version__},
        "models": {key: _model(system.base(key), key in system.state) for key in system.base_keys},
    }
    if system.config.rag.passages:
        content["retrieval"] = _retrieval(system, resident_retriever(system.config, "cpu"))
    if "generator" in system.base_keys:
        content |= _prompt_and_answer(system)
    write_json(folder / RAG_FILE, content)


def _model(base: FetchedModel, trained: bool) -> dict[str, Any]:
    return {
        "id": base.name,
        "revision": base.revision,
        "tensors_sha256": base.tensors_sha256,
        "licence": base.licence,
        "trained": trained,
    }


def _retrieval(system: TrainedSystem, retriever: Retriever) -> dict[str, Any]:
    rag = system.config.rag
    return {
        "search": rag.search,
        "passages": rag.passages,
        "passages_per_prompt": rag.passages_per_prompt or rag.passages,
        "chunk_tokens": retriever.chunk_tokens,
        "chunk_overlap": rag.chunk_overlap,
        "query_prompt": retriever.prompt("query") or "",
        "passage_prompt": retriever.prompt("document") or "",
        "similarity": retriever.similarity,
    }


def _prompt_and_answer(system: TrainedSystem) -> dict[str, Any]:
    rag, generator = system.config.rag, resident_generator(system.config, best_device())
    builder = PromptBuilder(generator.tokenizer, rag, seq2seq=generator.seq2seq)
    before, after = builder.around
    wording = wording_of(rag)
    return {
        "prompt": {
            "pieces": [_piece(piece) for piece in builder.pieces],
            "before_ids": before,
            "after_ids": after,
            "tokens": rag.prompt_tokens,
            "message": {
                "system": wording.instruction,
                "before": wording.before if wording.in_message else "",
                "after": wording.after if wording.in_message else "",
            },
        },
        "answer": {
            "tokens": rag.answer_tokens,
            "end_ids": generator.end_ids,
            "ends_at_new_line": not getattr(generator.tokenizer, "chat_template", None),
        },
    }


def _piece(piece: Piece) -> dict[str, Any]:
    return {"text": piece.text, "fill": piece.fill, "special_tokens": piece.special}
