"""Whether a site takes part in a secure sum as it is asked to: with whom, and with how many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fedrag.secure_sum.sum_terms import Terms, threshold
from fedrag.site.peers import Peer, refusal_of_roster
from fedrag.site.site_config import Policy
from fedrag.text import plural


@dataclass(frozen=True, slots=True)
class SumRefusal:
    """Why a site takes no part in a sum.

    Attributes:
        code: The code that leaves the site; "" where it takes part.
        why: The same in a sentence, for the site's own log.
    """

    code: str = ""
    why: str = ""


_WHY = {
    "secure-peers": "nobody here has confirmed {names}; compare fingerprints, then: fedrag client peers",
    "secure-peer-changed": "the key of {names} is not the one confirmed; compare fingerprints: fedrag client peers",
    "secure-roster": "the agreement key of {names} is not signed with the confirmed key",
}


def refusal_of_sum(policy: Policy, terms: Terms, run: str, own: tuple[str, bytes], peers: Iterable[Peer]) -> SumRefusal:
    """Return why a site does not mask its reply as it is asked to; an empty refusal where it does.

    Args:
        policy: What the site allows.
        terms: Who is to take part.
        run: The run that the signed request names.
        own: The site's own name and public agreement key.
        peers: The other sites, as this one knows them.
    """
    roster, count = terms.roster, len(terms.roster.members)
    if terms.run != run or own not in {(member.name, member.key) for member in roster.members}:
        return SumRefusal("secure-roster", "the sum is of another run, or without this site and its agreement key")
    if count < policy.secure_min_sites:
        least = f"the policy asks for {policy.secure_min_sites} (secure_min_sites)"
        return SumRefusal("secure-sites", f"the sum is of {plural(count, 'site')}, {least}")
    if terms.threshold < threshold(count, policy.secure_colluding):
        borne = f"it bears fewer than {policy.secure_colluding} on the coordinator's side (secure_colluding)"
        return SumRefusal("secure-colluding", f"of {plural(count, 'site')} {terms.threshold} must stay: {borne}")
    code, names = refusal_of_roster(peers, roster, own[0])
    return SumRefusal(code, _WHY[code].format(names=", ".join(names)) if code else "")
