"""The coordinator's Flower `ServerApp`: the rounds of one run, over whatever grid Flower gives it."""

from __future__ import annotations

import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedrag.config.scenario import Config
from fedrag.config.schedule import trained_components
from fedrag.display import LogDisplay
from fedrag.errors import ConfigError
from fedrag.federation.rounds import run_rounds
from fedrag.models.resident import initial_state
from fedrag.rag.export import export_models
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
    run = RunFolder.create(config, root=runs)
    run.record_facts(collect_facts(config, folders=()))
    components = trained_components(config.federation)
    state = run_rounds(grid, config, run, lambda: initial_state(config, components), display=LogDisplay())
    export_models(config, state, run.path / "final")
    run.save_result(state)
