"""Rounds in which each site answers its own questions and learns from the answers that it trusts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_federation import Lines, federate, tiny_config

from fedrag.augmentation.pseudo_labels import answer_questions, count_verdicts, pseudo_labelled
from fedrag.data.site_folder import load_site
from fedrag.data.writing import write_sites
from fedrag.errors import ConfigError, DataError
from fedrag.models.resident import RoundModels
from fedrag.rag.indexing import build_index
from fedrag.runs.run_folder import RunFolder
from fedrag.simulation.plan import plan_lines
from fedrag.simulation.simulate import resume, simulate
from fedrag.site.client_app import make_client_app
from fedrag.training.losses import Losses, answer_loss
from fedrag.types import Passage, Question, Site

pytestmark = pytest.mark.usefixtures("tiny_home")

PASSAGES = tuple(
    Passage(f"p{n}", f"A porter guards the {thing}. The {thing} opens at {n + 5}.")
    for n, thing in enumerate(("gate", "hall", "yard", "roof"))
)


def asked(name: str, *things: str, answers: tuple[str, ...] = ()) -> tuple[Question, ...]:
    labels = {"gate": "p0", "hall": "p1", "yard": "p2", "roof": "p3"}
    return tuple(
        Question(f"{name}{n}", f"Who guards the {thing}?", answers, (labels[thing],) if answers else ())
        for n, thing in enumerate(things)
    )


@pytest.fixture(scope="module")
def sites(tmp_path_factory, tiny_home) -> Path:
    """One site with answers and questions without, one whose questions nobody answered."""
    root = tmp_path_factory.mktemp("data") / "sites"
    known = asked("t", "gate", "hall", answers=("porter",))
    east = Site("east", PASSAGES, known, test=asked("s", "roof", answers=("porter",)), unanswered=asked("u", "yard"))
    write_sites(root, [east, Site("west", PASSAGES, unanswered=asked("u", "yard", "roof"))])
    return root


@pytest.fixture(scope="module")
def taught(tmp_path_factory, sites) -> RunFolder:
    """A run whose generator has learnt to say porter, whatever it is asked."""
    generator = {"epochs": 40, "learning_rate": 1e-2, "schedule": "constant", "lora": {"rank": 8}}
    config = tiny_config(sites, name="taught", generator=generator, federation={"schedule": "generator", "rounds": 1})
    return simulate(config, out=tmp_path_factory.mktemp("taught") / "taught-1")


def iterating(sites, start, **settings):
    federation = {"schedule": "iterate", "rounds": 2, "pseudo_confidence": 0.05, **settings.pop("federation", {})}
    return tiny_config(sites, start_from=str(start), generator={"lora": {"rank": 8}}, federation=federation, **settings)


def examples(run: RunFolder) -> list[dict[str, tuple[int, int]]]:
    return [
        {name: (told["generator.examples"], told["retriever.examples"]) for name, told in record["sites"].items()}
        for record in run.rounds()
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, sites, taught) -> RunFolder:
    config = iterating(sites, taught.path, evaluation={"split": "test", "baselines": ["local", "pooled"]})
    return simulate(config, out=tmp_path_factory.mktemp("finished") / "run")


def test_a_site_learns_from_its_own_answers_also_where_nobody_gave_it_any(finished):
    first, second = examples(finished)
    assert first["east"] == (3, 3)
    assert first["west"] == (2, 2)
    assert second.keys() == first.keys()
    assert finished.told_by_sites["west"]["counts"]["train_questions"] == 2


def test_the_data_of_a_site_stays_as_it_is(finished, sites):
    assert "pseudo" not in "".join(path.read_text() for path in sites.rglob("*.jsonl"))
    assert [q.question for q in load_site(sites / "west").unanswered] == [
        "Who guards the yard?",
        "Who guards the roof?",
    ]


def test_no_question_and_no_answer_leaves_a_site(finished):
    told = json.dumps(finished.rounds()) + json.dumps(finished.told_by_sites)
    assert not any(word in told for word in ("guards", "porter", "yard"))


def test_no_byte_of_a_reply_holds_a_question_or_its_answer(sites, taught, tmp_path):
    """tests/deployed/test_nothing_private_leaves.py reads the same of real processes at a proxy."""
    left: list[bytes] = []
    real = make_client_app()

    def app(message, context):
        reply = real(message, context)
        left.append(bytes_of(reply.content))
        return reply

    config = iterating(sites, taught.path, federation={"rounds": 1})
    _, run = federate(config, tmp_path / "run", app=app, start=taught.load_result())
    assert examples(run)[0]["west"] == (2, 2), "the sites learned from their own answers"
    told = b"".join(left)
    assert b"generator.loss" in told, "and this is what they sent"
    assert not any(word in told for word in (b"guards", b"porter", b"yard"))


def bytes_of(content) -> bytes:
    """Return every name and value in a message's records."""
    parts = []
    for name, record in content.items():
        parts.append(name.encode())
        for key, value in record.items():
            parts += [key.encode(), getattr(value, "data", None) or str(value).encode()]
    return b" ".join(parts)


def test_a_confidence_of_one_trusts_nothing_and_a_site_without_labels_sits_the_round_out(sites, taught, tmp_path):
    display = Lines()
    config = iterating(sites, taught.path, federation={"pseudo_confidence": 1.0, "rounds": 1})
    run = simulate(config, out=tmp_path / "run", display=display)
    assert examples(run) == [{"east": (2, 2)}]
    assert "west" in run.rounds()[0]["left_out"]


def test_the_pooled_arm_answers_each_question_at_its_own_site(finished):
    pooled = RunFolder.open(finished.path / "baselines" / "pooled")
    assert examples(pooled)[0]["pooled"][0] == 5


def test_an_interrupted_run_that_iterates_ends_as_if_nothing_had_been(finished, tmp_path):
    done = []

    def loss(logits, labels):
        done.append(1)
        if len(done) > 3:
            raise KeyboardInterrupt
        return answer_loss(logits, labels)

    with pytest.raises(KeyboardInterrupt):
        simulate(finished.config, out=tmp_path / "run", losses=Losses(answer=loss))
    done[:] = [-1] * -1000

    def same(logits, labels):
        return answer_loss(logits, labels)

    same.__qualname__ = loss.__qualname__
    run = resume(tmp_path / "run", losses=Losses(answer=same))
    final = "final/state.safetensors"
    assert (run.path / final).read_bytes() == (finished.path / final).read_bytes()


def test_the_dry_run_counts_what_a_round_answers_itself(sites, taught):
    lines = "\n".join(plan_lines(iterating(sites, taught.path)))
    assert "generator: " in lines
    assert "of these, each round first answers 3 itself, and learns from what it trusts" in lines


def test_each_answer_says_why_it_is_not_taken(sites, taught):
    site, config = load_site(sites / "west"), taught.config
    models = RoundModels(config, taught.load_result())
    index = build_index(models.retriever, site.passages, config.rag.chunk_overlap)
    sure = answer_questions(models, index, site.passages, site.unanswered, config, 0.0)
    assert count_verdicts(sure) == {"": 2}
    assert {answer.text for answer in sure} == {"porter"}
    assert all(0.0 < answer.confidence <= 1.0 for answer in sure)
    labelled = sure[0].labelled
    assert (labelled.answers, labelled.passage_ids, labelled.origin) == (("porter",), (sure[0].passage_id,), "pseudo")
    limit = max(answer.confidence for answer in sure) + 1e-6
    assert count_verdicts(answer_questions(models, index, site.passages, site.unanswered, config, limit)) == {
        "unsure": 2
    }
    untouched = RoundModels(config, {})
    assert set(count_verdicts(answer_questions(untouched, index, site.passages, site.unanswered, config, 0.0))) <= {
        *("empty", "cut", "unsupported")
    }


def test_a_question_with_an_answer_alone_gets_the_passage_that_holds_it(sites, taught):
    bare = Question("q", "Who guards the gate?", ("porter",))
    site = Site("south", PASSAGES, (bare,))
    config = taught.config
    models = RoundModels(config, {})
    index = build_index(models.retriever, site.passages, config.rag.chunk_overlap)
    [question] = pseudo_labelled(site, models, lambda: index, config).train
    assert question.answers == ("porter",)
    assert len(question.passage_ids) == 1
    assert question.origin == ""


def test_a_closed_book_cannot_iterate(sites):
    with pytest.raises(ConfigError, match='federation.schedule = "iterate" needs passages in the prompts'):
        tiny_config(sites, rag={"passages": 0}, federation={"schedule": "iterate"})


def test_without_iterating_a_site_of_unanswered_questions_sits_out(sites, tmp_path):
    lines = plan_lines(tiny_config(sites))
    assert any(line.lstrip().startswith("west") and "sits out: nothing to train on" in line for line in lines)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"id": "1", "question": "Why?", "answers": ["so"]}, ':1: "answers" holds one: an answered question stands in'),
        ({"id": "1", "question": " "}, ':1: "question" must be a non-empty string'),
        ({"id": "1", "question": "Why?", "passage_ids": ["x"]}, ':1: unknown passage id "x"'),
    ],
)
def test_a_malformed_unanswered_question_is_named_by_its_line(row, told, sites, tmp_path):
    write_sites(tmp_path / "sites", [load_site(sites / "east")])
    path = tmp_path / "sites" / "east" / "unanswered.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError) as caught:
        load_site(tmp_path / "sites" / "east")
    assert f"{path}{told}" in str(caught.value)


def test_a_question_that_is_answered_elsewhere_is_not_unanswered(sites, tmp_path):
    write_sites(tmp_path / "sites", [load_site(sites / "east")])
    path = tmp_path / "sites" / "east" / "unanswered.jsonl"
    with path.open("a") as file:
        file.write(json.dumps({"id": "again", "question": "who guards  the ROOF?"}) + "\n")
    assert [question.id for question in load_site(tmp_path / "sites" / "east").unanswered] == ["u0"]
