"""A long run with a bad site, in which a random process dies now and then: `.venv/bin/python tests/deployed/soak.py`.

Two good sites and a third that answers every round in another wrong way, the tiny models, 200 rounds; every 20 rounds
one process is killed, and the bad site, which was set aside by then, is let in again. All rounds must complete with
both good sites, and the memory of every process and the room on disk must level off. Writes build/soak/: samples as
JSON lines, the slopes, and the plot. Slopes are least squares over the second half of the run, per 100 rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from bad_site import BadSite
from deployment import Deployment
from tiny_federation import tiny_config, write_small_sites

from fedrag.coordinator.enrolment import let_in
from fedrag.errors import ConfigError

GOOD = ("north", "south")
BAD = "west"
SAMPLE_S = 2.0


def soak(root: Path, rounds: int, kill_every: int, seed: int = 0) -> tuple[list[dict[str, Any]], list[str]]:
    """Run so many rounds, killing a process every few of them.

    Returns:
        The samples (round, megabytes of each process and on disk), and who was killed.
    """
    data = write_small_sites(root / "data", north=4, south=4, west=4)
    config = tiny_config(
        data, federation={"rounds": rounds, "quorum": 0.5, "min_sites": 3, "greeting_timeout_s": 120.0}
    )
    chance = random.Random(seed)
    samples: list[dict[str, Any]] = []
    killed: list[str] = []
    with Deployment(root / "deployment", {name: data / name for name in (*GOOD, BAD)}) as deployment:
        victims = victims_of(deployment)
        deployment.end(BAD)
        deployment.wait_until_online(GOOD)
        run = deployment.begin(config)
        misbehaving = misbehave(deployment, run, chance)
        next_kill = kill_every
        while deployment.outcome(run).state in ("waiting", "running"):
            done = len(deployment.rounds(run))
            if done >= next_kill:
                name = chance.choice(sorted(victims))
                for pid in victims[name]():
                    os.kill(pid, signal.SIGKILL)
                killed.append(f"{name} after round {done}")
                next_kill += kill_every
                with suppress(ConfigError):  # it may not have had three replies yet
                    let_in(deployment.server, BAD)
            samples.append(sample(deployment, victims, done))
            time.sleep(SAMPLE_S)
        finished = deployment.wait_until_done(run)
        logged = [line["round"] for line in finished.rounds()]
        assert logged == list(range(1, rounds + 1)), logged
        assert all(set(GOOD) <= set(line["sites"]) for line in finished.rounds())
        samples.append({"left_out": [reason for line in finished.rounds() for reason in line["left_out"].values()]})
        misbehaving.join(60)
    return samples, killed


def misbehave(deployment: Deployment, run: str, chance: random.Random) -> threading.Thread:
    """Let the bad site answer in the background until the run is over; it connects again whenever it is cut off."""
    bad = BadSite(deployment.root / BAD, deployment.root / GOOD[0])
    answers = bad.at_random(random.Random(chance.random()))

    def is_over() -> bool:
        return deployment.outcome(run).state not in ("waiting", "running")

    def serve() -> None:
        while not is_over():
            with suppress(Exception):  # a process that it talks to was killed
                bad.serve(answers, is_over)
            time.sleep(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def victims_of(deployment: Deployment) -> dict[str, Callable[[], list[int]]]:
    """Return how to find each process."""
    return {
        "executor": deployment.executor_pids,
        "SuperLink": deployment.superlink_pids,
        "reverse proxy": deployment.proxy_pids,
        "node": lambda: deployment.node_pids("north"),
        "worker": lambda: deployment.worker_pids("north"),
    }


def sample(deployment: Deployment, victims: dict[str, Callable[[], list[int]]], done: int) -> dict[str, Any]:
    """Return what everything takes now, in megabytes."""
    megabytes = {name: sum(resident_mb(pid) for pid in find()) for name, find in victims.items()}
    return {"round": done, **megabytes, "disk": disk_mb(deployment.root)}


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process; 0 once it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1000
    except OSError:
        pass
    return 0.0


def disk_mb(root: Path) -> float:
    """Return what lies below a folder."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name)).st_size
            except OSError:
                continue
    return total / 1e6


def slopes(samples: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the growth per 100 rounds over the second half, in megabytes; a process that is starting counts not.

    >>> rising = [{"round": r, "disk": 5 + 0.02 * r} for r in range(101)]
    >>> slopes(rising)
    {'disk': 2.0}
    """
    whole = [line for line in samples if "round" in line]
    half = [line for line in whole if line["round"] >= whole[-1]["round"] / 2]
    found = {}
    for name in whole[0].keys() - {"round"}:
        level = float(np.median([line[name] for line in half]))
        points = [(line["round"], line[name]) for line in half if line[name] > 0.9 * level]
        x, y = np.array(points).T
        found[name] = round(100 * float(np.polyfit(x, y, 1)[0]), 2)
    return dict(sorted(found.items()))


def plot(samples: Sequence[dict[str, Any]], file: Path) -> None:
    """Draw megabytes over rounds."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    whole = [line for line in samples if "round" in line]
    figure, axes = pyplot.subplots(figsize=(8, 4))
    for name in sorted(whole[0].keys() - {"round"}):
        axes.plot([line["round"] for line in whole], [line[name] for line in whole], label=name, linewidth=1)
    axes.set(xlabel="rounds done", ylabel="megabytes", yscale="log")
    axes.legend(fontsize="small", ncols=3)
    axes.grid(alpha=0.3)
    figure.savefig(file, bbox_inches="tight", metadata={"Date": None})


def main() -> None:
    """Run the soak and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--kill-every", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("build/soak"))
    wanted = parser.parse_args()
    wanted.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as root:
        samples, killed = soak(Path(root), wanted.rounds, wanted.kill_every)
    (wanted.out / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in samples))
    found = {
        "rounds": wanted.rounds,
        "killed": killed,
        "left_out": Counter(samples[-1]["left_out"]),
        "slopes": slopes(samples),
    }
    (wanted.out / "soak.json").write_text(json.dumps(found, indent=2) + "\n")
    plot(samples, wanted.out / "soak.svg")
    print(json.dumps(found, indent=2))  # noqa: T201  # a script that says what it found


if __name__ == "__main__":
    main()
