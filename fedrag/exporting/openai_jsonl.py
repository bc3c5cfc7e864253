"""The training set of a generator as chats with retrieved passages, in the lines that OpenAI's fine-tuning API takes.

```
openai/train.jsonl         {"messages": [{"role": "system", ...}, {"role": "user", ...}, {"role": "assistant", ...}]}
openai/validation.jsonl    the same, where sites have validation questions with answers
```

The user's message is what stands in fedrag's prompts: the passages that the exported retriever finds, and the question.
The lines quote the sites' data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fedrag.errors import DataError
from fedrag.exporting.trained_system import TrainedSystem
from fedrag.files import write_text
from fedrag.models.generator import load_tokenizer
from fedrag.models.resident import RoundModels
from fedrag.rag.indexing import build_index, shared_indexes
from fedrag.rag.pipeline import prompt_groups
from fedrag.rag.prompt import PromptBuilder
from fedrag.rag.window import Shown
from fedrag.rag.wording import wording_of
from fedrag.seeding import derive_seed
from fedrag.training.shown_passages import find_training_passages
from fedrag.types import Question, Site, Split

FOLDER = "openai"
FEWEST = 10
"""Lines that the API asks for at least."""


def write_training_set(system: TrainedSystem, sites: Sequence[Site], folder: Path) -> int:
    """Write the training questions with an answer, and those for validation, and return the number of the former.

    Args:
        system: What is exported.
        sites: The data.
        folder: The new folder.

    Raises:
        DataError: No training question has an answer.
    """
    builder = _builder(system)
    training = [line for site in sites for line in _lines(system, builder, site, "train")]
    if not training:
        raise DataError("--openai-jsonl: no training question has an answer, so there is nothing to write")
    write_text(folder / "train.jsonl", "".join(training))
    validation = [line for site in sites for line in _lines(system, builder, site, "validation")]
    if validation:
        write_text(folder / "validation.jsonl", "".join(validation))
    return len(training)


def _builder(system: TrainedSystem) -> PromptBuilder:
    base = system.base("generator")
    return PromptBuilder(load_tokenizer(base), system.config.rag, seq2seq=base.kind == "seq2seq")


def _lines(system: TrainedSystem, builder: PromptBuilder, site: Site, split: Split) -> Iterator[str]:
    """Yield a line for each prompt of each question of a split that has an answer."""
    config, asked = system.config, replace(site, train=site.split(split))
    shown: list[list[Shown]] = [[] for _ in asked.answered]
    if config.rag.passages and asked.answered:
        if split != "train":  # these are asked as they will be: no passage is left out or put in
            rag = config.rag.model_copy(update={"include_labelled": False})
            generator = config.generator.model_copy(update={"raft_drop": 0.0})
            config = config.model_copy(update={"rag": rag, "generator": generator})
        retriever = RoundModels(config, system.state).retriever
        rag = config.rag
        index = build_index(retriever, site.passages, rag.chunk_overlap, shared_indexes(), rag.search)
        seed = derive_seed(config.seed, site.name, "openai", split)
        shown = find_training_passages(retriever, index, asked, config, seed)
    for question, passages in zip(asked.answered, shown, strict=True):
        for _, group in prompt_groups(passages, config.rag):
            yield _line(builder, wording_of(config.rag).instruction, question, group)


def _line(builder: PromptBuilder, instruction: str, question: Question, passages: Sequence[Shown]) -> str:
    said = [("system", instruction), ("user", builder.user_text(question.question, passages))]
    messages = [{"role": role, "content": text} for role, text in said if text]
    messages.append({"role": "assistant", "content": question.answers[0].strip()})
    return json.dumps({"messages": messages}, ensure_ascii=False) + "\n"
