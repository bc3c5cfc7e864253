"""The settings that name functions of one's own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from fedrag.config.section import Section

FunctionName = Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]{0,63})?$")]


class OwnConfig(Section):
    """Losses and an aggregation rule of one's own, from a module that every party has installed."""

    module: FunctionName = ""
    """Name of the module or package, without dots; a site works with it only where own_modules in its policy names it
    with the hash of its source. Empty: none."""
    answer: FunctionName = ""
    """Its function that is the generator's loss, as fedrag.Losses.answer; empty: fedrag's."""
    contrastive: FunctionName = ""
    """Its function that is the retriever's contrastive loss, as fedrag.Losses.contrastive; empty: fedrag's."""
    lsr: FunctionName = ""
    """Its function that is the retriever's LSR loss, as fedrag.Losses.lsr; empty: fedrag's."""
    rule: FunctionName = ""
    """Its function that makes one difference of those of the sites and their weights, at the server; empty: the mean
    weighted by federation.weighting."""

    @model_validator(mode="after")
    def _check(self) -> OwnConfig:
        functions = [name for name in ("answer", "contrastive", "lsr", "rule") if getattr(self, name)]
        if functions and not self.module:
            raise ValueError(f"own.{functions[0]} names a function, but own.module no module that holds it")
        if self.module and not functions:
            raise ValueError("own.module names a module, but no function of it: own.answer, contrastive, lsr or rule")
        return self
