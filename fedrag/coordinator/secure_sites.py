"""Whether the registered sites can make a secure sum, and how many of them may vanish in a round."""

from __future__ import annotations

from fedrag.config.scenario import Config
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import ConfigError
from fedrag.secure_sum.roster import MIN_SITES
from fedrag.secure_sum.sum_terms import threshold
from fedrag.text import plural


def require_secure_sites(folder: ServerFolder, config: Config) -> None:
    """Refuse a scenario with a secure sum that the registered sites cannot make; say nothing of any other.

    Raises:
        ConfigError: Fewer than three sites are registered, or one has told no agreement key.
    """
    if not config.federation.secure:
        return
    sites = folder.register.sites()
    if len(sites) < MIN_SITES:
        raise ConfigError(
            f"federation.secure: {plural(len(sites), 'site')} registered, at least {MIN_SITES} are needed: from the "
            "sum of two, each would know what the other sent"
        )
    if without := [site.name for site in sites if site.member is None]:
        raise ConfigError(
            f"federation.secure: no agreement key is known of {', '.join(without)}; their site.pub has it once they "
            f"have started with this version: fedrag server add-site {folder.path} SITE.pub --name {without[0]}"
        )


def secure_sum_text(sites: int, colluding: int) -> str:
    """Say how many of some sites must stay in a round of a secure sum, and how many may vanish.

    >>> secure_sum_text(5, 1)
    '4 of 5 sites must stay, 1 may vanish in a round, and 1 may collude with the coordinator'
    >>> secure_sum_text(2, 1)
    'at least 3 sites are needed, and there are 2'
    """
    if sites < MIN_SITES:
        return f"at least {MIN_SITES} sites are needed, and there {'is' if sites == 1 else 'are'} {sites}"
    needed = threshold(sites, colluding)
    if needed > sites:
        return f"{sites} sites are too few to bear {colluding} that collude with the coordinator"
    away = f"{sites - needed} may vanish" if needed < sites else "none may vanish"
    return f"{needed} of {sites} sites must stay, {away} in a round, and {colluding} may collude with the coordinator"
