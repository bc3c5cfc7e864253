"""A site's agreement key: made once, told signed in site.pub, kept by the coordinator, the same after a rotation."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fedrag.coordinator.key_rotation import accept_site_key
from fedrag.coordinator.server_folder import ServerConfig, ServerFolder
from fedrag.errors import ConfigError
from fedrag.secure_sum.member_text import member_text, read_member
from fedrag.secure_sum.roster import Member, is_signed_by, signed_member
from fedrag.security.keys import fingerprint, load_private_key, load_public_key, new_key
from fedrag.site.agreement_key import agreement_file, own_member, own_public, provide_agreement_key
from fedrag.site.client_folder import create_site
from fedrag.site.site_config import SITE_FILE, SiteConfig
from fedrag.site.site_keys import rotate_site_key, take_up_next_key


@pytest.fixture
def config(tmp_path) -> SiteConfig:
    create_site(tmp_path / "north", "north", "127.0.0.1:8443", "data")
    return SiteConfig.from_file(tmp_path / "north" / SITE_FILE)


@pytest.fixture
def server(tmp_path) -> ServerFolder:
    return ServerFolder.create(tmp_path / "coordinator", ServerConfig(name="rag.example.org"))


def public(config: SiteConfig) -> Path:
    return Path(config.private_key).with_suffix(".pub")


def test_a_new_site_has_one_that_its_owner_alone_reads_and_tells_it_signed(config):
    assert stat.S_IMODE(agreement_file(config).stat().st_mode) == 0o600
    key = load_public_key(public(config))
    told = read_member(public(config).read_text().split()[2], "north", key, "site.pub")
    assert told.key == own_public(config)
    assert is_signed_by(told, key)


def test_a_folder_of_an_earlier_version_gets_one_once_and_its_key_stays(config):
    agreement_file(config).unlink()
    first_word, blob, _ = public(config).read_text().split()
    public(config).write_text(f"{first_word} {blob}\n")
    provide_agreement_key(config)
    made, told = agreement_file(config).read_bytes(), public(config).read_text()
    assert told.split()[:2] == [first_word, blob]
    provide_agreement_key(config)
    assert (agreement_file(config).read_bytes(), public(config).read_text()) == (made, told)


def test_one_that_others_can_read_is_refused_as_is_one_that_is_none(config):
    agreement_file(config).chmod(0o640)
    with pytest.raises(ConfigError, match="others than its owner can read it"):
        own_public(config)
    agreement_file(config).chmod(0o600)
    agreement_file(config).write_text("short")
    with pytest.raises(ConfigError, match="expected an agreement key, 64 hexadecimal digits"):
        own_public(config)


def test_the_register_takes_it_from_site_pub_and_a_second_time_what_is_new(config, server):
    site = server.register.add_site("north", public(config))
    assert site.member is not None
    assert site.member.key == own_public(config)
    with pytest.raises(ConfigError, match="this key is registered already, as north"):
        server.register.add_site("north", public(config))
    agreement_file(config).unlink()
    provide_agreement_key(config)
    changed = server.register.add_site("north", public(config)).member
    assert changed is not None
    assert changed.key == own_public(config) != site.member.key


def test_one_that_is_not_signed_for_the_name_is_refused_and_nothing_is_registered(config, server, tmp_path):
    new_key(tmp_path / "other.key")
    own = own_member(config, load_private_key(tmp_path / "other.key"))
    words = public(config).read_text().split()
    for name, word in (("south", words[2]), ("north", member_text(own))):
        with pytest.raises(ConfigError, match=f"is not signed by it for the name {name}"):
            server.register.add_site(name, " ".join([*words[:2], word]))
    with pytest.raises(ConfigError, match="is damaged"):
        server.register.add_site("north", " ".join([*words[:2], words[2][:30]]))
    assert server.register.sites() == []


def test_a_key_without_one_is_registered_and_learns_it_from_a_greeting_that_is_signed(config, server, tmp_path):
    server.register.add_site("north", " ".join(public(config).read_text().split()[:2]))
    assert server.register.site("north").member is None
    new_key(tmp_path / "other.key")
    assert not server.register.learn_agreement(
        signed_member("north", b"k" * 32, load_private_key(tmp_path / "other.key"))
    )
    assert not server.register.learn_agreement(Member("stranger", b"k" * 32))
    assert server.register.site("north").member is None
    own = own_member(config, load_private_key(Path(config.private_key)))
    assert server.register.learn_agreement(own)
    assert server.register.site("north").member == own


def test_it_survives_a_rotation_signed_anew_at_both_ends(config, server):
    server.register.add_site("north", public(config))
    before, key = own_public(config), load_public_key(public(config))
    line = rotate_site_key(config)
    accept_site_key(server, line)
    take_up_next_key(config)
    after = load_public_key(public(config))
    assert fingerprint(after) != fingerprint(key)
    member = server.register.site("north").member
    assert member is not None
    assert member.key == before == own_public(config)
    assert is_signed_by(member, after)
    assert is_signed_by(read_member(public(config).read_text().split()[2], "north", after, "site.pub"), after)
