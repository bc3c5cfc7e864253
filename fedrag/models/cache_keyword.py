"""The name that transformers gives the KV cache: `cache`, and `past_key_values` before 5.24."""

from dataclasses import fields
from typing import Final

from transformers.modeling_outputs import CausalLMOutputWithPast

CACHE: Final = next(
    field.name for field in fields(CausalLMOutputWithPast) if field.name in ("cache", "past_key_values")
)
"""The argument of a model and of its `generate`, and the field of a model's output."""
