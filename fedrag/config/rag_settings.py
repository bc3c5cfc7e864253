"""The settings of retrieval and prompts."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedrag.config.section import Section
from fedrag.config.values import Count, DayText, Labels

Search = Literal["dense", "bm25", "hybrid"]

CONTEXT_PLACE, QUERY_PLACE = "{context_str}", "{query_str}"
"""The places of passages and question in a prompt template."""
_ANY_PLACE = re.compile(r"\{[A-Za-z_]\w*\}")


class RagConfig(Section):
    """How passages are retrieved and shown to the generator."""

    passages: Annotated[int, Field(ge=0)] = 2
    """Passages retrieved per question and given to the generator; 0: none, it answers from memory (closed book)."""
    search: Search = "dense"
    """How passages are ranked. dense: by the retriever's vectors; bm25: by the words that they share with the question
    (the retriever's tokenizer cuts the chunks, its vectors are not used); hybrid: by both rankings, joined by
    reciprocal rank fusion. The retriever's own training always goes by the vectors."""
    passages_per_prompt: Annotated[int, Field(ge=0)] = 0
    """Passages in one prompt; 0: all of them. 1: one prompt per passage (RA-DIT)."""
    labels: Labels = "en"
    """Words before passages, question and answer: "en", "vi" or "zh", or your own three, such as
    ["Kontext", "Frage", "Antwort"]. The answer's is written where the model has no chat template."""
    instruction: str = "auto"
    """First line of the prompt, or its system message where the model has a chat template; auto: "Answer the question
    from the passages. Reply with the shortest answer, copied word for word.", in the language of the labels; without
    passages it does not speak of them."""
    template: str = ""
    """A prompt of your own in place of labels and standard instruction: the user's message where the model has a chat
    template, else the whole prompt, with {context_str} in the place of the passages (none where passages = 0) and
    {query_str} in that of the question, as in a PromptTemplate of LlamaIndex. Passages are joined by empty lines. An
    instruction that is not "auto" stands before it. Prompts whose question comes first share no passages, so training
    and answers take longer."""
    date: DayText = ""
    """Today's date to chat templates that show one, as 2026-01-31; empty: the day on which the run begins."""
    prompt_tokens: Count = 1024
    """Longest prompt, in tokens. Of a passage that does not fit, a window around what was found in it is shown (of a
    chunk that does not fit either, its beginning); of a question that takes more than half of the room, the
    beginning."""
    answer_tokens: Count = 32
    """Longest answer in training and generation, in tokens; a longer one is cut, and does not end there."""
    chunk_tokens: Annotated[int, Field(ge=0)] = 0
    """Most tokens of a chunk, without special tokens and the passages' prompt: long passages are cut into chunks, which
    are indexed, searched and trained on; 0: 256, or as many as the retriever reads if these are fewer."""
    chunk_overlap: Annotated[int, Field(ge=0)] = 32
    """Tokens that neighbouring chunks of a long passage share."""
    include_labelled: bool = False
    """Whether prompts in training show the labelled passages that retrieval missed, in place of the last ones found."""

    @model_validator(mode="after")
    def _check(self) -> RagConfig:
        if self.passages_per_prompt > self.passages:
            raise ValueError("rag.passages_per_prompt is larger than rag.passages")
        if 0 < self.chunk_tokens <= self.chunk_overlap:
            raise ValueError("rag.chunk_overlap must be smaller than rag.chunk_tokens")
        if self.template:
            self._check_template()
        return self

    @property
    def template_parts(self) -> list[str]:
        """The texts around the places of a template."""
        return re.split("|".join(map(re.escape, (CONTEXT_PLACE, QUERY_PLACE))), self.template)

    @property
    def asks_first(self) -> bool:
        """Whether the template's question stands before its passages."""
        return 0 <= self.template.find(QUERY_PLACE) < self.template.find(CONTEXT_PLACE)

    def _check_template(self) -> None:
        """Require each place once, and no other."""
        places = _ANY_PLACE.findall(self.template)
        if not self.passages and CONTEXT_PLACE in places:
            raise ValueError(f"rag.template has {CONTEXT_PLACE}, but rag.passages is 0: leave the place out")
        wanted = [CONTEXT_PLACE, QUERY_PLACE] if self.passages else [QUERY_PLACE]
        if sorted(places) != wanted:
            told, found = " and ".join(wanted), ", ".join(places) or "none"
            raise ValueError(f"rag.template must have {told} once, and no other place in braces; it has {found}")
