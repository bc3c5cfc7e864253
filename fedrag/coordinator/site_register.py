"""The register of a coordinator: the names and public keys of its sites, in `sites.json` of its folder."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from pydantic import Field

from fedrag.config.section import Section
from fedrag.coordinator.operator_log import recorded
from fedrag.errors import ConfigError
from fedrag.files import read_json, write_json
from fedrag.security.keys import fingerprint, load_public_key, public_key_text, read_public_key


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

    def __str__(self) -> str:
        return f"{self.name}, {fingerprint(self.public_key)}"

    @property
    def public_key(self) -> EllipticCurvePublicKey:
        """Its public key."""
        return read_public_key(self.key, self.name)


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
        """Register a site; for one that is registered with this key, change the number of its confirmed questions.

        Args:
            name: Its name.
            public_key: The file of its public key, or the key as text.
            questions: Training questions that its administrator confirmed; 0: none were.

        Raises:
            ConfigError: The name or the key is taken, or the key was removed once.
        """
        where = public_key if isinstance(public_key, Path) else "the key"
        key = load_public_key(where) if isinstance(where, Path) else read_public_key(str(public_key), where)
        text = public_key_text(key)
        for site in self.sites(removed=True):
            if text in site.former:
                raise ConfigError(f"{where}: {site.name} has replaced this key, which is never accepted again")
            if site.key == text and site.removed:
                raise ConfigError(
                    f"{where}: this key was removed on {site.removed[:10]} and is never accepted again; "
                    "the site makes a new one with fedrag client init"
                )
            if site.key == text and site.name == name and questions:
                return self._change(site, questions=questions)
            if site.key == text:
                raise ConfigError(f"{where}: this key is registered already, as {site.name}")
            if site.name == name and not site.removed:
                raise ConfigError(f"{name}: is registered already, with the key {fingerprint(site.public_key)}")
        try:
            new = RegisteredSite(name=name, key=text, added=_now(), questions=questions)
        except ValueError:
            raise ConfigError(
                f'"{name}" is not a name for a site: expected lower-case letters, digits and hyphens, at most 64'
            ) from None
        self._write_sites([*self.sites(removed=True), new])
        return new

    @recorded("remove-site", "name")
    def remove_site(self, name: str) -> RegisteredSite:
        """Mark a site as removed; its key is never accepted again.

        Raises:
            ConfigError: No site has this name.
        """
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

    def replace_key(self, name: str, key: str) -> None:
        """Give a site another key, as one line in the format of OpenSSH; its key of before is burnt.

        Raises:
            ConfigError: No site has this name, or a site has the key, or had it.
        """
        if any(key in (site.key, *site.former) for site in self.sites(removed=True)):
            raise ConfigError(f"{name}: the key was in use before; a new one is made with: fedrag client rotate")
        site = self.site(name)
        self._change(site, key=key, former=(*site.former, site.key))

    def _write_sites(self, sites: list[RegisteredSite]) -> None:
        write_json(self.path / "sites.json", {"sites": [site.model_dump() for site in sites]})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
