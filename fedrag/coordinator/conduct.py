"""How registered sites behave: a site that sent three replies no honest site sends is set aside until it is let in.

```
conduct.json     {"sites": {"south": {"bad_replies": 3, "last": "reply_cannot_be_read", "set_aside": "2026-..."}}}
```
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field

from fedrag.config.section import Section
from fedrag.errors import ConfigError
from fedrag.files import read_json, write_json

PATIENCE = 3
"""So many bad replies, and a site is set aside."""


class SiteConduct(Section):
    """What is held against one site."""

    bad_replies: Annotated[int, Field(ge=0)] = 0
    last: str = ""
    """What was wrong with the last one."""
    set_aside: str = ""
    """Since when the site is set aside, if it is."""


class Conduct:
    """The conduct of all sites, in a file.

    Args:
        folder: The coordinator's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "conduct.json"

    def sites(self) -> dict[str, SiteConduct]:
        """Return what is held against sites, by name."""
        told = read_json(self._file)["sites"] if self._file.is_file() else {}
        return {name: SiteConduct.model_validate(entry) for name, entry in told.items()}

    def set_aside(self) -> set[str]:
        """Return the sites that are set aside."""
        return {name for name, site in self.sites().items() if site.set_aside}

    def note_bad_reply(self, name: str, why: str) -> bool:
        """Count a bad reply; return whether it was one too many."""
        sites = self.sites()
        before = sites.get(name, SiteConduct())
        count = before.bad_replies + 1
        too_many = count >= PATIENCE and not before.set_aside
        since = datetime.now(UTC).isoformat(timespec="seconds") if too_many else before.set_aside
        self._write(sites | {name: SiteConduct(bad_replies=count, last=why, set_aside=since)})
        return too_many

    def let_in(self, name: str) -> None:
        """Forget what is held against a site.

        Raises:
            ConfigError: It is not set aside.
        """
        if name not in self.set_aside():
            known = ", ".join(sorted(self.set_aside())) or "none"
            raise ConfigError(f"{name}: is not set aside; set aside are: {known}")
        self._write({other: site for other, site in self.sites().items() if other != name})

    def _write(self, sites: dict[str, SiteConduct]) -> None:
        write_json(self._file, {"sites": {name: site.model_dump() for name, site in sorted(sites.items())}})
