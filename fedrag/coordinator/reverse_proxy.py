"""The coordinator's reverse proxy: nginx, the only process that sites reach."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import ssl
import time
from pathlib import Path

from fedrag.coordinator.nginx_config import ProxySettings, nginx_config
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import ConfigError
from fedrag.files import write_text
from fedrag.service.children import LOG_BYTES, Child

PROXY_FOLDER = "reverse-proxy"
"""Where nginx's files lie in the coordinator's folder; each start of the coordinator writes them again."""


def reverse_proxy(folder: ServerFolder) -> Child:
    """Write the configuration and return the process, which is not started yet.

    Raises:
        ConfigError: nginx is not installed, or a setting is not valid.
    """
    path, config = folder.path, folder.config
    text = nginx_config(
        ProxySettings(
            folder=path / PROXY_FOLDER,
            listen_host=config.listen,
            listen_port=config.port,
            upstream_port=config.superlink_port,
            ca=path / "ca.crt",
            certificate=path / "server.crt",
            key=path / "server.key",
        )
    )
    file = path / PROXY_FOLDER / "nginx.conf"
    write_text(file, text)
    log = folder.logs / "reverse-proxy.log"
    return Child("reverse proxy", nginx_command(file), log, death_signal=signal.SIGTERM)


def nginx_command(config_path: Path) -> list[str]:
    """Return the command that runs nginx in the foreground, its first errors on stderr.

    Raises:
        ConfigError: nginx is not installed.
    """
    # Debian installs it where only root's PATH leads.
    nginx = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    if nginx is None:
        raise ConfigError("nginx is not installed: the reverse proxy needs it; run apt-get install nginx-light")
    config = config_path.absolute()
    return [nginx, "-p", str(config.parent), "-e", "stderr", "-c", str(config)]


def rotate_access_log(proxy: Child, log: Path) -> None:
    """Move nginx's access log aside once it is large; nginx opens a new one."""
    if log.is_file() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".1.log"))
        proxy.signal(signal.SIGUSR1)


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
