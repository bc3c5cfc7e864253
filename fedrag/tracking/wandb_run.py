"""Weights & Biases: offline files beside the runs, which `wandb sync` uploads; WANDB_MODE=online sends at once.

Offline, files of an earlier start of the same run are replaced. Online, the server takes each step once.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import wandb

from fedrag.evaluation.records import TITLES
from fedrag.tracking.run_log import RunLog, Step


class WandbRun:
    """A run of the project of its scenario's name.

    Args:
        log: The run.
    """

    def __init__(self, log: RunLog) -> None:
        mode = os.environ["WANDB_MODE"]
        log.beside.mkdir(exist_ok=True)
        if mode == "offline":
            for folder in (log.beside / "wandb").glob(f"offline-run-*-{log.key}"):
                shutil.rmtree(folder)
        self._run = wandb.init(
            project=log.scenario,
            name=log.name,
            id=log.key,
            dir=log.beside,
            config=log.parameters,
            resume=None if mode == "offline" else "allow",
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_code=True,
                disable_git=True,
                x_disable_stats=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
            ),
        )
        where = log.beside / "wandb" if mode == "offline" else mode
        sync = f"; upload with: wandb sync {Path(self._run.dir).parent}" if mode == "offline" else ""
        self.place = f"{where}{sync}"

    def log(self, step: Step) -> None:
        """Write a round."""
        self._run.log(step.values, step=step.number, commit=True)

    def finish(self, log: RunLog, *, whole: bool) -> None:
        """Write the final figures, and close."""
        table = log.table()
        if whole and table:
            self._run.summary.update(log.figures())
            rows = [[arm, *(row.get(metric) for metric in TITLES)] for arm, row in table.items()]
            self._run.log({"results": wandb.Table(["arm", *TITLES.values()], rows)}, step=len(log.steps()) + 1)
        self._run.finish(exit_code=0 if whole else 1)
