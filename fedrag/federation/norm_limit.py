"""A limit on the norm of an update that follows the round: a multiple of the median of all.

The median lies among the norms of good sites while fewer than half are bad, whatever these send.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from fedrag.types import Component


def too_large(norms: Mapping[str, Mapping[Component, float]], multiple: float) -> dict[str, str]:
    """Return why updates are too large for their round, by site; none are where all norms are 0.

    >>> too_large({"a": {"generator": 1.0}, "b": {"generator": 2.0}, "c": {"generator": 30.0}}, 4.0)
    {'c': 'its generator update has norm 30, more than 4 times the median of the round, 2'}

    Args:
        norms: L2 norms of the updates, by site and component.
        multiple: How many times the median one may be.
    """
    components = sorted({component for of_site in norms.values() for component in of_site})
    reasons: dict[str, str] = {}
    for component in components:
        sizes = {site: of_site[component] for site, of_site in norms.items() if component in of_site}
        median = statistics.median(sizes.values())
        for site, size in sorted(sizes.items()):
            if size > multiple * median > 0.0:
                reason = f"more than {multiple:g} times the median of the round, {median:.3g}"
                reasons.setdefault(site, f"its {component} update has norm {size:.3g}, {reason}")
    return reasons
