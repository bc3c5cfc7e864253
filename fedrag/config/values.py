"""The kinds of values that settings have, each with what is said of a wrong one."""

from __future__ import annotations

import math
import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

from fedrag.types import LANGUAGE_PATTERN

COMPONENT_PATTERN = r"^[a-z][a-z0-9_]{0,31}$"
LABEL_LANGUAGES = ("en", "vi", "zh")

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
ComponentName = Annotated[str, Field(pattern=COMPONENT_PATTERN)]


def _checked_list(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return value
    raise PydanticCustomError("rates", "a list such as [1e-3, 2e-3]")


def _distinct(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(values) == 1 or len(set(values)) < len(values):
        raise PydanticCustomError("distinct", "none, or at least two different numbers")
    return values


def _checked_auto_positive(value: Any) -> float | Literal["auto"]:
    if value == "auto":
        return "auto"
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and value > 0 and math.isfinite(value):
        return float(value)
    raise PydanticCustomError("auto_positive", '"auto" or a number above 0')


def _checked_labels(value: Any) -> str | tuple[str, ...]:
    words = tuple(value) if isinstance(value, list | tuple) else ()
    if len(words) == 3 and all(isinstance(word, str) and word.strip() for word in words):
        return words
    if value in LABEL_LANGUAGES:
        return str(value)
    raise PydanticCustomError("labels", '"en", "vi", "zh" or three words such as ["Kontext", "Frage", "Antwort"]')


def _checked_day(value: str) -> str:
    try:
        if not value or date.fromisoformat(value).isoformat() == value:
            return value
    except ValueError:
        pass
    raise PydanticCustomError("day", "a day such as 2026-01-31")


def _checked_language(value: str) -> str:
    if not re.fullmatch(LANGUAGE_PATTERN, value):
        raise PydanticCustomError("language", 'the code of a language such as "vi" or "zh-Hant"')
    return value


AutoPositive = Annotated[float | Literal["auto"], PlainValidator(_checked_auto_positive)]
"""A number above 0, or "auto" where fedrag finds one that fits the model."""

Labels = Annotated[str | tuple[str, ...], PlainValidator(_checked_labels)]
"""The words before passages, question and answer, or the language of the standard ones."""

DayText = Annotated[str, AfterValidator(_checked_day)]
"""A day as 2026-01-31, or nothing."""

LanguageCode = Annotated[str, AfterValidator(_checked_language)]
"""The code of a language."""

Rates = Annotated[tuple[Positive, ...], BeforeValidator(_checked_list), AfterValidator(_distinct)]
"""Learning rates to choose from: none, or at least two."""
