"""The sentences of pages, in each language: a TOML file beside this one, read when it is first needed.

A file holds tables of sentences: the line `few = "..."` of the table `verdict` is the sentence `verdict.few`. `{name}`
stands for what is filled in. Where a language has another sentence for one thing than for several, there are two:
`{ one = "{n} site", other = "{n} sites" }`. A new language is a file here and a name in `LANGUAGES`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from fedrag.text import size_text

LANGUAGES = ("en", "vi", "zh")
"""Codes of the languages; what speaks none of the reader's languages speaks the first."""

Sentence = str | Mapping[str, str]
"""A sentence, or its forms `one` and `other`."""


@dataclass(frozen=True, slots=True)
class Words:
    """The sentences of one language, and how it writes numbers, dates and lists.

    Attributes:
        code: One of `LANGUAGES`.
    """

    code: str

    def __call__(self, key: str, **values: object) -> str:
        """Return a sentence; whole numbers in it are written as the language does.

        >>> Words("en")("count.sites", n=1), Words("en")("count.sites", n=1200), Words("vi")("count.sites", n=1200)
        ('1 site', '1,200 sites', '1.200 đơn vị')

        Raises:
            KeyError: There is no such sentence, or it needs another value.
        """
        return self.unfilled(key, values.get("n")).format_map(
            {name: self.whole(value) if isinstance(value, int) else value for name, value in values.items()}
        )

    def unfilled(self, key: str, n: object = None) -> str:
        """Return a sentence with its placeholders; `n` chooses between its forms for one and for several."""
        sentence = sentences(self.code)[key]
        return sentence if isinstance(sentence, str) else sentence["one" if n == 1 else "other"]

    def has(self, key: str) -> bool:
        """Return whether there is such a sentence."""
        return key in sentences(self.code)

    def table(self, name: str) -> dict[str, Sentence]:
        """Return the sentences of one table."""
        begin = f"{name}."
        return {key.removeprefix(begin): text for key, text in sentences(self.code).items() if key.startswith(begin)}

    def number(self, text: str) -> str:
        """Return a number that was written in English.

        >>> Words("vi").number("−1,234.5"), Words("zh").number("−1,234.5")
        ('−1.234,5', '−1,234.5')
        """
        marks = {ord(","): self.unfilled("marks.thousands"), ord("."): self.unfilled("marks.decimal")}
        return text.translate(marks)

    def whole(self, count: int) -> str:
        """Return a whole number."""
        return self.number(f"{count:,}")

    def size(self, count: float) -> str:
        """Return a number of bytes with a suitable unit."""
        return self.number(size_text(count))

    def date(self, iso: str) -> str:
        """Return the date of a time in ISO 8601.

        >>> [Words(code).date("2026-01-02T03:04:05Z") for code in LANGUAGES]
        ['2026-01-02', '02/01/2026', '2026年1月2日']
        """
        year, month, day = iso[:10].split("-")
        return self("marks.date", year=year, month=month, day=day, short_month=int(month), short_day=int(day))

    def component(self, name: str) -> str:
        """Return the name of a component; one of the user's own keeps its own."""
        return self(f"component.{name}") if self.has(f"component.{name}") else name

    def listed(self, parts: Sequence[str]) -> str:
        """Return a list of names or figures."""
        return self.unfilled("marks.comma").join(parts)

    def joined(self, parts: Sequence[str]) -> str:
        """Return a list as a sentence has it.

        >>> Words("en").joined(["a", "b", "c"])
        'a, b and c'
        """
        return self("marks.and", first=self.listed(parts[:-1]), last=parts[-1]) if len(parts) > 1 else "".join(parts)

    def spaced(self, parts: Sequence[str]) -> str:
        """Return sentences one after the other."""
        return self.unfilled("marks.space").join(parts)


ENGLISH = Words(LANGUAGES[0])


@cache
def sentences(code: str) -> Mapping[str, Sentence]:
    """Return all sentences of a language, by table and name."""
    text = (files("fedrag.languages") / f"{code}.toml").read_text(encoding="utf-8")
    return dict(_flat("", tomllib.loads(text)))


def _flat(begin: str, table: Mapping[str, Any]) -> list[tuple[str, Sentence]]:
    found: list[tuple[str, Sentence]] = []
    for name, entry in table.items():
        is_sentence = isinstance(entry, str) or set(entry) == {"one", "other"}
        found += [(begin + name, entry)] if is_sentence else _flat(f"{begin}{name}.", entry)
    return found
