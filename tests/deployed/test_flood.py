"""Strangers who flood the door of a real coordinator, with requests or with connections that say nothing."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import Deployment

pytestmark = pytest.mark.slow

HOME, ELSEWHERE = "127.0.0.1", "127.0.0.2"
IDLE = 2050
"""This many connections that said nothing once closed the door to everyone, for 45 s."""


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path, {})
    with contextlib.closing(deployment):
        deployment.start_server()
        yield deployment


def connect(coordinator: Deployment, source: str, timeout_s: float = 5.0) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=coordinator.server.path / "ca.crt")
    plain = socket.create_connection((HOME, coordinator.server.config.port), timeout_s, source_address=(source, 0))
    try:
        return context.wrap_socket(plain, server_hostname="localhost")
    except BaseException:
        plain.close()
        raise


def asks(connection: ssl.SSLSocket) -> bool:
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    return connection.recv(4096).startswith(b"HTTP/1.1 200")


def gets_in(coordinator: Deployment, source: str) -> bool:
    try:
        with connect(coordinator, source) as connection:
            return asks(connection)
    except OSError:
        return False


def log_bytes(coordinator: Deployment) -> int:
    folders = (coordinator.server.logs, coordinator.server.path / "reverse-proxy")
    return sum(file.stat().st_size for folder in folders for file in folder.glob("*.log"))


def flood_with_requests(coordinator: Deployment, source: str, seconds: float) -> int:
    """Send requests without waiting for their answers, and return how many were answered."""
    end, answers = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        with contextlib.suppress(OSError), connect(coordinator, source) as connection:
            for _ in range(100):
                connection.sendall(b"GET /wp-admin?%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"x" * 900) * 10)
                answers += connection.recv(65536).count(b"HTTP/1.1 ")
    return answers


def test_a_flood_of_requests_is_counted_in_the_log_and_does_not_fill_it(coordinator: Deployment):
    before = log_bytes(coordinator)
    answers: list[int] = []
    flood = [
        threading.Thread(
            target=lambda source=f"127.0.1.{number}": answers.append(flood_with_requests(coordinator, source, 8))
        )
        for number in range(1, 5)
    ]
    for thread in flood:
        thread.start()
    for thread in flood:
        thread.join()
    grown = log_bytes(coordinator) - before
    assert sum(answers) > 1000
    assert grown < 100_000, f"{grown} bytes for {sum(answers)} requests in 8 s"
    coordinator.end("server")
    log = (coordinator.server.logs / "reverse-proxy.log").read_text()
    counted = [
        int(count) for count in re.findall(r" ([0-9]+) more lines like this in the last minute: .*wp-admin", log)
    ]
    assert sum(counted) >= sum(answers) / 2, "the log says how many there were"


class Silent:
    """Connections from one address that say nothing; one that is closed is opened again, as long as it lasts."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ends = threading.Event()
        self.opened = 0
        self._thread = threading.Thread(target=self._hold)

    def __enter__(self) -> Silent:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _hold(self) -> None:
        held: list[socket.socket] = []
        while not self._ends.is_set():
            while len(held) < IDLE and not self._ends.is_set():
                with contextlib.suppress(OSError):
                    held.append(socket.create_connection((HOME, self._port), 1.0))
                    held[-1].setblocking(False)
                    self.opened += 1
            held = [one for one in held if not _is_closed(one)]
            self._ends.wait(0.05)
        for one in held:
            one.close()


def _is_closed(connection: socket.socket) -> bool:
    try:
        closed = connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        closed = True
    if closed:
        connection.close()
    return closed


def test_silent_connections_of_one_address_do_not_keep_others_out(coordinator: Deployment):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.closing(connect(coordinator, HOME)) as inside:
        assert asks(inside)
        with Silent(coordinator.server.config.port) as flood:
            coordinator.wait(lambda: flood.opened >= IDLE, 30, "the flood")
            for _ in range(10):
                assert gets_in(coordinator, ELSEWHERE), "someone at another address"
                assert asks(inside), "someone at the same address who was inside before"
                time.sleep(0.5)
        coordinator.wait(
            lambda: gets_in(coordinator, HOME), 8, "someone new at the same address, after the flood", patience=1
        )
