"""Whether the coordinator is reached: real TLS servers and proxies, and what a person is told of each failure."""

from __future__ import annotations

import http.server
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from clinic import healthy, make_clinic, renew, reverse_proxy

from fedrag.errors import ConfigError, ServiceError
from fedrag.security.certificates import expires
from fedrag.site.admin.reach import ask_health
from fedrag.site.site_config import SiteConfig


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    return make_clinic(tmp_path)


@pytest.fixture
def server(clinic: Path) -> Path:
    return clinic.parent / "server"


def at(clinic: Path, port: int, host: str = "127.0.0.1", **settings: str) -> SiteConfig:
    config = SiteConfig.from_file(clinic / "site.toml")
    return config.model_copy(update={"server": f"{host}:{port}", **settings})


def refusal(config: SiteConfig, timeout_s: float = 10.0) -> str:
    with pytest.raises(ServiceError) as caught:
        ask_health(config, timeout_s)
    return str(caught.value).removeprefix(config.server).strip()


def test_an_answer_shows_the_end_of_the_certificate_and_the_time(clinic: Path, server: Path):
    with reverse_proxy(server, healthy) as port:
        health = ask_health(at(clinic, port))
    assert health.certificate_ends == expires(server / "server.crt")
    assert health.clock_ahead_s is not None
    assert abs(health.clock_ahead_s) < 3


@pytest.mark.parametrize("ahead", [-90, 90])
def test_the_difference_of_the_clocks_comes_from_the_date_of_the_answer(clinic: Path, server: Path, ahead: int):
    def wrong_time(request: http.server.BaseHTTPRequestHandler) -> None:
        there = datetime.now(UTC) - timedelta(seconds=ahead)
        request.date_time_string = lambda timestamp=None: format_datetime(there, usegmt=True)  # type: ignore[method-assign]
        healthy(request)

    with reverse_proxy(server, wrong_time) as port:
        found = ask_health(at(clinic, port)).clock_ahead_s
    assert found == pytest.approx(ahead, abs=3)


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_an_answer_without_a_time_says_nothing_of_the_clock(clinic: Path, server: Path, date: str):
    def timeless(request: http.server.BaseHTTPRequestHandler) -> None:
        request.date_time_string = lambda timestamp=None: date  # type: ignore[method-assign]
        healthy(request)

    with reverse_proxy(server, timeless) as port:
        assert ask_health(at(clinic, port)).clock_ahead_s is None


def test_one_who_is_no_coordinator_is_told_from_one(clinic: Path, server: Path):
    def other(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "5")
        request.end_headers()
        request.wfile.write(b"hello")

    with reverse_proxy(server, other) as port:
        assert refusal(at(clinic, port)).startswith("answers, but not as a coordinator does (status 200)")


def test_a_certificate_of_another_authority_is_refused(clinic: Path, server: Path, tmp_path: Path):
    make_clinic(tmp_path / "other")
    with reverse_proxy(tmp_path / "other" / "server", healthy) as port:
        told = refusal(at(clinic, port))
    assert told.startswith(f"shows a certificate that {clinic / 'ca.crt'} did not sign (")
    assert "someone stands in between" in told


def test_a_certificate_of_another_name_is_refused(clinic: Path, server: Path):
    with reverse_proxy(server, healthy, "127.0.0.2") as port:
        assert refusal(at(clinic, port, "127.0.0.2")).startswith("shows a certificate for another name")
    renew(server, ("127.0.0.2",))
    with reverse_proxy(server, healthy, "127.0.0.2") as port:
        assert ask_health(at(clinic, port, "127.0.0.2"))


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (timedelta(days=-10), "the certificate of {} has ended, or this machine's clock is wrong"),
        (timedelta(days=10), "the certificate of {} is not valid yet; is this machine's clock right?"),
    ],
)
def test_a_certificate_out_of_its_time_is_told_from_a_wrong_one(
    clinic: Path, server: Path, monkeypatch: pytest.MonkeyPatch, made: timedelta, told: str
):
    class Then(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + made

    with monkeypatch.context() as patch:
        patch.setattr("fedrag.security.certificates.datetime", Then)
        renew(server, days=1)
    with reverse_proxy(server, healthy) as port:
        config = at(clinic, port)
        assert refusal(config).startswith(told.format(config.server))


def test_nobody_there_an_unknown_name_and_silence_are_told_apart(clinic: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert refusal(at(clinic, port), timeout_s=0.3).startswith("does not answer; is a firewall in the way")
    assert refusal(at(clinic, port)).startswith("refuses the connection; does it run")
    nowhere = at(clinic, port, "nowhere.invalid")
    assert refusal(nowhere).startswith("nowhere.invalid: this name is not known here")


def test_a_server_without_tls_is_told(clinic: Path):
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as plain:
        threading.Thread(target=plain.handle_request).start()
        assert refusal(at(clinic, plain.server_address[1])).startswith("does not speak TLS as a coordinator does")


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_a_missing_or_damaged_authority_is_named(clinic: Path, text: str | None):
    (clinic / "ca.crt").unlink()
    if text:
        (clinic / "ca.crt").write_text(text)
    with pytest.raises(ConfigError, match=r"ca.crt: expected a certificate \(PEM\): "):
        ask_health(at(clinic, 1))


@contextmanager
def proxy(status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """Give the URL of a proxy that opens a tunnel, or refuses to, and the list of what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            if status != 200:
                return
            host, _, port = self.path.partition(":")
            with socket.create_connection((host, int(port))) as there:
                ends = {self.connection: there, there: self.connection}
                while True:
                    for end in select.select(list(ends), [], [], 5.0)[0]:
                        content = end.recv(65536)
                        if not content:
                            return
                        ends[end].sendall(content)

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


def test_the_way_leads_through_the_proxy_of_site_toml(clinic: Path, server: Path):
    with reverse_proxy(server, healthy) as port, proxy() as (url, asked):
        health = ask_health(at(clinic, port, proxy=url))
    assert asked == [f"127.0.0.1:{port}"]
    assert health.certificate_ends == expires(server / "server.crt")


def test_a_proxy_that_refuses_or_is_not_there_is_told(clinic: Path, server: Path):
    with reverse_proxy(server, healthy) as port:
        with proxy(403) as (url, _):
            config = at(clinic, port, proxy=url)
            assert refusal(config).startswith(f"{url} does not let this machine through to {config.server}: 403")
        assert refusal(config).startswith(f"{url} refuses the connection; does it run")


def test_a_proxy_of_the_environment_is_named_with_its_variable_and_a_way_out(
    clinic: Path, server: Path, monkeypatch: pytest.MonkeyPatch
):
    with reverse_proxy(server, healthy) as port, proxy(403) as (url, _):
        monkeypatch.setenv("https_proxy", url.replace("//", "//someone:secret@"))
        told = refusal(config := at(clinic, port))
        named = f"{url} (https_proxy in the environment)"
        assert told.startswith(f"{named} does not let this machine through to {config.server}: 403")
        assert told.endswith("; to connect without this proxy, set no_proxy=127.0.0.1")
        monkeypatch.delenv("https_proxy")
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
        assert refusal(config).startswith("http://127.0.0.1:1 (ALL_PROXY in the environment) refuses the connection")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert ask_health(config), "the way out leads out"


def test_a_proxy_cannot_stand_in_for_the_coordinator(clinic: Path, server: Path, tmp_path: Path):
    make_clinic(tmp_path / "other")
    with reverse_proxy(tmp_path / "other" / "server", healthy) as port, proxy() as (url, asked):
        told = refusal(at(clinic, port, proxy=url))
    assert "did not sign" in told
    assert asked
