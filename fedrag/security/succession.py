"""How a new key follows an old one: a line that both have signed, carried by hand to whoever trusts the old key.

The line is `fedrag-key.CONTENT.OLD.NEW`, each part in URL-safe base64: what is said as JSON, and the signatures of the
old key, which hands over, and of the new one, which shows that somebody holds it.
"""

from __future__ import annotations

import binascii
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

from fedrag.errors import ConfigError
from fedrag.security.keys import fingerprint, public_key_text, read_public_key, sign, verify

COORDINATOR, SITE = "coordinator", "site"

_NAME = "fedrag-key"


@dataclass(frozen=True, slots=True)
class Succession:
    """What such a line says.

    Attributes:
        role: Whose key it is: "coordinator" or "site".
        name: Name of the site; host of the coordinator.
        old: Fingerprint of the key that hands over.
        key: The new public key, as one line in the format of OpenSSH.
        time: When; UTC, ISO 8601.
        agreement: The site's agreement key, signed with the new one; "" where it has none, and for a coordinator.
    """

    role: str
    name: str
    old: str
    key: str
    time: str
    agreement: str = ""

    @property
    def public_key(self) -> EllipticCurvePublicKey:
        """The new key."""
        return read_public_key(self.key, "the line's key")

    @property
    def new(self) -> str:
        """Fingerprint of the new key."""
        return fingerprint(self.public_key)


def succession_line(
    role: str, name: str, old: EllipticCurvePrivateKey, new: EllipticCurvePrivateKey, agreement: str = ""
) -> str:
    """Return the line with which an old key hands over to a new one, and with it an agreement key signed anew."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    said = Succession(role, name, fingerprint(old.public_key()), public_key_text(new.public_key()), now, agreement)
    content = json.dumps(asdict(said)).encode()
    return ".".join([_NAME, *map(_encoded, (content, sign(old, _signed(content)), sign(new, _signed(content))))])


def read_succession(line: str, role: str) -> Succession:
    """Read a line, without asking whether the old key has signed it: see `signed_by`.

    Raises:
        ConfigError: It is no such line, was damaged on its way, or is about a key of the other role.
    """
    try:
        content, _, by_new = _parts(line)
        said = Succession(**json.loads(content))
        if not all(isinstance(part, str) for part in asdict(said).values()):
            raise TypeError
    except (ValueError, TypeError, RecursionError):
        raise ConfigError(f"expected a whole line that begins with {_NAME}., as the other end printed it") from None
    if said.role != role:
        raise ConfigError(f"the line is about the key of a {said.role}; expected that of a {role}")
    if not verify(said.public_key, by_new, _signed(content)):
        raise ConfigError("the line was damaged on its way: its new key has not signed it")
    return said


def signed_by(line: str, old: EllipticCurvePublicKey) -> bool:
    """Return whether a line, which was read, bears the signature of this key."""
    content, by_old, _ = _parts(line)
    return verify(old, by_old, _signed(content))


def _signed(content: bytes) -> bytes:
    return b"fedrag succession\0" + content


def _encoded(part: bytes) -> str:
    return urlsafe_b64encode(part).decode().rstrip("=")


def _parts(line: str) -> tuple[bytes, bytes, bytes]:
    name, *parts = line.strip().split(".")
    if name != _NAME or len(parts) != 3:
        raise ValueError("not such a line")
    try:
        content, by_old, by_new = (urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    return content, by_old, by_new
