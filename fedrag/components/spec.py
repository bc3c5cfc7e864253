"""What a component is: what the federation knows of it, and what it does.

What is known of a component is read everywhere, by a site's node too, and loads no torch. What it does is its `Steps`,
which are loaded where they run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedrag.components.finding import Finding
from fedrag.config.scenario import Config
from fedrag.errors import ConfigError
from fedrag.types import Component, Site, Tensors
from fedrag.weights.store import FetchedModel

if TYPE_CHECKING:
    from fedrag.components.work import Prepared, Work


def _any_model(config: Config, model: FetchedModel) -> None:
    """Accept any base model."""


def _no_trial(config: Config, model: FetchedModel) -> Iterator[Finding]:
    """Try nothing."""
    return iter(())


def _no_bytes(config: Config, model: FetchedModel) -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class Steps:
    """What a component does.

    Attributes:
        initial_state: Makes the tensors that every site starts from, given the scenario and a seed.
        prepare: Collects what is learnt from, before any component of the round is trained; None: the site has no
            questions for it. Raises `NothingToLearn` where more can be said.
        validate: Returns a sum over the site's validation questions and what to divide it by; a larger mean is better.
        export: Writes the trained tensors into a folder, as the libraries that use them read them.
        check_base: Refuses a base model of the component's name that the scenario cannot use.
        try_base: Tries this base model: each thing that a run does with it, once; a finding for each.
        base_bytes: Returns the memory that this base model takes.
        export_copies_base: Whether what `export` writes holds a copy of the base model. A run folder keeps no such
            copies: `fedrag export` writes them.
    """

    initial_state: Callable[[Config, int], Tensors]
    prepare: Callable[[Work], Prepared | None]
    validate: Callable[[Work], tuple[float, int]]
    export: Callable[[Config, Tensors, Path], None]
    check_base: Callable[[Config, FetchedModel], None] = _any_model
    base_bytes: Callable[[Config, FetchedModel], float] = _no_bytes
    try_base: Callable[[Config, FetchedModel], Iterator[Finding]] = _no_trial
    export_copies_base: bool = False


def _any_sites(config: Config, sites: Sequence[Site]) -> None:
    """Accept any sites."""


def _all(counts: Mapping[str, int], config: Config) -> int:
    """Bound nothing: an update may come from all questions of the sort."""
    return max(counts.values(), default=0)


def _one(config: Config) -> int:
    return 1


def _none(config: Config) -> tuple[Component, ...]:
    return ()


@dataclass(frozen=True, slots=True)
class ComponentSpec:
    """A component: what the server, a plan and a site's policy must know of it.

    Attributes:
        steps: Loads what it does.
        base_models: Returns the base models that its rounds use, by their keys in the scenario's [models].
        learns_from: Returns the questions it learns from: "train_questions", or of these the "answered_questions" or
            the "labelled_questions".
        most_questions: Returns the most questions that an update can come from, given the numbers of a site's questions
            of each sort, by what the scenario says: some are left out, or teach nothing.
        examples_limit: Returns the most questions that a site with these counts learns from in a round; None: all.
        needs_state_of: Returns the other components whose state its rounds use.
        epochs: Returns its passes over the questions in one round.
        check_sites: Refuses sites that lack what it learns from.
        validates_labelled: Whether its validation counts the labelled questions it measured.
        base_is_encoder: Whether the base model of its name is an encoder.
    """

    steps: Callable[[], Steps]
    base_models: Callable[[Config], tuple[str, ...]]
    learns_from: Callable[[Config], str]
    most_questions: Callable[[Mapping[str, int], Config], int] = _all
    examples_limit: Callable[[Mapping[str, int], Config], int] | None = None
    needs_state_of: Callable[[Config], tuple[Component, ...]] = _none
    epochs: Callable[[Config], int] = _one
    check_sites: Callable[[Config, Sequence[Site]], None] = _any_sites
    validates_labelled: bool = False
    base_is_encoder: bool = False

    def most_examples(self, counts: Mapping[str, int], config: Config) -> int:
        """Return the most questions that a site which told these counts learns from in a round; at least 1."""
        told = counts.get(self.learns_from(config), 0)
        return max(1, min(told, self.examples_limit(counts, config)) if self.examples_limit else told)

    def can_train(self, counts: Mapping[str, int], config: Config) -> bool:
        """Return whether a site that told these counts of its questions can train the component."""
        return counts.get(self.learns_from(config), 0) > 0


Components = Mapping[Component, ComponentSpec]
"""Components by name."""


def find_component(components: Components, name: Component) -> ComponentSpec:
    """Return the component of a name.

    Raises:
        ConfigError: There is none.
    """
    if name not in components:
        raise ConfigError(f'federation.components: "{name}" is not known here; known are: {", ".join(components)}')
    return components[name]
