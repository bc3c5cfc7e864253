"""New keys at the coordinator: its own, and a site's; what was replaced is never accepted again."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tiny_federation import tiny_config

from fedrag.coordinator.backup import back_up, restore
from fedrag.coordinator.jobs import begin_run
from fedrag.coordinator.key_rotation import accept_site_key, rotate_signing_key
from fedrag.coordinator.operator_log import recorded_commands
from fedrag.coordinator.server_folder import ServerConfig, ServerFolder
from fedrag.errors import ConfigError, ServiceError
from fedrag.security.keys import fingerprint, load_private_key, load_public_key, new_key
from fedrag.security.succession import COORDINATOR, SITE, read_succession, signed_by, succession_line

CONFIG = ServerConfig(name="rag.example.org", port=18443, superlink_port=18444)


@pytest.fixture
def folder(tmp_path) -> ServerFolder:
    made = ServerFolder.create(tmp_path / "coordinator", CONFIG)
    for name in ("north", "south"):
        new_key(tmp_path / f"{name}.key")
        made.register.add_site(name, tmp_path / f"{name}.pub")
    return made


def key(tmp_path: Path, name: str) -> ec.EllipticCurvePrivateKey:
    return load_private_key(tmp_path / f"{name}.key")


NEW = ec.generate_private_key(ec.SECP384R1())


def test_a_new_signing_key_is_signed_by_the_old_one_and_stands_everywhere(folder):
    old = load_private_key(folder.path / "signing.key").public_key()
    handover = rotate_signing_key(folder)
    new = load_private_key(folder.path / "signing.key").public_key()
    assert old != new
    assert signed_by(handover.line, old)
    assert read_succession(handover.line, COORDINATOR).public_key == new
    assert folder.signing_fingerprint == handover.new == fingerprint(new)
    assert load_public_key(folder.for_sites / "coordinator.pub") == new
    second = rotate_signing_key(folder)
    assert (folder.for_sites / "coordinator-keys.txt").read_text().split() == [handover.line, second.line]
    assert second.old == handover.new
    assert {path.name for path in folder.path.glob("signing*")} == {"signing.key", "signing.pub"}


def test_keys_wait_for_the_end_of_a_run(folder, tmp_path, tiny_home):
    line = succession_line(SITE, "north", key(tmp_path, "north"), NEW)
    with folder.lock():
        run = begin_run(folder, tiny_config())
    before = folder.signing_fingerprint
    with pytest.raises(ServiceError, match=f"{run} is running, and its requests are signed with the key"):
        rotate_signing_key(folder)
    with pytest.raises(ServiceError, match=f"{run} is running, and it verifies replies with the keys"):
        accept_site_key(folder, line)
    assert folder.signing_fingerprint == before
    assert folder.register.site("north").public_key == key(tmp_path, "north").public_key()


def test_a_signing_key_whose_rotation_a_crash_cut_off_is_the_one_that_follows(folder):
    new_key(folder.path / "signing.next.key")
    left = load_private_key(folder.path / "signing.next.key").public_key()
    assert rotate_signing_key(folder).new == fingerprint(left)


def test_a_site_s_key_hands_over_and_is_burnt(folder, tmp_path):
    old = key(tmp_path, "north")
    line = succession_line(SITE, "north", old, NEW)
    handover = accept_site_key(folder, line)
    assert str(handover) == f"north: {fingerprint(old.public_key())} hands over to {fingerprint(NEW.public_key())}"
    assert [site.name for site in folder.register.sites()] == ["north", "south"]
    assert folder.register.site("north").public_key == NEW.public_key()
    assert accept_site_key(folder, line) == handover, "typed again after a crash"
    with pytest.raises(ConfigError, match="north has replaced this key, which is never accepted again"):
        folder.register.add_site("newcomer", tmp_path / "north.pub")
    with pytest.raises(ConfigError, match="the key was in use before"):
        accept_site_key(folder, succession_line(SITE, "north", NEW, old))
    again = recorded_commands(folder.path)[-1]
    assert (again.command, again.end.split(":")[0]) == ("accept-key", "refused")


def test_nobody_hands_over_another_site_s_key(folder, tmp_path):
    north, south = key(tmp_path, "north"), key(tmp_path, "south")
    with pytest.raises(ConfigError, match=r"north: the line hands over from the key SHA256:.*, but SHA256:"):
        accept_site_key(folder, succession_line(SITE, "north", south, NEW))
    real, forged = (succession_line(SITE, "north", old, NEW).split(".") for old in (north, south))
    with pytest.raises(ConfigError, match="has not signed this line"):
        accept_site_key(folder, ".".join([*real[:2], forged[2], real[3]]))
    with pytest.raises(ConfigError, match="the key was in use before"):
        accept_site_key(folder, succession_line(SITE, "north", north, south))
    with pytest.raises(ConfigError, match="west: no site has this name; registered: north, south"):
        accept_site_key(folder, succession_line(SITE, "west", north, NEW))


def test_a_restored_coordinator_has_the_new_keys_and_knows_the_burnt_ones(folder, tmp_path):
    accept_site_key(folder, succession_line(SITE, "north", key(tmp_path, "north"), NEW))
    handover = rotate_signing_key(folder)
    back_up(folder, tmp_path / "backup.tar.gz")
    again = restore(tmp_path / "backup.tar.gz", tmp_path / "again")
    assert again.signing_fingerprint == handover.new
    assert again.register.site("north").public_key == NEW.public_key()
    with pytest.raises(ConfigError, match="never accepted again"):
        again.register.add_site("newcomer", tmp_path / "north.pub")
