"""Flower's SuperLink on loopback: the only file that knows its control and runtime APIs.

They are not public interfaces of Flower: its version is pinned, and a test runs every call against a real SuperLink.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from flwr.app import Error, Message, Metadata
from flwr.app.message.message import make_message
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode, SubStatus
from flwr.common.serde import fab_to_proto, run_from_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.message_pb2 import Metadata as ProtoMetadata
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
)
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE, TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectUnavailableError
from flwr.supercore.interceptors import (
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from fedrag import __version__
from fedrag.errors import MessageError, ServiceError
from fedrag.federation.arriving import ANSWERS_ANOTHER, UNREADABLE, ArrivingMessage
from fedrag.federation.reply_limit import limit_of

BAD_REPLY = ErrorCode.MOD_FAILED_PRECONDITION
"""Code of the error that stands for a reply which no honest site sends; Flower itself never uses it here."""
ACQUIRE_POLL_S = 0.2
AWAY_POLL_S = 0.5
ACQUIRE_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class RegisteredNode:
    """A registered node as the SuperLink knows it.

    Attributes:
        node_id: Its address: never shown.
        name: The name it was registered under.
        public_key: Its key, as bytes of Flower's encoding.
        online: Whether its heartbeat is recent.
        last_seen: When it went online or, if it is offline now, offline; ISO 8601, or "" if it was never online.
    """

    node_id: int
    name: str
    public_key: bytes
    online: bool
    last_seen: str


class PatientGrid(HttpGrid):
    """A grid that does not wait for a reply that has arrived only in part, and that no reply brings down.

    Flower's own grid blocks until the site has sent the rest. A site that died, or means harm, never does, and all
    other replies would wait with it. What cannot be read becomes an error with the code `BAD_REPLY`.
    """

    def __init__(self, link: SuperLink, token: str) -> None:
        super().__init__(link.address, root_certificates=link.ca.read_bytes(), token=token)
        self._limits: dict[str, int] = {}
        self._arriving: dict[str, ArrivingMessage] = {}
        self._from_superlink: set[str] = set()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages; the group of each tells how large its reply may be."""
        pushed = list(messages)
        ids = list(super().push_messages(pushed))
        self._limits |= {i: limit_of(m.metadata.group_id) for i, m in zip(ids, pushed, strict=True)}
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that have arrived completely."""
        wanted = list(message_ids)
        if unknown := [message_id for message_id in wanted if message_id not in self._arriving]:
            found = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=unknown))
            for head in found.messages_list:
                self._begin(head.metadata)
        replies = [self._whole(message_id) for message_id in wanted if message_id in self._arriving]
        return [reply for reply in replies if reply is not None]

    def _begin(self, head: ProtoMetadata) -> None:
        """Note a reply whose head has arrived; the SuperLink has checked who sent it, and what it answers."""
        asked = head.reply_to_message_id
        if asked in self._limits:
            self._arriving[asked] = ArrivingMessage(head.message_id, self._limits[asked])
            if head.src_node_id == SUPERLINK_NODE_ID:
                self._from_superlink.add(asked)

    def _whole(self, message_id: str) -> Message | None:
        """Fetch what has arrived of a reply; return it once it is complete."""
        arriving = self._arriving[message_id]
        run_id = self.run.run_id
        pull = make_pull_object_fn_protobuf(self._runtime_client.PullObject, self.node, run_id)
        try:
            arriving.fetch(pull)
            reply = self._checked(arriving.message(), message_id)
        except ObjectUnavailableError:
            return None
        except ObjectPullError:
            reply = _error(run_id, message_id, ErrorCode.MESSAGE_UNAVAILABLE, "reply_is_incomplete")
        except MessageError as error:
            reply = _error(run_id, message_id, BAD_REPLY, f"reply_{error}")
        del self._arriving[message_id]
        self._from_superlink.discard(message_id)
        self._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=self.node, run_id=run_id, message_object_id=arriving.message_id)
        )
        return reply

    def _checked(self, reply: Message, message_id: str) -> Message:
        """Return a reply that is what its head says.

        Raises:
            MessageError: It answers another message, or a site sent an error, which ours never do.
        """
        if reply.metadata.reply_to_message_id != message_id:
            raise MessageError(ANSWERS_ANOTHER)
        if reply.has_error() and message_id not in self._from_superlink:
            raise MessageError(UNREADABLE)
        return reply


def _error(run_id: int, message_id: str, code: int, reason: str) -> Message:
    """Return the error that stands for a reply to a message."""
    metadata = Metadata(
        run_id=run_id,
        message_id="",
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=SUPERLINK_NODE_ID,
        reply_to_message_id=message_id,
        group_id="",
        created_at=time.time(),
        ttl=0,
        message_type=SYSTEM_MESSAGE_TYPE,
    )
    return make_message(metadata, error=Error(code, reason))


@dataclass(frozen=True, slots=True)
class SuperLink:
    """Address and credentials of the SuperLink.

    Attributes:
        address: Such as "127.0.0.1:8443".
        ca: The coordinator's own certificate authority.
        secret: File of the secret that lets a process take tasks.
    """

    address: str
    ca: Path
    secret: Path

    def is_ready(self) -> bool:
        """Return whether it answers."""
        try:
            return httpx.get(f"https://{self.address}/health", verify=str(self.ca), timeout=2.0).status_code == 200
        except httpx.HTTPError:
            return False

    def wait_until_ready(self) -> None:
        """Wait until it answers, however long: the service restarts it."""
        while not self.is_ready():
            time.sleep(AWAY_POLL_S)

    def register(self, name: str, key: EllipticCurvePublicKey) -> None:
        """Register a node by its key; do nothing where it is registered already."""
        known = {node.public_key for node in self.nodes()}
        encoded = public_key_to_bytes(key)
        if encoded not in known:
            with self._control() as client:
                client.RegisterNode(RegisterNodeRequest(public_key=encoded, name=name))

    def unregister(self, key: EllipticCurvePublicKey) -> None:
        """Unregister a node; its key is never accepted again."""
        encoded = public_key_to_bytes(key)
        for node in self.nodes():
            if node.public_key == encoded:
                with self._control() as client:
                    client.UnregisterNode(UnregisterNodeRequest(node_id=node.node_id))

    def nodes(self) -> list[RegisteredNode]:
        """Return the registered nodes, online or not."""
        with self._control() as client:
            infos = client.ListNodes(ListNodesRequest()).nodes_info
        return [
            RegisteredNode(
                info.node_id,
                info.name,
                info.public_key,
                info.status == "online",
                info.last_activated_at if info.status == "online" else info.last_deactivated_at,
            )
            for info in infos
            if info.status != "unregistered"
        ]

    def stop_run(self, run_id: int) -> None:
        """Stop a run of Flower's, if it is still in progress."""
        try:
            with self._control() as client:
                client.StopRun(StopRunRequest(run_id=run_id))
        except ServiceError:
            return  # it had ended

    def start_run(self) -> int:
        """Begin a run of Flower's and return its id."""
        content = _bundle()
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        with self._control() as client:
            reply = client.StartRun(StartRunRequest(fab=fab_to_proto(fab)))
        if not reply.HasField("run_id"):
            raise ServiceError("Flower's SuperLink did not start the run; its log says why")
        return int(reply.run_id)

    @contextmanager
    def grid(self, run_id: int) -> Iterator[PatientGrid]:
        """Take over a run as the process of its rounds, and yield its grid.

        The run ends with the block, whatever happens in it.
        """
        token = self._acquire(run_id)
        grid = PatientGrid(self, token)
        client = grid._runtime_client
        heartbeat = HeartbeatSender(make_task_heartbeat_fn_http(client))
        heartbeat.start()
        outcome = PushTaskOutputRequest(
            sub_status=SubStatus.FAILED, details=""
        )  # no text of ours: sites can ask for it
        try:
            given = client.PullTaskInput(PullTaskInputRequest())
            TaskIdentity.task_id = given.task_id
            TaskIdentity.run_id = given.run.run_id
            TaskIdentity.node_id = given.context.node_id
            grid.set_run(run_from_proto(given.run))
            yield grid
            outcome.sub_status = SubStatus.COMPLETED
        finally:
            heartbeat.stop()
            grid._retry_invoker.max_tries = 1  # at the end nothing waits for a SuperLink that is gone
            try:
                client.PushTaskOutput(outcome)
            except httpx.HTTPError as error:
                print(f"the SuperLink was not told that the run ended: {error}", file=sys.stderr)  # noqa: T201  # a process's log
            grid.close()

    def _acquire(self, run_id: int) -> str:
        """Take the task of a run and return its token."""
        client = RuntimeHttpClient.from_server_address(
            self.address,
            insecure=False,
            root_certificates=self.ca.read_bytes(),
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                SuperExecAuthHttpInterceptor(
                    master_secret=self.secret.read_bytes(), protected_methods={"/flwr.proto.Runtime/AcquireTask"}
                ),
            ],
            retry_invoker=make_simple_http_retry_invoker(),
        )
        end = time.monotonic() + ACQUIRE_TIMEOUT_S
        try:
            while time.monotonic() < end:
                found = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
                if found.token and found.task.run_id == run_id:
                    return str(found.token)
                if not found.token:  # a token of another run, which nobody took over; left to expire
                    time.sleep(ACQUIRE_POLL_S)
        finally:
            client.close()
        raise ServiceError(f"Flower's SuperLink gave no task for the run within {ACQUIRE_TIMEOUT_S:g} s")

    @contextmanager
    def _control(self) -> Iterator[ControlHttpClient]:
        client = ControlHttpClient.from_server_address(
            self.address,
            insecure=False,
            root_certificates=self.ca.read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )
        try:
            yield client
        except httpx.HTTPError as error:
            raise ServiceError(
                f"Flower's SuperLink does not answer at {self.address} as it should ({error}); "
                "is `fedrag server start` running? If it is, its log says more: logs/superlink.log"
            ) from None
        finally:
            client.close()


def superlink_command(link: SuperLink, certificate: Path, key: Path, database: Path) -> list[str]:
    """Return the command that runs a SuperLink on loopback: TLS, node authentication, SQLite."""
    host, port = link.address.rsplit(":", 1)
    return [
        *(sys.executable, "-m", "fedrag.coordinator.gated_superlink"),
        *("--host", host, "--port", port),
        *("--ssl-ca-certfile", str(link.ca), "--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)),
        "--enable-supernode-auth",
        *("--database", str(database)),
        *("--isolation", "process", "--superexec-auth-secret-file", str(link.secret)),
        "--disable-runtime-dependency-installation",
    ]


def _bundle() -> bytes:
    """Return the bundle that a run of Flower's must have. Nobody runs it: each side runs what is installed there."""
    app = {"publisher": "fedrag", "components": {"serverapp": "server.app:app", "clientapp": "clients.app:app"}}
    project = {"name": "fedrag", "version": __version__, "dependencies": []}
    files = {
        "pyproject.toml": tomli_w.dumps({"project": project, "tool": {"flwr": {"app": app}}}).encode(),
        "server/app.py": b"",
        "clients/app.py": b"",
    }
    return build_fab_from_files(files)[0]
