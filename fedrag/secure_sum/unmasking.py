"""The coordinator's side of a secure sum: adds up masked vectors, asks for what opens their sum, takes the masks off.

It keeps one vector, whatever the number of sites.
"""

from __future__ import annotations

from itertools import combinations, islice

import numpy as np

from fedrag.errors import MessageError, QuorumError
from fedrag.secure_sum.agreement import KEY_BYTES, own_commitment, own_seed
from fedrag.secure_sum.fixed_point import Layout, Ring
from fedrag.secure_sum.masking import Masked, Revealed, RevealRequest
from fedrag.secure_sum.masks import add_mask
from fedrag.secure_sum.roster import MIN_SITES
from fedrag.secure_sum.shares import SEALED_BYTES, SECRET_BYTES, combine
from fedrag.secure_sum.sum_terms import Terms

COMMITMENT_BYTES = KEY_BYTES
MOST_TRIES = 500
"""So many sets of shares are tried where the first one gives another mask than a site committed to."""
_SEED_BYTES = 32


class MaskedSum:
    """A sum of masked vectors; it is opened once, for those that were added.

    Args:
        layout: The parts of each vector.
        terms: Who takes part.
        context: The context of the sum.
    """

    def __init__(self, layout: Layout, terms: Terms, context: bytes) -> None:
        self._layout = layout
        self._terms = terms
        self._context = context
        self._total: dict[str, Ring] = {part.name: np.zeros(part.size, dtype=part.dtype) for part in layout}
        self._sealed: dict[str, dict[str, bytes]] = {}
        self._committed: dict[str, bytes] = {}
        self._revealed: dict[str, Revealed] = {}
        self.wrong: dict[str, set[str]] = {}
        """Of whose masks a site told another share than was dealt to it, by its name; known once the sum is open."""

    @property
    def survivors(self) -> tuple[str, ...]:
        """Return the names of the sites whose vectors were added, in order."""
        return tuple(sorted(self._sealed))

    @property
    def needed(self) -> int:
        """Return the fewest survivors whose sum can be opened."""
        return max(self._terms.threshold, MIN_SITES)

    @property
    def gone(self) -> tuple[str, ...]:
        """Return the names of the others of the roster, in order."""
        return tuple(name for name in self._terms.roster.names if name not in self._sealed)

    def add(self, name: str, masked: Masked) -> None:
        """Add a site's vector.

        Raises:
            MessageError: A part has another type or size, or not every other site has a sealed share; nothing was
                added then.
        """
        others = set(self._terms.roster.names) - {name}
        if name in self._sealed:
            raise MessageError("it sent two vectors in one round")
        if set(masked.sealed) != others or any(len(share) != SEALED_BYTES for share in masked.sealed.values()):
            raise MessageError("its reply does not hold a sealed share for each other site")
        if len(masked.commitment) != COMMITMENT_BYTES:
            raise MessageError("its reply does not hold a commitment to its mask")
        for part in self._layout:
            found = masked.vector.get(part.name)
            if found is None or found.dtype != part.dtype or found.shape != (part.size,):
                raise MessageError(f"its masked {part.name} has another size than the request")
        for part in self._layout:
            self._total[part.name] += masked.vector[part.name]
        self._sealed[name] = dict(masked.sealed)
        self._committed[name] = masked.commitment

    def request_to(self, name: str) -> RevealRequest:
        """Return what a survivor is asked: who the survivors are, with the shares that they sealed for it."""
        sealed = {sender: shares[name] for sender, shares in sorted(self._sealed.items()) if sender != name}
        return RevealRequest(self._context, self.survivors, sealed)

    def take(self, name: str, revealed: Revealed) -> None:
        """Keep what a survivor revealed.

        Raises:
            MessageError: It is not what was asked for.
        """
        shares, seeds = revealed.shares, revealed.seeds
        known = name in shares and set(shares) <= set(self.survivors)
        if not known or any(len(share) != SECRET_BYTES for share in shares.values()):
            raise MessageError("it did not reveal shares of the survivors")
        if set(seeds) != set(self.gone) or any(len(seed) != _SEED_BYTES for seed in seeds.values()):
            raise MessageError("it did not reveal a seed for each site that is gone")
        self._revealed[name] = revealed

    @property
    def lacking(self) -> tuple[str, ...]:
        """Return the survivors that have not revealed yet, as far as the sum cannot be opened without them."""
        silent = tuple(name for name in self.survivors if name not in self._revealed)
        enough = not self.gone and all(len(self._shares_of(k)) >= self._terms.threshold for k in self.survivors)
        return () if enough else silent

    @property
    def unread(self) -> dict[str, list[str]]:
        """Return which survivors could not open what another one had sealed for them, by the name of that one."""
        found = {
            sender: [holder for holder, revealed in sorted(self._revealed.items()) if sender not in revealed.shares]
            for sender in self.survivors
        }
        return {sender: holders for sender, holders in found.items() if holders}

    def unmasked(self) -> dict[str, Ring]:
        """Take the masks off and return the sum of the survivors' vectors, in the rings; call it once.

        Raises:
            QuorumError: A seed or too many shares are lacking: nothing is opened.
            MessageError: The shares of a site do not give what it committed to: nothing is opened.
        """
        if self.lacking:
            raise QuorumError(f"{', '.join(self.lacking)} did not reveal what opens the sum")
        own = [self._own_mask(name) for name in self.survivors]
        for b in own:
            add_mask(self._total, self._layout, own_seed(b, self._context), -1)
        for name, revealed in self._revealed.items():
            for gone, seed in revealed.seeds.items():
                # The survivor added this mask where the other's name comes after its own, and subtracted it else.
                add_mask(self._total, self._layout, seed, -1 if gone > name else 1)
        return self._total

    def _shares_of(self, name: str) -> dict[str, bytes]:
        """Return the shares of a site's mask that were revealed, by holder."""
        return {holder: told.shares[name] for holder, told in sorted(self._revealed.items()) if name in told.shares}

    def _own_mask(self, name: str) -> bytes:
        """Return a site's b_i from the first shares that give it, and note who told another share."""
        shares, t, holders = self._shares_of(name), self._terms.threshold, self._terms.roster.names
        if len(shares) < t:
            raise MessageError(f"of the shares that {name} sealed {len(shares)} could be opened, {t} are needed")
        for some in islice(combinations(shares, t), MOST_TRIES):
            right = {holder: shares[holder] for holder in some}
            b = combine(right, t, holders)
            if own_commitment(b, self._context) == self._committed[name]:
                for holder in set(shares) - set(some):
                    swapped = {holder: shares[holder], **dict(list(right.items())[1:])}
                    if combine(swapped, t, holders) != b:
                        self.wrong.setdefault(holder, set()).add(name)
                return b
        raise MessageError(
            f"the shares of {name} do not give the mask that it committed to: it dealt wrong ones, or of "
            f"{', '.join(shares)} too many told others"
        )
