"""Two processes that train together learn what one learns; one that dies ends the round and leaves nothing behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_federation import small_site, tiny_config

from fedrag.components.crew import ALONE, Crew
from fedrag.components.state import initial_state
from fedrag.components.work import Workbench
from fedrag.errors import ConfigError, TrainingDiverged, TrainingProcessLost
from fedrag.federation.messages import Reply, Request
from fedrag.site.steps import train_site
from fedrag.training.losses import Losses

CONTRASTIVE = {"loss": "contrastive", "contrastive": {"hard_negatives": 1}}
FROM_SCORES = {"loss": "both", "lsr": {"candidates": 3, "side": "both", "scorer": "untouched"}}
WAYS = {
    "RALT": {},
    "RALT, fewer examples than processes": {"generator": {"batch_size": 1}},
    "contrastive": {"retriever": CONTRASTIVE},
    "contrastive and LSR": {"retriever": FROM_SCORES},
    "contrastive, by parts": {"retriever": {**CONTRASTIVE, "mini_batch_size": 1}},
    "the query side": {"retriever": {**CONTRASTIVE, "contrastive": {"side": "query"}}},
    "all weights": {"retriever": {**CONTRASTIVE, "weights": "full", "learning_rate": 1e-4}},
}
"""What is trained: with settings of the retriever it, else the generator."""


@pytest.fixture(scope="module")
def two() -> Iterator[Crew]:
    with Crew(2) as crew:
        yield crew


@pytest.fixture
def train(tiny_home: Path, tmp_path: Path) -> Callable[..., Reply]:
    """Return a function that trains a site's round: 7 questions in batches of 4, twice."""

    def train(crew: Crew, settings: dict[str, Any] | None = None, **more: Any) -> Reply:
        sections = {"generator": {"epochs": 2}, "retriever": {"epochs": 2}}
        for section, changes in (settings or {}).items():
            sections[section] = {**sections[section], **changes}
        config = tiny_config(**sections)
        component = "retriever" if "retriever" in (settings or {}) else "generator"
        state = initial_state(config, ("generator", "retriever"))
        request = Request(config.to_toml(), 1, state, (component,))
        site = small_site("north", train=7)
        bench = Workbench(site, tmp_path / "cache", tmp_path / "scores", config, crew=crew)
        return train_site(replace(bench, **more), request)

    return train


def without_gradient(component: str, settings: dict[str, Any]) -> np.ndarray:
    """Return which weights are biases of keys: they move all of a query's scores alike, which softmax does not see."""
    tensors = initial_state(tiny_config(**settings), (component,))[component]
    return np.concatenate([np.full(tensor.size, name.endswith("key.bias")) for name, tensor in tensors.items()])


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_learn_what_one_does(train, two, way):
    together, alone = train(two, WAYS[way]), train(ALONE, WAYS[way])
    [(component, update)] = together.update.items()
    assert together.metrics[f"{component}.steps"] == alone.metrics[f"{component}.steps"] >= 4
    for name in ("loss", "last_loss"):
        assert together.metrics[f"{component}.{name}"] == pytest.approx(alone.metrics[f"{component}.{name}"], rel=1e-5)
    # Adam divides by the size of a gradient: where that is hardly more than rounding, so is the direction of a step.
    far = np.abs(update - alone.update[component]) > 1e-3 * np.abs(alone.update[component]).max()
    assert far[~without_gradient(component, WAYS[way])].mean() < 1e-3
    assert np.abs(update).max() > 1e-5


def test_a_process_that_dies_ends_the_round_with_a_sentence_and_the_next_round_has_a_new_one(train, two):
    pids = []

    def kill(what: str, done: int, total: int) -> None:
        if what == "generator" and not pids:
            pids.extend(helper.pid for helper in two._helpers)
            os.kill(pids[0], signal.SIGKILL)

    with pytest.raises(TrainingProcessLost, match="a process that trained with this one was ended by signal 9"):
        train(two, on_progress=kill)
    with pytest.raises(ProcessLookupError):  # neither alive nor a zombie
        os.kill(pids[0], 0)
    assert train(two).update
    assert two._helpers[0].pid != pids[0]
    last = two._helpers[0].pid
    two.end()
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)


def test_an_error_of_this_process_is_told_as_it_is(train, two):
    def stop(what: str, done: int, total: int) -> None:
        raise TrainingDiverged("the training diverged")

    with pytest.raises(TrainingDiverged):
        train(two, on_progress=stop)


def test_a_loss_that_cannot_be_sent_is_refused(train):
    with Crew(2) as crew, pytest.raises(ConfigError, match="this training cannot be sent to another process"):
        train(crew, losses=Losses(answer=lambda logits, labels: logits.sum()))


def test_more_processes_than_gpus_are_refused(train, monkeypatch):
    monkeypatch.setattr("fedrag.components.crew.best_device", lambda: "cuda")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ConfigError, match="processes = 2, but torch finds 1 GPU here: each process needs one"):
        train(Crew(2))
