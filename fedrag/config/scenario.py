"""The scenario: what a federation shares, as one strict, frozen, typed tree read from TOML.

A site's own settings (the folder of its data, its policy) are never part of it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import tomli_w
from pydantic import Field, model_validator

from fedrag.config.averaging import averaging_of, contradiction, secure_contradiction
from fedrag.config.inputs import DataConfig, ModelsConfig
from fedrag.config.own_settings import OwnConfig
from fedrag.config.privacy_settings import PrivacyConfig
from fedrag.config.rag_settings import RagConfig, Search
from fedrag.config.run_settings import EvaluationConfig, FederationConfig, SimulationConfig, TrackingConfig
from fedrag.config.schedule import rounds_training, trained_components
from fedrag.config.section import Section, parse_toml, validate_section
from fedrag.config.training_settings import GeneratorConfig, RetrieverConfig
from fedrag.errors import ConfigError
from fedrag.files import read_text_file
from fedrag.secure_sum.roster import MIN_SITES
from fedrag.types import Component


class Config(Section):
    """A whole scenario."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    """Name of the scenario and of its run folders: small letters, digits and hyphens."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed from which all randomness derives."""
    start_from: str = ""
    """Folder of a finished run whose result this one starts from, instead of new adapters or the base's weights; what
    that run trained and this one does not is used and delivered as it is. Models, adapters and what is trained of them
    must be the same. Empty: from the start."""
    data: DataConfig
    models: ModelsConfig = ModelsConfig()
    rag: RagConfig = RagConfig()
    generator: GeneratorConfig = GeneratorConfig()
    retriever: RetrieverConfig = RetrieverConfig()
    federation: FederationConfig = FederationConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    simulation: SimulationConfig = SimulationConfig()
    tracking: TrackingConfig = TrackingConfig()
    own: OwnConfig = OwnConfig()

    @property
    def retrieves(self) -> bool:
        """Whether passages are searched at all: a closed book that trains no retriever needs none."""
        return self.rag.passages > 0 or self.trains_retriever or not self.evaluation.generate

    @property
    def trains_retriever(self) -> bool:
        """Whether a round trains the retriever."""
        own = self.federation.components
        return "retriever" in own if own else self.federation.schedule != "generator"

    @property
    def trains_generator(self) -> bool:
        """Whether a round trains the generator."""
        return not self.federation.components and self.federation.schedule != "retriever"

    def adapter_rank(self, component: Component) -> int:
        """Return the rank of a component's adapter; 0: it has none, or is one's own."""
        if component == "generator":
            return self.generator.lora.rank
        return self.retriever.lora.rank if component == "retriever" and self.retriever.weights == "lora" else 0

    def beyond_rank(self, components: Iterable[Component], rank: int) -> list[Component]:
        """Return the components whose adapters have more than a rank, and whose rule averages no different ranks."""
        return [
            name
            for name in components
            if self.adapter_rank(name) > rank and averaging_of(self.federation, name).rule != "svd"
        ]

    @property
    def iterates(self) -> bool:
        """Whether each site answers questions itself, in every round, and learns from these answers."""
        return self.federation.schedule == "iterate"

    @model_validator(mode="after")
    def _check_combinations(self) -> Config:
        """Refuse what cannot work together in two sections; a section refuses what cannot in itself."""
        if self.evaluation.sites == "held-out" and not self.data.hold_out:
            raise ValueError('evaluation.sites = "held-out" needs names in data.hold_out')
        self._check_closed_book()
        if self.rag.search == "bm25" and self.trains_retriever:
            raise ValueError(
                'rag.search = "bm25" does not use the retriever\'s vectors, so there is nothing to train it for; '
                'set federation.schedule = "generator", or rag.search = "hybrid"'
            )
        self._check_template()
        self._check_rates()
        self._check_personalise()
        self._check_averaging()
        self._check_privacy()
        self._check_site_noise()
        return self

    def _check_closed_book(self) -> None:
        """Refuse what needs passages in a prompt where there are none."""
        if self.rag.passages:
            return
        needs = {
            f'retriever.loss = "{self.retriever.loss}"': self.trains_retriever and self.retriever.uses_lsr,
            f"generator.raft_drop = {self.generator.raft_drop}": self.generator.raft_drop > 0,
            "rag.include_labelled = true": self.rag.include_labelled,
            'federation.schedule = "iterate"': self.iterates,
        }
        for setting, is_set in needs.items():
            if is_set:
                raise ValueError(f"{setting} needs passages in the prompts, but rag.passages is 0")

    def _check_template(self) -> None:
        """Refuse an adapter that acts from the question on where no words show it the question's place."""
        if not self.rag.template or self.generator.adapter_from != "question":
            return
        if self.rag.asks_first:
            raise ValueError(
                'generator.adapter_from = "question" needs a rag.template whose {query_str} comes after {context_str}, '
                'so that the base model alone reads the passages; set "start"'
            )
        mark = self.rag.template_parts[1 if self.rag.passages else 0]
        if not any(map(str.isalpha, mark)):
            raise ValueError(
                'generator.adapter_from = "question" needs words before {query_str} in rag.template, such as '
                '"Question: ", by which other libraries find the place from which the adapter acts; set "start"'
            )

    def _check_rates(self) -> None:
        """Refuse to choose rates by the questions that they are then measured on, or to choose none."""
        evaluation = self.evaluation
        if not evaluation.rates:
            return
        if evaluation.split == "none":
            raise ValueError('evaluation.rates needs a final evaluation, but evaluation.split is "none"')
        if evaluation.sites == "taking-part" and evaluation.split in ("validation", "all"):
            raise ValueError(
                "evaluation.rates are chosen by the validation questions, which then cannot be measured; "
                'set evaluation.split = "test"'
            )
        if self.trains_generator and not evaluation.generate:
            raise ValueError("evaluation.rates chooses the generator's by F1, which needs evaluation.generate = true")
        if self.federation.components:
            raise ValueError("evaluation.rates works with federation.schedule alone; leave out federation.components")

    def _check_personalise(self) -> None:
        """Refuse to measure what sites keep by the questions by which they keep it, or at sites that keep nothing."""
        evaluation, epochs = self.evaluation, self.federation.personalise
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

    def _check_privacy(self) -> None:
        """Refuse, where noise covers single questions, what lets one question act through others."""
        if not self.privacy.is_on:
            return
        contrasts = self.trains_retriever and self.retriever.uses_contrastive
        scores = self.trains_retriever and self.retriever.uses_lsr
        refused = {
            "the in-batch negatives of retriever.loss let a question act through all others of its batch, which no "
            "clipping of its own gradient bounds; set retriever.contrastive.hard_negatives = 4, its own retrieved "
            'passages, or retriever.loss = "lsr"': contrasts and not self.retriever.contrastive.hard_negatives,
            "generator.raft_drop draws one question after the other, so each changes the draws of the next; "
            "set it to 0": self.trains_generator and self.generator.raft_drop > 0,
            "retriever.lsr.max_questions draws questions among others; set it to 0": scores
            and self.retriever.lsr.max_questions > 0,
            'federation.schedule = "iterate" learns from questions that nobody counted; set another': self.iterates,
            "federation.components may name parts of one's own, of which nobody knows how they learn; use "
            "federation.schedule": bool(self.federation.components),
            "evaluation.rates trains once for each rate, and each time costs its epsilon; leave it out": bool(
                self.evaluation.rates
            ),
            "own.module brings losses and a rule of averaging that nobody has looked at": bool(self.own.module),
        }
        for reason, is_so in refused.items():
            if is_so:
                raise ValueError(f"privacy.epsilon = {self.privacy.epsilon:g}: {reason}")

    def _check_site_noise(self) -> None:
        """Refuse, where noise covers whole clients, what is no plain sum of what they send, or tells more of them."""
        if not self.simulation.site_noise.is_on:
            return
        chosen = [averaging_of(self.federation, name) for name in trained_components(self.federation)]
        refused = {
            "the server takes a plain sum of clipped differences; set federation.rule to "
            '"fedavg", "ffa" or "rolora", and robust = "none"': any(
                one.rule in ("svd", "exact") or one.robust != "none" for one in chosen
            ),
            'a client that weighs more than others would need more noise; set federation.weighting = "equal"': any(
                one.weighting != "equal" for one in chosen
            ),
            "a client would act through the median of all; leave federation.max_norm_of_median out": bool(
                self.federation.max_norm_of_median
            ),
            "a secure sum is divided by the sites that were there; set federation.secure = false": (
                self.federation.secure
            ),
            'federation.keep = "best" chooses by what clients tell without noise; set "last"': (
                self.federation.keep == "best"
            ),
            "of a random draw all clients count, not the first; leave federation.overselect out": (
                self.federation.overselect > 0
            ),
            "evaluation.rates chooses by what clients tell without noise; leave it out": bool(self.evaluation.rates),
            "own.rule is a rule of averaging that nobody has looked at; leave it out": bool(self.own.rule),
        }
        for reason, is_so in refused.items():
            if is_so:
                raise ValueError(f"simulation.site_noise.epsilon = {self.simulation.site_noise.epsilon:g}: {reason}")

    def _check_averaging(self) -> None:
        """Refuse ways of averaging that contradict one another or what is trained."""
        for name in trained_components(self.federation):
            if reason := secure_contradiction(self.federation, name) or contradiction(self.federation, name):
                raise ValueError(reason)
            rule = averaging_of(self.federation, name).rule
            if rule != "fedavg" and name == "retriever" and self.retriever.weights == "full":
                raise ValueError(
                    f'federation.rule = "{rule}" averages adapters, but retriever.weights = "full" trains none; set '
                    'federation.retriever.rule = "fedavg"'
                )
            if rule == "rolora" and rounds_training(self.federation, name) < 2:
                raise ValueError(
                    f'federation.rule = "rolora" trains B in odd rounds and A in even ones: the {name} needs at least '
                    "2 rounds"
                )
        self._check_server_step()
        for site, rank in self.simulation.ranks.items():
            if beyond := self.beyond_rank(trained_components(self.federation), rank):
                raise ValueError(
                    f"simulation.ranks has {site} train {beyond[0]} adapters of rank {rank}, the others "
                    f'{self.adapter_rank(beyond[0])}: federation.rule = "svd" alone averages different ranks'
                )
        if self.federation.secure and self.own.rule:
            raise ValueError(
                f'federation.secure = true, but own.rule = "{self.own.rule}" is given single updates; leave it out'
            )
        if self.federation.secure and self.data.only and len(self.data.only) < MIN_SITES:
            raise ValueError(
                f"federation.secure = true needs {MIN_SITES} sites, data.only names {len(self.data.only)}: of "
                "two, each would learn the other's update from the sum"
            )

    def _check_server_step(self) -> None:
        """Refuse a learning rate of the server that nothing uses."""
        chosen = {averaging_of(self.federation, name).server_optimizer for name in trained_components(self.federation)}
        if chosen == {"none"} and self.federation.server.learning_rate != "auto":
            raise ValueError(
                'federation.server.learning_rate needs a federation.server_optimizer; "momentum" with '
                "federation.server.momentum = 0 is plain averaging with that rate"
            )

    @classmethod
    def from_toml(
        cls, text: str, source: str = "scenario", overrides: Sequence[str] = (), folder: Path | None = None
    ) -> Config:
        """Parse a scenario.

        Args:
            text: The TOML text.
            source: Its name in an error message, usually its path.
            overrides: `section.key=value` strings that change the text's settings.
            folder: The folder to which the text's `data.sites` is relative, if it is there; None: `data.sites` stays
                unchanged.

        Raises:
            ConfigError: The text is not TOML, a key is unknown, or a value is out of range.
        """
        tree = parse_toml(text, source)
        if folder is not None:
            _prefer_sites_in(tree, folder)
        for override in overrides:
            _apply_override(tree, override)
        return cls.from_dict(tree, source)

    @classmethod
    def from_dict(cls, tree: dict[str, Any], source: str = "scenario") -> Config:
        """Build a scenario from nested dictionaries, as `from_toml` does from text."""
        return validate_section(cls, tree, source)

    @classmethod
    def from_file(cls, path: Path | str, overrides: Sequence[str] = ()) -> Config:
        """Read a scenario file; its `data.sites` may be relative to its folder. See `from_toml`."""
        return cls.from_toml(read_scenario(path), str(path), overrides, Path(path).parent)

    def on_its_day(self) -> Config:
        """Return the scenario of a run that begins now, with the day that chat templates may show."""
        day = self.rag.date or datetime.now(UTC).date().isoformat()
        return self.model_copy(update={"rag": self.rag.model_copy(update={"date": day})})

    def searching_by(self, search: Search) -> Config:
        """Return the scenario with passages ranked in another way, to measure what it trained."""
        return self.model_copy(update={"rag": self.rag.model_copy(update={"search": search})})

    def to_toml(self) -> str:
        """Return the resolved scenario as TOML, with all defaults."""
        return tomli_w.dumps(self.model_dump(mode="json"))


def read_scenario(path: Path | str) -> str:
    """Return the text of a scenario file.

    Raises:
        ConfigError: It cannot be read.
    """
    return read_text_file(path, ConfigError, "no such scenario file; fedrag new DIR writes one to start from")


def _prefer_sites_in(tree: dict[str, Any], folder: Path) -> None:
    """Make `data.sites` relative to the scenario's folder if it is there, whatever the working directory."""
    data = tree.get("data")
    sites = data.get("sites") if isinstance(data, dict) else None
    if isinstance(data, dict) and isinstance(sites, str) and sites and (folder / sites).is_dir():
        data["sites"] = str(folder / sites)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    """Set one `section.key=value`; a value that is not TOML is a plain string."""
    path, equals, raw = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f'--set {override}: expected section.key=value, for example "federation.rounds=3"')
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {override}: {key} is a value, not a section")
    tree[keys[-1]] = value
