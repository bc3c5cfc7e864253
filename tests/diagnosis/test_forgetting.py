"""The loss on general text: by hand, for every make of generator, before and after training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_federation import tiny_config

from fedrag.diagnosis.forgetting import general_losses, measure_forgetting
from fedrag.diagnosis.general_texts import GENERAL_TEXTS
from fedrag.models.resident import RoundModels


def test_the_loss_is_that_of_the_second_half_of_each_sentence_given_the_first(load_generator):
    generator = load_generator()
    losses = general_losses(generator)
    assert list(losses) == [*GENERAL_TEXTS, "all"]
    total, count = 0.0, 0
    for text in GENERAL_TEXTS["de"]:
        ids = generator.tokenizer(text, add_special_tokens=False)["input_ids"]
        half = len(ids) // 2
        with torch.inference_mode():
            logits = generator.model(torch.tensor([ids])).logits[0].float()
        chosen = logits.log_softmax(-1)[torch.arange(half - 1, len(ids) - 1), torch.tensor(ids[half:])]
        total, count = total - float(chosen.sum()), count + len(chosen)
    assert losses["de"] == pytest.approx(total / count, rel=1e-4)


@pytest.mark.parametrize("kind", ["causal", "seq2seq"])
def test_every_make_of_generator_has_a_loss(load_generator, kind):
    assert all(loss > 0 for loss in general_losses(load_generator(kind)).values())


def test_an_adapter_that_acts_from_the_question_on_acts_on_general_text(tiny_home):
    """There is no question in it: the adapter acts from the second token on."""
    config = tiny_config(generator={"adapter_from": "question"})
    state = RoundModels(config, {}).generator.initial_state(0)
    rng = np.random.default_rng(0)
    changed = {name: rng.normal(0, 0.3, tensor.shape).astype(np.float32) for name, tensor in state.items()}
    losses = measure_forgetting(config, {"generator": changed})
    assert losses["before"] == measure_forgetting(config, {"generator": state})["after"]
    assert losses["after"]["all"] != losses["before"]["all"]


def test_of_a_retriever_alone_nothing_is_measured():
    assert measure_forgetting(tiny_config(), {"retriever": {}}) == {}
