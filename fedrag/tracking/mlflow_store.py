"""MLflow: a run in an SQLite file beside the runs, or where MLFLOW_TRACKING_URI says.

MLflow keeps a value of the same step, time and size once. A round's time comes from the log, so a round that is written
again after a resume changes nothing.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from fedrag.tracking.run_log import RunLog, Step

_KEY = "fedrag.run"
_PARAMETERS = 100
"""Most parameters of one request."""


class MlflowStore:
    """A run in MLflow's store, in the experiment of its scenario's name.

    Args:
        log: The run.
    """

    def __init__(self, log: RunLog) -> None:
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of each table that it makes
        logging.getLogger("alembic").setLevel(logging.WARNING)
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            log.beside.mkdir(exist_ok=True)
            uri = f"sqlite:///{log.beside / 'mlflow.db'}"
        self.place = f"{uri}; look with: mlflow ui --backend-store-uri {uri}"
        self._client = MlflowClient(tracking_uri=uri)
        self._run = self._find_or_create(log)
        held = self._client.get_run(self._run).data.params
        parameters = [Param(name, str(value)) for name, value in log.parameters.items() if name not in held]
        for start in range(0, len(parameters), _PARAMETERS):
            self._client.log_batch(self._run, params=parameters[start : start + _PARAMETERS])
        # MLflow lets no parameter change; the rounds of a run that is resumed with more of them do.
        changed = {n: str(value) for n, value in log.parameters.items() if held.get(n, str(value)) != str(value)}
        for name, value in changed.items():
            self._client.set_tag(self._run, f"fedrag.changed.{name}", value)

    def log(self, step: Step) -> None:
        """Write a round."""
        self._write(step.values, step)

    def finish(self, log: RunLog, *, whole: bool) -> None:
        """Write the final figures and the table, and end MLflow's run."""
        steps, figures = log.steps(), log.figures()
        if whole and figures and steps:
            self._write(figures, steps[-1])
            self._client.log_text(self._run, log.table_text(), "results.md")
        self._client.set_terminated(self._run, "FINISHED" if whole else "KILLED")

    def _write(self, values: dict[str, float], step: Step) -> None:
        time = int(1000 * step.time.timestamp())
        self._client.log_batch(self._run, [Metric(name, value, time, step.number) for name, value in values.items()])

    def _find_or_create(self, log: RunLog) -> str:
        """Return the id of the run that an earlier start made, or of a new one."""
        found = self._client.get_experiment_by_name(log.scenario)
        artifacts = (log.beside / "mlflow" / log.scenario).as_uri()
        own = {} if os.environ.get("MLFLOW_TRACKING_URI") else {"artifact_location": artifacts}
        experiment = found.experiment_id if found else self._client.create_experiment(log.scenario, **own)
        runs: list[Any] = self._client.search_runs([experiment], f"tags.`{_KEY}` = '{log.key}'")
        if runs:
            self._client.update_run(runs[0].info.run_id, status="RUNNING")
            return str(runs[0].info.run_id)
        run = self._client.create_run(experiment, run_name=log.name)
        self._client.log_batch(run.info.run_id, tags=[RunTag(_KEY, log.key)])
        return str(run.info.run_id)
