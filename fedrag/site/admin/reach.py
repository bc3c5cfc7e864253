"""Asks a coordinator for its health from a site and, if it does not answer, says why."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from fedrag.errors import ConfigError, ServiceError
from fedrag.service.environment import proxy_in_the_way
from fedrag.site.site_config import SiteConfig

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Health:
    """What a coordinator's answer shows.

    Attributes:
        certificate_ends: When its certificate ends.
        clock_ahead_s: Seconds that this machine's clock is ahead of the coordinator's, to about a second; None: the
            answer had no date.
    """

    certificate_ends: datetime
    clock_ahead_s: float | None


def ask_health(config: SiteConfig, timeout_s: float = TIMEOUT_S) -> Health:
    """Ask a coordinator for its health as the site will reach it: with its authority, through its proxy.

    Raises:
        ConfigError: The authority's certificate is missing or not a certificate.
        ServiceError: The server is not reached or is no coordinator; the text says what to do.
    """
    try:
        trusted = ssl.create_default_context(cafile=config.ca)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"{config.ca}: expected a certificate (PEM): {error.strerror or error}") from None
    url = f"https://{config.server}/health"
    try:
        with (
            httpx.Client(verify=trusted, proxy=config.proxy or None, timeout=timeout_s) as client,
            client.stream("GET", url) as answer,
        ):
            return _health(config, answer)
    except (httpx.HTTPError, ssl.SSLError) as error:
        raise ServiceError(_what_to_do(config, error)) from None


def _health(config: SiteConfig, answer: httpx.Response) -> Health:
    now = time.time()
    tls = answer.extensions["network_stream"].get_extra_info("ssl_object")
    if answer.status_code != httpx.codes.OK or answer.read() != b"ok":
        raise ServiceError(
            f"{config.server} answers, but not as a coordinator does (status {answer.status_code}); "
            "is server in site.toml the coordinator's address?"
        )
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"]), UTC)
    try:
        # The date has whole seconds: half a second more is the best guess.
        ahead = now - (parsedate_to_datetime(answer.headers["date"]).timestamp() + 0.5)
    except (KeyError, ValueError):
        return Health(ends, None)
    return Health(ends, ahead)


def _what_to_do(config: SiteConfig, error: Exception) -> str:
    """Return why there was no answer and what to do, in one sentence."""
    hidden = None if config.proxy else proxy_in_the_way(config.server)
    told = _fault(config, error, str(hidden) if hidden else config.proxy)
    return f"{told}; {hidden.way_out}" if hidden else told


def _fault(config: SiteConfig, error: Exception, proxy: str) -> str:
    server, via = config.server, f" through {proxy}" if proxy else ""
    reasons = list(_chain(error))
    for reason in reasons:
        if isinstance(reason, ssl.SSLCertVerificationError):
            return _about_certificate(config, reason)
    if isinstance(error, httpx.ProxyError):
        return f"{proxy or 'the proxy'} does not let this machine through to {server}: {error}"
    if isinstance(error, httpx.TimeoutException):
        return f"{server} does not answer{via}; is a firewall in the way, or server in site.toml wrong?"
    for reason in reasons:
        if isinstance(reason, ssl.SSLError):
            return f"{server} does not speak TLS as a coordinator does{via}: {reason.reason or reason}"
        if isinstance(reason, socket.gaierror):
            host = proxy or server.rpartition(":")[0]
            return f"{host}: this name is not known here; is it right in site.toml, and does DNS work?"
        if isinstance(reason, ConnectionRefusedError):
            return f"{proxy or server} refuses the connection; does it run, and is the port in site.toml right?"
    return f"{server} is not reached{via}: {error or type(error).__name__}"


def _about_certificate(config: SiteConfig, error: ssl.SSLCertVerificationError) -> str:
    """Return what is wrong with the server's certificate, by OpenSSL's error number."""
    server = config.server
    if error.verify_code == 9:  # X509_V_ERR_CERT_NOT_YET_VALID
        return f"the certificate of {server} is not valid yet; is this machine's clock right?"
    if error.verify_code == 10:  # X509_V_ERR_CERT_HAS_EXPIRED
        return (
            f"the certificate of {server} has ended, or this machine's clock is wrong; "
            "the coordinator renews it with: fedrag server rotate"
        )
    if error.verify_code in (62, 64):  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
        return f"{server} shows a certificate for another name; put the name that the coordinator gave you in site.toml"
    return (
        f"{server} shows a certificate that {config.ca} did not sign ({error.verify_message}); get ca.crt from the "
        "coordinator again, and if it is the same, someone stands in between, such as a proxy that opens TLS"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
