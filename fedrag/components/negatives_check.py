"""Whether noised training finds the hard negatives that it learns from: with noise there are no in-batch ones.

Which passages a site's questions find is known at the site alone, in the round. What can be said before: whether a
passage is there that is wrong for a question, and whether the encoder sees a difference where there is a large one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fedrag.config.scenario import Config
from fedrag.config.schedule import trained_components
from fedrag.errors import ConfigError
from fedrag.models.probe_texts import PASSAGES, QUESTIONS
from fedrag.models.resident import resident_retriever
from fedrag.models.retriever import Retriever
from fedrag.types import Site

NO_NEGATIVES = "no-negatives"
"""The code with which a site refuses whose questions find no hard negatives."""


def require_negatives(config: Config, sites: Sequence[Site]) -> None:
    """Refuse noised contrastive training that will find no hard negatives at any site.

    Args:
        config: The scenario.
        sites: Those that take part.

    Raises:
        ConfigError: Every passage is right for the questions of its site, or the encoder gives unrelated texts so
            similar vectors that no passage is below the margin.
    """
    settings = config.retriever
    trained = "retriever" in trained_components(config.federation)
    if not (config.privacy.is_on and trained and settings.loss == "contrastive") or _names_negatives(config, sites):
        return
    if not any(_has_wrong_passage(site) for site in sites):
        raise ConfigError(
            'with noise retriever.loss = "contrastive" learns from each question\'s hard negatives, but at every site '
            f"in {config.data.sites} all passages are right for all its questions; add passages, or set "
            'retriever.loss = "lsr"'
        )
    margin = settings.contrastive.hard_negative_margin
    retriever = resident_retriever(config, "cpu")
    if margin and not tells_apart(retriever, margin):
        raise ConfigError(
            f"retriever.contrastive.hard_negative_margin = {margin:g}: {retriever.fetched.name} finds no hard "
            "negatives, and noise allows no others: it gives even passages on other topics nearly the similarity of "
            "the right one; set it to 0, or name another models.retriever"
        )


def tells_apart(retriever: Retriever, margin: float) -> bool:
    """Return whether, of known questions, any finds a passage on another topic below the margin of its own."""
    questions = [text for texts in QUESTIONS.values() for text in texts]
    passages = [text for texts in PASSAGES.values() for text in texts]
    with retriever.untouched():
        similarities = retriever.encode_queries(questions) @ retriever.encode_passages(passages).T
    own = similarities.diagonal()[:, None]
    return bool(np.any(similarities < own - margin * np.abs(own)))


def _names_negatives(config: Config, sites: Sequence[Site]) -> bool:
    named = any(question.hard_negative_ids for site in sites for question in site.train)
    return named and config.retriever.contrastive.named_negatives > 0


def _has_wrong_passage(site: Site) -> bool:
    passages = {passage.id for passage in site.passages}
    return any(question.passage_ids and passages - {*question.passage_ids} for question in site.train)
