"""What cannot work together in two sections of a scenario: refused when it is read, with the reason and the way out."""

from __future__ import annotations

from fedrag.config.averaging import averaging_of, contradiction, secure_contradiction
from fedrag.config.schedule import rounds_training, trained_components
from fedrag.config.settings import Settings
from fedrag.secure_sum.roster import MIN_SITES


def check_combinations(config: Settings) -> None:
    """Refuse what cannot work together in two sections; a section refuses what cannot in itself.

    Raises:
        ValueError: Two settings contradict one another; the text says which, and what to set.
    """
    if config.evaluation.sites == "held-out" and not config.data.hold_out:
        raise ValueError('evaluation.sites = "held-out" needs names in data.hold_out')
    _check_closed_book(config)
    if config.rag.search == "bm25" and config.trains_retriever:
        raise ValueError(
            'rag.search = "bm25" does not use the retriever\'s vectors, so there is nothing to train it for; '
            'set federation.schedule = "generator", or rag.search = "hybrid"'
        )
    _check_template(config)
    _check_rates(config)
    _check_personalise(config)
    _check_averaging(config)
    _check_privacy(config)
    _check_site_noise(config)


def _check_closed_book(config: Settings) -> None:
    """Refuse what needs passages in a prompt where there are none."""
    if config.rag.passages:
        return
    needs = {
        f'retriever.loss = "{config.retriever.loss}"': config.trains_retriever and config.retriever.uses_lsr,
        f"generator.raft_drop = {config.generator.raft_drop}": config.generator.raft_drop > 0,
        "rag.include_labelled = true": config.rag.include_labelled,
        'federation.schedule = "iterate"': config.iterates,
    }
    for setting, is_set in needs.items():
        if is_set:
            raise ValueError(f"{setting} needs passages in the prompts, but rag.passages is 0")


def _check_template(config: Settings) -> None:
    """Refuse an adapter that acts from the question on where no words show it the question's place."""
    if not config.rag.template or config.generator.adapter_from != "question":
        return
    if config.rag.asks_first:
        raise ValueError(
            'generator.adapter_from = "question" needs a rag.template whose {query_str} comes after {context_str}, '
            'so that the base model alone reads the passages; set "start"'
        )
    mark = config.rag.template_parts[1 if config.rag.passages else 0]
    if not any(map(str.isalpha, mark)):
        raise ValueError(
            'generator.adapter_from = "question" needs words before {query_str} in rag.template, such as '
            '"Question: ", by which other libraries find the place from which the adapter acts; set "start"'
        )


def _check_rates(config: Settings) -> None:
    """Refuse to choose rates by the questions that they are then measured on, or to choose none."""
    evaluation = config.evaluation
    if not evaluation.rates:
        return
    if evaluation.split == "none":
        raise ValueError('evaluation.rates needs a final evaluation, but evaluation.split is "none"')
    if evaluation.sites == "taking-part" and evaluation.split in ("validation", "all"):
        raise ValueError(
            "evaluation.rates are chosen by the validation questions, which then cannot be measured; "
            'set evaluation.split = "test"'
        )
    if config.trains_generator and not evaluation.generate:
        raise ValueError("evaluation.rates chooses the generator's by F1, which needs evaluation.generate = true")
    if config.federation.components:
        raise ValueError("evaluation.rates works with federation.schedule alone; leave out federation.components")


def _check_personalise(config: Settings) -> None:
    """Refuse to measure what sites keep by the questions by which they keep it, or at sites that keep nothing."""
    evaluation, epochs = config.evaluation, config.federation.personalise
    if not epochs or evaluation.split == "none":
        return
    if evaluation.sites == "held-out":
        raise ValueError(
            f"federation.personalise = {epochs} trains on at the sites that take part, but evaluation.sites = "
            '"held-out" measures others; set "taking-part", or federation.personalise = 0'
        )
    if evaluation.split in ("validation", "all"):
        raise ValueError(
            f"federation.personalise = {epochs} keeps what gains on the validation questions, which then cannot be "
            'measured; set evaluation.split = "test"'
        )


def _check_privacy(config: Settings) -> None:
    """Refuse, where noise covers single questions, what lets one question act through others."""
    if not config.privacy.is_on:
        return
    contrasts = config.trains_retriever and config.retriever.uses_contrastive
    scores = config.trains_retriever and config.retriever.uses_lsr
    refused = {
        "the in-batch negatives of retriever.loss let a question act through all others of its batch, which no "
        "clipping of its own gradient bounds; set retriever.contrastive.hard_negatives = 4, its own retrieved "
        'passages, or retriever.loss = "lsr"': contrasts and not config.retriever.contrastive.hard_negatives,
        "generator.raft_drop draws one question after the other, so each changes the draws of the next; "
        "set it to 0": config.trains_generator and config.generator.raft_drop > 0,
        "retriever.lsr.max_questions draws questions among others; set it to 0": scores
        and config.retriever.lsr.max_questions > 0,
        'federation.schedule = "iterate" learns from questions that nobody counted; set another': config.iterates,
        "federation.components may name parts of one's own, of which nobody knows how they learn; use "
        "federation.schedule": bool(config.federation.components),
        "evaluation.rates trains once for each rate, and each time costs its epsilon; leave it out": bool(
            config.evaluation.rates
        ),
        "own.module brings losses and a rule of averaging that nobody has looked at": bool(config.own.module),
    }
    for reason, is_so in refused.items():
        if is_so:
            raise ValueError(f"privacy.epsilon = {config.privacy.epsilon:g}: {reason}")


def _check_site_noise(config: Settings) -> None:
    """Refuse, where noise covers whole clients, what is no plain sum of what they send, or tells more of them."""
    if not config.simulation.site_noise.is_on:
        return
    chosen = [averaging_of(config.federation, name) for name in trained_components(config.federation)]
    refused = {
        "the server takes a plain sum of clipped differences; set federation.rule to "
        '"fedavg", "ffa" or "rolora", and robust = "none"': any(
            one.rule in ("svd", "exact") or one.robust != "none" for one in chosen
        ),
        'a client that weighs more than others would need more noise; set federation.weighting = "equal"': any(
            one.weighting != "equal" for one in chosen
        ),
        "a client would act through the median of all; leave federation.max_norm_of_median out": bool(
            config.federation.max_norm_of_median
        ),
        "a secure sum is divided by the sites that were there; set federation.secure = false": (
            config.federation.secure
        ),
        'federation.keep = "best" chooses by what clients tell without noise; set "last"': (
            config.federation.keep == "best"
        ),
        "of a random draw all clients count, not the first; leave federation.overselect out": (
            config.federation.overselect > 0
        ),
        "evaluation.rates chooses by what clients tell without noise; leave it out": bool(config.evaluation.rates),
        "own.rule is a rule of averaging that nobody has looked at; leave it out": bool(config.own.rule),
    }
    for reason, is_so in refused.items():
        if is_so:
            raise ValueError(f"simulation.site_noise.epsilon = {config.simulation.site_noise.epsilon:g}: {reason}")


def _check_averaging(config: Settings) -> None:
    """Refuse ways of averaging that contradict one another or what is trained."""
    for name in trained_components(config.federation):
        if reason := secure_contradiction(config.federation, name) or contradiction(config.federation, name):
            raise ValueError(reason)
        rule = averaging_of(config.federation, name).rule
        if rule != "fedavg" and name == "retriever" and config.retriever.weights == "full":
            raise ValueError(
                f'federation.rule = "{rule}" averages adapters, but retriever.weights = "full" trains none; set '
                'federation.retriever.rule = "fedavg"'
            )
        if rule == "rolora" and rounds_training(config.federation, name) < 2:
            raise ValueError(
                f'federation.rule = "rolora" trains B in odd rounds and A in even ones: the {name} needs at least '
                "2 rounds"
            )
    _check_server_step(config)
    _check_ranks(config)
    if config.federation.secure and config.own.rule:
        raise ValueError(
            f'federation.secure = true, but own.rule = "{config.own.rule}" is given single updates; leave it out'
        )
    if config.federation.secure and config.data.only and len(config.data.only) < MIN_SITES:
        raise ValueError(
            f"federation.secure = true needs {MIN_SITES} sites, data.only names {len(config.data.only)}: of "
            "two, each would learn the other's update from the sum"
        )


def _check_ranks(config: Settings) -> None:
    """Refuse ranks of sites that no rule averages, or that are larger than the adapters'."""
    trained = trained_components(config.federation)
    most = max(map(config.adapter_rank, trained))
    for site, rank in config.simulation.ranks.items():
        if rank > most:
            raise ValueError(
                f"simulation.ranks gives {site} rank {rank}, but no adapter that is trained has over {most}"
            )
        if beyond := config.beyond_rank(trained, rank):
            raise ValueError(
                f"simulation.ranks has {site} train {beyond[0]} adapters of rank {rank}, the others "
                f'{config.adapter_rank(beyond[0])}: federation.rule = "svd" alone averages different ranks'
            )


def _check_server_step(config: Settings) -> None:
    """Refuse a learning rate of the server that nothing uses."""
    chosen = {averaging_of(config.federation, name).server_optimizer for name in trained_components(config.federation)}
    if chosen == {"none"} and config.federation.server.learning_rate != "auto":
        raise ValueError(
            'federation.server.learning_rate needs a federation.server_optimizer; "momentum" with '
            "federation.server.momentum = 0 is plain averaging with that rate"
        )
