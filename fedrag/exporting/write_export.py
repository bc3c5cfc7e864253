"""Writes a trained system into a new folder, whole or not at all.

```
OUT/
  README.md              the model card
  rag.json               how passages are searched and prompts are built; fedrag/exporting/rag_file.py describes it
  generator/             an adapter for PEFT, or with `merged` a whole model
  retriever/             a model for sentence-transformers, or one for each side
  generator.gguf         with `gguf`
  openai/                with `openai_jsonl`: the training set; it quotes the sites' data
```
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedrag.components.export import export_models
from fedrag.components.model_cards import write_merged_card
from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components
from fedrag.errors import ConfigError
from fedrag.exporting.gguf_file import GGUF_FILE, check_converter, write_gguf
from fedrag.exporting.hub_card import write_hub_card
from fedrag.exporting.hub_upload import HubRepository
from fedrag.exporting.openai_jsonl import FEWEST, FOLDER, write_training_set
from fedrag.exporting.rag_file import RAG_FILE, write_rag_file
from fedrag.exporting.trained_system import TrainedSystem, sites_of_run
from fedrag.exporting.whole_model import check_mergeable, write_merged_generator
from fedrag.files import replacing_folder
from fedrag.runs.run_folder import RunFolder
from fedrag.text import plural
from fedrag.types import COMPONENTS, Site


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What an export holds beyond the trained components.

    Attributes:
        merged: Write the generator as a whole model instead of an adapter.
        gguf: llama.cpp's `convert_hf_to_gguf.py`, to write the generator as one file, too; None: no such file.
        openai_jsonl: Write the training set with its passages, too.
        push: Id of a repository of the model hub that the folder is uploaded to; None: nothing is.
        site_names: Name the sites in the model card.
    """

    merged: bool = False
    gguf: Path | None = None
    openai_jsonl: bool = False
    push: str | None = None
    site_names: bool = False


def export_system(
    system: TrainedSystem,
    out: Path,
    options: ExportOptions = ExportOptions(),
    *,
    sites: Callable[[], Sequence[Site]] = list,
    components: Components = SHIPPED,
) -> list[str]:
    """Write a trained system, and return what was written, a line each.

    Args:
        system: What was trained.
        out: The new folder.
        options: What it holds.
        sites: Reads the data, for the training set.
        components: What can be trained, by name.

    Raises:
        ConfigError: The folder exists, or the options make no sense together or for this system.
        ModelError: A base model is not fetched.
        StorageError: The folder cannot be written.
    """
    _check(system, out, options)
    repository = HubRepository.reach(options.push) if options.push else None
    said = [f"{name}: {out / name}" for name in system.state]
    with replacing_folder(out) as partial:
        _write_components(system, partial, options.merged, components)
        if set(system.state) & set(COMPONENTS):
            write_rag_file(partial, system)
            said += [f"model card: {out / 'README.md'}", f"prompt and search: {out / RAG_FILE}"]
        if options.gguf:
            write_gguf(system, options.gguf, partial / GGUF_FILE)
            said.append(f"gguf: {out / GGUF_FILE}")
        if options.openai_jsonl:
            n_lines = write_training_set(system, sites(), partial / FOLDER)
            said += _about_training_set(out / FOLDER, n_lines)
        if (partial / RAG_FILE).is_file():
            write_hub_card(partial, system, site_names=options.site_names)  # last: it tells what lies there
        for file in (path for path in partial.rglob("*") if path.is_file()):
            file.chmod(0o644)  # safetensors writes files that only their owner can read
    if repository is not None:
        said.append(f"pushed: {repository.upload(out)}")
    return said


def export_run(
    path: Path | str,
    out: Path | str,
    *,
    components: Components = SHIPPED,
    options: ExportOptions = ExportOptions(),
) -> list[Path]:
    """Write what a run trained into a new folder, for PEFT and sentence-transformers.

    Args:
        path: The run folder.
        out: The new folder.
        components: What can be trained, by name; one's own among them.
        options: What it holds beyond the components.

    Returns:
        The folders of the components.

    Raises:
        RunError: The run is not finished, or damaged, or a base model is no longer the one it was trained with.
        ConfigError: The folder exists already, or the options make no sense together or for this run.
        ModelError: A base model is not fetched.
    """
    run = RunFolder.open(Path(path))
    system = TrainedSystem.of_run(run)
    export_system(system, Path(out), options, sites=lambda: sites_of_run(run), components=components)
    return [Path(out) / name for name in system.state]


def _check(system: TrainedSystem, out: Path, options: ExportOptions) -> None:
    """Refuse what cannot be written, before anything is loaded."""
    if out.exists():
        raise ConfigError(f"{out}: exists already; choose another folder")
    if options.push and options.openai_jsonl:
        raise ConfigError(
            "--openai-jsonl and --push: the training set quotes the sites' data, which must not leave the house; "
            "leave one of them out"
        )
    for option, wanted in (("--merged", options.merged), ("--gguf", bool(options.gguf))):
        if wanted:
            check_mergeable(system, option)
    if options.gguf:
        check_converter(options.gguf)


def _write_components(system: TrainedSystem, folder: Path, merged: bool, components: Components) -> None:
    """Write the components, the generator whole where that is asked for."""
    adapters = {name: tensors for name, tensors in system.state.items() if not (merged and name == "generator")}
    export_models(system.config, adapters, folder, components)
    if merged:
        write_merged_generator(system, folder / "generator")
        write_merged_card(folder / "generator", system.base("generator"))


def _about_training_set(folder: Path, n_lines: int) -> list[str]:
    lines = [
        f"training set: {folder}, {plural(n_lines, 'line')}; it quotes the sites' questions and passages and must stay "
        "in the house: upload it only where these may be"
    ]
    if n_lines < FEWEST:
        lines.append(f"OpenAI's fine-tuning API asks for at least {FEWEST} lines")
    return lines
