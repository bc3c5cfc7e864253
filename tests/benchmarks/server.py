"""The server's round: peak memory with 10, 100 and 1,000 sites, and how fast updates are folded in.

The updates have the shapes of a LoRA of rank 6 on all linear layers of SmolLM2-135M: 1.8 million float32, 7.3 MB.

Memory: `fold_replies` asks so many clients of the in-process grid for one round. A client makes its update when it
is asked, so that no two replies are alive unless the server keeps them. Each number of sites is a process of its own;
the figure is the most memory it has held. The increase is that of 1,000 over 10 sites.

Rate: bytes of updates that one thread folds in a second. `ExactMean.add` is the fold alone. The whole path of a reply
is reading the message, decoding, all checks, the sketch of the aggregation error and the fold, in seconds of the
processor without what the clients take. A copy of the same bytes, measured in turn, shows the machine's bound.

Order: one row is 1 where 20 updates have the same mean in every bit forwards, backwards and shuffled; that it is so for
any updates is shown by tests/federation/test_aggregation.py.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from bench import Row, in_turn, main, peak_mb
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedrag.config.scenario import Config
from fedrag.federation.aggregation import ExactMean
from fedrag.federation.exchange import Federation, KnownSite
from fedrag.federation.fold import fold_replies
from fedrag.federation.greeting import Greeting
from fedrag.federation.messages import TRAIN, Reply, Request, reply_content, request_content
from fedrag.federation.update import manifest_of
from fedrag.grids.in_process import InProcessGrid
from fedrag.runs.run_folder import RunFolder
from fedrag.types import Array, Tensors

SITES = (10, 100, 1000)
RATED_SITES = 50
TIMES = 15
FOLDED = 4  # updates that are folded in turn, so that none stays in the cache
RANK, LAYERS, WIDTH, KEYS, INNER = 6, 30, 576, 192, 1536
LINEAR = {
    "q_proj": (WIDTH, WIDTH),
    "k_proj": (KEYS, WIDTH),
    "v_proj": (KEYS, WIDTH),
    "o_proj": (WIDTH, WIDTH),
    "gate_proj": (INNER, WIDTH),
    "up_proj": (INNER, WIDTH),
    "down_proj": (WIDTH, INNER),
}


def adapter() -> Tensors:
    """Return factors of the adapter, normally distributed."""
    random = np.random.default_rng(0)
    shapes = {
        f"layers.{layer}.{name}.{factor}.weight": shape
        for layer in range(LAYERS)
        for name, (rows, columns) in LINEAR.items()
        for factor, shape in (("lora_A", (RANK, columns)), ("lora_B", (rows, RANK)))
    }
    return {name: 0.01 * random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def client_app(update: Array, tensors: Tensors, seconds: list[float]) -> ClientApp:
    """Return a client that answers with a multiple of one update of its own, and notes how long it took."""
    manifests = {"generator": manifest_of(tensors)}
    app = ClientApp()

    @app.train(TRAIN.partition(".")[2])
    def train(message: Message, context: Context) -> Message:
        start = time.process_time()
        number = int(str(context.node_config["site-name"]).removeprefix("site-"))
        reply = Reply({"generator": update * np.float32(1 + number / 10_000)}, {"generator": 1 + number % 7})
        answer = Message(reply_content(reply, manifests, "float32"), reply_to=message)
        seconds.append(time.process_time() - start)
        return answer

    return app


def server_round(count: int) -> dict[str, float]:
    """Fold the replies of one round; return the peak memory and the processor's seconds at the server."""
    config = Config.from_dict({"name": "bench", "data": {"sites": "sites"}})
    tensors = adapter()
    update = 0.01 * np.random.default_rng(1).standard_normal(manifest_of(tensors).size, dtype=np.float32)
    names = [f"site-{number:04d}" for number in range(count)]
    at_clients: list[float] = []
    grid = InProcessGrid(client_app(update, tensors, at_clients), [{"site-name": name} for name in names])
    nodes = zip(grid.get_node_ids(), names, strict=True)
    chosen = [KnownSite(node, Greeting(name, "", {"train_questions": 7}, {})) for node, name in nodes]
    request = Request(config.to_toml(), 1, {"generator": tensors}, ("generator",), {}, config.federation.deadline_s)
    content = request_content(request)
    start = time.process_time()
    folded = fold_replies(Federation(grid, RunFolder(Path(), config)), request, content, chosen)
    seconds = time.process_time() - start - sum(at_clients)
    assert len(folded.sites) == count
    return {"peak_mb": peak_mb(), "seconds": seconds, "bytes": float(count * update.nbytes)}


def in_a_process(count: int) -> dict[str, float]:
    """Run a round in a new process, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(server_round, count).result()


def fold_rates() -> dict[str, float]:
    """Return the bytes a second of `ExactMean.add`, over several updates in turn, and of a copy."""
    random = np.random.default_rng(2)
    updates = [0.01 * random.standard_normal(manifest_of(adapter()).size, dtype=np.float32) for _ in range(FOLDED)]
    target = np.empty_like(updates[0])
    mean = ExactMean(target.size, 1000.0, 2**20)

    def fold() -> None:
        for update in updates:
            mean.add(update, 100)

    def copy() -> None:
        for update in updates:
            np.copyto(target, update)

    seconds = in_turn(TIMES, fold=fold, copy=copy)
    return {name: FOLDED * target.nbytes / taken for name, taken in seconds.items()}


def same_in_any_order() -> bool:
    """Say whether 20 updates, forwards, backwards and shuffled, have the same mean in every bit."""
    random = np.random.default_rng(3)
    updates = [random.standard_normal(100_000, dtype=np.float32) for _ in range(20)]
    orders = [range(20), range(19, -1, -1), random.permutation(20)]
    means = []
    for order in orders:
        mean = ExactMean(100_000, 1000.0, 20 * 1000)
        for place in order:
            mean.add(updates[place], 37 * int(place) + 11)
        means.append(mean.result().tobytes())
    return len(set(means)) == 1


def measure() -> list[Row]:
    """Measure the server's memory and rate."""
    rates = fold_rates()
    rounds = {count: in_a_process(count) for count in SITES}
    rated = [in_a_process(RATED_SITES) for _ in range(3)]
    path = statistics.median(run["seconds"] / run["bytes"] for run in rated)
    peaks: dict[str, Any] = {f"peak_mb_{count}_sites": run["peak_mb"] for count, run in rounds.items()}
    least, most = rounds[SITES[0]]["peak_mb"], rounds[SITES[-1]]["peak_mb"]
    return [
        Row(
            f"server: peak memory with {SITES[-1]:,} sites, more than with {SITES[0]}",
            100 * (most / least - 1),
            "%",
            5,
            most=True,
            figures=peaks,
        ),
        Row(
            "server: updates folded by ExactMean.add, one thread",
            rates["fold"] / 1e9,
            "GB/s",
            1,
            figures={"copy_gb_a_second": rates["copy"] / 1e9},
        ),
        Row(
            "server: the whole path of a reply, one thread",
            1e-9 / path,
            "GB/s",
            figures={"processor_ms_a_reply": 1e3 * path * rated[0]["bytes"] / RATED_SITES},
        ),
        Row("server: the mean in any order of arrival, bit for bit", float(same_in_any_order()), "= same", 1),
    ]


if __name__ == "__main__":
    main(measure)
