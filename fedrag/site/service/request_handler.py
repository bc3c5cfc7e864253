"""How a site answers a message: verify its signature, check it against the policy, let the worker answer it.

Every reply is written to the egress log before it is signed and sent.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from flwr.app import Message, RecordDict

from fedrag import __version__
from fedrag.components.base_models import base_tensor_hashes
from fedrag.config.scenario import Config
from fedrag.data.site_folder import load_site
from fedrag.errors import ConfigError, FedragError, SignatureError
from fedrag.federation.greeting import minor_version
from fedrag.federation.messages import (
    DELIVER,
    GREET,
    TRAIN,
    VALIDATE,
    Reply,
    Request,
    content_bytes,
    open_request,
    reply_content,
)
from fedrag.federation.secure_messages import REVEAL, terms_of
from fedrag.federation.signing import Slip, verified_slip, with_signature, without_signature
from fedrag.security.keys import load_private_key
from fedrag.security.module_source import source_sha256
from fedrag.site.agreement_key import agreement_file
from fedrag.site.egress import EGRESS_FILE, EgressLog
from fedrag.site.policy import RequestedWork, fewest_questions, is_too_large, refusal_of_request
from fedrag.site.refusal import DeadlinePassed, refusal_code
from fedrag.site.service.replay import ReplayGuard
from fedrag.site.service.secure_requests import introduced, refusal_of_terms, whose_sum
from fedrag.site.service.worker import Worker, WorkerDied
from fedrag.site.site_config import SITE_FILE, Policy, SiteConfig
from fedrag.site.site_keys import trusted_key
from fedrag.site.work_ledger import LEDGER_FILE, SYSTEM_CLOCK, Clock, WorkKind, WorkLedger
from fedrag.site.work_meter import PolicyEndsWork, WorkMeter
from fedrag.types import COMPONENTS

log = logging.getLogger("fedrag.node")

ANSWERED = (GREET, TRAIN, VALIDATE, REVEAL, DELIVER)
"""The kinds of requests that a site answers."""

REVEAL_S = 300.0
"""How long a worker may take to reveal what opens a sum: it loads no model, but may have to start."""


class Superseded(Exception):
    """The work was cancelled because nobody waits for it any more."""


class RequestHandler:
    """Answers messages, one at a time.

    Args:
        folder: The site's folder.
        config: Its site.toml.
        clock: Tells the time to the policy.
    """

    def __init__(self, folder: Path, config: SiteConfig, clock: Clock = SYSTEM_CLOCK) -> None:
        self._folder = folder
        self._config = config
        self._key = load_private_key(Path(config.private_key))
        self._egress = EgressLog(folder / EGRESS_FILE)
        self._ledger = WorkLedger(folder / LEDGER_FILE)
        self._clock = clock
        self._replay_guard = ReplayGuard(folder / "requests.jsonl")
        node_config = {"site-name": config.name, "site-folder": config.data, "site-cache": str(folder)}
        node_config["agreement-key-file"] = str(agreement_file(config))
        self._worker = Worker(folder / SITE_FILE, node_config)

    def slip_of(self, message: Message) -> Slip | None:
        """Return the slip that the coordinator signed; None if the message is from someone else."""
        try:
            return verified_slip(message.content, "request", self._coordinator_key())
        except SignatureError:
            return None

    def _coordinator_key(self) -> EllipticCurvePublicKey:
        """Return the coordinator's key, read again each time: it may have handed over to another meanwhile."""
        try:
            return trusted_key(self._config)
        except ConfigError as error:
            raise SignatureError(str(error)) from None

    def is_replay(self, slip: Slip) -> bool:
        """Return whether a request was accepted before, or is too old to tell."""
        return self._replay_guard.refuses(slip.request, slip.time)

    def answer(self, message: Message, again: bool = False, cancelled: threading.Event | None = None) -> Message:
        """Return the signed reply to a message; any error becomes a refusal code.

        Args:
            message: The message.
            again: Whether the site accepted it before and never answered it.
            cancelled: Set by another thread before it interrupts the work.

        Raises:
            Superseded: The work was cancelled.
            StorageError: The egress log could not be written, so nothing may leave.
        """
        started = time.monotonic()
        slip: Slip | None = None
        try:
            slip = verified_slip(message.content, "request", self._coordinator_key())
            content = self._content(message, slip, again, cancelled or threading.Event())
            if is_too_large(self._config.policy, content_bytes(content)):
                content = self._refusal("policy-message-size", "its reply")
        except SignatureError as error:
            content = self._refusal("bad-signature", error)
        except Superseded:
            raise
        except PolicyEndsWork as end:
            content = self._refusal(end.code, "the policy ended the work")
        except Exception as error:  # its text stays in the site's log
            content = self._refusal(refusal_code(error), error)
        return self._signed(message, slip, content, time.monotonic() - started)

    def refuse(self, message: Message, code: str, reason: str) -> Message:
        """Return the signed refusal of a message that was not opened.

        Raises:
            StorageError: The egress log could not be written, so nothing may leave.
        """
        return self._signed(message, None, self._refusal(code, reason), 0.0)

    def _signed(self, message: Message, slip: Slip | None, content: RecordDict, seconds: float) -> Message:
        """Log a reply, then sign it."""
        run, request, kind = (slip.run, slip.request, slip.kind) if slip else ("", "", message.metadata.message_type)
        answered = Slip("reply", run, request, self._config.name, kind, __version__, time.time())
        told = whose_sum(message, slip, content)
        self._egress.write(content, answered, message.metadata.group_id, seconds, asked=told)
        return Message(with_signature(content, answered, self._key), reply_to=message)

    def log_again(self, reply: Message, asked: Message) -> None:
        """Log that a reply, which was logged before, leaves once more.

        Args:
            reply: The reply.
            asked: The request that it answers.

        Raises:
            StorageError: The egress log cannot be written; the reply must not be sent.
        """
        slip = verified_slip(reply.content, "reply", self._key.public_key())
        content = without_signature(reply.content)
        again = replace(slip, time=time.time())
        told = whose_sum(asked, slip, content)
        self._egress.write(content, again, reply.metadata.group_id, 0.0, again=True, asked=told)

    def interrupt(self) -> None:
        """End the worker and its current work; called from another thread."""
        self._worker.end()

    def _content(self, message: Message, slip: Slip, again: bool, cancelled: threading.Event) -> RecordDict:
        if code := self._refusal_by_slip(message, slip, again):
            return self._refusal(code, f"{slip.kind} of {slip.run}, for {slip.site}, by fedrag {slip.version}")
        work = _work_of(message)
        limits = self._config.policy if work else Policy()  # a greeting or a delivery is charged, and not ended
        with WorkMeter(limits, self._ledger, self._clock) as meter:
            if is_too_large(self._config.policy, content_bytes(message.content)):
                return self._refusal("policy-message-size", f"the {slip.kind} of {slip.run}")
            if slip.kind == REVEAL:
                log.info("%s, %s", slip.run, slip.kind)
                return self._answered(message, slip.run, REVEAL_S, cancelled, meter)
            request = open_request(message)
            if code := self._refusal_by_policy(message, request, work, slip.request):
                return self._refusal(code, f"round {request.round_number} of {slip.run}")
            refusal = refusal_of_terms(self._folder, self._config, message, slip.run)
            if refusal.code:
                return self._refusal(refusal.code, refusal.why)
            log.info("%s, %s, round %d", slip.run, slip.kind, request.round_number)
            if work:
                self._ledger.begin(work, slip.request, self._clock.now())
            content = self._answered(message, slip.run, request.deadline_s, cancelled, meter)
            if slip.kind != GREET:
                return content
            return introduced(self._folder, self._config, self._key, message, content)

    def _refusal_by_slip(self, message: Message, slip: Slip, again: bool) -> str:
        """Return why a signed message is refused before it is opened: another site, a replay, a version; "" if not."""
        if slip.kind != message.metadata.message_type:
            return "bad-signature"
        if slip.kind not in ANSWERED:
            return "bad-request"
        if slip.site != self._config.name:
            return "other-name"
        if not self._replay_guard.accept(slip.request, slip.time) and not again:
            return "replayed"
        return "" if minor_version(slip.version) == minor_version(__version__) else "version"

    def _refusal_by_policy(self, message: Message, request: Request, work: WorkKind | None, request_id: str) -> str:
        config = Config.from_toml(request.scenario)
        asked = RequestedWork(
            config,
            COMPONENTS if work == "diagnose" else request.components,  # a diagnosis runs both models
            base_hashes=base_tensor_hashes(config),
            train_questions=fewest_questions(load_site(Path(self._config.data)), request.components, config),
            work=work,
            own_sha256=_own_sha256(config, self._config.policy),
            is_masked=config.federation.secure and terms_of(message.content) is not None,
        )
        now = self._clock.now()
        return refusal_of_request(self._config.policy, asked, self._ledger.of(now, request_id), now)

    def _answered(
        self, message: Message, run: str, deadline_s: float, cancelled: threading.Event, meter: WorkMeter
    ) -> RecordDict:
        """Let the worker answer; if it dies, let a new worker try once more."""
        for again in (False, True):
            if cancelled.is_set():
                raise Superseded
            try:
                content = self._worker.answer(message, run, deadline_s, meter.check)
                if message.metadata.message_type == DELIVER:
                    self._worker.end()  # the run is over: its models leave the memory to who measures the new ones
                return content
            except DeadlinePassed:
                return self._refusal("deadline", "the worker missed its deadline and was ended")
            except WorkerDied:
                if cancelled.is_set():
                    raise Superseded from None
                log.error("the worker died%s", "" if again else "; another one tries again")
        return self._refusal("worker", "the worker died twice")

    def _refusal(self, code: str, reason: object) -> RecordDict:
        error_id = secrets.token_hex(4)
        unforeseen = reason if isinstance(reason, Exception) and not isinstance(reason, FedragError) else None
        log.error("refused with %s (%s): %s", code, error_id, reason, exc_info=unforeseen)
        return reply_content(Reply(refusal=code, error_id=error_id), {}, "float32")


def _work_of(message: Message) -> WorkKind | None:
    """Return what kind of work a message asks for, by its type, whatever it names; None: a greeting or a delivery."""
    if message.metadata.message_type == TRAIN:
        return "train"
    if message.metadata.message_type == VALIDATE:
        request = message.content.config_records.get("request")
        return "validate" if request and request.get("components") else "diagnose"
    return None


def _own_sha256(config: Config, policy: Policy) -> str:
    """Return the hash of a module that the policy names; no other is even looked for."""
    if config.own.module not in policy.own_modules:
        return ""
    try:
        return source_sha256(config.own.module)
    except ConfigError:
        return ""
