"""A site's folder: its key, its site.toml, what it received and what it sent.

```
DIR/
  site.toml            the site's own settings and its policy
  site.key  site.pub   its key pair; the private key never leaves
  agreement.key        from which it derives masks with each other site; site.pub tells its public half, signed
  peers.json           the other sites, and which of them an administrator has confirmed
  ca.crt               from the coordinator: the authority that signs its TLS certificate
  coordinator.pub      from the coordinator: the public half of the key that signs its requests
  release.txt          from the coordinator: which fedrag is installed there
  site.next.key        the next key, until the coordinator has accepted it
  site-keys.txt        the lines with which keys of this site handed over
  burnt-keys.json      keys of the coordinator that were replaced and are never accepted again
  egress.jsonl         a line for every reply, written before it is sent; each holds a hash over all before it
  egress.head          the newest of these hashes
  privacy.jsonl        what runs with noise have spent of epsilon; never removed
  requests.jsonl       the ids of accepted requests, against replays
  ledger.json          how often and how long it worked on each day, which its policy bounds
  inbox  outbox        the current request, and the reply to the last one
  address              the node id under which the coordinator knows this site
  .lock                held by the process that serves the folder
  secure/              what it keeps of an update that left behind masks, until the sum is opened
  answer-scores/  indexes/  models/<run>/  logs/
```
"""

from __future__ import annotations

import os
from pathlib import Path

from fedrag.errors import ConfigError
from fedrag.files import write_text
from fedrag.security.keys import new_key
from fedrag.security.permissions import make_private, private_files
from fedrag.site.agreement_key import provide_agreement_key
from fedrag.site.site_config import SiteConfig, site_toml
from fedrag.site.site_keys import trusted_key

INBOX, OUTBOX, SECURE = "inbox", "outbox", "secure"


def create_site(folder: Path, name: str, server: str, data: str) -> None:
    """Create a site's folder with a key pair and a site.toml.

    Raises:
        ConfigError: The folder is not empty, or a value is not valid.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: is not empty; a site is made in a new folder")
    text = site_toml(name, server, data)  # raises before anything is written
    make_private(folder)
    with private_files():
        new_key(folder / "site.key")
        write_text(folder / "site.toml", text)
        provide_agreement_key(SiteConfig.from_file(folder / "site.toml"))


def data_folder(given: Path) -> str:
    """Return a folder as it goes into site.toml: what a person named from where they stand, "~" too.

    Raises:
        ConfigError: There is no such folder.
    """
    folder = given.expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(f"{given}: no such folder; expected the folder of the site's questions and passages")
    return os.path.normpath(folder)


def open_site(folder: Path) -> SiteConfig:
    """Return the site.toml of a site's folder.

    Raises:
        ConfigError: It is no site's folder, or a file from the coordinator is missing.
    """
    if not (folder / "site.toml").is_file():
        raise ConfigError(f"{folder}: is no site's folder (it has no site.toml); fedrag client init makes one")
    config = SiteConfig.from_file(folder / "site.toml")
    for name in (config.ca, config.coordinator_key):
        if not Path(name).is_file():
            raise ConfigError(f"{name}: is missing; the coordinator gives it to every site")
    trusted_key(config)
    return config
