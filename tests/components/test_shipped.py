"""What the federation knows of the generator and of the retriever."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tiny_federation import small_site, tiny_config

from fedrag.components.base_models import required_models
from fedrag.components.shipped import SHIPPED
from fedrag.errors import ConfigError
from fedrag.types import COMPONENTS, Question

LABELLED = {"train_questions": 4, "answered_questions": 4, "labelled_questions": 4}
UNLABELLED = {**LABELLED, "labelled_questions": 0}
UNANSWERED = {**LABELLED, "answered_questions": 0}


def test_they_stand_in_the_order_in_which_they_are_trained():
    assert tuple(SHIPPED) == COMPONENTS


@pytest.mark.parametrize(
    ("component", "loss", "counts", "can"),
    [
        ("generator", "contrastive", UNLABELLED, True),
        ("generator", "contrastive", {}, False),
        ("retriever", "contrastive", UNLABELLED, False),
        ("retriever", "contrastive", LABELLED, True),
        ("retriever", "lsr", UNLABELLED, True),
        ("retriever", "both", UNLABELLED, True),
        ("generator", "contrastive", UNANSWERED, False),
        ("retriever", "contrastive", UNANSWERED, True),
        ("retriever", "lsr", UNANSWERED, False),
        ("retriever", "both", UNANSWERED, True),
    ],
)
def test_the_contrastive_loss_needs_labels_and_everything_else_answers(component, loss, counts, can):
    assert SHIPPED[component].can_train(counts, tiny_config(retriever={"loss": loss})) is can


@pytest.mark.parametrize(
    ("retriever", "others"),
    [
        ({"loss": "contrastive"}, ()),
        ({"loss": "lsr"}, ("generator",)),
        ({"loss": "both"}, ("generator",)),
        ({"loss": "lsr", "lsr": {"scorer": "untouched"}}, ()),
    ],
)
def test_the_retriever_needs_the_generators_state_where_it_scores_as_it_is_now(retriever, others):
    assert SHIPPED["retriever"].needs_state_of(tiny_config(retriever=retriever)) == others
    assert SHIPPED["generator"].needs_state_of(tiny_config(retriever=retriever)) == ("retriever",)


@pytest.mark.usefixtures("tiny_home")
@pytest.mark.parametrize(
    ("schedule", "loss", "evaluation", "models"),
    [
        ("joint", "contrastive", {"split": "none"}, ["retriever", "generator"]),
        ("generator", "contrastive", {"split": "none"}, ["retriever", "generator"]),
        ("retriever", "contrastive", {"split": "none"}, ["retriever"]),
        ("retriever", "lsr", {"split": "none"}, ["retriever", "generator"]),
        ("retriever", "contrastive", {"split": "test"}, ["retriever", "generator"]),
        ("retriever", "contrastive", {"split": "test", "generate": False}, ["retriever"]),
    ],
)
def test_a_base_model_is_needed_where_it_trains_scores_or_answers(schedule, loss, evaluation, models):
    config = tiny_config(federation={"schedule": schedule}, retriever={"loss": loss}, evaluation=evaluation)
    assert list(required_models(config)) == models


def test_sites_without_a_labelled_question_are_refused_by_the_contrastive_loss_alone():
    site = small_site("a")
    bare = type(site)("bare", site.passages, (Question("q", "Why?", ("so",)),))
    with pytest.raises(ConfigError, match='retriever.loss = "contrastive" learns from labelled passages'):
        SHIPPED["retriever"].check_sites(tiny_config(), [bare])
    SHIPPED["retriever"].check_sites(tiny_config(), [bare, site])
    SHIPPED["retriever"].check_sites(tiny_config(retriever={"loss": "lsr"}), [bare])


def test_sites_without_an_answer_are_refused_where_answers_are_learnt_from():
    site = small_site("a")
    pairs = type(site)("pairs", site.passages, (Question("q", "Why?", (), (site.passages[0].id,)),))
    with pytest.raises(ConfigError, match="the generator learns from answers"):
        SHIPPED["generator"].check_sites(tiny_config(), [pairs])
    with pytest.raises(ConfigError, match='retriever.loss = "lsr" learns from answers'):
        SHIPPED["retriever"].check_sites(tiny_config(retriever={"loss": "lsr"}), [pairs])
    SHIPPED["generator"].check_sites(tiny_config(), [pairs, site])
    SHIPPED["retriever"].check_sites(tiny_config(), [pairs])


def test_what_is_known_of_them_loads_no_torch():
    """A site's node reads it, and stays small."""
    script = "import sys, fedrag.components.base_models; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
