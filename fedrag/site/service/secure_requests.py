"""What a site's node does for secure sums around the worker's answer: peers, the terms of a sum, what the log tells."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from flwr.app import Message, RecordDict

from fedrag.federation.greeting import PEERS, with_agreement
from fedrag.federation.secure_messages import REVEAL, open_reveal, terms_of
from fedrag.federation.signing import Slip
from fedrag.secure_sum.sum_terms import survivors_digest
from fedrag.site.agreement_key import own_member, own_public
from fedrag.site.egress import SUM_OF, SURVIVORS
from fedrag.site.peers import read_peers, receive_peers
from fedrag.site.secure_policy import SumRefusal, refusal_of_sum
from fedrag.site.site_config import SiteConfig


def introduced(
    folder: Path, config: SiteConfig, key: EllipticCurvePrivateKey, message: Message, greeting: RecordDict
) -> RecordDict:
    """Note the other sites that a greeting tells of, and return the reply with the site's own agreement key.

    Args:
        folder: The site's folder.
        config: Its site.toml.
        key: Its private signing key.
        message: The greeting.
        greeting: The reply, or a refusal, which stays as it is.

    Raises:
        MessageError: What is told of the other sites cannot be read.
    """
    told = message.content.config_records.get(PEERS)
    if told is not None:
        receive_peers(folder, told, config.name)
    return greeting if "refusal" in greeting else with_agreement(greeting, own_member(config, key))


def refusal_of_terms(folder: Path, config: SiteConfig, message: Message, run: str) -> SumRefusal:
    """Return why the site takes no part in the sum that a request asks for; an empty one where it does, or need not.

    Raises:
        MessageError: The terms are malformed.
    """
    terms = terms_of(message.content)
    if terms is None:
        return SumRefusal()
    return refusal_of_sum(config.policy, terms, run, (config.name, own_public(config)), read_peers(folder))


def whose_sum(asked: Message, slip: Slip | None, content: RecordDict) -> dict[str, str]:
    """Return for the log whose sum a reply helps to open, and the hash of them; nothing where it opens none.

    Args:
        asked: The request.
        slip: What is signed with it; None where nothing was.
        content: The reply.
    """
    if slip is None or slip.kind != REVEAL or "refusal" in content:
        return {}
    request = open_reveal(asked.content)
    return {
        SURVIVORS: survivors_digest(request.context, request.survivors),
        SUM_OF: ", ".join(sorted(request.survivors)),
    }
