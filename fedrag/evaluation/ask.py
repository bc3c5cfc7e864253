"""Answers questions from one site's passages with the untouched and with a run's models, side by side."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedrag.config.rag_settings import Search
from fedrag.config.scenario import Config
from fedrag.data.questions import distinct_questions, question_key
from fedrag.data.site_folder import load_site, site_folders
from fedrag.errors import ConfigError
from fedrag.models.resident import RoundModels
from fedrag.rag.indexing import build_index, shared_indexes
from fedrag.rag.pipeline import Retrieved, answer_temperature, generate_answers, prompt_builder, prompt_groups, retrieve
from fedrag.retrieval.index import PassageIndex
from fedrag.runs.facts import require_same_models
from fedrag.runs.run_folder import RunFolder
from fedrag.types import COMPONENTS, SPLITS, Component, Passage, Site, Split, State

_NAMES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Found:
    """A passage that a retriever found.

    Attributes:
        passage: The passage.
        score: By which passages are ranked: similarity to the question, BM25, or the sum of reciprocal ranks.
        is_given: Whether it was given to the generator.
        is_labelled: Whether the site's files label it as holding the answer.
    """

    passage: Passage
    score: float
    is_given: bool
    is_labelled: bool


@dataclass(frozen=True, slots=True)
class RagAnswer:
    """The answer of one generator and retriever to a question.

    Attributes:
        answer: The answer.
        found: The passages found, best first.
        unread_tokens: The last tokens of a long question, for which the prompt had no room.
    """

    answer: str
    found: tuple[Found, ...]
    unread_tokens: int = 0


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
        self._config = config
        self._trained = trained
        self._site = site
        self._indexes = indexes
        self._n_found = config.rag.passages if passages is None else passages
        self._known = {question_key(q.question): q for q in distinct_questions(self._site.questions)}
        self._untouched_index = self._index({})
        self._trained_index = self._index(self._trained) if "retriever" in self._trained else self._untouched_index

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
        site = load_site(_only_site(Path(data)))
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
        question = _checked(question)
        known = self._known.get(question_key(question))
        labelled = known.passage_ids if known else ()
        return Asked(
            question=question,
            run=self._run,
            site=self._site.name,
            components=tuple(component for component in COMPONENTS if component in self._trained),
            splits=tuple(split for split in SPLITS if self._stands_in(question, split)),
            right_answers=known.answers if known else (),
            untouched=self._answer({}, self._untouched_index, question, labelled),
            trained=self._answer(self._trained, self._trained_index, question, labelled),
            search=self._config.rag.search,
        )

    def _index(self, state: State) -> PassageIndex | None:
        if not self._n_found:
            return None
        retriever = RoundModels(self._config, state).retriever
        rag = self._config.rag
        return build_index(retriever, self._site.passages, rag.chunk_overlap, self._indexes, rag.search)

    def _answer(self, state: State, index: PassageIndex | None, question: str, labelled: tuple[str, ...]) -> RagAnswer:
        config = self._config
        models = RoundModels(config, state)  # resets the state, since both sides share the loaded models
        [hits] = retrieve(models.retriever, index, [question], self._n_found) if index is not None else [[]]
        passages = {passage.id: passage for passage in self._site.passages}
        given = hits[: config.rag.passages]
        asked = Retrieved.of(question, given, passages, index)
        retriever = models.retriever if index is not None else None
        temperature = answer_temperature(retriever, config.rag, config.retriever.lsr.tau_r)
        batch_tokens = config.evaluation.batch_tokens
        [answered] = generate_answers(models.generator, [asked], config.rag, batch_tokens, temperature)
        [(_, first), *_] = prompt_groups(asked.passages, config.rag)
        fitted = prompt_builder(models.generator, config.rag).fit(question, first)
        found = (
            Found(passages[hit.passage_id], hit.score, rank < len(given), hit.passage_id in labelled)
            for rank, hit in enumerate(hits)
        )
        return RagAnswer(answered.text, tuple(found), fitted.question_tokens - len(fitted.question))

    def _stands_in(self, question: str, split: Split) -> bool:
        return any(question_key(other.question) == question_key(question) for other in self._site.split(split))


def ask(path: Path | str, question: str, data: Path | str, *, passages: int | None = None) -> Asked:
    """Answer one question from a site's passages with the untouched and with a run's models.

    For several questions use `BeforeAndAfter.of_run`, which loads and indexes only once; it also describes the
    arguments and errors.
    """
    return BeforeAndAfter.of_run(path, data, passages).ask(question)


def _only_site(root: Path) -> Path:
    """Return the folder of the only site."""
    folders = site_folders(root)
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders[:_NAMES_SHOWN])
        more = f" and {len(folders) - _NAMES_SHOWN:,} more" if len(folders) > _NAMES_SHOWN else ""
        raise ConfigError(
            f"{root}: holds {len(folders)} sites ({names}{more}); name one of them, for example: --data {folders[0]}"
        )
    return folders[0]


def _checked(question: str) -> str:
    """Strip a question; refuse one that no tokenizer can read."""
    if not question.strip():
        raise ConfigError("the question is empty; expected some words")
    try:
        question.encode()
    except UnicodeEncodeError:
        raise ConfigError("the question is not UTF-8 text") from None
    return question.strip()
