"""The keys that a site trusts and is known by, and how each hands over to another.

Beside the key files lie `site.next.key` until the coordinator has let it in, `site-keys.txt` with the lines that
hand over, and `burnt-keys.json` with the coordinator's keys that were replaced.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from fedrag.errors import ConfigError
from fedrag.files import read_json, storage_errors, write_json, write_text
from fedrag.secure_sum.member_text import member_text
from fedrag.security.keys import fingerprint, load_private_key, load_public_key, new_key, public_key_text
from fedrag.security.succession import COORDINATOR, SITE, read_succession, signed_by, succession_line
from fedrag.site.agreement_key import own_member, provide_agreement_key, public_line
from fedrag.site.site_config import SiteConfig

ROTATED, BURNT = "site-keys.txt", "burnt-keys.json"


def trusted_key(config: SiteConfig) -> EllipticCurvePublicKey:
    """Return the coordinator's key.

    Raises:
        ConfigError: The file is missing, holds no key, or one that was replaced.
    """
    key = load_public_key(Path(config.coordinator_key))
    if when := _burnt(config).get(fingerprint(key)):
        raise ConfigError(
            f"{config.coordinator_key}: this key was replaced on {str(when)[:10]} and is never accepted again; "
            "get coordinator.pub from the coordinator again"
        )
    return key


def accept_coordinator_key(config: SiteConfig, lines: str) -> list[str]:
    """Trust the key that the trusted one hands over to, and then only that one.

    Args:
        config: The site's site.toml.
        lines: The line that the coordinator gave, or several: who was away follows one after the other.

    Returns:
        Fingerprints: of the key that was trusted, and of each that followed; the first alone if it is the newest.

    Raises:
        ConfigError: No line is from the trusted key, or it hands over to a key that was replaced before.
    """
    path = Path(config.coordinator_key)
    trusted, burnt = load_public_key(path), _burnt(config)
    keys, last = [fingerprint(trusted)], ""
    for line in lines.split():
        said = read_succession(line, COORDINATOR)
        last = said.new
        if said.old != keys[-1]:
            continue
        if not signed_by(line, trusted):
            raise ConfigError(f"the key that this site trusts, {keys[-1]}, has not signed the line: it is forged")
        if said.new in burnt:
            raise ConfigError(f"the line hands over to {said.new}, which was replaced and is never accepted again")
        burnt[keys[-1]] = _now()
        trusted, keys = said.public_key, [*keys, said.new]
    if last != keys[-1]:
        raise ConfigError(f"no line hands over from the key that this site trusts, {keys[-1]}")
    if len(keys) > 1:
        write_json(path.with_name(BURNT), burnt)  # first: after a crash no key is trusted, and the line is typed again
        write_text(path, public_key_text(trusted) + "\n")
    return keys


def rotate_site_key(config: SiteConfig) -> str:
    """Make the site's next key, and return the line with which its key hands over to it.

    The site goes on with its key until the coordinator has accepted the line; see `take_up_next_key`.
    """
    following = next_key(config)
    if not following.is_file():  # else the line was not accepted yet, and is made again
        following.with_suffix(".pub").unlink(missing_ok=True)
        new_key(following)
    provide_agreement_key(config)
    key, new = load_private_key(Path(config.private_key)), load_private_key(following)
    line = succession_line(SITE, config.name, key, new, member_text(own_member(config, new)))
    lines = Path(config.private_key).with_name(ROTATED)
    earlier = lines.read_text(encoding="ascii") if lines.is_file() else ""
    write_text(lines, f"{earlier}{line}\n")
    return line


def next_key(config: SiteConfig) -> Path:
    """Return where the site's next key lies until it is in use."""
    key = Path(config.private_key)
    return key.with_name(f"{key.stem}.next{key.suffix}")


def take_up_next_key(config: SiteConfig) -> None:
    """Use the next key from now on; the one of before is overwritten, and the agreement key stays."""
    key, following = Path(config.private_key), next_key(config)
    provide_agreement_key(config)
    write_text(key.with_suffix(".pub"), public_line(config, load_private_key(following)))
    with storage_errors(key):
        os.replace(following, key)
        following.with_suffix(".pub").unlink()


def _burnt(config: SiteConfig) -> dict[str, object]:
    path = Path(config.coordinator_key).with_name(BURNT)
    return read_json(path) if path.is_file() else {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
