"""trackio: an SQLite file for each scenario beside the runs, or where TRACKIO_DIR says.

Written by its storage, not through `trackio.init`: that asks the model hub for the user's name. Each round has an id,
and trackio keeps one line of an id.
"""

from __future__ import annotations

import os

from fedrag.tracking.run_log import RunLog, Step


class TrackioDatabase:
    """A run in the project of its scenario's name.

    Args:
        log: The run.
    """

    def __init__(self, log: RunLog) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(log.beside / "trackio"))
        from trackio import TRACKIO_DIR, SQLiteStorage  # it reads the variable when it is imported

        self._storage = SQLiteStorage
        self._name, self._key, self._project = log.name, log.key, log.scenario
        self._config = {**log.parameters, "_Created": log.started.isoformat()}
        self.place = f"{TRACKIO_DIR}; look with: TRACKIO_DIR={TRACKIO_DIR} trackio show"

    def log(self, step: Step) -> None:
        """Write a round."""
        self._write(step.values, step.number, f"round {step.number}", step.time.isoformat())

    def finish(self, log: RunLog, *, whole: bool) -> None:
        """Write the final figures, at the last round."""
        steps, figures = log.steps(), log.figures()
        if whole and figures and steps:
            self._write(figures, steps[-1].number, "figures", steps[-1].time.isoformat())

    def _write(self, values: dict[str, float], step: int, what: str, time: str) -> None:
        self._storage.bulk_log(
            project=self._project,
            run=self._name,
            run_id=self._key,
            metrics_list=[values],
            steps=[step],
            timestamps=[time],
            config=self._config,
            log_ids=[f"{self._key} {what}"],
        )
