"""A retriever and a language model for LangChain: `pip install 'fedrag[langchain]'`.

```python
answerer = open_run("runs/demo-1", "data/clinic")
documents = FedragRetriever(answerer=answerer)
chain = {"documents": documents, "question": RunnablePassthrough()} | prompt(answerer) | FedragLLM(answerer=answerer)
```
"""

from __future__ import annotations

from typing import Any

try:
    from langchain_core.documents import Document
    from langchain_core.language_models.llms import LLM
    from langchain_core.retrievers import BaseRetriever
    from langchain_core.runnables import RunnableLambda
except ModuleNotFoundError:
    raise ImportError("LangChain is not installed: pip install 'fedrag[langchain]'") from None

from fedrag.bridges.opening import facts_of, found_passages
from fedrag.evaluation.answerer import Answerer
from fedrag.rag.message import message_text
from fedrag.rag.wording import wording_of


class FedragRetriever(BaseRetriever):  # type: ignore[misc]  # the library is not installed where types are checked
    """Finds the passages that `fedrag ask` finds.

    Attributes:
        answerer: Models and passages, an `Answerer` from `fedrag.bridges.opening`.
        passages: How many; None: as many as the generator is given.
    """

    answerer: Any
    passages: int | None = None

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        found = found_passages(self.answerer, query, self.passages)
        return [
            Document(id=one.passage.id, page_content=one.passage.full_text, metadata=facts_of(one)) for one in found
        ]


class FedragLLM(LLM):  # type: ignore[misc]  # as above
    """The generator; the same prompt always gets the same answer.

    Attributes:
        answerer: Models and passages, an `Answerer` from `fedrag.bridges.opening`.
    """

    answerer: Any

    @property
    def _llm_type(self) -> str:
        return "fedrag"

    def _call(self, prompt: str, stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any) -> str:
        answer = str(self.answerer.complete(prompt))
        return min((answer.partition(word)[0] for word in stop or ()), key=len, default=answer)


def prompt(answerer: Answerer) -> RunnableLambda:
    """Return what makes the prompt that the generator learnt of `{"question": ..., "documents": [...]}`."""
    wording = wording_of(answerer.config.rag)

    def filled(given: dict[str, Any]) -> str:
        return message_text(wording, given["question"], [document.page_content for document in given["documents"]])

    return RunnableLambda(filled)
