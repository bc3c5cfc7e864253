"""`fedrag serve` and `fedrag client serve`, as a person types them."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from clinic import QUESTION, deliver, make_clinic, trained_run
from fedrag_process import await_moment, started
from tiny_federation import SHIPPED, tiny_config
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.data.site_folder import load_site
from fedrag.evaluation.answerer import Answerer
from fedrag.runs.run_folder import RunFolder
from fedrag.site.delivery import roll_back

NORTH = str(SHIPPED / "north")


@pytest.fixture(scope="module")
def run(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained_run(tmp_path_factory.mktemp("serve") / "tiny-1")


@pytest.fixture(autouse=True)
def _here(tiny_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDRAG_HOME", str(tiny_home))
    monkeypatch.chdir(tmp_path)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").json() == {"status": "ok"}
    except httpx.HTTPError:
        return False


@contextmanager
def service(*arguments: str | Path) -> Iterator[tuple[int, object]]:
    """Start a service; give its port and its process."""
    port = free_port()
    with started(*arguments, "--port", str(port)) as process:
        await_moment(process, lambda: is_up(port), every_s=0.5)
        yield port, process


def ask(port: int) -> tuple[str, str]:
    """Return who answers, and the answer."""
    body = {"model": "fedrag", "messages": [{"role": "user", "content": QUESTION}]}
    reply = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body, timeout=60).json()
    return reply["model"], reply["choices"][0]["message"]["content"]


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    [line] = [line for line in result.stderr.splitlines() if line]
    return line


def answer_of(state, config=None) -> str:
    return Answerer(config or tiny_config(), state, load_site(SHIPPED / "north")).answer([QUESTION])[0].answer


def test_a_run_is_served_on_loopback_alone_until_it_is_asked_to_end(run: RunFolder):
    for number in (signal.SIGTERM, signal.SIGINT):
        with service("serve", run.path, "--data", NORTH) as (port, process):
            assert ask(port) == ("tiny-1", answer_of(run.load_result(), run.config))
            with pytest.raises(OSError):  # noqa: PT011  # refused or unreachable, as the system says it
                socket.create_connection(("127.0.0.2", port), timeout=1)
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
        assert (process.returncode, err) == (0, "")
        first, last = (line[20:] for line in out.splitlines())
        assert first.startswith(f"tiny-1 answers for north at http://127.0.0.1:{port}/: for everyone who works on this")
        assert last == "the service stops"
        assert QUESTION not in out


def test_a_scenario_is_served_with_untouched_models(run: RunFolder):
    Path("mine.toml").write_text(tiny_config(SHIPPED / "north").to_toml())
    with service("serve", "mine.toml", "--data", NORTH) as (port, _):
        assert ask(port) == ("untouched", answer_of({}))


def test_a_site_serves_what_it_received_and_takes_a_new_delivery_in_without_a_restart(run: RunFolder, tmp_path: Path):
    clinic = make_clinic(tmp_path)
    deliver(clinic, run, "first-1", "retriever")
    with service("client", "serve", clinic) as (port, process):
        assert ask(port)[0] == "first-1"
        deliver(clinic, run)
        assert ask(port) == ("tiny-1", answer_of(run.load_result(), run.config))
        roll_back(clinic)
        assert ask(port)[0] == "first-1"
        (clinic / "models" / "current.json").write_text("{}")
        assert ask(port)[0] == "first-1"
        process.terminate()
        out, _ = process.communicate(timeout=30)
    told = [line[20:] for line in out.splitlines()]
    assert told[1:3] == ["tiny-1 answers from now on", "first-1 answers from now on"]
    assert re.fullmatch(r"first-1 goes on answering: .*current\.json: expected the list of the deliveries", told[3])


def test_a_site_whose_deliveries_are_all_taken_back_serves_the_untouched_models(run: RunFolder, tmp_path: Path):
    clinic = make_clinic(tmp_path)
    deliver(clinic, run)
    roll_back(clinic)
    with service("client", "serve", clinic) as (port, _):
        assert ask(port) == ("untouched", answer_of({}, run.config))


def test_a_port_that_is_taken_is_told_in_one_sentence_before_anything_is_loaded(run: RunFolder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        begun = time.monotonic()
        sentence = refusal("serve", str(run.path), "--data", NORTH, "--port", port)
    expected = f"Error: port {port} of 127.0.0.1 cannot be used: Address already in use; choose another with --port"
    assert sentence == expected
    assert time.monotonic() - begun < 20


def test_other_machines_are_let_in_with_a_token_only(run: RunFolder, tmp_path: Path):
    sentence = refusal("serve", str(run.path), "--data", NORTH, "--host", "0.0.0.0")
    assert sentence == (
        "Error: --host 0.0.0.0: other machines would reach the service; name a token with --token-file FILE"
    )
    token = tmp_path / "token"
    arguments = ("serve", str(run.path), "--data", NORTH, "--host", "0.0.0.0", "--token-file", str(token))
    assert "no such file; make one with: openssl rand -hex 32" in refusal(*arguments)
    token.write_text("0123456789abcdef0123456789abcdef\n")
    token.chmod(0o600)
    port = free_port()
    with started(*arguments, "--port", str(port)) as process:
        await_moment(process, lambda: is_up(port), every_s=0.5)
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code == 401
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"}
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models", headers=headers).status_code == 200
        process.terminate()
        out, _ = process.communicate(timeout=30)
    assert "for everyone who has the token" in out
    assert "put a proxy with TLS in front" in out


def test_what_cannot_be_served_is_told_in_one_sentence(run: RunFolder, tmp_path: Path):
    assert "holds 3 sites (east, north, south); name one" in refusal("serve", str(run.path), "--data", str(SHIPPED))
    port = str(free_port())
    assert "none: is no run folder" in refusal("serve", "none", "--data", NORTH, "--port", port)
    assert "no such scenario file" in refusal("serve", "none.toml", "--data", NORTH, "--port", port)
    assert "site.toml: no such file" in refusal("client", "serve", str(tmp_path))
