"""What of a site's texts does not fit into prompts and answers, counted before anything is retrieved."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable
from dataclasses import astuple, dataclass

from fedrag.config.rag_settings import RagConfig
from fedrag.rag.budget import share_out
from fedrag.rag.prompt import PromptBuilder
from fedrag.text import plural
from fedrag.types import Site


@dataclass(frozen=True, slots=True)
class Cuts:
    """Texts of a site that are cut.

    Attributes:
        passages: Passages longer than their share of a prompt, beside a question of median length and passages as
            long: of them a window is shown.
        n_passages: All passages.
        prompts: Questions in whose prompt the question, or its labelled passages beside others of median length, do
            not fit.
        answers: Questions whose first answer is longer than an answer may be.
        n_questions: All questions.
    """

    passages: int
    n_passages: int
    prompts: int
    answers: int
    n_questions: int

    @property
    def any(self) -> bool:
        """Whether anything is cut."""
        return bool(self.passages or self.prompts or self.answers)

    def text(self, config: RagConfig) -> str:
        """Return the counts in a sentence.

        >>> Cuts(1, 8, 0, 2, 30).text(RagConfig())
        'cut to fit 1,024 tokens of a prompt and 32 of an answer: 1 of 8 passages, 0 of 30 prompts, 2 of 30 answers'
        """
        questions = f"of {self.n_questions:,}"
        return (
            f"cut to fit {config.prompt_tokens:,} tokens of a prompt and {config.answer_tokens:,} of an answer: "
            f"{self.passages:,} of {plural(self.n_passages, 'passage')}, {self.prompts:,} {questions} prompts, "
            f"{self.answers:,} {questions} answers"
        )


def count_cuts(site: Site, builder: PromptBuilder, config: RagConfig) -> Cuts:
    """Count what is cut of a site's texts."""
    in_prompt = config.passages_per_prompt or config.passages
    passages = {passage.id: builder.passage_tokens(passage.full_text) for passage in site.passages}
    asked = [builder.question_tokens(question.question) for question in site.questions]
    typical, usual_question = _median(passages.values()), _median(asked)
    _, share = share_out(builder.room, usual_question, [builder.room] * in_prompt)
    n_cut = 0
    for question, n_tokens in zip(site.questions, asked, strict=True):
        labelled = [passages[passage_id] for passage_id in question.passage_ids][:in_prompt]
        others = [typical] * (in_prompt - len(labelled))
        most, limit = share_out(builder.room, n_tokens, labelled + others)
        n_cut += n_tokens > most or any(length > limit for length in labelled)
    first = [question.answers[0] for question in site.questions if question.answers]
    return Cuts(
        sum(length > share for length in passages.values()) if in_prompt else 0,
        len(passages),
        n_cut,
        sum(builder.answer_tokens(answer) > config.answer_tokens for answer in first),
        len(asked),
    )


def sum_of_cuts(sites: Iterable[Cuts]) -> Cuts:
    """Return the counts of several sites together."""
    return Cuts(*map(sum, zip(*(astuple(cuts) for cuts in sites), strict=True)))


def _median(lengths: Collection[int]) -> int:
    return int(statistics.median(lengths)) if lengths else 0
