"""A secure sum of 20 MB from 20 sites, of which 2 are gone: seconds of the processor at a site and at the coordinator.

The sites' sides run one after the other in this process, as they would in as many; the coordinator's adds the masked
vectors of 18, takes what they reveal, and opens the sum. Seconds are those of the processor, one thread, and those of a
site are the median over all. Nothing is sent: a deployment adds one more short message a round. The last row compares
the bytes of a masked update with those of float32, shares and numbers included.
"""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable

import numpy as np
from bench import Row, main

from fedrag.secure_sum.agreement import agreement_public, new_agreement_key
from fedrag.secure_sum.fixed_point import Part, layout_bytes, to_ring
from fedrag.secure_sum.masking import Masked, OpenRound, mask, reveal
from fedrag.secure_sum.roster import Member, roster_of
from fedrag.secure_sum.shares import SEALED_BYTES
from fedrag.secure_sum.sum_terms import Terms, round_context, threshold
from fedrag.secure_sum.unmasking import COMMITMENT_BYTES, MaskedSum

SITES, GONE, WEIGHTS = 20, 2, 5_000_000
NUMBERS = 11


def timed(work: Callable[[], object]) -> float:
    """Return the processor's seconds of some work."""
    start = time.process_time()
    work()
    return time.process_time() - start


def sum_of(bits: int) -> list[Row]:
    """Mask, add, reveal and open in a ring of so many bits."""
    keys = {f"site-{i:02}": new_agreement_key() for i in range(SITES)}
    terms = Terms("bench", 0, roster_of(Member(n, agreement_public(k)) for n, k in keys.items()), threshold(SITES, 1))
    context = round_context(terms, "train.round", b"request")
    layout = Part("numbers", NUMBERS, 64, 2.0**32, SITES), Part("update", WEIGHTS, bits, 10.0, SITES)
    update = 0.003 * np.random.default_rng(0).standard_normal(WEIGHTS, dtype=np.float32)
    total, kept = MaskedSum(layout, terms, context), dict[str, OpenRound]()
    at_sites, adding = [], 0.0
    plain = np.zeros(WEIGHTS, layout[1].dtype)
    for name, key in list(keys.items())[GONE:]:
        found: list[Masked] = []

        def masking(name: str = name, key: bytes = key, found: list[Masked] = found) -> None:
            numbers = to_ring(np.arange(NUMBERS, dtype=np.float64), layout[0], secrets.token_bytes(32))
            whole = to_ring(update, layout[1], secrets.token_bytes(32))
            np.add(plain, whole, out=plain)
            masked, kept[name] = mask({"numbers": numbers, "update": whole}, layout, name, key, terms, context)
            found.append(masked)

        at_sites.append(timed(masking))
        adding += timed(lambda name=name, found=found: total.add(name, found[0]))  # type: ignore[misc]
    requests = {name: total.request_to(name) for name in total.survivors}
    revealing = timed(lambda: [total.take(name, reveal(kept[name], requests[name], 3)) for name in total.survivors])
    opened = {}
    opening = timed(lambda: opened.update(total.unmasked()))
    assert np.array_equal(opened["update"], plain), "the sum without masks is not the plain one"
    site, coordinator = statistics.median(at_sites) + revealing / len(kept), adding + opening
    what = f"{WEIGHTS * 4 / 1e6:.0f} MB of float32 in whole numbers of {bits} bits, {SITES} sites, {GONE} gone"
    sent = layout_bytes(layout) + SEALED_BYTES * (SITES - 1) + COMMITMENT_BYTES
    rows = [
        Row(f"{what}: a site, both messages", site, "s", 1.0, most=True, figures={"reveal_s": revealing / len(kept)}),
        Row(f"{what}: the coordinator", coordinator, "s", 4.0, most=True, figures={"adding_s": adding}),
    ]
    if bits == 32:
        share = 100 * sent / (4 * WEIGHTS)
        rows.append(Row("a masked reply against float32", share, "%", 100.1, most=True, figures={"bytes": sent}))
    return rows


def measure() -> list[Row]:
    """Measure both rings."""
    return [*sum_of(32), *sum_of(64)]


if __name__ == "__main__":
    main(measure)
