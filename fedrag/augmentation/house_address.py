"""Tells whether an address lies inside the house: on this machine or in a private network."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from fedrag.errors import ConfigError, ServiceError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PRIVATE = tuple(
    map(
        ipaddress.ip_network,
        # RFC 1918, RFC 6598 (carriers), RFC 3927 and RFC 4291 (link-local), RFC 4193 (unique local).
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fe80::/10", "fc00::/7"),
    )
)


def outside_addresses(url: str) -> list[str]:
    """Return the addresses behind a URL's host that are neither loopback nor private; none: it is inside the house.

    Args:
        url: An http or https URL; its host may be a name, which is resolved here.

    Raises:
        ConfigError: It is no such URL.
        ServiceError: The name is not known.
    """
    host, port = host_and_port(url)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ServiceError(f"{url}: the name {host} is not known here: {error.strerror or error}") from None
    addresses = dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found)
    return [address for address in addresses if not is_inside(address)]


def host_and_port(url: str) -> tuple[str, int]:
    """Return host and port of a URL.

    >>> host_and_port("http://[::1]:8000/v1")
    ('::1', 8000)

    Raises:
        ConfigError: It is no http or https URL with a host.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f'"{url}" is no address of an endpoint; expected one such as http://localhost:8000/v1')
    return host, port or (443 if parts.scheme == "https" else 80)


def is_inside(address: str) -> bool:
    """Return whether an IP address is loopback or private, an IPv4 address in IPv6 too.

    >>> [is_inside(address) for address in ("127.0.0.1", "::1", "10.1.2.3", "fd00::1", "::ffff:192.168.0.1")]
    [True, True, True, True, True]
    >>> [is_inside(address) for address in ("8.8.8.8", "2001:4860::8888", "::ffff:8.8.8.8", "172.32.0.1")]
    [False, False, False, False]
    """
    found: Address = ipaddress.ip_address(address)
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    found = mapped or found
    return found.is_loopback or any(found in network for network in _PRIVATE if network.version == found.version)
