"""Windows: models some of whose layers attend to the last tokens alone.

A window counts places, and padding between the cached beginning of a prompt and its question takes places too. Where a
prompt and its answer fit into the window together, no token ever leaves it: such a model computes the same without a
window, wherever the padding stands.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

_ENDLESS = 2**30  # tokens; more than any text has


def window_of(config: PreTrainedConfig) -> int | None:
    """Return how many tokens, itself among them, a token attends to in the layers that see fewest; None: all."""
    name = _setting(config)
    window = getattr(config.get_text_config(), name) if name else _ENDLESS
    return int(window) if window < _ENDLESS else None


def without_window(config: PreTrainedConfig) -> PreTrainedConfig:
    """Let a model's layers attend to all tokens before each; the configuration is changed, and returned."""
    if name := _setting(config):
        setattr(config.get_text_config(), name, _ENDLESS)
    return config


def _setting(config: PreTrainedConfig) -> str | None:
    """Return the name of the setting that holds a model's window."""
    text: Any = config.get_text_config()
    if "local" in (getattr(text, "attention_layers", None) or ()):  # GPT-Neo
        return "window_size"
    layers = getattr(text, "layer_types", None) or ["sliding_attention"]
    slides = "sliding_attention" in layers and getattr(text, "use_sliding_window", True)
    return "sliding_window" if slides and getattr(text, "sliding_window", None) else None
