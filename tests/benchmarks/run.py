"""Runs the benchmarks, each in a process of its own, and prints the table: `make bench`, or run.py NAME ... for some.

Results go to build/bench/NAME.json. The exit status is 1 where a target is missed or a benchmark fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bench import RESULTS, Row
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
NAMES = (
    "machine",
    "scoring",
    "ralt",
    "generation",
    "serving",
    "retriever",
    "search",
    "large_site",
    "server",
    "wire",
    "secure",
    "simulation",
    "deployed",
)


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}", file=sys.stderr)
        return 2
    failed = [name for name in names or NAMES if not _run(name)]
    table, missed = _table(names or list(NAMES))
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    for name in failed:
        print(f"{name} failed: its figures are missing", file=sys.stderr)
    if missed:
        print(f"{missed} of the targets missed", file=sys.stderr)
    return 1 if failed or missed else 0


def _run(name: str) -> bool:
    (RESULTS / f"{name}.json").unlink(missing_ok=True)
    print(f"--- {name}", flush=True)
    return subprocess.run([sys.executable, str(HERE / f"{name}.py")]).returncode == 0


def _table(names: list[str]) -> tuple[Table, int]:
    table = Table("benchmark", "what", "measured", "target", "")
    missed = 0
    for name in names:
        path = RESULTS / f"{name}.json"
        for row in [Row(**fields) for fields in json.loads(path.read_text())] if path.exists() else []:
            missed += not row.met
            bound = "" if row.target is None else f"{'<=' if row.most else '>='} {row.target:g} {row.unit}"
            table.add_row(name, row.what, f"{row.value:.3g} {row.unit}", bound, "" if row.met else "missed")
    return table, missed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
