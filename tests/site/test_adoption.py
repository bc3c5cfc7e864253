"""Which delivered models come into use: verdicts by hand, what a policy makes of them, and what a person decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_federation import tiny_config

from fedrag.errors import ConfigError
from fedrag.evaluation.records import METRICS, Measured
from fedrag.site.adoption import UNTOUCHED, Verdict, adopt, decides_for, judge, record_verdict, state_of, verdict_line
from fedrag.site.delivery import Delivery, current_delivery, deliveries, roll_back, save_delivery
from fedrag.site.site_config import Policy


def scores(*values: float, metric: str = "f1") -> list[Measured]:
    return [
        Measured("clinic", f"q{n}", (), None, dict.fromkeys(METRICS) | {metric: value})
        for n, value in enumerate(values)
    ]


def receive(folder: Path, run: str, value: float = 1.0, *, adopts: bool = False) -> None:
    state = {"generator": {"weight": np.full(3, value, np.float32)}}
    save_delivery(folder, run, state, tiny_config().to_toml(), adopts=adopts)


def known(folder: Path) -> dict[str, Delivery]:
    return {delivery.run: delivery for delivery in deliveries(folder)}


def current(folder: Path) -> str | None:
    found = current_delivery(deliveries(folder))
    return found.run if found else None


def states(folder: Path) -> list[str]:
    found = deliveries(folder)
    return [state_of(delivery, current_delivery(found)) for delivery in found]


BETTER = Verdict("no worse", n_questions=40, metric="f1", before=0.4, after=0.5)
WORSE = Verdict("worse", n_questions=40, metric="f1", before=0.4, after=0.3)
UNKNOWN = Verdict("unknown", n_questions=4, metric="f1", before=0.4, after=0.5)


@pytest.mark.parametrize(("last", "outcome"), [(1.0, "no worse"), (0.0, "worse")])
def test_models_are_no_worse_if_their_mean_is_no_lower(last: float, outcome: str):
    verdict = judge(scores(*[0.5] * 30, 0.5), scores(*[0.5] * 30, last), UNTOUCHED)
    assert (verdict.outcome, verdict.n_questions, verdict.metric) == (outcome, 31, "f1")
    assert verdict.after == pytest.approx((15 + last) / 31)
    assert judge(scores(*[0.1] * 30), scores(*[0.1] * 30), UNTOUCHED).outcome == "no worse"


def test_too_few_questions_tell_nothing_and_none_tell_why():
    verdict = judge(scores(*[0.0] * 29), scores(*[1.0] * 29), "a-1")
    assert verdict.outcome == "unknown"
    assert verdict.text == ("too few questions to tell: F1 100.0 per cent, of a-1 0.0, on 29 validation questions")
    assert judge([], [], "a-1").text == "cannot be told: this site has no validation questions"


def test_without_answers_retrieval_decides():
    verdict = judge(scores(*[0.5] * 30, metric="mrr"), scores(*[0.4] * 30, metric="mrr"), UNTOUCHED)
    assert (verdict.outcome, verdict.metric) == ("worse", "mrr")


@pytest.mark.parametrize(
    ("policy", "adopted"),
    [("if-better", [True, False, False]), ("ask", [False, False, False]), ("always", [True, True, True])],
)
def test_a_policy_adopts_by_itself_what_it_says(policy: str, adopted: list[bool]):
    allowed = Policy.model_validate({"adopt": policy})
    assert [decides_for(allowed, verdict) for verdict in (BETTER, WORSE, UNKNOWN)] == adopted


def test_the_default_is_to_adopt_what_is_no_worse():
    assert Policy().adopt == "if-better"


def test_a_verdict_is_kept_and_says_what_to_type(tmp_path: Path):
    for run in ("a-1", "b-1", "c-1"):
        receive(tmp_path, run)
    assert states(tmp_path) == ["to be measured"] * 3
    for run, verdict in (("a-1", WORSE), ("b-1", UNKNOWN), ("c-1", BETTER)):
        record_verdict(tmp_path, known(tmp_path)[run], verdict, adopts=verdict == BETTER)
    assert states(tmp_path) == ["not adopted", "waits for you", "current"]
    worse, unknown, better = (verdict_line(tmp_path, delivery) for delivery in deliveries(tmp_path))
    assert worse.endswith(f"; not adopted; to take it into use: fedrag client adopt {tmp_path} a-1")
    assert unknown.endswith(f"; it waits for you; to take it into use: fedrag client adopt {tmp_path} b-1")
    assert better == "c-1: no worse: F1 50.0 per cent, of the untouched models 40.0, on 40 validation questions"


def test_a_person_adopts_what_waits_but_what_did_worse_only_by_its_name(tmp_path: Path):
    with pytest.raises(ConfigError, match="no delivered models wait"):
        adopt(tmp_path)
    receive(tmp_path, "a-1")
    receive(tmp_path, "b-1", 2.0)
    assert adopt(tmp_path).run == "b-1"
    record_verdict(tmp_path, known(tmp_path)["a-1"], WORSE, adopts=False)
    with pytest.raises(ConfigError, match=r"a-1: worse: F1 30\.0 per cent.*fedrag client adopt .* a-1"):
        adopt(tmp_path)
    assert adopt(tmp_path, "a-1").run == "a-1" == current(tmp_path)
    with pytest.raises(ConfigError, match="a-1 is current already"):
        adopt(tmp_path, "a-1")
    with pytest.raises(ConfigError, match=r"no models of a run 'z-1' were delivered; there are: b-1, a-1"):
        adopt(tmp_path, "z-1")
    assert roll_back(tmp_path)[1] == known(tmp_path)["b-1"]


def test_a_person_may_go_back_to_what_was_taken_back_but_no_verdict_does(tmp_path: Path):
    receive(tmp_path, "a-1", adopts=True)
    judged = known(tmp_path)["a-1"]
    roll_back(tmp_path)
    record_verdict(tmp_path, judged, BETTER, adopts=True)
    assert current(tmp_path) is None
    adopt(tmp_path, "a-1")
    assert current(tmp_path) == "a-1"


def test_what_is_delivered_anew_while_it_is_measured_is_judged_for_itself(tmp_path: Path):
    receive(tmp_path, "a-1", 1.0)
    judged = known(tmp_path)["a-1"]
    receive(tmp_path, "a-1", 2.0)
    record_verdict(tmp_path, judged, BETTER, adopts=True)
    assert [one.run for one in deliveries(tmp_path)] == ["a-1.2", "a-1"]
    assert states(tmp_path) == ["to be measured", "current"]
    receive(tmp_path, "a-1", 2.0)
    assert len(deliveries(tmp_path)) == 2
