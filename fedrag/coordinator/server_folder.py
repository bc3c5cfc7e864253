"""The coordinator's folder: its keys and certificates, the register of sites, the runs.

```
DIR/
  server.toml                  host, ports
  ca.crt  ca.key               the authority that signs the certificates
  server.crt  server.key       the certificate of the reverse proxy and of the SuperLink behind it
  signing.key  signing.pub     signs what sites are asked; sites pin the public one
  executor.secret              lets the coordinator's own processes, and no other, take up runs
  for-sites/                   what every site gets: the authority's certificate, the public signing key
  sites.json                   the register of sites: names and public keys
  conduct.json                 how many bad replies sites have sent, and who is set aside
  superlink.db                 Flower's state
  current.json                 the current run, if any
  runs/  logs/  reverse-proxy/
```
"""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from pydantic import Field

from fedrag.config.section import Section, parse_section
from fedrag.coordinator.flower import SuperLink
from fedrag.errors import ConfigError, ServiceError
from fedrag.files import read_json, read_text_file, storage_errors, write_json, write_text
from fedrag.locks import held_alone
from fedrag.security.certificates import new_authority, new_server_certificate
from fedrag.security.keys import fingerprint, load_public_key, new_key, new_secret, public_key_text, read_public_key

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 365
WARN_DAYS = 30  # this long before its certificate expires, a coordinator asks for a new one

Port = Annotated[int, Field(ge=1, le=65535)]


class ServerConfig(Section):
    """Where the coordinator is reached."""

    name: Annotated[str, Field(min_length=1)]
    """Host name or address under which the sites reach it."""
    listen: str = "0.0.0.0"
    """Address of this machine that the reverse proxy listens on."""
    port: Port = 8443
    """Port of the reverse proxy: the only one that others need to reach."""
    superlink_port: Port = 8444
    """Port of Flower's SuperLink, on loopback only."""


class RegisteredSite(Section):
    """A site in the register."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    key: str
    """Its public key, as one line in the format of OpenSSH."""
    added: str
    removed: str = ""
    """When it was removed; its key is never accepted again."""

    @property
    def public_key(self) -> EllipticCurvePublicKey:
        """Its public key."""
        return read_public_key(self.key, self.name)


class ServerFolder:
    """A coordinator on disk.

    Args:
        path: The folder.
        config: Where it is reached.
    """

    def __init__(self, path: Path, config: ServerConfig) -> None:
        self.path = path
        self.config = config

    @classmethod
    def create(cls, path: Path, config: ServerConfig) -> ServerFolder:
        """Make the folder with new keys and certificates.

        Raises:
            ConfigError: The folder is not empty.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(f"{path}: is not empty; a coordinator is made in a new folder")
        with storage_errors(path):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = cls(path, config)
        new_authority(path / "ca.crt", path / "ca.key", f"fedrag {config.name}", AUTHORITY_DAYS)
        folder.renew_certificate()
        new_key(path / "signing.key")
        new_secret(path / "executor.secret")
        write_text(folder.for_sites / "ca.crt", (path / "ca.crt").read_text(encoding="utf-8"))
        write_text(folder.for_sites / "coordinator.pub", (path / "signing.pub").read_text(encoding="utf-8"))
        write_json(path / "sites.json", {"sites": []})
        write_text(path / "server.toml", tomli_w.dumps(config.model_dump()))  # last: with it the folder is whole
        return folder

    @classmethod
    def open(cls, path: Path) -> ServerFolder:
        """Open a coordinator's folder.

        Raises:
            ConfigError: It is not a coordinator's folder, or its server.toml is not valid.
        """
        file = path / "server.toml"
        missing = "no such file, so this is not a coordinator's folder; fedrag server init makes one"
        text = read_text_file(file, ConfigError, missing)
        return cls(path.absolute(), parse_section(ServerConfig, text, str(file)))

    @property
    def link(self) -> SuperLink:
        """The SuperLink behind the reverse proxy."""
        address = f"127.0.0.1:{self.config.superlink_port}"
        return SuperLink(address, self.path / "ca.crt", self.path / "executor.secret")

    @property
    def runs(self) -> Path:
        """The folder of the runs."""
        return self.path / "runs"

    @property
    def for_sites(self) -> Path:
        """The folder of what every site gets."""
        return self.path / "for-sites"

    @property
    def signing_fingerprint(self) -> str:
        """Fingerprint of the key that signs requests."""
        return fingerprint(load_public_key(self.path / "signing.pub"))

    @property
    def logs(self) -> Path:
        """The folder of the logs."""
        return self.path / "logs"

    def renew_certificate(self) -> None:
        """Make a new certificate of the same authority; the sites do not notice."""
        path = self.path
        names = [self.config.name]
        certificate, key = path / "server.crt", path / "server.key"
        new_server_certificate(certificate, key, path / "ca.crt", path / "ca.key", names, CERTIFICATE_DAYS)

    # The register.

    def sites(self, *, removed: bool = False) -> list[RegisteredSite]:
        """Return the registered sites by name, the removed ones only on request."""
        entries = read_json(self.path / "sites.json")["sites"]
        found = [RegisteredSite.model_validate(entry) for entry in entries]
        return sorted((site for site in found if removed or not site.removed), key=lambda site: site.name)

    def add_site(self, name: str, key_file: Path) -> RegisteredSite:
        """Register a site.

        Raises:
            ConfigError: The name or the key is taken, or the key was removed once.
        """
        key = load_public_key(key_file)
        text = public_key_text(key)
        for site in self.sites(removed=True):
            if site.key == text and site.removed:
                raise ConfigError(
                    f"{key_file}: this key was removed on {site.removed[:10]} and is never accepted again; "
                    "the site makes a new one with fedrag client init"
                )
            if site.key == text:
                raise ConfigError(f"{key_file}: this key is registered already, as {site.name}")
            if site.name == name and not site.removed:
                raise ConfigError(f"{name}: is registered already, with the key {fingerprint(site.public_key)}")
        try:
            new = RegisteredSite(name=name, key=text, added=_now())
        except ValueError:
            raise ConfigError(
                f'"{name}" is not a name for a site: expected lower-case letters, digits and hyphens, at most 64'
            ) from None
        self._write_sites([*self.sites(removed=True), new])
        return new

    def remove_site(self, name: str) -> RegisteredSite:
        """Mark a site as removed; its key is never accepted again.

        Raises:
            ConfigError: No site has this name.
        """
        sites = self.sites(removed=True)
        for number, site in enumerate(sites):
            if site.name == name and not site.removed:
                sites[number] = site.model_copy(update={"removed": _now()})
                self._write_sites(sites)
                return sites[number]
        known = ", ".join(site.name for site in self.sites()) or "none"
        raise ConfigError(f"{name}: no site has this name; registered: {known}")

    def _write_sites(self, sites: list[RegisteredSite]) -> None:
        write_json(self.path / "sites.json", {"sites": [site.model_dump() for site in sites]})

    # The current run.

    def begin(self, run: str) -> None:
        """Note a run as the current one.

        Raises:
            ServiceError: Another run is.
        """
        text = json.dumps({"run": run, "flower_run": 0, "tries": 0, "stop": False})
        try:
            handle = os.open(self.path / "current.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            raise ServiceError(
                f"{self.current()['run']} is running; wait for it, or stop it with: fedrag server stop {self.path}"
            ) from None
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)

    def current(self) -> dict[str, Any]:
        """Return the notes on the current run; empty if there is none."""
        path = self.path / "current.json"
        return read_json(path) if path.is_file() else {}

    def note(self, **changes: object) -> None:
        """Change the notes on the current run."""
        write_json(self.path / "current.json", self.current() | changes)

    def end(self) -> None:
        """Note that there is no current run."""
        (self.path / "current.json").unlink(missing_ok=True)

    @property
    def is_running(self) -> bool:
        """Whether a process serves this folder."""
        try:
            with self.lock():
                return False
        except ServiceError:
            return True

    def lock(self) -> AbstractContextManager[None]:
        """Hold the folder for the one process that serves it; raise ServiceError where another does."""
        return held_alone(self.path, ServiceError(f"{self.path}: a coordinator is running in this folder already"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
