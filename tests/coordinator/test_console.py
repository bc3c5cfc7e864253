"""The console of a real folder, asked over HTTP."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from fedrag_process import await_moment, started
from ports import free_port
from typer.testing import CliRunner
from written_run import REFUSAL, add_round, new_folder, record, shown, write_run

from fedrag.cli.main import app
from fedrag.coordinator.console_state import policy_codes
from fedrag.coordinator.outcome import Outcome, write_outcome
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.files import write_json
from fedrag.reporting.curves import curve_plots
from fedrag.reporting.page import render
from fedrag.runs.run_folder import RunFolder
from fedrag.service.web import HEADERS
from fedrag.site.policy import policy_numbers
from fedrag.site.site_config import Policy

HOSTILE = "<img src=x onerror=alert(1)>&\"'"
ROUNDS = [record(1), record(2, {"south": REFUSAL.format(1)}), record(3, {"south": REFUSAL.format(2)})]


class Text(HTMLParser):
    """What a reader finds: the text, and every tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.tags = "", set[str]()
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.text += " "

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ServerFolder:
    """A folder with a finished run; tests leave it as it is."""
    folder = new_folder(tmp_path_factory.mktemp("whole"))
    write_run(folder, ROUNDS)
    return folder


@pytest.fixture(scope="module")
def address(whole: ServerFolder) -> Iterator[str]:
    with shown(whole) as address:
        yield address


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    """A folder that a test may change."""
    return new_folder(tmp_path)


def read(address: str, query: str = "") -> str:
    answer = httpx.get(f"{address}/{query}")
    assert answer.status_code == 200, answer.text
    return Text(answer.text).text


def next_event(lines: Iterator[str]) -> dict[str, str]:
    """Return the next event's sections."""
    line = next(line for line in lines if line)
    assert line.startswith("data: ")
    return json.loads(line.removeprefix("data: "))


def test_the_page_shows_sites_run_bytes_failures_and_runs(address: str, whole: ServerFolder):
    text = read(address)
    assert "rag.example.org:8443 not running The coordinator is not running" in text
    assert "Certificate 364 days left" in text
    assert f"Fingerprint of the signing key {whole.signing_fingerprint}" in text
    assert "north unknown – not told SHA256:" in text
    assert "south unknown – not told Refused in round 3: policy-quiet-hours SHA256:" in text
    assert "Run written-1 finished round 3 of 3" in text
    assert "The result was delivered to north." in text
    assert "north 3 3 3.0 kB 1.8 kB south 3 1 3.0 kB 600 B" in text
    assert f"south {REFUSAL.format(2)} 2 3 Settings of written-1" in text
    assert "written-1 finished 3 of 3" in text


def test_the_page_shows_a_curve_for_each_thing_that_was_measured(address: str):
    html = httpx.get(address).text
    assert 'aria-label="Training loss of the retriever by round. round 1: 1, round 2: 0.5, round 3: 0.333."' in html
    assert 'aria-label="Validation of the retriever by round. round 1: 0.5, round 2: 0.5, round 3: 0.5."' in html
    assert 'aria-label="Size of the retriever&#39;s update by round. round 1: 0.1, round 2: 0.1, round 3: 0.1."' in html
    assert (
        'aria-label="Aggregation error of the retriever by round. round 1: 0.002, round 2: 0.004, round 3: 0.006."'
        in html
    )
    assert html.count("<svg") == 4


def test_the_report_of_the_run_holds_the_same_figures(address: str, whole: ServerFolder):
    html = httpx.get(address).text
    plots = curve_plots(ROUNDS, ("retriever",), 3)
    assert len(plots) == 4
    report = render(RunFolder.open(whole.runs / "written-1"))
    for plot in plots:
        assert plot.svg in html
        assert plot.svg in report
        assert f"<strong>{plot.title}</strong> {plot.caption}".replace("'", "&#39;") in html
        assert f"<strong>{plot.title}</strong> {plot.caption}".replace("'", "&#39;") in report


def test_the_event_stream_gives_all_sections_and_then_those_that_change(folder: ServerFolder):
    run = write_run(folder, ROUNDS[:2], state="running")
    with shown(folder) as address, httpx.stream("GET", f"{address}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        first = next_event(lines)
        assert list(first) == ["state", "sites", "run", "settings", "runs"]
        assert "round 2 of 3" in first["run"]
        add_round(run, record(3))
        second: dict[str, str] = {}
        while not {"run", "runs"} <= second.keys():
            second |= next_event(lines)
        assert "round 3 of 3" in second["run"]
        assert "sites" not in second


def test_the_policy_that_a_site_told_is_shown_in_words_beside_what_it_refused(folder: ServerFolder):
    run = write_run(folder, ROUNDS)
    strict = policy_numbers(Policy(components=("generator",), rounds_a_day=1, quiet_hours="08:00-18:00"))
    said = {"version": "0.1.0", "counts": {}}
    run.record_sites({"north": said | {"policy": {}}, "south": said | {"policy": strict}})
    with shown(folder) as address:
        text = read(address)
        told = "generator only at most 1 round a day no work 08:00-18:00 (its time)"
        assert "north unknown – not told SHA256:" in text
        assert f"south unknown – {told} Refused in round 3: policy-quiet-hours SHA256:" in text
        run.record_sites({"north": said | {"policy": policy_numbers(Policy())}})
        assert "north unknown – allows everything SHA256:" in read(address)


def test_the_newest_run_is_shown_unless_another_is_chosen(folder: ServerFolder):
    write_run(folder, ROUNDS[:1])
    with shown(folder) as address:
        assert "Run written-1 finished round 1 of 3" in read(address)
        write_run(folder, ROUNDS)
        assert "Run written-2 finished round 3 of 3" in read(address)
        assert "Run written-1 finished round 1 of 3" in read(address, "?run=written-1")


def test_only_runs_of_the_folder_can_be_chosen(address: str):
    for path in ("/", "/events"):
        for run in ("written-9", "../runs/written-1", "."):
            answer = httpx.get(address + path, params={"run": run})
            assert (answer.status_code, answer.text) == (404, "there is no such run\n")


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/", "/events", "/console.js", "/nothing"])
def test_nothing_but_get_is_answered(address: str, method: str, path: str):
    answer = httpx.request(method, address + path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize("host", ["evil.example:{}", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{}", ""])
def test_a_name_that_was_made_to_point_here_is_refused(address: str, host: str):
    port = address.rpartition(":")[2]
    for path in ("/", "/events", "/console.js"):
        answer = httpx.get(address + path, headers={"Host": host.format(port)})
        assert answer.status_code == 421
        assert "rag.example.org" not in answer.text


def test_the_console_answers_to_localhost_too(address: str):
    port = address.rpartition(":")[2]
    assert httpx.get(address, headers={"Host": f"localhost:{port}"}).status_code == 200


def test_another_sites_page_may_lead_here_but_not_read(address: str):
    foreign = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    assert httpx.get(f"{address}/events", headers=foreign).status_code == 403
    assert httpx.get(address, headers=foreign | {"Sec-Fetch-Mode": "navigate"}).status_code == 200
    assert httpx.get(f"{address}/console.js", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200


def test_every_answer_carries_the_same_strict_headers(address: str):
    answers = [httpx.get(f"{address}/{path}") for path in ("", "console.css", "console.js", "icon.svg", "nothing")]
    answers += [httpx.post(address), httpx.get(address, headers={"Host": "evil.example"})]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 404, 405, 421]
    for answer in answers:
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy


def test_what_sites_are_called_and_say_is_text_and_no_markup(folder: ServerFolder):
    sites = ("north", HOSTILE)
    write_run(folder, [record(1, {HOSTILE: f"{HOSTILE} (policy-model)"}, sites)], "stopped", f"{HOSTILE} is why")
    with shown(folder) as address:
        html = httpx.get(address).text
        with httpx.stream("GET", f"{address}/events") as stream:
            sections = next_event(stream.iter_lines())
    for text in (html, "".join(sections.values())):
        assert "img" not in Text(text).tags
        assert f"{HOSTILE} (policy-model)" in Text(text).text
        assert f"{HOSTILE} is why" in Text(text).text


def test_no_key_is_shown_beyond_its_fingerprint(address: str, whole: ServerFolder):
    html = httpx.get(address).text
    for site in whole.register.sites():
        assert site.key.split()[1] not in html
    for name in ("signing.pub", "ca.crt", "executor.secret", "server.key"):
        words = [word for word in (whole.path / name).read_text().split() if len(word) > 20]
        assert words
        assert not [word for word in words if word in html]


def test_looking_changes_nothing(address: str, whole: ServerFolder):
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in whole.path.rglob("*") if path.is_file()}

    before = content()
    read(address)
    with httpx.stream("GET", f"{address}/events") as stream:
        next_event(stream.iter_lines())
    assert content() == before


def test_a_run_that_is_on_while_the_coordinator_is_not_is_interrupted(folder: ServerFolder):
    write_run(folder, ROUNDS[:1], state="running")
    with shown(folder) as address:
        assert "Run written-1 interrupted round 1 of 3" in read(address)
        with folder.lock():
            assert "SuperLink" not in read(address)
            assert "Run written-1 running round 1 of 3" in read(address)


def test_a_running_coordinator_that_does_not_answer_yet_costs_the_states_alone(folder: ServerFolder):
    write_run(folder, ROUNDS[:1])
    with folder.lock(), shown(folder) as address:
        text = read(address)
    assert "north unknown" in text
    assert "Run written-1 finished" in text


def test_a_run_that_stopped_says_why_and_how_it_goes_on(folder: ServerFolder):
    run = write_run(folder, ROUNDS[:1], "stopped", "round 2: 0 of 2 sites gave a valid reply")
    with shown(folder) as address:
        text = read(address)
        assert "round 2: 0 of 2 sites gave a valid reply" in text
        assert f"Go on with: fedrag server resume {folder.path} written-1" in text
        write_outcome(run.path, Outcome("running"))
        assert "Go on with" not in read(address)


def test_a_run_that_cannot_be_read_is_named_and_the_rest_stands(folder: ServerFolder):
    write_run(folder, ROUNDS)
    old = write_run(folder, ROUNDS[:1])
    write_json(old.path / "run.json", {"format": 1})
    with shown(folder) as address:
        text = read(address)
        assert (
            text.count("was written in run format 1, this fedrag reads format 2") == 2
        )  # in the list of runs, and where it would be shown
        assert "written-2 unknown" in text
        assert "north unknown" in text
        assert "Run written-1 finished round 3 of 3" in read(address, "?run=written-1")


def test_a_folder_without_sites_and_runs_says_what_comes_next(tmp_path: Path):
    folder = new_folder(tmp_path, sites=())
    with shown(folder) as address:
        text = read(address)
    assert f"No site is registered. Register one with: fedrag server add-site {folder.path}" in text
    assert f"No run yet. Begin one with: fedrag server run {folder.path}" in text


def test_the_command_listens_on_loopback_alone_and_ends_in_order(whole: ServerFolder):
    port = free_port()
    with started("server", "console", whole.path, "--port", str(port)) as process:
        await_moment(process, lambda: answers("127.0.0.1", port), every_s=0.2)
        assert not answers("127.0.0.2", port)  # a machine's every address, were it 0.0.0.0
        with httpx.stream("GET", f"http://127.0.0.1:{port}/events") as stream:
            lines = stream.iter_lines()  # held: the stream ends with it
            next_event(lines)
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert f"the console is at http://127.0.0.1:{port}/" in out
    assert out.endswith("the console stops\n")


def test_a_port_that_is_taken_is_told_in_one_sentence(whole: ServerFolder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["server", "console", str(whole.path), "--port", str(port)])
    sentence = f"port {port} of 127.0.0.1 cannot be used: Address already in use; choose another with --port"
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"Error: {sentence}\n")


def test_a_folder_that_is_no_coordinators_is_told_in_one_sentence(tmp_path: Path):
    result = CliRunner().invoke(app, ["server", "console", str(tmp_path)])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "server.toml: no such file, so this is not a coordinator's folder" in result.stderr


def answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def test_the_latest_policy_code_comes_first_and_other_refusals_are_none():
    rounds = [
        record(1, {"a": "it may not (policy-model)"}),
        record(2, {"a": "its disk is full (no-disk-space)", "b": "no (policy-rounds; error 0a0a0a0a in the log)"}),
        record(3, {"a": "it may not (policy-quiet-hours)"}),
        record(4, {"a": "it may not (policy-model)"}),
    ]
    found = policy_codes(rounds)
    assert {site: list(codes.items()) for site, codes in found.items()} == {
        "a": [("policy-model", 4), ("policy-quiet-hours", 3)],
        "b": [("policy-rounds", 2)],
    }


def test_all_that_console_and_report_show_is_in_the_wheel():
    root = Path(__file__).parents[2]
    patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["fedrag"]
    folders = (root / "fedrag/coordinator/templates", root / "fedrag/reporting/templates")
    files = [path.relative_to(root / "fedrag") for folder in folders for path in folder.iterdir()]
    assert len(files) >= 11
    assert [path for path in files if not any(fnmatch(str(path), pattern) for pattern in patterns)] == []


def test_the_console_does_without_torch_until_a_dry_run_is_asked_for():
    """It took half a gigabyte, and many seconds to start."""
    code = "import sys, fedrag.coordinator.console; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
