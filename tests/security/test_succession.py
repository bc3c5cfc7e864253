"""A line that hands over from one key to another: whole, of the right role, and signed by both."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fedrag.errors import ConfigError
from fedrag.security.keys import fingerprint
from fedrag.security.succession import COORDINATOR, SITE, read_succession, signed_by, succession_line

OLD, NEW, OTHER = (ec.generate_private_key(ec.SECP384R1()) for _ in range(3))
LINE = succession_line(SITE, "north", OLD, NEW)


def test_a_line_says_which_key_follows_which():
    said = read_succession(LINE, SITE)
    assert (said.role, said.name) == (SITE, "north")
    assert (said.old, said.new) == (fingerprint(OLD.public_key()), fingerprint(NEW.public_key()))
    assert said.public_key == NEW.public_key()
    assert signed_by(LINE, OLD.public_key())


def test_it_is_one_word_that_survives_a_mail():
    assert LINE.isascii()
    assert not any(character in LINE for character in " \n\"'\\$`&;<>|*?[]#~=%!{}()")
    assert read_succession(f"  {LINE}\r\n", SITE) == read_succession(LINE, SITE)


def test_nobody_but_the_old_key_hands_over():
    stolen = succession_line(SITE, "north", OTHER, NEW)
    assert not signed_by(stolen, OLD.public_key())
    name, content, _, by_new = LINE.split(".")
    assert not signed_by(".".join([name, content, stolen.split(".")[2], by_new]), OLD.public_key())


def test_a_new_key_that_nobody_holds_is_not_handed_to():
    name, content, by_old, _ = LINE.split(".")
    with pytest.raises(ConfigError, match="its new key has not signed it"):
        read_succession(".".join([name, content, by_old, by_old]), SITE)


def test_a_site_s_line_is_no_coordinator_s():
    with pytest.raises(ConfigError, match="is about the key of a site; expected that of a coordinator"):
        read_succession(LINE, COORDINATOR)


@pytest.mark.parametrize(
    "line",
    ["", "fedrag-key", LINE[:-1000], LINE.replace("fedrag-key", "fedrag-key2"), "fedrag-key.e30.AA.AA", "fedrag-key...",
     "fedrag-key.bnVsbA.AA.AA", LINE + ".AA", "fedrag-key.ää.AA.AA", "fedrag-key.W1td.AA.AA"],
)  # fmt: skip
def test_what_is_no_such_line_is_refused_in_one_sentence(line):
    with pytest.raises(ConfigError, match="expected a whole line that begins with fedrag-key"):
        read_succession(line, SITE)


def test_every_character_of_what_is_said_counts():
    name, content, by_old, by_new = LINE.split(".")
    for place in range(len(content)):
        changed = content[:place] + ("A" if content[place] != "A" else "B") + content[place + 1 :]
        line = ".".join([name, changed, by_old, by_new])
        try:
            read_succession(line, SITE)
        except ConfigError:
            continue
        assert changed != content
        pytest.fail(f"character {place}")
