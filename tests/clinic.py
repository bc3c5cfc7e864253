"""A site's folder for tests: its key and settings, and what the coordinator hands out."""

from __future__ import annotations

import http.server
import shutil
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tiny_federation import SHIPPED, tiny_config

from fedrag.files import rewrite
from fedrag.runs.run_folder import RunFolder
from fedrag.security.certificates import new_authority, new_server_certificate
from fedrag.security.keys import new_key
from fedrag.simulation.simulate import simulate
from fedrag.site.client_folder import create_site
from fedrag.site.delivery import save_delivery

QUESTION = "What does a late book cost?"

CHECKS = [
    "versions",
    "site.toml",
    "data",
    "privacy",
    "models",
    "device",
    "memory",
    "disk",
    "permissions",
    "private key",
    "secure sums",
    "ca.crt",
    "coordinator.pub",
    "release",
    "server",
    "certificate",
    "clock",
]
"""What a site is checked for, in this order."""


def make_clinic(root: Path, port: int = 8443, days: int = 30) -> Path:
    """Make `root/clinic`, a site on the data of a shipped one, and `root/server`, its coordinator's keys."""
    server, clinic = root / "server", root / "clinic"
    new_authority(server / "ca.crt", server / "ca.key", "fedrag test", 3650)
    renew(server, days=days)
    new_key(server / "coordinator.key")
    create_site(clinic, "clinic", f"127.0.0.1:{port}", "data")
    shutil.copytree(SHIPPED / "north", clinic / "data")
    shutil.copy(server / "ca.crt", clinic)
    shutil.copy(server / "coordinator.pub", clinic)
    return clinic


def renew(server: Path, hosts: tuple[str, ...] = (), days: int = 30) -> None:
    """Make a new certificate of the coordinator's reverse proxy."""
    certificate, key = server / "server.crt", server / "server.key"
    new_server_certificate(certificate, key, server / "ca.crt", server / "ca.key", hosts, days)


def set_setting(clinic: Path, setting: str, value: str) -> None:
    """Change one setting of a site.toml; the value is TOML."""
    lines = (clinic / "site.toml").read_text(encoding="utf-8").splitlines()
    [place] = [number for number, line in enumerate(lines) if line.startswith(f"{setting} = ")]
    lines[place] = f"{setting} = {value}"
    rewrite(clinic / "site.toml", "\n".join([*lines, ""]).encode())


def trained_run(path: Path) -> RunFolder:
    """Train both components for a round, the generator hard enough for its answers to change."""
    settings = {"generator": {"learning_rate": 0.1}, "retriever": {"learning_rate": 0.005}}
    return simulate(tiny_config(SHIPPED / "north", federation={"rounds": 1}, **settings), out=path)


def deliver(clinic: Path, run: RunFolder, name: str = "tiny-1", *components: str) -> None:
    """Keep a run's result at the site, or a part of it, as a delivery does."""
    state = {c: tensors for c, tensors in run.load_result().items() if not components or c in components}
    save_delivery(clinic, name, state, run.config.to_toml())


@contextmanager
def reverse_proxy(
    server: Path, answer: Callable[[http.server.BaseHTTPRequestHandler], None], host: str = "127.0.0.1"
) -> Iterator[int]:
    """Give the port of a TLS server with a coordinator's certificate that answers every GET as it is told."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that did not like the certificate

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server / "server.crt", server / "server.key")
    with Server((host, 0), Handler) as listener:
        # each thread shakes hands for itself: a client that does not goes away without disturbing the rest
        listener.socket = context.wrap_socket(listener.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield listener.server_address[1]
        finally:
            listener.shutdown()
            thread.join()


@contextmanager
def healthy_coordinator(clinic: Path) -> Iterator[int]:
    """Let the coordinator of a site answer as it should; its address goes into the site.toml. Give the port."""
    with reverse_proxy(clinic.parent / "server", healthy) as port:
        set_setting(clinic, "server", f'"127.0.0.1:{port}"')
        yield port


def healthy(request: http.server.BaseHTTPRequestHandler) -> None:
    """Answer as the reverse proxy of a coordinator does."""
    status, body = (200, b"ok") if request.path == "/health" else (404, b"")
    request.send_response(status)  # with the time
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)
