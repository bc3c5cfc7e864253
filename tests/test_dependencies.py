"""What pyproject.toml admits, what the lock files pin and what tests run with agree."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

CHECKOUT = Path(__file__).parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKS = ("requirements.lock", "requirements-cpu.lock")


def pins(file: str) -> dict[str, set[Version]]:
    """Return the versions of each library that a file pins; it may pin another one for another Python."""
    found: dict[str, set[Version]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ \n]+)", (CHECKOUT / file).read_text(encoding="utf-8"), re.M):
        found.setdefault(name, set()).add(Version(version))
    return found


def public(versions: set[Version]) -> set[str]:
    """Return versions without what names a build, as `+cpu`."""
    return {version.public for version in versions}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_every_dependency_within_its_range(lock: str):
    pinned = pins(lock)
    for needed in map(Requirement, PROJECT["dependencies"]):
        assert pinned.get(needed.name), f"{needed.name} is not in {lock}; run: make lock"
        for version in pinned[needed.name]:
            assert version in needed.specifier, f"{needed} does not admit {version} of {lock}; run: make lock"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_a_hash_for_every_pin(lock: str):
    text = (CHECKOUT / lock).read_text(encoding="utf-8")
    entries = re.findall(r"^[^ #\n].*(?:\n    --hash=.*)*", text, re.M)
    assert len(entries) > 100
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_lock_without_cuda_differs_in_nothing_else():
    every, cpu = (pins(lock) for lock in LOCKS)
    assert {name for name, versions in cpu.items() if not public(versions) <= public(every.get(name, set()))} == set()
    assert [name for name in cpu if name.startswith(("nvidia", "cuda"))] == []
    assert {version.local for version in cpu["torch"]} == {"cpu"}


def test_tests_run_with_the_torch_that_sites_install():
    [torch] = pins("constraints.txt")["torch"]
    assert all(public(pins(lock)["torch"]) == {torch.public} for lock in LOCKS)
