"""Register and remove sites: in the coordinator's folder, and at the SuperLink where it runs."""

from __future__ import annotations

from pathlib import Path

from fedrag.coordinator.server_folder import RegisteredSite, ServerFolder


def enrol_site(folder: ServerFolder, name: str, public_key: Path | str) -> RegisteredSite:
    """Register a site, which can connect from now on.

    Args:
        folder: The coordinator's folder.
        name: The site's name.
        public_key: The file of its public key, or the key as text.

    Raises:
        ConfigError: The name or the key is taken, or the key was removed once.
    """
    site = folder.add_site(name, public_key)
    if folder.is_running:
        folder.link.register(site.name, site.public_key)
    return site


def remove_site(folder: ServerFolder, name: str) -> RegisteredSite:
    """Remove a site and disconnect it; its key can never be registered again.

    Raises:
        ConfigError: No site has this name.
    """
    site = folder.remove_site(name)
    if folder.is_running:
        folder.link.unregister(site.public_key)
    return site
