"""What a site's policy says to secure sums and to requests without one."""

from __future__ import annotations

from datetime import datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError
from tiny_federation import tiny_config

from fedrag.config.scenario import Config
from fedrag.federation.greeting import Greeting
from fedrag.federation.messages import Reply
from fedrag.secure_sum.roster import Member, Roster, roster_of, signed_member
from fedrag.secure_sum.sum_terms import Terms
from fedrag.security.keys import fingerprint, public_key_text
from fedrag.site.peers import Peer
from fedrag.site.policy import RequestedWork, apply_to_greeting, apply_to_reply, refusal_of_request
from fedrag.site.secure_policy import refusal_of_sum
from fedrag.site.site_config import Policy
from fedrag.site.work_ledger import Ledger

KEYS = {name: ec.generate_private_key(ec.SECP384R1()) for name in ("east", "north", "south", "west")}
AGREEMENT = {name: bytes([number]) * 32 for number, name in enumerate(KEYS)}
PEERS = [
    Peer(name, public_key_text(key.public_key()), fingerprint(key.public_key()), "2026-01-01")
    for name, key in KEYS.items()
    if name != "north"
]
NOW = datetime(2026, 1, 1, 12)
SECURE = tiny_config(federation={"secure": True})


def member(name: str) -> Member:
    return signed_member(name, AGREEMENT[name], KEYS[name])


ANY = Policy()


def code(
    policy: Policy = ANY, run: str = "tiny-1", key: str = "north", roster: Roster | None = None, stay: int = 4
) -> str:
    whole = roster or roster_of(map(member, KEYS))
    return refusal_of_sum(policy, Terms("tiny-1", 0, whole, stay), run, ("north", AGREEMENT[key]), PEERS).code


def test_a_sum_with_confirmed_sites_is_taken_part_in():
    assert code() == ""


def test_one_of_another_run_or_without_this_site_and_its_key_is_not():
    assert code(run="tiny-2") == "secure-roster"
    assert code(roster=roster_of(map(member, ("east", "south", "west")))) == "secure-roster"
    forged = roster_of([*map(member, ("east", "south", "west")), Member("north", b"x" * 32)])
    assert code(roster=forged) == "secure-roster"


def test_one_of_fewer_sites_than_the_policy_asks_for_is_not():
    assert code(Policy(secure_min_sites=5)) == "secure-sites"
    assert code(Policy(secure_min_sites=4)) == ""


def test_one_that_bears_fewer_colluding_sites_than_the_policy_asks_for_is_not():
    """Of four sites three may open a mask where none colludes; with one that does, all four must."""
    assert code(stay=3) == "secure-colluding"
    assert code(Policy(secure_colluding=0), stay=3) == ""
    assert code(Policy(secure_colluding=1), stay=4) == ""
    assert code(Policy(secure_colluding=2), stay=4) == ""
    assert code(Policy(secure_colluding=3), stay=4) == "secure-colluding"


def test_fewer_than_three_sites_cannot_be_allowed():
    with pytest.raises(ValidationError):
        Policy(secure_min_sites=2)


@pytest.mark.parametrize("work", ["train", "validate"])
def test_where_a_secure_sum_is_required_nothing_learnt_leaves_without_one(work):
    def refusal(policy: Policy, masked: bool, config: Config = SECURE) -> str:
        asked = RequestedWork(config, ("generator",), {}, 100, work, is_masked=masked)
        return refusal_of_request(policy, asked, Ledger(), NOW)

    assert refusal(Policy(secure="required"), masked=False) == "policy-secure"
    assert refusal(Policy(secure="required"), masked=True) == ""
    assert refusal(Policy(), masked=False) == ""
    assert refusal(Policy(tell_counts=False), masked=True) == "", "a count in a sum is told to nobody"
    assert refusal(Policy(tell_counts=False), masked=False, config=tiny_config()) == "policy-counts"


def test_a_greeting_of_a_secure_run_is_answered_whatever_is_told_of_counts():
    for policy in (Policy(secure="required"), Policy(tell_counts=False)):
        asked = RequestedWork(SECURE, (), {}, 100, None)
        assert refusal_of_request(policy, asked, Ledger(), NOW) == ""


def test_where_a_secure_sum_is_required_no_count_leaves_in_the_clear():
    greeting = apply_to_greeting(Policy(secure="required"), Greeting("north", "0.2.0", {"train_questions": 7}, {}))
    assert greeting.counts == {"train_questions": 1}
    assert greeting.policy["secure"] == 1.0
    told = {"diagnosis.questions": 4.0, "diagnosis.right": 1.0}
    reply = apply_to_reply(Policy(secure="required", tell_diagnosis=True), Reply(metrics=told))
    assert reply.metrics == {"diagnosis.questions": 1.0, "diagnosis.right": 0.25}
