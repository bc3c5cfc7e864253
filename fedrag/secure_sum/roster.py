"""The roster of a secure sum: who takes part, by name and agreement key, each signed by the site's own signing key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

from fedrag.errors import MessageError
from fedrag.secure_sum.agreement import KEY_BYTES
from fedrag.security.keys import sign, verify

MIN_SITES = 3
"""Fewest sites of a secure sum: of two, each would know the other's vector from the result."""

MOST_SITES = 10_000


@dataclass(frozen=True, slots=True)
class Member:
    """A site of a roster.

    Attributes:
        name: Its name.
        key: Its public agreement key, 32 raw bytes of X25519.
        signature: Its signature over both, by its signing key; empty in a simulation.
    """

    name: str
    key: bytes
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class Roster:
    """The sites of a secure sum, in order of name; made by `roster_of`."""

    members: tuple[Member, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names, in their order."""
        return tuple(member.name for member in self.members)

    @property
    def digest(self) -> bytes:
        """Return the SHA-256 of names and keys in order: equal where two were told of the same sites."""
        return hashlib.sha256(b"".join(member_bytes(member.name, member.key) for member in self.members)).digest()

    def member(self, name: str) -> Member:
        """Return a site by name.

        Raises:
            MessageError: There is none of this name.
        """
        found = next((member for member in self.members if member.name == name), None)
        if found is None:
            raise MessageError("the roster lacks a site")
        return found


def roster_of(members: Iterable[Member]) -> Roster:
    """Return the roster of some sites, in order of name.

    Raises:
        MessageError: Two have one name or one key, or a key is not 32 bytes.
    """
    ordered = tuple(sorted(members, key=lambda member: member.name))
    if not 0 < len(ordered) <= MOST_SITES:
        raise MessageError(f"a roster names {len(ordered)} sites, expected 1 to {MOST_SITES}")
    if any(len(member.key) != KEY_BYTES for member in ordered):
        raise MessageError(f"a roster holds an agreement key that is not of {KEY_BYTES} bytes")
    if len({member.name for member in ordered}) < len(ordered) or len({member.key for member in ordered}) < len(
        ordered
    ):
        raise MessageError("a roster names a site or an agreement key twice")
    return Roster(ordered)


def member_bytes(name: str, key: bytes) -> bytes:
    """Return what a site signs: its name and its agreement key, so that no other pair gives the same bytes."""
    told = name.encode()
    return b"fedrag agreement key" + len(told).to_bytes(4, "big") + told + key


def signed_member(name: str, key: bytes, signing_key: EllipticCurvePrivateKey) -> Member:
    """Return a site with its signature over its name and its public agreement key."""
    return Member(name, key, sign(signing_key, member_bytes(name, key)))


def is_signed_by(member: Member, public_key: EllipticCurvePublicKey) -> bool:
    """Return whether a member is signed by the owner of a signing key."""
    return verify(public_key, member.signature, member_bytes(member.name, member.key))
