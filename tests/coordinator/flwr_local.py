"""Run a project's two apps with `flwr run`, over a local SuperLink that nobody else uses."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import tomli_w
from ports import free_port


def run_local(project: Path, run_config: dict[str, str], supernodes: int, home: Path, timeout_s: float) -> str:
    """Run the apps of a project folder in Flower's simulation and return everything the run printed.

    Each client has one CPU, two run at a time. `home` takes Flower's state and logs. `flwr run` starts a
    SuperLink that outlives it; it is ended here, whatever happens.

    Raises:
        subprocess.CalledProcessError: `flwr run` failed; not when an app fails, which the text alone tells.
        subprocess.TimeoutExpired: It took longer than `timeout_s`.
    """
    home.mkdir(parents=True, exist_ok=True)
    # A file, because a text with quotes does not get through on the command line.
    config_file = home / "run-config.toml"
    config_file.write_text(tomli_w.dumps(run_config))
    federation = f"num-supernodes={supernodes} client-resources-num-cpus=1 init-args-num-cpus=2"
    command = ["flwr", "run", ".", "local", "--stream", "--run-config", str(config_file.resolve())]
    try:
        done = subprocess.run(
            [*command, "--federation-config", federation],
            cwd=project,
            env=_environment(home),
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )
    finally:
        _end_superlinks(home)
    return done.stdout


def _environment(home: Path) -> dict[str, str]:
    """Return the environment: own state, own ports, nothing downloaded, nothing reported."""
    programs = Path(sys.executable).parent
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(home.resolve()),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "COLUMNS": "200",
    }


def superlinks(home: Path) -> list[int]:
    """Return the process ids of the SuperLinks whose state lies in `home`."""
    state = str(home.resolve() / "local-superlink" / "state.db").encode()
    found = []
    for command_line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if state in command_line.read_bytes().split(b"\0"):
                found.append(int(command_line.parent.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def _end_superlinks(home: Path, patience_s: float = 10.0) -> None:
    """End the SuperLinks politely, then all that is left of what they started, and wait until it is gone."""
    leaders = superlinks(home)
    # A SuperLink and each of its children lead a process group; simulation, Ray and actors are in a child's.
    groups = [*leaders, *(child for leader in leaders for child in _children(leader))]
    for leader in leaders:
        os.kill(leader, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while superlinks(home) and time.monotonic() < deadline:
        time.sleep(0.1)
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    deadline = time.monotonic() + patience_s
    while any(map(_is_alive, groups)) and time.monotonic() < deadline:  # a process dies some time after the signal
        time.sleep(0.1)


def _is_alive(group: int) -> bool:
    """Whether a process of the group runs; one that ended and that nobody waited for yet does not."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, _, of_group = status.read_text().rpartition(") ")[2].split()[:3]
            if int(of_group) == group and state not in "ZX":
                return True
    return False


def _children(pid: int) -> list[int]:
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for children in lists for child in children.read_text().split()]
