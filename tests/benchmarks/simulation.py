"""What a simulation costs beside the work itself, and how it grows with the clients.

- No-op clients: clients that return an update of the tiny models' size at once, through the server's real rounds
  (messages, folding, checkpoints), over both grids. Milliseconds of a round, divided by its clients.
- Many clients: three rounds of real training with the tiny models over two Ray actors, for three numbers of clients,
  each run a process of its own. Seconds of the rounds by client, and of the whole run; the peak memory of the driver
  and of the largest actor (VmHWM in /proc, shared memory included). Flat and linear means: the largest number against
  the middle one.
- Many sites, of which a round asks 100: the same for 1,000 sites and for 10,000, with a fraction of 0.1 and of 0.01.
  Flat means: a round, and memory. What comes before and after the rounds reads every site, so it is linear at best. Not
  in `make bench`: two runs of some minutes.
- Start-up: from the start of the `fedrag simulate` process to the moment in which the first client opens its folder
  of answer scores; by then it has read its data and loaded its retriever and its generator.
- Overhead: of one round over some PolicyQA sites (the space sites where those are not imported) with the real
  retriever, the share that is spent in no function that trains, scores, encodes or generates.
- Flower: eight small sites, LM-supervised retrieval, the real models, against `flower_app.py`, which does the same
  work in the ordinary way, over as many actors with as many CPUs; the median round after the first. Ours
  keeps the models, and a site keeps the scores of an untouched generator, from one round to the next: both count here.
  The first round, in which nothing is kept yet, stands in a row of its own.

    python tests/benchmarks/simulation.py [--only no_op,clients,many,start,overhead,flower] [--clients 50,200,1000]
        [--plot]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from bench import Row, main

ROOT = Path(__file__).parents[2]
PLOT = Path(__file__).parent / "clients.png"
PARTS = ("no_op", "clients", "start", "overhead", "flower")
MANY, ASKED = (1_000, 10_000), 100
NO_OP_CLIENTS, ROUNDS, ACTORS = 200, 3, 2
FLOWER_SITES = 8
POLL_S = 0.05

TINY = {
    "models": {"generator": "fedrag/tiny-causal", "retriever": "fedrag/tiny-encoder"},
    "rag": {"prompt_tokens": 192, "answer_tokens": 8},
    "evaluation": {"split": "none"},
    "federation": {"rounds": ROUNDS},
}
ON_RAY = {"grid": "ray", "actors": ACTORS, "cpus_per_actor": 1, "threads": 1}


def write_small_sites(root: Path, count: int, questions: int, passages: int = 0) -> Path:
    """Write sites with a few of the shipped tiny questions each; with `passages`, of space sites' shortest texts."""
    from fedrag.data.site_folder import load_sites
    from fedrag.data.writing import write_site

    whole = load_sites(ROOT / "simulations" / "data" / ("space" if passages else "tiny"))
    for i in range(count):
        site = whole[i % len(whole)]
        if passages:
            shortest = tuple(sorted(site.passages, key=lambda passage: len(passage.text))[:passages])
            unlabelled = tuple(replace(question, passage_ids=()) for question in site.train)
            site = replace(site, passages=shortest, train=unlabelled)
        name, first = f"site-{i:04d}", i % 3
        small = replace(site, name=name, train=site.train[first : first + questions], validation=(), test=())
        write_site(root / name, small)
    return root


def no_op_client() -> Any:
    """Return a client app that answers at once: zeros of the size it was sent."""
    from flwr.app import Message
    from flwr.clientapp import ClientApp

    from fedrag import __version__ as fedrag_version
    from fedrag.components.base_models import base_identities
    from fedrag.config.scenario import Config
    from fedrag.federation.greeting import Greeting, greeting_content
    from fedrag.federation.messages import Reply, open_request, reply_content
    from fedrag.federation.update import manifest_of

    app = ClientApp()

    @app.query("greet")
    def greet(message: Message, context: Any) -> Message:
        models = base_identities(Config.from_toml(open_request(message).scenario))
        counts = {"train_questions": 1, "labelled_questions": 1, "validation_questions": 0}
        content = greeting_content(Greeting(context.node_config["site-name"], fedrag_version, counts, models))
        return Message(content, reply_to=message)

    @app.train("round")
    def train(message: Message, context: Any) -> Message:
        request = open_request(message)
        manifests = {c: manifest_of(tensors) for c, tensors in request.state.items()}
        zeros = {c: np.zeros(manifest.size, np.float32) for c, manifest in manifests.items()}
        reply = Reply(zeros, dict.fromkeys(zeros, 1), {"seconds": 0.0})
        return Message(reply_content(reply, manifests, request.wire), reply_to=message)

    return app


def measure_no_op(options: Options) -> list[Row]:
    """Measure rounds of no-op clients over both grids."""
    from fedrag.config.scenario import Config
    from fedrag.federation.exchange import Federation
    from fedrag.federation.rounds import run_rounds
    from fedrag.grids.in_process import InProcessGrid
    from fedrag.grids.ray_actors import RayGrid
    from fedrag.grids.ray_pool import RayPool
    from fedrag.runs.run_folder import RunFolder

    federation = {"rounds": ROUNDS, "deliver": False}
    config = Config.from_dict({"name": "no-op", **TINY, "data": {"sites": "none"}, "federation": federation})
    nodes = [{"site-name": f"site-{i:04d}"} for i in range(NO_OP_CLIENTS)]

    def in_process() -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext(InProcessGrid(no_op_client(), nodes))

    @contextmanager
    def on_ray() -> Iterator[Any]:
        with RayPool(len(nodes), actors=ACTORS) as pool, RayGrid(no_op_client, nodes, pool, threads=1) as grid:
            yield grid

    rows = []
    for name, open_grid in (
        ("in process", in_process),
        ("over Ray actors", on_ray),
    ):
        with tempfile.TemporaryDirectory() as folder, open_grid() as grid:
            run = RunFolder.create(config, Path(folder) / "run")
            run_rounds(Federation(grid, run))
            seconds = [record["seconds"] for record in run.rounds()]
        value = 1000 * statistics.median(seconds) / NO_OP_CLIENTS
        figures = {"clients": NO_OP_CLIENTS, "round_seconds": seconds}
        rows.append(Row(f"a client that does nothing, {name}", value, "ms", 50.0, most=True, figures=figures))
    return rows


@dataclass(frozen=True)
class Peak:
    """One run with a number of clients."""

    clients: int
    rounds_s: float
    whole_s: float
    driver_mb: float
    actor_mb: float


def measure_clients(options: Options) -> list[Row]:
    """Measure time and memory by the number of clients."""
    peaks = [run_clients(count, count) for count in options.clients]
    if options.plot:
        plot(peaks)
    *_, middle, most = peaks
    each, other = most.rounds_s / most.clients, middle.rounds_s / middle.clients
    against = f"{most.clients:,} clients against {middle.clients:,}"
    figures = {str(peak.clients): vars(peak) for peak in peaks}
    return [
        Row(f"seconds of {ROUNDS} rounds by client, {against}", each / other, "x", 1.2, most=True, figures=figures),
        Row(
            f"seconds of the whole run by client, {against}",
            (most.whole_s / most.clients) / (middle.whole_s / middle.clients),
            "x",
            1.2,
            most=True,
        ),
        Row(f"peak memory of the driver, {against}", most.driver_mb / middle.driver_mb, "x", 1.05, most=True),
        Row(f"peak memory of an actor, {against}", most.actor_mb / middle.actor_mb, "x", 1.05, most=True),
    ]


def measure_many(options: Options) -> list[Row]:
    """Measure rounds of the same size among few sites and among many."""
    few, many = (run_clients(count, ASKED) for count in MANY)
    against = f"{many.clients:,} sites against {few.clients:,}, {ASKED} a round"
    around = [(peak.whole_s - peak.rounds_s) / peak.clients for peak in (few, many)]
    figures = {str(peak.clients): vars(peak) for peak in (few, many)}
    return [
        Row(f"seconds of a round, {against}", many.rounds_s / few.rounds_s, "x", 1.2, most=True, figures=figures),
        Row(f"seconds beside the rounds by site, {against}", around[1] / around[0], "x", 1.2, most=True),
        Row(f"peak memory of the driver, {against}", many.driver_mb / few.driver_mb, "x", 1.2, most=True),
        Row(f"peak memory of an actor, {against}", many.actor_mb / few.actor_mb, "x", 1.05, most=True),
    ]


def run_clients(count: int, asked: int) -> Peak:
    """Simulate so many clients in a process of its own, and watch its memory and that of its actors."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_small_sites(folder / "sites", count, questions=2)
        command = [sys.executable, str(Path(__file__)), "--simulate", name, str(asked)]
        watched: dict[int, tuple[bool, float]] = {}
        with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
            while process.poll() is None:
                watch(process.pid, watched)
                time.sleep(POLL_S)
        if process.returncode:
            raise RuntimeError(f"the run with {count} clients failed")
        told = json.loads((folder / "told.json").read_text())
        actors = [peak for is_actor, peak in watched.values() if is_actor]
        return Peak(count, told["rounds_s"], told["whole_s"], watched[process.pid][1], max(actors))


def watch(driver: int, seen: dict[int, tuple[bool, float]]) -> None:
    """Note the peak memory, in MB, of the driver and of the actors below it."""
    for pid in [driver, *descendants(driver)]:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:  # it ended meanwhile
            continue
        is_actor = b"ray::ClientActor" in command
        if "VmHWM" in status and (pid == driver or is_actor):
            seen[pid] = (is_actor, float(status.partition("VmHWM:")[2].split()[0]) / 1000)


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those they have started."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [*children, *(below for child in children for below in descendants(child))]


def simulate_clients(folder: Path, asked: int) -> None:
    """Run the sites of a folder, so many in a round, and write the seconds it took."""
    from fedrag.config.scenario import Config
    from fedrag.simulation.simulate import simulate

    start = time.monotonic()
    sites = len(list((folder / "sites").iterdir()))
    federation = {**TINY["federation"], "fraction": asked / sites}
    settings = {**TINY, "federation": federation, "data": {"sites": str(folder / "sites")}, "simulation": ON_RAY}
    run = simulate(Config.from_dict({"name": "clients", **settings}), out=folder / "run")
    records = run.rounds()
    assert [len(record["sites"]) for record in records] == [asked] * ROUNDS
    seconds = {"rounds_s": sum(r["seconds"] for r in records), "whole_s": time.monotonic() - start}
    (folder / "told.json").write_text(json.dumps(seconds))


def plot(peaks: Sequence[Peak]) -> None:
    """Draw clients against time and memory."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, (times, memory) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    clients = [peak.clients for peak in peaks]
    times.plot(clients, [peak.whole_s for peak in peaks], "o-", label="whole run")
    times.plot(clients, [peak.rounds_s for peak in peaks], "o-", label=f"{ROUNDS} rounds")
    times.set(xlabel="clients", ylabel="seconds", xlim=(0, None), ylim=(0, None))
    memory.plot(clients, [peak.driver_mb for peak in peaks], "o-", label="driver")
    memory.plot(clients, [peak.actor_mb for peak in peaks], "o-", label="largest actor")
    memory.set(xlabel="clients", ylabel="peak memory (MB)", xlim=(0, None), ylim=(0, None))
    for axes in (times, memory):
        axes.set_ylim(top=1.1 * axes.get_ylim()[1])
        axes.legend(loc="lower right")
        axes.grid(alpha=0.3)
    figure.savefig(PLOT, dpi=120)


def measure_start(options: Options) -> list[Row]:
    """Measure the start of the command over both grids."""
    rows = []
    for grid in ("in-process", "ray"):
        seconds = seconds_to_first_client(grid)
        rows.append(Row(f"start of fedrag simulate to its first client, {grid}", seconds, "s", 15.0, most=True))
    return rows


def seconds_to_first_client(grid: str) -> float:
    """Run the smallest scenario with the command, and wait for a client's first trace on the disk."""
    settings = (f"simulation.grid={grid}", "federation.rounds=1", "evaluation.split=none", "evaluation.baselines=[]")
    with tempfile.TemporaryDirectory() as name:
        run, environment = Path(name) / "run", without_scores(Path(name))
        scores = Path(environment["FEDRAG_HOME"]) / "answer-scores"
        sets = [part for setting in settings for part in ("--set", setting)]
        script = "from fedrag.cli.main import main; main()"
        command = [
            sys.executable,
            "-c",
            script,
            "simulate",
            "simulations/scenarios/tiny.toml",
            "--out",
            str(run),
            *sets,
        ]
        start = time.monotonic()
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
            while not list(scores.glob("*/*")) and process.poll() is None:
                time.sleep(0.01)
            seconds = time.monotonic() - start
        if process.returncode:
            raise RuntimeError("fedrag simulate failed")
    return seconds


def without_scores(folder: Path) -> dict[str, str]:
    """Return the environment of a process that finds the fetched models and no answer scores of earlier runs."""
    from fedrag.weights.store import fedrag_home

    home = folder / "home"
    home.mkdir()
    (home / "models").symlink_to(fedrag_home() / "models")
    return {**os.environ, "FEDRAG_HOME": str(home)}


class Stopwatch:
    """Adds up the seconds that some functions take; what they call of each other counts once."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._is_running = False

    @contextmanager
    def on(self, places: Sequence[tuple[Any, str]]) -> Iterator[None]:
        """Time functions, each an attribute of a module or a class."""
        originals = [(owner, name, getattr(owner, name)) for owner, name in places]
        for owner, name, function in originals:
            setattr(owner, name, self._timed(name, function))
        try:
            yield
        finally:
            for owner, name, function in originals:
                setattr(owner, name, function)

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*given: Any, **named: Any) -> Any:
            if self._is_running:
                return function(*given, **named)
            self._is_running = True
            start = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                self._is_running = False
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

        return timed


def measure_overhead(options: Options) -> list[Row]:
    """Measure the share of a round that is no work on the models."""
    from fedrag.components import generator_steps, retriever_steps
    from fedrag.config.scenario import Config
    from fedrag.models.retriever import Retriever
    from fedrag.rag import pipeline
    from fedrag.simulation.simulate import simulate

    imported = (ROOT / "data" / "policyqa").is_dir()
    data = ROOT / "data" / "policyqa" if imported else ROOT / "simulations" / "data" / "space"
    only = ["cbsinteractive.com", "sci-news.com", "washingtonian.com"] if imported else ["esa", "isro"]
    settings = ["federation.rounds=1", f"data.sites={data}", f"data.only={json.dumps(only)}"]
    config = Config.from_file(ROOT / "simulations" / "scenarios" / "policyqa.toml", settings)
    watch = Stopwatch()
    work = [
        (retriever_steps, "train_retriever"),
        (retriever_steps, "score_answers"),
        (generator_steps, "train_generator"),
        (generator_steps, "score_answers"),
        (Retriever, "encode_queries"),
        (Retriever, "encode_passages"),
        (pipeline, "decode"),
        (pipeline, "score_answers"),
    ]
    with tempfile.TemporaryDirectory() as folder, watch.on(work):
        run = simulate(config, out=Path(folder) / "run")
        [record] = run.rounds()
    share = 1 - sum(watch.seconds.values()) / record["seconds"]
    figures = {"round_seconds": record["seconds"], "work_seconds": watch.seconds, "sites": only}
    what = f"share of a {'PolicyQA' if imported else 'space'} round that is no work on the models"
    return [Row(what, 100 * share, "%", 5.0, most=True, figures=figures)]


def measure_flower(options: Options) -> list[Row]:
    """Measure a small round against the ordinary Flower app."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sites = write_small_sites(folder / "sites", FLOWER_SITES, questions=2, passages=4)
        environment = without_scores(folder) | {"FLWR_HOME": f"{name}/flwr"}
        told: dict[str, list[float]] = {}
        for who, command in (
            ("fedrag", [str(Path(__file__)), "--against-flower", name]),
            ("flower", [str(Path(__file__).parent / "flower_app.py"), str(sites), str(ROUNDS), f"{name}/flower.json"]),
        ):
            subprocess.run([sys.executable, *command], env=environment, check=True)
            told[who] = json.loads((folder / f"{who}.json").read_text())
    ours, theirs = (statistics.median(told[who][1:]) for who in ("fedrag", "flower"))
    figures = {"fedrag_round_seconds": told["fedrag"], "flower_round_seconds": told["flower"]}
    what = f"a small round of {FLOWER_SITES} clients against a Flower app that loads its models in every call"
    first = told["flower"][0] / told["fedrag"][0]
    return [
        Row(what, theirs / ours, "x", 5.0, figures=figures),
        Row("the first round of these: models not yet loaded, answers not yet scored", first, "x"),
    ]


def simulate_against_flower(folder: Path) -> None:
    """Do the work of the Flower app, and write the seconds of each round."""
    from fedrag.config.scenario import Config
    from fedrag.simulation.simulate import simulate

    config = Config.from_dict(
        {
            "name": "small",
            "data": {"sites": str(folder / "sites")},
            "rag": {"instruction": "", "passages": 1},
            "retriever": {"loss": "lsr", "batch_size": 1, "lsr": {"candidates": 2, "scorer": "untouched"}},
            "federation": {"rounds": ROUNDS, "schedule": "retriever", "deliver": False},
            "evaluation": {"split": "none"},
            "simulation": ON_RAY,
        }
    )
    run = simulate(config, out=folder / "run")
    (folder / "fedrag.json").write_text(json.dumps([record["seconds"] for record in run.rounds()]))


@dataclass(frozen=True)
class Options:
    """What is measured."""

    only: tuple[str, ...]
    clients: tuple[int, ...]
    plot: bool


def measure(options: Options) -> list[Row]:
    """Measure the parts that are asked for."""
    measures = {
        "no_op": measure_no_op,
        "clients": measure_clients,
        "many": measure_many,
        "start": measure_start,
        "overhead": measure_overhead,
        "flower": measure_flower,
    }
    return [row for part in options.only for row in measures[part](options)]


def parse_options() -> Options:
    """Take this file's own options off the command line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--clients", default="50,200,1000")
    parser.add_argument("--plot", action="store_true")
    found, sys.argv[1:] = parser.parse_known_args()
    return Options(tuple(found.only.split(",")), tuple(map(int, found.clients.split(","))), found.plot)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--simulate"]:
        simulate_clients(Path(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:2] == ["--against-flower"]:
        simulate_against_flower(Path(sys.argv[2]))
    else:
        options = parse_options()
        main(lambda: measure(options))
