"""Agreement keys (X25519), and what two sites derive from them: seeds of masks and keys of sealed shares.

The coordinator carries all messages and knows all public keys; the shared secrets it cannot compute (Diffie-Hellman
over Curve25519, RFC 7748). All keys are HKDF-SHA256 (RFC 5869) of a secret, with the context of the sum as salt: each
serves one sum alone.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedrag.errors import MessageError

KEY_BYTES = 32
_MASK = b"fedrag secure sum: mask of a pair"
_OWN = b"fedrag secure sum: own mask"
_COMMIT = b"fedrag secure sum: commitment to an own mask"
_SEAL = b"fedrag secure sum: sealed share"


def new_agreement_key() -> bytes:
    """Return a new private key, 32 raw bytes from the system's randomness."""
    return X25519PrivateKey.generate().private_bytes_raw()


def agreement_public(private_key: bytes) -> bytes:
    """Return the public key, 32 raw bytes."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def shared_secret(private_key: bytes, peer: bytes) -> bytes:
    """Return the secret that the owners of two keys share.

    Raises:
        MessageError: The peer's key is none: one that gives everybody the same secret.
    """
    try:
        public = X25519PublicKey.from_public_bytes(peer)
        return X25519PrivateKey.from_private_bytes(private_key).exchange(public)
    except ValueError:
        raise MessageError("an agreement key of the roster is none") from None


def pair_seed(secret: bytes, context: bytes) -> bytes:
    """Return the seed s_ij of the mask that two sites add and subtract."""
    return _derived(secret, _MASK, context)


def own_seed(b: bytes, context: bytes) -> bytes:
    """Return the seed of a site's own mask from its fresh bytes b_i."""
    return _derived(b, _OWN, context)


def own_commitment(b: bytes, context: bytes) -> bytes:
    """Return what a site tells of its fresh bytes b_i beforehand: it fits no others, and does not give them away."""
    return _derived(b, _COMMIT, context)


def sealing_key(secret: bytes, sender: str, receiver: str, context: bytes) -> bytes:
    """Return the key with which one site seals its share for another; each way has its own."""
    names = b"".join(len(name.encode()).to_bytes(4, "big") + name.encode() for name in (sender, receiver))
    return _derived(secret, _SEAL + names, context)


def _derived(secret: bytes, what: bytes, context: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, salt=context, info=what).derive(secret)
