"""A site follows its coordinator's key and hands over its own; what was replaced is never accepted again."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fedrag.errors import ConfigError
from fedrag.security.keys import fingerprint, load_private_key, load_public_key, new_key, public_key_text
from fedrag.security.succession import COORDINATOR, SITE, read_succession, signed_by, succession_line
from fedrag.site.client_folder import create_site, open_site
from fedrag.site.site_config import SITE_FILE, SiteConfig
from fedrag.site.site_keys import accept_coordinator_key, next_key, rotate_site_key, take_up_next_key, trusted_key

A, B, C, OTHER = (ec.generate_private_key(ec.SECP384R1()) for _ in range(4))


def print_of(key: ec.EllipticCurvePrivateKey) -> str:
    return fingerprint(key.public_key())


def line(old: ec.EllipticCurvePrivateKey, new: ec.EllipticCurvePrivateKey) -> str:
    return succession_line(COORDINATOR, "rag.example.org", old, new)


@pytest.fixture
def folder(tmp_path) -> Path:
    create_site(tmp_path / "north", "north", "127.0.0.1:8443", "data")
    (tmp_path / "north" / "ca.crt").write_text("")
    pin(tmp_path / "north", A)
    return tmp_path / "north"


def pin(folder: Path, key: ec.EllipticCurvePrivateKey) -> None:
    (folder / "coordinator.pub").write_text(public_key_text(key.public_key()) + "\n")


@pytest.fixture
def config(folder) -> SiteConfig:
    return SiteConfig.from_file(folder / SITE_FILE)


def test_a_site_trusts_the_key_that_the_trusted_one_hands_over_to(config):
    assert accept_coordinator_key(config, line(A, B)) == [print_of(A), print_of(B)]
    assert trusted_key(config) == B.public_key()
    assert accept_coordinator_key(config, line(A, B)) == [print_of(B)], "a second time changes nothing"


def test_who_was_away_follows_two_rotations(config):
    lines = f"{line(A, B)}\n{line(B, C)}\n"
    assert accept_coordinator_key(config, lines) == [print_of(A), print_of(B), print_of(C)]
    assert trusted_key(config) == C.public_key()
    assert accept_coordinator_key(config, lines) == [print_of(C)]


@pytest.mark.parametrize("stranger", [line(OTHER, B), line(B, C)])
def test_a_line_of_another_key_is_refused_and_names_the_trusted_one(config, stranger):
    with pytest.raises(ConfigError, match="no line hands over from the key that this site trusts, SHA256:"):
        accept_coordinator_key(config, stranger)
    assert trusted_key(config) == A.public_key()


def test_a_line_that_only_claims_the_trusted_key_is_forged(config):
    real, forged = line(A, B).split("."), line(OTHER, B).split(".")
    with pytest.raises(ConfigError, match="has not signed the line: it is forged"):
        accept_coordinator_key(config, ".".join([*real[:2], forged[2], real[3]]))
    assert trusted_key(config) == A.public_key()


def test_a_key_that_was_replaced_is_burnt(folder, config):
    accept_coordinator_key(config, line(A, B))
    pin(folder, A)  # an old copy, or an old mail
    with pytest.raises(ConfigError, match=r"coordinator\.pub: this key was replaced on .* and is never accepted again"):
        trusted_key(config)
    with pytest.raises(ConfigError, match="is never accepted again"):
        open_site(folder)
    accept_coordinator_key(config, line(A, B))  # what a crash in between left is mended in this way too
    with pytest.raises(ConfigError, match="which was replaced and is never accepted again"):
        accept_coordinator_key(config, line(B, A))
    assert trusted_key(config) == B.public_key()


def test_a_site_goes_on_with_its_key_until_the_next_is_taken_up(folder, config):
    old = load_private_key(folder / "site.key").public_key()
    said = rotate_site_key(config)
    assert signed_by(said, old)
    new = read_succession(said, SITE)
    assert (new.name, new.old) == ("north", fingerprint(old))
    assert load_private_key(folder / "site.key").public_key() == old
    again = rotate_site_key(config)
    assert read_succession(again, SITE).new == new.new, "the line may have been lost"
    assert (folder / "site-keys.txt").read_text().split() == [said, again]
    take_up_next_key(config)
    assert fingerprint(load_private_key(folder / "site.key").public_key()) == new.new
    assert fingerprint(load_public_key(folder / "site.pub")) == new.new
    assert not next_key(config).exists()
    assert not (folder / "site.next.pub").exists()


def test_a_rotation_that_a_crash_cut_off_is_made_whole(folder, config):
    new_key(folder / "site.next.key")
    (folder / "site.next.key").unlink()
    said = read_succession(rotate_site_key(config), SITE)
    assert said.new == fingerprint(load_private_key(folder / "site.next.key").public_key())
