"""Which site spoilt a secure sum, as far as that can be known: the vectors themselves are seen by nobody.

Known is who sends a reply that cannot be read or has another shape than was asked for; whose sealed shares others
cannot open; and who tells another share than was dealt to it. In the last two cases it is one word against another: a
site is held to blame where more others say so than may work together (`federation.secure_colluding`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flwr.app import Message

from fedrag.errors import MessageError
from fedrag.federation.exchange import Federation
from fedrag.federation.refusal_codes import require_content
from fedrag.secure_sum.unmasking import MaskedSum


class SpoiltReply(MessageError):
    """A reply that no honest site sends."""


@contextmanager
def as_spoilt(message: Message) -> Iterator[None]:
    """Turn what goes wrong while a reply is read into a SpoiltReply; a refusal, or a client that failed, is none.

    Raises:
        MessageError: The site refused, or its client failed.
        SpoiltReply: Anything else is wrong with the reply.
    """
    if message.has_error() or "refusal" in message.content:
        require_content(message)
    try:
        yield
    except MessageError as error:
        raise SpoiltReply(str(error)) from None
    except Exception as error:  # records of foreign bytes fail in many ways, and one reply ends no run
        raise SpoiltReply(f"its reply cannot be read ({type(error).__name__})") from None


def note_spoilt(federation: Federation, name: str, error: MessageError) -> None:
    """Count a reply against its site where no honest one sends it, and the grid keeps count."""
    if isinstance(error, SpoiltReply):
        _count(federation, name, "reply_not_as_asked")


def name_spoilers(federation: Federation, masked: MaskedSum, round_number: int) -> None:
    """Say whose shares of a sum are wrong, and count it against a site that enough others accuse."""
    most, display = federation.config.federation.secure_colluding, federation.display
    for sender, holders in masked.unread.items():
        display.say(f"round {round_number}: {', '.join(holders)} could not open the share that {sender} had sealed")
        if len(holders) > most:
            _count(federation, sender, "sealed_shares_not_valid")
    for holder, dealers in sorted(masked.wrong.items()):
        display.say(f"round {round_number}: {holder} told another share than {', '.join(sorted(dealers))} had dealt")
        if len(dealers) > most:
            _count(federation, holder, "shares_not_as_dealt")


def _count(federation: Federation, name: str, why: str) -> None:
    note = getattr(federation.grid, "note_bad_reply", None)
    if note is not None:
        note(name, why)
