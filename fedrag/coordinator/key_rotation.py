"""New keys without a new federation: the coordinator's own signing key, and a site's key that its old one hands over.

Both wait for the end of a run, whose messages are signed and verified with the keys it began with.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from fedrag.coordinator.operator_log import recorded
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.coordinator.site_register import RegisteredSite
from fedrag.errors import ConfigError, ServiceError
from fedrag.files import storage_errors, write_text
from fedrag.security.keys import fingerprint, load_private_key, new_key, public_key_text
from fedrag.security.succession import COORDINATOR, SITE, read_succession, signed_by, succession_line

ROTATED = "coordinator-keys.txt"
"""The file, among what sites get, of the lines of all rotations: who was away for two of them needs both."""


@dataclass(frozen=True, slots=True)
class Handover:
    """A key that follows another.

    Attributes:
        name: Of the site; the host of the coordinator.
        old: Fingerprint of the one that was.
        new: Fingerprint of the one that is.
        line: What carries it to the other end.
    """

    name: str
    old: str
    new: str
    line: str

    def __str__(self) -> str:
        return f"{self.name}: {self.old} hands over to {self.new}"


@recorded("rotate --signing")
def rotate_signing_key(folder: ServerFolder) -> Handover:
    """Make a new signing key, which signs all requests from now on; the old one is overwritten.

    Raises:
        ServiceError: A run is in progress.
    """
    _refuse_during_a_run(folder, "its requests are signed with the key that it began with")
    path, lines = folder.path, folder.for_sites / ROTATED
    old = load_private_key(path / "signing.key")
    following = path / "signing.next.key"
    if not following.is_file():  # else one that a crash left: it may stand in a line already
        following.with_suffix(".pub").unlink(missing_ok=True)
        new_key(following)
    new = load_private_key(following)
    line = succession_line(COORDINATOR, folder.config.name, old, new)
    text = public_key_text(new.public_key()) + "\n"
    earlier = lines.read_text(encoding="ascii") if lines.is_file() else ""
    write_text(lines, f"{earlier}{line}\n")  # first: nobody could follow a key whose line is lost
    write_text(path / "signing.pub", text)
    write_text(folder.for_sites / "coordinator.pub", text)
    with storage_errors(path):
        os.replace(following, path / "signing.key")
    following.with_suffix(".pub").unlink(missing_ok=True)
    return Handover(folder.config.name, fingerprint(old.public_key()), fingerprint(new.public_key()), line)


@recorded("accept-key")
def accept_site_key(folder: ServerFolder, line: str) -> Handover:
    """Register the key that a site's registered one hands over to; the old one is never accepted again.

    Raises:
        ConfigError: The line is not from this site's registered key, or its new key was in use before.
        ServiceError: A run is in progress.
    """
    said = read_succession(line, SITE)
    site = folder.register.site(said.name)
    if fingerprint(site.public_key) != said.new:  # else a crash came before the SuperLink knew
        _require_registered(site, said.old, line)
        _refuse_during_a_run(folder, "it verifies replies with the keys that it began with")
        folder.register.replace_key(site.name, said.key, said.agreement)
    if folder.is_running:
        folder.enter(folder.register.site(site.name))
    return Handover(said.name, said.old, said.new, line)


def _require_registered(site: RegisteredSite, old: str, line: str) -> None:
    registered = fingerprint(site.public_key)
    if old != registered:
        raise ConfigError(f"{site.name}: the line hands over from the key {old}, but {registered} is registered")
    if not signed_by(line, site.public_key):
        raise ConfigError(f"{site.name}: its registered key {registered} has not signed this line")


def _refuse_during_a_run(folder: ServerFolder, why: str) -> None:
    if name := folder.current().get("run"):
        raise ServiceError(f"{name} is running, and {why}; wait for its end, or: fedrag server stop {folder.path}")
