"""Import a retrieval data set of BEIR's form (Thakur et al. 2021): a corpus, queries, and judgements by split."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from fedrag.data.importers.draft import Imported, slug
from fedrag.data.importers.text_file import read_rows, read_text
from fedrag.errors import DataError
from fedrag.types import SPLITS, Passage, Question, Site, Split

_SPLITS: dict[Split, tuple[str, ...]] = {"train": ("train",), "validation": ("dev", "validation"), "test": ("test",)}


def import_beir(folder: Path) -> Imported:
    """Read a folder into one site; its splits are the files below `qrels`. A score of 0 or less is no label.

    Raises:
        DataError: A file is missing or malformed, or a judgement names an unknown query or passage.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder; one with corpus.jsonl, queries.jsonl and qrels was expected")
    skipped: Counter[str] = Counter()
    passages: dict[str, Passage] = {}
    for place, row in read_rows(folder / "corpus.jsonl"):
        identity, text, title = _field(row, "_id", place), _field(row, "text", place), str(row.get("title") or "")
        if text.strip():
            passages[identity] = Passage(identity, text.strip(), title.strip() or None)
        elif title.strip():
            passages[identity] = Passage(identity, title.strip())
        else:
            skipped["passages without text"] += 1
    queries = {
        _field(row, "_id", place): _field(row, "text", place) for place, row in read_rows(folder / "queries.jsonl")
    }
    questions: dict[Split, tuple[Question, ...]] = {}
    for split in SPLITS:
        files = [path for name in _SPLITS[split] if (path := folder / "qrels" / f"{name}.tsv").is_file()]
        labels = _labels(files[0], queries, passages, skipped) if files else {}
        questions[split] = tuple(
            Question(query, queries[query].strip(), (), tuple(ids)) for query, ids in labels.items()
        )
    if not any(questions.values()):
        raise DataError(f"{folder / 'qrels'}: holds no judgement; train.tsv, dev.tsv and test.tsv are read")
    train, validation, test = (questions[split] for split in SPLITS)
    site = Site(slug(folder.resolve().name), tuple(passages.values()), train, validation, test)
    return Imported([site], dict(skipped))


def _labels(
    path: Path, queries: dict[str, str], passages: dict[str, Passage], skipped: Counter[str]
) -> dict[str, list[str]]:
    """Return the right passages of each query of a file of judgements."""
    labels: dict[str, list[str]] = defaultdict(list)
    for number, row in enumerate(csv.reader(io.StringIO(read_text(path)), delimiter="\t"), start=1):
        if number == 1 and row and row[-1].strip() == "score":
            continue
        try:
            query, identity, score = row[0], row[-2], float(row[-1])
        except (IndexError, ValueError):
            raise DataError(f"{path}:{number}: expected query-id, corpus-id and score, separated by tabs") from None
        if score <= 0:
            skipped["judgements with a score of 0"] += 1
        elif query not in queries or identity not in passages:
            unknown = f'query "{query}"' if query not in queries else f'passage "{identity}"'
            raise DataError(f"{path}:{number}: unknown {unknown}")
        elif queries[query].strip():
            labels[query].append(identity)
    return labels


def _field(row: dict[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str | int):
        raise DataError(f'{place}: "{key}" must be a string, as in BEIR')
    return str(value)
