"""What a secure sum gives: the plain sum to the bit, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from summing import Party, is_same, opened, party, plain_sum

from fedrag.errors import MessageError, QuorumError
from fedrag.secure_sum.agreement import agreement_public, new_agreement_key, own_commitment, own_seed, shared_secret
from fedrag.secure_sum.masking import Masked, OpenRound, RevealRequest, mask, reveal
from fedrag.secure_sum.refused import SecureSumRefused
from fedrag.secure_sum.roster import Member, is_signed_by, roster_of, signed_member
from fedrag.secure_sum.shares import combine, seal, split, unseal
from fedrag.secure_sum.sum_terms import round_context, survivors_digest, threshold
from fedrag.secure_sum.unmasking import MaskedSum
from fedrag.security.keys import load_private_key, new_key


@pytest.mark.parametrize(("sites", "gone"), [(3, 0), (5, 1), (9, 3)])
@pytest.mark.parametrize("bits", [32, 64])
def test_the_sum_of_those_that_stay_is_that_of_their_whole_numbers_to_the_bit(sites, gone, bits):
    made = party(sites, threshold(sites, 0 if gone else 1), bits=bits)
    stay = made.names[gone:]
    assert is_same(opened(made, stay), plain_sum(made, stay))


def test_a_site_that_goes_between_others_in_order_leaves_no_mask_behind():
    made = party(7, threshold(7, 1))
    stay = [name for name in made.names if name not in ("site-03", "site-05")]
    assert is_same(opened(made, stay), plain_sum(made, stay))


def test_a_vector_behind_its_masks_is_noise():
    made = party(3, 3, size=50_000)
    ring = made.masked["site-01"].vector["generator"]
    assert abs(float(ring.astype(np.float64).mean()) / 2**31 - 1) < 0.02
    assert abs(np.corrcoef(ring.astype(float), made.plain["site-01"]["generator"].astype(float))[0, 1]) < 0.02


def test_states_that_differ_between_sites_do_not_cancel_and_are_not_opened():
    made = party(4, 4)
    name = "site-00"
    another = round_context(made.terms, "train", b"the request with another state")
    masked, kept = mask(made.plain[name], made.layout, name, made.keys[name], made.terms, another)
    total = MaskedSum(made.layout, made.terms, made.context)
    for other in made.names:
        total.add(other, masked if other == name else made.masked[other])
    with pytest.raises(SecureSumRefused, match="another sum"):
        reveal(kept, total.request_to(name), 3)
    for other in made.names[1:]:
        told = reveal(made.kept[other], total.request_to(other), 3)
        assert name not in told.shares
        assert not told.seeds
    assert set(kept.seeds.values()).isdisjoint(made.kept[name].seeds.values())
    assert set(kept.unsealing.values()).isdisjoint(made.kept[name].unsealing.values())
    # Even were the own masks opened, those of its pairs would stay: the sum is noise.
    mixed = replace(made, masked={**made.masked, name: replace(made.masked[name], vector=masked.vector)})
    noise = opened(mixed, mixed.names)["generator"].view("<i4") / made.layout[1].scale
    assert np.abs(noise).mean() > 5 * made.layout[1].sites  # sums of numbers within +-1


def test_where_nobody_is_gone_the_threshold_of_reveals_is_enough():
    made = party(6, 4)
    assert is_same(opened(made, made.names, made.names[1:5]), plain_sum(made, made.names))
    with pytest.raises(QuorumError, match="site-04, site-05 did not reveal"):
        opened(party(6, 4), made.names, made.names[1:4])


def test_where_a_site_is_gone_every_other_one_must_reveal():
    made = party(6, 4)
    stay = made.names[1:]
    with pytest.raises(QuorumError, match="site-05 did not reveal"):
        opened(made, stay, stay[:-1])


def test_a_site_reveals_to_no_too_small_or_foreign_set_of_survivors():
    made = party(5, 4)
    kept = made.kept["site-00"]
    sealed = {name: made.masked[name].sealed["site-00"] for name in made.names if name != "site-00"}

    def ask(*survivors: str) -> None:
        reveal(kept, RevealRequest(made.context, survivors, sealed), 3)

    ask(*made.names)
    for survivors in (made.names[:3], made.names[1:], (*made.names[:4], "stranger")):
        with pytest.raises(SecureSumRefused) as refused:
            ask(*survivors)
        assert refused.value.code == "secure-survivors"
    with pytest.raises(SecureSumRefused, match="4 survivors are too few"):
        reveal(kept, RevealRequest(made.context, made.names[:4], sealed), 5)


def test_a_share_that_was_altered_or_is_of_another_sum_is_not_revealed_and_without_any_nothing_is():
    made, other = party(3, 3), party(3, 3)
    right = {name: made.masked[name].sealed["site-00"] for name in ("site-01", "site-02")}
    short = seal(b"short", made.kept["site-00"].unsealing["site-01"], made.context)
    for wrong in (
        other.masked["site-01"].sealed["site-00"],
        bytes(32),
        made.masked["site-01"].sealed["site-02"],
        short,
    ):
        told = reveal(made.kept["site-00"], RevealRequest(made.context, made.names, right | {"site-01": wrong}), 3)
        assert set(told.shares) == {"site-00", "site-02"}
    for sealed in (dict.fromkeys(right, bytes(32)), {"site-01": right["site-01"]}):
        with pytest.raises(SecureSumRefused) as refused:
            reveal(made.kept["site-00"], RevealRequest(made.context, made.names, sealed), 3)
        assert refused.value.code == "secure-shares"


def collected(made: Party, masked: Mapping[str, Masked] | None = None) -> MaskedSum:
    """Everybody's vector, with the messages of some replaced, and what everybody reveals."""
    total = MaskedSum(made.layout, made.terms, made.context)
    for name, own in (made.masked | (masked or {})).items():
        total.add(name, own)
    for name in made.names:
        total.take(name, reveal(made.kept[name], total.request_to(name), 3))
    return total


def test_sealed_shares_that_nobody_can_open_are_known_by_their_sender_and_cost_nothing_while_enough_can_be():
    made = party(5, 3)
    bad = made.masked["site-01"]
    spoilt = {holder: bytes(32) for holder in ("site-00", "site-03")}
    total = collected(made, {"site-01": replace(bad, sealed={**bad.sealed, **spoilt})})
    assert total.unread == {"site-01": ["site-00", "site-03"]}
    assert is_same(total.unmasked(), plain_sum(made, made.names))
    total = collected(made, {"site-01": replace(bad, sealed=dict.fromkeys(bad.sealed, bytes(32)))})
    assert total.lacking == ()
    with pytest.raises(MessageError, match="of the shares that site-01 sealed 1 could be opened, 3 are needed"):
        total.unmasked()


def test_who_tells_another_share_than_was_dealt_is_known_and_the_sum_is_opened_all_the_same():
    """A wrong share gave another mask, and with it a sum of nonsense that was nobody's."""
    made = party(5, 3)
    total = collected(made)
    told = reveal(made.kept["site-00"], total.request_to("site-00"), 3)
    others = {name: bytes(16) for name in ("site-02", "site-03")}
    total.take("site-00", replace(told, shares={**told.shares, **others}))
    assert is_same(total.unmasked(), plain_sum(made, made.names))
    assert total.wrong == {"site-00": {"site-02", "site-03"}}


def test_shares_that_do_not_give_what_their_dealer_committed_to_open_nothing_and_name_it():
    made = party(5, 3)
    total = collected(made, {"site-02": replace(made.masked["site-02"], commitment=bytes(32))})
    before = {name: ring.copy() for name, ring in total._total.items()}
    with pytest.raises(MessageError, match="the shares of site-02 do not give the mask that it committed to"):
        total.unmasked()
    assert is_same(total._total, before)


def test_a_commitment_is_to_the_bytes_and_the_sum():
    assert len({own_commitment(b, context) for b in (bytes(16), b"x" * 16) for context in (b"one", b"two")}) == 4
    assert own_commitment(bytes(16), b"one") != own_seed(bytes(16), b"one")


def test_a_site_masks_only_where_the_roster_names_it_with_its_own_key():
    made = party(3, 3)
    for name, key in (("stranger", new_agreement_key()), ("site-00", new_agreement_key())):
        with pytest.raises(SecureSumRefused) as refused:
            mask(made.plain["site-00"], made.layout, name, key, made.terms, made.context)
        assert refused.value.code == "secure-roster"


def test_what_a_site_keeps_can_be_written_and_read():
    kept = party(4, 4).kept["site-02"]
    assert OpenRound.from_bytes(kept.to_bytes()) == kept
    with pytest.raises(MessageError, match="cannot be read"):
        OpenRound.from_bytes(b'{"name": 1}')


def test_the_server_takes_no_malformed_reply_and_keeps_its_sum():
    made = party(3, 3)
    total = MaskedSum(made.layout, made.terms, made.context)
    good = made.masked["site-00"]
    for wrong, told in (
        (replace(good, sealed={}), "sealed share for each"),
        (replace(good, sealed={name: b"short" for name in good.sealed}), "sealed share for each"),
        (replace(good, commitment=b"short"), "commitment"),
        (replace(good, vector={**good.vector, "generator": good.vector["generator"][:-1]}), "another size"),
        (replace(good, vector={**good.vector, "generator": good.vector["generator"].astype("<u8")}), "another size"),
    ):
        with pytest.raises(MessageError, match=told):
            total.add("site-00", wrong)
    for name in made.names:
        total.add(name, made.masked[name])
    with pytest.raises(MessageError, match="two vectors"):
        total.add("site-00", good)
    for name in made.names:
        total.take(name, reveal(made.kept[name], total.request_to(name), 3))
    assert is_same(total.unmasked(), plain_sum(made, made.names))


def test_any_threshold_of_shares_gives_the_secret_and_fewer_do_not():
    holders = [f"site-{i}" for i in range(7)]
    shares = split(b"sixteen bytes go", 4, holders)
    some = {name: shares[name] for name in holders[2:6]}
    assert combine(some, 4, holders) == b"sixteen bytes go"
    with pytest.raises(MessageError, match="3 shares of a mask are there, 4 are needed"):
        combine({name: shares[name] for name in holders[:3]}, 4, holders)


def test_a_sealed_share_opens_under_its_own_sum_alone():
    sealed = seal(b"sixteen bytes go", bytes(32), b"one sum")
    assert unseal(sealed, bytes(32), b"one sum") == b"sixteen bytes go"
    with pytest.raises(MessageError, match="another sum"):
        unseal(sealed, bytes(32), b"another sum")


def test_both_ends_of_a_pair_agree_and_a_key_that_is_none_is_refused():
    one, other = new_agreement_key(), new_agreement_key()
    assert shared_secret(one, agreement_public(other)) == shared_secret(other, agreement_public(one))
    with pytest.raises(MessageError, match="agreement key"):
        shared_secret(one, bytes(32))  # a point of low order: everybody's secret would be zeros


def test_a_roster_has_one_order_and_no_doubles():
    one, two = (Member(name, agreement_public(new_agreement_key())) for name in ("b", "a"))
    assert roster_of([one, two]).names == ("a", "b")
    assert roster_of([one, two]).digest == roster_of([two, one]).digest
    for wrong in ([one, one], [one, Member("c", one.key)], [Member("c", b"short")]):
        with pytest.raises(MessageError, match="roster"):
            roster_of(wrong)


def test_a_member_is_signed_with_its_name(tmp_path):
    new_key(tmp_path / "north.pem")
    new_key(tmp_path / "south.pem")
    north, south = load_private_key(tmp_path / "north.pem"), load_private_key(tmp_path / "south.pem")
    member = signed_member("north", bytes(range(32)), north)
    assert is_signed_by(member, north.public_key())
    assert not is_signed_by(member, south.public_key())
    assert not is_signed_by(replace(member, name="south"), north.public_key())
    assert not is_signed_by(replace(member, key=bytes(32)), north.public_key())


def test_the_two_shares_of_a_pair_are_sealed_with_two_keys():
    """With one, under the same nonce, whoever carries both would know the difference of the shares."""
    kept = party(3, 3).kept
    assert kept["site-00"].unsealing["site-01"] != kept["site-01"].unsealing["site-00"]
    assert len({key for one in kept.values() for key in one.unsealing.values()}) == 6


def test_every_term_of_a_sum_and_its_request_are_in_its_context():
    terms = party(4, 3).terms
    others = party(4, 3).terms.roster  # the same names, other keys
    changed = [{"run": "other"}, {"attempt": 1}, {"threshold": 4}, {"roster": others}]
    contexts = [round_context(replace(terms, **change), "train", b"request") for change in ({}, *changed)]
    contexts += [round_context(terms, "validate", b"request"), round_context(terms, "train", b"another")]
    assert len(set(contexts)) == len(contexts)


def test_two_sites_compare_the_survivors_they_were_told_by_a_hash():
    told = survivors_digest(b"sum", ["a", "b", "c"])
    assert told == survivors_digest(b"sum", ["c", "a", "b"])
    assert len({told, survivors_digest(b"sum", ["a", "b"]), survivors_digest(b"other", ["a", "b", "c"])}) == 3
