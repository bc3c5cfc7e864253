"""The coordinator's Flower `ServerApp`: the rounds of one run, over whatever grid Flower gives it."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import transformers  # noqa: F401  # Flower may import it in another thread: `from` then finds it half made
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedrag.components.base_models import required_models
from fedrag.components.earlier_result import take_start
from fedrag.config.scenario import Config
from fedrag.display import LogDisplay
from fedrag.errors import ConfigError
from fedrag.federation.federate import federate
from fedrag.runs.facts import collect_facts
from fedrag.runs.run_folder import RunFolder
from fedrag.weights.store import fedrag_home

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the scenario that the run configuration carries as one text.

    The run folder is made below the folder named by FEDRAG_RUNS, by default `runs` in FEDRAG_HOME.
    """
    text = str(context.run_config.get("scenario", ""))
    if not text:
        raise ConfigError('the run configuration lacks "scenario": the text of a scenario file')
    config = Config.from_toml(text)
    runs = Path(os.environ.get("FEDRAG_RUNS", fedrag_home() / "runs"))
    run = RunFolder.create(config.on_its_day(), root=runs)
    run.record_facts(collect_facts(config, required_models(config), folders=()))
    take_start(run)
    federate(run, lambda: nullcontext(grid), display=LogDisplay())
