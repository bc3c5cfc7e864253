"""Says in one sentence what is wrong with settings, and names the known key nearest to an unknown one."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator

from pydantic import BaseModel, ValidationError

_EXPECTED = {
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "float_type": "a number",
    "float_parsing": "a number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "a text",
    "string_pattern_mismatch": "small letters, digits and hyphens",  # only names have a pattern
    "tuple_type": 'a list such as ["a", "b"]',
}
"""What a value must be, by pydantic's kind of fault, where its own message is for programmers."""
_ALIKE = 0.75
"""Likeness of two keys, from 0 to 1, from which one may be meant by the other."""


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """Return what is wrong with the first faulty key, and what was expected.

    Args:
        error: The error of the validation.
        root: The class that was validated.
    """
    # An unknown key first: it often stands for the key that is missing.
    first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {where} ({known_instead(where, root)})"
    if first["type"] == "missing":
        return " and ".join(_required(where, root)) + " is missing"
    if first["type"] == "value_error":
        return first["msg"].removeprefix("Value error, ")
    expected = _EXPECTED.get(first["type"], first["msg"].removeprefix("Input should be "))
    if first["type"] == "model_type":
        expected = f"a section: [{where}]"
    return f"{where} = {reprlib.repr(first['input'])}: must be {expected}"


def known_instead(unknown: str, root: type[BaseModel]) -> str:
    """Say which known key an unknown one most likely means, even in another section; else what its section has."""
    known = dict(sections_and_settings(root))

    def last_part(name: str) -> float:
        return difflib.SequenceMatcher(None, unknown.rpartition(".")[2], name.rpartition(".")[2]).ratio()

    # The last part counts double: people mistake the section more often than the setting.
    nearest = max(known, key=lambda name: 2 * last_part(name) + difflib.SequenceMatcher(None, unknown, name).ratio())
    section = known.get(unknown.rpartition(".")[0])
    if section is None or last_part(nearest) >= _ALIKE:
        return f"nearest known: {nearest}"
    return f"known there: {', '.join(section.model_fields)}"


def sections_and_settings(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel] | None]]:
    """Yield the full name of each key below a section, in order, with its class if it is a section itself."""
    for key, field in section.model_fields.items():
        kind = field.annotation
        nested = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
        yield f"{prefix}{key}", nested
        if nested:
            yield from sections_and_settings(nested, f"{prefix}{key}.")


def _required(where: str, root: type[BaseModel]) -> list[str]:
    """Return the names that must be set: the setting itself, or a section's settings without default."""
    section = dict(sections_and_settings(root)).get(where)
    if section is None:
        return [where]
    return [f"{where}.{key}" for key, field in section.model_fields.items() if field.is_required()]
