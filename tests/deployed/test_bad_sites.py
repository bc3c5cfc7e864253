"""A registered site gone bad, over real connections: its key is good, and what it sends is not."""

from __future__ import annotations

from functools import partial

import pytest
from bad_replies import BAD_REPLIES, CANARY
from bad_site import BadSite
from deployment import Deployment
from foul_messages import answering_another, garbage, large
from tiny_federation import tiny_config
from typer.testing import CliRunner

from fedrag.cli.main import app
from fedrag.coordinator.overview import site_rows

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("tiny_home")]

DEADLINE_S = 5.0


@pytest.fixture(scope="module")
def deployment(deployment: Deployment) -> Deployment:
    """Leave north alone: the tests answer as south."""
    deployment.end("south")
    deployment.wait_until_online(["north"])
    return deployment


def test_whatever_a_registered_site_sends_costs_that_reply_alone_and_is_named(deployment, data, tmp_path):
    """One fault a round; in the last one the site takes part honestly, so it could all along."""
    bad = BadSite(deployment.root / "south", deployment.root / "north")
    faults = {name: (partial(bad.changed, change=change), reason) for name, (change, reason) in BAD_REPLIES.items()}
    faults["changed after it was signed"] = (bad.tampered, "signature_not_valid")
    faults["another site's name"] = (bad.signed_by_another, "signature_not_valid")
    faults["late"] = (bad.kept_back, f"no reply within {DEADLINE_S:g} s")
    settings = {"schedule": "generator", "min_sites": 2, "quorum": 0.5, "deadline_s": DEADLINE_S}
    config = tiny_config(data, federation=settings | {"rounds": len(faults) + 1, "greeting_timeout_s": 180.0})
    name = deployment.begin(config)
    bad.serve(iter([answer for answer, _ in faults.values()]), until=lambda: not deployment.server.current())
    run = deployment.wait_until_done(name)
    *rounds, last = run.rounds()
    for record, (fault, (_, reason)) in zip(rounds, faults.items(), strict=True):
        assert list(record["sites"]) == ["north"], fault
        assert reason in record["left_out"]["south"], fault
        assert f"south is left out of round {record['round']}: " in deployment.executor_log, fault
    assert sorted(last["sites"]) == ["north", "south"], last["left_out"]
    assert run.delivered_to == ["north", "south"]
    for path in deployment.server.path.rglob("*"):
        if path.is_file() and path.suffix != ".db":  # there the messages lie as they came
            assert CANARY.encode() not in path.read_bytes(), path


def test_replies_that_flower_cannot_read_end_no_run_and_three_set_their_site_aside(deployment, data):
    (deployment.server.path / "conduct.json").unlink(missing_ok=True)  # two of the replies above are held against it
    bad = BadSite(deployment.root / "south", deployment.root / "north")
    faults = [
        (bad.claims_the_next_request, ""),
        (lambda reply, asked: garbage(asked), "reply_cannot_be_read"),
        (lambda reply, asked: answering_another(reply), "reply_answers_another_request"),
        (lambda reply, asked: large(asked, 30), "reply_is_too_large"),
    ]
    settings = {"schedule": "generator", "min_sites": 2, "quorum": 0.5, "deadline_s": 60.0}
    config = tiny_config(data, name="foul", federation=settings | {"rounds": 6, "greeting_timeout_s": 180.0})
    name = deployment.begin(config)
    before = database_mb(deployment)
    bad.serve(iter([answer for answer, _ in faults]), until=lambda: not deployment.server.current())
    assert database_mb(deployment) < before + 10, "of 30 MB nothing was stored"
    run = deployment.wait_until_done(name)
    rounds = run.rounds()
    assert [line["round"] for line in rounds] == [1, 2, 3, 4, 5, 6]
    for record, (_, reason) in zip(rounds, faults, strict=False):
        assert "north" in record["sites"]
        assert reason in record["left_out"].get("south", ""), record
        assert bool(reason) == ("south" in record["left_out"]), record
    assert [line["asked"] for line in rounds[4:]] == [["north"], ["north"]]
    assert "south is set aside after 3 bad replies" in deployment.executor_log
    assert "the executor died" not in deployment.log("server")
    assert run.delivered_to == ["north"]

    rows = {row["name"]: row["state"] for row in site_rows(deployment.server)}
    assert rows == {"north": "online", "south": "set aside"}
    told = CliRunner().invoke(app, ["server", "let-in", str(deployment.server.path), "south"])
    assert told.exit_code == 0, told.output
    again = deployment.begin(
        tiny_config(data, name="again", federation=settings | {"rounds": 1, "greeting_timeout_s": 300.0})
    )
    bad.serve(iter([]), until=lambda: not deployment.server.current())
    assert sorted(deployment.wait_until_done(again).rounds()[0]["sites"]) == ["north", "south"]


def database_mb(deployment: Deployment) -> float:
    return sum(file.stat().st_size for file in deployment.server.path.glob("superlink.db*")) / 1e6
