"""Tries a generator before anything is trained: each thing that a run does with it, once, on three small questions.

What fedrag computes is compared with the stock library's own computation on the same weights: the loss of
transformers' forward pass with labels and its gradient, and `generate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import GenerationConfig
from transformers.utils.logging import disable_progress_bar

from fedrag.components.finding import Finding, found
from fedrag.config.scenario import Config
from fedrag.errors import ModelError
from fedrag.models.adapters import adapted_weights
from fedrag.models.generator import Generator, load_tokenizer, model_without_weights
from fedrag.models.resident import prefix_bytes
from fedrag.models.stock import computing_as_stock
from fedrag.passes.decoding import decode
from fedrag.passes.reading import reader_of
from fedrag.rag.answer_scores import score_answers
from fedrag.rag.pipeline import prompt_builder
from fedrag.rag.wording import Wording, wording_of
from fedrag.training.losses import answer_loss
from fedrag.types import Example
from fedrag.weights.compute import best_device, computing_dtype
from fedrag.weights.store import FetchedModel

QUESTIONS = (
    ("When does the pool open?", ("The pool opens at seven.", "The library closes at noon."), "at seven"),
    ("Who keeps the keys?", ("The porter keeps the keys.", "The pool opens at seven."), "the porter"),
    ("Where is the bell?", ("The bell hangs above the gate of the yard.",), "above the gate"),
)
_NEW_TOKENS = 8
_ROOM = 2048
_SAME_LOSS = {torch.float32: 1e-3, torch.bfloat16: 0.06, torch.float16: 0.02}  # of the stock loss, and at least of 1
_SAME_STEPS = 4  # of the number format, between the logits of two tokens
_SAME_GRADIENT = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}  # 1 - cosine


def try_generator(config: Config, fetched: FetchedModel) -> Iterator[Finding]:
    """Try a generator; each thing is a finding, and what cannot be tried without an earlier one is left out."""
    tokenizer = found("tokenizer", lambda: _tokenizer(fetched))
    yield tokenizer
    if not tokenizer.is_ok:
        return
    loaded: list[Generator] = []
    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers gives it no types
    yield found("loading", lambda: _load(config, fetched, loaded))
    if not loaded:
        return
    trial = _Trial(config, loaded[0])
    prompt = found("prompt", trial.prompt)
    yield prompt
    yield found("adapter", trial.adapter)
    if prompt.is_ok:
        checks: dict[str, Callable[[], str]] = {
            "loss": trial.loss,
            "training step": trial.gradient,
            "scoring": trial.scores,
            "generation": trial.generation,
        }
        for name, check in checks.items():
            finding = found(name, check)
            yield finding
            if not finding.is_ok:  # what follows would be wrong for the same reason
                return


def _tokenizer(fetched: FetchedModel) -> str:
    """Check the tokens against the embedding's rows, and that an answer can end."""
    tokenizer = load_tokenizer(fetched)
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "has no end token: no answer would end; name one as eos_token in its tokenizer_config.json, "
            "and fetch it again"
        )
    rows = _embedding_rows(fetched)
    highest = max(tokenizer.get_vocab().values(), default=0)
    if highest >= rows:
        beyond = sorted((number, text) for text, number in tokenizer.get_vocab().items() if number >= rows)
        names = ", ".join(repr(text) for _, text in beyond[:3])
        raise ModelError(
            f"has {len(beyond)} tokens beyond the {rows} rows of the model's embedding, such as {names}: it belongs to "
            "another model, or the model's embedding was not resized"
        )
    pad = tokenizer.pad_token_id
    padding = f"padding token {tokenizer.pad_token!r}" if pad is not None else "rows are padded with the end token"
    return f"{highest + 1:,} tokens for {rows:,} rows; end token {tokenizer.eos_token!r}, {padding}"


def _embedding_rows(fetched: FetchedModel) -> int:
    model: Any = model_without_weights(fetched)
    return int(model.get_input_embeddings().weight.shape[0])


def _load(config: Config, fetched: FetchedModel, loaded: list[Generator]) -> str:
    device = best_device()
    dtype = computing_dtype(config.models.generator_dtype, device)
    four_bits = config.models.generator_dtype == "nf4"
    from_question = config.generator.adapter_from == "question"
    generator = Generator.load(fetched, config.generator.lora, dtype, device, four_bits, whole_texts=from_question)
    if from_question:
        generator.prefix_bytes = prefix_bytes(config, device)
    if generator.seq2seq:
        _check_start(generator)
    loaded.append(generator)
    return f"{type(generator.model).__name__} in {str(dtype).removeprefix('torch.')} on {device}"


def _check_start(generator: Generator) -> None:
    """Require that the decoder starts from a token that the model has."""
    model: Any = generator.model
    rows = int(model.get_input_embeddings().weight.shape[0])
    if not 0 <= generator.start_id < rows:
        raise ModelError(
            f"its decoder starts from token {generator.start_id}, beyond the {rows} rows of the model's embedding; "
            "correct decoder_start_token_id in its config.json and generation_config.json, and fetch it again"
        )


class _Trial:
    """The passes of one generator, and those of the stock library.

    Args:
        config: The scenario.
        generator: Loaded for the trial alone; its adapter is overwritten.
    """

    def __init__(self, config: Config, generator: Generator) -> None:
        self._config = config
        self._generator = generator
        self._model: Any = generator.model
        self._from_question = generator.prefix_bytes is not None

    def prompt(self) -> str:
        """Render prompts, and find instruction, passages and question in them, in order."""
        rag = self._config.rag
        # Of a small budget a passage would be cut, which is no fault of the template's.
        roomy = rag.model_copy(update={"prompt_tokens": max(rag.prompt_tokens, _ROOM)})
        builder = prompt_builder(self._generator, roomy)
        for question, texts, _ in QUESTIONS:
            passages = texts[: rag.passages]
            ids = builder.example(question, passages).prompt
            text = _letters(self._generator.tokenizer.decode(ids))
            place = 0
            for name, part in _in_order(wording_of(self._config.rag), passages, question):
                at = text.find(_letters(part), place)
                if at < 0:
                    raise ModelError(
                        f"the {name} does not stand in its place in the prompt: the tokenizer or the chat template "
                        "leaves it out, changes it or moves it"
                    )
                place = at + len(_letters(part))
        return f"instruction, passages and question stand in it, in order; {len(ids)} tokens the last"

    def adapter(self) -> str:
        """Tell what of the model the adapter does not act on."""
        return adapted_weights(self._model)

    def loss(self) -> str:
        """Compare the loss of the answers with that of transformers' forward pass with labels."""
        self._set_adapter(0.0 if self._from_question else 0.01)
        with torch.no_grad():
            ours = float(self._our_loss())
        with torch.no_grad(), computing_as_stock(self._model):
            stock = float(self._stock_loss())
        self._compare("loss", ours, stock)
        return f"{ours:.4f}, as transformers computes it ({stock:.4f})"

    def gradient(self) -> str:
        """Compare a step's gradient with that of the stock computation."""
        parameters = list(self._generator.parameters().values())
        ours = _flat(torch.autograd.grad(self._our_loss(), parameters, allow_unused=True), parameters)
        norm = float(ours.norm())
        if not np.isfinite(norm) or norm == 0.0:
            raise ModelError(f"the gradient of the adapter has the norm {norm:g}: it would not learn")
        if self._from_question:
            return f"gradient of norm {norm:.3g}"
        with computing_as_stock(self._model):
            stock = _flat(torch.autograd.grad(self._stock_loss(), parameters, allow_unused=True), parameters)
        cosine = float(nn.functional.cosine_similarity(ours, stock, dim=0))
        if not 1 - cosine <= _SAME_GRADIENT[self._generator.dtype]:
            raise ModelError(
                f"its gradient is not that of transformers (cosine {cosine:.4f}): it would learn wrongly; "
                "choose another"
            )
        return f"gradient of norm {norm:.3g}, as transformers computes it"

    def scores(self) -> str:
        """Compare answer scores with the log-probabilities of the stock computation."""
        examples = [replace(example, answer=example.answer[:-1]) for example in self._examples()]
        ours = score_answers(self._generator, examples)
        with torch.no_grad(), computing_as_stock(self._model):
            stock = [-float(self._stock_example_loss(example)) for example in examples]
        for mine, theirs in zip(ours.tolist(), stock, strict=True):
            self._compare("score of an answer", mine, theirs)
        return "log-probabilities of answers as transformers computes them"

    def generation(self) -> str:
        """Compare short answers with those of `generate`, read one by one and without a cache of ours."""
        prompts = [replace(example, answer=[]) for example in self._examples()]
        with self._generator.at_rest():
            ours = decode(self._generator, prompts, _NEW_TOKENS)
        for prompt, answer in zip(prompts, ours, strict=True):
            with torch.inference_mode(), computing_as_stock(self._model), self._generator.at_rest():
                stock = self._stock_answer(prompt.prompt)
            self._compare_answers(prompt.prompt, answer, stock)
        return "answers as transformers' generate gives them"

    def _examples(self) -> list[Example]:
        builder = prompt_builder(self._generator, self._config.rag)
        most = self._config.rag.passages
        return [builder.example(q, texts[:most], builder.answer(answer, end=True)) for q, texts, answer in QUESTIONS]

    def _set_adapter(self, scale: float) -> None:
        """Give the adapter small random weights: at zero a wrong adapter would not show."""
        chance = np.random.default_rng(0)
        state = self._generator.initial_state(seed=0)
        for name, tensor in state.items():
            if ".lora_B." in name:
                state[name] = (scale * chance.standard_normal(tensor.shape)).astype(np.float32)
        self._generator.set_adapter(state)

    def _our_loss(self) -> torch.Tensor:
        logits, labels = reader_of(self._generator).answer_logits(self._examples())
        return answer_loss(logits, labels) / len(labels)

    def _stock_loss(self) -> torch.Tensor:
        examples = self._examples()
        total = sum(len(example.answer) for example in examples)
        losses = [self._stock_example_loss(example) * (len(example.answer) / total) for example in examples]
        return torch.stack(losses).sum()

    def _stock_example_loss(self, example: Example) -> torch.Tensor:
        device = self._model.device
        prompt, answer = (torch.tensor([ids], device=device) for ids in (example.prompt, example.answer))
        if self._generator.seq2seq:
            start = torch.tensor([[self._generator.start_id]], device=device)
            decoder = torch.cat([start, answer[:, :-1]], dim=1)
            loss: torch.Tensor = self._model(input_ids=prompt, decoder_input_ids=decoder, labels=answer).loss
            return loss
        labels = torch.cat([torch.full_like(prompt, -100), answer], dim=1)
        loss = self._model(input_ids=torch.cat([prompt, answer], dim=1), labels=labels, use_cache=False).loss
        return loss

    def _stock_answer(self, prompt: Sequence[int]) -> list[int]:
        ids = torch.tensor([list(prompt)], device=self._model.device)
        settings = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers gives it no types
            max_new_tokens=_NEW_TOKENS,
            do_sample=False,
            pad_token_id=self._generator.pad_id,
            eos_token_id=self._generator.end_ids,
            decoder_start_token_id=self._generator.start_id if self._generator.seq2seq else None,
        )
        kept, self._model.generation_config = self._model.generation_config, settings
        try:
            output = self._model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings
            )
        finally:
            self._model.generation_config = kept
        return [int(token) for token in output[0, 1 if self._generator.seq2seq else len(prompt) :]]

    def _compare(self, what: str, ours: float, stock: float) -> None:
        """Require two numbers to be the same, up to the number format."""
        if not abs(ours - stock) <= _SAME_LOSS[self._generator.dtype] * max(1.0, abs(stock)):
            raise ModelError(
                f"the {what} is {ours:.4f}, transformers computes {stock:.4f}: "
                "fedrag does not read this model rightly; choose another"
            )

    def _compare_answers(self, prompt: Sequence[int], ours: Sequence[int], stock: Sequence[int]) -> None:
        """Require two answers to be the same up to their end, or to part where two tokens are as likely."""
        ends = set(self._generator.end_ids)
        for place, (mine, theirs) in enumerate(zip(ours, stock, strict=False)):
            if mine != theirs:
                logits = self._next_logits([*prompt], stock[:place])
                if not are_as_likely(logits, mine, theirs, self._generator.dtype):
                    tokens = self._generator.tokenizer.convert_ids_to_tokens([mine, theirs])
                    raise ModelError(
                        f"token {place + 1} of an answer is {tokens[0]!r}, transformers' generate gives {tokens[1]!r}: "
                        "fedrag does not read this model rightly; choose another"
                    )
                return
            if mine in ends:
                return

    def _next_logits(self, prompt: list[int], answer: Sequence[int]) -> torch.Tensor:
        device = self._model.device
        with torch.inference_mode(), computing_as_stock(self._model), self._generator.at_rest():
            if self._generator.seq2seq:
                decoder = torch.tensor([[self._generator.start_id, *answer]], device=device)
                out = self._model(input_ids=torch.tensor([prompt], device=device), decoder_input_ids=decoder)
            else:
                out = self._model(input_ids=torch.tensor([[*prompt, *answer]], device=device), use_cache=False)
        logits: torch.Tensor = out.logits[0, -1].float()
        return logits


def are_as_likely(logits: torch.Tensor, mine: int, theirs: int, dtype: torch.dtype) -> bool:
    """Return whether a number format cannot tell which of two tokens is the likelier one.

    Beside a share of the logits' spread, a few steps of the format at the size of these logits are no difference: which
    kernels compute depends on the processor and the number of threads.

    >>> logits = torch.tensor([18.125, 17.875, 16.125])
    >>> [are_as_likely(logits, mine, 0, torch.bfloat16) for mine in (1, 2)]
    [True, False]
    >>> are_as_likely(logits, 1, 0, torch.float32)
    False
    """
    spread = _SAME_LOSS[dtype] * max(1.0, float(logits.std()))
    steps = _SAME_STEPS * torch.finfo(dtype).eps * float(logits.abs().max())
    return float(logits[theirs] - logits[mine]) <= max(spread, steps)


def _in_order(wording: Wording, passages: Sequence[str], question: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a prompt, with their names, as they must follow one another."""
    yield "instruction", wording.instruction
    yield "beginning of rag.template", wording.before
    numbered = [(f"text of passage {number}", text) for number, text in enumerate(passages, 1)]
    asked = [("question", question)]
    first, second = (asked, numbered) if wording.question_first else (numbered, asked)
    yield from first
    yield "text between passages and question", wording.between
    yield from second
    if wording.in_message:
        yield "end of rag.template", wording.after


def _letters(text: str) -> str:
    """Return the letters and digits of a text alone: tokenizers change spaces, and some of them the case."""
    return "".join(filter(str.isalnum, text.casefold()))


def _flat(gradients: Sequence[torch.Tensor | None], parameters: Sequence[nn.Parameter]) -> torch.Tensor:
    parts = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
    return torch.cat([part.detach().float().flatten() for part in parts])
