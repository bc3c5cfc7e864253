"""What the environment of the command, and of every process that a service starts, must be."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.request import getproxies, proxy_bypass

from fedrag.errors import ServiceError
from fedrag.text import without_brackets

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
"""Variables of the command and of every process that a service starts.

No library reports to its makers or looks for updates, and tokenizers start no threads, of which they would warn at
each fork.
"""


def require_linux(verb: str) -> None:
    """Refuse a deployment on another system, whose processes do not end with their parent.

    Args:
        verb: The verb group that was asked for, such as "server".

    Raises:
        ServiceError: This is not Linux.
    """
    if sys.platform != "linux":
        raise ServiceError(f"fedrag {verb} needs Linux; simulate, data, models, ask and report run on this system too")


THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


@contextmanager
def this_machine_spared(environment: MutableMapping[str, str] = os.environ) -> Iterator[None]:
    """Let no proxy of the environment stand between this process, those that it starts, and others of this machine."""
    names = ("no_proxy", "NO_PROXY")
    before = {name: environment[name] for name in names if name in environment}
    spared = [host.strip() for hosts in before.values() for host in hosts.split(",") if host.strip()]
    environment.update(dict.fromkeys(names, ",".join(dict.fromkeys([*spared, *THIS_MACHINE]))))
    try:
        yield
    finally:
        for name in names:
            del environment[name]
        environment.update(before)


@dataclass(frozen=True, slots=True)
class EnvironmentProxy:
    """A proxy that a variable of the environment puts between this machine and a host.

    Attributes:
        url: Its URL, without what identifies a user.
        variable: The variable.
        host: The host.
    """

    url: str
    variable: str
    host: str

    def __str__(self) -> str:
        return f"{self.url} ({self.variable} in the environment)"

    @property
    def way_out(self) -> str:
        """How to connect without it."""
        return f"to connect without this proxy, set no_proxy={self.host}"


def proxy_in_the_way(server: str) -> EnvironmentProxy | None:
    """Return the proxy of the environment on the way to HOST:PORT over TLS, if there is one."""
    host = without_brackets(server.rpartition(":")[0])
    proxies = getproxies()
    for scheme in ("https", "all"):
        if scheme in proxies and not proxy_bypass(host):
            names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
            variable = next((name for name in names if os.environ.get(name)), names[0])
            return EnvironmentProxy(re.sub("(?<=//).*@", "", proxies[scheme]), variable, host)
    return None
