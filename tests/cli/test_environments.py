"""The command where little is as usual: another locale, no home, another system."""

from __future__ import annotations

import codecs
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fedrag_process import COMMAND
from tiny_federation import write_small_sites
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.data.site_folder import load_site

SCENARIO = """\
name = "trial"

[data]
sites = "sites"

[models]
generator = "fedrag/tiny-causal"
retriever = "fedrag/tiny-encoder"

[rag]
prompt_tokens = 192
answer_tokens = 4

[federation]
rounds = 1

[simulation]
threads = 1
"""
NO_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a scenario and two sites."""
    monkeypatch.chdir(tmp_path)
    write_small_sites(tmp_path / "sites", a=2, b=2)
    (tmp_path / "scenario.toml").write_text(SCENARIO, encoding="utf-8")
    return tmp_path


def run(*arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command in an environment that holds nothing else."""
    path = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    arguments_ = [os.fsencode(part) for part in (*COMMAND, *arguments)]
    result = subprocess.run(arguments_, capture_output=True, env=path | environment, check=False)
    assert result.returncode == code, result.stderr.decode(errors="replace")
    return result


# Locales


def test_sites_in_every_script_are_checked_where_the_locale_knows_ascii_only(folder: Path):
    (folder / "sites" / "a").rename(folder / "sites" / "北京协和医院")
    (folder / "sites" / "b").rename(folder / "sites" / "Đại học Y")
    result = run("data", "check", "sites", "--json", "báo cáo.json", **NO_UTF8)
    assert result.stdout.isascii()
    assert rb"\u5317\u4eac" in result.stdout
    report = json.loads((folder / "báo cáo.json").read_text(encoding="utf-8"))
    assert [site["name"] for site in report["sites"]] == ["Đại học Y", "北京协和医院"]


def test_a_terminal_of_another_alphabet_is_no_error(folder: Path):
    (folder / "sites" / "a").rename(folder / "sites" / "北京")
    result = run("data", "check", "sites", PYTHONIOENCODING="cp1252")
    assert rb"\u5317\u4eac" in result.stdout


@pytest.mark.slow
def test_a_federation_is_simulated_where_the_locale_knows_ascii_only(folder: Path, tiny_home: Path):
    (folder / "sites" / "a").rename(folder / "sites" / "北京")
    result = run("simulate", "scenario.toml", "--out", "chạy", FEDRAG_HOME=str(tiny_home), **NO_UTF8)
    assert b"report: " in result.stdout
    assert "北京" in (folder / "chạy" / "report.html").read_text(encoding="utf-8")


# Byte order marks


def test_a_scenario_may_begin_with_a_byte_order_mark(folder: Path, tiny_home: Path):
    (folder / "scenario.toml").write_bytes(codecs.BOM_UTF8 + SCENARIO.replace("\n", "\r\n").encode())
    result = CliRunner().invoke(app, ["simulate", "scenario.toml", "--dry-run"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le"])
def test_a_scenario_in_utf_16_is_refused_in_one_sentence(folder: Path, encoding: str):
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else codecs.BOM_UTF16_LE if encoding == "utf-16-le" else b""
    (folder / "scenario.toml").write_bytes(mark + SCENARIO.encode(encoding))
    result = CliRunner().invoke(app, ["simulate", "scenario.toml"])
    assert result.exit_code == 2
    assert result.stderr == "Error: scenario.toml: not UTF-8 text (byte 1); save it as UTF-8\n"


def test_every_file_of_a_site_may_begin_with_a_byte_order_mark(folder: Path):
    site = folder / "sites" / "a"
    before = load_site(site)
    (site / "site.json").write_text('{"language": "vi"}', encoding="utf-8")
    for file in site.iterdir():
        file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    found = load_site(site)
    assert (found.passages, found.questions, found.language) == (before.passages, before.questions, "vi")


def test_a_file_of_a_site_in_utf_16_is_named_once(folder: Path):
    file = folder / "sites" / "a" / "train.jsonl"
    file.write_text(file.read_text(encoding="utf-8"), encoding="utf-16")
    result = CliRunner().invoke(app, ["data", "check", "sites"])
    assert result.exit_code == 2
    assert result.output.count("train.jsonl") == 1
    assert "sites/a/train.jsonl: is UTF-16 text; save it as UTF-8" in result.output.replace("\n", "")


# No home


def test_sites_are_checked_without_any_variable_of_the_environment(folder: Path):
    run("data", "check", "sites")


def test_a_home_that_is_not_known_is_said_in_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch):
    def unknown(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("FEDRAG_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)
    result = CliRunner().invoke(app, ["models", "list"])
    assert result.exit_code == 2
    assert result.stderr == "Error: no home folder is known here; set FEDRAG_HOME to a folder for the models\n"


def test_a_home_that_cannot_be_written_is_said_in_one_sentence(folder: Path):
    result = run("models", "fetch", "fedrag/tiny-encoder", code=2, HOME="/dev/null")
    [line] = result.stderr.decode().splitlines()
    assert line.startswith("Error: /dev/null/.cache/fedrag")
    assert "cannot be written" in line


@pytest.mark.slow
@pytest.mark.parametrize("home", ["", "/dev/null"])
def test_a_federation_is_simulated_and_asked_without_a_home(folder: Path, tiny_home: Path, home: str):
    environment = {"FEDRAG_HOME": str(tiny_home)} | ({"HOME": home} if home else {})
    run("simulate", "scenario.toml", "--out", "run", **environment)
    assert (folder / "run" / "report.html").is_file()
    run("ask", "run", "What is it?", "--data", "sites/a", **environment)


# Other systems

NOT_UNIX = """
import builtins, importlib.abc, sys

MISSING = ("fcntl", "grp", "pwd")
OTHERS = ("pty", "resource", "syslog", "termios", "tty")  # libraries ask for the system before they import these

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def imported(name, globals=None, *rest, **named):
    if name in OTHERS and str((globals or {}).get("__name__")).startswith("fedrag"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return plain(name, globals, *rest, **named)

for name in MISSING:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Missing())
plain, builtins.__import__ = builtins.__import__, imported
"""


def without_unix(body: str, **environment: str) -> str:
    """Run Python where the modules of Unix are missing, as on Windows."""
    result = subprocess.run(
        [sys.executable, "-c", NOT_UNIX + body],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, **environment},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_a_federation_is_checked_simulated_asked_and_reported_without_what_unix_alone_has(
    folder: Path, tiny_home: Path
):
    body = """
from typer.testing import CliRunner
from fedrag.cli.main import app
for line in (
    "data check sites",
    "models list",
    "simulate scenario.toml --dry-run",
    "simulate scenario.toml --out run",
    "ask run What --data sites/a",
    "report run",
    "evaluate run --data sites",
):
    result = CliRunner().invoke(app, line.split())
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, (line, result.output)
"""
    shutil.rmtree(folder / "run", ignore_errors=True)
    without_unix(body, FEDRAG_HOME=str(tiny_home))
    assert (folder / "run" / "results.json").is_file()


def test_the_command_starts_without_what_unix_alone_has(folder: Path):
    body = """
from typer.testing import CliRunner
from fedrag.cli.main import app
result = CliRunner().invoke(app, ["data", "check", "sites"])
assert result.exit_code == 0, result.output
print(result.output)
"""
    assert "Passages" in without_unix(body)


@pytest.mark.parametrize("verb", ["server", "client"])
def test_a_deployment_says_that_it_wants_linux(verb: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    result = CliRunner().invoke(app, [verb, "start", "folder"])
    assert result.exit_code == 2
    sentence = f"fedrag {verb} needs Linux; simulate, data, models, ask and report run on this system too"
    assert result.stderr == f"Error: {sentence}\n"
