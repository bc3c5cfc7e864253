"""Components for Haystack, a retriever and a generator: `pip install 'fedrag[haystack]'`.

```python
answerer = open_run("runs/demo-1", "data/clinic")
pipeline = Pipeline()
pipeline.add_component("retriever", FedragRetriever(answerer))
pipeline.add_component("prompt", PromptBuilder(prompt_template(answerer), required_variables="*"))
pipeline.add_component("generator", FedragGenerator(answerer))
pipeline.connect("retriever.documents", "prompt.documents")
pipeline.connect("prompt.prompt", "generator.prompt")
pipeline.run({"retriever": {"query": question}, "prompt": {"query": question}})
```
"""

from __future__ import annotations

import json
from typing import Any

try:
    from haystack import Document, component
except ModuleNotFoundError:
    raise ImportError("Haystack is not installed: pip install 'fedrag[haystack]'") from None

from fedrag.bridges.opening import facts_of, found_passages
from fedrag.evaluation.answerer import Answerer
from fedrag.rag.message import around_passages, message_text
from fedrag.rag.wording import wording_of


@component
class FedragRetriever:
    """Finds the passages that `fedrag ask` finds.

    Args:
        answerer: Models and passages, from `fedrag.bridges.opening`.
        top_k: How many; None: as many as the generator is given.
    """

    def __init__(self, answerer: Answerer, top_k: int | None = None) -> None:
        self._answerer, self._top_k = answerer, top_k

    @component.output_types(documents=list[Document])  # type: ignore[untyped-decorator]  # the library is not installed
    def run(self, query: str, top_k: int | None = None) -> dict[str, Any]:
        """Return the best passages for a question."""
        found = found_passages(self._answerer, query, top_k or self._top_k)
        documents = [
            Document(id=one.passage.id, content=one.passage.full_text, meta=facts_of(one), score=one.score)
            for one in found
        ]
        return {"documents": documents}


@component
class FedragGenerator:
    """The generator; the same prompt always gets the same answer.

    Args:
        answerer: Models and passages, from `fedrag.bridges.opening`.
    """

    def __init__(self, answerer: Answerer) -> None:
        self._answerer = answerer

    @component.output_types(replies=list[str])  # type: ignore[untyped-decorator]  # as above
    def run(self, prompt: str) -> dict[str, Any]:
        """Answer a prompt."""
        return {"replies": [self._answerer.complete(prompt)]}


def prompt_template(answerer: Answerer) -> str:
    """Return the prompt that the generator learnt, for a `PromptBuilder` with `documents` and `query`."""
    wording = wording_of(answerer.config.rag)
    joint = json.dumps(around_passages(wording)[1], ensure_ascii=False)
    context = f'{{{{ documents | map(attribute="content") | join({joint}) }}}}'
    return message_text(wording, "{{ query }}", [context])
