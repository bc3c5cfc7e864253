"""The two messages of a secure sum, at the server: ask for masked replies, then for what opens their sum."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from flwr.app import Message, RecordDict

from fedrag.errors import MessageError, QuorumError
from fedrag.federation.bound_sums import bind_sum, bound_sites
from fedrag.federation.exchange import Federation, KnownSite, Sent, answers
from fedrag.federation.messages import Request, array_bytes
from fedrag.federation.secure_messages import (
    REVEAL,
    context_of,
    open_masked,
    open_revealed,
    reveal_content,
    with_terms,
)
from fedrag.federation.secure_spoilers import as_spoilt, name_spoilers, note_spoilt
from fedrag.secure_sum.fixed_point import Layout, RingVector
from fedrag.secure_sum.roster import MIN_SITES, roster_of
from fedrag.secure_sum.sum_terms import Terms, threshold
from fedrag.secure_sum.unmasking import MaskedSum
from fedrag.text import plural

REVEAL_S = 600.0
"""Longest wait for what opens a sum: a site answers as soon as it hears of it."""
GRACE_S = 10.0
"""How long sites are waited for whose answer is not needed any more; each hears of the survivors."""

Opened = TypeVar("Opened")


@dataclass(frozen=True, slots=True)
class SumRequest:
    """What is asked of the sites of a sum.

    Attributes:
        kind: `TRAIN` or `VALIDATE`.
        request: What is asked.
        content: The request as it is sent.
        sites: Who is asked.
        layout: The parts of a reply.
    """

    kind: str
    request: Request
    content: RecordDict
    sites: Sequence[KnownSite]
    layout: Layout


@dataclass(slots=True)
class Summed:
    """What a secure sum came to, beside the sum itself.

    Attributes:
        received: Bytes of the arrays of each reply that is in the sum, by site.
        left_out: Why a site is not in it, by name.
    """

    received: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


class SumGivenUpError(QuorumError):
    """A round began with sites of whose sum alone it can be, and some of them are not asked: it comes to nothing."""


class _Lost(Exception):
    """The sum was not opened; it may be asked for again."""


def secure_sum(
    federation: Federation, plain: SumRequest, read: Callable[[RingVector, int], Opened]
) -> tuple[Opened, Summed]:
    """Return what `read` makes of the sum over the sites that stay, asked for again where it is lost.

    Args:
        federation: What the rounds work with.
        plain: What is asked, without the terms of the sum.
        read: Takes the sum and the number of sites in it; raises MessageError where it is none that sites can send.

    Raises:
        QuorumError: Too few sites take part, every attempt was lost, or a sum was opened that `read` refuses.
        SumGivenUpError: The round was begun before with a site that is not among these.
    """
    settings, display = federation.config.federation, federation.display
    what, sites = f"round {plain.request.round_number}", plain.sites
    if len(sites) < MIN_SITES:
        raise QuorumError(f"{what}: a secure sum needs at least {MIN_SITES} sites, {len(sites)} can take part")
    needed = threshold(len(sites), settings.secure_colluding)
    if needed > len(sites):
        raise QuorumError(
            f"{what}: {plural(len(sites), 'site')} cannot hide a site from the server and {settings.secure_colluding} "
            "others that work together (federation.secure_colluding)"
        )
    bound = bound_sites(federation.run.path, plain.kind, plain.request.round_number)
    if missing := sorted(set(bound or ()) - {site.name for site in sites}):
        raise SumGivenUpError(f"{what}: {_without(missing)}")
    roster = roster_of(site.member for site in sites if site.member)
    for attempt in range(settings.secure_repeats + 1):
        terms = Terms(federation.run.path.name, attempt, roster, needed)
        try:
            return _attempt(federation, replace(plain, content=with_terms(plain.content, terms)), terms, read)
        except _Lost as lost:
            why = str(lost)
            display.say(f"{what}: the secure sum is lost, and nothing was opened: {why}")
    raise QuorumError(
        f"{what}: the secure sum was lost {plural(settings.secure_repeats + 1, 'time')} "
        f"(federation.secure_repeats), the last time because {why}"
    )


def _attempt(
    federation: Federation, asked: SumRequest, terms: Terms, read: Callable[[RingVector, int], Opened]
) -> tuple[Opened, Summed]:
    masked = MaskedSum(asked.layout, terms, context_of(asked.content, asked.kind, terms))
    summed = Summed()
    bound = bound_sites(federation.run.path, asked.kind, asked.request.round_number)
    _collect(federation, asked, terms, masked, summed, bound)
    _require_enough(federation, asked, masked, summed, bound)
    bind_sum(federation.run.path, asked.kind, asked.request.round_number, masked.survivors)
    _ask_to_reveal(federation, asked, masked)
    try:
        if masked.lacking:
            names = ", ".join(masked.lacking)
            raise _Lost(f"{names} did not reveal what opens it, and {_gone(masked)}")
        total = masked.unmasked()
    except MessageError as error:
        raise _Lost(str(error)) from None
    finally:
        name_spoilers(federation, masked, asked.request.round_number)
    try:
        return read(total, len(masked.survivors)), summed
    except MessageError as error:
        # It was opened: a second sum of the same state, without a site, would tell that site's part.
        raise QuorumError(
            f"round {asked.request.round_number}: the secure sum cannot be used, and is not asked for again: {error}; "
            "no single site can be named, since none is seen"
        ) from None


def _collect(
    federation: Federation,
    asked: SumRequest,
    terms: Terms,
    masked: MaskedSum,
    summed: Summed,
    bound: Sequence[str] | None,
) -> None:
    """Add up the masked replies as they come; those of the sites alone to which the round is bound, if it is."""
    display, request = federation.display, asked.request
    sites = [site for site in asked.sites if bound is None or site.name in bound]
    summed.left_out = {
        site.name: "it was not in the sum that was asked for before" for site in asked.sites if site not in sites
    }
    sent = Sent(asked.kind, lambda _: asked.content, str(request.round_number), request.deadline_s)
    task = f"round {request.round_number}/{federation.config.federation.rounds}"
    display.progress(task, 0, len(sites))
    for done, (site, message) in enumerate(answers(federation.grid, sent, sites), start=1):
        try:
            _take_masked(message, site.name, asked.layout, terms, masked)
        except MessageError as error:
            note_spoilt(federation, site.name, error)
            summed.left_out[site.name] = str(error)
            display.say(f"{site.name} is left out of round {request.round_number}: {error}")
        else:
            assert isinstance(message, Message)
            summed.received[site.name] = array_bytes(message.content)
        display.progress(task, done, len(sites))


def _require_enough(
    federation: Federation, asked: SumRequest, masked: MaskedSum, summed: Summed, bound: Sequence[str] | None
) -> None:
    """Require the survivors that the masks and the quorum need: where the round is bound to some, those and no less."""
    shares = masked.needed
    quorum = max(1, math.ceil(federation.config.federation.quorum * len(asked.sites) - 1e-9))
    valid = len(masked.survivors)
    missing = sorted(set(bound or ()) - set(masked.survivors))
    if valid >= max(shares, quorum) and not missing:
        return
    reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(summed.left_out.items()))
    told = f"{valid} of {len(asked.sites)} sites gave a valid reply, {max(shares, quorum)} are needed ({reasons})"
    if missing:
        told = _without(missing, reasons)
    if any("(secure-superseded" in reason for reason in summed.left_out.values()):
        raise _Lost(told)  # an attempt before an interruption: the sites answer the next one
    raise QuorumError(f"round {asked.request.round_number}: {told}")


def _without(missing: Sequence[str], reasons: str = "") -> str:
    """Say which sites a round that is bound to them cannot do without."""
    why = f" ({reasons})" if reasons else ""
    return (
        f"{', '.join(missing)} cannot be left out{why}: a sum with them was asked for before, and no site reveals for "
        "two sets of sites in one round; bring them back, then resume, or resume without them, and the round is passed"
    )


def _ask_to_reveal(federation: Federation, asked: SumRequest, masked: MaskedSum) -> None:
    """Ask the survivors for what opens the sum."""
    request = asked.request
    survivors = [site for site in asked.sites if site.name in masked.survivors]
    began = time.monotonic()
    sent = Sent(
        REVEAL,
        lambda site: reveal_content(masked.request_to(site.name)),
        str(request.round_number),
        min(request.deadline_s, REVEAL_S),
        is_enough=lambda: not masked.lacking and time.monotonic() > began + GRACE_S,
    )
    for site, message in answers(federation.grid, sent, survivors):
        try:
            _take_revealed(message, site.name, masked)
        except MessageError as error:
            note_spoilt(federation, site.name, error)
            federation.display.say(f"{site.name} did not reveal its part of round {request.round_number}: {error}")


def _gone(masked: MaskedSum) -> str:
    if masked.gone:
        return f"{', '.join(masked.gone)} had left before"
    return "too few others did"


def _take_masked(message: Message | MessageError, name: str, layout: Layout, terms: Terms, masked: MaskedSum) -> None:
    if isinstance(message, MessageError):
        raise message
    with as_spoilt(message):
        masked.add(name, open_masked(message, layout, terms.roster, name))


def _take_revealed(message: Message | MessageError, name: str, masked: MaskedSum) -> None:
    if isinstance(message, MessageError):
        raise message
    with as_spoilt(message):
        masked.take(name, open_revealed(message))
