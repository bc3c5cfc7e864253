"""What every benchmark file uses: timings in turn, rows with targets, one JSON file a question.

A ratio of two times is only worth something if both were taken on the same machine in the same minutes: contenders
run one after the other, several times over, and their medians are compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

RESULTS = Path("build/bench")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: What was compared with what.
        value: The measured ratio, share or rate.
        unit: Its unit: "x", "%", "GB/s", "s".
        target: What it has to reach; None: it is shown only.
        most: Whether the target is the most it may be; else it is the least.
        figures: The measurements behind it, by name, with the unit in the name.
    """

    what: str
    value: float
    unit: str
    target: float | None = None
    most: bool = False
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether the target is reached; without one, yes."""
        if self.target is None:
            return True
        return self.value <= self.target if self.most else self.value >= self.target


def in_turn(times: int, **contenders: Callable[[], object]) -> dict[str, float]:
    """Run contenders one after the other, `times` times over; return the median seconds of each."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(times):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            finish()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def finish() -> None:
    """Wait until the GPU, where there is one, has done all that it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_mb() -> float:
    """Return the most memory that this process has held, in MB: on the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def in_a_process(file: str, *contender: str) -> dict[str, Any]:
    """Run `file --only CONTENDER` in a process of its own; return the JSON of the last line that it prints."""
    done = subprocess.run([sys.executable, file, "--only", *contender], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{', '.join(contender)}: {found}", flush=True)
    return found


def main(measure: Callable[[], list[Row]]) -> None:
    """Measure one question and write its rows to build/bench/NAME.json, or where --out says."""
    name = Path(measure.__code__.co_filename).stem
    parser = argparse.ArgumentParser(description=measure.__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json")
    out: Path = parser.parse_args().out
    rows = measure()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    for row in rows:
        print(f"{'ok    ' if row.met else 'MISSED'} {row.value:.3g} {row.unit}  {row.what}")
