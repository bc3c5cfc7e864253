"""A coordinator's run is tracked while it goes on, by the process that runs its rounds."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from deployment import Deployment
from tiny_federation import tiny_config, write_small_sites

from fedrag.tracking.run_log import RunLog

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("tiny_home"),
    pytest.mark.skipif(find_spec("tensorboard") is None, reason="make integrations installs it"),
]
ROUNDS = 2


def test_tensorboard_holds_each_round_of_a_deployed_run_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sites = write_small_sites(tmp_path / "data", north=4, south=4)
    config = tiny_config(
        sites,
        federation={"rounds": ROUNDS, "schedule": "retriever", "greeting_timeout_s": 180.0},
        tracking={"to": ["tensorboard"]},
    )
    with Deployment(tmp_path / "deployment", {name: sites / name for name in ("north", "south")}) as deployment:
        name = deployment.begin(config)
        run = deployment.wait_until_done(name)
        log = RunLog(run)
        assert "tracked with tensorboard: " in deployment.executor_log
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    for figure in ("retriever/loss", "bytes/from_sites"):
        found = [(event.step, event.value) for event in events.Scalars(figure)]
        assert found == [(step.number, pytest.approx(step.values[figure])) for step in log.steps()]
        assert len(found) == ROUNDS
