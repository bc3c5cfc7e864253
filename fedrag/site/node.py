"""A site's node: `python -m fedrag.site.node DIR`. It alone holds the key and speaks with the coordinator.

What comes in is verified before anything else is looked at, then held against the policy; what goes out is
written to the egress log, then signed. The work in between is done by the worker, which has no connection.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import time
from datetime import datetime
from pathlib import Path

from flwr.app import Message, RecordDict

from fedrag import __version__
from fedrag.config import Config
from fedrag.data.site_folder import load_site
from fedrag.errors import FedragError, SignatureError, StorageError
from fedrag.federation.messages import VALIDATE, Reply, Request, array_bytes, minor_version, open_request, reply_content
from fedrag.federation.signing import Slip, verified_slip, with_signature
from fedrag.models.needed import base_tensor_hashes
from fedrag.security.keys import load_private_key, load_public_key
from fedrag.site.connection import connect
from fedrag.site.egress import EGRESS_FILE, EgressLog, read_egress
from fedrag.site.policy import ledger_of, refusal_of_request
from fedrag.site.seen import SeenRequests
from fedrag.site.site_config import SiteConfig
from fedrag.site.worker import DeadlinePassed, Worker, WorkerDied
from fedrag.supervision import Stop, stop_on_signals

POLL_S = 1.0

log = logging.getLogger("fedrag.node")


class Desk:
    """Answers messages, one at a time.

    Args:
        folder: The site's folder.
        config: Its site.toml.
    """

    def __init__(self, folder: Path, config: SiteConfig) -> None:
        self._folder = folder
        self._config = config
        self._key = load_private_key(Path(config.private_key))
        self._coordinator = load_public_key(Path(config.coordinator_key))
        self._egress = EgressLog(folder / EGRESS_FILE)
        self._seen = SeenRequests(folder / "requests.jsonl")
        node_config = {
            "site-name": config.name,
            "site-folder": config.data,
            "site-cache": str(folder),
        }
        self.worker = Worker(folder / "site.toml", node_config)

    def answer(self, message: Message) -> Message:
        """Return the signed reply to a message; whatever goes wrong becomes a refusal code."""
        started = time.monotonic()
        slip: Slip | None = None
        try:
            slip = verified_slip(message.content, "request", self._coordinator)
            content = self._content(message, slip)
        except SignatureError as error:
            content = self._refusal("bad-signature", error)
        except Exception as error:  # its text stays here
            content = self._refusal("error", error)
        run, request, kind = (slip.run, slip.request, slip.kind) if slip else ("", "", message.metadata.message_type)
        answered = Slip("reply", run, request, self._config.name, kind, __version__, time.time())
        self._egress.write(content, answered, message.metadata.group_id, time.monotonic() - started)
        return Message(with_signature(content, answered, self._key), reply_to=message)

    def _content(self, message: Message, slip: Slip) -> RecordDict:
        if refused := self._refused_unread(message, slip):
            return refused
        request = open_request(message)
        code = self._refused_by_policy(message, request)
        if code:
            return self._refusal(code, f"round {request.round_number} of {slip.run}")
        log.info("%s, %s, round %d", slip.run, slip.kind, request.round_number)
        return self._worked(message, slip.run, request.deadline_s)

    def _refused_unread(self, message: Message, slip: Slip) -> RecordDict | None:
        """Refuse what is signed but not meant for this site, now, by this version."""
        if slip.site != self._config.name or slip.kind != message.metadata.message_type:
            return self._refusal("bad-signature", f"the request is for {slip.site} and of kind {slip.kind}")
        if not self._seen.is_new(slip.request, slip.time):
            return self._refusal("replayed", f"request {slip.request} of run {slip.run}")
        if minor_version(slip.version) != minor_version(__version__):
            return self._refusal("version", f"the coordinator runs fedrag {slip.version}, this site {__version__}")
        return None

    def _refused_by_policy(self, message: Message, request: Request) -> str:
        config = Config.from_toml(request.scenario)
        now = datetime.now().astimezone()
        return refusal_of_request(
            self._config.policy,
            components=request.components,
            config=config,
            base_hashes=base_tensor_hashes(config),
            train_questions=len(load_site(Path(self._config.data)).train),
            message_bytes=array_bytes(message.content),
            now=now,
            ledger=ledger_of(read_egress(self._folder / EGRESS_FILE), now),
            validates=message.metadata.message_type == VALIDATE,
        )

    def _worked(self, message: Message, run: str, deadline_s: float) -> RecordDict:
        """Let the worker answer; one that died gets the message once more."""
        for again in (False, True):
            try:
                return self.worker.answer(message, run, deadline_s)
            except DeadlinePassed:
                return self._refusal("deadline", "the worker did not end in time and was ended")
            except WorkerDied:
                log.error("the worker died%s", "" if again else "; another one tries again")
        return self._refusal("worker", "the worker died twice")

    def _refusal(self, code: str, reason: object) -> RecordDict:
        error_id = secrets.token_hex(4)
        foreseen = not isinstance(reason, Exception) or isinstance(reason, FedragError)
        log.error("refused with %s (%s): %s", code, error_id, reason, exc_info=None if foreseen else reason)  # type: ignore[arg-type]
        return reply_content(Reply(refusal=code, error_id=error_id), {}, "float32")


def main(folder: Path) -> None:
    """Serve a site until told to end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=sys.stdout)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = SiteConfig.from_file(folder / "site.toml")
    if config.proxy:
        os.environ["HTTPS_PROXY"] = config.proxy
    desk = Desk(folder, config)
    stop_on_signals()
    try:
        with connect(config.server, Path(config.ca), load_private_key(Path(config.private_key))) as coordinator:
            log.info("connected to %s as %s", config.server, config.name)
            while True:
                message = coordinator.receive()
                if message is None:
                    time.sleep(POLL_S)
                    continue
                started = time.monotonic()
                try:
                    reply = desk.answer(message)
                except StorageError as error:
                    log.error("nothing was sent: what leaves is written down first, and that failed: %s", error)
                else:
                    coordinator.send(reply, time.monotonic() - started)
    except Stop:
        log.info("the node ends")
    finally:
        desk.worker.end()


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
