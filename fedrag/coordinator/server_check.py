"""Checks a coordinator's folder: each finding is fine, or says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from fedrag.components.finding import Finding, found
from fedrag.config.run_settings import FederationConfig
from fedrag.coordinator.secure_sites import secure_sum_text
from fedrag.coordinator.server_folder import WARN_DAYS, ServerFolder
from fedrag.errors import ConfigError
from fedrag.security.certificates import days_left
from fedrag.security.keys import fingerprint, load_private_key
from fedrag.security.permissions import require_private
from fedrag.text import plural


def check_server(folder: ServerFolder) -> Iterator[Finding]:
    """Check who can read a coordinator's folder, its signing key and certificate; say what a secure sum could be."""
    path = folder.path
    yield found("permissions", lambda: require_private(path))
    yield found("signing key", lambda: _signing_key(path))
    yield found("certificate", lambda: _certificate(path))
    yield found("secure sum", lambda: _secure_sum(folder))


def _secure_sum(folder: ServerFolder) -> str:
    """Say what a run with federation.secure could bear; not to be able to is no fault."""
    sites = folder.register.sites()
    able = sum(site.member is not None for site in sites)
    lack = f"; {plural(len(sites) - able, 'site')} without an agreement key" if able < len(sites) else ""
    return secure_sum_text(able, FederationConfig().secure_colluding) + lack


def _signing_key(path: Path) -> str:
    key = load_private_key(path / "signing.key")
    return f"only its owner can read it; fingerprint {fingerprint(key.public_key())}"


def _certificate(path: Path) -> str:
    days = days_left(path / "server.crt", datetime.now(UTC))
    if days < WARN_DAYS:
        raise ConfigError(f"that of the reverse proxy ends in {plural(days, 'day')}; run: fedrag server rotate {path}")
    return f"valid for {plural(days, 'day')}"
