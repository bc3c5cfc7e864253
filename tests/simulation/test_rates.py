"""Every arm finds its own learning rate on validation questions, and is measured with it once."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_federation import Lines, assert_same_state, tiny_config, write_small_sites

from fedrag.config.scenario import Config
from fedrag.errors import ConfigError, DataError, QuorumError, RunError
from fedrag.evaluation.evaluate import evaluate_run
from fedrag.runs.rate_tries import RateTries
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.simulate import resume, simulate
from fedrag.training.losses import Losses, contrastive_loss

pytestmark = pytest.mark.usefixtures("tiny_home")

RATES = [1e-3, 3e-2]
FEDERATION: dict[str, Any] = {"schedule": "retriever", "rounds": 1}
EVALUATION: dict[str, Any] = {"split": "test", "generate": False, "baselines": ["local", "pooled"], "rates": RATES}


@pytest.fixture(scope="module")
def sites(tmp_path_factory, tiny_home):
    return write_small_sites(tmp_path_factory.mktemp("sites"), a=6, b=6)


@pytest.fixture(scope="module")
def tried(tmp_path_factory, sites) -> RunFolder:
    config = tiny_config(sites, federation=FEDERATION, evaluation=EVALUATION)
    return simulate(config, out=tmp_path_factory.mktemp("runs") / "run")


def test_a_try_scores_what_a_run_of_that_rate_scores_on_validation_questions(tried, sites, tmp_path):
    """Each rate by a run of its own, measured by hand."""
    found = {}
    for rate in RATES:
        config = tiny_config(sites, retriever={"learning_rate": rate}, federation=FEDERATION)
        run = simulate(config, out=tmp_path / f"{rate}")
        found[rate] = evaluate_run(run.path, sites, split="validation", only_retrieval=True)["overall"]["mrr"]
    assert {rate: told["retriever"] for rate, told in RateTries(tried.path, "federated").scores().items()} == found
    best = max(found, key=lambda rate: (found[rate], -rate))
    assert RateTries(tried.path, "federated").best() == {"retriever": best}


def test_an_arm_is_measured_with_the_rate_that_it_found(tried, sites, tmp_path):
    for arm in ("federated", "local", "pooled"):
        (rate,) = RateTries(tried.path, arm).best().values()
        assert tried.results()["training"][arm]["retriever"]["learning_rate"] == rate
        if arm == "pooled":
            continue
        only = {"data": {"only": ["b"]}} if arm == "local" else {}
        config = tiny_config(sites, retriever={"learning_rate": rate}, federation=FEDERATION, **only)
        expected = simulate(config, out=tmp_path / arm).load_result()
        state = tried if arm == "federated" else RunFolder.open(tried.path / "baselines" / "local-b")
        assert_same_state(state.load_result(), expected)


def test_of_a_try_its_scores_are_kept(tried):
    folders = sorted(path.name for path in (tried.path / "tries" / "local").iterdir())
    assert folders == ["0.001.json", "0.03.json"]


def test_of_equal_rates_the_smallest_is_taken(tmp_path):
    tries = RateTries(tmp_path, "local")
    for rate, generator, retriever in ((1e-3, 0.5, 0.1), (1e-4, 0.5, None), (1e-2, 0.4, 0.2)):
        tries.record(rate, {"generator": generator, "retriever": retriever})
    assert tries.best() == {"generator": 1e-4, "retriever": 1e-2}


def interrupted_at(call: float) -> Losses:
    calls = []

    def loss(logits, masked):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return contrastive_loss(logits, masked)

    return Losses(contrastive=loss)


@pytest.mark.parametrize("call", [3, 6, 11])
def test_a_run_interrupted_in_a_try_ends_as_if_nothing_had_been(call, tried, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        simulate(tried.config, out=tmp_path / "run", losses=interrupted_at(call))
    run = resume(tmp_path / "run", losses=interrupted_at(0))
    assert {k: v for k, v in run.results().items() if k != "run"} == {
        k: v for k, v in tried.results().items() if k != "run"
    }
    assert_same_state(run.load_result(), tried.load_result())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rates": "fast"}, r"evaluation.rates = 'fast': must be a list such as \[1e-3, 2e-3\]"),
        ({"rates": [1e-3]}, "none, or at least two different numbers"),
        ({"rates": [1e-3, 1e-3]}, "none, or at least two different numbers"),
        ({"rates": RATES, "split": "validation"}, "chosen by the validation questions"),
        ({"rates": RATES, "split": "none"}, "needs a final evaluation"),
        ({"rates": RATES, "generate": False}, "needs evaluation.generate = true"),
    ],
)
def test_rates_that_cannot_be_chosen_are_refused(settings, sentence):
    tree = {"name": "x", "data": {"sites": "."}, "evaluation": settings}
    with pytest.raises(ConfigError, match=sentence):
        Config.from_dict(tree)


def test_without_a_validation_question_nothing_is_begun(tmp_path):
    root = write_small_sites(tmp_path / "sites", a=2, b=2)
    for name in ("a", "b"):
        (root / name / "validation.jsonl").unlink()
    with pytest.raises(DataError, match="evaluation.rates .* no site has a labelled validation question"):
        simulate(tiny_config(root, federation=FEDERATION, evaluation=EVALUATION), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(RunError):
        RunFolder.open(tmp_path / "run")


def test_tries_are_kept_where_a_run_ends_before_its_own_first_round(sites, tmp_path):
    """They took long, and nobody was told how to go on."""
    config, display = tiny_config(sites, federation=FEDERATION, evaluation=EVALUATION), Lines()
    with pytest.raises(KeyboardInterrupt):
        simulate(config, out=tmp_path / "run", losses=interrupted_at(6), display=display)
    assert not RunFolder.open(tmp_path / "run").rounds()
    assert (tmp_path / "run" / "tries" / "federated" / "0.001.json").is_file()
    assert display.said[-1].startswith("go on with: fedrag.resume(")


def test_an_arm_that_no_rate_can_train_says_so_and_keeps_what_was_tried(sites, tmp_path):
    """The run's folder was once removed with them."""

    def fails(logits, masked):
        raise RuntimeError("no")

    config = tiny_config(sites, federation=FEDERATION, evaluation=EVALUATION)
    with pytest.raises(QuorumError, match="the federated arm could be trained with none of evaluation.rates"):
        simulate(config, out=tmp_path / "run", losses=Losses(contrastive=fails))
    assert RateTries(tmp_path / "run", "federated").scores() == {rate: {"retriever": None} for rate in RATES}


def test_rates_of_many_digits_are_told_apart(tmp_path):
    tries = RateTries(tmp_path, "local")
    for rate in (0.00123456789, 0.00123456788):
        tries.record(rate, {"retriever": rate})
    assert list(tries.scores()) == [0.00123456788, 0.00123456789]
    assert tries.best() == {"retriever": 0.00123456789}
