"""Measured questions, one record each, and means over them. No torch here."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedrag.config.rag_settings import RagConfig
from fedrag.errors import RunError
from fedrag.files import read_json, write_json
from fedrag.languages.catalogue import ENGLISH, Words

ANSWER_METRICS = ("exact_match", "f1", "rouge_l")
RETRIEVAL_METRICS = ("recall_at_1", "recall_at_5", "mrr", "ndcg_at_10")
METRICS = ANSWER_METRICS + RETRIEVAL_METRICS

TITLES = {
    "exact_match": "EM",
    "f1": "F1",
    "rouge_l": "ROUGE-L",
    "recall_at_1": "Recall@1",
    "recall_at_5": "Recall@5",
    "mrr": "MRR",
    "ndcg_at_10": "nDCG@10",
}
"""The metrics' names in tables."""

ARMS = ("untouched", "local", "federated", "personalised", "pooled")
"""The arms of a run, in the order of tables."""

CUTS = ("prompts", "passages", "answers")
"""What can be cut to fit: prompts whose question or one of whose passages is; these passages; answers."""

QuestionKey = tuple[str, str]
"""A site's name and a question's id there."""

Scores = Mapping[QuestionKey, Mapping[str, float | None]]
"""The metrics of each question; one that was not measured is None."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One question's result.

    Attributes:
        site: Name of the site.
        question_id: The question's id there.
        retrieved: Ids of the passages that were given to the generator, best first.
        answer: The generated answer; None where none was generated.
        metrics: Values by name, each in [0, 1] or None where it was not measured.
        cut: How many of its prompts, the passages in them and its answers were cut, by `CUTS`; without zeros.
    """

    site: str
    question_id: str
    retrieved: tuple[str, ...]
    answer: str | None
    metrics: dict[str, float | None]
    cut: dict[str, int] = field(default_factory=dict)

    @property
    def key(self) -> QuestionKey:
        """The key that identifies the question in a run."""
        return self.site, self.question_id

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


SEEN_FILE = "seen_elsewhere.json"


def write_seen(folder: Path, seen: Iterable[QuestionKey]) -> None:
    """Write which measured questions have a text that another site trains on."""
    write_json(folder / SEEN_FILE, {"questions": [list(key) for key in sorted(seen)]})


def read_seen(folder: Path) -> set[QuestionKey]:
    """Read what `write_seen` wrote; nothing where an older run did not look."""
    path = folder / SEEN_FILE
    questions: list[list[str]] = read_json(path)["questions"] if path.is_file() else []
    return {(site, identity) for site, identity in questions}


def measured_lines(measured: Iterable[Measured]) -> str:
    """Return the records as JSON lines, which `read_measured` reads."""
    return "".join(json.dumps(item.to_json(), ensure_ascii=False) + "\n" for item in measured)


def read_measured(path: Path) -> list[Measured]:
    """Read a file of lines from `measured_lines`.

    Raises:
        RunError: The file cannot be read, or a line is not a record.
    """
    try:
        with path.open(encoding="utf-8", newline="\n") as file:  # splitlines would cut answers that hold U+2028
            return [_parse(line, f"{path}:{number}") for number, line in enumerate(file, start=1)]
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None


def _parse(line: str, where: str) -> Measured:
    try:
        row = json.loads(line)
        metrics = dict.fromkeys(METRICS) | row["metrics"]
        return Measured(
            row["site"], row["question_id"], tuple(row["retrieved"]), row["answer"], metrics, dict(row.get("cut", {}))
        )
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{where}: expected the JSON record of a measured question") from None


def scores_by_question(measured: Iterable[Measured]) -> dict[QuestionKey, dict[str, float | None]]:
    """Return each question's metrics, averaged over the models that answered it.

    There are several where the local models of all sites are measured on sites that took no part.
    """
    by_key: dict[QuestionKey, list[Measured]] = defaultdict(list)
    for item in measured:
        by_key[item.key].append(item)
    return {key: {name: mean(items, name) for name in METRICS} for key, items in by_key.items()}


def mean(measured: Iterable[Measured], metric: str) -> float | None:
    """Return the mean of a metric over the questions that have it, or None without one."""
    values = [value for item in measured if (value := item.metrics[metric]) is not None]
    return sum(values) / len(values) if values else None


def summarise(measured: Sequence[Measured]) -> dict[str, Any]:
    """Return the mean of each metric over the questions that have it, the number of questions, and what was cut.

    `cut` holds the numbers of prompts, passages and answers; it is left out where nothing was cut.
    """
    cut = {what: sum(item.cut.get(what, 0) for item in measured) for what in CUTS}
    means = {name: mean(measured, name) for name in METRICS}
    return {"n_questions": len(measured), **means, **({"cut": cut} if any(cut.values()) else {})}


def cut_lines(summaries: Mapping[str, Mapping[str, Any]], rag: RagConfig, words: Words = ENGLISH) -> list[str]:
    """Return a line about what was cut for each summary, by its name; none where nothing was.

    >>> cut_lines({"all": {"cut": {"prompts": 3, "passages": 5, "answers": 1}}, "none": {}}, RagConfig())
    ['all: cut to fit 1,024 tokens: 3 prompts, in them 5 passages; cut at 32 tokens: 1 answer']
    """
    cut = {name: found["cut"] for name, found in summaries.items() if found.get("cut")}
    return [words("cut.line", name=name, cut=_cut_text(counts, rag, words)) for name, counts in cut.items()]


def _cut_text(counts: Mapping[str, int], rag: RagConfig, words: Words) -> str:
    said = []
    if counts["prompts"]:
        prompts = words("count.prompts", n=counts["prompts"])
        if counts["passages"]:
            prompts = words("cut.inside", prompts=prompts, passages=words("count.passages", n=counts["passages"]))
        said.append(words("cut.prompts", tokens=rag.prompt_tokens, prompts=prompts))
    if counts["answers"]:
        said.append(words("cut.answers", tokens=rag.answer_tokens, answers=words("count.answers", n=counts["answers"])))
    return words.unfilled("marks.semicolon").join(said)


def summarise_by_site(measured: Sequence[Measured]) -> dict[str, Any]:
    """Return `overall` over all questions and `sites.<name>`."""
    names = sorted({item.site for item in measured})
    return {
        "overall": summarise(measured),
        "sites": {name: summarise([item for item in measured if item.site == name]) for name in names},
    }
