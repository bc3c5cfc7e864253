"""Shares of a site's own mask: split by Shamir (1979) over GF(2^128), each sealed for the site that is to hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedrag.errors import MessageError

SECRET_BYTES = 16
SEALED_BYTES = SECRET_BYTES + 16
"""A share and its tag; which share it is follows from its holder's place in the roster."""
_NONCE = bytes(12)  # each key seals once


def split(secret: bytes, threshold: int, holders: Sequence[str]) -> dict[str, bytes]:
    """Return a share of 16 secret bytes for each holder; any `threshold` of them give it back, fewer tell nothing."""
    return {
        name: share
        for name, (_, share) in zip(holders, Shamir.split(threshold, len(holders), secret, ssss=False), strict=True)
    }


def combine(shares: Mapping[str, bytes], threshold: int, holders: Sequence[str]) -> bytes:
    """Return the secret from shares.

    Args:
        shares: By holder, at least `threshold` of them.
        threshold: How many are needed.
        holders: All holders, in the order in which it was split.

    Raises:
        MessageError: There are too few.
    """
    places = {name: place for place, name in enumerate(holders, start=1)}
    known = [(places[name], share) for name, share in shares.items()][:threshold]
    if len(known) < threshold:
        raise MessageError(f"{len(known)} shares of a mask are there, {threshold} are needed")
    return bytes(Shamir.combine(known, ssss=False))


def seal(share: bytes, key: bytes, context: bytes) -> bytes:
    """Encrypt and authenticate a share with a key that seals nothing else (ChaCha20-Poly1305, RFC 8439)."""
    return ChaCha20Poly1305(key).encrypt(_NONCE, share, context)


def unseal(sealed: bytes, key: bytes, context: bytes) -> bytes:
    """Return a sealed share.

    Raises:
        MessageError: It was sealed with another key or for another sum, or altered.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, context)
    except InvalidTag:
        raise MessageError("a sealed share was altered, or is of another sum") from None
