"""How many questions a site counts for, whatever it claims: the weight of its update in a round."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median_low

from fedrag.types import Component


@dataclass(frozen=True)
class Claims:
    """What the sites of a round claim, and the bounds within which it is believed.

    Attributes:
        expected: The most questions that each site learns from in the round, by component and site, as it told.
        confirmed: Questions that were confirmed when a site was registered, where they were.
        ratio: No site counts for more than so many times the median of the others' and its own; 0: for any number.
        equal: Components for which all sites count the same, whatever they claim.
    """

    expected: Mapping[Component, Mapping[str, int]]
    confirmed: Mapping[str, int] = field(default_factory=dict)
    ratio: float = 0.0
    equal: Collection[Component] = ()

    @cached_property
    def medians(self) -> dict[Component, int]:
        """The median claim for each component; of an even number the lower, which a single site cannot raise."""
        return {
            component: median_low([self._believed(site, claimed) for site, claimed in told.items()])
            for component, told in self.expected.items()
            if told
        }

    def weight(self, site: str, component: Component, claimed: int) -> int:
        """Return how many questions a site's update counts for."""
        if component in self.equal:
            return 1
        believed = self._believed(site, claimed)
        most = int(self.ratio * self.medians[component]) if self.ratio else believed
        return max(1, min(believed, most))

    def cut(self, site: str, claimed: Mapping[Component, int]) -> dict[Component, int]:
        """Return what a site counts for, for each component for which that is less than it claims."""
        weights = {component: self.weight(site, component, count) for component, count in claimed.items()}
        return {c: weight for c, weight in weights.items() if weight < claimed[c] and c not in self.equal}

    def why(self, site: str, weight: int) -> str:
        """Return why a site counts for no more than this."""
        if self.confirmed.get(site) == weight:
            return f"{weight:,} were confirmed when it was registered"
        return f"no site counts for more than {self.ratio:g} times the median claim (federation.max_weight_ratio)"

    def _believed(self, site: str, claimed: int) -> int:
        return min(claimed, self.confirmed.get(site, claimed))
