"""The short form of the soak."""

from __future__ import annotations

import pytest
from soak import soak

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_home")]


def test_rounds_go_on_while_a_site_misbehaves_and_processes_die(tmp_path):
    samples, killed = soak(tmp_path, rounds=6, kill_every=3, seed=1)
    assert len(killed) == 1 or len(killed) == 2
    assert samples[-1]["left_out"], "the bad site was asked, and no reply of it counted"
