"""`min_examples` counts the questions behind an update: a site asked to learn from fewer sends none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from tiny_federation import SHIPPED, small_site, tiny_config

from fedrag.components.state import initial_state
from fedrag.data.site_folder import load_site
from fedrag.data.writing import write_site
from fedrag.federation.messages import TRAIN, Request, request_content
from fedrag.site.client_app import make_client_app
from fedrag.site.policy import fewest_questions
from fedrag.site.site_config import Policy
from fedrag.types import Component, Site

pytestmark = pytest.mark.usefixtures("tiny_home")

BOTH: tuple[Component, ...] = ("generator", "retriever")
SITE = small_site("a", train=6)

Train = Callable[..., str]


def labelled(site: Site, *passages: int) -> Site:
    """Let each training question be answered by the passage of that number, the last one by all further questions."""
    numbers = [*passages, *[passages[-1]] * len(site.train)]
    train = zip(site.train, numbers, strict=False)
    return replace(site, train=tuple(replace(q, passage_ids=(site.passages[n].id,)) for q, n in train))


def with_labels(site: Site, count: int) -> Site:
    bare = [replace(question, passage_ids=()) for question in site.train[count:]]
    return replace(site, train=(*site.train[:count], *bare))


def with_answers(site: Site, count: int) -> Site:
    bare = [replace(question, answers=()) for question in site.train[count:]]
    return replace(site, train=(*site.train[:count], *bare))


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """Return the refusal with which a site of a policy answers a round of training; "" where an update leaves it."""

    def train(site: Site, least: int, components: tuple[Component, ...] = ("retriever",), **settings: object) -> str:
        shutil.rmtree(tmp_path / "site", ignore_errors=True)
        write_site(tmp_path / "site", site)
        config = tiny_config(**settings)
        state = initial_state(config, BOTH)
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 0, 1
        message = Message(request_content(Request(config.to_toml(), 1, state, components)), 7, TRAIN, group_id="1")
        node_config = {"site-name": "a", "site-folder": str(tmp_path / "site"), "site-cache": str(tmp_path / "cache")}
        context = Context(0, 0, node_config, RecordDict(), {})
        reply = make_client_app(policy=Policy(min_examples=least))(message=message, context=context).content
        refused = reply.config_records.get("refusal")
        assert refused is not None or reply.array_records["update"]
        return str(refused["code"]) if refused else ""

    return train


def lsr(**settings: object) -> dict[str, object]:
    return {"loss": "lsr", "lsr": {"candidates": 2, **settings}}


@pytest.mark.parametrize(("drawn", "code"), [(1, "policy-few-examples"), (4, ""), (0, "")])
def test_questions_that_lsr_leaves_out_do_not_count(train, drawn, code):
    """`max_questions = 1` once sent an update of one question past any limit."""
    assert train(SITE, 4, retriever=lsr(max_questions=drawn)) == code


@pytest.mark.parametrize("loss", ["contrastive", "both"])
def test_questions_without_a_label_do_not_count_for_the_contrastive_loss(train, loss):
    settings = {"loss": loss, "lsr": {"candidates": 2, "max_questions": 1}}
    site = with_answers(with_labels(SITE, 2), 6)
    assert train(site, 4, retriever=settings) == "policy-few-examples"


def test_scores_of_no_weight_teach_nothing(train):
    settings = {"loss": "both", "lsr_weight": 0.0, "lsr": {"candidates": 2}}
    assert train(with_labels(SITE, 2), 3, retriever=settings) == "policy-few-examples"
    assert train(with_labels(SITE, 2), 3, retriever=settings | {"lsr_weight": 1.0}) == ""


def test_a_question_with_nothing_to_compare_teaches_nothing(train):
    """One passage, one candidate: no score says which is better."""
    alone = replace(SITE, passages=SITE.passages[:1], train=with_labels(SITE, 0).train, validation=(), test=())
    assert train(alone, 4, retriever=lsr()) == "no-examples"


def test_questions_whose_batch_holds_no_negative_do_not_count(train):
    """Five questions on one passage and one on another: a single pair has two questions to tell apart."""
    site = labelled(SITE, 1, 0)
    assert train(site, 3, retriever={"loss": "contrastive"}) == "policy-few-examples"
    assert train(site, 2, retriever={"loss": "contrastive"}) == ""


def test_a_component_that_learnt_from_nothing_does_not_keep_the_other_one_back(train):
    """Both questions stand on one passage: the retriever has no negative, and its difference is zero."""
    same = labelled(replace(SITE, train=SITE.train[:2]), 0, 0)
    assert train(same, 1, ("generator", "retriever"), retriever={"loss": "contrastive"}) == ""
    assert train(same, 2, ("generator", "retriever"), retriever={"loss": "contrastive"}) == ""
    assert train(same, 3, ("generator", "retriever"), retriever={"loss": "contrastive"}) == "policy-few-examples"


def test_a_question_asked_twice_counts_once(train):
    two = labelled(replace(SITE, train=SITE.train[:2]), 0, 1)
    site = replace(two, train=(*two.train, *(replace(question, id=f"{question.id}+") for question in two.train)))
    for components, settings in ((("retriever",), {}), (("retriever",), lsr()), (("generator",), {})):
        assert train(site, 3, components, retriever=settings) == "policy-few-examples"
        assert train(site, 2, components, retriever=settings) == ""


def test_questions_without_an_answer_do_not_count_for_the_generator(train):
    assert train(with_answers(SITE, 2), 3, ("generator",)) == "policy-few-examples"
    assert train(with_answers(SITE, 0), 1, ("generator",)) == "no-examples"


def test_answers_that_the_models_gave_count_only_where_they_were_taken(train):
    """An untrained generator's answers stand in no passage: none is taken."""
    asked = replace(SITE, train=SITE.train[:2], unanswered=tuple(replace(q, answers=()) for q in SITE.train[2:]))
    settings = {"federation": {"schedule": "iterate", "rounds": 2, "pseudo_confidence": 0.9}}
    assert train(asked, 3, ("generator",), **settings) == "policy-few-examples"
    assert train(asked, 2, ("generator",), **settings) == ""


def test_no_component_leaves_with_fewer(train):
    """The generator has enough; the update is refused whole."""
    assert train(SITE, 4, BOTH, retriever=lsr(max_questions=1)) == "policy-few-examples"


@pytest.mark.parametrize(
    ("settings", "fewest"),
    [
        (lsr(), 6),
        (lsr(max_questions=1), 1),
        ({"loss": "both", "lsr": {"max_questions": 1}}, 3),
        ({"loss": "both", "lsr_weight": 0.0}, 2),
        ({"loss": "contrastive"}, 2),
    ],
)
def test_what_a_scenario_leaves_out_is_known_before_a_model_is_loaded(settings, fewest):
    config = tiny_config(retriever=settings)
    assert fewest_questions(with_labels(SITE, 2), ("retriever",), config) == fewest


def test_the_shipped_site_trains_with_all_it_has(train):
    site = replace(load_site(SHIPPED / "north"), name="a")
    assert train(site, len(site.train), BOTH, retriever={"batch_size": 32}) == ""
