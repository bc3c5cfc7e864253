"""What a deployed round costs beyond training: two sites on loopback, 3.5 MB of update each.

The tiny model trains in a moment; an adapter of rank 800 makes its update as large as a real one. A round's cost is
its seconds at the coordinator less those that the slower site worked. The stock way, an array for each matrix and a
new process for each message, was measured at 66 s, with one array at 6.4 s.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from bench import Row, main

sys.path.insert(0, str(Path(__file__).parents[1]))

from deployment import Deployment
from tiny_federation import tiny_config, write_small_sites

ROUNDS = 10
RANK = 800


def measure() -> list[Row]:
    """Run ten rounds and return the median cost of one."""
    with tempfile.TemporaryDirectory() as name:
        data = write_small_sites(Path(name) / "data", north=2, south=2)
        config = tiny_config(
            data,
            generator={"lora": {"rank": RANK}},
            federation={"rounds": ROUNDS, "schedule": "generator", "greeting_timeout_s": 120.0, "max_update_norm": 1e6},
        )
        sites = {site: data / site for site in ("north", "south")}
        with Deployment(Path(name) / "deployment", sites) as deployment:
            rounds = deployment.wait_until_done(deployment.begin(config), timeout_s=600).rounds()
    costs = [line["seconds"] - max(site["seconds"] for site in line["sites"].values()) for line in rounds[1:]]
    megabytes = statistics.median(site["bytes"] for line in rounds for site in line["sites"].values()) / 1e6
    figures = {"megabytes": megabytes, "slowest": max(costs), "fastest": min(costs)}
    return [
        Row(
            "deployed: a round of two sites beyond training",
            statistics.median(costs),
            "s",
            4,
            most=True,
            figures=figures,
        )
    ]


if __name__ == "__main__":
    main(measure)
