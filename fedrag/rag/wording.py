"""The words of a prompt that are not the site's own: its labels and its standard instruction, by language."""

from __future__ import annotations

from dataclasses import dataclass

from fedrag.config.rag_settings import RagConfig

_WIDE_COLON = "\uff1a"  # the colon of Chinese and Japanese, which no space follows

_PASSAGE_BREAK = "\n\n"

_LABELS = {
    "en": ("Passage", "Question", "Answer"),
    "vi": ("Đoạn văn", "Câu hỏi", "Trả lời"),
    "zh": (f"段落{_WIDE_COLON}", f"问题{_WIDE_COLON}", f"答案{_WIDE_COLON}"),
}

_INSTRUCTIONS = {
    "en": "Answer the question from the passages. Reply with the shortest answer, copied word for word.",
    "vi": "Trả lời câu hỏi dựa vào các đoạn văn. Chỉ viết câu trả lời ngắn nhất, chép đúng từng chữ.",
    "zh": "请根据段落回答问题。只写最短的答案，并逐字照抄。",
}

_WITHOUT_PASSAGES = {
    "en": "Answer the question. Reply with the shortest answer.",
    "vi": "Trả lời câu hỏi. Chỉ viết câu trả lời ngắn nhất.",
    "zh": "请回答问题。只写最短的答案。",
}


@dataclass(frozen=True, slots=True)
class Wording:
    """The words around passages, question and answer, in the order in which they stand in a prompt.

    Spaces before a passage or a question belong to it: most tokenizers read a space and the word after it as one token.

    Attributes:
        instruction: The first line of the prompt, or its system message; empty: none.
        before: Stands before passages and question.
        openings: What stands before the first passage, and before each further one.
        closing: Stands after each passage.
        between: Stands between passages and question, whichever of them comes first.
        gap: Stands before the question.
        after: Stands after passages and question.
        question_first: Whether the question stands before the passages.
        in_message: Whether `before` and `after` belong to the user's message where there is a chat template; else
            they stand in prompts without one alone.
    """

    instruction: str
    before: str
    openings: tuple[str, str]
    closing: str
    between: str
    gap: str
    after: str
    question_first: bool = False
    in_message: bool = False


def wording_of(config: RagConfig) -> Wording:
    r"""Return the words of a scenario's prompts.

    >>> wording_of(RagConfig(labels=("Kontext", "Frage", "Antwort"))).between
    'Frage:'
    >>> wording_of(RagConfig(template="{context_str}\nWho: {query_str}")).gap
    ' '
    """
    if config.template:
        return _wording_of_template(config)
    language = config.labels if isinstance(config.labels, str) else "en"
    labels = _LABELS[language] if isinstance(config.labels, str) else config.labels
    passage, question, answer = (_with_colon(label) for label in labels)
    standard = (_INSTRUCTIONS if config.passages else _WITHOUT_PASSAGES)[language]
    instruction = standard if config.instruction == "auto" else config.instruction
    opening = f"{passage}{_gap_after(passage)}"
    return Wording(instruction, "", (opening, opening), _PASSAGE_BREAK, question, _gap_after(question), f"\n{answer}")


def _wording_of_template(config: RagConfig) -> Wording:
    """Take a template apart at its places; passages are joined by empty lines, as LlamaIndex joins them."""
    instruction = "" if config.instruction == "auto" else config.instruction
    before, *others = config.template_parts
    between, after = others if config.passages else ("", *others)
    if not config.passages:
        before, between = "", before
    before, first_gap = _without_gap(before)
    between, second_gap = _without_gap(between)
    gap, opening = (first_gap, second_gap) if config.asks_first else (second_gap, first_gap)
    openings = (opening, _PASSAGE_BREAK)
    return Wording(instruction, before, openings, "", between, gap, after, config.asks_first, in_message=True)


def _without_gap(text: str) -> tuple[str, str]:
    """Return a text without the spaces at its end, and these."""
    kept = text.rstrip(" ")
    return kept, text[len(kept) :]


def _gap_after(label: str) -> str:
    return "" if label.endswith(_WIDE_COLON) else " "


def _with_colon(label: str) -> str:
    return label if label.endswith((":", _WIDE_COLON)) else f"{label}:"
