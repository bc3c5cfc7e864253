"""The model card of an export: what it is, what it learnt from, how good it is, and what it may give away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from fedrag import __version__
from fedrag.config.schedule import schedule_text
from fedrag.evaluation.records import ARMS
from fedrag.evaluation.significance import Interval
from fedrag.exporting.gguf_file import GGUF_FILE
from fedrag.exporting.openai_jsonl import FOLDER as TRAINING_SET
from fedrag.exporting.rag_file import RAG_FILE
from fedrag.exporting.trained_system import TrainedSystem
from fedrag.files import write_text
from fedrag.languages.catalogue import ENGLISH
from fedrag.reporting.arms import Line, measured_metrics, overall_lines
from fedrag.reporting.verdict import percent
from fedrag.reporting.what_ran import random_models
from fedrag.runs.rate_tries import rate_text
from fedrag.text import plural
from fedrag.types import Component, ShippedComponent
from fedrag.weights.store import FetchedModel

_COUNTS = {
    "passages": "passages",
    "train_questions": "training questions",
    "answered_questions": "of them with an answer",
    "labelled_questions": "of them with a labelled passage",
    "validation_questions": "validation questions",
}
_PRIVACY = """\
{where} What the sites sent are differences of weights and a few figures of the training, which were averaged. No noise
was added to them, so nothing is guaranteed in the sense of differential privacy: a model can repeat what it was trained
on, and whoever has it can test whether a text was among it. Share it with those who may see the data, or try first what
it gives away. {files}"""


def write_hub_card(folder: Path, system: TrainedSystem, *, site_names: bool = False) -> None:
    """Write README.md: metadata as the model hub reads it, and the text.

    Args:
        folder: The exported folder, with all else that it will hold.
        system: What is exported.
        site_names: Whether the card names the sites; otherwise it tells how many there are.
    """
    merged = "generator" in system.state and not (folder / "generator" / "adapter_config.json").is_file()
    bases = {key: system.base(key) for key in system.base_keys}
    lines = dict(zip(measured_metrics(system.scores), overall_lines(system.scores), strict=True))
    parts = [
        f"---\n{_metadata(system, list(bases.values()), lines, merged).to_yaml()}\n---",
        f"# {system.name}",
        *random_models([base.name for base in bases.values()]),
        _summary(system),
        _parts(system, bases, _contents(folder, system, merged)),
        f"`{RAG_FILE}` holds what a program needs to search and to build the same prompts. To load the parts, see the "
        "`README.md` in their folders.",
        "## Training data",
        *_training_data(system, site_names),
        "## Figures",
        *_figures(system, list(lines.values())),
        "## Training",
        _settings(system),
        "## Privacy",
        _privacy(system, site_names, quotes=(folder / TRAINING_SET).is_dir()),
    ]
    write_text(folder / "README.md", "\n\n".join(parts) + "\n")


def _metadata(
    system: TrainedSystem, bases: Sequence[FetchedModel], lines: Mapping[str, Line], merged: bool
) -> ModelCardData:
    licences = sorted({base.licence for base in bases})
    known = len(licences) == 1 and licences[0] != "unknown"
    generates = "generator" in system.state
    library = ("transformers" if merged else "peft") if generates else "sentence-transformers"
    split = system.config.evaluation.split
    return ModelCardData(
        base_model=[base.name for base in bases],
        library_name=library,
        license=licences[0] if known else "other",
        license_name=None if known else " and ".join(licences),
        pipeline_tag="text-generation" if generates else "sentence-similarity",
        tags=["rag", "retrieval-augmented-generation", "federated-learning", "fedrag"],
        model_name=system.name,
        eval_results=[
            EvalResult(
                task_type="question-answering",
                task_name="retrieval-augmented question answering",
                dataset_type="private",
                dataset_name=f"{split} questions of the sites",
                metric_type=metric,
                metric_name=line.label,
                metric_value=round(100 * mean, 1),
            )
            for metric, line in lines.items()
            if (mean := line.means.get("federated")) is not None
        ]
        or None,
    )


def _summary(system: TrainedSystem) -> str:
    what = " and a ".join(system.state)
    who = f"{plural(len(system.counts), 'site')}" if system.counts else "sites"
    how = (
        "organisations that did not pool their data"
        if system.is_deployed
        else "played by one machine: a simulation of organisations that may not pool their data"
    )
    rounds = f" in {plural(system.rounds, 'round')}" if system.rounds else ""
    return f"A {what} for retrieval-augmented generation, trained{rounds} by {who}, {how}, with fedrag {__version__}."


def _contents(folder: Path, system: TrainedSystem, merged: bool) -> dict[Component, str]:
    """Return what of each component lies in a folder, in words."""
    whole = {"retriever": "a whole model", "generator": "a whole model" if merged else "an adapter for PEFT"}
    told = {name: f"`{name}/`: {whole[name]}" if name in whole else f"`{name}/`" for name in system.state}
    if (folder / GGUF_FILE).is_file():
        told["generator"] += f"; `{GGUF_FILE}`: the same for llama.cpp"
    return told


def _parts(
    system: TrainedSystem, bases: Mapping[ShippedComponent, FetchedModel], contents: Mapping[Component, str]
) -> str:
    rows = [["part", "base model", "its licence", "what is here"]]
    for key, base in bases.items():
        revision = f", revision `{base.revision}`" if base.revision else ""
        what = f"`{base.name}`{revision}, SHA-256 of its tensors `{base.tensors_sha256}`"
        rows.append([key, what, base.licence, contents.get(key, "nothing: it was not trained")])
    rows += [[name, "", "", contents[name]] for name in system.state if name not in bases]
    return _table(rows)


def _training_data(system: TrainedSystem, site_names: bool) -> Iterator[str]:
    counts = system.counts
    if not counts:
        yield "The coordinator knows how many sites and questions there were; this site does not."
        return
    told = [key for key in _COUNTS if any(key in site for site in counts.values())]
    yield _table([["", *(_COUNTS[key] for key in told)], *_count_rows(system, told, site_names)])


def _count_rows(system: TrainedSystem, told: Sequence[str], site_names: bool) -> Iterator[list[str]]:
    if site_names:
        for name, site in sorted(system.counts.items()):
            yield [name, *(f"{site.get(key, 0):,}" for key in told)]
    sums = [sum(site.get(key, 0) for site in system.counts.values()) for key in told]
    yield [plural(len(system.counts), "site"), *(f"{value:,}" for value in sums)]


def _figures(system: TrainedSystem, lines: Sequence[Line]) -> Iterator[str]:
    arms = [arm for arm in ARMS if arm in system.scores]
    if not arms:
        yield "Nothing was measured where this was exported."
        return
    titles = {arm: ENGLISH(f"arm.{arm}") for arm in arms}
    others = [arm for arm in arms if arm != "federated"]
    yield (
        f"In per cent, on {system.config.evaluation.split} questions. "
        + " ".join(f"{title}: {ENGLISH(f'meaning.{arm}')}" for arm, title in titles.items())
        + (
            " Differences are federated minus the other, with 95 % intervals of a paired bootstrap over the questions, "
            "which cover the choice of questions and not chance in training: it ran once."
            if others
            else ""
        )
    )
    head = ["", "questions", *titles.values(), *(f"minus {titles[arm].lower()}" for arm in others)]
    rows = ([f"{line.n_questions:,}", *_means(line, arms), *_differences(line, others)] for line in lines)
    yield _table([head, *([line.label, *row] for line, row in zip(lines, rows, strict=True))])


def _means(line: Line, arms: Sequence[str]) -> list[str]:
    means = (line.means.get(arm) for arm in arms)
    return ["" if mean is None else percent(mean) for mean in means]


def _differences(line: Line, others: Sequence[str]) -> list[str]:
    found = (line.differences.get(arm) for arm in others)
    return [_interval(difference) if difference else "" for difference in found]


def _interval(d: Interval) -> str:
    return f"{percent(d.mean_difference, sign=True)} ({percent(d.low, sign=True)} to {percent(d.high, sign=True)})"


def _settings(system: TrainedSystem) -> str:
    config = system.config
    rows = [
        ["setting", "value"],
        ["rounds", f"{config.federation.rounds}, {schedule_text(config.federation)}"],
        ["passages for each question", str(config.rag.passages)],
        ["seed", str(config.seed)],
    ]
    for component in system.base_keys:
        if component in system.state:
            own = getattr(config, component)
            adapter = component == "generator" or config.retriever.weights == "lora"
            how = f"LoRA of rank {own.lora.rank}, alpha {own.lora.alpha:g}" if adapter else "all weights"
            rate = f"learning rate {rate_text(own.learning_rate)}, batches of {own.batch_size}"
            rows.append([component, f"{how}, {rate}, {plural(own.epochs, 'pass', 'passes')} a round"])
    return _table(rows)


def _privacy(system: TrainedSystem, site_names: bool, *, quotes: bool) -> str:
    where = (
        "Questions, answers and passages stayed at the sites."
        if system.is_deployed
        else "In this simulation one machine held the data of all sites; in a deployment they stay at the sites."
    )
    files = "These files hold no question, answer or passage of a site"
    if quotes:
        files = "**`openai/` quotes the sites' questions and passages and must stay in the house.** The others do not"
    return _PRIVACY.format(where=where, files=f"{files}{'' if site_names else ', and no name of a site'}.")


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *others = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, f"|{' --- |' * len(rows[0])}", *others])
