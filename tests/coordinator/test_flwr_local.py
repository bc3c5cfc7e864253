import json
import re
import subprocess
from pathlib import Path

import pytest
from flwr_local import run_local, superlinks

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "trivial"
version = "1.0.0"
dependencies = []

[tool.flwr.app]
publisher = "somebody"

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "clients.app:app"

[tool.flwr.app.config]
scenario = ""
"""

SERVER = """
import json, time
from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    while len(ids := list(grid.get_node_ids())) < 3:
        time.sleep(0.1)
    replies = grid.send_and_receive([Message(RecordDict(), node_id, "query") for node_id in ids], timeout=60)
    seen = [dict(reply.content["seen"]) for reply in replies]
    print("SEEN " + json.dumps({"scenario": context.run_config["scenario"], "clients": seen}))
"""

HANGING_SERVER = """
import os, pathlib, time
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    pathlib.Path("server.pid").write_text(str(os.getpid()))
    time.sleep(600)
"""

CLIENTS = """
import json, os
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.query()
def query(message, context):
    seen = {"node_config": json.dumps(context.node_config), "folder": os.getcwd(), **context.run_config}
    return Message(RecordDict({"seen": ConfigRecord(seen)}), reply_to=message)
"""

SCENARIO = """name = "tiny"
[rag]
instruction = "Say \\"don't know\\" = nothing."
"""


def write_project(folder: Path, server: str = SERVER) -> None:
    files = {"server/app.py": server, "clients/app.py": CLIENTS, "pyproject.toml": PROJECT}
    for name, text in {**files, "server/__init__.py": "", "clients/__init__.py": ""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""  # empty: ended, but not yet waited for
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_both_apps_of_a_project_run_and_see_the_run_config(tmp_path: Path):
    """The clients of Flower's simulation know a number, not a name: `partition-id` of `num-partitions`."""
    project, home = tmp_path / "project", tmp_path / "home"
    write_project(project)
    output = run_local(project, {"scenario": SCENARIO}, supernodes=3, home=home, timeout_s=100)
    match = re.search(r"SEEN (\{.*\})", output)
    assert match, output
    seen = json.loads(match[1])
    assert seen["scenario"] == SCENARIO
    node_configs = [json.loads(client["node_config"]) for client in seen["clients"]]
    assert sorted(config["partition-id"] for config in node_configs) == [0, 1, 2]
    assert all(config.keys() == {"partition-id", "num-partitions"} for config in node_configs)
    assert {client["scenario"] for client in seen["clients"]} == {SCENARIO}
    assert {client["folder"] for client in seen["clients"]} == {str(project)}
    assert superlinks(home) == []


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_ended_with_all_its_processes(tmp_path: Path):
    project, home = tmp_path / "project", tmp_path / "home"
    write_project(
        project,
        server=HANGING_SERVER,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        run_local(project, {}, supernodes=1, home=home, timeout_s=15)
    pid = int((project / "server.pid").read_text())
    assert not is_running(pid)
