"""All settings of a scenario, in their sections, and what follows from several of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from fedrag.config.averaging import averaging_of
from fedrag.config.inputs import DataConfig, ModelsConfig
from fedrag.config.own_settings import OwnConfig
from fedrag.config.privacy_settings import PrivacyConfig
from fedrag.config.rag_settings import RagConfig
from fedrag.config.run_settings import EvaluationConfig, FederationConfig, SimulationConfig, TrackingConfig
from fedrag.config.section import Section
from fedrag.config.training_settings import GeneratorConfig, RetrieverConfig
from fedrag.types import Component


class Settings(Section):
    """The settings of a scenario."""

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
