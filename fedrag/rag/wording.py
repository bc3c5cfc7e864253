"""The words of a prompt that are not the site's own: its labels and its standard instruction, by language."""

from __future__ import annotations

from dataclasses import dataclass

from fedrag.config.rag_settings import RagConfig

_WIDE_COLON = "\uff1a"  # the colon of Chinese and Japanese, which no space follows

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
    """The words around passages, question and answer.

    Attributes:
        instruction: The first line of the prompt, or its system message.
        passage_label: Stands before each passage, with its colon.
        question_label: Stands before the question.
        answer_label: Stands before the answer where the model has no chat template.
    """

    instruction: str
    passage_label: str
    question_label: str
    answer_label: str

    @staticmethod
    def after(label: str, text: str) -> str:
        """Return a text as it stands after a label, with a space unless the label's colon is a wide one.

        >>> Wording.after("Question:", "Who?")
        ' Who?'
        """
        return text if label.endswith(_WIDE_COLON) else f" {text}"


def wording_of(config: RagConfig) -> Wording:
    """Return the words of a scenario's prompts.

    >>> wording_of(RagConfig(labels=("Kontext", "Frage", "Antwort"))).question_label
    'Frage:'
    """
    language = config.labels if isinstance(config.labels, str) else "en"
    labels = _LABELS[language] if isinstance(config.labels, str) else config.labels
    passage, question, answer = (_with_colon(label) for label in labels)
    standard = (_INSTRUCTIONS if config.passages else _WITHOUT_PASSAGES)[language]
    instruction = standard if config.instruction == "auto" else config.instruction
    return Wording(instruction, passage, question, answer)


def _with_colon(label: str) -> str:
    return label if label.endswith((":", _WIDE_COLON)) else f"{label}:"
