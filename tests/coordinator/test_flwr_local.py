import json
import re
from pathlib import Path

import pytest
from flwr_local import _superlinks, run_local

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
    print("SEEN " + json.dumps({"scenario": context.run_config["scenario"], "clients": seen}), [node.name for node in grid.get_nodes()])
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


@pytest.mark.slow
def test_both_apps_of_a_project_run_and_see_the_run_config(tmp_path: Path):
    """The clients of Flower's simulation know a number, not a name: `partition-id` of `num-partitions`."""
    project, home = tmp_path / "project", tmp_path / "home"
    for name, text in {"server/app.py": SERVER, "clients/app.py": CLIENTS, "pyproject.toml": PROJECT}.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    for package in ("server", "clients"):
        (project / package / "__init__.py").touch()
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
    assert _superlinks(home) == []
