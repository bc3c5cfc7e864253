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
  sites.json                   the register of sites: names, public keys and agreement keys
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
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import AfterValidator, Field

from fedrag.config.section import Section, parse_section
from fedrag.coordinator.flower import SuperLink
from fedrag.coordinator.operator_log import recorded, recording
from fedrag.coordinator.readers import let_readers_in
from fedrag.coordinator.site_register import RegisteredSite, SiteRegister
from fedrag.errors import ConfigError, ServiceError, StorageError
from fedrag.files import read_json, read_text_file, storage_errors, write_json, write_text
from fedrag.locks import held_alone
from fedrag.security.certificates import new_authority, new_server_certificate
from fedrag.security.installed import RELEASE_FILE, installed_release
from fedrag.security.keys import fingerprint, load_public_key, new_key, new_secret, read_public_key
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
        self.register.create()
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
    def register(self) -> SiteRegister:
        """The register of sites."""
        return SiteRegister(self.path)

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

    def enter(self, site: RegisteredSite) -> None:
        """Tell the SuperLink which of a site's keys it accepts."""
        for burnt in site.former:
            self.link.unregister(read_public_key(burnt, site.name))
        if site.removed:
            self.link.unregister(site.public_key)
        else:
            self.link.register(site.name, site.public_key)

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
