"""Vectors and terms of chunks on disk, so that nothing is encoded twice.

```
<folder>/<key>/
  vectors.npy   float32 (chunks, dim), read as memory is needed
  parts.npy     int64 (chunks, 4): number of the passage, and where in it the chunk stands
<folder>/<another key>/
  the arrays of `fedrag.retrieval.bm25.Terms`
```

No text is stored: a chunk is where it stands in a passage, and passages come from the site's own files.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedrag.types import Array

Parts = npt.NDArray[np.int64]

INDEXES = "indexes"
"""Name of the folder of indexes, in FEDRAG_HOME or in a site's folder."""
MOST_BYTES = 4 * 2**30
"""Bytes that a folder of indexes may have; the ones unused for longest go first."""
UNUSED_DAYS = 30.0
_VECTORS, _PARTS = "vectors", "parts"
_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class StoredVectors:
    """The chunks of a site's passages.

    Attributes:
        vectors: Their vectors (chunks, dim).
        parts: Number of the passage, head, start and end of each chunk (chunks, 4).
    """

    vectors: Array
    parts: Parts


class IndexCache:
    """A folder of indexes, each in a folder of its own, which is written as a whole.

    Processes may share it: what one writes or removes never harms another that reads.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str) -> StoredVectors | None:
        """Return an index, mapped into memory; None if there is none, or a damaged one."""
        found = self.read_arrays(key, (_VECTORS, _PARTS))
        if found is None:
            return None
        vectors, parts = found[_VECTORS], found[_PARTS]
        whole = vectors.ndim == 2 and vectors.dtype == np.float32 and parts.shape == (len(vectors), 4)
        return StoredVectors(vectors, parts) if whole else None

    def write(self, key: str, index: StoredVectors) -> StoredVectors:
        """Store an index and return it as it is read; as it was given where the disk is full or cannot be written."""
        self.write_arrays(key, {_VECTORS: index.vectors, _PARTS: index.parts})
        return self.read(key) or index

    def read_arrays(self, key: str, names: Collection[str]) -> dict[str, Any] | None:
        """Return arrays by name, mapped into memory; None if one is missing or cannot be read."""
        path = self.folder / key
        try:
            found = {name: np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names}
            os.utime(path)  # marks it as in use
        except (OSError, ValueError, EOFError):
            return None
        return {name: np.asarray(array) for name, array in found.items()}

    def write_arrays(self, key: str, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Store arrays, or nothing where the disk is full or cannot be written."""
        partial = self.folder / f".{key}.{secrets.token_hex(4)}.partial"
        try:
            partial.mkdir(parents=True)
            for name, array in arrays.items():
                with (partial / f"{name}.npy").open("wb") as file:
                    np.save(file, array)
                    file.flush()
                    os.fsync(file.fileno())
            shutil.rmtree(self.folder / key, ignore_errors=True)  # damaged, or by another process just now
            partial.replace(self.folder / key)
            self._prune(kept=key)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)

    def _prune(self, kept: str) -> None:
        """Remove what was not used for long, and what is more than the folder may hold."""
        now, total = time.time(), 0
        for used, path, size in sorted(self._entries(), reverse=True):
            is_partial = path.name.startswith(".")
            total += size
            old = now - used > (_DAY_S if is_partial else UNUSED_DAYS * _DAY_S)
            if path.name != kept and (old or (total > MOST_BYTES and not is_partial)):
                shutil.rmtree(path, ignore_errors=True)

    def _entries(self) -> Iterator[tuple[float, Path, int]]:
        """Yield when each index was last used, its folder and its size."""
        for path in self.folder.iterdir():
            try:
                yield path.stat().st_mtime, path, sum(file.stat().st_size for file in path.iterdir())
            except OSError:  # another process removed it just now
                continue
