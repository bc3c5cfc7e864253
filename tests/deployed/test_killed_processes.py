"""Every process of a coordinator and of a site is killed in the middle of training, and the result stays the same."""

from __future__ import annotations

import os
import signal
import time

import pytest
from tiny_federation import assert_same_state

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("tiny_home")]


@pytest.mark.parametrize("victim", ["worker", "node", "executor", "superlink", "proxy"])
def test_a_process_killed_in_mid_training_costs_nothing(deployment, two_rounds, undisturbed, victim):
    name = deployment.begin(two_rounds)
    begun = f"{name}, train.round, round 2"
    deployment.wait(lambda: begun in deployment.node_log("north"), 120, "round 2 trains", every_s=0.02)
    pids = {
        "worker": lambda: deployment.worker_pids("north"),
        "node": lambda: deployment.node_pids("north"),
        "executor": deployment.executor_pids,
        "superlink": deployment.superlink_pids,
        "proxy": deployment.proxy_pids,
    }[victim]()
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert len(deployment.rounds(name)) == 1, "round 2 was quicker than this test"
    run = deployment.wait_until_done(name)
    deployment.assert_all_took_part(run)
    assert_same_state(run.load_result(), undisturbed)


def test_the_whole_coordinator_killed_and_away_for_more_than_a_minute_goes_on(deployment, two_rounds, undisturbed):
    name = deployment.begin(two_rounds)
    deployment.wait_for_round(name, 1)
    deployment.kill_service("server")
    deployment.wait(lambda: not deployment.executor_pids() + deployment.superlink_pids(), 30, "all of it dead")
    deployment.wait(lambda: not deployment.proxy_pids(), 30, "the reverse proxy too")
    time.sleep(65.0)
    deployment.start_server()
    deployment.resume(name)  # it goes on by itself; to say so once more does no harm
    run = deployment.wait_until_done(name)
    deployment.assert_all_took_part(run)
    assert_same_state(run.load_result(), undisturbed)
