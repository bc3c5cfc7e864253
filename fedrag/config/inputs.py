"""What a scenario starts from: the sites and the base models."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from fedrag.config.section import Section


class DataConfig(Section):
    """Which sites take part."""

    sites: str
    """Folder of the sites, relative to the scenario file or, if it is not there, to the working directory."""
    only: tuple[str, ...] = ()
    """Names of the sites that take part; empty: all of them."""
    hold_out: tuple[str, ...] = ()
    """Names of sites that take no part, so that a run can be measured on unseen sites."""

    @model_validator(mode="after")
    def _check(self) -> DataConfig:
        if self.only and set(self.only) <= set(self.hold_out):
            raise ValueError("data.hold_out leaves none of the sites in data.only")
        return self


class ModelsConfig(Section):
    """The base models, which every site has fetched."""

    generator: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """Causal or seq2seq language model: hub id or folder."""
    retriever: str = "sentence-transformers/all-MiniLM-L6-v2"
    """sentence-transformers model: hub id or folder."""
    generator_dtype: Literal["auto", "bfloat16", "float32", "nf4"] = "auto"
    """Number format of the frozen generator; auto: bfloat16 on hardware that computes in it, else float32. nf4: its
    linear layers are stored in 4 bits (QLoRA) and compute as with auto; needs `pip install 'fedrag[4bit]'`."""
    retriever_dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Number format in which a retriever's adapter trains; search and full weights are always in float32."""

    def name_of(self, key: str) -> str:
        """Return the name of the base model under a key.

        >>> ModelsConfig(retriever="fedrag/tiny-encoder").name_of("retriever")
        'fedrag/tiny-encoder'
        """
        return str(getattr(self, key))

    def dtype_of(self, key: str) -> str:
        """Return the number format of the base model under a key."""
        return str(getattr(self, f"{key}_dtype"))
