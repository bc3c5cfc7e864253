"""The architectures of the zoo, one a line: what of each is not set by `SMALL`, and how its texts become tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

POSITIONS = 512
LAYERS = 2
WINDOW = 16
"""Tokens of a sliding window, fewer than any prompt has."""

SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "word_embed_proj_dim", "emb_dim"), 32),
    **dict.fromkeys(("intermediate_size", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "d_inner"), 64),
    **dict.fromkeys(("n_inner", "ffn_hidden_size", "hidden_dim", "moe_intermediate_size"), 64),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "decoder_layers"), LAYERS),
    **dict.fromkeys(("encoder_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_head", "n_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "d_head"), 8),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length"), POSITIONS),
    **dict.fromkeys(("num_local_experts", "num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok",), 2),
    "embedding_size": 16,
    "layer_types": None,
}
"""Sizes, by all the names that configurations have for them; each takes those that it knows."""

Tokenizer = Literal["bytes", "pieces", "words"]


@dataclass(frozen=True)
class Architecture:
    """A language model, or the transformer of an encoder.

    Attributes:
        tokenizer: Byte-level BPE as of GPT-2, unigram pieces as of SentencePiece, or lower-case word pieces as of BERT.
        settings: Of its configuration, beside the small sizes.
        chat: Whether it has a chat template.
        model_type: The name that transformers has for it, if it is not that in the table.
    """

    tokenizer: Tokenizer
    settings: dict[str, Any] = field(default_factory=dict)
    chat: bool = False
    model_type: str = ""


@dataclass(frozen=True)
class Encoder(Architecture):
    """An encoder as sentence-transformers reads it.

    Attributes:
        pooling: Which token vectors become a text's.
        dense: Dimensions of a Dense module after it; 0: none.
        normalize: Whether a Normalize module follows.
        similarity: Function of the model.
        weights: What of it is trained.
    """

    pooling: Literal["mean", "cls", "max", "lasttoken"] = "mean"
    dense: int = 0
    normalize: bool = False
    similarity: Literal["cosine", "dot"] = "cosine"
    weights: Literal["lora", "full"] = "lora"


FALCON_RW = {"alibi": True, "multi_query": False, "num_kv_heads": 4, "parallel_attn": False, "bias": True}
YARN = {"rope_type": "yarn", "factor": 8.0, "rope_theta": 10000.0, "original_max_position_embeddings": 64}
ONE_LAYER_ATTENDS = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2}
LATENT_ATTENTION: dict[str, Any] = {
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("n_routed_experts", "num_key_value_heads"), 4),
}

CAUSAL: dict[str, Architecture] = {
    "llama": Architecture("pieces", chat=True),
    "mistral": Architecture("pieces", {"sliding_window": WINDOW}, chat=True),
    "mixtral": Architecture("pieces"),
    "qwen2": Architecture("bytes", chat=True),
    "qwen2_moe": Architecture("bytes", {"shared_expert_intermediate_size": 32, "decoder_sparse_step": 1}),
    "qwen3": Architecture("bytes", chat=True),
    "qwen3_moe": Architecture("bytes"),
    "gemma": Architecture("pieces", chat=True),
    "gemma2": Architecture("pieces", {"sliding_window": WINDOW, "query_pre_attn_scalar": 8}),
    "gemma3_text": Architecture("pieces", {"sliding_window": WINDOW, "query_pre_attn_scalar": 8}),
    "phi": Architecture("bytes"),
    "phi3": Architecture("pieces", chat=True),
    "gpt2": Architecture("bytes"),
    "gpt_bigcode": Architecture("bytes"),
    "gpt_neo": Architecture("bytes", {"attention_types": [[["global", "local"], 1]], "window_size": WINDOW}),
    "gpt_neox": Architecture("bytes"),
    "gptj": Architecture("bytes", {"rotary_dim": 4}),
    "codegen": Architecture("bytes", {"rotary_dim": 4}),
    "opt": Architecture("bytes"),
    "bloom": Architecture("bytes"),
    "mpt": Architecture("bytes"),
    "falcon": Architecture("bytes"),
    "falcon-alibi": Architecture("bytes", {"alibi": True}, model_type="falcon"),
    "falcon-rw": Architecture("bytes", FALCON_RW, model_type="falcon"),
    "olmo": Architecture("bytes"),
    "olmo2": Architecture("bytes"),
    "olmoe": Architecture("bytes"),
    "stablelm": Architecture("bytes"),
    "starcoder2": Architecture("bytes", {"sliding_window": WINDOW}),
    "cohere": Architecture("bytes"),
    "granite": Architecture("bytes"),
    "smollm3": Architecture("bytes", chat=True),
    "nemotron": Architecture("pieces"),
    "glm": Architecture("bytes"),
    "exaone4": Architecture("bytes", {"sliding_window": WINDOW}),
    "xglm": Architecture("pieces"),
    "biogpt": Architecture("bytes"),
    "gpt_oss": Architecture("bytes", {"sliding_window": WINDOW}),
    "llama4_text": Architecture("bytes"),
    "phimoe": Architecture("pieces"),
    "granitemoe": Architecture("bytes"),
    "deepseek_v3": Architecture("bytes", LATENT_ATTENTION),
    "mamba": Architecture("bytes"),
    "mamba2": Architecture("bytes", {"num_heads": 8, "state_size": 8, "n_groups": 2}),
    "jamba": Architecture("bytes", ONE_LAYER_ATTENDS | {"mamba_dt_rank": 4, "use_mamba_kernels": False}),
    "opt-350m": Architecture("bytes", {"word_embed_proj_dim": 16, "do_layer_norm_before": False}, model_type="opt"),
    "llama-yarn": Architecture("pieces", {"rope_parameters": YARN}, model_type="llama"),
}
SEQ2SEQ: dict[str, Architecture] = {
    "t5": Architecture("pieces"),
    "mt5": Architecture("pieces"),
    "umt5": Architecture("pieces"),
    "longt5": Architecture("pieces", {"local_radius": 7}),
    "switch_transformers": Architecture("pieces", {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}),
    "bart": Architecture("bytes"),
    "mbart": Architecture("pieces"),
    "led": Architecture("bytes", {"attention_window": WINDOW, "max_encoder_position_embeddings": POSITIONS}),
    "blenderbot": Architecture("bytes"),
    "pegasus": Architecture("pieces"),
    "marian": Architecture("pieces"),
    "mvp": Architecture("bytes"),
    "m2m_100": Architecture("pieces"),
}
ENCODERS: dict[str, Encoder] = {
    "bert": Encoder("words", normalize=True),
    "distilbert": Encoder("words", dense=24),
    "roberta": Encoder("bytes", pooling="cls"),
    "xlm-roberta": Encoder("pieces", similarity="dot"),
    "camembert": Encoder("pieces"),
    "mpnet": Encoder("words", normalize=True),
    "albert": Encoder("pieces"),
    "electra": Encoder("words", pooling="max"),
    "deberta": Encoder("bytes"),
    "deberta-v2": Encoder("pieces"),
    "modernbert": Encoder("bytes", {"local_attention": WINDOW}, pooling="cls"),
    "nomic_bert": Encoder("words"),
    "gte": Encoder("words", pooling="cls"),
    "ernie": Encoder("words"),
    "convbert": Encoder("words"),
    "roformer": Encoder("words"),
    "longformer": Encoder("bytes", {"attention_window": WINDOW}),
    "big_bird": Encoder("pieces", {"attention_type": "original_full"}),
    "funnel": Encoder("words", {"block_sizes": [1, 1], "architectures": ["FunnelModel"]}),
    "mobilebert": Encoder("words"),
    "squeezebert": Encoder("words", {"embedding_size": 32}, weights="full"),
    "nystromformer": Encoder("words"),
    "xlm": Encoder("words"),
    "flaubert": Encoder("words"),
    "xlnet": Encoder("pieces", pooling="lasttoken"),
    "rembert": Encoder("pieces"),
    "t5": Encoder("pieces", dense=24, normalize=True),
    "qwen3": Encoder("bytes", pooling="lasttoken", normalize=True),
    "mistral": Encoder("pieces", pooling="lasttoken"),
    "gpt2": Encoder("bytes"),
}
