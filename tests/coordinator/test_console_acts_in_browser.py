"""What can be done in the console, as a person does it in a browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from chromium import needs_chromium, watched_page
from playwright.sync_api import Browser, Page
from tiny_federation import tiny_config
from written_run import console_folder, record, shown, write_run

from fedrag.coordinator.console_token import read_token
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.runs.run_folder import RunFolder
from fedrag.security.keys import fingerprint, load_public_key, new_key

pytestmark = [needs_chromium, pytest.mark.usefixtures("tiny_home")]

SCENARIO = tiny_config().to_toml()


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    return console_folder(tmp_path)


@pytest.fixture
def address(folder: ServerFolder) -> Iterator[str]:
    with folder.lock(), shown(folder) as address:  # the lock: as a coordinator does that runs
        yield address


def opened(browser: Browser, address: str, width: int = 1100, **options: str) -> tuple[Page, list[str], list[str]]:
    page, requests, complaints = watched_page(browser, width, **options)
    page.goto(address)
    page.get_by_text("Live", exact=True).wait_for()
    return page, requests, complaints


def unlock(page: Page, folder: ServerFolder) -> None:
    page.get_by_label("Token", exact=True).fill(read_token(folder))
    page.get_by_role("button", name="Unlock").click()
    page.get_by_role("heading", name="Start a run").wait_for()


def test_nothing_can_be_pressed_before_the_token_is_given(browser: Browser, address: str, folder: ServerFolder):
    folder.begin(write_run(folder, [record(1)], "running").path.name)
    page, _, complaints = opened(browser, address)
    assert [button.inner_text() for button in page.get_by_role("button").all()] == ["Unlock"]
    unlock(page, folder)
    names = {button.inner_text() for button in page.get_by_role("button").all()}
    assert names >= {"Stop this run", "Remove", "Register", "Show what it would do", "Lock"}
    page.reload()
    page.get_by_role("button", name="Lock", exact=True).click()  # the tab kept the token until now
    assert [button.inner_text() for button in page.get_by_role("button").all()] == ["Unlock"]
    assert page.evaluate("Object.keys(sessionStorage).length + Object.keys(localStorage).length") == 0
    assert complaints == []


def test_a_wrong_token_is_told_and_not_kept(browser: Browser, address: str, folder: ServerFolder):
    page, _, _ = opened(browser, address)
    page.get_by_label("Token", exact=True).fill("wrong")
    page.get_by_role("button", name="Unlock").click()
    page.get_by_text(f"the token is missing or wrong; to see it: fedrag server token {folder.path}").wait_for()
    assert page.get_by_role("button", name="Unlock").is_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_a_run_is_started_with_its_dry_run_before_the_eyes_stopped_and_resumed(
    browser: Browser, address: str, folder: ServerFolder
):
    page, requests, complaints = opened(browser, address)
    unlock(page, folder)
    page.get_by_label("Scenario of").select_option("tiny.toml")
    page.get_by_label("Changes, one a line").fill("federation.rounds=3")
    page.get_by_role("button", name="Show what it would do").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("tiny: 3 rounds, schedule joint").wait_for(timeout=60_000)
    assert dialog.get_by_role("row", name="north").get_by_text("not known").is_visible()
    dialog.get_by_role("button", name="Cancel").click()
    dialog.wait_for(state="hidden")
    assert folder.current() == {}
    page.get_by_role("button", name="Show what it would do").click()
    dialog.get_by_role("button", name="Start the run").click(timeout=60_000)
    page.get_by_text("tiny-1 starts.").wait_for()
    assert folder.current()["run"] == "tiny-1"
    assert RunFolder.open(folder.runs / "tiny-1").config.federation.rounds == 3

    page.get_by_role("button", name="Stop this run").click(timeout=60_000)
    page.get_by_text("Stop tiny-1? The round in progress is lost").wait_for()
    dialog.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_text("tiny-1 stops.").wait_for()
    assert folder.current()["stop"]
    assert read_token(folder) not in "".join(requests)
    assert complaints == []


@pytest.fixture
def resting(folder: ServerFolder) -> Iterator[str]:
    """Show the console of a coordinator that does not run: its register can be changed without a SuperLink."""
    with shown(folder) as address:
        yield address


def test_the_enter_key_confirms_and_the_escape_key_does_not(browser: Browser, resting: str, folder: ServerFolder):
    page, _, complaints = opened(browser, resting)
    unlock(page, folder)
    remove = page.get_by_role("row", name="north").get_by_role("button", name="Remove")
    remove.click()
    page.get_by_label("To do so, type north").fill("north")
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    assert [site.name for site in folder.register.sites()] == ["north", "south"]
    remove.click()
    page.get_by_label("To do so, type north").fill("south")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").wait_for()
    assert [site.name for site in folder.register.sites()] == ["north", "south"]
    assert page.get_by_label("To do so, type north").input_value() == ""  # asked anew
    page.get_by_label("To do so, type north").fill("north")
    page.keyboard.press("Enter")
    page.get_by_text("north is removed; its key can never be registered again.").wait_for()
    assert [site.name for site in folder.register.sites()] == ["south"]
    page.get_by_role("row", name="north").wait_for(state="detached", timeout=60_000)
    assert complaints == []


def test_the_text_of_a_file_is_started_and_a_fault_in_it_is_told(
    browser: Browser, address: str, folder: ServerFolder, tmp_path: Path
):
    page, _, _ = opened(browser, address)
    unlock(page, folder)
    for name, text in (("wrong.toml", 'name = "x"\nrounds = 2\n'), ("right.toml", SCENARIO)):
        (tmp_path / name).write_text(text)
    page.get_by_label("Or a file from this computer").set_input_files(tmp_path / "wrong.toml")
    page.get_by_role("button", name="Show what it would do").click()
    page.get_by_text("the scenario: ").wait_for()
    page.get_by_label("Or a file from this computer").set_input_files(tmp_path / "right.toml")
    page.get_by_role("button", name="Show what it would do").click()
    page.get_by_role("dialog").get_by_role("button", name="Start the run").click(timeout=60_000)
    page.get_by_text("tiny-1 starts.").wait_for()


def test_what_is_typed_stays_while_the_page_is_live(browser: Browser, address: str, folder: ServerFolder):
    """The forms stand outside of the sections that are sent again."""
    page, _, _ = opened(browser, address)
    unlock(page, folder)
    page.get_by_label("Its name, as in its site.toml").fill("east")
    write_run(folder, [record(1)])
    page.get_by_role("heading", name="Run written-1").wait_for(timeout=60_000)
    assert page.get_by_label("Its name, as in its site.toml").input_value() == "east"


def test_a_site_is_registered_after_its_fingerprint_was_read(
    browser: Browser, resting: str, folder: ServerFolder, tmp_path: Path
):
    new_key(tmp_path / "east.key")
    page, _, complaints = opened(browser, resting)
    unlock(page, folder)
    page.get_by_label("Its name, as in its site.toml").fill("east")
    page.get_by_label("Its public key").fill((tmp_path / "east.pub").read_text())
    page.get_by_role("button", name="Register", exact=True).click()
    page.get_by_role("dialog").get_by_text(fingerprint(load_public_key(tmp_path / "east.pub"))).wait_for()
    page.get_by_role("dialog").get_by_role("button", name="Register").click()
    page.get_by_text("east is registered with the key SHA256:").wait_for()
    page.get_by_role("rowheader", name="east").wait_for(timeout=60_000)
    assert [site.name for site in folder.register.sites()] == ["east", "north", "south"]
    assert page.get_by_label("Its name, as in its site.toml").input_value() == ""
    assert complaints == []


FORGERY = """
<form id=f method=post enctype=text/plain action="{address}/acts/remove-site">
<input name='{{"site":"north","confirm":"north","x":"' value='"}}'></form>
<script>
  const url = "{address}/acts/remove-site";
  const body = JSON.stringify({{site: "north", confirm: "north"}});
  const tries = [
    fetch(url, {{method: "POST", body, credentials: "include", mode: "no-cors"}}),
    fetch(url, {{method: "POST", body, credentials: "include", headers: {{"Content-Type": "application/json"}}}}),
    fetch("{address}/", {{credentials: "include"}}),
  ];
  Promise.allSettled(tries).then((done) => {{
    document.title = done.map((one) => one.value?.type ?? "refused").join(" ");
    document.getElementById("f").submit();
  }});
</script>
"""


def test_a_page_of_another_site_in_an_unlocked_browser_changes_nothing(
    browser: Browser, address: str, folder: ServerFolder
):
    """A real page on another port forges the act, by requests and by a form, in the browser that has the token."""
    tried: list[str] = []

    class Evil(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(FORGERY.format(address=address).encode())

        def log_message(self, *words: object) -> None:
            pass

    evil = HTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=evil.serve_forever, daemon=True).start()
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(address)
        page.get_by_text("Live", exact=True).wait_for()
        unlock(page, folder)
        other = context.new_page()
        other.on("request", lambda request: tried.append(f"{request.method} {request.url.removeprefix(address)}"))
        other.goto(f"http://127.0.0.1:{evil.server_port}/")
        other.get_by_text("only the console's own page may change things").wait_for()
        assert [site.name for site in folder.register.sites()] == ["north", "south"]
        assert tried.count("POST /acts/remove-site") >= 2  # the form, and the request that needs no permission
        assert other.url.startswith(address)
    finally:
        context.close()
        evil.shutdown()
        evil.server_close()


@pytest.mark.parametrize("width", [320, 390, 1400])
def test_the_forms_and_the_question_do_not_scroll_sideways(
    browser: Browser, address: str, folder: ServerFolder, width: int
):
    page, _, _ = opened(browser, address, width)
    unlock(page, folder)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_label("Scenario of").select_option("tiny.toml")
    page.get_by_role("button", name="Show what it would do").click()
    page.get_by_role("dialog").get_by_text("tiny: 2 rounds").wait_for(timeout=60_000)
    assert page.evaluate("document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth")


def test_the_settings_of_a_run_stay_open_and_its_time_left_is_told(
    browser: Browser, address: str, folder: ServerFolder
):
    run = write_run(folder, [record(1, sites=("north",)) | {"seconds": 60.0}], "running")
    page, _, _ = opened(browser, address)
    assert page.get_by_text("about 2 min 00 s left").is_visible()
    assert page.locator("#settings pre").first.inner_text().startswith('name = "written"')
    page.get_by_text("All settings, with their defaults").click()
    assert "quorum = 0.5" in page.locator("#settings details pre").inner_text()
    run.record_sites({"north": {"version": "0.2.0", "counts": {}, "policy": {}}})
    folder.register.remove_site("south")
    page.get_by_role("rowheader", name="south").wait_for(state="detached", timeout=60_000)
    assert page.locator("#settings details pre").is_visible()


def test_what_cannot_be_started_now_is_shown_without_a_button_to_start_it(
    browser: Browser, resting: str, folder: ServerFolder
):
    page, _, complaints = opened(browser, resting)
    unlock(page, folder)
    page.get_by_label("Scenario of").select_option("tiny.toml")
    page.get_by_role("button", name="Show what it would do").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("it could not begin now: the coordinator is not running").wait_for(timeout=60_000)
    assert [button.inner_text() for button in dialog.get_by_role("button").all()] == ["Close"]
    page.keyboard.press("Enter")  # the sentence has the focus: a key pressed too often confirms nothing
    assert dialog.is_visible()
    assert complaints == []
