"""Sites are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fedrag.data.site_folder import load_site, load_sites
from fedrag.data.writing import write_site, write_sites
from fedrag.errors import DataError, StorageError
from fedrag.types import Passage, Question, Site

SITE = Site(
    "a",
    (Passage("p1", 'Line one.\nLine "two" – ü 漢.', "Title", "guide.pdf, page 3"), Passage("p2", "Plain.")),
    train=(Question("q1", "What?", ("x", "y"), ("p1", "p2"), origin="generated"),),
    test=(Question("q2", "Why?", ("z",), subject="patient 7"),),
)


def test_what_is_written_loads_as_it_was(tmp_path: Path) -> None:
    write_site(tmp_path / "new" / "a", SITE)
    assert load_site(tmp_path / "new" / "a") == SITE
    assert (tmp_path / "new" / "a" / "validation.jsonl").read_bytes() == b""
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a"]


def test_several_sites_are_written_below_one_new_folder(tmp_path: Path) -> None:
    other = Site("b", SITE.passages, validation=SITE.test)
    (tmp_path / "sites").mkdir()  # an empty folder may be there
    write_sites(tmp_path / "sites", [other, SITE])
    assert load_sites(tmp_path / "sites") == [SITE, other]


def test_new_folders_have_the_modes_that_mkdir_gives(tmp_path: Path) -> None:
    write_sites(tmp_path / "sites", [SITE])
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "sites").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("write", [lambda out: write_site(out, SITE), lambda out: write_sites(out, [SITE])])
def test_what_is_there_already_is_never_touched(tmp_path: Path, write: Callable[[Path], None]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(DataError, match=f"{name}: exists already .* remove it or choose another"):
            write(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine.txt"]


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    broken = Site("b", (Passage("p1", "\ud800"),))
    with pytest.raises(UnicodeEncodeError):
        write_sites(tmp_path / "sites", [SITE, broken])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_write_that_fails_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *args: object, **kwargs: object) -> object:
        return open("/dev/full", *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StorageError, match="sites: cannot be written: No space left on device"):
        write_sites(tmp_path / "sites", [SITE])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("names", [("a", "a"), ("../a",), (".a",), ("",)])
def test_names_that_are_no_folder_names_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="cannot be the name"):
        write_sites(tmp_path / "sites", [Site(name, SITE.passages, SITE.test) for name in names])
