import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from numpy_clients import ALL_SCALED, NODE_CONFIGS, build_app, messages, numbers_by_site

from fedrag.errors import ConfigError, ModelError
from fedrag.grids.in_process import InProcessGrid
from fedrag.grids.ray_actors import RayGrid
from fedrag.grids.ray_pool import LONGEST_TEMP_PATH, RayPool, short_temp_folder

pytestmark = pytest.mark.slow  # Ray's processes alone take ten seconds to start and to end


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def grid(_cluster):
    with RayPool(len(NODE_CONFIGS), actors=2) as pool, RayGrid(build_app, NODE_CONFIGS, pool, threads=3) as grid:
        yield grid
    assert ray.is_initialized()  # it was not this pool that started Ray


def kill_client_b(folder: Path, attempt: int) -> None:
    """Wait until the client works for the nth time, then kill its process."""
    deadline = time.monotonic() + 90
    while not (pid := folder / f"{attempt}.pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(int(pid.read_text()), signal.SIGKILL)


def pull_one(grid, ids):
    deadline = time.monotonic() + 90
    while not (replies := grid.pull_messages(ids)):
        assert time.monotonic() < deadline
    return replies[0]


def pull_all(grid, ids):
    replies = []
    while waiting := set(ids) - {reply.metadata.reply_to_message_id for reply in replies}:
        replies.append(pull_one(grid, waiting))
    return replies


def test_a_path_too_long_for_sockets_is_replaced_by_a_short_one(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/" + (LONGEST_TEMP_PATH - 1) * "x")
    assert short_temp_folder() is None
    monkeypatch.setenv("TMPDIR", "/" + LONGEST_TEMP_PATH * "x")
    assert short_temp_folder() == "/tmp/ray"
    monkeypatch.setenv("TMPDIR", "/" + (LONGEST_TEMP_PATH // 2) * "京")  # bytes are counted, not letters
    assert short_temp_folder() == "/tmp/ray"
    monkeypatch.setattr("fedrag.grids.ray_pool.SHORT_TEMP", "/none")
    with pytest.raises(ConfigError, match=r"is too long for the sockets of Ray, and /none cannot be written; set RAY_"):
        short_temp_folder()


def test_both_grids_give_the_same_replies(grid):
    in_process = InProcessGrid(build_app(), NODE_CONFIGS)
    expected = in_process.send_and_receive(messages(in_process))
    replies = grid.send_and_receive(messages(grid))
    assert numbers_by_site(grid, replies) == numbers_by_site(in_process, expected) == ALL_SCALED
    assert {reply.content["node"]["id"] for reply in replies} == set(in_process.get_node_ids())
    assert list(grid.get_nodes()) == list(in_process.get_nodes())


def test_an_actor_keeps_its_client_app_and_the_threads_it_was_given(grid):
    replies = [*grid.send_and_receive(messages(grid, "query.process"))]
    replies += grid.send_and_receive(messages(grid, "query.process"))
    seen = [reply.content["process"] for reply in replies]
    assert {actor["threads"] for actor in seen} == {3}
    pids = [actor["pid"] for actor in seen]
    assert os.getpid() not in pids
    assert len(set(pids)) <= 2
    last_counts = {actor["pid"]: actor["calls"] for actor in seen}
    assert sum(last_counts.values()) == 8  # one app an actor: its own counter went on


def process_ids(grid: RayGrid) -> set[int]:
    return {reply.content["process"]["pid"] for reply in grid.send_and_receive(messages(grid, "query.process"))}


def test_grids_of_one_pool_use_the_same_processes_and_an_app_of_their_own():
    with RayPool(len(NODE_CONFIGS), actors=1, prepare="numpy_clients") as pool:
        with RayGrid(build_app, NODE_CONFIGS, pool, threads=3) as first:
            before = process_ids(first)
            assert numbers_by_site(first, first.send_and_receive(messages(first))) == ALL_SCALED
        with RayGrid(build_app, NODE_CONFIGS[:1], pool, threads=2) as second:
            [reply] = second.send_and_receive(messages(second, "query.process"))
            seen = reply.content["process"]
            assert ({seen["pid"]}, seen["threads"], seen["calls"]) == (before, 2, 1)
        assert ray.is_initialized()


def test_a_process_that_died_while_nobody_used_it_is_replaced():
    with RayPool(len(NODE_CONFIGS), actors=1) as pool:
        with RayGrid(build_app, NODE_CONFIGS, pool) as first:
            [before] = process_ids(first)
        os.kill(before, signal.SIGKILL)
        with RayGrid(build_app, NODE_CONFIGS, pool) as second:
            assert process_ids(second) != {before}


def test_a_fast_reply_comes_before_a_slow_one(grid, tmp_path):
    ids = grid.push_messages(messages(grid, "train.sleep", folder=str(tmp_path), times=1, seconds=1.0))
    order = list(numbers_by_site(grid, pull_all(grid, ids)))
    assert order[-1] == "b"
    assert sorted(order) == ["a", "b", "c", "d"]


def test_only_the_replies_asked_for_are_handed_out(grid):
    ids = grid.push_messages(messages(grid))
    assert pull_one(grid, ids[3:]).metadata.reply_to_message_id == ids[3]
    assert grid.pull_messages(ids[3:]) == []
    assert len(pull_all(grid, ids[:3])) == 3


def test_a_raising_client_gives_an_error_reply_with_the_class_name_only(grid, caplog):
    replies = grid.send_and_receive(messages(grid, "train.fail"))
    assert numbers_by_site(grid, replies) == {**ALL_SCALED, "b": (2, "FileNotFoundError")}
    assert "client b failed" in caplog.text
    assert "/srv/patients" in caplog.text


def test_a_reply_that_cannot_be_sent_is_an_error_of_that_client(grid):
    replies = grid.send_and_receive(messages(grid, "train.unsendable"))
    assert {error for error in numbers_by_site(grid, replies).values()} == {(0, "TypeError")}


def test_a_killed_client_is_asked_once_more_and_the_next_round_has_all(grid, tmp_path):
    """Flower's own backend puts a dead actor back to work: every later message it gets is lost."""
    ids = grid.push_messages(messages(grid, "train.sleep", folder=str(tmp_path), times=1, seconds=60))
    kill_client_b(tmp_path, attempt=1)
    assert numbers_by_site(grid, pull_all(grid, ids)) == ALL_SCALED
    assert (tmp_path / "2.pid").exists()
    for _ in range(2):
        assert numbers_by_site(grid, grid.send_and_receive(messages(grid))) == ALL_SCALED


def test_a_client_killed_twice_gives_an_error_reply_for_that_one_only(grid, tmp_path):
    ids = grid.push_messages(messages(grid, "train.sleep", folder=str(tmp_path), times=2, seconds=60))
    replies = []
    for attempt in (1, 2):
        while not (tmp_path / f"{attempt}.pid").exists():  # a pull notices a loss, asks again, takes in new actors
            replies += grid.pull_messages(ids)
        kill_client_b(tmp_path, attempt)
    replies += pull_all(grid, set(ids) - {reply.metadata.reply_to_message_id for reply in replies})
    assert numbers_by_site(grid, replies) == {**ALL_SCALED, "b": (8, "client process lost")}
    assert numbers_by_site(grid, grid.send_and_receive(messages(grid))) == ALL_SCALED


def test_a_client_that_hangs_past_its_time_to_live_is_ended_at_the_next_push(grid, tmp_path):
    grid.push_messages(messages(grid, "train.sleep", ttl=0.5, folder=str(tmp_path), times=1, seconds=60))
    time.sleep(0.6)
    replies = grid.send_and_receive(messages(grid), timeout=30)
    assert numbers_by_site(grid, replies) == ALL_SCALED


def test_work_that_nobody_waits_for_is_ended_and_its_process_replaced(grid, tmp_path):
    ids = grid.push_messages(messages(grid, "train.sleep", folder=str(tmp_path), times=1, seconds=300))
    deadline = time.monotonic() + 90
    while not (pid := tmp_path / "1.pid").exists():
        assert time.monotonic() < deadline
        grid.pull_messages([])  # there may be one process yet, which has another client's message
    grid.withdraw(ids)
    assert grid.pull_messages(ids) == []
    assert numbers_by_site(grid, grid.send_and_receive(messages(grid))) == ALL_SCALED
    while Path(f"/proc/{pid.read_text()}").exists():
        assert time.monotonic() < deadline + 90
        time.sleep(0.02)


def test_an_error_of_the_client_app_factory_comes_up_as_it_was_raised():
    def broken() -> None:
        raise ModelError("no weights")

    with RayPool(len(NODE_CONFIGS), actors=1) as pool, pytest.raises(ModelError, match="no weights"):
        RayGrid(broken, NODE_CONFIGS, pool)


def test_actors_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="3 CPUs and 0 GPUs"):
        RayPool(len(NODE_CONFIGS), cpus_per_actor=1000)
    with pytest.raises(ConfigError, match="4 with 1 CPUs"):
        RayPool(len(NODE_CONFIGS), actors=4)
    with pytest.raises(ConfigError, match="0.5 GPUs"):
        RayPool(len(NODE_CONFIGS), actors=1, gpus_per_actor=0.5)


OWN_RAY = """
import ray
from fedrag.grids.ray_actors import RayGrid
from fedrag.grids.ray_pool import RayPool
from numpy_clients import NODE_CONFIGS, build_app, messages, numbers_by_site

FACTOR = 10

def configs_of_main():
    return [{**config, "factor": str(FACTOR)} for config in NODE_CONFIGS]

def app_of_main():
    assert FACTOR == 10  # sent along: the actor cannot import this script
    return build_app()

with RayPool(len(NODE_CONFIGS)) as pool, RayGrid(app_of_main, configs_of_main(), pool) as grid:
    print(numbers_by_site(grid, grid.send_and_receive(messages(grid)))["d"])
print(ray.is_initialized())
"""


def test_a_pool_ends_the_ray_it_started_and_takes_functions_of_a_script(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    (tmp_path / "script.py").write_text(OWN_RAY)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["[10.0, 20.0, 30.0]", "False"], done.stderr
    assert done.stderr == ""


GPUS = """
import ray
from fedrag.grids.ray_pool import RayPool

ray.init(address="local", num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False)

def gpus_of(**settings):
    with RayPool(4, **settings) as pool:
        actors = [pool.take() for _ in range(pool.size)]
        ray.get([actor.prepare.remote("json") for actor in actors])
        held = 2 - float(ray.available_resources().get("GPU", 0))
        for actor in actors:
            ray.kill(actor)
        return pool.size, held

print(gpus_of(), gpus_of(actors=4), gpus_of(actors=1), gpus_of(gpus_per_actor=0.5))
"""


def test_where_there_are_gpus_actors_hold_them(tmp_path):
    """Ray hands out what it was told of: this machine needs no GPU."""
    (tmp_path / "script.py").write_text(GPUS)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.stdout.strip() == "(2, 2.0) (4, 2.0) (1, 1.0) (4, 2.0)", done.stderr
