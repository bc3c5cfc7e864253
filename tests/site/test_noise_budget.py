"""What a round with noise may spend at a site: as planned, more noise after a repetition, never more than all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_federation import small_site, tiny_config

from fedrag.components import retriever_steps
from fedrag.components.noised_retriever import noised_units
from fedrag.components.state import initial_state
from fedrag.components.work import Workbench
from fedrag.dp.accounting import Event, epsilon_of, usual_delta
from fedrag.dp.ledger import LEDGER_FILE
from fedrag.federation.messages import Request
from fedrag.federation.refusal_codes import REFUSALS
from fedrag.site.noise_budget import budget_of, ledger_of, spend
from fedrag.site.policy import apply_to_reply
from fedrag.site.site_config import Policy
from fedrag.site.steps import begin_work, train_site
from fedrag.types import Site

pytestmark = pytest.mark.usefixtures("tiny_home")

BOTH = ("generator", "retriever")
DELTA = usual_delta(4)


@pytest.fixture
def work(tmp_path):
    """Return a function that makes (bench, request) of one round at a site of four questions."""

    def make(round_number=1, components=BOTH, site: Site | None = None, run="run-1", **privacy):
        config = tiny_config(
            federation={"rounds": 2},
            retriever={"contrastive": {"hard_negatives": 2, "hard_negative_margin": 0.0}},
            privacy={"epsilon": 8.0, "steps": 2} | privacy,
        )
        request = Request(config.to_toml(), round_number, initial_state(config, BOTH), components)
        cache, scores = tmp_path / "cache", tmp_path / "scores"
        return Workbench(site or small_site("a"), cache, scores, config, run=run), request

    return make


def spend_round(bench: Workbench, request: Request) -> tuple[float, float]:
    """Spend what a round may, without training; return its noise multiplier and epsilon after it."""
    budget = budget_of(bench, request, 0.0)
    assert budget.noise is not None
    return budget.noise.event.noise_multiplier, spend(bench, request, budget.noise, request.components)


def test_all_rounds_of_a_run_spend_its_epsilon_and_no_more(work):
    first, half = spend_round(*work(1))
    second, whole = spend_round(*work(2))
    assert first == second
    assert half == epsilon_of([Event(first, 1.0, 4)], DELTA)
    assert 7.9 < whole <= 8.0
    assert budget_of(*work(3), 0.0).refusal == "epsilon-spent"


def test_after_a_round_that_was_repeated_the_others_have_more_noise(work):
    first, _ = spend_round(*work(1))
    again, _ = spend_round(*work(1))
    last, whole = spend_round(*work(2))
    assert first < again <= 1.01 * last
    assert whole <= 8.0


def test_another_run_begins_anew_and_the_sites_own_limit_holds_across_runs(work):
    for number in (1, 2):
        spend_round(*work(number))
    bench, request = work(1, run="run-2")
    assert budget_of(bench, request, 0.0).noise
    assert budget_of(bench, request, 8.0).refusal == "policy-epsilon"
    assert budget_of(bench, request, 20.0).noise
    assert train_site(bench, request, max_epsilon=8.0).refusal == "policy-epsilon"
    assert {entry.run for entry in ledger_of(bench).entries()} == {"run-1"}, "a round that may not begin costs nothing"


def test_a_large_delta_of_the_coordinator_does_not_widen_the_sites_own_limit(work):
    bench, request = work(delta=0.5)
    noise = budget_of(bench, request, 0.0).noise
    assert noise is not None
    spent = epsilon_of([Event(noise.event.noise_multiplier, 1.0, 4)], DELTA)
    assert spent > epsilon_of([Event(noise.event.noise_multiplier, 1.0, 4)], 0.5) + 1.0
    assert budget_of(bench, request, spent - 0.5).refusal == "policy-epsilon"


def test_a_site_with_a_limit_trains_nothing_without_noise(work):
    assert budget_of(*work(epsilon=0.0), 8.0).refusal == "policy-epsilon"
    assert budget_of(*work(epsilon=0.0), 0.0).refusal == ""


def test_a_subject_counts_once_however_many_questions_it_has(work):
    site = small_site("a")
    same = replace(site, train=tuple(replace(question, subject="patient 7") for question in site.train))
    noises = [noise.event.noise_multiplier for one in (site, same) if (noise := budget_of(*work(site=one), 0.0).noise)]
    assert noises[0] > noises[1], "its delta is that of fewer"
    bench, request = work(site=same)
    train_site(bench, request)
    assert [entry.units for entry in ledger_of(bench).entries()] == [1, 1]


def test_a_round_is_written_before_it_trains_and_tells_no_figure_without_noise(work):
    bench, request = work()
    reply = train_site(bench, request)
    assert {entry.component for entry in ledger_of(bench).entries()} == set(BOTH)
    told = {name.partition(".")[2] for name in reply.metrics if name.partition(".")[0] in BOTH}
    assert told == {"steps", "norm", "scale"}
    assert reply.metrics["privacy.epsilon"] == ledger_of(bench).epsilon(DELTA)
    assert all(flat.any() for flat in reply.update.values())


def test_a_ledger_that_cannot_be_read_lets_nothing_train(work):
    bench, request = work()
    bench.cache.mkdir(parents=True)
    (bench.cache / LEDGER_FILE).write_text("{")
    with pytest.raises(Exception, match="nobody knows how much of epsilon is spent"):
        train_site(bench, request)


def test_the_coordinator_learns_what_was_spent_only_where_the_policy_says_so(work):
    reply = train_site(*work(components=("retriever",)))
    assert "privacy.epsilon" not in apply_to_reply(Policy(), reply).metrics
    told = apply_to_reply(Policy(tell_epsilon=True), reply).metrics
    assert told["privacy.epsilon"] == reply.metrics["privacy.epsilon"]


@pytest.mark.parametrize("loss", ["contrastive", "lsr", "both"])
def test_what_a_question_learns_from_does_not_depend_on_another(work, loss):
    """Another question with the same text and another label changed the negatives of the first."""
    site = small_site("a")
    twin = replace(site.train[0], id="twin", passage_ids=site.train[1].passage_ids)
    units = []
    for questions in (site.train[:2], (*site.train[:2], twin)):
        bench, request = work(site=replace(site, train=questions))
        settings = bench.config.retriever.model_copy(update={"loss": loss})
        bench = replace(bench, config=bench.config.model_copy(update={"retriever": settings}))
        begun = replace(begin_work(bench, request), noise=budget_of(bench, request, 0.0).noise)
        units.append(noised_units(begun, retriever_steps._score_candidates)[1])
    assert units[0] == units[1][:2]
    assert len(units[1]) == 3


def test_a_site_that_finds_no_hard_negatives_says_so_and_spends_nothing(work):
    bench, request = work(components=("retriever",))
    strict = bench.config.model_copy(
        update={"retriever": tiny_config(retriever={"contrastive": {"hard_negatives": 2}}).retriever}
    )
    bench = replace(bench, config=strict)
    assert train_site(bench, request).refusal == "no-negatives"
    assert ledger_of(bench).entries() == []
    assert "hard_negative_margin = 0" in REFUSALS["no-negatives"]
    both = replace(request, components=BOTH)
    assert list(train_site(bench, both).update) == ["generator"], "the other component trains"
