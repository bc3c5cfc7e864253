"""Whole simulations on the tiny models, in this process."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file
from tiny_federation import SHIPPED, Lines, assert_same_state, tiny_config, write_small_sites
from transformers import AutoTokenizer

import fedrag
from fedrag.components.generator_check import QUESTIONS
from fedrag.config.scenario import Config
from fedrag.data.site_folder import hash_site
from fedrag.errors import ConfigError, DataError, QuorumError, RunError
from fedrag.files import read_json
from fedrag.models.retriever import _PROBE, Retriever
from fedrag.rag import answer_scores
from fedrag.rag.answer_scores import mean_log_probabilities
from fedrag.reporting.what_ran import resume_command
from fedrag.runs.run_folder import RunFolder, alone_in_run
from fedrag.simulation.simulate import resume, simulate
from fedrag.training.losses import Losses, answer_loss
from fedrag.weights.identity import identity_of
from fedrag.weights.store import find_model

pytestmark = pytest.mark.usefixtures("tiny_home")

WITH_BASELINES = {"split": "test", "baselines": ["local", "pooled"]}


@pytest.fixture(scope="module", autouse=True)
def _threads():
    """A simulation sets torch's threads for its whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def sites(tmp_path_factory, tiny_home) -> Path:
    return write_small_sites(tmp_path_factory.mktemp("sites"), a=2, b=3)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, sites) -> tuple[RunFolder, Lines]:
    """A finished run with baselines: two sites, two rounds of two epochs."""
    display = Lines()
    epochs = {"epochs": 2, "batch_size": 2}
    config = tiny_config(sites, generator=epochs, retriever=epochs, evaluation=WITH_BASELINES)
    return simulate(config, out=tmp_path_factory.mktemp("runs") / "run", display=display), display


def test_a_run_folder_holds_the_resolved_scenario_and_what_the_run_depends_on(finished, sites):
    run, _ = finished
    assert Config.from_file(run.path / "scenario.toml") == run.config
    facts = read_json(run.path / "run.json")
    assert (facts["format"], facts["fedrag"], facts["threads"]) == (2, fedrag.__version__, 1)
    assert facts["passes"]["training"] == {"path": "tree", "at_a_time": 1, "not_taken": {}}
    assert facts["dtype"] == {"generator": "float32", "retriever": "float32"}
    assert facts["data"] == {name: hash_site(sites / name) for name in ("a", "b")}
    for component, name in {"generator": "fedrag/tiny-causal", "retriever": "fedrag/tiny-encoder"}.items():
        identity = asdict(identity_of(find_model(name)))
        assert facts["models"][component] == {"name": name, **{f"{part}_sha256": h for part, h in identity.items()}}
    assert {"python", "torch", "transformers", "peft", "sentence-transformers", "flwr"} <= set(facts["versions"])


def test_a_run_folder_ends_with_checkpoints_the_result_and_what_was_measured(finished):
    run, _ = finished
    assert [record["round"] for record in run.rounds()] == [1, 2]
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == [
        "round-0000",
        "round-0001",
        "round-0002",
    ]
    final = load_file(run.path / "final" / "state.safetensors")
    last = load_file(run.path / "checkpoints" / "round-0002" / "state.safetensors")
    assert {name: tensor.tobytes() for name, tensor in final.items()} == {
        name: tensor.tobytes() for name, tensor in last.items()
    }
    assert not list(run.path.rglob("*.partial"))
    results = read_json(run.path / "results.json")
    assert results["run"]["name"] == "run"
    for arm in ("untouched", "local", "federated", "pooled"):
        assert results[arm]["overall"]["n_questions"] == 4
        assert {name: site["n_questions"] for name, site in results[arm]["sites"].items()} == {"a": 2, "b": 2}
        lines = (run.path / "evaluation" / f"{arm}.jsonl").read_text().splitlines()
        assert [json.loads(line)["site"] for line in lines] == ["a", "a", "b", "b"]


def test_baselines_make_the_federation_s_passes_over_their_data(finished):
    """Two rounds of two epochs of a batch of two: by hand."""
    run, display = finished
    told = {}
    for path in sorted((run.path / "baselines").glob("*/rounds.jsonl")):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(records) == 2
        for record in records:
            (site,) = record["sites"].values()
            told.setdefault(path.parent.name, []).append((site["generator.examples"], site["generator.steps"]))
    assert told == {
        "local-a": [(2, 2)] * 2,  # 2 questions, a batch an epoch
        "local-b": [(3, 4)] * 2,
        "pooled": [(5, 6)] * 2,
    }
    for record in run.rounds():
        assert {name: site["generator.steps"] for name, site in record["sites"].items()} == {"a": 2, "b": 4}
    assert "baseline: local-a" in display.said


def test_a_site_alone_in_a_baseline_is_that_site_federated_alone(finished, sites, tmp_path):
    run, _ = finished
    alone = run.config.model_copy(
        update={
            "data": run.config.data.model_copy(update={"only": ("b",)}),
            "evaluation": run.config.evaluation.model_copy(update={"split": "none"}),
        }
    )
    expected = simulate(alone, out=tmp_path / "alone")
    assert_same_state(RunFolder.open(run.path / "baselines" / "local-b").load_result(), expected.load_result())


def test_a_finished_run_that_is_resumed_stays_as_it_is(finished):
    run, _ = finished
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    display = Lines()
    resume(run.path, display=display)
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before
    assert not any("round" in line for line in display.said)


def test_the_same_scenario_gives_the_same_bits_again(finished, tmp_path):
    run, _ = finished
    again = simulate(run.config, out=tmp_path / "again")
    final = "final/state.safetensors"
    assert (again.path / final).read_bytes() == (run.path / final).read_bytes()
    first, second = (read_json(r.path / "results.json") for r in (run, again))
    assert {k: v for k, v in first.items() if k != "run"} == {k: v for k, v in second.items() if k != "run"}


def test_a_run_with_other_settings_takes_the_scores_of_the_one_before(sites, tmp_path, monkeypatch):
    """Scoring is the cost of LSR: another learning rate must not pay it again."""
    scored: list[int] = []

    def counted(generator, batch):
        scored.append(len(batch))
        return mean_log_probabilities(generator, batch)

    monkeypatch.setattr(answer_scores, "mean_log_probabilities", counted)
    federation = {"schedule": "retriever"}
    rag = {"instruction": "Scored by no other test."}
    for name, rate in (("first", 1e-3), ("second", 1e-2)):
        retriever = {"loss": "lsr", "learning_rate": rate}
        simulate(tiny_config(sites, federation=federation, rag=rag, retriever=retriever), out=tmp_path / name)
        # questions of both sites, each with its candidates; and those with which the model was tried, once
        assert sum(scored) == 5 * 8 + len(QUESTIONS)


def test_where_the_folder_of_models_is_only_read_the_scores_stay_with_the_run(sites, tmp_path, monkeypatch):
    monkeypatch.setattr("fedrag.simulation.clients.os.access", lambda path, mode: False)
    settings = {"federation": {"schedule": "retriever"}, "retriever": {"loss": "lsr"}}
    run = simulate(tiny_config(sites, **settings), out=tmp_path / "run")
    assert list((run.path / "sites" / "a" / "answer-scores").rglob("*.npy"))


def passages_encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the chunks of passages that are encoded from now on."""
    encoded: list[str] = []
    encode = Retriever.encode_passages

    def counted(retriever, texts):
        encoded.extend(text for text in texts if text != _PROBE)
        return encode(retriever, texts)

    monkeypatch.setattr(Retriever, "encode_passages", counted)
    return encoded


def test_ten_rounds_whose_retriever_does_not_learn_encode_once(tiny_home, tmp_path, monkeypatch):
    """Once every site encoded its passages in every round and for every arm: 21 times in five rounds of three sites."""
    root = write_small_sites(tmp_path / "sites", a=2, b=3)
    for name in ("a", "b"):
        passages = root / name / "passages.jsonl"
        passages.write_text(passages.read_text().replace("library", "ten times read library"))
    encoded = passages_encoded(monkeypatch)
    federation = {"schedule": "generator", "rounds": 10, "validate_every": 1}
    config = tiny_config(root, federation=federation, evaluation={"split": "test", "baselines": ["local"]})
    run = simulate(config, out=tmp_path / "run")
    assert len(run.rounds()) == 10
    chunks = len(encoded)
    assert chunks == len(set(encoded)) > 0
    fedrag.ask(run.path, "What does a late book cost?", root / "a")
    fedrag.evaluate(run.path, root, base=True)
    simulate(config, out=tmp_path / "again")
    assert len(encoded) == chunks


def test_where_the_folder_of_models_is_only_read_indexes_stay_with_the_run(sites, tmp_path, monkeypatch):
    monkeypatch.setattr("fedrag.simulation.clients.os.access", lambda path, mode: False)
    run = simulate(tiny_config(sites, federation={"schedule": "generator"}), out=tmp_path / "run")
    assert list((run.path / "sites" / "a" / "indexes").rglob("*.npy"))


def test_an_adapter_that_acts_from_the_question_on_learns_the_same_bits_again(finished, sites, tmp_path):
    """The second run finds in memory what the base model read in the first."""
    generator = {"adapter_from": "question", "learning_rate": 1e-2}
    config = tiny_config(sites, generator=generator, evaluation={"split": "test"})
    first, second = (simulate(config, out=tmp_path / name) for name in ("first", "second"))
    state = first.path / "final" / "state.safetensors"
    assert state.read_bytes() == (second.path / "final" / "state.safetensors").read_bytes()
    assert any(tensor.any() for name, tensor in load_file(state).items() if ".lora_B." in name)
    adapter = read_json(first.path / "final" / "generator" / "adapter_config.json")
    tokenizer = AutoTokenizer.from_pretrained(first.path / "final" / "generator")
    assert tokenizer.decode(adapter["alora_invocation_tokens"]) == "Question:"
    other = read_json(finished[0].path / "final" / "generator" / "adapter_config.json")
    assert other["alora_invocation_tokens"] is None


def interrupted_after(steps):
    """Return losses that behave as Ctrl-C does, after so many training steps."""
    done = []

    def loss(logits, labels):
        done.append(1)
        if len(done) > steps:
            raise KeyboardInterrupt
        return answer_loss(logits, labels)

    return Losses(answer=loss)


UNINTERRUPTED = interrupted_after(math.inf)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, sites) -> RunFolder:
    config = tiny_config(sites, evaluation={**WITH_BASELINES, "generate": False})
    return simulate(config, out=tmp_path_factory.mktemp("undisturbed") / "run")


SLOW = [pytest.param(steps, marks=pytest.mark.slow) for steps in (1, 5)]


@pytest.mark.parametrize("steps", [3, 8, *SLOW])
def test_an_interrupted_run_says_how_to_go_on_and_ends_as_if_nothing_had_been(steps, undisturbed, tmp_path):
    """After 1 step in the first round, 3: in the second, 5: in a site's baseline, 8: in the pooled one."""
    display = Lines()
    with pytest.raises(KeyboardInterrupt):
        simulate(undisturbed.config, out=tmp_path / "run", losses=interrupted_after(steps), display=display)
    assert display.said[-1] == f'go on with: fedrag.resume("{tmp_path / "run"}", losses=...)'
    assert not (tmp_path / "run" / "results.json").exists()
    run = resume(tmp_path / "run", losses=UNINTERRUPTED)
    final = "final/state.safetensors"
    assert (run.path / final).read_bytes() == (undisturbed.path / final).read_bytes()
    assert read_json(run.path / "results.json") == read_json(undisturbed.path / "results.json")


def test_too_few_replies_say_how_to_go_on_too(sites, tmp_path):
    broken = [True]

    def loss(logits, labels):
        if broken:
            raise RuntimeError("no")
        return answer_loss(logits, labels)

    display = Lines()
    config = tiny_config(sites, federation={"schedule": "generator"})
    with pytest.raises(QuorumError, match="round 1: 0 of 2 sites"):
        simulate(config, out=tmp_path / "run", losses=Losses(answer=loss), display=display)
    assert display.said[-1] == f'go on with: fedrag.resume("{tmp_path / "run"}", losses=...)'
    expected = simulate(config, out=tmp_path / "undisturbed")
    broken.clear()
    assert_same_state(resume(tmp_path / "run", losses=Losses(answer=loss)).load_result(), expected.load_result())


def test_a_run_with_one_s_own_rule_is_not_resumed_with_the_mean(begun, tmp_path):
    """It once went on in silence with the mean."""

    def first(differences, weights):
        return differences[0]

    run = RunFolder.open(begun)
    run.record_facts({**run.facts, "own": {"rule": f"{__name__}.first"}})
    with pytest.raises(RunError, match=r"it began with rule=\S+first, not with fedrag's own; go on in Python"):
        fedrag.resume(begun)


@pytest.fixture
def begun(tmp_path):
    """A run that was interrupted in its first round, on data of its own."""
    config = tiny_config(
        write_small_sites(tmp_path / "sites", a=2, b=2), federation={"rounds": 1, "schedule": "generator"}
    )
    with pytest.raises(KeyboardInterrupt):
        simulate(config, out=tmp_path / "run", losses=interrupted_after(0))
    return tmp_path / "run"


def test_a_run_whose_data_changed_is_not_resumed_and_the_site_is_named(begun, tmp_path):
    with (tmp_path / "sites" / "b" / "train.jsonl").open("a") as file:
        file.write('{"id": "new", "question": "Why?", "answers": ["because"]}\n')
    with pytest.raises(RunError, match="cannot be resumed, its data changed: b; put it back, or start a new run$"):
        resume(begun)


def test_a_run_whose_sites_changed_is_not_resumed_and_the_site_is_named(begun, tmp_path):
    (tmp_path / "sites" / "b").rename(tmp_path / "sites" / "c")
    with pytest.raises(RunError, match="cannot be resumed, its data changed: b; put it back, or start a new run$"):
        resume(begun)


def test_a_run_with_another_number_of_threads_is_not_resumed(begun):
    facts = read_json(begun / "run.json")
    (begun / "run.json").write_text(json.dumps({**facts, "threads": 64}))
    with pytest.raises(RunError, match="its number of threads changed: 64 then, 1 now"):
        resume(begun)


def test_a_run_with_other_models_is_not_resumed_and_the_component_is_named(begun):
    facts = read_json(begun / "run.json")
    facts["models"]["retriever"] |= {"tensors_sha256": "0" * 64, "prompts_sha256": "0" * 64}
    facts["models"]["generator"]["template_sha256"] = "0" * 64
    (begun / "run.json").write_text(json.dumps(facts))
    changed = r"its models changed: generator \(chat template\), retriever \(tensors, prompts\); put it back"
    with pytest.raises(RunError, match=changed):
        resume(begun)


def test_a_run_that_recorded_the_tensors_alone_is_resumed(begun):
    facts = read_json(begun / "run.json")
    facts["models"] = {c: {k: m[k] for k in ("name", "tensors_sha256")} for c, m in facts["models"].items()}
    (begun / "run.json").write_text(json.dumps(facts))
    assert resume(begun, losses=UNINTERRUPTED).rounds()


def test_a_run_of_another_format_is_not_read(begun):
    facts = read_json(begun / "run.json")
    (begun / "run.json").write_text(json.dumps({**facts, "format": 99}))
    with pytest.raises(RunError, match="run format 99, this fedrag reads format 2"):
        resume(begun)


def test_a_run_killed_before_it_recorded_its_facts_can_be_resumed(begun):
    (begun / "run.json").unlink()
    assert resume(begun).rounds()


def test_what_is_no_run_is_not_resumed(tmp_path):
    with pytest.raises(RunError, match="is no run folder"):
        resume(tmp_path)


def test_of_a_damaged_checkpoint_the_one_before_is_used_and_said(undisturbed, sites, tmp_path):
    """The last of three checkpoints lost its end; the log had a line more than the checkpoint that is whole."""
    display = Lines()
    with pytest.raises(KeyboardInterrupt):
        simulate(undisturbed.config, out=tmp_path / "run", losses=interrupted_after(3))
    checkpoint = tmp_path / "run" / "checkpoints" / "round-0001" / "state.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    run = resume(tmp_path / "run", losses=UNINTERRUPTED, display=display)
    assert any("round-0001: damaged, the checkpoint before is used" in line for line in display.said)
    assert [record["round"] for record in run.rounds()] == [1, 2]
    assert_same_state(run.load_result(), undisturbed.load_result())


def test_a_checkpoint_without_its_line_in_the_log_gets_it_back(undisturbed, tmp_path):
    """The process died between the two writes, or in the middle of the second."""
    for name, keep in (("none", 0), ("half", 300)):
        with pytest.raises(KeyboardInterrupt):
            simulate(undisturbed.config, out=tmp_path / name, losses=interrupted_after(3))
        log = tmp_path / name / "rounds.jsonl"
        line = log.read_text()
        log.write_text(line[:keep])
        run = resume(tmp_path / name, losses=UNINTERRUPTED)
        assert json.loads(line) == run.rounds()[0]
        assert [record["round"] for record in run.rounds()] == [1, 2]


def test_one_s_own_loss_and_aggregation_rule_are_plain_functions(sites, tmp_path):
    seen = []

    def half_loss(logits, labels):
        return answer_loss(logits, labels) / 2

    def largest_weight(differences, weights):
        seen.append(weights)
        return differences[weights.index(max(weights))]

    config = tiny_config(sites, federation={"rounds": 1, "schedule": "generator"})
    run = simulate(config, out=tmp_path / "own", losses=Losses(answer=half_loss), rule=largest_weight)
    plain = simulate(config, out=tmp_path / "plain")
    only_b = tiny_config(sites, data={"only": ["b"]}, federation={"rounds": 1, "schedule": "generator"})
    expected = simulate(only_b, out=tmp_path / "b", losses=Losses(answer=half_loss))
    assert seen == [[2, 3]]
    told, plainly = (r.rounds()[0]["sites"]["a"]["generator.loss"] for r in (run, plain))
    assert told == pytest.approx(plainly / 2, rel=1e-4)
    assert_same_state(run.load_result(), expected.load_result())


def test_a_rule_that_returns_nonsense_stops_the_run_with_one_sentence(sites, tmp_path):
    def nameless(differences, weights):
        return {}

    config = tiny_config(sites, federation={"rounds": 1, "schedule": "generator"})
    with pytest.raises(ConfigError, match="the aggregation rule nameless does not fit the component"):
        simulate(config, out=tmp_path / "run", rule=nameless)


def test_nothing_is_made_where_the_data_is_not_in_order(tmp_path):
    sites = write_small_sites(tmp_path / "sites", a=2)
    (sites / "a" / "train.jsonl").write_text('{"id": "x"}\n')
    with pytest.raises(DataError, match=r"train\.jsonl:1: "):
        simulate(tiny_config(sites), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_is_in_use_is_not_overwritten(begun):
    config = tiny_config(SHIPPED)
    with pytest.raises(RunError, match="exists already"):
        simulate(config, out=begun)


def test_a_run_on_which_another_process_works_is_neither_resumed_nor_begun_again(begun, sites, tmp_path):
    with alone_in_run(begun):
        before = sorted(path for path in begun.rglob("*"))
        with pytest.raises(RunError, match=r"another fedrag works on this run; let it end, or stop it first$"):
            resume(begun)
        assert sorted(path for path in begun.rglob("*")) == before
    (tmp_path / "new").mkdir()
    with alone_in_run(tmp_path / "new"):
        with pytest.raises(RunError, match="another fedrag works on this run"):
            simulate(tiny_config(sites), out=tmp_path / "new")
        assert [path.name for path in (tmp_path / "new").iterdir()] == [".lock"]


def test_an_older_run_is_resumed_by_the_command(begun):
    run = RunFolder.open(begun)
    run.record_facts({key: value for key, value in run.facts.items() if key != "own"})
    assert resume_command(run) == f"fedrag simulate --resume {begun}"
