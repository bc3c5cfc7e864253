"""What was tried at a site, so that a command that was stopped goes on where it was.

The file `.tried.jsonl` in the site's folder holds hashes and results, no text.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from fedrag.files import storage_errors

TRIED_FILE = ".tried.jsonl"


class TriedTexts:
    """The results of texts that were tried, under all that a result depends on.

    Args:
        folder: The site's folder.
        settings: What a result depends on beside the text, as one string.
    """

    def __init__(self, folder: Path, settings: str) -> None:
        self._path = folder / TRIED_FILE
        self._settings = settings
        self._known = dict(_read(self._path))

    def result(self, text: str) -> str | None:
        """Return what became of a text; None: it was not tried."""
        return self._known.get(self._key(text))

    def count(self, texts: list[str]) -> Counter[str]:
        """Return how many of the texts that were tried had each result."""
        return Counter(result for text in texts if (result := self.result(text)) is not None)

    def record(self, results: Mapping[str, str]) -> None:
        """Keep what became of texts, at once.

        Raises:
            StorageError: It cannot be written.
        """
        new = {self._key(text): result for text, result in results.items()}
        with storage_errors(self._path), self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({"key": key, "result": result}) + "\n" for key, result in new.items())
        self._known |= new

    def _key(self, text: str) -> str:
        return hashlib.sha256(f"{self._settings}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _read(path: Path) -> list[tuple[str, str]]:
    """Return keys and results; a line that a crash cut off was not written."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
            found.append((str(row["key"]), str(row["result"])))
        except (ValueError, KeyError, TypeError):
            continue
    return found
