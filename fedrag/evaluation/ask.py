"""Answers questions from one site's passages with the untouched and with a run's models, side by side."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fedrag.config.rag_settings import Search
from fedrag.config.scenario import Config
from fedrag.data.questions import distinct_questions, question_key
from fedrag.data.site_folder import load_site, site_folders
from fedrag.errors import ConfigError
from fedrag.evaluation.answerer import Answerer, RagAnswer, checked_question
from fedrag.rag.indexing import shared_indexes
from fedrag.runs.facts import require_same_models
from fedrag.runs.run_folder import RunFolder
from fedrag.types import COMPONENTS, SPLITS, Component, Site, Split, State

_NAMES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and the two answers to it.

    Attributes:
        question: The question.
        run: Name of the run.
        site: Name of the site whose passages were searched.
        components: Components that the run trained; the others are untouched on both sides.
        splits: Splits of the site that hold the question.
        right_answers: The right answers, if a split holds the question.
        untouched: Answer of the models as they were fetched.
        trained: Answer of the run's models.
        search: How passages were ranked.
    """

    question: str
    run: str
    site: str
    components: tuple[Component, ...]
    splits: tuple[Split, ...]
    right_answers: tuple[str, ...]
    untouched: RagAnswer
    trained: RagAnswer
    search: Search = "dense"

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


class BeforeAndAfter:
    """The untouched and the trained models of a run on one site's passages, loaded and indexed once.

    Args:
        run: Name of the run.
        config: Its scenario.
        trained: Its tensors by component; a missing component is untouched on both sides.
        site: The site.
        passages: Passages to find per question; None: as many as the run gives the generator, which may be none. The
            generator gets the best of them, at most as many as in the run.
        indexes: The folder of indexes; None: none are kept.

    Raises:
        ModelError: A model is not fetched.
    """

    def __init__(
        self,
        run: str,
        config: Config,
        trained: State,
        site: Site,
        passages: int | None = None,
        indexes: Path | None = None,
    ) -> None:
        self._run = run
        self._search = config.rag.search
        self._trained_components = tuple(component for component in COMPONENTS if component in trained)
        self._site = site
        self._known = {question_key(q.question): q for q in distinct_questions(site.questions)}
        self._untouched = Answerer(config, {}, site, passages, indexes)
        self._trained = Answerer(config, trained, site, passages, indexes)

    @classmethod
    def of_run(cls, path: Path | str, data: Path | str, passages: int | None = None) -> BeforeAndAfter:
        """Open a run folder and a site's folder, or a folder with a single site.

        Raises:
            RunError: The run is not finished, or damaged, or a base model is no longer the one it was trained with.
            ConfigError: The folder holds several sites.
            DataError: The site is malformed.
            ModelError: A model is not fetched.
        """
        run = RunFolder.open(Path(path))
        trained = run.load_result()
        require_same_models(run)
        site = load_site(only_site(Path(data)))
        return cls(run.path.resolve().name, run.config, trained, site, passages, shared_indexes())

    @property
    def site(self) -> str:
        """Name of the site."""
        return self._site.name

    def ask(self, question: str) -> Asked:
        """Answer one question with the untouched and the trained models.

        The question is a batch of its own: in bfloat16 its answer can differ from the one in an evaluation's batch.

        Raises:
            ConfigError: The question is blank, or not valid text.
        """
        question = checked_question(question)
        known = self._known.get(question_key(question))
        labelled = known.passage_ids if known else ()
        return Asked(
            question=question,
            run=self._run,
            site=self._site.name,
            components=self._trained_components,
            splits=tuple(split for split in SPLITS if self._stands_in(question, split)),
            right_answers=known.answers if known else (),
            untouched=_labelled(self._untouched.answer([question])[0], labelled),
            trained=_labelled(self._trained.answer([question])[0], labelled),
            search=self._search,
        )

    def _stands_in(self, question: str, split: Split) -> bool:
        return any(question_key(other.question) == question_key(question) for other in self._site.split(split))


def ask(path: Path | str, question: str, data: Path | str, *, passages: int | None = None) -> Asked:
    """Answer one question from a site's passages with the untouched and with a run's models.

    For several questions use `BeforeAndAfter.of_run`, which loads and indexes only once; it also describes the
    arguments and errors.
    """
    return BeforeAndAfter.of_run(path, data, passages).ask(question)


def only_site(root: Path) -> Path:
    """Return the folder of the only site.

    Raises:
        ConfigError: The folder holds several.
        DataError: It holds none.
    """
    folders = site_folders(root)
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders[:_NAMES_SHOWN])
        more = f" and {len(folders) - _NAMES_SHOWN:,} more" if len(folders) > _NAMES_SHOWN else ""
        raise ConfigError(
            f"{root}: holds {len(folders)} sites ({names}{more}); name one of them, for example: --data {folders[0]}"
        )
    return folders[0]


def _labelled(reply: RagAnswer, labelled: Collection[str]) -> RagAnswer:
    """Return an answer in which the passages that the site's files label are marked."""
    found = (replace(one, is_labelled=one.passage.id in labelled) for one in reply.found)
    return replace(reply, found=tuple(found))
