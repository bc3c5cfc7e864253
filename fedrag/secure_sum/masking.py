"""The site's side of a secure sum: mask a vector, and later reveal what takes the masks off the sum of the survivors.

After Bonawitz et al. 2017, in two messages: with x_i the site's vector of whole numbers,

    y_i = x_i + PRG(b_i) + sum over j > i of PRG(s_ij) - sum over j < i of PRG(s_ij)

where s_ij is the seed that only i and j can derive, and b_i is fresh. b_i is split with the threshold t; the shares are
sealed for their holders and travel with y_i over the coordinator. A site reveals once: of each survivor k its share of
b_k, of each site k that is gone the seed s_ik; never both of one site.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fedrag.errors import MessageError
from fedrag.secure_sum.agreement import (
    agreement_public,
    own_commitment,
    own_seed,
    pair_seed,
    sealing_key,
    shared_secret,
)
from fedrag.secure_sum.fixed_point import Layout, RingVector
from fedrag.secure_sum.masks import add_mask
from fedrag.secure_sum.refused import SecureSumRefused
from fedrag.secure_sum.shares import SECRET_BYTES, seal, split, unseal
from fedrag.secure_sum.sum_terms import Terms


@dataclass(frozen=True, slots=True)
class Masked:
    """What a site sends with its first message.

    Attributes:
        vector: y_i.
        sealed: Its shares of b_i, sealed, by the name of their holder; its own it keeps.
        commitment: To b_i, 32 bytes: shares that give others are wrong.
    """

    vector: RingVector
    sealed: Mapping[str, bytes]
    commitment: bytes


@dataclass(frozen=True, slots=True)
class RevealRequest:
    """What the coordinator asks a survivor in the second message.

    Attributes:
        context: Of which sum.
        survivors: Names of the sites whose sum is to be opened.
        sealed: The shares that other survivors sealed for this site, by their names.
    """

    context: bytes
    survivors: tuple[str, ...]
    sealed: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Revealed:
    """What a survivor answers.

    Attributes:
        shares: Its share of b_k for each survivor k, its own among them; none where what k sealed cannot be opened.
        seeds: The seed s_ik for each site k that is gone.
    """

    shares: Mapping[str, bytes]
    seeds: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class OpenRound:
    """What a site keeps between the two messages: it takes off the masks, so it is kept 0600 and then deleted.

    Attributes:
        name: The site's own name.
        context: Of which sum.
        threshold: Fewest survivors for which it answers.
        own_share: Its share of its own b_i.
        seeds: s_ij of each other site j.
        unsealing: The keys of the shares that each other site sealed for it.
    """

    name: str
    context: bytes
    threshold: int
    own_share: bytes
    seeds: Mapping[str, bytes]
    unsealing: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """Write it, for a file."""
        return json.dumps(asdict(self), default=bytes.hex).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> OpenRound:
        """Read what `to_bytes` wrote.

        Raises:
            MessageError: It is something else.
        """
        try:
            told: dict[str, Any] = json.loads(content)
            seeds, unsealing = (
                {name: bytes.fromhex(key) for name, key in told[kind].items()} for kind in ("seeds", "unsealing")
            )
            context, share = (bytes.fromhex(told[kind]) for kind in ("context", "own_share"))
            return cls(str(told["name"]), context, int(told["threshold"]), share, seeds, unsealing)
        except (ValueError, KeyError, AttributeError, TypeError):
            raise MessageError("what was kept of a secure sum cannot be read") from None


def mask(
    vector: RingVector, layout: Layout, name: str, private_key: bytes, terms: Terms, context: bytes
) -> tuple[Masked, OpenRound]:
    """Return a vector behind its masks, and what the site keeps until it reveals.

    Never call it twice for one context: two vectors under the same masks of pairs tell their difference.

    Args:
        vector: Whole numbers in the layout's rings.
        layout: Its parts.
        name: The site's own name, which the roster has.
        private_key: Its agreement key.
        terms: Who takes part.
        context: The context of the sum.

    Raises:
        SecureSumRefused: The roster does not name the site with its key.
    """
    names = terms.roster.names
    if name not in names or terms.roster.member(name).key != agreement_public(private_key):
        raise SecureSumRefused("secure-roster", "the roster does not name this site with its own agreement key")
    peers = {
        member.name: shared_secret(private_key, member.key) for member in terms.roster.members if member.name != name
    }
    seeds = {peer: pair_seed(secret, context) for peer, secret in peers.items()}
    b = secrets.token_bytes(SECRET_BYTES)
    shares = split(b, terms.threshold, names)
    masked = {part.name: np.array(vector[part.name], dtype=part.dtype) for part in layout}
    add_mask(masked, layout, own_seed(b, context), 1)
    for peer, seed in seeds.items():
        add_mask(masked, layout, seed, 1 if peer > name else -1)
    sealed = {
        peer: seal(shares[peer], sealing_key(secret, name, peer, context), context) for peer, secret in peers.items()
    }
    unsealing = {peer: sealing_key(secret, peer, name, context) for peer, secret in peers.items()}
    told = Masked(masked, sealed, own_commitment(b, context))
    return told, OpenRound(name, context, terms.threshold, shares[name], seeds, unsealing)


def reveal(kept: OpenRound, request: RevealRequest, min_sites: int) -> Revealed:
    """Return what takes the masks off the sum of the survivors; the caller sees to it that this happens once a context.

    Args:
        kept: What the site kept since it masked its vector.
        request: Who the survivors are, and the shares they sealed for this site.
        min_sites: Fewest survivors for which the site answers, whatever the threshold.

    Raises:
        SecureSumRefused: The survivors are too few, not of the roster, or without this site; or a share is missing, or
            none can be opened.
    """
    survivors = set(request.survivors)
    if request.context != kept.context:
        raise SecureSumRefused("secure-superseded", "another sum than the open one is to be revealed")
    if kept.name not in survivors or not survivors <= {kept.name, *kept.seeds}:
        raise SecureSumRefused("secure-survivors", "the survivors are not of the roster, or without this site")
    if len(survivors) < max(kept.threshold, min_sites):
        raise SecureSumRefused("secure-survivors", f"{len(survivors)} survivors are too few")
    others = sorted(survivors - {kept.name})
    if not set(others) <= set(request.sealed):
        raise SecureSumRefused("secure-shares", "a sealed share is missing")
    shares: dict[str, bytes] = {}
    for k in others:
        # One that sealed nonsense costs its own share: the others' are enough, and the coordinator sees whose it was.
        with suppress(MessageError):
            share = unseal(request.sealed[k], kept.unsealing[k], kept.context)
            shares |= {k: share} if len(share) == SECRET_BYTES else {}
    if not shares:
        raise SecureSumRefused("secure-shares", "no sealed share can be opened")
    gone = {name: seed for name, seed in kept.seeds.items() if name not in survivors}
    return Revealed({**shares, kept.name: kept.own_share}, gone)
