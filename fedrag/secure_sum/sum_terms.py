"""The terms of a secure sum: who takes part, how many must stay, and the context to which every key of it is bound."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from fedrag.secure_sum.roster import Roster


@dataclass(frozen=True, slots=True)
class Terms:
    """What all sites of a sum must be told alike.

    Attributes:
        run: Name of the run.
        attempt: From 0; a sum that was lost is asked for once more, under new keys.
        roster: The sites.
        threshold: Sites whose shares open an own mask.
    """

    run: str
    attempt: int
    roster: Roster
    threshold: int


def threshold(sites: int, colluding: int) -> int:
    """Return the fewest shares that may open a mask, so that a coordinator who lies about survivors opens no site.

    A coordinator may tell each site another set of survivors. Site v is opened when it gets, for every honest j, the
    seed s_vj (from v, told that j is gone, or from j, told that v is) and t shares of b_v (from v, from the honest who
    were told that v stays, from c colluding sites): possible exactly if t <= (n + c + 1) / 2. Where it is more than the
    sites are, so many colluding ones cannot be borne.

    >>> [threshold(n, 0) for n in (3, 4, 5, 6)], [threshold(n, 1) for n in (3, 4, 5, 20)]
    ([3, 3, 4, 4], [3, 4, 4, 12])
    """
    return (sites + colluding + 1) // 2 + 1


def round_context(terms: Terms, kind: str, request_sha256: bytes) -> bytes:
    """Return the context of a sum, 32 bytes.

    Args:
        terms: What it is asked under.
        kind: The message type of the request.
        request_sha256: Of the whole request as the site received it: the scenario, the round, the manifests, the
            state. Sites that were sent different states share no mask, so theirs do not cancel.
    """
    parts = (
        b"fedrag secure sum 1",
        terms.run.encode(),
        kind.encode(),
        request_sha256,
        terms.attempt.to_bytes(4, "big"),
        terms.roster.digest,
        terms.threshold.to_bytes(4, "big"),
    )
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).digest()


def survivors_digest(context: bytes, survivors: Iterable[str]) -> str:
    """Return the hash of a set of survivors: two sites that were told different ones can show it to each other."""
    names = sorted(survivors)
    parts = b"".join(len(name.encode()).to_bytes(4, "big") + name.encode() for name in names)
    return hashlib.sha256(b"fedrag survivors" + context + parts).hexdigest()
