"""`fedrag client check`, as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from clinic import CHECKS, healthy_coordinator, make_clinic, set_setting
from typer.testing import CliRunner

from fedrag.cli.main import app


@pytest.fixture
def clinic(tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_clinic(tmp_path)


def check(*options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["client", "check", "clinic", *options])
    assert result.stderr == ""
    return result.exit_code, result.stdout


def test_a_site_that_is_ready_has_a_line_for_each_thing_and_exit_code_0(clinic: Path):
    with healthy_coordinator(clinic):
        code, output = check()
    assert code == 0
    assert [line.split(": ")[0] for line in output.splitlines()] == [f"ok     {name}" for name in CHECKS]


def test_what_is_to_be_done_is_told_and_the_exit_code_is_2(clinic: Path):
    (clinic / "site.key").chmod(0o640)
    code, output = check()
    assert code == 2
    to_do = [line for line in output.splitlines() if not line.startswith("ok ")]
    assert [line.split(": ")[0] for line in to_do] == ["to do  private key", "to do  server"]
    assert "run: chmod 600 " in to_do[0]
    assert "Traceback" not in output


def test_json_says_the_same(clinic: Path):
    _, lines = check()
    code, output = check("--json")
    found = json.loads(output)
    assert (code, found["ok"]) == (2, False)
    assert [f"{'ok   ' if row['ok'] else 'to do'}  {row['name']}" for row in found["checks"]] == [
        line.split(": ")[0] for line in lines.splitlines()
    ]


def test_settings_that_cannot_be_read_are_told_and_nothing_else_is_tried(clinic: Path):
    set_setting(clinic, "server", '"https://nowhere"')
    code, output = check()
    assert code == 2
    assert output.splitlines()[-1].startswith(
        "to do  site.toml: clinic/site.toml: server = 'https://nowhere': must be HOST"
    )
    assert len(output.splitlines()) == 2
