"""Flower's SuperLink on loopback: with the grid over it, the only file that knows its control and runtime APIs.

They are not public interfaces of Flower: its version is pinned, and a test runs every call against a real SuperLink.
"""

from __future__ import annotations

import hashlib
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import HEARTBEAT_PATIENCE, SubStatus
from flwr.common.serde import fab_to_proto, run_from_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import (
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from fedrag import __version__
from fedrag.coordinator.patient_grid import PatientGrid
from fedrag.errors import ServiceError

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
        last_heard: When it last gave a sign of life, to a minute; ISO 8601 in UTC, or "" if it never did.
    """

    node_id: int
    name: str
    public_key: bytes
    online: bool
    last_seen: str
    last_heard: str


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
        trusted = ssl.create_default_context(cafile=str(self.ca))
        try:
            return httpx.get(f"https://{self.address}/health", verify=trusted, timeout=2.0).status_code == 200
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
                _last_heard(info),
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
        grid = PatientGrid(self.address, self.ca.read_bytes(), token)
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
            with suppress(ServiceError):
                self._clear(run_id)

    def _clear(self, run_id: int) -> None:
        """Let the messages of an ended run be deleted: Flower does so when somebody asks about it, and not before."""
        with self._control() as client:
            client.ListRuns(ListRunsRequest(run_id=run_id))

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


def _last_heard(info: NodeInfo) -> str:
    """Return when a node last gave a sign of life: Flower keeps until when it counts as online."""
    if info.status != "online":
        return str(info.last_deactivated_at)  # signed off, or silent for a minute
    heard = info.online_until - HEARTBEAT_PATIENCE * info.heartbeat_interval
    return datetime.fromtimestamp(heard, UTC).isoformat(timespec="seconds")


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
