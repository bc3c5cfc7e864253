"""A site's agreement key with its signature as one word, for a file: `fedrag-agreement.KEY.SIGNATURE` in base64."""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from fedrag.errors import ConfigError
from fedrag.secure_sum.agreement import KEY_BYTES
from fedrag.secure_sum.roster import Member, is_signed_by

_NAME = "fedrag-agreement"


def member_text(member: Member) -> str:
    """Return the agreement key of a site, and what it signed of it, as one word."""
    parts = (urlsafe_b64encode(part).decode().rstrip("=") for part in (member.key, member.signature))
    return ".".join([_NAME, *parts])


def is_member_text(word: str) -> bool:
    """Return whether a word begins like one of `member_text`."""
    return word.startswith(f"{_NAME}.")


def read_member(text: str, name: str, public_key: EllipticCurvePublicKey, where: str) -> Member:
    """Read what `member_text` wrote.

    Args:
        text: The word.
        name: The site's name, which is signed with the key.
        public_key: The site's public signing key.
        where: What holds the word, for errors.

    Raises:
        ConfigError: It is no such word, or another's, or for another name.
    """
    try:
        head, *parts = text.split(".")
        key, signature = (urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts)
        if head != _NAME or len(key) != KEY_BYTES:
            raise ValueError
    except (ValueError, binascii.Error):
        raise ConfigError(
            f"{where}: the agreement key after the public key is damaged; ask for the file again"
        ) from None
    member = Member(name, key, signature)
    if not is_signed_by(member, public_key):
        raise ConfigError(
            f"{where}: the agreement key after the public key is not signed by it for the name {name}; expected the "
            "file of that site, and the name that stands in its site.toml"
        )
    return member
