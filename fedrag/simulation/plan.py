"""What a scenario would do, without doing it: sites, examples, bytes, memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedrag.components.base_models import required_models
from fedrag.components.earlier_result import read_earlier_result
from fedrag.components.retriever_check import prompts_text, similarity_text
from fedrag.components.shipped import SHIPPED
from fedrag.components.spec import Components, find_component
from fedrag.components.state import initial_state
from fedrag.components.traffic import traffic
from fedrag.components.trained_weights import trained_sizes
from fedrag.config.run_settings import FederationConfig
from fedrag.config.scenario import Config
from fedrag.config.schedule import rounds_training, schedule_text, sites_asked, sites_needed, trained_components
from fedrag.data.origins import count_origins, origins_text
from fedrag.data.questions import count_distinct, question_counts
from fedrag.data.site_folder import chosen_folders
from fedrag.models.generator import load_tokenizer
from fedrag.models.resident import prefix_bytes, resident_retriever
from fedrag.passes.choose import planned_paths, reading_text
from fedrag.rag.cuts import count_cuts, sum_of_cuts
from fedrag.rag.prompt import PromptBuilder
from fedrag.runs.facts import client_threads
from fedrag.runs.rate_tries import rate_text
from fedrag.secure_sum.roster import MIN_SITES
from fedrag.secure_sum.sum_terms import threshold
from fedrag.simulation.noise_plan import noise_lines, site_noise_lines
from fedrag.simulation.preflight import (
    check_scenario,
    held_out_folders,
    sites_that_train,
    training_sites,
    unused_negatives,
)
from fedrag.text import plural, size_text
from fedrag.types import SPLITS, Component, Site, State, Tensors
from fedrag.weights.compute import best_device, cpu_count

_AGGREGATOR_BYTES = 20  # two 64-bit limbs and one float32 a weight
_OPTIMIZER_BYTES = 12  # a gradient and the two moments of AdamW, float32


def plan_lines(config: Config, components: Components = SHIPPED) -> list[str]:
    """Describe what a scenario would run, as lines for a person.

    Raises:
        FedragError: The scenario's data or models are not in order.
    """
    data = config.data
    sites = training_sites(config, chosen_folders(Path(data.sites), data.only, data.hold_out))
    check_scenario(config, sites, components)
    able = sites_that_train(config, sites, components)
    state = initial_state(config, trained_components(config.federation), components)
    federation = config.federation
    return [
        f"{config.name}: {plural(federation.rounds, 'round')}, {schedule_text(federation)}",
        "",
        *_site_lines(config, sites, able),
        "",
        *_training_lines(config, able, state, components),
        *secure_lines(federation, sites_asked(federation, len(able))),
        _byte_line(config, state, len(able), components),
        _memory_line(config, state, len(sites), components),
        *noise_lines(config, able, state),
        *site_noise_lines(config, len(able), state),
        *_reading_lines(config, components),
        *_searching_lines(config, components),
        *_cut_lines(config, sites, components),
        *_rate_lines(config),
        *_start_lines(config, components),
        *_home_lines(config),
        _evaluation_line(config),
    ]


def _site_lines(config: Config, sites: Sequence[Site], able: Sequence[Site]) -> list[str]:
    """Return a row a site: passages and questions by split."""
    width = max(len(name) for name in ("Site", "all", *(site.name for site in sites)))
    names = {site.name for site in able}
    counts = [[len(site.passages), *(len(site.split(split)) for split in SPLITS)] for site in sites]
    lines = [f"  {'Site':<{width}}  Passages  Train  Validation   Test"]
    for site, row in zip(sites, counts, strict=True):
        lines.append(_row(site.name, row, width) + ("" if site.name in names else "   sits out: nothing to train on"))
    if len(sites) > 1:
        lines.append(_row("all", [sum(column) for column in zip(*counts, strict=True)], width))
    questions = [site.questions for site in sites]
    n_questions, n_distinct = (sum(map(count, questions)) for count in (len, count_distinct))
    if n_distinct < n_questions:
        lines.append(f"  of {n_questions:,} questions, {n_distinct:,} are distinct at their site")
    if origins := origins_text(count_origins(question for asked in questions for question in asked)):
        lines.append(f"  of {origins}")
    held_out = [folder.name for folder in held_out_folders(config)]
    return [*lines, f"  held out: {', '.join(held_out)}"] if held_out else lines


def _row(name: str, counts: Sequence[int], width: int) -> str:
    passages, train, validation, test = (f"{count:,}" for count in counts)
    return f"  {name:<{width}}  {passages:>8}  {train:>5}  {validation:>10}  {test:>5}"


def _training_lines(config: Config, able: Sequence[Site], state: State, components: Components) -> list[str]:
    """Return a line a component: how much is trained, on how many questions."""
    lines = []
    for name, tensors in state.items():
        component = find_component(components, name)
        rounds = rounds_training(config.federation, name)
        kind = component.learns_from(config)
        questions = sum(question_counts(site, with_unanswered=config.iterates)[kind] for site in able)
        passes = plural(component.epochs(config), "pass", "passes")
        if config.privacy.is_on:
            passes = plural(config.privacy.steps, "noised step")
        sort = {"labelled_questions": "labelled ", "answered_questions": ""}.get(kind, "")
        lines.append(
            f"{name}: {_weights_text(config, name, tensors)} learn from {questions:,} {sort}questions, "
            f"{passes} a round, in {plural(rounds, 'round')}"
        )
    if config.iterates:
        unanswered = sum(len(site.unanswered) for site in able)
        lines.append(f"of these, each round first answers {unanswered:,} itself, and learns from what it trusts")
    lines += unused_negatives(config, able)
    if config.federation.fraction < 1:
        asked, needed = sites_asked(config.federation, len(able)), sites_needed(config.federation, len(able))
        first = f", and takes the first {needed} that reply" if config.federation.overselect else ""
        lines.append(f"each round asks {asked} of {len(able)} sites{first}")
    return lines


def _weights_text(config: Config, name: Component, tensors: Tensors) -> str:
    """Return how many weights a component trains in a round; a frozen factor is none of them."""
    sizes = trained_sizes(config.federation, name, tensors)
    return " and ".join(f"{size:,}" for size in sizes) + (" weights in turn" if len(sizes) > 1 else " weights")


def _byte_line(config: Config, state: State, able: int, components: Components) -> str:
    """Return the line on the bytes of all arrays; the text around them adds some kilobytes to a message."""
    moved = traffic(config, state, components)
    total = moved.total(sites_asked(config.federation, able), able)
    return (
        f"bytes ({config.federation.wire}): in a round at most {size_text(max(moved.to_site))} to a site and "
        f"{size_text(max(moved.back))} back; at most {size_text(total)} in all"
    )


def secure_lines(settings: FederationConfig, asked: int) -> list[str]:
    """Return the line on what a secure sum of so many sites bears; none without one.

    >>> print(*secure_lines(FederationConfig(secure=True), 5))
    secure sum: the server sees the sum of 5 sites' updates alone, even with 1 site on its side; a round bears 1 that \
vanishes, 4 must stay; the aggregation error cannot be measured
    """
    if not settings.secure:
        return []
    needed = max(MIN_SITES, threshold(asked, settings.secure_colluding))
    spare = asked - needed
    bears = f"a round bears {spare} that {'vanishes' if spare == 1 else 'vanish'}" if spare else "no site may vanish"
    return [
        f"secure sum: the server sees the sum of {asked} sites' updates alone, even with "
        f"{plural(settings.secure_colluding, 'site')} on its side; {bears}, {needed} must stay; the aggregation error "
        "cannot be measured"
    ]


def _memory_line(config: Config, state: State, clients: int, components: Components) -> str:
    """Return the line on the memory of the weights; what a forward pass needs on top depends on the texts."""
    models = required_models(config, components)
    base = sum(find_component(components, key).steps().base_bytes(config, model) for key, model in models.items())
    trained = {name: max(trained_sizes(config.federation, name, tensors)) for name, tensors in state.items()}
    training = max(trained.values()) * _OPTIMIZER_BYTES
    held = sum(tensor.size for tensors in state.values() for tensor in tensors.values())
    server = held * 4 + sum(trained.values()) * _AGGREGATOR_BYTES
    processes = "this process"
    if config.simulation.grid == "ray":
        room = max(1, cpu_count() // config.simulation.cpus_per_actor)
        processes = f"this process and each of {plural(min(config.simulation.actors or room, clients), 'actor')}"
    read = ""
    if config.generator.adapter_from == "question":
        read = f", and up to {size_text(prefix_bytes(config, best_device()))} of passages that were read"
    return (
        f"memory: base models {size_text(base)} and training {size_text(training)} in {processes}, "
        f"server {size_text(server)}; activations come on top{read}"
    )


def _reading_lines(config: Config, components: Components) -> list[str]:
    """Return the line on how the generator's batches are read; none without a generator."""
    generator, threads = required_models(config, components).get("generator"), client_threads(config.simulation)
    return [reading_text(planned_paths(config, generator, threads).facts())] if generator else []


def _searching_lines(config: Config, components: Components) -> list[str]:
    """Return the line on how the retriever compares questions and passages; none without a retriever."""
    if "retriever" not in required_models(config, components):
        return []
    retriever = resident_retriever(config, "cpu")
    return [
        f"search: {similarity_text(retriever)}; chunks of at most {retriever.chunk_tokens} tokens; "
        f"prompts: {prompts_text(retriever)}"
    ]


def _cut_lines(config: Config, sites: Sequence[Site], components: Components) -> list[str]:
    """Return the line on texts that are too long for the generator's prompts and answers; none where all fit."""
    model = required_models(config, components).get("generator")
    if model is None:
        return []
    builder = PromptBuilder(load_tokenizer(model), config.rag, seq2seq=model.kind == "seq2seq")
    cuts = sum_of_cuts(count_cuts(site, builder, config.rag) for site in sites)
    return [cuts.text(config.rag)] if cuts.any else []


def _rate_lines(config: Config) -> list[str]:
    """Return the line on the trainings that find each arm's learning rate."""
    rates, arms = config.evaluation.rates, ["federated", *config.evaluation.baselines]
    if not rates:
        return []
    each = f"{len(rates)} learning rates ({', '.join(map(rate_text, rates))})"
    total = len(arms) * (len(rates) + 1)
    return [f"first: {', '.join(arms)} each try {each} and train once more with the best: {total} trainings in all"]


def _start_lines(config: Config, components: Components) -> list[str]:
    """Return the line on the run whose result the rounds start from; none where they start anew."""
    if not config.start_from:
        return []
    facts = read_earlier_result(config, components).facts
    return [f"the rounds start from the {' and the '.join(facts['components'])} of {facts['run']}"]


def _home_lines(config: Config) -> list[str]:
    """Return the line on training at home after the last round; none without it."""
    passes = config.federation.personalise
    if not passes:
        return []
    noise = ", without noise, since nothing of it leaves the site" if config.privacy.is_on else ""
    return [
        f"after the last round each site trains on for {plural(passes, 'pass', 'passes')} at home{noise}, and keeps "
        "what gains on its validation questions"
    ]


def _evaluation_line(config: Config) -> str:
    evaluation = config.evaluation
    if evaluation.split == "none":
        return "then: no evaluation (evaluation.split is none)"
    personalised = ["personalised"] * bool(config.federation.personalise)
    arms = ["untouched"] * evaluation.untouched + ["federated", *personalised, *evaluation.baselines]
    questions = "all questions" if evaluation.split == "all" else f"the {evaluation.split} questions"
    where = "held-out sites" if evaluation.sites == "held-out" else "sites that take part"
    return f"then: {', '.join(arms)} measured on {questions} of the {where}"
