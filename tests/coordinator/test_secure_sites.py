"""What a coordinator asks of its sites before a run with a secure sum, and what it says could be borne."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_federation import tiny_config

from fedrag.coordinator.dry_run import dry_run, summary_lines
from fedrag.coordinator.foreseen import Asked, refusals_of_all
from fedrag.coordinator.secure_sites import require_secure_sites
from fedrag.coordinator.server_check import check_server
from fedrag.coordinator.server_folder import ServerConfig, ServerFolder
from fedrag.errors import ConfigError
from fedrag.security.keys import new_key
from fedrag.site.client_folder import create_site
from fedrag.site.policy import policy_numbers
from fedrag.site.site_config import Policy

SECURE = tiny_config(federation={"secure": True, "schedule": "generator"})

pytestmark = pytest.mark.usefixtures("tiny_home")


@pytest.fixture
def folder(tmp_path) -> ServerFolder:
    return ServerFolder.create(tmp_path / "coordinator", ServerConfig(name="rag.example.org"))


def register(folder: ServerFolder, root: Path, *names: str) -> None:
    for name in names:
        create_site(root / name, name, "127.0.0.1:8443", "data")
        folder.register.add_site(name, root / name / "site.pub")


def secure_finding(folder: ServerFolder) -> str:
    (found,) = [finding for finding in check_server(folder) if finding.name == "secure sum"]
    assert found.is_ok, "not to be able to is no fault"
    return found.text


def test_a_secure_run_is_refused_with_two_sites_or_where_one_has_told_no_agreement_key(folder, tmp_path):
    register(folder, tmp_path, "north", "south")
    with pytest.raises(ConfigError, match=r"federation.secure: 2 sites registered, at least 3 are needed"):
        require_secure_sites(folder, SECURE)
    with pytest.raises(ConfigError, match="federation.secure"):
        dry_run(folder, SECURE)
    require_secure_sites(folder, tiny_config())
    new_key(tmp_path / "old.key")
    folder.register.add_site("east", tmp_path / "old.pub")
    with pytest.raises(ConfigError, match=r"no agreement key is known of east.*fedrag server add-site .* --name east"):
        require_secure_sites(folder, SECURE)
    assert secure_finding(folder).endswith("and there are 2; 1 site without an agreement key")


def test_check_and_dry_run_say_how_many_sites_may_vanish(folder, tmp_path):
    register(folder, tmp_path, "east", "north", "south")
    assert secure_finding(folder).startswith("3 of 3 sites must stay, none may vanish in a round")
    register(folder, tmp_path, "river", "west")
    assert secure_finding(folder).startswith("4 of 5 sites must stay, 1 may vanish in a round")
    found = dry_run(folder, SECURE)
    assert found.to_json()["secure"] == found.secure
    line = "secure sum: 4 of 5 sites must stay, 1 may vanish in a round, and 1 may collude with the coordinator"
    assert line in summary_lines(found)
    assert dry_run(folder, tiny_config(federation={"schedule": "generator"})).secure == ""


@pytest.mark.parametrize(("sites", "asks", "refused"), [(4, 0, False), (4, 1, True), (3, 1, False), (0, 1, False)])
def test_a_site_that_asks_for_more_colluding_ones_than_the_run_bears_is_foreseen(sites, asks, refused):
    """Of three sites all must stay, whether one colludes or none; of four, that is another matter."""
    config = tiny_config(federation={"secure": True, "secure_colluding": 0})
    policy = policy_numbers(Policy(secure_colluding=asks))
    assert ("secure-colluding" in refusals_of_all(policy, Asked(config, 5000, {}, sites))) == refused
