"""A retriever and a language model for LlamaIndex: `pip install 'fedrag[llama-index]'`.

```python
answerer = open_run("runs/demo-1", "data/clinic")
retriever, llm = FedragRetriever(answerer), FedragLLM(answerer)
engine = RetrieverQueryEngine.from_args(retriever, llm=llm, text_qa_template=qa_template(answerer))
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

try:
    from llama_index.core import PromptTemplate
    from llama_index.core.base.llms.types import ChatMessage, CompletionResponse, CompletionResponseGen, LLMMetadata
    from llama_index.core.llms import CustomLLM
    from llama_index.core.llms.callbacks import llm_completion_callback
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
except ModuleNotFoundError:
    raise ImportError("LlamaIndex is not installed: pip install 'fedrag[llama-index]'") from None

from fedrag.bridges.opening import facts_of, found_passages
from fedrag.config.rag_settings import CONTEXT_PLACE, QUERY_PLACE
from fedrag.evaluation.answerer import Answerer, Found
from fedrag.rag.message import around_passages, message_text
from fedrag.rag.wording import wording_of

_LABEL = "label"
_ANY_LENGTH = 1_000_000  # tokens: LlamaIndex need not cut a prompt, since passages are cut here to what fits


class FedragRetriever(BaseRetriever):  # type: ignore[misc]  # the library is not installed where types are checked
    """Finds the passages that `fedrag ask` finds.

    Args:
        answerer: Models and passages, from `fedrag.bridges.opening`.
        passages: How many; None: as many as the generator is given.
    """

    def __init__(self, answerer: Answerer, passages: int | None = None) -> None:
        self._answerer, self._passages = answerer, passages
        super().__init__()

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = found_passages(self._answerer, query_bundle.query_str, self._passages)
        opening = around_passages(wording_of(self._answerer.config.rag))[0]
        return [NodeWithScore(node=_node(one, opening), score=one.score) for one in found]


class FedragLLM(CustomLLM):  # type: ignore[misc]  # as above
    """The generator; several messages of a chat are read as one.

    Args:
        answerer: Models and passages, from `fedrag.bridges.opening`.
    """

    def __init__(self, answerer: Answerer) -> None:
        super().__init__(messages_to_prompt=_as_one)
        self._answerer = answerer

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex must know to fill prompts."""
        config = self._answerer.config
        return LLMMetadata(
            context_window=_ANY_LENGTH, num_output=config.rag.answer_tokens, model_name=config.models.generator
        )

    @llm_completion_callback()  # type: ignore[untyped-decorator]  # as above
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt; the same prompt always gets the same answer."""
        return CompletionResponse(text=self._answerer.complete(prompt))

    @llm_completion_callback()  # type: ignore[untyped-decorator]  # as above
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Answer a prompt in one piece."""
        text = self._answerer.complete(prompt)
        yield CompletionResponse(text=text, delta=text)


def qa_template(answerer: Answerer) -> PromptTemplate:
    """Return the prompt that the generator learnt, for `text_qa_template`."""
    wording = wording_of(answerer.config.rag)
    opening, _, closing = around_passages(wording)
    filled = message_text(wording, QUERY_PLACE, [CONTEXT_PLACE])
    # Each node brings the words before it along.
    return PromptTemplate(filled.replace(f"{opening}{CONTEXT_PLACE}{closing}", f"{CONTEXT_PLACE}{closing}", 1))


def _node(found: Found, opening: str) -> TextNode:
    """Return a passage as a node; its label is the only fact that a language model reads beside the text."""
    facts = facts_of(found) | ({_LABEL: opening.strip()} if opening.strip() else {})
    return TextNode(
        id_=found.passage.id,
        text=found.passage.full_text,
        metadata=facts,
        excluded_llm_metadata_keys=[key for key in facts if key != _LABEL],
        metadata_template="{value}",
        text_template=f"{{metadata_str}}{' ' if opening.endswith(' ') else ''}{{content}}",
    )


def _as_one(messages: Sequence[ChatMessage]) -> str:
    return "\n\n".join(str(message.content) for message in messages)
