"""The register of a coordinator: names, public keys and agreement keys of its sites, in `sites.json` of its folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from filelock import FileLock
from pydantic import Field

from fedrag.config.section import Section
from fedrag.coordinator.operator_log import recorded
from fedrag.errors import ConfigError
from fedrag.files import read_json, read_text_file, storage_errors, write_json
from fedrag.secure_sum.member_text import is_member_text, member_text, read_member
from fedrag.secure_sum.roster import Member, is_signed_by
from fedrag.security.keys import fingerprint, public_key_text, read_public_key


class RegisteredSite(Section):
    """A site in the register."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    key: str
    """Its public key, as one line in the format of OpenSSH."""
    added: str
    questions: Annotated[int, Field(ge=0)] = 0
    """Training questions that its administrator confirmed: it counts for no more; 0: for what it claims."""
    removed: str = ""
    """When it was removed; its key is never accepted again."""
    former: tuple[str, ...] = ()
    """The keys that handed over to this one or to each other; none is ever accepted again."""
    agreement: str = ""
    """Its agreement key, signed, as `site.pub` has it; empty: it has told none yet, and takes part in no secure sum."""

    def __str__(self) -> str:
        return f"{self.name}, {fingerprint(self.public_key)}"

    @property
    def public_key(self) -> EllipticCurvePublicKey:
        """Its public key."""
        return read_public_key(self.key, self.name)

    @property
    def member(self) -> Member | None:
        """The site as the roster of a secure sum has it; None where it has told no agreement key."""
        return read_member(self.agreement, self.name, self.public_key, self.name) if self.agreement else None


@dataclass(frozen=True, slots=True)
class SiteRegister:
    """The sites that a coordinator knows.

    Attributes:
        path: The coordinator's folder.
    """

    path: Path

    def create(self) -> None:
        """Write a register without sites."""
        self._write_sites([])

    def sites(self, *, removed: bool = False) -> list[RegisteredSite]:
        """Return the registered sites by name, the removed ones only on request."""
        entries = read_json(self.path / "sites.json")["sites"]
        found = [RegisteredSite.model_validate(entry) for entry in entries]
        return sorted((site for site in found if removed or not site.removed), key=lambda site: site.name)

    @recorded("add-site", "name", "public_key", "questions")
    def add_site(self, name: str, public_key: Path | str, questions: int = 0) -> RegisteredSite:
        """Register a site; of one that is registered with this key, change what is new: questions or agreement key.

        Args:
            name: Its name.
            public_key: The file of its public key, or the key as text; its agreement key may follow the key.
            questions: Training questions that its administrator confirmed; 0: none were.

        Raises:
            ConfigError: The name or the key is taken, or the key was removed once; or the agreement key is damaged, or
                not signed for this name.
        """
        with self._alone():
            return self._add_site(name, public_key, questions)

    def _add_site(self, name: str, public_key: Path | str, questions: int) -> RegisteredSite:
        where = str(public_key) if isinstance(public_key, Path) else "the key"
        line = read_text_file(public_key, ConfigError) if isinstance(public_key, Path) else public_key
        key = read_public_key(line, where)
        text = public_key_text(key)
        for site in self.sites(removed=True):
            if text in site.former:
                raise ConfigError(f"{where}: {site.name} has replaced this key, which is never accepted again")
            if site.key == text and site.removed:
                raise ConfigError(
                    f"{where}: this key was removed on {site.removed[:10]} and is never accepted again; "
                    "the site makes a new one with fedrag client init"
                )
            if site.key == text and site.name == name:
                return self._changed_by(site, questions, _agreement_in(line, name, key, where), where)
            if site.key == text:
                raise ConfigError(f"{where}: this key is registered already, as {site.name}")
            if site.name == name and not site.removed:
                raise ConfigError(f"{name}: is registered already, with the key {fingerprint(site.public_key)}")
        member = _agreement_in(line, name, key, where)
        agreement = member_text(member) if member else ""
        try:
            new = RegisteredSite(name=name, key=text, added=_now(), questions=questions, agreement=agreement)
        except ValueError:
            raise ConfigError(
                f'"{name}" is not a name for a site: expected lower-case letters, digits and hyphens, at most 64'
            ) from None
        self._write_sites([*self.sites(removed=True), new])
        return new

    def _changed_by(self, site: RegisteredSite, questions: int, member: Member | None, where: str) -> RegisteredSite:
        """Change what is new of a registered site."""
        is_new = member is not None and not _has_key(site, member)
        if not questions and not is_new:
            raise ConfigError(f"{where}: this key is registered already, as {site.name}")
        agreement = member_text(member) if member and is_new else site.agreement
        return self._change(site, questions=questions or site.questions, agreement=agreement)

    @recorded("remove-site", "name")
    def remove_site(self, name: str) -> RegisteredSite:
        """Mark a site as removed; its key is never accepted again.

        Raises:
            ConfigError: No site has this name.
        """
        with self._alone():
            return self._change(self.site(name), removed=_now())

    def _change(self, site: RegisteredSite, **changes: object) -> RegisteredSite:
        changed = site.model_copy(update=changes)
        self._write_sites([changed if other == site else other for other in self.sites(removed=True)])
        return changed

    def site(self, name: str) -> RegisteredSite:
        """Return a registered site.

        Raises:
            ConfigError: No site has this name.
        """
        for site in self.sites():
            if site.name == name:
                return site
        known = ", ".join(site.name for site in self.sites()) or "none"
        raise ConfigError(f"{name}: no site has this name; registered: {known}")

    def replace_key(self, name: str, key: str, agreement: str = "") -> None:
        """Give a site another key, as one line in the format of OpenSSH; its key of before is burnt.

        Args:
            name: The site's name.
            key: The new key.
            agreement: Its agreement key, signed with the new one; "": it tells it when it is greeted.

        Raises:
            ConfigError: No site has this name, or a site has the key, or had it; or the agreement key is not signed
                with the new one.
        """
        if agreement:
            read_member(agreement, name, read_public_key(key, name), name)
        with self._alone():
            if any(key in (site.key, *site.former) for site in self.sites(removed=True)):
                raise ConfigError(f"{name}: the key was in use before; a new one is made with: fedrag client rotate")
            site = self.site(name)
            self._change(site, key=key, former=(*site.former, site.key), agreement=agreement)

    def learn_agreement(self, member: Member) -> bool:
        """Keep the agreement key that a site tells in a greeting; return whether it is signed, and so was kept."""
        with self._alone():
            site = next((site for site in self.sites() if site.name == member.name), None)
            if site is None or not is_signed_by(member, site.public_key):
                return False
            if not _has_key(site, member):
                self._change(site, agreement=member_text(member))
            return True

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Wait until no other process changes the register."""
        with storage_errors(self.path):
            lock = FileLock(self.path / ".sites.json.lock", mode=0o600)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _write_sites(self, sites: list[RegisteredSite]) -> None:
        write_json(self.path / "sites.json", {"sites": [site.model_dump() for site in sites]})


def _has_key(site: RegisteredSite, member: Member) -> bool:
    """Return whether the register has this agreement key of a site."""
    return site.member is not None and site.member.key == member.key


def _agreement_in(line: str, name: str, key: EllipticCurvePublicKey, where: str) -> Member | None:
    """Return the agreement key that follows a public key; None where none does."""
    words = line.split()
    return read_member(words[2], name, key, where) if len(words) > 2 and is_member_text(words[2]) else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
