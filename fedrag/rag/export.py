"""The trained models in the formats of the libraries that others use them with."""

from __future__ import annotations

from pathlib import Path

from fedrag.config.scenario import Config
from fedrag.files import replacing_folder
from fedrag.models.adapters import save_adapter
from fedrag.models.resident import RoundModels
from fedrag.rag.prompt import PromptBuilder
from fedrag.types import State

_TASKS = {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM"}


def export_models(config: Config, state: State, folder: Path) -> None:
    """Write `generator` for PEFT and `retriever` for sentence-transformers, each where it was trained."""
    models = RoundModels(config, state)
    if "generator" in state:
        generator = models.generator
        builder = PromptBuilder(generator.tokenizer, config.rag, seq2seq=generator.seq2seq)
        with replacing_folder(folder / "generator") as partial:
            save_adapter(
                partial,
                state["generator"],
                config.generator.lora,
                generator.targets,
                generator.fetched.name,
                _TASKS[generator.fetched.kind],
                None if generator.prefix_bytes is None else builder.question_mark,
            )
            generator.tokenizer.save_pretrained(partial)
    if "retriever" in state:
        with replacing_folder(folder / "retriever") as partial:
            models.retriever.export(partial)
