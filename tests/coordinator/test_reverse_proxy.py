"""The reverse proxy: a real nginx before a real TLS server that writes down all that reaches it."""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from flwr.supercore.routers.health.router import router as health_router
from flwr.supercore.routers.runtime.responses import router as responses_router
from flwr.supercore.routers.runtime.router import router as runtime_router
from flwr.superlink.routers.control.router import router as control_router
from flwr.superlink.routers.fleet.router import router as fleet_router
from ports import free_port

from fedrag.coordinator.nginx_config import MOST_CONNECTIONS, ROUTES, ProxySettings, nginx_config
from fedrag.coordinator.reverse_proxy import is_ready, line_kind, nginx_command, stream_module
from fedrag.errors import ConfigError
from fedrag.security.certificates import new_authority, new_server_certificate

PROGRAMS = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
needs_nginx = pytest.mark.skipif(shutil.which("nginx", path=PROGRAMS) is None, reason="nginx is not installed")

MIB = 1024 * 1024
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
FLOWER = {
    route.path
    for router in (control_router, fleet_router, runtime_router, responses_router, health_router)
    for route in router.routes
} | {"/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
"""All paths that Flower's SuperLink answers on its one port."""
LOG = "nginx.log"
"""Takes what the coordinator would read from nginx's two streams."""
START_RUN = "/v1/control/start-run"
PULL = "/v1/fleet/pull-messages"
IP_FREEBIND = 15  # Linux's, which Python's socket does not name


@dataclass
class Request:
    """A request as the upstream got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Upstream(ThreadingHTTPServer):
    """Stands for the SuperLink: writes down every request and answers it with what the test says."""

    daemon_threads = True

    def __init__(self, certificate: Path, key: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.requests: list[Request] = []
        self.reset()

    def reset(self) -> None:
        self.requests.clear()
        self.status = 200
        self.answer: bytes | None = None
        self.answered = 0

    @property
    def port(self) -> int:
        return self.server_address[1]


class Handler(BaseHTTPRequestHandler):
    """Answers every method alike."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    server: Upstream

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(Request(self.command, self.path, headers, body))
        answer = self.server.answer if self.server.answer is not None else f"answer to {self.path}".encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.wfile.flush()
        self.server.answered += 1

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@dataclass
class Proxy:
    """A running reverse proxy with its upstream."""

    port: int
    folder: Path
    ca: Path
    upstream: Upstream
    process: subprocess.Popen[bytes]

    def connect(self, **limits: Any) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=self.ca)
        for name, value in limits.items():
            setattr(context, name, value)
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=20)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        """Send one request, its path as it is, and return status and body of the answer."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def send(self, raw: bytes) -> bytes:
        """Send bytes as they are and return all that comes back until the proxy closes or falls silent."""
        context = ssl.create_default_context(cafile=self.ca)
        received = b""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=2) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
            contextlib.suppress(OSError),
        ):
            connection.sendall(raw)
            while part := connection.recv(65536):
                received += part
        return received


@dataclass(frozen=True)
class House:
    """A folder with an authority, a certificate of it, and another authority's."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def server(self) -> tuple[Path, Path]:
        return self.folder / "server.crt", self.folder / "server.key"

    @property
    def strange(self) -> tuple[Path, Path]:
        return self.folder / "strange.crt", self.folder / "strange.key"

    @classmethod
    def build(cls, folder: Path) -> House:
        house = cls(folder)
        new_authority(house.ca, folder / "ca.key", "fedrag test", 10)
        new_server_certificate(*house.server, house.ca, folder / "ca.key", ["fed.example.org"], 10)
        new_authority(folder / "other-ca.crt", folder / "other-ca.key", "fedrag test", 10)
        strangers = (folder / "other-ca.crt", folder / "other-ca.key")
        new_server_certificate(*house.strange, *strangers, ["fed.example.org"], 10)
        return house


@contextlib.contextmanager
def running_proxy(
    house: House,
    folder: Path,
    upstream_shows: tuple[Path, Path] | None = None,
    user: str | None = None,
    host: str = "127.0.0.1",
    **config: Any,
) -> Iterator[Proxy]:
    upstream = Upstream(*(upstream_shows or house.server))
    threading.Thread(target=upstream.serve_forever, args=(0.05,), daemon=True).start()
    folder.mkdir(exist_ok=True)
    port = free_port()
    settings = ProxySettings(
        folder=folder,
        listen_host=host,
        listen_port=port,
        upstream_port=upstream.port,
        ca=house.ca,
        certificate=house.server[0],
        key=house.server[1],
        stream_module=stream_module(),
        **config,
    )
    (folder / "nginx.conf").write_text(nginx_config(settings))
    with (folder / LOG).open("ab") as log:
        if user:
            shutil.chown(folder / LOG, user)
        command = nginx_command(folder / "nginx.conf")
        process = subprocess.Popen(
            command, cwd=folder, user=user, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        ready = is_ready(port, house.ca, 20.0, host)
        if not ready:
            process.kill()
        assert ready, (folder / LOG).read_text()
        yield Proxy(port, folder, house.ca, upstream, process)
    finally:
        process.terminate()
        process.wait(timeout=20)
        upstream.shutdown()
        upstream.server_close()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House.build(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def shared_proxy(house: House) -> Iterator[Proxy]:
    """Run one proxy for many tests; its folder's name is one that must be quoted."""
    with running_proxy(house, house.folder / 'the "front" proxy; {it} \\ is', max_body_mb=2) as proxy:
        yield proxy


@pytest.fixture
def proxy(shared_proxy: Proxy) -> Proxy:
    shared_proxy.upstream.reset()
    return shared_proxy


@needs_nginx
@pytest.mark.parametrize("route", ROUTES)
def test_what_a_site_needs_passes_with_its_body_and_the_answer_comes_back(route: str, proxy: Proxy):
    body = os.urandom(MIB)
    assert proxy.ask("POST", route, body, flwr_signature="c2lnbmVk") == (200, f"answer to {route}".encode())
    [request] = proxy.upstream.requests
    assert (request.method, request.path, request.body) == ("POST", route, body)
    assert request.headers["flwr-signature"] == "c2lnbmVk"


def test_the_routes_are_routes_of_flower_and_neither_register_nodes_nor_hand_out_code():
    fleet = {route.path for route in fleet_router.routes}
    left_out = {"register-node", "unregister-node", "get-run", "get-fab"}
    assert set(ROUTES) == fleet - {f"/v1/fleet/{name}" for name in left_out}
    assert START_RUN in FLOWER
    assert len(FLOWER) > 70


@needs_nginx
@pytest.mark.parametrize("status", [400, 401, 404, 409, 500, 503])
def test_the_upstreams_refusals_come_back_as_they_are(status: int, proxy: Proxy):
    proxy.upstream.status, proxy.upstream.answer = status, b'{"code": 7}'
    assert proxy.ask("POST", PULL, b"x") == (status, b'{"code": 7}')
    assert len(proxy.upstream.requests) == 1


@needs_nginx
@pytest.mark.parametrize("query", ["?", "?x=1", "?/../../control/start-run", "?%2e%2e/", "?x#y"])
def test_a_query_is_dropped(query: str, proxy: Proxy):
    assert proxy.ask("POST", PULL + query, b"x")[0] == 200
    assert [request.path for request in proxy.upstream.requests] == [PULL]


@needs_nginx
def test_everything_else_that_flower_offers_is_not_there(proxy: Proxy):
    answers = {
        (method, path): proxy.ask(method, path)[0]
        for path in sorted(FLOWER - set(ROUTES))
        for method in METHODS
        if (method, path) != ("GET", "/health")
    }
    assert set(answers.values()) == {404}, {key: status for key, status in answers.items() if status != 404}
    assert not proxy.upstream.requests


TRICKS = (
    f"{PULL}/../../control/start-run",
    f"{PULL}/../../../v1/control/start-run",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/fleet/.%2E/control/start-run",
    "/v1/fleet/%252e%252e/control/start-run",
    f"{PULL}%2f..%2f..%2fcontrol%2fstart-run",
    f"{PULL}/%2e%2e%2f%2e%2e%2fcontrol/start-run",
    f"{PULL}/..;/..;/control/start-run",
    f"{PULL};/../../control/start-run",
    f"{PULL}/..%5c..%5ccontrol%5cstart-run",
    f"{PULL}\\..\\..\\control\\start-run",
    f"{PULL}%3f/../../control/start-run",
    f"{PULL}#/../../control/start-run",
    f"{PULL}%23",
    f"{PULL}%20",
    f"{PULL}%0d%0aHost:%20x",
    "//v1/control/start-run",
    "/v1//control/start-run",
    "/v1/control//start-run",
    "/./v1/control/start-run",
    "/v1/./control/start-run",
    "/v1/control/start-run/",
    "/v1/control/start-run/.",
    "/v1/control/start-run;",
    "/v1/control/start-run?x=1",
    "/v1/control/start-run%3fx",
    "/v1/control%2fstart-run",
    "/%761/control/start-run",
    "/V1/CONTROL/START-RUN",
    "https://localhost/v1/control/start-run",
    f"https://localhost{PULL}/../../control/start-run",
    "https://superlink/v1/control/start-run",
    # what would come out as an allowed path, but is not written as one
    "/v1/fleet//pull-messages",
    "//v1/fleet/pull-messages",
    "/v1/fleet/./pull-messages",
    "/v1/fleet/x/../pull-messages",
    "/v1/fleet/pull%2Dmessages",
    "/v1%2ffleet/pull-messages",
    f"{PULL}/",
    f"{PULL};",
    "/V1/fleet/pull-messages",
    "/v1/fleet/PULL-MESSAGES",
    # and what stands near
    "/",
    "/v1/fleet",
    "/v1/fleet/",
    "/v1/fleet/pull-message",
    "/v1/fleet/pull-messages-",
    "/nginx.conf",
    "/health/",
    "//health",
    "/health/../docs",
)


@needs_nginx
@pytest.mark.parametrize("path", TRICKS)
def test_no_way_of_writing_a_path_gets_through(path: str, proxy: Proxy):
    assert [proxy.ask(method, path, b"x")[0] for method in ("POST", "GET")] == [404, 404]
    assert not proxy.upstream.requests


@needs_nginx
@pytest.mark.parametrize(
    "path", ["/../v1/control/start-run", f"{PULL}%00", f"{PULL}%zz", "v1/fleet/pull-messages", "*"]
)
def test_what_is_no_path_is_a_bad_request(path: str, proxy: Proxy):
    assert proxy.ask("POST", path, b"x")[0] == 400
    assert not proxy.upstream.requests


@needs_nginx
def test_an_allowed_path_is_there_for_post_alone(proxy: Proxy):
    for route in ROUTES:
        assert {proxy.ask(method, route)[0] for method in METHODS if method != "POST"} == {404}
    assert proxy.ask("post", PULL)[0] == 400  # a method has capitals
    assert proxy.ask("TRACE", PULL)[0] == 405  # nginx refuses these before it looks at the path
    assert proxy.ask("CONNECT", "127.0.0.1:443")[0] in (400, 405)
    assert not proxy.upstream.requests


@needs_nginx
def test_a_request_cannot_be_hidden_in_another(proxy: Proxy):
    hidden = f"POST {START_RUN} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    head = f"POST {PULL} HTTP/1.1\r\nHost: x\r\n".encode()
    length = f"Content-Length: {len(hidden)}\r\n".encode()
    chunked = b"Transfer-Encoding: chunked\r\n"
    # The next request of a connection is judged like the first.
    answers = proxy.send(head + b"Content-Length: 0\r\n\r\n" + hidden)
    assert re.findall(rb"HTTP/1\.1 (\d+)", answers) == [b"200", b"404"]
    # Two lengths that contradict each other are no request.
    for lines in (
        length + chunked,
        chunked + length,
        length + b"Content-Length: 0\r\n",
        b"Transfer-Encoding: xchunked\r\n",
    ):
        answer = proxy.send(head + lines + b"\r\n0\r\n\r\n" + hidden)
        assert answer.split()[1] in (b"400", b"501"), (lines, answer[:200])
    # As a body it is a body.
    proxy.send(head + length + b"Connection: close\r\n\r\n" + hidden)
    assert [(request.path, request.body) for request in proxy.upstream.requests] == [(PULL, b""), (PULL, hidden)]


@needs_nginx
def test_the_upstream_learns_the_true_address_and_no_host_of_the_clients_choice(proxy: Proxy):
    proxy.ask("POST", PULL, b"x", Host="evil.example.org", X_Forwarded_For="10.9.8.7", X_Forwarded_Proto="http")
    [request] = proxy.upstream.requests
    seen = {name: request.headers[name] for name in ("host", "x-forwarded-for", "x-forwarded-proto")}
    assert seen == {"host": "localhost", "x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "https"}


@needs_nginx
def test_a_body_over_the_limit_is_refused_and_one_at_the_limit_passes(proxy: Proxy):
    assert proxy.ask("POST", PULL, bytes(2 * MIB))[0] == 200
    answer = proxy.send(f"POST {PULL} HTTP/1.1\r\nHost: x\r\nContent-Length: {2 * MIB + 1}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    chunk = b"%x\r\n" % MIB + bytes(MIB) + b"\r\n"
    head = f"POST {PULL} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert proxy.send(head + 2 * chunk + b"1\r\nx\r\n0\r\n\r\n").startswith(b"HTTP/1.1 413 ")
    assert [len(request.body) for request in proxy.upstream.requests] == [2 * MIB]


@needs_nginx
def test_headers_over_the_limit_are_refused(proxy: Proxy):
    assert proxy.ask("POST", PULL, b"", flwr_public_key="x" * 3000)[0] == 200
    assert proxy.ask("POST", PULL, b"", flwr_public_key="x" * 5000)[0] == 400
    assert proxy.ask("POST", f"{PULL}?{'x' * 5000}", b"")[0] == 414
    assert len(proxy.upstream.requests) == 1


@needs_nginx
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3_are_spoken(version: ssl.TLSVersion, proxy: Proxy):
    connection = proxy.connect(minimum_version=version, maximum_version=version)
    with contextlib.closing(connection):
        connection.request("GET", "/health")
        assert connection.getresponse().read() == b"ok"


@needs_nginx
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_tls_1_1_is_not_spoken(proxy: Proxy, house: House):
    def connect(port: int) -> str | None:
        context = ssl.create_default_context(cafile=house.ca)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as connection,
        ):
            return connection.version()

    # The same client, with a server that speaks it: it is the proxy that refuses.
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.load_cert_chain(*house.server)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1_1
    with old.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        assert connect(listener.getsockname()[1]) == "TLSv1.1"
        thread.join()
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        connect(proxy.port)


@needs_nginx
def test_plain_http_is_not_spoken(proxy: Proxy):
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", PULL, b"x")
        assert connection.getresponse().status == 400
    assert not proxy.upstream.requests


@needs_nginx
def test_an_upstream_with_the_certificate_of_another_authority_gets_nothing(house: House, tmp_path: Path):
    with running_proxy(house, tmp_path / "proxy", upstream_shows=house.strange) as proxy:
        assert proxy.ask("POST", PULL, b"x")[0] == 502
        assert not proxy.upstream.requests
        assert "upstream SSL certificate verify error" in (proxy.folder / LOG).read_text()


@needs_nginx
def test_it_answers_for_itself(proxy: Proxy):
    with contextlib.closing(proxy.connect()) as connection:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        assert (answer.status, answer.read(), answer.getheader("Server")) == (200, b"ok", "nginx")
    assert not proxy.upstream.requests


@needs_nginx
def test_a_proxy_is_ready_only_if_it_is_ours(proxy: Proxy, house: House):
    assert is_ready(proxy.port, house.ca, 0)
    assert not is_ready(proxy.port, house.folder / "other-ca.crt", 0)
    assert not is_ready(proxy.upstream.port, house.ca, 0)  # answers /health, but is no proxy of ours
    start = time.monotonic()
    assert not is_ready(free_port(), house.ca, 0.3)
    assert 0.3 <= time.monotonic() - start < 5


@needs_nginx
def test_a_site_that_sends_slowly_does_not_hold_the_upstream(proxy: Proxy):
    context = ssl.create_default_context(cafile=proxy.ca)
    with (
        socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as slow,
    ):
        slow.sendall(f"POST {PULL} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf ".encode())
        assert proxy.ask("POST", PULL, b"quick")[0] == 200
        assert [request.body for request in proxy.upstream.requests] == [b"quick"]
        slow.sendall(b"and ..")
        assert slow.recv(1000).startswith(b"HTTP/1.1 200")
        assert [request.body for request in proxy.upstream.requests] == [b"quick", b"half and .."[:10]]


@needs_nginx
def test_a_site_that_reads_slowly_does_not_hold_the_upstream(proxy: Proxy):
    """More than the sockets between them hold is handed over while the site has read the answer's head alone."""
    proxy.upstream.answer = os.urandom(32 * MIB)
    with contextlib.closing(proxy.connect()) as connection:
        connection.request("POST", "/v1/fleet/pull-object", b"x")
        answer = connection.getresponse()
        wait_until(lambda: proxy.upstream.answered == 1)
        assert answer.read() == proxy.upstream.answer


@needs_nginx
def test_the_access_log_says_when_who_what_and_how_much(proxy: Proxy):
    proxy.ask("POST", f"{PULL}?quote=%22", b"x" * 1000)
    proxy.ask("DELETE", START_RUN)
    wait_until(lambda: START_RUN in log_lines(proxy)[-1])
    passed, refused = (line.split() for line in log_lines(proxy)[-2:])
    assert passed[0][:2] == "20"
    assert passed[1:5] == ["127.0.0.1", "POST", f'"{PULL}?quote=%22"', "200"]
    assert refused[1:5] == ["127.0.0.1", "DELETE", f'"{START_RUN}"', "404"]
    received, sent = (int(number) for number in passed[5:])
    assert received > 1000
    assert sent > len(f"answer to {PULL}")


def log_lines(proxy: Proxy) -> list[str]:
    return (proxy.folder / LOG).read_text().splitlines()


@needs_nginx
def test_nothing_outside_its_folder_is_used(proxy: Proxy):
    with contextlib.closing(proxy.connect()) as connection:
        connection.putrequest("POST", PULL)
        connection.putheader("Content-Length", str(2 * MIB))
        connection.endheaders()
        connection.send(bytes(MIB))  # more than is kept in memory
        in_memory = proxy.folder / "client_body"
        wait_until(lambda: any(in_memory in file.parents for file in open_files(proxy)))
        assert {file for file in open_files(proxy) if proxy.folder not in file.parents} <= {Path("/dev/null")}
        connection.send(bytes(MIB))
        assert connection.getresponse().status == 200
    assert (proxy.folder / "nginx.pid").read_text().strip() == str(proxy.process.pid)


def open_files(proxy: Proxy) -> list[Path]:
    """Return the files that nginx has open, in all its processes."""
    pids = [proxy.process.pid, *workers(proxy)]
    links = [os.readlink(link) for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir()]
    return [Path(link.removesuffix(" (deleted)")) for link in links if link.startswith("/")]


def workers(proxy: Proxy) -> list[int]:
    pid = proxy.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@needs_nginx
def test_it_ends_when_it_is_told_to_and_leaves_no_process(house: House, tmp_path: Path):
    with running_proxy(house, tmp_path / "proxy") as proxy:
        pids = workers(proxy)
        assert pids
        proxy.process.terminate()
        assert proxy.process.wait(timeout=20) == 0
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


@needs_nginx
def test_who_asks_too_often_is_held_back(house: House, tmp_path: Path):
    def ask_often(proxy: Proxy) -> list[int]:
        with contextlib.closing(proxy.connect()) as connection:
            statuses = []
            for _ in range(150):
                connection.request("POST", PULL, b"x")
                answer = connection.getresponse()
                answer.read()
                statuses.append(answer.status)
            return statuses

    with running_proxy(house, tmp_path / "proxy") as proxy:
        start = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            statuses = [status for asked in pool.map(lambda _: ask_often(proxy), range(4)) for status in asked]
        allowed = 1 + 200 + 50 * (time.monotonic() - start)
        assert set(statuses) == {200, 429}
        assert 200 <= statuses.count(200) <= allowed
        assert len(proxy.upstream.requests) == statuses.count(200)


@needs_nginx
def test_a_signature_is_let_in_once_however_it_is_written(proxy: Proxy):
    """A site signs the time; the last character of a key in base64 can be written in several ways."""
    signed = {"flwr_timestamp": "2026-03-02T14:30:00.000001+00:00", "flwr_public_key": "A" * 99 + "Q="}
    another_site = signed | {"flwr_public_key": "B" * 99 + "Q="}
    later = signed | {"flwr_timestamp": "2026-03-02T14:30:00.000002+00:00"}
    assert [proxy.ask("POST", PULL, b"x", **headers)[0] for headers in (signed, another_site, later)] == [200] * 3
    for replayed in (signed, signed | {"flwr_public_key": "A" * 99 + "R="}, signed | {"flwr_signature": "other"}):
        assert proxy.ask("POST", PULL, b"x", **replayed)[0] == 429
    assert len(proxy.upstream.requests) == 3
    assert "replays" in (proxy.folder / LOG).read_text()


@needs_nginx
def test_who_holds_too_many_connections_is_put_out_before_tls(house: House, tmp_path: Path):
    with running_proxy(house, tmp_path / "proxy") as proxy, contextlib.ExitStack() as held:
        for _ in range(MOST_CONNECTIONS):
            connection = held.enter_context(contextlib.closing(proxy.connect()))
            connection.putrequest("POST", PULL)
            connection.putheader("Content-Length", "10")
            connection.endheaders()
        wait_until(lambda: is_put_out(proxy))
        held.close()
        wait_until(lambda: not is_put_out(proxy))


def is_put_out(proxy: Proxy) -> bool:
    try:
        return proxy.ask("POST", PULL, b"x")[0] != 200
    except OSError:  # no answer at all, not even TLS's
        return True


@needs_nginx
def test_who_says_nothing_is_put_out_soon(proxy: Proxy):
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as silent:
        start = time.monotonic()
        assert silent.recv(1) == b""
        assert 3 < time.monotonic() - start < 10


@needs_nginx
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give this machine further addresses")
def test_connections_of_ipv6_are_counted_by_network(house: House, tmp_path: Path):
    """The 64 bits behind a network are one customer's: he would have an address for every connection."""
    with two_networks() as (own, other), running_proxy(house, tmp_path / "proxy", host="::1") as proxy:
        with contextlib.ExitStack() as held:
            for number in range(MOST_CONNECTIONS):
                held.enter_context(connect_from(f"{own}{number + 1:x}", proxy.port))
            wait_until(lambda: is_cut(f"{own}ffff", proxy.port))
            assert not is_cut(f"{other}1", proxy.port)
        wait_until(lambda: not is_cut(f"{own}ffff", proxy.port))


@contextlib.contextmanager
def two_networks() -> Iterator[tuple[str, str]]:
    """Let this machine have every address that begins with one of two texts."""
    own, other = "fd5a:7c1e:9b04:1::", "fd5a:7c1e:9b04:2::"
    route = ["ip", "-6", "route"]
    for network in (own, other):
        added = subprocess.run([*route, "replace", "local", f"{network}/64", "dev", "lo"], capture_output=True)
        if added.returncode:
            pytest.skip("this machine lets nobody add an address")
    try:
        yield own, other
    finally:
        for network in (own, other):
            subprocess.run([*route, "del", "local", f"{network}/64", "dev", "lo"], check=True)


def connect_from(source: str, port: int) -> socket.socket:
    connection = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    connection.settimeout(5)
    connection.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)  # no address of an interface, but one of a route
    connection.bind((source, 0))
    connection.connect(("::1", port))
    return connection


def is_cut(source: str, port: int) -> bool:
    """Return whether the proxy closes a connection before a byte is sent."""
    with connect_from(source, port) as connection:
        connection.settimeout(0.5)
        try:
            return connection.recv(1) == b""
        except TimeoutError:
            return False


@needs_nginx
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand work to another user")
def test_as_root_its_workers_run_as_the_owner_of_the_folder(house: House):
    nobody = pwd.getpwnam("nobody")
    folder = Path(tempfile.mkdtemp())  # pytest's own folders let nobody through
    try:
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        with running_proxy(house, folder) as proxy:
            assert {Path(f"/proc/{pid}").stat().st_uid for pid in workers(proxy)} == {nobody.pw_uid}
            assert proxy.ask("POST", PULL, bytes(MIB))[0] == 200  # goes through a file
    finally:
        shutil.rmtree(folder)


@needs_nginx
@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run without privileges already")
def test_it_needs_no_privileges(house: House, monkeypatch: pytest.MonkeyPatch):
    nobody = pwd.getpwnam("nobody")
    folder = Path(tempfile.mkdtemp())
    try:
        own = House.build(folder)
        (folder / "proxy").mkdir()
        for path in (folder, *folder.iterdir()):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        monkeypatch.setattr(os, "geteuid", lambda: nobody.pw_uid)
        with running_proxy(own, folder / "proxy", user="nobody") as proxy:
            assert Path(f"/proc/{proxy.process.pid}").stat().st_uid == nobody.pw_uid
            assert proxy.ask("POST", PULL, bytes(MIB))[0] == 200
    finally:
        shutil.rmtree(folder)


def config_text(folder: Path = Path("/srv/fed"), **changes: Any) -> str:
    values: dict[str, Any] = {
        "folder": folder / "proxy",
        "listen_host": "0.0.0.0",
        "listen_port": 8443,
        "upstream_port": 8444,
        "ca": folder / "ca.crt",
        "certificate": folder / "server.crt",
        "key": folder / "server.key",
    }
    return nginx_config(ProxySettings(**values | changes))


@pytest.mark.parametrize(
    ("host", "listens"),
    [
        ("0.0.0.0", ["0.0.0.0:8443"]),
        ("::", ["0.0.0.0:8443", "[::]:8443"]),
        ("::1", ["[::1]:8443"]),
        ("fed.example.org", ["fed.example.org:8443"]),
    ],
)
def test_it_listens_where_it_is_told(host: str, listens: list[str]):
    assert re.findall(r" listen (\S+);", config_text(listen_host=host)) == listens


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"listen_port": 0}, "listen_port = 0"),
        ({"upstream_port": 65_536}, "upstream_port = 65536"),
        ({"max_body_mb": 0}, "max_body_mb = 0"),
        ({"listen_host": ""}, "address to listen on"),
        ({"listen_host": "a; include /etc/passwd"}, "address to listen on"),
        ({"key": Path("/srv/$remote_addr/key")}, "dollar sign"),
        ({"folder": Path("/srv/a\nb")}, "control character"),
    ],
)
def test_a_value_that_nginx_would_misread_is_refused(changes: dict[str, Any], fault: str):
    with pytest.raises(ConfigError, match=fault):
        config_text(**changes)


def test_without_nginx_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(
        ConfigError, match="^nginx is not installed: .* apt-get install nginx-light libnginx-mod-stream$"
    ):
        nginx_command(tmp_path / "nginx.conf")


@needs_nginx
def test_nginx_is_found_where_the_path_lacks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    nginx, *arguments = nginx_command(Path("nginx.conf"))
    assert Path(nginx).is_file()
    assert arguments == ["-p", str(tmp_path), "-e", "stderr", "-c", str(tmp_path / "nginx.conf")]


def test_a_missing_authority_is_named(tmp_path: Path):
    (tmp_path / "garbage").write_text("nothing")
    for name in ("missing", "garbage"):
        with pytest.raises(ConfigError, match=f"{name}: expected a certificate"):
            is_ready(1, tmp_path / name, 0)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (f'2026-03-02T14:30:00+00:00 192.0.2.7 POST "{PULL}" 200 300 400', ""),
        (f'2026-03-02T14:30:00+00:00 2001:db8::7 POST "{PULL}" 429 300 400', "requests answered 429"),
        ('2026-03-02T14:30:00+00:00 192.0.2.7 GET "/health" 200 300 400', "requests answered 200"),
        ('2026-03-02T14:30:00+00:00 192.0.2.7  "\\x16\\x03" 400 0 150', "requests answered 400"),
        (
            "2026/03/02 14:30:00 [warn] 31#31: *77 limiting connections by zone "
            '"addresses", client: 192.0.2.7, server: 0.0.0.0:8443',
            'limiting connections by zone "addresses"',
        ),
        (
            "2026/03/02 14:30:00 [warn] 31#31: *77 limiting requests, "
            'excess: 200.350 by zone "requests", client: 192.0.2.7',
            'limiting requests zone "requests"',
        ),
    ],
)
def test_a_line_of_nginx_has_one_of_few_kinds(line: str, kind: str):
    assert line_kind(line) == kind


def wait_until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)
