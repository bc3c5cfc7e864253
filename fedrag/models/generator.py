"""The generator: a causal or seq2seq language model with a LoRA adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
)

from fedrag.config.training_settings import LoraSection
from fedrag.errors import ModelError
from fedrag.models.adapters import Targets, adapter_disabled, add_lora, as_tensor, initial_lora, lora_parameters
from fedrag.models.attention import use_cpu_attention
from fedrag.models.attention_window import without_window
from fedrag.models.four_bits import check_packable, count_packable, packing_options, settle_packed
from fedrag.models.side_adapter import set_side, side_parameters
from fedrag.types import Tensors
from fedrag.weights.store import FetchedModel


class Generator:
    """A language model whose base is frozen; only its adapter can be trained.

    Args:
        model: The model with its adapter injected.
        tokenizer: Its tokenizer.
        fetched: Where it came from.
        targets: What the adapter acts on.

    Attributes:
        prefix_bytes: Memory for the prefixes that the base model reads, if the adapter acts from the question on; None:
            the adapter acts on whole prompts.
        dropout: Whether the base's own dropout is on in training.
        reader: Reads batches with it; set by `fedrag.passes.reading.reader_of`.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, fetched: FetchedModel, targets: Targets) -> None:
        self.model = model
        self.model.train(False)
        self.tokenizer = tokenizer
        self.fetched = fetched
        self.targets = targets
        self.prefix_bytes: float | None = None
        self.dropout = False
        self.reader: object = None

    @classmethod
    def load(
        cls,
        fetched: FetchedModel,
        lora: LoraSection,
        dtype: torch.dtype,
        device: str,
        four_bits: bool = False,
        own_settings: bool = False,
        whole_texts: bool = False,
    ) -> Generator:
        """Load a fetched model and inject an adapter that changes nothing yet.

        Args:
            fetched: The model.
            lora: Its adapter.
            dtype: Number format of its weights and of its computation.
            device: Where it computes.
            four_bits: Pack the weights of its linear layers into 4 bits.
            own_settings: Generate with the settings that come with the model, such as a penalty of repetition.
            whole_texts: Load it without its window, into which all texts fit; see `fedrag.models.attention_window`.

        Raises:
            ModelError: It is not a language model, or cannot be packed into 4 bits.
        """
        if fetched.kind not in _CLASSES:
            raise ModelError(f"{fetched.name} is not a language model and cannot be the generator")
        config = load_config(fetched, whole_texts=whole_texts)
        packing: dict[str, Any] = {}
        if four_bits:
            check_four_bits(fetched)
            packing = packing_options(dtype, device)
        model = _CLASSES[fetched.kind].from_pretrained(
            fetched.folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            **packing,
        )
        if not own_settings:
            model.generation_config = _neutral(model.generation_config)
        tokenizer = load_tokenizer(fetched)
        targets = add_lora(model, lora)
        if four_bits:
            settle_packed(model)
        else:
            model.to(device)
        use_cpu_attention(model)
        _spare_copies_of_the_head(model)
        generator = cls(model, tokenizer, fetched, targets)
        generator.set_adapter(generator.initial_state(seed=0))
        return generator

    @property
    def seq2seq(self) -> bool:
        """Whether prompts go to an encoder."""
        return self.fetched.kind == "seq2seq"

    @property
    def dtype(self) -> torch.dtype:
        """Number format in which it computes."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the adapter's parameters, the only ones that are trained."""
        return lora_parameters(self.model)

    def initial_state(self, seed: int) -> Tensors:
        """Return an adapter that changes nothing yet."""
        return initial_lora(_shapes(self.model), seed)

    def set_adapter(self, tensors: Tensors) -> None:
        """Overwrite the adapter's weights; tensors of a side adapter come beside it."""
        with torch.no_grad():
            for name, parameter in self.parameters().items():
                parameter.copy_(as_tensor(tensors[name], parameter))
        set_side(self.model, tensors)
        if self.model.device.type == "cuda" and side_parameters(self.model):
            self.reader = None  # its graphs would read the side adapter before

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Run the base model alone."""
        with adapter_disabled(self.model):
            yield

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Leave out an adapter that changes nothing because its B is zero; not for training."""
        moving = self.parameters() | side_parameters(self.model)
        changes = any(bool(p.any()) for name, p in moving.items() if ".lora_B." in name)
        with nullcontext() if changes else self.untouched():
            yield

    @property
    def start_id(self) -> int:
        """The token from which a decoder starts, as `generate` chooses it.

        Raises:
            ModelError: The model names none.
        """
        own = self.model.generation_config
        for config in (own, self.model.config):
            for name in ("decoder_start_token_id", "bos_token_id"):
                token = getattr(config, name, None)
                if isinstance(token, int):
                    return token
        raise ModelError(
            "its configuration names no decoder_start_token_id: its decoder has no token to start from; name one in "
            "its config.json, and fetch it again"
        )

    @property
    def end_ids(self) -> list[int]:
        """The tokens that end an answer: the tokenizer's, on which training relies, and the model's own."""
        config = self.model.generation_config
        own = config.eos_token_id if config is not None else None
        more = own if isinstance(own, list) else [own]
        return sorted({int(token) for token in [self.tokenizer.eos_token_id, *more] if token is not None})

    @property
    def pad_id(self) -> int:
        """The token that pads rows."""
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)


def load_tokenizer(fetched: FetchedModel) -> Any:
    """Load the tokenizer of a fetched model."""
    return AutoTokenizer.from_pretrained(fetched.folder, local_files_only=True, trust_remote_code=False)


def load_config(fetched: FetchedModel, *, whole_texts: bool = False) -> PreTrainedConfig:
    """Load the configuration of a fetched model; `whole_texts` leaves its window out."""
    config: PreTrainedConfig = AutoConfig.from_pretrained(
        fetched.folder, local_files_only=True, trust_remote_code=False
    )
    return without_window(config) if whole_texts else config


def adapter_shapes(fetched: FetchedModel, lora: LoraSection) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a generator's adapter without reading any weights."""
    model = model_without_weights(fetched)
    with torch.device("meta"):
        add_lora(model, lora)
    return _shapes(model)


def check_four_bits(fetched: FetchedModel) -> None:
    """Refuse a generator that cannot be packed into 4 bits, without reading any weights.

    Raises:
        ModelError: The library is not installed, or the rows of a layer are not whole blocks.
    """
    check_packable(model_without_weights(fetched))


def count_four_bit_weights(fetched: FetchedModel) -> int:
    """Return how many weights of a generator 4 bits would hold, without reading any."""
    return count_packable(model_without_weights(fetched))


def model_without_weights(fetched: FetchedModel, *, whole_texts: bool = False) -> PreTrainedModel:
    """Return a generator's model on the meta device: its layers and its configuration alone.

    Raises:
        ModelError: It is not a language model.
    """
    config = load_config(fetched, whole_texts=whole_texts)
    if fetched.kind not in _CLASSES:
        raise ModelError(f"{fetched.name} is not a language model and cannot be the generator")
    with torch.device("meta"):
        model: PreTrainedModel = _CLASSES[fetched.kind].from_config(config)
    return model


def longest_text(fetched: FetchedModel) -> int | None:
    """Return how many tokens a language model reads by its configuration, or None where that names no limit."""
    config = load_config(fetched)
    limits = (getattr(config, name, None) for name in ("max_position_embeddings", "max_seq_len"))
    # XLNet and others write -1 where there is none.
    return next((limit for limit in limits if isinstance(limit, int) and limit > 0), None)


def _spare_copies_of_the_head(model: PreTrainedModel) -> None:
    """Give the output head its inputs contiguous.

    `generate` asks for the last position of each prompt alone, a slice. For a batch of slices torch copies the head's
    weights once for each row: 7 of 15 seconds for 32 prompts of 270 tokens.
    """
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]  # transformers gives it no types
    if head is not None:
        head.register_forward_pre_hook(_contiguous)


def _contiguous(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0].contiguous(), *inputs[1:])


def _neutral(settings: GenerationConfig) -> GenerationConfig:
    """Return generation settings that leave the choice of tokens to the model: its special tokens alone are kept."""
    return GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=settings.bos_token_id,
        eos_token_id=settings.eos_token_id,
        pad_token_id=settings.pad_token_id,
        decoder_start_token_id=settings.decoder_start_token_id,
    )


_CLASSES: dict[str, Any] = {"causal": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM}


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in lora_parameters(model).items()}
