"""Register, remove and let in sites: in the coordinator's folder, and at the SuperLink where it runs."""

from __future__ import annotations

from pathlib import Path

from fedrag.coordinator.conduct import Conduct
from fedrag.coordinator.operator_log import recorded
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.coordinator.site_register import RegisteredSite
from fedrag.errors import ServiceError


def enrol_site(folder: ServerFolder, name: str, public_key: Path | str, questions: int = 0) -> RegisteredSite:
    """Register a site, which can connect from now on; or change how many questions a registered one counts for.

    Args:
        folder: The coordinator's folder.
        name: The site's name.
        public_key: The file of its public key, or the key as text.
        questions: Training questions that its administrator confirmed; 0: none were.

    Raises:
        ConfigError: The name or the key is taken, or the key was removed once.
        ServiceError: The SuperLink is starting; nothing is changed.
    """
    runs = _runs(folder)
    site = folder.register.add_site(name, public_key, questions)
    if runs:
        folder.enter(site)
    return site


def remove_site(folder: ServerFolder, name: str) -> RegisteredSite:
    """Remove a site and disconnect it; its key can never be registered again.

    Raises:
        ConfigError: No site has this name.
        ServiceError: The SuperLink is starting; nothing is changed.
    """
    runs = _runs(folder)
    site = folder.register.remove_site(name)
    if runs:
        folder.enter(site)
    return site


@recorded("let-in", "name")
def let_in(folder: ServerFolder, name: str) -> None:
    """Let a site in again that was set aside for its bad replies.

    Raises:
        ConfigError: It is not set aside.
    """
    Conduct(folder.path).let_in(name)


def _runs(folder: ServerFolder) -> bool:
    """Return whether the coordinator runs, and with it a SuperLink that answers: what it missed, it would not know."""
    runs = folder.is_running
    if runs and not folder.link.is_ready():
        raise ServiceError("the SuperLink is starting, and nothing was changed; try again in a moment")
    return runs
