"""Generators of every make: tried, trained, averaged and exported; PEFT computes what fedrag computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import CAUSAL, SEQ2SEQ
from building import build_generator
from life import TEXTS, exported, fetched, one_round, scenario, two_sites, wrong
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from fedrag.config.scenario import Config
from fedrag.models.generator import Generator
from fedrag.models.resident import RoundModels
from fedrag.passes.batch_invariant import can_be_batch_invariant, decode_invariant, invariant_batches
from fedrag.passes.decoding import decode
from fedrag.passes.reading import answer_logits
from fedrag.rag.pipeline import prompt_builder
from fedrag.types import Example, State
from fedrag.weights.store import FetchedModel

pytestmark = pytest.mark.slow

CLASSES = {"causal": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM}
TABLES = {"causal": CAUSAL, "seq2seq": SEQ2SEQ}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_sites(tmp_path_factory.mktemp("sites"))


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, table in TABLES.items() for name in table])
def test_a_generator_computes_in_peft_as_it_was_trained(zoo_home, sites, tmp_path, kind, name):
    model = fetched(build_generator(name, TABLES[kind][name], tmp_path / "model", kind), kind, name)
    config = scenario("generator", model, sites)
    assert wrong(config, "generator", model) == []
    state = one_round(config, tmp_path)
    examples, ours = our_logits(config, state)
    theirs, untouched = stock_logits(exported(tmp_path), model, examples)
    assert (theirs - untouched).abs().max() > 0.01
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    check_answers(RoundModels(config, state).generator, config)


def check_answers(generator: Generator, config: Config) -> None:
    """Prompts of different lengths get, on each way to decode them together, what transformers gives to each alone."""
    builder = prompt_builder(generator, config.rag)
    prompts = [builder.example(TEXTS[0], texts) for texts in (TEXTS[1:], [], TEXTS[1:2])]
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt.prompt])
        given = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 4, "do_sample": False}
        alone = generator.model.generate(input_ids=ids, **given, pad_token_id=generator.pad_id)[0].tolist()
        expected.append(alone[1 if generator.seq2seq else prompt.length :])
    answers = decode(generator, prompts, 4)
    assert [ids[: len(known)] for ids, known in zip(answers, expected, strict=True)] == expected
    if can_be_batch_invariant(generator):
        for rows in invariant_batches(prompts):
            for row, ids in zip(rows, decode_invariant(generator, [prompts[row] for row in rows], 4), strict=True):
                assert ids[: len(expected[row])] == expected[row]


def our_logits(config: Config, state: State) -> tuple[list[Example], torch.Tensor]:
    """Return prompts with answers, and the logits (tokens, vocabulary) of the answers as fedrag reads them."""
    generator = RoundModels(config, state).generator
    builder = prompt_builder(generator, config.rag)
    answers = [builder.answer(text, end=True) for text in ("at seven", "in forty minutes")]
    examples = [builder.example(TEXTS[0], TEXTS[1:], answer) for answer in answers]
    with torch.no_grad():
        return examples, answer_logits(generator, examples)[0]


def stock_logits(folder: Path, base: FetchedModel, examples: list[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of PEFT, with the exported adapter and without it, one example at a time."""
    stock = CLASSES[base.kind].from_pretrained(base.folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(stock, folder / "generator").eval()
    AutoTokenizer.from_pretrained(folder / "generator")
    with torch.no_grad():
        adapted = torch.cat([_logits(model, base.kind, example) for example in examples])
        with model.disable_adapter():
            return adapted, torch.cat([_logits(model, base.kind, example) for example in examples])


def _logits(model: PeftModel, kind: str, example: Example) -> torch.Tensor:
    if kind == "seq2seq":
        start = model.generation_config.decoder_start_token_id
        decoder = torch.tensor([[start, *example.answer[:-1]]])
        return model(input_ids=torch.tensor([example.prompt]), decoder_input_ids=decoder).logits[0]
    ids = torch.tensor([example.prompt + example.answer])
    return model(input_ids=ids).logits[0, len(example.prompt) - 1 : -1]
