"""The codes with which a site refuses, and what the server makes of them: no free text of a site is ever shown."""

from __future__ import annotations

import re

from flwr.app import Message

from fedrag.errors import MessageError

REFUSALS = {
    "no-examples": "it has no questions to learn from",
    "no-negatives": "it finds no hard negatives, and noise allows no others; with retriever.contrastive."
    "hard_negative_margin = 0 the best of all passages that are not labelled count",
    "diverged": "its training diverged",
    "training-process": "one of the processes that trained together there ended",
    "bad-data": "its data is malformed",
    "bad-model": "its models are missing or altered",
    "bad-request": "it could not read the request",
    "bad-delivery": "the models it was handed are not those of the scenario, or not whole",
    "deliveries-full": "it keeps as many delivered models as it may; its administrator removes old ones",
    "deadline": "the deadline passed while it trained",
    "out-of-memory": "it ran out of memory",
    "no-disk-space": "its disk is full",
    "error": "an error occurred there",
    "bad-signature": "the request's signature is not the coordinator's",
    "other-name": "it has another name than it is registered under",
    "replayed": "it had seen this request before",
    "version": "it runs another version of fedrag",
    "worker": "its worker died",
    "no-accounting": "it lacks fedrag[dp], without which nobody knows what noise protects",
    "epsilon-spent": "the epsilon of this run is spent there",
    "policy-epsilon": "its policy does not allow another round: its questions would be protected less than it asks for",
    "secure-component": "it cannot train every component of the round, as a secure sum needs",
    "secure-roster": "the roster of the secure sum does not name it with its own key",
    "secure-repeats": "it takes part in no further attempt at this round",
    "secure-superseded": "it no longer keeps what it would need for this secure sum",
    "secure-survivors": "the survivors of the secure sum are too few, not of its roster, or others than it was told",
    "secure-other-sites": "it revealed what opens a sum of this round before, and does so for the same sites alone",
    "secure-request": "what opens a sum was asked for under another run or round than the sum's",
    "secure-shares": "a sealed share of the secure sum is missing, or was altered",
    "policy-component": "its policy does not allow work on this component",
    "policy-schedule": "its policy does not allow this schedule",
    "policy-model": "its policy does not allow these base models",
    "policy-module": "its policy does not allow this module of functions, or not this source of it",
    "policy-rank": "its policy does not allow adapters of this rank, unless federation.rule is svd",
    "policy-rounds": "its policy does not allow more rounds today",
    "policy-measure": "its policy does not allow to measure models",
    "policy-minutes": "its policy does not allow more work today",
    "policy-quiet-hours": "its policy does not allow work at this time of day",
    "policy-message-size": "its policy does not allow messages this large",
    "policy-few-examples": "its policy does not allow training on so few questions",
    "policy-counts": "its policy does not allow weighting by counts, which it does not tell",
    "policy-update-norm": "its policy does not allow an update this large to leave",
    "policy-secure": "its policy lets what it has learnt leave in a secure sum alone (federation.secure)",
    "secure-sites": "its policy asks for more sites in a secure sum (secure_min_sites)",
    "secure-colluding": "its policy asks that a secure sum bears more sites on the server's side (secure_colluding)",
    "secure-peers": "its administrator has not confirmed every other site of the sum: fedrag client peers",
    "secure-peer-changed": "the key of another site of the sum is not the one that its administrator confirmed",
}
"""Codes a site may refuse with, and what they mean."""


def require_content(message: Message) -> None:
    """Raise a MessageError where the site failed or refused."""
    if message.has_error():
        # The reason is Flower's or the site's text: its first word at most, and only if it is a plain name.
        reason = (message.error.reason or "").split(":")[0].strip()
        named = reason if re.fullmatch("[A-Za-z0-9_]{1,40}", reason) else "no reason told"
        raise MessageError(f"its client failed ({named})")
    refusal = message.content.config_records.get("refusal")
    if refusal is not None:
        code = str(refusal.get("code", "error"))
        meaning = REFUSALS.get(code, REFUSALS["error"])
        error_id = str(refusal.get("error-id", ""))
        suffix = f"; error {error_id} in the site's log" if re.fullmatch(r"[0-9a-f]{8}", error_id) else ""
        raise MessageError(f"{meaning} ({code if code in REFUSALS else 'error'}{suffix})")
