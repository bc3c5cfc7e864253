"""Import a retrieval data set in BEIR's layout (Thakur et al. 2021): corpus.jsonl, queries.jsonl, qrels/<split>.tsv.

It becomes one site, which `fedrag data partition` deals to several. There are no answers, so the retriever alone
learns from it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedrag.data.importers.draft import Imported, SiteDraft, build_sites, clean, lacking_splits, slug
from fedrag.data.importers.text_file import read_rows, read_text
from fedrag.data.splitting import Fractions, normalise_question
from fedrag.errors import DataError
from fedrag.types import SPLITS, Passage, Split

_SPLITS: dict[str, Split] = {
    "train": "train",
    **dict.fromkeys(("dev", "validation", "valid", "val"), "validation"),
    "test": "test",
}
"""BEIR's names of the splits, which are those of the files in qrels."""

_Labels = dict[str, list[str]]
"""The relevant passages of each query, by their ids."""


def import_beir(
    folder: Path, fractions: Fractions | None = None, seed: int = 0, encoding: str | None = None
) -> Imported:
    """Read a folder of BEIR's into one site.

    A passage is right for a query where its score is above 0. Queries keep the split of their file; of a query in two
    files, the later of train, validation and test counts, so nothing is trained on that is measured.

    Args:
        folder: Holds corpus.jsonl, queries.jsonl and the folder qrels.
        fractions: Shares of new splits; None: those of the files.
        seed: Seed of new splits.
        encoding: Encoding of the files; None: what their byte order marks say, else UTF-8.

    Raises:
        DataError: A file is missing or malformed, or no query has a relevant passage.
    """
    skipped: Counter[str] = Counter()
    notes: list[str] = []
    corpus = _read_corpus(folder / "corpus.jsonl", encoding, skipped)
    queries = _read_queries(folder / "queries.jsonl", encoding)
    draft = SiteDraft(slug(folder.resolve().name), list(corpus.values()))
    split_by_text: dict[str, Split] = {}
    labels: _Labels = defaultdict(list)
    twice = 0
    for split, path in _qrels(folder / "qrels"):
        for query, passages in _read_qrels(path, encoding, skipped).items():
            if query not in queries:
                skipped["judged queries that queries.jsonl lacks"] += 1
                continue
            known = [passage for passage in passages if passage in corpus]
            skipped["labels whose passage corpus.jsonl lacks"] += len(passages) - len(known)
            if not known:
                skipped["queries without a relevant passage"] += 1
                continue
            twice += query in labels
            labels[query] += known
            split_by_text[normalise_question(queries[query])] = split
    for query, right in labels.items():
        draft.add_question(queries[query], [], right, query)
    if twice and fractions is None:
        notes.append(f"{twice:,} queries stand in two files of qrels; each went to the later split.")
    if fractions is not None or not labels:
        return build_sites([draft], skipped, folder, fractions or (1.0, 0.0, 0.0), seed, notes)
    site = draft.build(split_by_text)
    empty: dict[Split, list[str]] = {split: [site.name] for split in SPLITS if not site.split(split)}
    warnings = lacking_splits(empty, "qrels has none; --split 0.6/0.1/0.3 splits the queries anew")
    return Imported([site], {reason: n for reason, n in skipped.items() if n}, tuple(notes), warnings)


def _read_corpus(path: Path, encoding: str | None, skipped: Counter[str]) -> dict[str, Passage]:
    corpus: dict[str, Passage] = {}
    for place, row in _rows(path, encoding):
        identity, title, text = _id(row, place), _text(row, "title", place), _text(row, "text", place)
        if identity in corpus:
            raise DataError(f'{place}: duplicate "_id" "{identity}"')
        if not text and not title:
            skipped["blank passages"] += 1
            continue
        corpus[identity] = Passage(identity, text or title, (title if text else "") or None)
    return corpus


def _read_queries(path: Path, encoding: str | None) -> dict[str, str]:
    texts = {_id(row, place): _text(row, "text", place) for place, row in _rows(path, encoding)}
    return {identity: text for identity, text in texts.items() if text}


def _rows(path: Path, encoding: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from read_rows(path, encoding, lambda note: None)


def _qrels(folder: Path) -> list[tuple[Split, Path]]:
    """Return the files of the splits, training first."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; it holds train.tsv, dev.tsv or test.tsv")
    paths = sorted(folder.glob("*.tsv"))
    for path in paths:
        if path.stem not in _SPLITS:
            raise DataError(f"{path}: its name must be that of a split: {', '.join(_SPLITS)}")
    if not paths:
        raise DataError(f"{folder}: holds no train.tsv, dev.tsv or test.tsv")
    return sorted(((_SPLITS[path.stem], path) for path in paths), key=lambda pair: SPLITS.index(pair[0]))


def _read_qrels(path: Path, encoding: str | None, skipped: Counter[str]) -> _Labels:
    """Return for each judged query its relevant passages, perhaps none."""
    relevant: _Labels = {}
    for number, line in enumerate(read_text(path, encoding).splitlines(), start=1):
        cells = [cell.strip() for cell in line.split("\t")]
        if not line.strip() or (number == 1 and not _is_number(cells[-1])):
            continue
        if len(cells) == 4:  # TREC's own files have a second column that means nothing
            cells = [cells[0], *cells[2:]]
        if len(cells) != 3 or not _is_number(cells[2]):
            raise DataError(f"{path}:{number}: query-id, corpus-id and score were expected, separated by tabs")
        passages = relevant.setdefault(cells[0], [])
        if float(cells[2]) > 0:
            passages.append(cells[1])
        else:
            skipped["judgements with a score of 0"] += 1
    return relevant


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _id(row: Mapping[str, Any], place: str) -> str:
    value = row.get("_id", row.get("id"))
    if not isinstance(value, str | int) or not str(value).strip():
        raise DataError(f'{place}: "_id" must be a text or a number')
    return str(value).strip()


def _text(row: Mapping[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if key == "text" and not isinstance(value, str):
        raise DataError(f'{place}: "text" must be a string')
    return clean(value) if isinstance(value, str) else ""
