"""The text of nginx's configuration: requests that a site needs pass, everything else ends there.

A connection is counted by its address before TLS (nginx's `stream`), and a request is looked at behind it (`http`).
Flower's SuperLink has one port for everything and authenticates sites alone: whoever reaches it may start runs.
It therefore listens on loopback, and nginx passes on the few requests that sites make.
"""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import re
import resource
from dataclasses import dataclass
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

MOST_CONNECTIONS = 64
"""What one address may hold at a time."""

_MOST_FILES = 8192  # of each of two workers, where the system allows it

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Where nginx listens, where it passes requests on to, and its files.

    Attributes:
        folder: For the process id and what does not fit in memory; nginx must be started in it.
        listen_host: Address of this machine to listen on, such as `0.0.0.0`; `::` is all addresses of both kinds.
        listen_port: Port to listen on.
        upstream_port: Port of the SuperLink on 127.0.0.1, which speaks TLS.
        ca: Certificate of the authority that signed the SuperLink's certificate (PEM).
        certificate: The proxy's own certificate (PEM).
        key: Its private key (PEM).
        socket: Name of what lies between the port and TLS, a socket in the folder. It is relative, since the path of a
            socket has 107 bytes at most.
        stream_module: File of nginx's stream module; None where it is built in.
        max_body_mb: The largest request that passes, in MiB.
    """

    folder: Path
    listen_host: str
    listen_port: int
    upstream_port: int
    ca: Path
    certificate: Path
    key: Path
    socket: str = "door.sock"
    stream_module: Path | None = None
    max_body_mb: int = 16


def nginx_config(settings: ProxySettings) -> str:
    """Return the text of an nginx.conf.

    Where root starts nginx, its workers run as the owner of the folder: as anyone else they could not write there.

    Raises:
        ConfigError: A value is not valid.
    """
    for name in ("listen_port", "upstream_port"):
        port = getattr(settings, name)
        if not 1 <= port <= 65_535:
            raise ConfigError(f"{name} = {port}: must be a port from 1 to 65535")
    if settings.max_body_mb < 1:
        raise ConfigError(f"max_body_mb = {settings.max_body_mb}: must be at least 1")
    environment = Environment(
        loader=PackageLoader("fedrag.coordinator", "."),
        autoescape=False,  # no HTML: `quoted` escapes for nginx
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quoted"] = _quoted
    open_files = min(_MOST_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    return environment.get_template("nginx.conf.jinja").render(
        user=_owner(settings.folder) if os.geteuid() == 0 else "",
        folder=lambda name: _quoted(settings.folder.absolute() / name),
        listens=_listens(settings.listen_host, settings.listen_port),
        socket=settings.socket,
        module=settings.stream_module,
        open_files=open_files,
        connections=open_files // 2,  # of each worker; a request in progress has files as well
        most_connections=MOST_CONNECTIONS,
        upstream_port=settings.upstream_port,
        routes=ROUTES,
        ca=settings.ca.absolute(),
        certificate=settings.certificate.absolute(),
        key=settings.key.absolute(),
        max_body_mb=settings.max_body_mb,
    )


def _quoted(path: Path | str) -> str:
    """Return a value as one word of an nginx.conf."""
    text = str(path)
    if "$" in text or not text.isprintable():  # nginx has no way to write a dollar sign
        raise ConfigError(f"{text!r}: nginx cannot use a path with a dollar sign or a control character")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _listens(host: str, port: int) -> list[str]:
    """Return where to listen, in nginx's words."""
    every = ["0.0.0.0", "::"] if host == "::" else [host]
    return [f"{_address(one)}:{port}" for one in every]


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
