"""Plain values that every room shares. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

import numpy as np
import numpy.typing as npt

ShippedComponent = Literal["generator", "retriever"]
COMPONENTS: tuple[ShippedComponent, ...] = ("generator", "retriever")
"""The components that come with fedrag. Their names are also those of the base models."""

Component = str
"""Name of a component: one of `COMPONENTS`, or one of your own."""

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

Origin = Literal["", "generated", "pseudo", "feedback", "canary"]
ORIGINS: tuple[Origin, ...] = ("", "generated", "pseudo", "feedback", "canary")
"""Where a question comes from: a person; a model that wrote it from a passage; a person, and a model answered it; a
person who corrected an answer; chance, planted to see whether models remember it."""
CANARY: Origin = "canary"
TRAIN_ONLY: frozenset[Origin] = frozenset(["generated", "pseudo", CANARY])
"""Origins of questions that train only: no figure is measured on them."""

LANGUAGE_PATTERN = r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$"
"""What the code of a language looks like: `vi`, `zh-Hant`."""

Array = npt.NDArray[np.float32]
Tensors = dict[str, Array]
"""Named float32 tensors of one component, in a fixed order."""

State = dict[Component, Tensors]
"""What the federation trains: the tensors of each component."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """The sha256 of each part of a base model that decides what it computes.

    Attributes:
        tensors: Its weights.
        tokenizer: How a text becomes tokens.
        template: Its chat template.
        configuration: What else changes what it computes.
        prompts: What a sentence-transformers model puts before a text of its own accord.
    """

    tensors: str = ""
    tokenizer: str = ""
    template: str = ""
    configuration: str = ""
    prompts: str = ""

    def differences(self, other: ModelIdentity) -> list[str]:
        """Return the parts, in words, in which another model differs.

        >>> ModelIdentity("a", template="b").differences(ModelIdentity("a", template="c"))
        ['chat template']
        """
        names = [part.name for part in fields(self) if getattr(self, part.name) != getattr(other, part.name)]
        return ["chat template" if name == "template" else name for name in names]


IDENTITY_PARTS: tuple[str, ...] = tuple(part.name for part in fields(ModelIdentity))
"""The names of the parts of an identity."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A text that can be retrieved.

    Attributes:
        source: Where a reader finds it, such as "handbook.pdf, page 3"; no model reads it.
    """

    id: str
    text: str
    title: str | None = None
    source: str = ""

    @property
    def full_text(self) -> str:
        r"""Title and text, as the models read them.

        >>> Passage("p1", "It orbits Mars.", "Phobos").full_text
        'Phobos\nIt orbits Mars.'
        """
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its right answers and, where labelled, the passages that hold them.

    Without an answer it is a query with its passages: the retriever alone learns from it.

    Attributes:
        hard_negative_ids: Passages that look right and are wrong; the contrastive loss learns from them.
        origin: Where it comes from, one of `ORIGINS`.
        subject: Whom it is about, such as a patient's number: all questions of a subject are protected as one, where a
            run adds noise. It never leaves the site.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    passage_ids: tuple[str, ...] = ()
    hard_negative_ids: tuple[str, ...] = ()
    origin: Origin = ""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """A retrieved passage, its similarity to the query (higher is better) and its best chunk's position."""

    passage_id: str
    score: float
    chunk: int = 0


@dataclass(frozen=True, slots=True)
class Site:
    """A partner's data: its passages and its questions by split.

    Attributes:
        unanswered: Questions that people asked and nobody answered, in none of the splits.
    """

    name: str
    passages: tuple[Passage, ...]
    train: tuple[Question, ...] = ()
    validation: tuple[Question, ...] = ()
    test: tuple[Question, ...] = ()
    language: str = ""
    """Code of the language of its answers, such as "vi"; empty: the scenario's."""
    parts: tuple[Site, ...] = ()
    """Where the data of several sites was pooled: these sites, each of whose questions is searched among its own
    passages."""
    unanswered: tuple[Question, ...] = ()

    @property
    def questions(self) -> tuple[Question, ...]:
        """The questions of all splits."""
        return self.train + self.validation + self.test

    @property
    def answered(self) -> tuple[Question, ...]:
        """The training questions that have an answer, from which a generator learns."""
        return tuple(question for question in self.train if question.answers)

    def split(self, name: Split) -> tuple[Question, ...]:
        """Return the questions of one split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the answer tokens that follow it.

    Attributes:
        prompt: Token ids.
        answer: Token ids; empty where the answer is to be generated.
        prefix_ends: Ends of the prefixes that other prompts may share, shortest first: instruction and first passage,
            then one more passage each.
    """

    prompt: list[int]
    answer: list[int] = field(default_factory=list)
    prefix_ends: tuple[int, ...] = ()

    @property
    def first_prefix(self) -> tuple[int, ...]:
        """The shortest prefix that other prompts may share: instruction and first passage."""
        return tuple(self.prompt[: self.prefix_ends[0]] if self.prefix_ends else ())

    @property
    def shared(self) -> int:
        """Length of the longest prefix that other prompts may share: instruction and all passages."""
        return self.prefix_ends[-1] if self.prefix_ends else 0

    @property
    def length(self) -> int:
        """Number of tokens that a forward pass reads."""
        return len(self.prompt) + len(self.answer)
