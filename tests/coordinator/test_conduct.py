"""What is held against sites, kept over restarts."""

from __future__ import annotations

import pytest

from fedrag.coordinator.conduct import Conduct
from fedrag.errors import ConfigError


def test_the_third_bad_reply_sets_a_site_aside_also_over_restarts(tmp_path):
    assert [Conduct(tmp_path).note_bad_reply("south", "reply_cannot_be_read") for _ in range(4)] == [
        False,
        False,
        True,
        False,  # it was set aside before
    ]
    assert not Conduct(tmp_path).note_bad_reply("north", "signature_not_valid")
    assert Conduct(tmp_path).set_aside() == {"south"}


def test_a_site_that_is_let_in_begins_anew(tmp_path):
    conduct = Conduct(tmp_path)
    for name in ("north", *["south"] * 3):
        conduct.note_bad_reply(name, "reply_is_too_large")
    conduct.let_in("south")
    assert conduct.set_aside() == set()
    assert {name: site.bad_replies for name, site in conduct.sites().items()} == {"north": 1}
    with pytest.raises(ConfigError, match="north: is not set aside; set aside are: none"):
        conduct.let_in("north")
