"""The coordinator's reverse proxy: nginx, the only process that sites reach."""

from __future__ import annotations

import http.client
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

from fedrag.coordinator.nginx_config import ROUTES, ProxySettings, nginx_config
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import ConfigError
from fedrag.files import write_text
from fedrag.service.child_log import Noise, shape
from fedrag.service.children import Child

PROXY_FOLDER = "reverse-proxy"
"""Where nginx's files lie in the coordinator's folder; each start of the coordinator writes them again."""

INSTALL = "apt-get install nginx-light libnginx-mod-stream"

_FULL_LINES = 5  # of a kind of refusal in a minute
_REQUEST = re.compile(r'\S+ \S+ \S* "(?P<uri>[^"]*)" (?P<status>[0-9]{3}) [0-9]+ [0-9]+')
_ERROR = re.compile(r"\S+ \S+ \[\w+\] [0-9#]+: (?:\*[0-9]+ )?(?P<what>[^,]*)(?P<rest>.*)")
_ZONE = re.compile(r'^, excess: [0-9.]+ by (zone "\w+")')


def reverse_proxy(folder: ServerFolder) -> Child:
    """Write the configuration and return the process, which is not started yet.

    Raises:
        ConfigError: nginx is not installed, or a setting is not valid.
    """
    path, config, own = folder.path, folder.config, folder.path / PROXY_FOLDER
    # A name of its own for each start: one that is just ending removes its own socket.
    door = f"door-{secrets.token_hex(4)}.sock"
    text = nginx_config(
        ProxySettings(
            folder=own,
            listen_host=config.listen,
            listen_port=config.port,
            upstream_port=config.superlink_port,
            ca=path / "ca.crt",
            certificate=path / "server.crt",
            key=path / "server.key",
            socket=door,
            stream_module=stream_module(),
        )
    )
    file = own / "nginx.conf"
    write_text(file, text)
    for left in own.glob("door-*.sock"):
        left.unlink(missing_ok=True)
    return Child(
        "reverse proxy",
        nginx_command(file),
        folder.logs / "reverse-proxy.log",
        death_signal=signal.SIGTERM,
        noise=Noise(line_kind, _FULL_LINES),
        folder=own,
        leftovers=[own / door],
    )


def line_kind(line: str) -> str:
    """Return the kind of a line of nginx's, for which no stranger can invent further ones; "" for a site's request.

    >>> line_kind('2026-03-02T14:30:00+00:00 192.0.2.7 GET "/wp-admin" 404 100 200')
    'requests answered 404'
    """
    if request := _REQUEST.fullmatch(line):
        passed = request["status"].startswith("2") and request["uri"] in ROUTES
        return "" if passed else f"requests answered {request['status']}"
    if error := _ERROR.fullmatch(line):
        zone = _ZONE.match(error["rest"])
        return shape(error["what"] + (f" {zone[1]}" if zone else ""))
    return shape(line)


def nginx_command(config_path: Path) -> list[str]:
    """Return the command that runs nginx in the foreground, its first errors on stderr.

    Raises:
        ConfigError: nginx is not installed.
    """
    config = config_path.absolute()
    return [_nginx(), "-p", str(config.parent), "-e", "stderr", "-c", str(config)]


def _nginx() -> str:
    # Debian installs it where only root's PATH leads.
    nginx = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    if nginx is None:
        raise ConfigError(f"nginx is not installed: the reverse proxy needs it; run {INSTALL}")
    return nginx


def stream_module() -> Path | None:
    """Return the file of nginx's stream module, which counts connections; None where it is built in.

    Raises:
        ConfigError: nginx or the module is not installed.
    """
    told = subprocess.run([_nginx(), "-V"], capture_output=True, check=False).stderr.decode(errors="replace")
    if re.search(r"--with-stream(\s|$)", told):
        return None
    folder = re.search(r"--modules-path=(\S+)", told)
    module = Path(folder[1]) / "ngx_stream_module.so" if folder else None
    if module is None or not module.is_file():
        raise ConfigError(f"nginx has no stream module: the reverse proxy needs it; run {INSTALL}")
    return module


def is_ready(port: int, ca: Path, timeout_s: float, host: str = "127.0.0.1") -> bool:
    """Wait for the reverse proxy on this machine and return whether it answers.

    Args:
        port: Its port.
        ca: Certificate of the authority that signed its certificate (PEM).
        timeout_s: How long to wait; 0 asks once.
        host: The address to ask, where it does not listen on 127.0.0.1.

    Raises:
        ConfigError: `ca` is missing or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"{ca}: expected a certificate (PEM): {error.strerror or error}") from None
    end = time.monotonic() + timeout_s
    while not _answers(host, port, context):
        if time.monotonic() >= end:
            return False
        time.sleep(0.05)
    return True


def _answers(host: str, port: int, context: ssl.SSLContext) -> bool:
    connection = http.client.HTTPConnection("localhost", port)
    try:
        raw = socket.create_connection((host, port), timeout=2.0)
        # Every certificate of ours names localhost, whatever address is asked here.
        connection.sock = context.wrap_socket(raw, server_hostname="localhost")
        connection.request("GET", "/health")
        answer = connection.getresponse()
        return answer.status == 200 and answer.read() == b"ok"
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
