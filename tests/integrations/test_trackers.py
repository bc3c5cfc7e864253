"""TensorBoard, MLflow, Weights & Biases and trackio read back what fedrag wrote: each round once, and nothing is sent.

`make integrations` runs these tests: the four are 100 MB.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tiny_federation import SHIPPED, Lines, tiny_config

from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import simulate
from fedrag.tracking.follow import TRACKERS, following
from fedrag.tracking.run_log import RunLog

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("trackio") is None, reason="make integrations installs it"),
]
ROUNDS = 3


@dataclass(frozen=True)
class Tracked:
    """A run that all trackers followed, were stopped in the middle of, and were given again.

    Attributes:
        run: The run.
        printed: What the command said that gave it again.
        connections: What reached the proxy through which that command would have left this machine.
    """

    run: RunFolder
    printed: str
    connections: list[bytes]

    @property
    def log(self) -> RunLog:
        return RunLog(self.run)

    def values_of(self, name: str) -> list[tuple[int, float]]:
        return [(step.number, step.values[name]) for step in self.log.steps()]


@contextmanager
def recording_proxy() -> Iterator[tuple[str, list[bytes]]]:
    """Yield the address of a proxy that answers nobody, and the first bytes of all who asked it."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        asked.append(connection.recv(200))

        Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked


@pytest.fixture(scope="module")
def tracked(tiny_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    config = tiny_config(
        SHIPPED,
        data={"only": ["north", "south"]},
        federation={"rounds": ROUNDS, "schedule": "retriever", "validate_every": 1},
        evaluation={"split": "test", "generate": False, "baselines": []},
    )
    run = simulate(config, out=tmp_path_factory.mktemp("runs") / "tiny-1")
    _stop_after_two_rounds(run)
    with recording_proxy() as (address, connections):
        proxies = {name: address for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY")}
        environment = {**os.environ, **proxies, "NO_PROXY": "", "no_proxy": "", "HF_TOKEN": "hf_none"}
        command = ["report", str(run.path), *(word for name in TRACKERS for word in ("--to", name))]
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.argv[1:] = {command!r}; from fedrag.cli.main import main; main()"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        before = len(connections)
        asking = "import urllib.request as r; r.urlopen('http://fedrag.invalid', timeout=5)"
        subprocess.run([sys.executable, "-c", asking], env=environment, capture_output=True, check=False)
        assert len(connections) == before + 1, "the proxy would have noticed"
    assert done.returncode == 0, done.stderr
    return Tracked(run, done.stdout + done.stderr, connections[:before])


def _stop_after_two_rounds(run: RunFolder) -> None:
    """Let all trackers follow the run's first rounds, of two that it then had, and die."""
    shorter = run.config.federation.model_copy(update={"rounds": 2})
    run = RunFolder(run.path, run.config.model_copy(update={"federation": shorter}))
    log = run.path / "rounds.jsonl"
    whole = log.read_text(encoding="utf-8")
    log.write_text("".join(whole.splitlines(keepends=True)[:2]), encoding="utf-8")
    display = Lines()
    with suppress(KeyboardInterrupt), following(run, tuple(TRACKERS), display) as trackers:
        trackers.catch_up()
        raise KeyboardInterrupt
    log.write_text(whole, encoding="utf-8")
    assert not [line for line in display.said if "left out" in line], display.said


def test_nothing_is_sent_anywhere(tracked: Tracked) -> None:
    assert tracked.connections == []
    assert "left out" not in tracked.printed
    assert [name for name in TRACKERS if f"tracked with {name}: " in tracked.printed] == list(TRACKERS)


def test_tensorboard_reads_each_round_once(tracked: Tracked) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tracked.run.path / "tensorboard"))
    events.Reload()
    for name in ("retriever/loss", "retriever/validation", "seconds", "bytes/from_sites"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(step, pytest.approx(value)) for step, value in tracked.values_of(name)]
    [figure] = events.Scalars("federated/mrr")
    assert figure.value == pytest.approx(tracked.log.figures()["federated/mrr"])
    assert {"scenario/text_summary", "results in per cent/text_summary"} <= set(events.Tags()["tensors"])
    assert b"federation.rounds" in events.Tensors("scenario/text_summary")[0].tensor_proto.string_val[0]


def test_mlflow_reads_each_round_once(tracked: Tracked) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tracked.log.beside / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("tiny-1", "FINISHED")
    assert run.data.params["retriever.lora.rank"] == "2"
    assert "data.sites" not in run.data.params
    assert run.data.params["federation.rounds"] == "2"
    assert run.data.tags["fedrag.changed.federation.rounds"] == str(ROUNDS)
    for name in ("retriever/loss", "retriever/validation", "seconds"):
        found = sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name))
        assert found == tracked.values_of(name)
    assert run.data.metrics["federated/mrr"] == tracked.log.figures()["federated/mrr"]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["results.md"]


def test_trackio_reads_each_round_once(tracked: Tracked) -> None:
    code = (
        "import json; from trackio import SQLiteStorage as s; [run] = s.get_run_records('tiny'); "
        "print(json.dumps([run['name'], s.get_logs('tiny', run['name']), s.get_run_config('tiny', run['name'])]))"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(tracked.log.beside / "trackio")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    name, lines, config = json.loads(done.stdout)
    found = [(line["step"], line["retriever/loss"]) for line in lines if "retriever/loss" in line]
    assert (name, found) == ("tiny-1", tracked.values_of("retriever/loss"))
    [figures] = [line for line in lines if "federated/mrr" in line]
    assert figures["federated/mrr"] == tracked.log.figures()["federated/mrr"]
    assert config["retriever.lora.rank"] == 2


def wandb_records(path: Path) -> Iterator[Any]:
    """Yield the records of an offline file: protobuf messages in LevelDB's log format, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, message = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        left = 32_768 - at % 32_768
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        message += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield Record.FromString(message)
            message = b""


def test_wandb_s_file_holds_each_round_once(tracked: Tracked) -> None:
    [file] = (tracked.log.beside / "wandb").glob(f"offline-run-*-{tracked.log.key}/*.wandb")
    records = list(wandb_records(file))
    rows = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    found = [(row["_step"], row["retriever/loss"]) for row in rows if "retriever/loss" in row]
    assert found == [(step, pytest.approx(value)) for step, value in tracked.values_of("retriever/loss")]
    [run] = [record.run for record in records if record.HasField("run")]
    assert (run.display_name, run.project, run.run_id) == ("tiny-1", "tiny", tracked.log.key)
    assert "retriever.lora.rank" in {item.key for item in run.config.update}
    summary = {item.key or "/".join(item.nested_key): item.value_json for r in records for item in r.summary.update}
    assert json.loads(summary["federated/mrr"]) == pytest.approx(tracked.log.figures()["federated/mrr"])
