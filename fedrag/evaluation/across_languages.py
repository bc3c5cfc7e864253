"""The questions of a site over the passages of another that holds the same in another language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fedrag.errors import DataError
from fedrag.types import Question, Site


def over_other_languages(sites: Sequence[Site]) -> list[Site]:
    """Return for each two sites of different languages the one's questions over the other's passages.

    Translations have the ids of their originals, so a label names the passage that is right in either language. Only
    questions whose labelled passages are all there are asked. Answers are in the language of the question, passages
    are not: such a site measures retrieval alone.

    Args:
        sites: With their languages.

    Raises:
        DataError: A site does not say its language, or no two languages share passages.

    >>> from fedrag.types import Passage
    >>> asked = Question("q1", "Tim ở đâu?", ("ngực",), ("heart",))
    >>> vi = Site("huế", (Passage("heart", "Tim ở ngực."),), (), (), (asked,), "vi")
    >>> en = Site("york", (Passage("heart", "The heart is in the chest."),), (), (), (), "en")
    >>> [(site.name, site.passages[0].text, site.test[0].question) for site in over_other_languages([vi, en])]
    [('huế over york', 'The heart is in the chest.', 'Tim ở đâu?')]
    """
    if silent := [site.name for site in sites if not site.language]:
        raise DataError(
            f"{', '.join(silent)}: not said in which language; a site's folder has a site.json such as "
            '{"language": "vi"}'
        )
    pairs = [(asking, told) for asking in sites for told in sites if asking.language != told.language]
    crossed = [_crossed(asking, told) for asking, told in pairs]
    found = [site for site in crossed if site.questions]
    if not found:
        raise DataError("no passage is at two sites of different languages, by its id, with a question that names it")
    return found


def _crossed(asking: Site, told: Site) -> Site:
    known = {passage.id for passage in told.passages}

    def answerable(questions: Sequence[Question]) -> tuple[Question, ...]:
        return tuple(asked for asked in questions if asked.passage_ids and known.issuperset(asked.passage_ids))

    train, validation, test = (answerable(split) for split in (asking.train, asking.validation, asking.test))
    return replace(
        told,
        name=f"{asking.name} over {told.name}",
        train=train,
        validation=validation,
        test=test,
        unanswered=(),
    )
