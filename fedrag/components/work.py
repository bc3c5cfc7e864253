"""What a component is given at a site, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from fedrag.components.crew import ALONE, Crew
from fedrag.config.scenario import Config
from fedrag.config.schedule import rounds_training
from fedrag.federation.messages import Request
from fedrag.models.resident import RoundModels
from fedrag.retrieval.index import PassageIndex, Ranking
from fedrag.seeding import derive_seed
from fedrag.training.losses import Losses
from fedrag.training.optimizer import Progress
from fedrag.training.private_steps import NoisedSteps
from fedrag.training.result import OnStep, TrainingResult
from fedrag.types import Component, Site, Tensors

OnProgress = Callable[[str, int, int], None]
"""Called with (what, done, in all) while a site works; stays at the site."""


@dataclass(frozen=True, slots=True)
class Workbench:
    """What one site's round works with.

    Attributes:
        site: The site's data.
        cache: Folder of the models it is handed.
        scores: Folder of its answer scores.
        config: The scenario.
        losses: The loss functions.
        on_progress: Told how far the work is.
        run: Name of the run, or "" where it has none.
        indexes: Folder of its indexes; None: none are kept.
        crew: The processes that train together here.
        max_rank: Largest rank of the adapters that train here; 0: that of the scenario.
    """

    site: Site
    cache: Path
    scores: Path
    config: Config
    losses: Losses = field(default_factory=Losses)
    on_progress: OnProgress = lambda what, done, total: None
    run: str = ""
    indexes: Path | None = None
    crew: Crew = ALONE
    max_rank: int = 0


class TrainingTerms(TypedDict):
    """What every training of a component is told of its round, beside its own examples and settings.

    Attributes:
        progress: Which part of the whole training the round is.
        received: The tensors that the server sent.
        trained: Names of those that the round trains.
        proximal_mu: Strength of FedProx.
    """

    progress: Progress
    received: Tensors
    trained: tuple[str, ...]
    proximal_mu: float


@dataclass(frozen=True, slots=True)
class Work:
    """What a component is given in one round at a site.

    Attributes:
        bench: The site's data, folders and settings.
        request: What the server asks for, with the state it sent.
        models: Generator and retriever in the state of the round's start.
        index: Gives the index of the site's passages, encoded when it is first asked for.
        rankings: Gives the passages to show and the ranks of the labelled ones, for each validation question; ranked
            when first asked for.
        parts: The work at each site whose data was pooled here; at a site of its own, none.
        noise: The steps of each component, where noise covers single questions; None: it does not.
    """

    bench: Workbench
    request: Request
    models: RoundModels
    index: Callable[[], PassageIndex]
    rankings: Callable[[], Sequence[Ranking]]
    parts: tuple[Work, ...] = ()
    noise: NoisedSteps | None = None

    @property
    def searches(self) -> tuple[Work, ...]:
        """The work at every site whose questions are searched among its own passages: this one, or its parts."""
        return self.parts or (self,)

    def seed(self, component: Component) -> int:
        """Return the seed of a component's training in this round at this site."""
        return derive_seed(self.bench.config.seed, self.request.round_number, self.bench.site.name, component)

    def trained(self, component: Component) -> Collection[str]:
        """Return the names of a component's tensors that this round trains; the others are frozen."""
        return self.request.trained(component).keys()

    def progress(self, component: Component) -> Progress:
        """Return which part of a component's whole training this round is."""
        rounds = rounds_training(self.bench.config.federation, component)
        return Progress(self.request.past_rounds.get(component, 0), rounds)

    def terms(self, component: Component) -> TrainingTerms:
        """Return what a component's training is told of the round."""
        return {
            "progress": self.progress(component),
            "received": self.request.state[component],
            "trained": tuple(self.trained(component)),
            "proximal_mu": self.bench.config.federation.proximal_mu,
        }

    def on_step(self, component: Component) -> OnStep:
        """Return what a component's training calls after each step."""
        on_progress = self.bench.on_progress
        return lambda done, total, _: on_progress(component, done, total)


class NothingToLearn(Exception):
    """A site has questions for a component, and nothing that it could learn from them.

    Args:
        code: Why, one of `fedrag.federation.refusal_codes.REFUSALS`.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Prepared:
    """A training that is ready to start.

    Attributes:
        num_examples: Questions it learns from, which weigh its update; no more than the site has to train on.
        train: Trains and returns the difference.
        questions: Distinct ones among them; None: as many.
    """

    num_examples: int
    train: Callable[[], TrainingResult]
    questions: int | None = None

    @property
    def distinct_questions(self) -> int:
        """The most questions that the update can come from."""
        return self.num_examples if self.questions is None else self.questions
