"""The other sites: received, confirmed once by an administrator, and refused where they are not, or have changed."""

from __future__ import annotations

import subprocess
import sys
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


def told(*names: str, **keys: str) -> dict[str, str]:
    """The fingerprints that administrators read out: each of its own key, or of the one named."""
    return {name: fingerprint(KEYS[key].public_key()) for name, key in ({n: n for n in names} | keys).items()}


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
    confirm_peers(folder, told("east"))
    assert code(folder) == ("secure-peers", ("south",))
    confirm_peers(folder, told("south"))
    assert code(folder) == ("", ())


def test_a_site_that_was_never_heard_of_is_one_that_is_not_confirmed(folder):
    confirm_peers(folder, told("east", "south"))
    roster = roster_of(signed_member(name, AGREEMENT[name], KEYS[name]) for name in ("east", "north", "other"))
    assert refusal_of_roster(read_peers(folder), roster, "north") == ("secure-peers", ("other",))


def test_a_member_whose_agreement_key_another_has_signed_is_refused(folder):
    confirm_peers(folder, told("east", "south"))
    assert code(folder, south="other") == ("secure-roster", ("south",))


def test_a_key_that_changed_is_refused_until_it_is_confirmed_and_one_that_went_is_not_forgotten(folder):
    confirm_peers(folder, told("east", "south"))
    receive_peers(folder, {"east": text("east")}, "north")
    receive_peers(folder, {"east": text("east"), "south": text("other")}, "north")
    assert [peer.state for peer in read_peers(folder)] == ["confirmed", "changed since it was confirmed"]
    assert code(folder, south="other") == ("secure-peer-changed", ("south",))
    confirm_peers(folder, told(south="other"))
    assert code(folder, south="other") == ("", ())


def test_what_cannot_be_names_and_keys_is_refused_and_nothing_is_noted(folder):
    before = (folder / "peers.json").read_bytes()
    for keys in ({"../east": text("east")}, {"east": "a key"}, {"east": 3}):
        with pytest.raises(MessageError):
            receive_peers(folder, keys, "north")
    assert (folder / "peers.json").read_bytes() == before
    with pytest.raises(ConfigError, match="west: no other site has this name; there are: east, south"):
        confirm_peers(folder, {**told("east"), "west": told("east")["east"]})
    assert (folder / "peers.json").read_bytes() == before


def confirmed_by_command(folder: Path, *words: str):
    return CliRunner().invoke(
        app, ["client", "peers", str(folder), *(part for w in words for part in ("--confirm", w))]
    )


def test_the_command_shows_fingerprints_and_how_to_confirm_and_takes_those_that_were_read_out(folder):
    shown = CliRunner().invoke(app, ["client", "peers", str(folder)])
    assert shown.exit_code == 0
    read_out = told("east", "south")
    assert read_out["east"] in shown.output
    assert "--confirm east=FINGERPRINT --confirm south=FINGERPRINT" in shown.output
    done = confirmed_by_command(folder, *(f"{name}={heard}" for name, heard in read_out.items()))
    assert f"east is confirmed with the key {read_out['east']}" in done.output
    assert "--confirm" not in done.output
    assert code(folder) == ("", ())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["east"], "--confirm east: expected NAME=FINGERPRINT"),
        (["east=SHA256:short"], "read out: SHA256: and 43 characters"),
        (["east={east}", "south={other}"], "south: its key has the fingerprint {south}, not {other}; nothing is"),
        (["east={east}", "east={other}"], "another fingerprint of east was given before"),
        (["west={east}"], "west: no other site has this name"),
    ],
)
def test_the_command_refuses_what_is_not_the_fingerprint_of_the_key_and_notes_nothing(folder, words, why):
    heard = told(*KEYS)
    wrong = confirmed_by_command(folder, *(word.format(**heard) for word in words))
    assert wrong.exit_code == 2
    assert "".join(why.format(**heard).split()) in "".join(wrong.output.split())
    assert code(folder) == ("secure-peers", ("east", "south"))


MANY = 30
CONFIRMS = """
import sys
from pathlib import Path
from fedrag.site.peers import confirm_peers, read_peers
folder, own = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
sys.stdin.read(1)
for peer in read_peers(folder)[own::2]:
    confirm_peers(folder, {peer.name: peer.fingerprint})
"""


def test_of_two_processes_that_confirm_at_once_none_undoes_what_the_other_noted(tmp_path):
    """Each read the file, added its own and wrote it: one of two that did so at once was lost."""
    receive_peers(tmp_path, {f"site-{number}": text("east") for number in range(MANY)}, "north")
    both = [
        subprocess.Popen(
            [sys.executable, "-c", CONFIRMS, str(tmp_path), own],
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True},
        )
        for own in ("0", "1")
    ]
    for process in both:
        process.stdout.readline()
    for process in both:
        process.stdin.write("x")
        process.stdin.flush()
    for process in both:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert [peer.state for peer in read_peers(tmp_path)] == MANY * ["confirmed"]
