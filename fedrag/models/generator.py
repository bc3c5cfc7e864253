"""The generator: a causal or seq2seq language model with a LoRA adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
)

from fedrag.config.scenario import LoraSection
from fedrag.errors import ModelError
from fedrag.models.adapters import adapter_disabled, add_lora, as_tensor, initial_lora, lora_parameters
from fedrag.models.cache_keyword import CACHE
from fedrag.models.four_bits import check_packable, count_packable, is_packed, packing_options, settle_packed
from fedrag.passes.attention import NAME, use_cpu_attention
from fedrag.passes.batches import padded
from fedrag.passes.cuda_graph import Recorder, waits_for_launches
from fedrag.passes.cuda_graph_decoding import RecordedDecoding
from fedrag.passes.cuda_graph_training import RecordedPasses
from fedrag.passes.positions import answer_places, answer_where_asked, asked_at
from fedrag.passes.prefix import PrefixReader, read_first_prefixes, remembers_all, share_a_prefix
from fedrag.passes.rms_norm import use_cpu_rms_norm
from fedrag.passes.threads import changes_with_texts
from fedrag.passes.tree import PromptTree, reading
from fedrag.types import Example, Tensors
from fedrag.weights.store import FetchedModel


class Generator:
    """A language model whose base is frozen; only its adapter can be trained.

    Args:
        model: The model with its adapter injected.
        tokenizer: Its tokenizer.
        fetched: Where it came from.
        targets: Names of the adapted layers.

    Attributes:
        prefixes: Reads what examples share at their start, where the adapter acts from the question on; None: the
            adapter acts on whole prompts.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, fetched: FetchedModel, targets: tuple[str, ...]) -> None:
        self.model = model
        self.model.train(False)
        self.tokenizer = tokenizer
        self.fetched = fetched
        self.targets = targets
        self.prefixes: PrefixReader | None = None
        answer_where_asked(model)

    @classmethod
    def load(
        cls,
        fetched: FetchedModel,
        lora: LoraSection,
        dtype: torch.dtype,
        device: str,
        four_bits: bool = False,
    ) -> Generator:
        """Load a fetched model and inject an adapter that changes nothing yet.

        Args:
            fetched: The model.
            lora: Its adapter.
            dtype: Number format in which it computes, and of its weights.
            device: Where it computes.
            four_bits: Keep the weights of its linear layers in 4 bits.

        Raises:
            ModelError: It is no language model, or cannot stand in 4 bits.
        """
        if fetched.kind not in _CLASSES:
            raise ModelError(f"{fetched.name} is no language model and cannot be the generator")
        packing: dict[str, Any] = {}
        if four_bits:
            check_four_bits(fetched)
            packing = packing_options(dtype, device)
        model = _CLASSES[fetched.kind].from_pretrained(
            fetched.folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True, **packing
        )
        tokenizer = load_tokenizer(fetched)
        targets = add_lora(model, lora)
        if four_bits:
            settle_packed(model)
        else:
            model.to(device)
        use_cpu_attention(model)
        use_cpu_rms_norm(model)
        generator = cls(model, tokenizer, fetched, targets)
        generator.set_adapter(generator.initial_state(seed=0))
        return generator

    def adapt_from_question(self, most_bytes: float) -> None:
        """Let the adapter act from the question on: the base model alone reads what comes before.

        Args:
            most_bytes: Memory for what it has read.

        Raises:
            ModelError: A model that does not keep the keys and values of all tokens.
        """
        self.prefixes = PrefixReader(self.model, most_bytes)

    @property
    def seq2seq(self) -> bool:
        """Whether prompts go to an encoder."""
        return self.fetched.kind == "seq2seq"

    @property
    def dtype(self) -> torch.dtype:
        """Number format in which it computes."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def has_dropout(self) -> bool:
        """Whether a pass in training mode draws random numbers."""
        return any(value for name, value in self.model.config.to_dict().items() if "drop" in name)

    @property
    def can_share(self) -> bool:
        """Whether what several prompts begin with can be read once for all."""
        return not self.seq2seq and remembers_all(self.model.config)

    @property
    def reads_trees(self) -> bool:
        """Whether a pass reads once what prompts begin with alike, and pads nothing."""
        along_branches = self.model.config._attn_implementation == NAME
        return along_branches and self.can_share and not self.has_dropout and not self.changes_while_reading

    @property
    def changes_while_reading(self) -> bool:
        """Whether a pass changes what another one uses.

        Prefixes are remembered in one place, and rotary embeddings of some kinds grow with the longest text so far.
        """
        return self.prefixes is not None or changes_with_texts(self.model.config)

    @property
    def can_be_recorded(self) -> bool:
        """Whether it is small, on a GPU, not packed, and makes passes that depend on shape and weights alone."""
        same_each_time = self.can_share and not self.has_dropout and not self.changes_while_reading
        on_a_gpu = self.model.device.type == "cuda" and waits_for_launches(self.model)
        return on_a_gpu and same_each_time and not is_packed(self.model)

    @cached_property
    def recorded_passes(self) -> RecordedPasses:
        """Its training passes, where they can be recorded."""
        return RecordedPasses(self.model, self.pad_id, self._recorder)

    @cached_property
    def recorded_decoding(self) -> RecordedDecoding:
        """Its decoding, where it can be recorded."""
        return RecordedDecoding(self.model, self.pad_id, self.end_ids, self._recorder)

    @cached_property
    def _recorder(self) -> Recorder:
        return Recorder(self.model.device)

    def pass_tokens(self, example: Example) -> int:
        """Return what an example counts in a pass: what is remembered costs less than what is read."""
        return example.length - (example.shared // 2 if self.prefixes else 0)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the adapter's parameters, the only ones that are trained."""
        return lora_parameters(self.model)

    def initial_state(self, seed: int) -> Tensors:
        """Return an adapter that changes nothing yet."""
        return initial_lora(_shapes(self.model), seed)

    def set_adapter(self, tensors: Tensors) -> None:
        """Overwrite the adapter."""
        with torch.no_grad():
            for name, parameter in self.parameters().items():
                parameter.copy_(as_tensor(tensors[name], parameter))

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Run the base model alone."""
        with adapter_disabled(self.model):
            yield

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Leave the adapter out while it is not trained and changes nothing, its B all zero."""
        changes = any(bool(p.any()) for name, p in self.parameters().items() if ".lora_B." in name)
        with nullcontext() if changes else self.untouched():
            yield

    def answer_logits(self, batch: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """Run one forward pass and return what the model says at the answer positions alone.

        The head is applied to nothing else: over a whole prompt it is a fifth of all work.

        Args:
            batch: Examples; those of similar length, where they are padded on the right.

        Returns:
            Logits (tokens, vocabulary) and the answer ids (tokens,), example after example.
        """
        labels = torch.tensor([token for example in batch for token in example.answer], device=self.model.device)
        if self.seq2seq:
            return self._seq2seq_logits(batch), labels
        if self.reads_trees:
            return self._tree_logits(batch), labels
        if self.prefixes is None:
            return self._causal_logits(batch), labels
        memory, real = self.prefixes.read(batch)
        return self._causal_logits([_after(example, example.shared) for example in batch], memory, real), labels

    def answer_logits_sharing(self, batch: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """Do what `answer_logits` does, without gradient; a first passage that several examples have is read once."""
        if self.reads_trees or self.prefixes is not None or not self.can_share or not share_a_prefix(batch):
            return self.answer_logits(batch)
        memory, real = read_first_prefixes(self.model, batch)
        rest = [_after(example, len(example.first_prefix)) for example in batch]
        labels = torch.tensor([token for example in batch for token in example.answer], device=self.model.device)
        return self._causal_logits(rest, memory, real), labels

    @property
    def end_ids(self) -> list[int]:
        """The tokens that end an answer: the tokenizer's, which is trained, and the model's own."""
        config = self.model.generation_config
        own = config.eos_token_id if config is not None else None
        more = own if isinstance(own, list) else [own]
        return sorted({int(token) for token in [self.tokenizer.eos_token_id, *more] if token is not None})

    @property
    def pad_id(self) -> int:
        """The token that fills what is no text."""
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    def _causal_logits(
        self, batch: Sequence[Example], memory: Any = None, real: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the logits at the answer positions of a batch that follows what is in memory.

        Args:
            batch: What is left to read.
            memory: Keys and values of what comes before.
            real: Which of those are no padding (batch, tokens); None: all.
        """
        # The last answer token predicts nothing that is asked for. On the right, padding comes after every
        # real token: causal attention never sees it, and no mask is needed.
        inputs = [example.prompt + example.answer[:-1] for example in batch]
        width = max(map(len, inputs))
        ids = torch.tensor([padded(row, width, self.pad_id) for row in inputs], device=self.model.device)
        rows, columns = (torch.tensor(places, device=self.model.device) for places in answer_places(batch))
        places: dict[str, torch.Tensor] = {}
        if real is not None:
            own = torch.arange(width, device=self.model.device)
            places["position_ids"] = real.sum(dim=1, keepdim=True) + own
            places["attention_mask"] = torch.cat([real, torch.ones_like(ids)], dim=1)
        with asked_at(rows, columns, (len(batch), width)):
            logits: torch.Tensor = self.model(
                input_ids=ids, use_cache=memory is not None, **{CACHE: memory}, **places
            ).logits
        return logits[0]

    def _tree_logits(self, batch: Sequence[Example]) -> torch.Tensor:
        tree = PromptTree.of(batch)
        tokens = tree.tokens
        places = torch.tensor(tree.places)
        with asked_at(torch.zeros_like(places), places, (1, len(tokens))), reading(tree):
            logits: torch.Tensor = self.model(
                input_ids=torch.tensor([tokens]),
                position_ids=torch.tensor([tree.positions]),
                attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool),  # the tree says who sees whom
                use_cache=False,
            ).logits
        return logits[0]

    def _seq2seq_logits(self, batch: Sequence[Example]) -> torch.Tensor:
        device = self.model.device
        width = max(len(example.prompt) for example in batch)
        ids = [padded(example.prompt, width, self.pad_id) for example in batch]
        mask = [padded([1] * len(example.prompt), width, 0) for example in batch]
        start = self.model.config.decoder_start_token_id
        longest = max(len(example.answer) for example in batch)
        decoder = [padded([start, *example.answer[:-1]], longest, self.pad_id) for example in batch]
        logits: torch.Tensor = self.model(
            input_ids=torch.tensor(ids, device=device),
            attention_mask=torch.tensor(mask, device=device),
            decoder_input_ids=torch.tensor(decoder, device=device),
            use_cache=False,
        ).logits
        return torch.cat([logits[i, : len(example.answer)] for i, example in enumerate(batch)])


def load_tokenizer(fetched: FetchedModel) -> Any:
    """Load the tokenizer of a fetched model."""
    return AutoTokenizer.from_pretrained(fetched.folder, local_files_only=True, trust_remote_code=False)


def adapter_shapes(fetched: FetchedModel, lora: LoraSection) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a generator's adapter without reading any weights."""
    model = _without_weights(fetched)
    with torch.device("meta"):
        add_lora(model, lora)
    return _shapes(model)


def check_four_bits(fetched: FetchedModel) -> None:
    """Refuse a generator that cannot stand in 4 bits, without reading any weights.

    Raises:
        ModelError: The library is not installed, or a layer's rows are no whole blocks.
    """
    check_packable(_without_weights(fetched))


def count_four_bit_weights(fetched: FetchedModel) -> int:
    """Return how many weights of a generator 4 bits would hold, without reading any."""
    return count_packable(_without_weights(fetched))


def _without_weights(fetched: FetchedModel) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(fetched.folder, local_files_only=True, trust_remote_code=False)
    if fetched.kind not in _CLASSES:
        raise ModelError(f"{fetched.name} is no language model and cannot be the generator")
    with torch.device("meta"):
        model: PreTrainedModel = _CLASSES[fetched.kind].from_config(config)
    return model


_CLASSES: dict[str, Any] = {"causal": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM}


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in lora_parameters(model).items()}


def _after(example: Example, start: int) -> Example:
    return Example(example.prompt[start:], example.answer)
