"""How a site takes part in a secure sum: it masks its reply once a context, and reveals once what opens the sum."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Message, RecordDict

from fedrag.config.scenario import Config
from fedrag.errors import ConfigError, MessageError
from fedrag.federation.messages import TRAIN, Reply, Request
from fedrag.federation.secure_messages import (
    content_from_bytes,
    content_to_bytes,
    context_of,
    masked_content,
    open_reveal,
    revealed_content,
    terms_of,
)
from fedrag.federation.secure_vector import train_layout, train_vector, validation_layout, validation_vector
from fedrag.secure_sum.agreement import KEY_BYTES
from fedrag.secure_sum.masking import mask, reveal
from fedrag.secure_sum.refused import SecureSumRefused
from fedrag.secure_sum.roster import MIN_SITES
from fedrag.secure_sum.sum_terms import Terms, threshold
from fedrag.seeding import derive_seed
from fedrag.site.agreement_key import read_agreement_key
from fedrag.site.client_folder import SECURE
from fedrag.site.secure_store import SecureStore
from fedrag.weights.store import fedrag_home

KEY_FILE = "agreement-key-file"
SIMULATED_KEY = "agreement-key"


@dataclass(frozen=True, slots=True)
class SecureLimits:
    """What a site bounds for itself.

    Attributes:
        min_sites: Fewest survivors of a sum to which it reveals.
        repeats: How often it masks a round again that was lost; None: as often as the scenario says.
    """

    min_sites: int = MIN_SITES
    repeats: int | None = None


@dataclass(frozen=True, slots=True)
class SecureRound:
    """One request whose reply a site masks.

    Attributes:
        name: The site's name.
        kind: Message type of the request.
        config: The scenario.
        terms: What all sites of the sum were told.
        context: Its context.
        store: What the site keeps of its sums.
        limits: Its own bounds.
        node_config: Where its agreement key is.
    """

    name: str
    kind: str
    config: Config
    terms: Terms
    context: bytes
    store: SecureStore
    limits: SecureLimits
    node_config: Mapping[str, object]

    def answered(self, request: Request) -> RecordDict | None:
        """Return the reply that left before, bit for bit; None: the site may mask one now.

        Raises:
            SecureSumRefused: The roster is too small, the round was masked as often as it may be, or the roster lacks a
                site for whose sum in this round the site revealed before.
        """
        settings, members = self.config.federation, self.terms.roster.members
        if (kept := self.store.reply(self.terms.run, self.kind, self.context)) is not None:
            return content_from_bytes(kept)
        if len(members) < max(MIN_SITES, self.limits.min_sites):
            raise SecureSumRefused("secure-survivors", f"a roster of {len(members)} sites is too small")
        if self.terms.threshold < threshold(len(members), settings.secure_colluding):
            raise SecureSumRefused("secure-survivors", "the threshold is lower than the scenario needs")
        repeats = min(settings.secure_repeats, settings.secure_repeats if (own := self.limits.repeats) is None else own)
        self.store.require_left(self.terms.run, self.kind, request.round_number, 1 + repeats)
        names = self.terms.roster.names
        self.store.require_same_sites(self.terms.run, self.kind, request.round_number, names, exactly=False)
        return None

    def masked(self, request: Request, reply: Reply) -> RecordDict:
        """Return a reply behind masks; it is kept before it leaves, so that no other is masked under its context.

        Raises:
            SecureSumRefused: The reply lacks a component of the request, or a difference of one is nothing but zeros:
                in the sum the others would hide among fewer sites than they were told.
        """
        settings, sites = self.config.federation, len(self.terms.roster.members)
        if self.kind == TRAIN:
            if not all(c in reply.update and reply.update[c].any() for c in request.components):
                raise SecureSumRefused("secure-component", "it trained not every component of the round")
            layout = train_layout(settings, request, sites)
            vector = train_vector(settings, request, reply, layout, self._chance(request))
        else:
            if not all(reply.metrics.get(f"{component}.count", 0.0) >= 1 for component in request.components):
                raise SecureSumRefused("secure-component", "it has not a validation question for every component")
            layout = validation_layout(request, sites)
            vector = validation_vector(request, reply, layout, self._chance(request))
        key = agreement_key(self.node_config)
        masked, kept = mask(vector, layout, self.name, key, self.terms, self.context)
        content = masked_content(masked, self.terms, self.name)
        self.store.keep(self.terms.run, self.kind, request.round_number, kept, content_to_bytes(content))
        return content

    def _chance(self, request: Request) -> bytes:
        """Return 32 bytes from which the directions of rounding are drawn: the system's, but in a simulation a seed's.

        A simulation hides nothing from the one who runs it; there the same scenario is to give the same bits.
        """
        if SIMULATED_KEY not in self.node_config:
            return secrets.token_bytes(KEY_BYTES)
        seed = derive_seed(self.config.seed, request.round_number, self.name, "secure rounding", self.kind)
        return hashlib.sha256(str(seed).encode()).digest()


def secure_round(
    message: Message, name: str, config: Config, node_config: Mapping[str, object], limits: SecureLimits
) -> SecureRound | None:
    """Return how a request is to be answered in a secure run; None where its reply goes as it is.

    Raises:
        MessageError: The scenario is of a secure run and the request has no terms, or the other way round.
    """
    terms = terms_of(message.content)
    if (terms is not None) != config.federation.secure:
        raise MessageError("a request has terms of a secure sum where its scenario has none, or lacks them")
    if terms is None:
        return None
    kind = message.metadata.message_type
    context = context_of(message.content, kind, terms)
    store = SecureStore(secure_folder(node_config))
    return SecureRound(name, kind, config, terms, context, store, limits, node_config)


def answer_reveal(message: Message, node_config: Mapping[str, object], limits: SecureLimits) -> RecordDict:
    """Return what opens the sum of the survivors that the coordinator names; once a context, whatever it asks again.

    Args:
        message: The request.
        node_config: Where the site's sums are kept, and the run that the signed request names; a simulation, in which
            nothing is signed, names none.
        limits: The site's own bounds.

    Raises:
        SecureSumRefused: The site does not reveal this.
        MessageError: The request is malformed.
    """
    request = open_reveal(message.content)
    store = SecureStore(secure_folder(node_config))
    of = store.sum_of(request.context)
    if (node_config.get("run", of.run), message.metadata.group_id) != (of.run, str(of.round_number)):
        raise SecureSumRefused("secure-request", f"the sum is of round {of.round_number} of {of.run}")
    if (kept := store.revealed(of, request.context, request.survivors)) is not None:
        return content_from_bytes(kept)
    store.require_same_sites(of.run, of.kind, of.round_number, request.survivors, exactly=True)
    content = revealed_content(reveal(store.open_round(of, request.context), request, limits.min_sites))
    store.keep_revealed(of, request.context, request.survivors, content_to_bytes(content))
    return content


def secure_folder(node_config: Mapping[str, object]) -> Path:
    """Return the folder of a site's secure sums."""
    cache = node_config.get("site-cache") or fedrag_home() / "sites" / str(node_config.get("site-name", ""))
    return Path(str(cache)) / SECURE


def agreement_key(node_config: Mapping[str, object]) -> bytes:
    """Return the site's private agreement key: that of a file, or in a simulation the one it was given.

    Raises:
        ConfigError: There is none, or it is not 64 hexadecimal characters.
    """
    if KEY_FILE in node_config:
        return read_agreement_key(Path(str(node_config[KEY_FILE])))
    try:
        key = bytes.fromhex(str(node_config.get(SIMULATED_KEY, "")))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"the node configuration: expected an agreement key, {2 * KEY_BYTES} hexadecimal digits")
    return key


def simulated_agreement_key(name: str) -> str:
    """Return the agreement key of a simulated site: always the same, so that a run that is resumed goes on."""
    return hashlib.sha256(f"fedrag simulated agreement key of {name}".encode()).hexdigest()
