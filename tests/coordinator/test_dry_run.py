"""A dry run of a deployed scenario, of a folder whose sites told this and that."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tiny_federation import tiny_config
from typer.testing import CliRunner
from written_run import new_folder, record, write_run

from fedrag import __version__
from fedrag.cli.main import app
from fedrag.config.scenario import Config
from fedrag.coordinator.dry_run import DryRun, ForeseenSite, dry_run, summary_lines
from fedrag.coordinator.foreseen import Asked, refusals_of_all
from fedrag.coordinator.server_folder import ServerFolder
from fedrag.errors import ModelError
from fedrag.runs.run_folder import RunFolder
from fedrag.site.policy import RequestedWork, is_too_large, policy_numbers, refusal_of_request, tells_counts
from fedrag.site.site_config import Policy
from fedrag.site.work_ledger import Ledger

COUNTS = {"train_questions": 40, "answered_questions": 40, "labelled_questions": 12, "validation_questions": 4}
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)

pytestmark = pytest.mark.usefixtures("tiny_home")


OPEN = Policy()


def told(policy: Policy | None = OPEN, version: str = __version__, **counts: int) -> dict[str, Any]:
    """Return a greeting as a run's folder records it."""
    return {"version": version, "counts": COUNTS | counts, "policy": policy_numbers(policy) if policy else {}}


def greeted(folder: ServerFolder, **sites: dict[str, Any]) -> RunFolder:
    """Write a run whose sites told this of themselves."""
    run = write_run(folder, [record(1)])
    run.record_sites(sites)
    return run


def foreseen(folder: ServerFolder, name: str, **federation: Any) -> ForeseenSite:
    found = dry_run(folder, tiny_config(federation=federation))
    return next(site for site in found.sites if site.site == name)


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    return new_folder(tmp_path)


def test_a_site_that_allows_everything_would_take_part(folder: ServerFolder):
    greeted(folder, north=told())
    assert foreseen(folder, "north") == ForeseenSite("north", "unknown", "takes part", ())
    assert foreseen(folder, "south") == ForeseenSite(
        "south", "unknown", "not known", ("did not answer a greeting yet",)
    )


def test_a_site_that_keeps_its_policy_is_not_known(folder: ServerFolder):
    greeted(folder, north=told(None))
    assert foreseen(folder, "north") == ForeseenSite("north", "unknown", "not known", ("does not tell its policy",))


@pytest.mark.parametrize(
    ("policy", "federation", "says"),
    [
        (Policy(schedules=("alternate",)), {}, "its policy does not allow this schedule (policy-schedule)"),
        (Policy(components=("retriever",)), {}, "its policy does not allow work on this component (policy-component)"),
        (
            Policy(),
            {"own": True},
            "its policy does not allow this module of functions, or not this source of it (policy-module)",
        ),
        (Policy(max_message_mb=0.001), {}, "its policy does not allow messages this large (policy-message-size)"),
        (
            Policy(min_examples=13),
            {"schedule": "retriever"},
            "its policy does not allow training on so few questions (policy-few-examples)",
        ),
        (
            Policy(tell_counts=False),
            {},
            "its policy does not allow weighting by counts, which it does not tell (policy-counts)",
        ),
    ],
)
def test_a_policy_that_refuses_every_round_is_told_with_its_code(folder, policy, federation, says):
    greeted(folder, north=told(policy))
    own = {"module": "fnmatch", "rule": "fnmatch"} if federation.pop("own", False) else {}
    found = dry_run(folder, tiny_config(federation=federation, own=own))
    assert ForeseenSite("north", "unknown", "refuses", (says,)) in found.sites


def test_a_policy_that_refuses_some_rounds_or_times_takes_part_and_says_so(folder: ServerFolder):
    policy = Policy(
        components=("retriever",),
        base_models={"a/b": "0" * 64},
        rounds_a_day=1,
        minutes_a_day=30,
        quiet_hours="22:00-06:00",
        max_update_norm=2.5,
    )
    greeted(folder, north=told(policy))
    site = foreseen(folder, "north", schedule="alternate", rounds=3, diagnose=True)
    assert site.answer == "takes part"
    assert site.says == (
        "refuses the 2 rounds that train the generator",
        "works with 1 named model only, and does not tell which",
        "refuses after 1 round on one day",
        "refuses after 30 minutes of work on one day",
        "refuses 22:00-06:00 (its time)",
        "keeps an update whose norm is above 2.5",
        "does not tell why its answers are wrong",
    )


def test_a_site_that_trains_small_adapters_says_so(folder: ServerFolder):
    greeted(folder, north=told(Policy(max_rank=1)))
    refused = "its policy does not allow adapters of this rank, unless federation.rule is svd (policy-rank)"
    assert foreseen(folder, "north") == ForeseenSite("north", "unknown", "refuses", (refused,))
    site = foreseen(folder, "north", retriever={"rule": "svd"}, rounds=4, schedule="alternate")
    assert site.says[:2] == (
        "refuses the 2 rounds that train generator adapters of more than rank 1",
        "trains retriever adapters of rank 1 only",
    )


def test_a_site_without_questions_or_of_another_version_sits_out(folder: ServerFolder):
    none = dict.fromkeys(COUNTS, 0)
    greeted(folder, north=told(**none), south=told(version="0.0.1"))
    assert foreseen(folder, "north").says == ("has no training questions of the kind that this run learns from",)
    assert foreseen(folder, "south").says == (f"runs fedrag 0.0.1, this coordinator {__version__}",)
    assert {foreseen(folder, name).answer for name in ("north", "south")} == {"sits out"}


def test_only_what_a_site_told_last_counts(folder: ServerFolder):
    greeted(folder, north=told(Policy(schedules=("alternate",))))
    greeted(folder, north=told())
    assert foreseen(folder, "north").answer == "takes part"


POLICIES = {
    "nothing": Policy(),
    "one component": Policy(components=("generator",)),
    "one schedule": Policy(schedules=("retriever",)),
    "small messages": Policy(max_message_mb=0.0001),
    "many examples": Policy(min_examples=30),
    "very many examples": Policy(min_examples=50),
    "no counts": Policy(tell_counts=False),
    "noise alone": Policy(max_epsilon=8.0),
    "small adapters": Policy(max_rank=1),
    "large adapters": Policy(max_rank=2),
    "secure sums alone": Policy(secure="required"),
}


@pytest.mark.parametrize("schedule", ["joint", "generator", "retriever"])
@pytest.mark.parametrize("weighting", ["examples", "equal"])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_what_is_foreseen_is_what_the_site_itself_says(policy: Policy, weighting: str, schedule: str):
    """The same rules are read at both ends; here the site's own function decides."""
    config = tiny_config(federation={"schedule": schedule, "weighting": weighting})
    names = {"joint": ("generator", "retriever")}.get(schedule, (schedule,))
    fewest = 12 if "retriever" in names else 40
    request = RequestedWork(config, names, {}, train_questions=fewest)
    code = "policy-message-size" if is_too_large(policy, 5000) else refusal_of_request(policy, request, Ledger(), NOON)
    counts = COUNTS if tells_counts(policy) else dict.fromkeys(COUNTS, 1)
    codes = refusals_of_all(policy_numbers(policy), Asked(config, 5000, counts))
    assert code == (codes or [""])[0]


def test_a_run_with_noise_says_what_it_costs_each_site(folder: ServerFolder):
    greeted(folder, north=told())
    config = tiny_config(federation={"schedule": "generator"}, privacy={"epsilon": 8.0})
    [says] = [site.says for site in dry_run(folder, config).sites if site.site == "north"]
    assert any(f"at {COUNTS['train_questions']} questions epsilon 8 means noise" in line for line in says), says


def test_bytes_are_those_of_the_rounds_the_scores_and_the_delivery(folder: ServerFolder):
    greeted(folder, north=told(), south=told())
    federation = {"schedule": "alternate", "rounds": 3, "keep": "best", "diagnose": True, "wire": "float32"}
    found = dry_run(folder, tiny_config(federation=federation))
    # Rank 2, two layers. Generator: q k v o (32 to 32), gate up (32 to 64), down (64 to 32);
    # retriever: query key value dense (32 to 32), two more dense (32 to 64, 64 to 32).
    generator = 4 * 2 * 2 * (4 * (32 + 32) + 3 * (32 + 64))
    retriever = 4 * 2 * 2 * (4 * (32 + 32) + 2 * (32 + 64))
    assert found.traffic.back == (generator, retriever, generator)
    both = generator + retriever
    assert found.traffic.delivered == both
    assert found.traffic.asked == 6 * both  # three validations, the one before the first round, and two diagnoses
    assert found.total_bytes == 2 * (sum(found.traffic.to_site) + sum(found.traffic.back) + 7 * both)


def test_a_factor_that_is_frozen_in_a_round_is_not_counted_as_sent(folder: ServerFolder):
    """A dry run counted both factors back, however the adapters are averaged."""
    greeted(folder, north=told(), south=told())
    own = {"generator": {"rule": "ffa"}, "retriever": {"rule": "rolora"}}
    found = dry_run(folder, tiny_config(federation={"rounds": 3, "wire": "float32", **own}))
    # What the factors of the test above have: A is (rank, in), B is (out, rank).
    generator_b = 4 * 2 * 2 * (4 * 32 + 2 * 64 + 32)
    retriever_a = retriever_b = 4 * 2 * 2 * (4 * 32 + 32 + 64)
    assert found.traffic.back == (generator_b + retriever_b, generator_b + retriever_a, generator_b + retriever_b)
    generator_a = 4 * 2 * 2 * (4 * 32 + 2 * 32 + 64)
    assert found.traffic.to_site == (generator_a + generator_b + retriever_a + retriever_b,) * 3


def test_time_is_that_of_an_earlier_run_that_trained_alike(folder: ServerFolder):
    config = tiny_config(federation={"rounds": 4})
    assert dry_run(folder, config).pace is None
    alike = RunFolder.create(tiny_config(federation={"rounds": 2}).on_its_day(), root=folder.runs)
    RunFolder.create(tiny_config(federation={"schedule": "retriever"}).on_its_day(), root=folder.runs)
    (alike.path / "rounds.jsonl").write_text("".join(json.dumps(record(n) | {"seconds": 30.0}) + "\n" for n in (1, 2)))
    assert "time: about 2 min 00 s; tiny-1 took 30 s a round" in summary_lines(dry_run(folder, config))
    other = tiny_config(federation={"rounds": 4}, generator={"learning_rate": 0.5})
    assert dry_run(folder, other).pace is None


def asked_by_command(folder: ServerFolder, config: Config, *more: str) -> Any:
    scenario = folder.path.parent / "scenario.toml"
    scenario.write_text(config.to_toml())
    return CliRunner().invoke(app, ["server", "run", str(folder.path), str(scenario), "--dry-run", *more])


def test_the_command_shows_it_and_neither_starts_nor_writes_anything(folder: ServerFolder):
    greeted(folder, north=told(), south=told(Policy(schedules=("alternate",))))

    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}

    assert not folder.is_running  # the look leaves the empty file that is locked
    before = content()
    result = asked_by_command(folder, tiny_config(), "--set", "federation.min_sites=2")
    assert result.exit_code == 0, result.output
    assert content() == before
    text = " ".join(result.stdout.split())
    assert "north unknown takes part" in text
    assert "south unknown refuses its policy does not allow this schedule (policy-schedule)" in text
    assert "tiny: 2 rounds, schedule joint" in text
    assert "sites: 1 of 2 may take part, at least 2 are needed; the run would wait for more, and stop" in text
    assert "it could not begin now: the coordinator is not running; start it with: fedrag server start" in text


def test_the_command_tells_it_as_json(folder: ServerFolder):
    greeted(folder, north=told())
    told_json = json.loads(asked_by_command(folder, tiny_config(), "--json").stdout)
    found: DryRun = dry_run(folder, tiny_config())
    assert told_json == found.to_json()
    assert told_json["may_take_part"] == 2
    assert told_json["bytes"]["total"] == found.total_bytes > 0


def test_a_model_that_is_not_fetched_is_told_in_one_sentence(folder: ServerFolder):
    config = tiny_config(models={"generator": "nobody/nothing"})
    with pytest.raises(ModelError):
        dry_run(folder, config)
    result = asked_by_command(folder, config)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
