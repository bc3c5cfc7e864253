"""Why a site does not take part in a secure sum as it is asked to."""

from __future__ import annotations

from fedrag.errors import MessageError


class SecureSumRefused(MessageError):
    """A site refuses to mask, or to reveal.

    Args:
        code: The code that leaves the site, one of `fedrag.federation.refusal_codes.REFUSALS`.
        why: What is wrong, for the site's own log.
    """

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code
