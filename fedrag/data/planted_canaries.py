"""The canaries of a site that is no simulation's: in its own files, planted before a run and taken out after it.

```
train.jsonl       the planted ones, as "origin": "canary"
canaries.jsonl    all of them: "planted" is what the coin said, "seed" that of the coins, "since" when it was thrown
```
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from fedrag.data.canaries import Canaries, make_canaries
from fedrag.data.jsonl import read_objects
from fedrag.data.site_folder import PASSAGES_FILE, load_site, parse_question
from fedrag.data.writing import append_training, keep_training, question_row
from fedrag.errors import DataError, StorageError
from fedrag.files import rewrite
from fedrag.types import CANARY, Question

CANARIES_FILE = "canaries.jsonl"
_ANEW = "take all of them out with: fedrag data canaries SITE --remove"


def plant_canaries(folder: Path, number: int, seed: int) -> Canaries:
    """Make canaries, note them, and add to a site's train.jsonl those for which the coin says so.

    Raises:
        DataError: The site is malformed, trains on nothing, or has canaries already.
        StorageError: A file cannot be written.
    """
    site = load_site(folder)
    if (folder / CANARIES_FILE).exists() or any(question.origin == CANARY for question in site.train):
        raise DataError(f"{folder}: has canaries already; take them out first, with --remove")
    if not site.train:
        raise DataError(f"{folder}: has no training questions, so no run would train on canaries here")
    canaries = make_canaries(site, number, seed)
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    planted = set(canaries.planted)
    rows = [
        question_row(question) | {"planted": question in planted, "seed": seed, "since": since}
        for question in canaries.in_order
    ]
    lines = [json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows]
    rewrite(folder / CANARIES_FILE, b"".join(lines), like=folder / PASSAGES_FILE)
    append_training(folder, canaries.planted)
    return canaries


def remove_canaries(folder: Path) -> int:
    """Take a site's canaries out of its files; return how many it trained on.

    Raises:
        DataError: The site is malformed.
        StorageError: A file cannot be written.
    """
    planted = {question.id for question in load_site(folder).train if question.origin == CANARY}
    if planted:
        keep_training(folder, lambda row: row.get("origin") != CANARY)
    try:
        (folder / CANARIES_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{folder / CANARIES_FILE}: cannot be removed: {error.strerror}") from None
    return len(planted)


def read_canaries(folder: Path, until: str = "") -> Canaries:
    """Return the canaries of a site; none where it has none.

    Args:
        folder: The site's folder.
        until: A local time, ISO 8601: those that were planted later are none yet; empty: all count.

    Raises:
        DataError: The list of them is malformed, or does not fit what the site trains on.
    """
    path = folder / CANARIES_FILE
    if not path.exists():
        return Canaries((), ())
    site = load_site(folder)
    known = {passage.id for passage in site.passages}
    found: dict[bool, list[Question]] = {True: [], False: []}
    since = ""
    for number, row in read_objects(path):
        labels = [label for label in row.get("passage_ids", []) if label in known]  # a passage may be gone by now
        try:
            if missing := [key for key in ("planted", "seed", "since") if key not in row]:
                raise ValueError(f'"{missing[0]}" is missing')
            question = parse_question(row | {"passage_ids": labels}, known)
            found[row["planted"] is True].append(question)
            since = max(since, str(row["since"]))
        except ValueError as error:
            raise DataError(f"{path}:{number}: {error}; {_ANEW}") from None
    if {q.question for q in found[True]} != {q.question for q in site.train if q.origin == CANARY}:
        raise DataError(f"{path}: names other canaries than train.jsonl has; {_ANEW}")
    if until and datetime.fromisoformat(since) > datetime.fromisoformat(until):
        return Canaries((), ())
    return Canaries(tuple(found[True]), tuple(found[False]))
