"""A coordinator and two sites, as real processes on loopback, with the tiny models."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess

import pytest
from deployment import FEDRAG
from tiny_federation import assert_same_state, tiny_config

from fedrag.errors import ServiceError
from fedrag.site.egress import read_egress

pytestmark = pytest.mark.usefixtures("tiny_home")

NAMES = ("north", "south")


@pytest.mark.slow
def test_a_deployed_run_gives_the_bits_of_a_simulated_one_and_the_sites_get_them(deployment, two_rounds, undisturbed):
    name = deployment.begin(two_rounds)
    run = deployment.wait_until_done(name)
    assert_same_state(run.load_result(), undisturbed)
    deployment.assert_all_took_part(run)
    for site in NAMES:
        delivered = deployment.root / site / "models" / name
        assert (delivered / "generator.safetensors").is_file()
        kinds = [line["kind"] for line in read_egress(deployment.root / site / "egress.jsonl")]
        assert kinds[-4:] == ["greet", "train", "train", "deliver"]


@pytest.mark.slow
def test_a_site_or_a_coordinator_is_not_started_twice(deployment):
    for group, folder, who in (("server", "server", "a coordinator"), ("client", "north", "a site")):
        command = [FEDRAG, group, "start", str(deployment.root / folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        assert done.returncode == 2
        assert f"{who} is running in this folder already" in done.stderr


@pytest.mark.faults
def test_a_second_run_is_refused_with_the_name_of_the_first(deployment, two_rounds):
    name = deployment.begin(two_rounds)
    with pytest.raises(ServiceError, match=f"{name} is running"):
        deployment.begin(two_rounds)
    deployment.stop()
    deployment.wait(lambda: not deployment.server.current(), 30, "the run stopped")
    assert deployment.outcome(name).state == "stopped"


@pytest.mark.faults
def test_a_certificate_that_is_renewed_in_mid_training_is_in_use_at_once_and_costs_nothing(
    deployment, two_rounds, undisturbed
):
    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", deployment.server.config.port))

    before = shown()
    name = deployment.begin(two_rounds)
    deployment.wait_for_round(name, 1)
    deployment.server.renew_certificate()
    assert len(deployment.rounds(name)) == 1, "round 2 was quicker than this test"
    deployment.wait(lambda: "the renewed certificate is in use" in deployment.log("server"), 30, "told")
    deployment.wait(lambda: shown() != before, 30, "the reverse proxy shows it")
    run = deployment.wait_until_done(name)
    deployment.assert_all_took_part(run)
    assert_same_state(run.load_result(), undisturbed)
    assert shown().strip() == (deployment.server.path / "server.crt").read_text().strip()


@pytest.mark.faults
def test_a_site_that_was_away_gets_the_result_when_it_comes_back(deployment, data):
    deployment.end("south")
    deployment.wait_until_online(["north"])
    name = deployment.begin(tiny_config(data, federation={"rounds": 1, "greeting_timeout_s": 40.0}))
    run = deployment.wait_until_done(name)
    assert run.delivered_to == ["north"]
    deployment.start_site("south")
    deployment.wait(lambda: run.delivered_to == ["north", "south"], 120, "the result delivered late")
    assert (deployment.root / "south" / "models" / name / "generator.safetensors").is_file()


@pytest.mark.faults
def test_a_site_that_hangs_is_ended_at_the_deadline_and_the_round_goes_on_without_it(deployment, data):
    """Its worker is stopped by a signal, as a process in a dead lock would stand still."""
    config = tiny_config(
        data,
        generator={"epochs": 40},
        federation={"rounds": 2, "deadline_s": 25.0, "quorum": 0.5, "greeting_timeout_s": 180.0},
    )
    name = deployment.begin(config)
    deployment.wait(lambda: f"{name}, train.round, round 1" in deployment.node_log("north"), 90, "north trains")
    (worker,) = deployment.worker_pids("north")
    os.kill(worker, signal.SIGSTOP)
    run = deployment.wait_until_done(name)
    first, second = run.rounds()
    assert "the deadline passed" in first["left_out"]["north"]
    assert sorted(second["sites"]) == list(NAMES), second["left_out"]
