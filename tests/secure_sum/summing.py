"""Sites and a coordinator of a secure sum, without a network: what the tests of the protocol share."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedrag.secure_sum.agreement import agreement_public, new_agreement_key
from fedrag.secure_sum.fixed_point import Layout, Part, Ring, to_ring
from fedrag.secure_sum.masking import Masked, OpenRound, mask, reveal
from fedrag.secure_sum.roster import Member, roster_of
from fedrag.secure_sum.sum_terms import Terms, round_context
from fedrag.secure_sum.unmasking import MaskedSum

BOUND = 10.0


@dataclass(frozen=True)
class Party:
    """All sites of one sum: what each masked, sent and kept."""

    layout: Layout
    terms: Terms
    context: bytes
    plain: Mapping[str, Mapping[str, Ring]]
    masked: Mapping[str, Masked]
    kept: Mapping[str, OpenRound]
    keys: Mapping[str, bytes]

    @property
    def names(self) -> tuple[str, ...]:
        return self.terms.roster.names


def layout_of(sites: int, size: int = 50, bits: int = 32) -> Layout:
    return Part("numbers", 3, 64, 2.0**32, sites), Part("generator", size, bits, BOUND, sites)


def party(sites: int, threshold: int, size: int = 50, bits: int = 32) -> Party:
    """Let so many sites mask vectors of their own."""
    keys = {f"site-{i:02}": new_agreement_key() for i in range(sites)}
    roster = roster_of(Member(name, agreement_public(key)) for name, key in keys.items())
    terms = Terms("run", 0, roster, threshold)
    layout = layout_of(sites, size, bits)
    chance = np.random.default_rng(sites)
    plain, masked, kept = {}, {}, {}
    context = round_context(terms, "train", b"request")
    for name, key in keys.items():
        values = {part.name: chance.uniform(-1, 1, part.size) for part in layout}
        plain[name] = {part.name: to_ring(values[part.name], part, secrets.token_bytes(32)) for part in layout}
        masked[name], kept[name] = mask(plain[name], layout, name, key, terms, context)
    return Party(layout, terms, context, plain, masked, kept, keys)


def opened(made: Party, stay: Sequence[str], reveals: Sequence[str] | None = None) -> dict[str, Ring]:
    """Add the vectors of those that stay, let some of them reveal, and open the sum."""
    total = MaskedSum(made.layout, made.terms, made.context)
    for name in stay:
        total.add(name, made.masked[name])
    for name in stay if reveals is None else reveals:
        total.take(name, reveal(made.kept[name], total.request_to(name), 3))
    return total.unmasked()


def plain_sum(made: Party, stay: Sequence[str]) -> dict[str, Ring]:
    """Add whole numbers without any mask, in Python's own integers."""
    return {
        part.name: np.array(
            [sum(int(made.plain[name][part.name][i]) for name in stay) % 2**part.bits for i in range(part.size)],
            dtype=part.dtype,
        )
        for part in made.layout
    }


def is_same(one: Mapping[str, Ring], other: Mapping[str, Ring]) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)
