"""TensorBoard: files in the run folder. `tensorboard --logdir runs` shows all runs side by side."""

from __future__ import annotations

import shutil
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from fedrag.tracking.run_log import RunLog, Step

FOLDER = "tensorboard"


class TensorboardFiles:
    """The event file of a run; it is written anew at each start, since what is in one cannot be changed.

    Args:
        log: The run.
    """

    def __init__(self, log: RunLog) -> None:
        folder = log.folder / FOLDER
        shutil.rmtree(folder, ignore_errors=True)
        self.place = f"{folder}; look with: tensorboard --logdir {log.folder.parent}"
        self._writer: Any = SummaryWriter(str(folder))
        rows = "\n".join(f"| {name} | {value} |" for name, value in log.parameters.items())
        self._writer.add_text("scenario", f"| setting | value |\n| --- | --- |\n{rows}")
        self._flush()

    def log(self, step: Step) -> None:
        """Write a round."""
        for name, value in step.values.items():
            self._writer.add_scalar(name, value, step.number, step.time.timestamp())
        self._flush()

    def finish(self, log: RunLog, *, whole: bool) -> None:
        """Write the scenario as hyperparameters with the final figures, and close."""
        figures = log.figures()
        for summary in hparams(log.parameters, figures) if whole else ():  # type: ignore[no-untyped-call]
            self._writer.file_writer.add_summary(summary)
        for name, value in figures.items() if whole else ():
            self._writer.add_scalar(name, value, len(log.steps()))
        if whole and figures:
            self._writer.add_text("results in per cent", log.table_text())
        self._writer.close()

    def _flush(self) -> None:
        self._writer.flush()
