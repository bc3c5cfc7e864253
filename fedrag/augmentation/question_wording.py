"""The words in which a model is asked to write a question about a passage, by language."""

from __future__ import annotations

from dataclasses import dataclass

from fedrag.seeding import derive_seed

_INSTRUCTIONS = {
    "en": "You are a teacher. You write one short question about a fact of the passage.",
    "vi": "Bạn là giáo viên. Bạn viết một câu hỏi ngắn về một thông tin trong đoạn văn.",
    "zh": "你是一位老师。请就段落中的一个事实写一个简短的问题。",
}
_REQUESTS = {
    "en": (
        "Write the question only.",
        "Write the question only. Ask for a name, a place, a number or a date.",
        "Write the question only. Ask what something is, does or is for.",
    ),
    "vi": (
        "Chỉ viết câu hỏi.",
        "Chỉ viết câu hỏi. Hãy hỏi về một cái tên, địa điểm, con số hoặc ngày tháng.",
        "Chỉ viết câu hỏi. Hãy hỏi một thứ là gì, làm gì hoặc dùng để làm gì.",
    ),
    "zh": (
        "只写问题。",
        "只写问题。请问一个名称、地点、数字或日期。",
        "只写问题。请问某物是什么、有什么作用或用途。",
    ),
}
_LABELS = {
    "en": ("Passage", "Task", "Question"),
    "vi": ("Đoạn văn", "Yêu cầu", "Câu hỏi"),
    "zh": ("段落\uff1a", "要求\uff1a", "问题\uff1a"),
}


@dataclass(frozen=True, slots=True)
class QuestionWording:
    """What a model is told.

    Attributes:
        instruction: Who it is and what it does.
        requests: Ways to ask for a question; a seed chooses one for each passage.
        labels: What stands before passage, request and question.
    """

    instruction: str
    requests: tuple[str, ...]
    labels: tuple[str, str, str]

    def request(self, seed: int, passage: str) -> str:
        """Return the way to ask about a passage; another seed asks many passages in another way."""
        return self.requests[derive_seed(seed, "request", passage) % len(self.requests)]


def question_wording(language: str) -> QuestionWording:
    """Return the words for a language; of one that is not known here, the model is told in English to write in it.

    >>> question_wording("de").instruction.endswith('Write in the language of the passage ("de").')
    True
    """
    code = language.partition("-")[0]
    known = code if code in _INSTRUCTIONS else "en"
    further = f' Write in the language of the passage ("{language}").' if language and known != code else ""
    return QuestionWording(_INSTRUCTIONS[known] + further, _REQUESTS[known], _LABELS[known])
