"""A real deployment on loopback for tests: a coordinator and sites, each the processes that an operator starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ports import free_ports

from fedrag.config.scenario import Config
from fedrag.coordinator.jobs import begin_run, resume_run, stop_run
from fedrag.coordinator.outcome import Outcome, read_outcome
from fedrag.coordinator.server_folder import ServerConfig, ServerFolder
from fedrag.files import write_text
from fedrag.runs.run_folder import RunFolder
from fedrag.site.client_folder import create_site

FEDRAG = Path(sys.executable).with_name("fedrag")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
PATIENCE = 3.0
"""So many times longer than on an idle machine is waited for what must come; it costs only where it does not come."""


class Deployment:
    """A coordinator and its sites, from empty folders to processes that run.

    Args:
        root: Takes all folders.
        sites: Data folder of each site, by name.
        homes: A FEDRAG_HOME of its own for some of them.
    """

    def __init__(self, root: Path, sites: Mapping[str, Path], homes: Mapping[str, Path] | None = None) -> None:
        self.root = root
        self._homes = homes or {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        port, superlink_port = free_ports(2)
        config = ServerConfig(name="127.0.0.1", listen="127.0.0.1", port=port, superlink_port=superlink_port)
        self.server = ServerFolder.create(root / "server", config)
        self.server = ServerFolder.open(root / "server")
        for name, data in sites.items():
            self.make_site(name, data)
            self.server.register.add_site(name, root / name / "site.pub")

    def make_site(self, name: str, data: Path) -> Path:
        """Make a site's folder with what the coordinator hands out; it is not registered yet."""
        folder = self.root / name
        create_site(folder, name, f"127.0.0.1:{self.server.config.port}", str(data.absolute()))
        for file in self.server.for_sites.iterdir():
            write_text(folder / file.name, file.read_text())
        return folder

    def set_setting(self, name: str, setting: str, value: object) -> None:
        """Change one line of a site.toml."""
        path = self.root / name / "site.toml"
        lines = path.read_text().splitlines()
        (number,) = [i for i, line in enumerate(lines) if line.startswith(f"{setting} = ")]
        lines[number] = f"{setting} = {json.dumps(value)}"
        write_text(path, "\n".join(lines) + "\n")

    @property
    def site_names(self) -> list[str]:
        """The registered sites."""
        return [site.name for site in self.server.register.sites()]

    def __enter__(self) -> Self:
        try:
            self.start_server()
            for name in self.site_names:
                self.start_site(name)
            self.wait_until_online(self.site_names)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes in order."""
        for name in list(self._processes):
            self.end(name)

    def start_server(self) -> None:
        """Start the coordinator and wait until it says that it is ready."""
        self._start("server", "server", self.server.path)
        self.wait(lambda: "ready:" in self.log("server").rsplit("begins to start", 1)[-1], 90, "coordinator ready")

    def start_site(self, name: str) -> None:
        """Start a site."""
        self._start(name, "client", self.root / name)

    def _start(self, name: str, group: str, folder: Path) -> None:
        log = self.root / f"{name}.log"
        with log.open("ab") as file:
            file.write(b"begins to start\n")
            file.flush()
            self._processes[name] = subprocess.Popen(
                [FEDRAG, group, "start", str(folder)],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | ONE_THREAD | ({"FEDRAG_HOME": str(self._homes[name])} if name in self._homes else {}),
                start_new_session=True,
            )

    def end(self, name: str) -> int:
        """Ask a service to end, as an operator does, and return its exit code."""
        process = self._processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(60)

    def kill_service(self, name: str) -> None:
        """Kill a service's own process without a warning."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def log(self, name: str) -> str:
        """What a service said to its operator."""
        path = self.root / f"{name}.log"
        return path.read_text(errors="replace") if path.is_file() else ""

    def node_log(self, name: str) -> str:
        """What a site's node wrote down."""
        path = self.root / name / "logs" / "node.log"
        return path.read_text(errors="replace") if path.is_file() else ""

    @property
    def executor_log(self) -> str:
        """What the executor wrote down."""
        path = self.server.logs / "executor.log"
        return path.read_text(errors="replace") if path.is_file() else ""

    def pids(self, *parts: str) -> list[int]:
        """Return the processes whose command line holds all of these."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if all(part in line for part in parts):
                found.append(int(path.parent.name))
        return found

    def executor_pids(self) -> list[int]:
        """Return the process that runs the rounds, if a run is on."""
        return self.pids("fedrag.coordinator.executor", str(self.server.path))

    def superlink_pids(self) -> list[int]:
        """Return the SuperLink."""
        return self.pids("gated_superlink", str(self.server.path))

    def proxy_pids(self) -> list[int]:
        """Return the processes of the reverse proxy."""
        return self.pids("nginx", str(self.server.path / "reverse-proxy"))

    def node_pids(self, name: str) -> list[int]:
        """Return a site's node."""
        return self.pids("fedrag.site.service.node", str(self.root / name))

    def worker_pids(self, name: str) -> list[int]:
        """Return a site's worker, if it has begun to work."""
        found = []
        for node in self.node_pids(name):
            for task in Path(f"/proc/{node}/task").glob("*/children"):
                found += [int(pid) for pid in task.read_text().split() if self._is_worker(int(pid))]
        return found

    @staticmethod
    def _is_worker(pid: int) -> bool:
        try:
            return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return False

    def begin(self, config: Config) -> str:
        """Begin a run and return its name."""
        return begin_run(self.server, config)

    def resume(self, run: str) -> None:
        """Go on with a run."""
        resume_run(self.server, run)

    def stop(self) -> str:
        """Stop the run that is on."""
        return stop_run(self.server)

    def outcome(self, run: str) -> Outcome:
        """How far a run is."""
        return read_outcome(self.server.runs / run)

    def rounds(self, run: str) -> list[dict[str, Any]]:
        """The logged rounds of a run."""
        return RunFolder.open(self.server.runs / run).rounds()

    def wait_until_done(self, run: str, timeout_s: float = 180) -> RunFolder:
        """Wait until a run is finished and return it."""
        self.wait(lambda: self.outcome(run).state in ("finished", "stopped", "failed"), timeout_s, f"{run} done")
        assert self.outcome(run).state == "finished", f"{self.outcome(run)}\n{self.story()}"
        self.wait(lambda: not self.server.current(), 20, "the coordinator free")
        return RunFolder.open(self.server.runs / run)

    def wait_for_round(self, run: str, number: int, timeout_s: float = 120) -> None:
        """Wait until a round is logged."""
        self.wait(lambda: any(line["round"] >= number for line in self.rounds(run)), timeout_s, f"round {number}")

    def assert_all_took_part(self, run: RunFolder) -> None:
        """Fail where a round of a run went on without a site."""
        for line in run.rounds():
            assert sorted(line["sites"]) == sorted(self.site_names), line["left_out"]

    def wait_until_online(self, names: Sequence[str], timeout_s: float = 60) -> None:
        """Wait until these sites, and no others, are online."""

        def online() -> set[str]:
            return {node.name for node in self.server.link.nodes() if node.online}

        # Each look is a request over TLS; it takes time from the processes that it waits for.
        self.wait(lambda: online() == set(names), timeout_s, f"{', '.join(names)} online", every_s=0.5)

    def wait(
        self,
        is_so: Callable[[], bool],
        timeout_s: float,
        what: str,
        *,
        patience: float = PATIENCE,
        every_s: float = 0.1,
    ) -> None:
        """Wait until something is so, or fail with the story so far.

        Args:
            is_so: Whether it is so.
            timeout_s: How long it may take on an idle machine.
            what: What is waited for.
            patience: Factor on the time; 1: that it comes in time is what is tested.
            every_s: Seconds between two looks.
        """
        end = time.monotonic() + patience * timeout_s
        while not is_so():
            assert time.monotonic() < end, f"not within {patience * timeout_s:g} s: {what}\n{self.story()}"
            time.sleep(every_s)

    def story(self) -> str:
        """Return the ends of all logs."""
        logs = {path.name: path for path in [*self.root.glob("*.log"), *self.root.glob("*/logs/*.log")]}
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-2500:]}" for path in logs.values())
