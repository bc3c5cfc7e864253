"""What can be done in the console, asked over HTTP of a real folder: with the token, by its page, after a question."""

from __future__ import annotations

import getpass
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from console_asking import ask, asked, done, page_headers
from tiny_federation import tiny_config
from typer.testing import CliRunner
from written_run import console_folder, record, shown, write_run

from fedrag.cli.main import app
from fedrag.coordinator.backup import back_up
from fedrag.coordinator.console_acts import ACTS
from fedrag.coordinator.console_token import TOKEN_FILE, is_token, read_token, renew_token
from fedrag.coordinator.outcome import read_outcome
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.runs.run_folder import RunFolder
from fedrag.security.keys import fingerprint, load_public_key, new_key

pytestmark = pytest.mark.usefixtures("tiny_home")

SCENARIO = tiny_config().to_toml()


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    return console_folder(tmp_path)


@pytest.fixture
def said() -> list[str]:
    """What the console said in its terminal."""
    return []


@pytest.fixture
def address(folder: ServerFolder, said: list[str]) -> Iterator[str]:
    with shown(folder, said.append) as address:
        yield address


@pytest.fixture
def running(folder: ServerFolder) -> Iterator[None]:
    """Hold the folder as a coordinator does that runs."""
    with folder.lock():
        yield


def content(folder: ServerFolder) -> dict[str, bytes]:
    found = {str(path.relative_to(folder.path)): path for path in folder.path.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != ".lock"}


def site_names(folder: ServerFolder) -> list[str]:
    return [site.name for site in folder.register.sites()]


REMOVE = {"site": "north", "confirm": "north"}

FORGED = {
    "no page": {"Origin": None, "Sec-Fetch-Site": None},
    "another page": {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"},
    "another page in an old browser": {"Origin": "http://evil.example", "Sec-Fetch-Site": None},
    "another port of this machine": {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
    "the same by another scheme": {"Origin": "https://{host}"},
    "a page in a frame without a name": {"Origin": "null"},
    "a page that hides its origin": {"Origin": None},
    "a person": {"Sec-Fetch-Site": "none"},
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_another_page_changes_nothing_even_with_the_token(address: str, folder: ServerFolder, forged):
    headers = page_headers(address, folder) | forged
    host = address.removeprefix("http://")
    sent = {name: value.format(host=host) for name, value in headers.items() if value is not None}
    before = content(folder)
    answer = httpx.post(f"{address}/acts/remove-site", headers=sent, json=REMOVE)
    assert answer.status_code == 403
    assert content(folder) == before


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_page_may_send_without_asking_first_is_no_act(address: str, folder: ServerFolder, kind: str):
    """A form, or a request that needs no permission, has one of these types."""
    headers = page_headers(address, folder) | {"Content-Type": kind}
    answer = httpx.post(f"{address}/acts/remove-site", headers=headers, content=b'{"site":"north","confirm":"north"}')
    assert (answer.status_code, site_names(folder)) == (415, ["north", "south"])


def test_a_name_that_was_made_to_point_here_changes_nothing(address: str, folder: ServerFolder):
    for host in ("evil.example", f"evil.example:{address.rpartition(':')[2]}"):
        headers = page_headers(f"http://{host}", folder) | {"Host": host}
        answer = httpx.post(f"{address}/acts/remove-site", headers=headers, json=REMOVE)
        assert (answer.status_code, site_names(folder)) == (421, ["north", "south"])


@pytest.mark.parametrize("shown_as", ["", "Bearer", "Bearer x", "Basic {}", "{}", "Bearer {}x", "Bearer {:.63}"])
def test_without_the_token_nothing_is_done_and_the_way_to_it_is_told(address: str, folder: ServerFolder, shown_as: str):
    headers = page_headers(address, folder) | {"Authorization": shown_as.format(read_token(folder))}
    for act in ("unlock", *ACTS):
        answer = httpx.post(f"{address}/acts/{act}", headers=headers, json=REMOVE)
        assert answer.status_code == 401
        assert answer.text == f"the token is missing or wrong; to see it: fedrag server token {folder.path}\n"
    assert site_names(folder) == ["north", "south"]


def test_a_token_in_the_url_or_in_a_cookie_is_none(address: str, folder: ServerFolder):
    headers = page_headers(address, folder)
    token = headers.pop("Authorization").removeprefix("Bearer ")
    for query, cookie in ((f"?token={token}", {}), ("", {"token": token})):
        sent = headers | ({"Cookie": f"token={token}"} if cookie else {})
        assert httpx.post(f"{address}/acts/remove-site{query}", headers=sent, json=REMOVE).status_code == 401


def test_no_answer_holds_the_token_or_sets_a_cookie(address: str, folder: ServerFolder):
    """A browser would send a cookie of this address to every port of it."""
    write_run(folder, [record(1)])
    answers = [httpx.get(f"{address}/{path}") for path in ("", "acts.js", "acts.css", "console.js")]
    answers += [ask(address, folder, "unlock"), ask(address, folder, "remove-site", site="north")]
    for answer in answers:
        assert "set-cookie" not in answer.headers
        assert read_token(folder) not in answer.text
    assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 204, 200]


def test_a_token_that_others_can_read_is_none(address: str, folder: ServerFolder):
    (folder.path / TOKEN_FILE).chmod(0o640)
    headers = {"Origin": address, "Authorization": f"Bearer {(folder.path / TOKEN_FILE).read_text()}"}
    answer = httpx.post(f"{address}/acts/remove-site", headers=headers, json=REMOVE)
    assert (answer.status_code, site_names(folder)) == (401, ["north", "south"])
    assert "others than its owner can read it; run: chmod 600" in answer.text


def test_a_coordinator_that_never_started_has_no_token(address: str, folder: ServerFolder):
    (folder.path / TOKEN_FILE).unlink()
    answer = httpx.post(f"{address}/acts/unlock", headers={"Origin": address, "Authorization": "Bearer x"}, json={})
    assert answer.status_code == 401
    assert f"there is no token yet: the first start makes one; run: fedrag server start {folder.path}" in answer.text


def test_each_start_makes_a_new_token_that_its_owner_alone_can_read(folder: ServerFolder):
    first = read_token(folder)
    renew_token(folder)
    second = read_token(folder)
    assert (is_token(folder, first), is_token(folder, second), len(second)) == (False, True, 64)
    assert stat.S_IMODE((folder.path / TOKEN_FILE).stat().st_mode) == 0o600


def test_a_command_shows_the_token_and_a_backup_has_none(folder: ServerFolder, tmp_path: Path):
    result = CliRunner().invoke(app, ["server", "token", str(folder.path)])
    assert (result.exit_code, result.stdout) == (0, f"{read_token(folder)}\n")
    back_up(folder, tmp_path / "backup.tar.gz")
    with tarfile.open(tmp_path / "backup.tar.gz") as archive:
        names = [Path(name).name for name in archive.getnames()]
    assert TOKEN_FILE not in names
    assert "signing.key" in names


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_an_act_is_asked_with_post_alone(address: str, folder: ServerFolder, method: str):
    answer = httpx.request(method, f"{address}/acts/remove-site", headers=page_headers(address, folder))
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


BODIES = {
    "no JSON": b"site=north",
    "no text": b"\xff\xfe",
    "a list": b'["north"]',
    "a number": b'{"site": 1}',
    "a deep one": b"[" * 200_000,
    "a large one": b'{"site": "' + b"n" * 300_000 + b'"}',
    "none": b"",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_is_no_object_of_texts_is_refused_in_one_sentence(address: str, folder: ServerFolder, body: bytes):
    headers = page_headers(address, folder) | {"Content-Type": "application/json"}
    answer = httpx.post(f"{address}/acts/remove-site", headers=headers, content=body)
    assert (answer.status_code, answer.text.count("\n")) == (400, 1)
    assert answer.text in ("expected a JSON object of texts\n", "the request is larger than 262.1 kB\n")


def test_an_act_that_is_unknown_or_lacks_something_is_told(address: str, folder: ServerFolder):
    assert ask(address, folder, "format-disk").status_code == 404
    for act, missing in (("stop", "run"), ("resume", "run"), ("add-site", "key"), ("remove-site", "site")):
        answer = ask(address, folder, act)
        assert (answer.status_code, answer.text) == (400, f'"{missing}" is missing\n')


def test_a_run_is_started_as_its_dry_run_was_shown(address: str, folder: ServerFolder, running: None, said: list[str]):
    before = content(folder)
    told = asked(address, folder, "start", scenario="tiny.toml", changes="federation.rounds=3")
    assert told["question"]["sentence"] == "Start a run of tiny? This is what it would do."
    assert "tiny: 3 rounds, schedule joint" in told["question"]["html"]
    assert "north" in told["question"]["html"]
    assert content(folder) == before
    fields = {"scenario": "tiny.toml", "confirm": told["confirm"]}
    again = asked(address, folder, "start", **fields, changes="federation.rounds=4")
    assert "tiny: 4 rounds" in again["question"]["html"]  # not what was shown: asked anew
    assert content(folder) == before
    assert asked(address, folder, "start", **fields, changes="federation.rounds=3") == {"done": "tiny-1 starts"}
    assert folder.current()["run"] == "tiny-1"
    assert RunFolder.open(folder.runs / "tiny-1").config.federation.rounds == 3
    assert read_outcome(folder.runs / "tiny-1").state == "waiting"
    assert said == [f"{getpass.getuser()}, in the console: tiny-1 starts"]


def test_a_scenario_that_is_changed_after_it_was_shown_is_shown_again(
    address: str, folder: ServerFolder, running: None
):
    told = asked(address, folder, "start", scenario="tiny.toml")
    (folder.scenarios / "tiny.toml").write_text(tiny_config(federation={"rounds": 7}).to_toml())
    again = asked(address, folder, "start", scenario="tiny.toml", confirm=told["confirm"])
    assert "7 rounds" in again["question"]["html"]
    assert folder.current() == {}


def test_the_text_of_a_scenario_is_started_too(address: str, folder: ServerFolder, running: None):
    assert done(address, folder, "start", text=SCENARIO) == "tiny-1 starts"


@pytest.mark.parametrize("name", ["../server.toml", "/etc/passwd", "other.toml", "../../scenario.toml"])
def test_no_file_outside_the_folder_of_scenarios_is_read(address: str, folder: ServerFolder, name: str):
    answer = ask(address, folder, "start", scenario=name)
    assert answer.status_code == 400
    assert answer.text == f"{name}: no such scenario in {folder.scenarios}; there are: tiny.toml\n"


@pytest.mark.parametrize("fields", [{}, {"text": SCENARIO, "scenario": "tiny.toml"}])
def test_a_start_names_a_scenario_or_brings_its_text(address: str, folder: ServerFolder, fields: dict[str, str]):
    answer = ask(address, folder, "start", **fields)
    assert answer.status_code == 400
    assert "one of the two" in answer.text


def test_what_the_command_line_refuses_is_refused_in_its_words(address: str, folder: ServerFolder):
    answer = ask(address, folder, "start", text='name = "x"\nrounds = 2\n')
    assert answer.status_code == 400
    assert answer.text.startswith("the scenario: ")
    with folder.lock():
        folder.begin(write_run(folder, [record(1)], "running").path.name)
        told = asked(address, folder, "start", scenario="tiny.toml")
        assert "it could not begin now: written-1 is running" in told["question"]["html"]
        assert told["question"]["sentence"] == "tiny cannot be started now. This is what a run of it would do."
        assert told["question"]["button"] == ""
        answer = ask(address, folder, "start", scenario="tiny.toml", confirm=told["confirm"])
    assert (answer.status_code, answer.text.startswith("written-1 is running; wait for it")) == (400, True)
    assert "tiny-1" not in [path.name for path in folder.runs.iterdir()]


def test_a_run_is_stopped_and_resumed_by_its_name(address: str, folder: ServerFolder, running: None, said: list[str]):
    other = write_run(folder, [record(1)], "stopped").path.name
    folder.begin(write_run(folder, [record(1)], "running").path.name)
    answer = ask(address, folder, "stop", run=other, confirm=other)
    assert (answer.status_code, answer.text) == (400, f"{other} is not in progress\n")
    told = asked(address, folder, "stop", run="written-2")
    assert told["question"]["sentence"].startswith("Stop written-2? The round in progress is lost")
    assert not folder.current()["stop"]
    assert asked(address, folder, "stop", run="written-2", confirm="written-2") == {"done": "written-2 stops"}
    assert folder.current()["stop"]
    folder.end()  # as the service does
    assert done(address, folder, "resume", run="written-1") == "written-1 resumes"
    assert folder.current()["run"] == "written-1"
    user = getpass.getuser()
    assert said == [f"{user}, in the console: written-2 stops", f"{user}, in the console: written-1 resumes"]


def test_a_site_is_registered_once_its_fingerprint_was_shown(address: str, folder: ServerFolder, tmp_path: Path):
    new_key(tmp_path / "east.key")
    key, mark = (tmp_path / "east.pub").read_text(), fingerprint(load_public_key(tmp_path / "east.pub"))
    told = asked(address, folder, "add-site", name="east", key=key)
    assert f"Register east with the key {mark}?" in told["question"]["sentence"]
    assert site_names(folder) == ["north", "south"]
    assert done(address, folder, "add-site", name="east", key=key) == f"east is registered with the key {mark}"
    assert site_names(folder) == ["east", "north", "south"]
    answer = ask(address, folder, "add-site", name="west", key=key, confirm=mark)
    assert (answer.status_code, answer.text) == (400, "the key: this key is registered already, as east\n")
    private = (tmp_path / "east.key").read_text()
    answer = ask(address, folder, "add-site", name="west", key=private)
    assert (answer.status_code, "is a private key, which never leaves its owner" in answer.text) == (400, True)


def test_a_site_is_removed_once_its_name_was_typed(address: str, folder: ServerFolder):
    for typed in ("", "south", "North", "yes"):
        told = asked(address, folder, "remove-site", site="north", confirm=typed)
        assert (told["question"]["typed"], told["confirm"]) == ("north", "")
    assert site_names(folder) == ["north", "south"]
    told = asked(address, folder, "remove-site", site="north", confirm="north")
    assert told == {"done": "north is removed; its key can never be registered again"}
    assert site_names(folder) == ["south"]
    assert ask(address, folder, "remove-site", site="north", confirm="north").status_code == 400


def test_a_register_that_the_superlink_would_not_learn_of_is_left_as_it_is(
    address: str, folder: ServerFolder, running: None, tmp_path: Path
):
    """It was changed, and the command failed: the site was removed, and stayed connected."""
    new_key(tmp_path / "east.key")
    key = (tmp_path / "east.pub").read_text()
    mark = asked(address, folder, "add-site", name="east", key=key)["confirm"]
    for act, fields in (("remove-site", REMOVE), ("add-site", {"name": "east", "key": key, "confirm": mark})):
        answer = ask(address, folder, act, **fields)
        assert (answer.status_code, answer.text.startswith("the SuperLink is starting")) == (400, True)
    assert site_names(folder) == ["north", "south"]


def test_what_a_site_told_is_text_and_no_markup_in_a_dry_run(address: str, folder: ServerFolder):
    hostile = "<img src=x onerror=alert(1)>"
    write_run(folder, [record(1)]).record_sites({"north": {"version": hostile, "counts": {}, "policy": {}}})
    html = asked(address, folder, "start", scenario="tiny.toml")["question"]["html"]
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    assert "<img" not in html
