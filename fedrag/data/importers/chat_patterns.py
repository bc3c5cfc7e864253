"""Finds the passages and the question in a message: by the labels of a prompt, by tags, by numbers, or as one says."""

from __future__ import annotations

import re
import unicodedata

from fedrag.data.importers.draft import clean
from fedrag.errors import ConfigError

_PASSAGE_LABELS = (
    *("context", "contexts", "passages?", "documents?", "sources?"),
    *("上下文", "背景", "参考资料", "资料", "文档", "段落", "文脈", "コンテキスト", "문맥"),
    *("ngữ cảnh", "bối cảnh", "đoạn văn", "tài liệu"),
    *("kontext", "textstelle", "abschnitt", "dokumente?", "quellen?", "contexte", "contexto", "contesto", "контекст"),
    *("السياق", "संदर्भ"),
)
_QUESTION_LABELS = (
    *("question", "query", "问题", "提问", "質問", "질문"),
    *("câu hỏi", "frage", "pregunta", "pergunta", "domanda", "вопрос", "السؤال", "प्रश्न"),
)
_ANSWER_LABELS = (
    *("answer", "答案", "回答", "답변", "câu trả lời", "trả lời", "antwort", "réponse", "respuesta", "resposta"),
    *("risposta", "ответ", "الإجابة", "उत्तर"),
)


def _one_of(labels: tuple[str, ...]) -> str:
    """Return a pattern of a label with its colon; letters with marks may be written as one character or as two."""
    spelt = dict.fromkeys(unicodedata.normalize(form, label) for label in labels for form in ("NFC", "NFD"))
    return rf"(?:{'|'.join(spelt)})\s*[:：]"  # noqa: RUF001 (the colon of Chinese and Japanese)


_LABEL = rf"^[ \t]*{_one_of(_PASSAGE_LABELS + _QUESTION_LABELS + _ANSWER_LABELS)}"
_QUESTION = rf"^[ \t]*{_one_of(_QUESTION_LABELS)}\s*(?P<question>.+?)"

PATTERNS: dict[str, str] = {
    # A passage is "Context: ..." up to the next label; the question is after "Question:", or all the rest.
    "context-block": (
        rf"(?ims)^[ \t]*{_one_of(_PASSAGE_LABELS)}\s*(?P<passage>.+?)\s*(?={_LABEL}|\Z)"
        rf"|{_QUESTION}\s*(?={_LABEL}|\Z)"
    ),
    # LlamaIndex's default prompt: the passages stand between two lines of hyphens, and the question after "Query:".
    "llama-index": (
        r"(?ims)^[ \t]*-{5,}[ \t]*\r?\n(?P<passage>.+?)\s*^[ \t]*-{5,}[ \t]*$"
        rf"|{_QUESTION}\s*(?={_LABEL}|\Z)"
    ),
    # A passage is <context>...</context> or similar; the question is in <question>, or all the rest.
    "xml": (
        r"(?is)<(?P<tag>passage|document|context|doc|source)\b[^>]*>\s*(?P<passage>.*?)\s*</(?P=tag)>"
        r"|<question>\s*(?P<question>.*?)\s*</question>"
    ),
    # A passage is "[1] ..." or "1. ..." up to the next number, empty line or label; the question as above.
    "numbered": (
        r"(?ims)^[ \t]*(?:\[\d+\]|\(\d+\)|\d+[.)])[ \t]*(?P<passage>.+?)\s*"
        rf"(?=^[ \t]*(?:\[\d+\]|\(\d+\)|\d+[.)])|\n[ \t]*\n|{_LABEL}|\Z)"
        rf"|{_QUESTION}\s*(?={_LABEL}|\Z)"
    ),
}
"""The named patterns. Labels are known in English, Chinese, Vietnamese, German and some more languages."""

_EMPTY_LABEL = re.compile(rf"(?im){_LABEL}[ \t]*$")


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return a named pattern, or one's own.

    Raises:
        ConfigError: It is not a regular expression, or has no group `passage`.
    """
    try:
        compiled = re.compile(PATTERNS.get(pattern, pattern))
    except re.error as error:
        raise ConfigError(f"passage pattern {pattern!r}: not a regular expression: {error}") from None
    if "passage" not in compiled.groupindex:
        known = ", ".join(PATTERNS)
        raise ConfigError(f"passage pattern {pattern!r}: neither {known} nor with a group (?P<passage>...)")
    return compiled


def find_question(pattern: re.Pattern[str], message: str) -> str:
    """Return the question that the pattern finds, or else the message without what the pattern matches."""
    found = find_all(pattern, "question", message)
    if found:
        return found[-1]
    left = _EMPTY_LABEL.sub("", pattern.sub("", message))
    return "\n".join(line.strip() for line in left.splitlines() if line.strip())


def find_all(pattern: re.Pattern[str], group: str, message: str) -> list[str]:
    """Return all matches of a group in a message."""
    if group not in pattern.groupindex:
        return []
    texts = [clean(match.group(group) or "") for match in pattern.finditer(message)]
    return [text for text in texts if text]
