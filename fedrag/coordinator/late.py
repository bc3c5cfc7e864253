"""The sites that have not taken a result yet."""

from __future__ import annotations

from fedrag.coordinator.outcome import read_outcome
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.runs.run_folder import RunFolder


def late_sites(folder: ServerFolder, run: RunFolder) -> list[str]:
    """Return the sites that were registered when a run ended and have not taken its result."""
    if not run.config.federation.deliver:
        return []
    ended = read_outcome(run.path).since
    return [site.name for site in folder.sites() if site.added <= ended and site.name not in run.delivered_to]
