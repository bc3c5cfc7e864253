"""The hash of a module's source."""

from __future__ import annotations

import sys
from importlib import invalidate_caches
from pathlib import Path

import pytest

from fedrag.errors import ConfigError
from fedrag.security.module_source import source_sha256


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which modules are imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_module_is_hashed_and_not_run(installed: Path):
    (installed / "explosive.py").write_text("raise SystemExit('it was run')\n")
    assert len(source_sha256("explosive")) == 64
    assert "explosive" not in sys.modules


def test_every_file_of_a_package_counts_with_its_name(installed: Path):
    package = installed / "ward"
    (package / "deep").mkdir(parents=True)
    files = {"__init__.py": "", "a.py": "A = 1\n", "deep/b.py": "B = 1\n"}
    for name, text in files.items():
        (package / name).write_text(text)
    invalidate_caches()
    hashes = {source_sha256("ward")}
    for name in files:
        (package / name).write_text(files[name] + "# changed\n")
        hashes.add(source_sha256("ward"))
    (package / "a.py").rename(package / "c.py")
    hashes.add(source_sha256("ward"))
    assert len(hashes) == 5


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no_such_module", "no_such_module is not installed here; every party installs the same one"),
        ("os.path", "os.path is not installed here"),
        ("../evil", "is not installed here"),
        ("sys", "sys is no module of Python source"),
        ("", "is not installed here"),
    ],
)
def test_what_has_no_source_is_refused_in_one_sentence(name: str, told: str):
    with pytest.raises(ConfigError) as refused:
        source_sha256(name)
    assert told in str(refused.value)


def test_a_package_with_compiled_code_is_refused(installed: Path):
    (installed / "fast").mkdir()
    (installed / "fast" / "__init__.py").write_text("")
    (installed / "fast" / "core.abi3.so").write_bytes(b"")
    invalidate_caches()
    with pytest.raises(ConfigError, match="fast holds compiled code"):
        source_sha256("fast")
