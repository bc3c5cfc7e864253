"""Indexes on disk: whole or not at all, whoever else reads, writes or removes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from fedrag.retrieval import index_cache
from fedrag.retrieval.index_cache import IndexCache, StoredVectors


def stored(seed: int, chunks: int = 3) -> StoredVectors:
    random = np.random.default_rng(seed)
    return StoredVectors(
        random.standard_normal((chunks, 4), np.float32), random.integers(0, 9, (chunks, 4)).astype(np.int64)
    )


def same(one: StoredVectors | None, other: StoredVectors) -> bool:
    return one is not None and all(
        np.array_equal(a, b) for a, b in ((one.vectors, other.vectors), (one.parts, other.parts))
    )


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_what_is_written_is_read_by_another_process_without_copying_it(tmp_path: Path) -> None:
    assert IndexCache(tmp_path).read("a") is None
    written = IndexCache(tmp_path).write("a", stored(1))
    read = IndexCache(tmp_path).read("a")
    assert read is not None
    for found in (written, read):
        assert same(found, stored(1))
        assert isinstance(found.vectors.base, np.memmap)
    assert names(tmp_path) == {"a"}
    assert names(tmp_path / "a") == {"vectors.npy", "parts.npy"}


def test_no_chunks_are_an_index_too(tmp_path: Path) -> None:
    empty = StoredVectors(np.zeros((0, 0), np.float32), np.zeros((0, 4), np.int64))
    assert len(IndexCache(tmp_path).write("a", empty).vectors) == 0


@pytest.mark.parametrize("name", ["vectors.npy", "parts.npy"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "removed", "of another index"])
def test_a_damaged_index_counts_as_none_and_is_replaced(tmp_path: Path, name: str, damage: str) -> None:
    cache = IndexCache(tmp_path)
    cache.write("b", stored(2, chunks=5))
    cache.write("a", stored(1))
    path = tmp_path / "a" / name
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        other = (tmp_path / "b" / name).read_bytes()
        path.write_bytes({"cut": content[:-8], "emptied": b"", "of another index": other}[damage])
    assert cache.read("a") is None
    assert same(cache.write("a", stored(1)), stored(1))
    assert same(cache.read("a"), stored(1))


def test_one_that_another_process_wrote_meanwhile_is_replaced_by_the_same(tmp_path: Path) -> None:
    IndexCache(tmp_path).write("a", stored(1))
    assert same(IndexCache(tmp_path).write("a", stored(1)), stored(1))
    assert names(tmp_path) == {"a"}


def test_an_index_that_is_read_outlives_its_removal(tmp_path: Path) -> None:
    found = IndexCache(tmp_path).write("a", stored(1))
    for file in (tmp_path / "a").iterdir():
        file.unlink()
    assert same(found, stored(1))


def test_where_nothing_can_be_written_the_index_is_kept_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    given = stored(1)
    assert IndexCache(tmp_path / "file").write("a", given) is given


def test_the_least_recently_used_go_once_the_folder_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = IndexCache(tmp_path)
    now = time.time()
    for age, name in enumerate("abc"):
        cache.write(name, stored(age, chunks=100))
        os.utime(tmp_path / name, (now - 10 + age, now - 10 + age))
    cache.read("a")  # used again
    size = sum(file.stat().st_size for file in (tmp_path / "a").iterdir())
    monkeypatch.setattr(index_cache, "MOST_BYTES", 3 * size)
    cache.write("d", stored(4, chunks=100))
    assert names(tmp_path) == {"a", "c", "d"}


def test_what_was_not_used_for_a_month_goes_and_a_crash_s_rest_after_a_day(tmp_path: Path) -> None:
    cache = IndexCache(tmp_path)
    cache.write("a", stored(1))
    for name, days in ((".b.0.partial", 2), (".c.0.partial", 0.5)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - days * 86_400,) * 2)
    os.utime(tmp_path / "a", (time.time() - 31 * 86_400,) * 2)
    cache.write("d", stored(4))
    assert names(tmp_path) == {".c.0.partial", "d"}
