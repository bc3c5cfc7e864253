"""The coordinator's folder: its keys and certificates, the register of sites, the runs.

```
DIR/
  server.toml                  host, ports
  ca.crt  ca.key               the authority that signs the certificates
  server.crt  server.key       the certificate of the reverse proxy and of the SuperLink behind it
  signing.key  signing.pub     signs what sites are asked; sites pin the public one
  executor.secret              lets the coordinator's own processes, and no other, take up runs
  console.token                lets a person change things in the console; new at each start
  scenarios/                   the scenarios that the console offers
  for-sites/                   what every site gets: the authority's certificate, the public signing key, the release
  sites.json                   the register of sites: names and public keys
  conduct.json                 how many bad replies sites have sent, and who is set aside
  superlink.db                 Flower's state
  current.json                 the current run, if any
  notices.json                 when the operator's command was called last, by kind
  audit.jsonl  audit.head      who did what: a chained log, and its newest hash
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
from pydantic import AfterValidator, Field

from fedrag.config.section import Section, parse_section
from fedrag.coordinator.flower import SuperLink
from fedrag.coordinator.operator_log import recorded, recording
from fedrag.coordinator.readers import let_readers_in
from fedrag.errors import ConfigError, ServiceError, StorageError
from fedrag.files import read_json, read_text_file, storage_errors, write_json, write_text
from fedrag.locks import held_alone
from fedrag.security.certificates import new_authority, new_server_certificate
from fedrag.security.installed import RELEASE_FILE, installed_release
from fedrag.security.keys import fingerprint, load_public_key, new_key, new_secret, public_key_text, read_public_key
from fedrag.security.permissions import GROUP_READS, OWNER_ONLY, make_private, mask_of, private_files
from fedrag.text import host_and_port, without_brackets

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 365
WARN_DAYS = 30  # this long before its certificate expires, a coordinator asks for a new one

Port = Annotated[int, Field(ge=1, le=65535)]


class NotifyConfig(Section):
    """How the operator is told what needs attention."""

    command: tuple[str, ...] = ()
    """Program and arguments; two more are added: the kind, and one line of text. It runs without a shell, and at most
    once a day for each kind: certificate, run-failed, site-away, disk. Empty: none."""


class ServerConfig(Section):
    """Where the coordinator is reached."""

    name: Annotated[str, Field(min_length=1), AfterValidator(without_brackets)]
    """Host name or address under which the sites reach it."""
    listen: Annotated[str, AfterValidator(without_brackets)] = "0.0.0.0"
    """Address of this machine that the reverse proxy listens on; `0.0.0.0` is all of IPv4, `::` all of both kinds."""
    port: Port = 8443
    """Port of the reverse proxy: the only one that others need to reach."""
    superlink_port: Port = 8444
    """Port of Flower's SuperLink, on loopback only."""
    readers: str = ""
    """Group of this machine whose members may read the folder, but its keys and its database; empty: none."""
    notify: NotifyConfig = NotifyConfig()

    @property
    def address(self) -> str:
        """Where the sites reach it: what a site.toml has as its server."""
        return host_and_port(self.name, self.port)


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
        make_private(path)
        with private_files(GROUP_READS if config.readers else OWNER_ONLY):
            return cls(path, config)._filled()

    def _filled(self) -> ServerFolder:
        """Fill a new folder."""
        path = self.path
        new_authority(path / "ca.crt", path / "ca.key", f"fedrag {self.config.name}", AUTHORITY_DAYS)
        self._new_certificate()
        new_key(path / "signing.key")
        new_secret(path / "executor.secret")
        write_text(self.for_sites / "ca.crt", (path / "ca.crt").read_text(encoding="utf-8"))
        write_text(self.for_sites / "coordinator.pub", (path / "signing.pub").read_text(encoding="utf-8"))
        self.announce_release()
        with storage_errors(path):
            self.scenarios.mkdir()
        write_json(path / "sites.json", {"sites": []})
        let_readers_in(path, self.config.readers)
        with recording(path, "init", {"name": self.config.name}):
            write_text(path / "server.toml", tomli_w.dumps(self.config.model_dump()))  # last: now the folder is whole
        return self

    @classmethod
    def open(cls, path: Path) -> ServerFolder:
        """Open a coordinator's folder; a group that may read it may read what this process writes from now on.

        Raises:
            ConfigError: It is not a coordinator's folder, or its server.toml is not valid.
        """
        file = path / "server.toml"
        missing = "no such file, so this is not a coordinator's folder; fedrag server init makes one"
        text = read_text_file(file, ConfigError, missing)
        if mask_of(path) == GROUP_READS:
            os.umask(GROUP_READS)
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
    def scenarios(self) -> Path:
        """The folder of the scenarios that the console offers."""
        return self.path / "scenarios"

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

    def announce_release(self) -> None:
        """Write for the sites what is installed here."""
        write_text(self.for_sites / RELEASE_FILE, installed_release() + "\n")

    @recorded("rotate")
    def renew_certificate(self) -> None:
        """Make a new certificate of the same authority; the sites do not notice."""
        self._new_certificate()

    def _new_certificate(self) -> None:
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

    def enter(self, site: RegisteredSite) -> None:
        """Tell the SuperLink which of a site's keys it accepts."""
        for burnt in site.former:
            self.link.unregister(read_public_key(burnt, site.name))
        if site.removed:
            self.link.unregister(site.public_key)
        else:
            self.link.register(site.name, site.public_key)

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
        except StorageError:  # this user may only read
            return self.link.is_ready()

    def lock(self) -> AbstractContextManager[None]:
        """Hold the folder for the one process that serves it; raise ServiceError where another does."""
        return held_alone(self.path, ServiceError(f"{self.path}: a coordinator is running in this folder already"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
