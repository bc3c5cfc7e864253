"""`fedrag client init --data`: a folder as the shell takes it, which exists."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.site.site_config import SiteConfig

INIT = ("client", "init", "clinic", "--name", "clinic", "--server", "rag.example.org:8443")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "own data").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("here", "here"),
        ("./home/../here", "here"),
        ("~/own data", "home/own data"),
        ("home/own data/", "home/own data"),
    ],
)
def test_the_folder_is_named_from_where_one_stands(here: Path, given: str, meant: str):
    done = CliRunner().invoke(app, [*INIT, "--data", given])
    assert done.exit_code == 0, done.output
    assert SiteConfig.from_file(here / "clinic" / "site.toml").data == str(here / meant)


def test_without_it_the_data_lie_in_the_sites_own_folder(here: Path):
    assert CliRunner().invoke(app, [*INIT]).exit_code == 0
    assert SiteConfig.from_file(here / "clinic" / "site.toml").data == str(here / "clinic" / "data")


@pytest.mark.parametrize("given", ["elsewhere", "../here", "~/none", "a-file"])
def test_a_folder_that_is_not_there_is_refused_before_anything_is_made(here: Path, given: str):
    (here / "a-file").touch()
    done = CliRunner().invoke(app, [*INIT, "--data", given])
    assert done.exit_code == 2
    assert done.output == f"Error: {given}: no such folder; expected the folder of the site's questions and passages\n"
    assert not (here / "clinic").exists()
