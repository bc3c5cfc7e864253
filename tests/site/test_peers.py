"""The other sites: received, confirmed once by an administrator, and refused where they are not, or have changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.errors import ConfigError, MessageError
from fedrag.secure_sum.roster import roster_of, signed_member
from fedrag.security.keys import fingerprint, public_key_text
from fedrag.site.client_folder import create_site
from fedrag.site.peers import confirm_peers, read_peers, receive_peers, refusal_of_roster

KEYS = {name: ec.generate_private_key(ec.SECP384R1()) for name in ("east", "north", "south", "other")}
AGREEMENT = {name: bytes([number]) * 32 for number, name in enumerate(KEYS)}


def text(name: str) -> str:
    return public_key_text(KEYS[name].public_key())


@pytest.fixture
def folder(tmp_path) -> Path:
    create_site(tmp_path / "north", "north", "127.0.0.1:8443", "data")
    receive_peers(tmp_path / "north", {name: text(name) for name in ("east", "north", "south")}, "north")
    return tmp_path / "north"


def code(folder: Path, **signers: str) -> tuple[str, tuple[str, ...]]:
    """What the site says to a roster of the three, each signed with its own key or the one named."""
    whole = {name: name for name in ("east", "north", "south")} | signers
    roster = roster_of(signed_member(name, AGREEMENT[name], KEYS[by]) for name, by in whole.items())
    return refusal_of_roster(read_peers(folder), roster, "north")


def test_nobody_is_summed_with_before_an_administrator_has_confirmed_all(folder):
    assert [(peer.name, peer.state) for peer in read_peers(folder)] == [
        ("east", "not confirmed"),
        ("south", "not confirmed"),
    ]
    assert code(folder) == ("secure-peers", ("east", "south"))
    confirm_peers(folder, ["east"])
    assert code(folder) == ("secure-peers", ("south",))
    confirm_peers(folder, ["south"])
    assert code(folder) == ("", ())


def test_a_site_that_was_never_heard_of_is_one_that_is_not_confirmed(folder):
    confirm_peers(folder, ["east", "south"])
    roster = roster_of(signed_member(name, AGREEMENT[name], KEYS[name]) for name in ("east", "north", "other"))
    assert refusal_of_roster(read_peers(folder), roster, "north") == ("secure-peers", ("other",))


def test_a_member_whose_agreement_key_another_has_signed_is_refused(folder):
    confirm_peers(folder, ["east", "south"])
    assert code(folder, south="other") == ("secure-roster", ("south",))


def test_a_key_that_changed_is_refused_until_it_is_confirmed_and_one_that_went_is_not_forgotten(folder):
    confirm_peers(folder, ["east", "south"])
    receive_peers(folder, {"east": text("east")}, "north")
    receive_peers(folder, {"east": text("east"), "south": text("other")}, "north")
    assert [peer.state for peer in read_peers(folder)] == ["confirmed", "changed since it was confirmed"]
    assert code(folder, south="other") == ("secure-peer-changed", ("south",))
    confirm_peers(folder, ["south"])
    assert code(folder, south="other") == ("", ())


def test_what_cannot_be_names_and_keys_is_refused_and_nothing_is_noted(folder):
    before = (folder / "peers.json").read_bytes()
    for told in ({"../east": text("east")}, {"east": "a key"}, {"east": 3}):
        with pytest.raises(MessageError):
            receive_peers(folder, told, "north")
    assert (folder / "peers.json").read_bytes() == before
    with pytest.raises(ConfigError, match="west: no other site has this name; there are: east, south"):
        confirm_peers(folder, ["east", "west"])
    assert (folder / "peers.json").read_bytes() == before


def test_the_command_shows_fingerprints_and_how_to_confirm_and_then_confirms(folder):
    shown = CliRunner().invoke(app, ["client", "peers", str(folder)])
    assert shown.exit_code == 0
    assert fingerprint(KEYS["east"].public_key()) in shown.output
    assert "--confirm east --confirm south" in shown.output
    done = CliRunner().invoke(app, ["client", "peers", str(folder), "--confirm", "east", "--confirm", "south"])
    assert f"east is confirmed with the key {fingerprint(KEYS['east'].public_key())}" in done.output
    assert "--confirm" not in done.output
    assert code(folder) == ("", ())
    wrong = CliRunner().invoke(app, ["client", "peers", str(folder), "--confirm", "west"])
    assert wrong.exit_code != 0
