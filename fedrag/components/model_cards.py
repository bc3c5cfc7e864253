"""The README.md beside an exported model: what it is, and the lines of code that load it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fedrag.files import write_text
from fedrag.weights.store import FetchedModel

README = "README.md"


def write_retriever_card(
    folder: Path, base: FetchedModel, *, two_sides: bool, query_prompt: str, document_prompt: str, similarity: str
) -> None:
    """Write how sentence-transformers, LlamaIndex, LangChain and Haystack load a retriever.

    Args:
        folder: The exported folder.
        base: The model that was trained.
        two_sides: Whether it holds an encoder for each side.
        query_prompt: What is put before questions, or "".
        document_prompt: What is put before passages, or "".
        similarity: How vectors are compared, in sentence-transformers' words.
    """
    queries, documents = ("retriever/query", "retriever/document") if two_sides else ("retriever", "retriever")
    what = (
        f"Two encoders: `{queries}` for questions, `{documents}` for passages. Neither can take the other's place."
        if two_sides
        else f"`{queries}` encodes questions and passages."
    )
    what += f" Vectors are compared by: {similarity}."
    if query_prompt or document_prompt:
        what += " `encode()` puts the prompt of its side before a text; LlamaIndex must be told it."
    # LlamaIndex replaces the model's own prompts by empty ones, and normalises vectors, unless it is told not to.
    options = {"query_instruction": query_prompt, "text_instruction": document_prompt}
    told = [f"{name}={json.dumps(prompt, ensure_ascii=False)}" for name, prompt in options.items() if prompt]
    told += ["normalize=False"] if similarity != "cosine" else []
    blocks = {
        "sentence-transformers": _sentence_transformers(queries, documents),
        "LlamaIndex (`pip install llama-index-embeddings-huggingface`)": _llama_index(queries, documents, told),
        "LangChain (`pip install langchain-huggingface`)": _langchain(queries, documents),
        "Haystack (`pip install sentence-transformers-haystack`)": _haystack(queries, documents),
    }
    write_text(folder / README, _card("retriever", "sentence-transformers", base, what, blocks))


def write_generator_card(folder: Path, base: FetchedModel, *, seq2seq: bool, prompt: str, merges: bool) -> None:
    """Write how PEFT loads a generator's adapter, and the prompt that it learnt.

    Args:
        folder: The exported folder.
        base: The model that the adapter changes.
        seq2seq: Whether it is an encoder-decoder.
        prompt: The prompt with words in braces for passage and question.
        merges: Whether the adapter can be merged into the base model.
    """
    what = (
        f"An adapter for `{base.name}`, without that model's weights. `adapter_config.json` says what it acts on; the "
        "tokenizer lies beside it."
    )
    use = (
        "`model = model.merge_and_unload()` makes a plain model of it, for libraries that do not know PEFT."
        if merges
        else "It acts from the question on (activated LoRA, `alora_invocation_tokens`) and cannot be merged."
    )
    form = "of this form, with such a line for each passage" if "{passage}" in prompt else "of this form"
    learnt = f"It learnt to answer prompts {form}:\n\n````text\n{prompt}\n````"
    blocks = {"PEFT": _peft(base.name, "AutoModelForSeq2SeqLM" if seq2seq else "AutoModelForCausalLM")}
    write_text(folder / README, _card("generator", "peft", base, what, blocks, f"{use}\n\n{learnt}\n\n"))


def write_merged_card(folder: Path, base: FetchedModel) -> None:
    """Write how transformers loads a generator whose adapter is merged into it."""
    auto_class = "AutoModelForSeq2SeqLM" if base.kind == "seq2seq" else "AutoModelForCausalLM"
    what = (
        f"`{base.name}` with what was trained merged into its weights, in the number format in which they are stored. "
        "The prompt that it learnt stands in `rag.json` beside this folder."
    )
    block = f"""\
from transformers import {auto_class}, AutoTokenizer

model = {auto_class}.from_pretrained("generator")
tokenizer = AutoTokenizer.from_pretrained("generator")"""
    write_text(folder / README, _card("generator", "transformers", base, what, {"transformers": block}))


def _card(component: str, library: str, base: FetchedModel, what: str, blocks: dict[str, str], more: str = "") -> str:
    licence = "" if base.licence == "unknown" else f"license: {base.licence}\n"
    code = "\n".join(f"{title}:\n\n```python\n{block}\n```\n" for title, block in blocks.items())
    return f"""\
---
{licence}base_model: {base.name}
library_name: {library}
---

# {base.name}, trained by a federation

{what} Paths are seen from the folder that holds `{component}`.

{code}
{more}Licence of the base model: {base.licence}. SHA-256 of its tensors: `{base.tensors_sha256}`.
"""


def _peft(base: str, auto_class: str) -> str:
    return f"""\
from peft import PeftModel
from transformers import {auto_class}, AutoTokenizer

base = {auto_class}.from_pretrained({json.dumps(base)})
model = PeftModel.from_pretrained(base, "generator")
tokenizer = AutoTokenizer.from_pretrained("generator")"""


def _sentence_transformers(queries: str, documents: str) -> str:
    load = (
        f'queries = documents = SentenceTransformer("{queries}")'
        if queries == documents
        else f'queries, documents = SentenceTransformer("{queries}"), SentenceTransformer("{documents}")'
    )
    return f"""\
from sentence_transformers import SentenceTransformer

{load}
scores = queries.similarity(queries.encode(["A question?"]), documents.encode(["A passage."]))"""


def _llama_index(queries: str, documents: str, told: Sequence[str]) -> str:
    asked, shown = (f"HuggingFaceEmbedding({', '.join([json.dumps(side), *told])})" for side in (queries, documents))
    load = f"queries = documents = {asked}" if queries == documents else f"queries = {asked}\ndocuments = {shown}"
    return f"""\
from llama_index.embeddings.huggingface import HuggingFaceEmbedding

{load}
# index = VectorStoreIndex.from_documents(..., embed_model=documents)
# retriever = index.as_retriever(embed_model=queries)"""


def _langchain(queries: str, documents: str) -> str:
    imports = "from langchain_huggingface import HuggingFaceEmbeddings"
    if queries == documents:
        return f'{imports}\n\nembeddings = HuggingFaceEmbeddings(model_name="{queries}")'
    return f"""\
from langchain_core.embeddings import Embeddings
{imports}


class TwoSides(Embeddings):
    embed_query = HuggingFaceEmbeddings(model_name="{queries}").embed_query
    embed_documents = HuggingFaceEmbeddings(model_name="{documents}").embed_documents


embeddings = TwoSides()"""


def _haystack(queries: str, documents: str) -> str:
    module = "haystack_integrations.components.embedders.sentence_transformers"
    return f"""\
from {module} import SentenceTransformersDocumentEmbedder, SentenceTransformersTextEmbedder

queries = SentenceTransformersTextEmbedder(model="{queries}")
documents = SentenceTransformersDocumentEmbedder(model="{documents}")"""
