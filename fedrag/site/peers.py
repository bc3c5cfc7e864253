"""The other sites of a federation, as the coordinator tells them, and which of them an administrator has confirmed.

Masks hide an update only among sites that are really there. So a site sums with those alone whose signing key somebody
has compared, by fingerprint, with the other administrator: else a coordinator could invent them.

```
peers.json    {"sites": {"south": {"key": "ecdsa-sha2-nistp384 AAAA...", "confirmed": "SHA256:...", "since": "..."}}}
```
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from fedrag.errors import ConfigError, MessageError
from fedrag.files import read_json, write_json
from fedrag.locks import in_turn
from fedrag.secure_sum.roster import MOST_SITES, Roster, is_signed_by
from fedrag.security.keys import fingerprint, public_key_text, read_public_key

PEERS_FILE = "peers.json"
_LOCK = f".{PEERS_FILE}.lock"  # the folder's own is held by the site for as long as it runs

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_FINGERPRINT = re.compile("SHA256:[A-Za-z0-9+/]{43}")


@dataclass(frozen=True, slots=True)
class Peer:
    """Another site.

    Attributes:
        name: Its name.
        key: Its public signing key as last received, as one line in the format of OpenSSH.
        confirmed: Fingerprint of the key that was confirmed; "" if none was.
        since: When it was; UTC, ISO 8601.
    """

    name: str
    key: str
    confirmed: str = ""
    since: str = ""

    @property
    def public_key(self) -> EllipticCurvePublicKey:
        """Its public signing key."""
        return read_public_key(self.key, self.name)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of its key as last received."""
        return fingerprint(self.public_key)

    @property
    def state(self) -> str:
        """What an administrator reads: "confirmed", "not confirmed", or "changed since it was confirmed"."""
        if not self.confirmed:
            return "not confirmed"
        return "confirmed" if self.confirmed == self.fingerprint else "changed since it was confirmed"


def read_peers(folder: Path) -> list[Peer]:
    """Return the other sites as last received, by name.

    Raises:
        ConfigError: The file cannot be read as such.
    """
    path = folder / PEERS_FILE
    try:
        told = read_json(path)["sites"] if path.is_file() else {}
        return [Peer(name, **entry) for name, entry in sorted(told.items())]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConfigError(f"{path}: cannot be read; remove it, and confirm the other sites again") from None


def receive_peers(folder: Path, told: Mapping[str, object], own_name: str) -> None:
    """Note the names and keys that the coordinator tells; what was confirmed of a name stays noted with it.

    Args:
        folder: The site's folder.
        told: Public keys by name.
        own_name: The site's own name, which is no peer.

    Raises:
        MessageError: A name or a key is none.
    """
    if len(told) > MOST_SITES or not all(_NAME.fullmatch(name) for name in told):
        raise MessageError("the names of the other sites cannot be read")
    try:
        keys = {name: public_key_text(read_public_key(str(key), name)) for name, key in told.items()}
    except ConfigError:
        raise MessageError("a key of another site is none") from None
    with in_turn(folder, _LOCK):
        known = {peer.name: peer for peer in read_peers(folder)}
        received = [replace(known.get(name, Peer(name, "")), key=key) for name, key in keys.items() if name != own_name]
        # One that was confirmed and is not told stays: else it could come back with another key as if it were new.
        gone = [peer for name, peer in known.items() if name not in keys and peer.confirmed]
        if (peers := sorted([*received, *gone], key=_name_of)) != sorted(known.values(), key=_name_of):
            _write(folder, peers)


def confirm_peers(folder: Path, told: Mapping[str, str]) -> list[Peer]:
    """Note that these sites have the keys whose fingerprints their administrators told, and return them.

    Args:
        folder: The site's folder.
        told: Fingerprints by name, as they were read out.

    Raises:
        ConfigError: A name is not among those received, or a key has another fingerprint; nothing is noted.
    """
    with in_turn(folder, _LOCK):
        peers = {peer.name: peer for peer in read_peers(folder)}
        for name, read_out in told.items():
            if name not in peers:
                known = ", ".join(peers) or "none; the coordinator tells them with a run of federation.secure = true"
                raise ConfigError(f"{name}: no other site has this name; there are: {known}")
            if read_out != peers[name].fingerprint:
                raise ConfigError(
                    f"{name}: its key has the fingerprint {peers[name].fingerprint}, not {read_out}; nothing is "
                    "confirmed. Have it read out again; if it still differs, the coordinator told a key that is not "
                    "that site's"
                )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        confirmed = {name: replace(peers[name], confirmed=peers[name].fingerprint, since=now) for name in told}
        _write(folder, (peers | confirmed).values())
    return list(confirmed.values())


def told_fingerprints(words: Iterable[str]) -> dict[str, str]:
    """Read what an administrator types, `NAME=FINGERPRINT` a site.

    Raises:
        ConfigError: A word is not of this form, or two name one site.

    >>> told_fingerprints(["south=SHA256:ScY4ppNOTfKxnVwbWZJWDNgQ9FGzCxYK6mJ0Pc8BCHs"])
    {'south': 'SHA256:ScY4ppNOTfKxnVwbWZJWDNgQ9FGzCxYK6mJ0Pc8BCHs'}
    """
    told: dict[str, str] = {}
    for word in words:
        name, _, read_out = word.strip().partition("=")
        if not _FINGERPRINT.fullmatch(read_out):
            raise ConfigError(
                f"--confirm {word}: expected NAME=FINGERPRINT, with the fingerprint that the administrator of "
                f"{name or 'the site'} read out: SHA256: and 43 characters"
            )
        if told.setdefault(name, read_out) != read_out:
            raise ConfigError(f"--confirm {word}: another fingerprint of {name} was given before")
    return told


def refusal_of_roster(peers: Iterable[Peer], roster: Roster, own_name: str) -> tuple[str, tuple[str, ...]]:
    """Return the code with which a site refuses a roster, and the names that it is about; "" where it does not.

    Args:
        peers: The other sites, as this one knows them.
        roster: Who is to take part in the sum.
        own_name: The site's own name.
    """
    known = {peer.name: peer for peer in peers}
    others = [member for member in roster.members if member.name != own_name]
    strangers = [m.name for m in others if m.name not in known or not known[m.name].confirmed]
    if strangers:
        return "secure-peers", tuple(strangers)
    if changed := [m.name for m in others if known[m.name].confirmed != known[m.name].fingerprint]:
        return "secure-peer-changed", tuple(changed)
    forged = [m.name for m in others if not is_signed_by(m, known[m.name].public_key)]
    return ("secure-roster", tuple(forged)) if forged else ("", ())


def _name_of(peer: Peer) -> str:
    return peer.name


def _write(folder: Path, peers: Iterable[Peer]) -> None:
    entries = {peer.name: {key: told for key, told in asdict(peer).items() if key != "name"} for peer in peers}
    write_json(folder / PEERS_FILE, {"sites": entries})
