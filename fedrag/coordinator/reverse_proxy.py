"""The public door of a coordinator: nginx, which lets through what a site needs and nothing else.

Flower's SuperLink has one port for everything and asks only the sites who they are: whoever reaches it may start runs.
It therefore listens on loopback, and the door passes on the few requests that sites make.
"""

from __future__ import annotations

import grp
import http.client
import ipaddress
import os
import pwd
import re
import shutil
import socket
import ssl
import time
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedrag.errors import ConfigError

ROUTES = tuple(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
)
"""What a site asks of the SuperLink: the coordinator alone registers sites, and sites take no code from anyone."""

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


def door_config(
    *,
    folder: Path,
    listen_host: str,
    listen_port: int,
    upstream_port: int,
    ca: Path,
    certificate: Path,
    key: Path,
    max_body_mb: int = 16,
) -> str:
    """Return the text of the nginx.conf of a door.

    Where root opens the door, nginx works as the owner of `folder`: as anyone else it could not write there.

    Args:
        folder: For the process id, the logs and what does not fit in memory; it must exist when nginx starts.
        listen_host: Address of this machine to listen on, such as `0.0.0.0`.
        listen_port: Port to listen on.
        upstream_port: Port of the SuperLink on 127.0.0.1, which speaks TLS.
        ca: Certificate of the authority that signed the SuperLink's certificate (PEM).
        certificate: The door's own certificate (PEM).
        key: Its private key (PEM).
        max_body_mb: The largest request that is let in, in MiB.

    Raises:
        ConfigError: A value is not valid.
    """
    for name, port in (("listen_port", listen_port), ("upstream_port", upstream_port)):
        if not 1 <= port <= 65_535:
            raise ConfigError(f"{name} = {port}: must be a port from 1 to 65535")
    if max_body_mb < 1:
        raise ConfigError(f"max_body_mb = {max_body_mb}: must be at least 1")
    environment = Environment(
        loader=PackageLoader("fedrag.coordinator", "."),
        autoescape=False,  # no HTML: `quoted` escapes for nginx
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = _quoted
    return environment.get_template("nginx.conf.jinja").render(
        user=_owner(folder) if os.geteuid() == 0 else "",
        folder=lambda name: _quoted(folder.absolute() / name),
        listen=f"{_address(listen_host)}:{listen_port}",
        upstream_port=upstream_port,
        routes=ROUTES,
        ca=ca.absolute(),
        certificate=certificate.absolute(),
        key=key.absolute(),
        max_body_mb=max_body_mb,
    )


def door_command(config_path: Path) -> list[str]:
    """Return the command that opens the door: nginx in the foreground, its first errors on stderr.

    Raises:
        ConfigError: nginx is not installed.
    """
    # Debian keeps it where only root looks.
    nginx = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))
    if nginx is None:
        raise ConfigError("nginx is not installed: it is the public door; install it with: apt-get install nginx-light")
    config = config_path.absolute()
    return [nginx, "-p", str(config.parent), "-e", "stderr", "-c", str(config)]


def door_ready(port: int, ca: Path, timeout_s: float, host: str = "127.0.0.1") -> bool:
    """Tell whether a door answers on this machine, and wait for it.

    Args:
        port: The door's port.
        ca: Certificate of the authority that signed the door's certificate (PEM).
        timeout_s: How long to wait; 0 asks once.
        host: The address to ask, where the door does not listen on 127.0.0.1.

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


def _quoted(path: Path | str) -> str:
    """Return a value as one word of an nginx.conf."""
    text = str(path)
    if "$" in text or not text.isprintable():  # nginx has no way to write a dollar sign
        raise ConfigError(f"{text!r}: nginx cannot use a path with a dollar sign or a control character")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _address(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if not _HOST_NAME.fullmatch(host):
            raise ConfigError(f"{host!r}: expected an address to listen on, such as 0.0.0.0") from None
        return host
    return f"[{address}]" if address.version == 6 else str(address)


def _owner(folder: Path) -> str:
    """Return user and group of a folder's owner, now or once it is made; root's where a number has no name."""
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        owner = pwd.getpwuid(nearest.stat().st_uid)
        return f"{owner.pw_name} {grp.getgrgid(owner.pw_gid).gr_name}"
    except KeyError:
        return "root root"
