"""The scenario: what a federation shares, as one strict, frozen, typed tree read from TOML.

A site's own settings (the folder of its data, its policy) are never part of it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import Field, model_validator

from fedrag.config.arm_settings import ArmsConfig, Baseline
from fedrag.config.section import Section, parse_toml, validate_section
from fedrag.config.values import (
    AutoPositive,
    ComponentName,
    Count,
    DayText,
    Fraction,
    Labels,
    LanguageCode,
    Positive,
    Rates,
)
from fedrag.errors import ConfigError
from fedrag.files import read_text_file
from fedrag.types import ShippedComponent

Side = Literal["query", "both"]
Schedule = Literal["generator", "retriever", "joint", "alternate", "staged"]


class DataConfig(Section):
    """Which sites take part."""

    sites: str
    """Folder of the sites, relative to the scenario file or, if it is not there, to the working directory."""
    only: tuple[str, ...] = ()
    """Names of the sites that take part; empty: all of them."""
    hold_out: tuple[str, ...] = ()
    """Names of sites that take no part, so that a run can be measured on unseen sites."""


class ModelsConfig(Section):
    """The base models, which every site has fetched."""

    generator: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """Causal or seq2seq language model: hub id or folder."""
    retriever: str = "sentence-transformers/all-MiniLM-L6-v2"
    """sentence-transformers model: hub id or folder."""
    generator_dtype: Literal["auto", "bfloat16", "float32", "nf4"] = "auto"
    """Number format of the frozen generator; auto: bfloat16 on hardware that computes in it, else float32. nf4: its
    linear layers are stored in 4 bits (QLoRA) and compute as with auto; needs `pip install 'fedrag[4bit]'`."""
    retriever_dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Number format in which a retriever's adapter trains; search and full weights are always in float32."""

    def name_of(self, key: str) -> str:
        """Return the name of the base model under a key.

        >>> ModelsConfig(retriever="fedrag/tiny-encoder").name_of("retriever")
        'fedrag/tiny-encoder'
        """
        return str(getattr(self, key))

    def dtype_of(self, key: str) -> str:
        """Return the number format of the base model under a key."""
        return str(getattr(self, f"{key}_dtype"))


class RagConfig(Section):
    """How passages are retrieved and shown to the generator."""

    passages: Annotated[int, Field(ge=0)] = 2
    """Passages retrieved per question and given to the generator; 0: none, it answers from memory (closed book)."""
    passages_per_prompt: Annotated[int, Field(ge=0)] = 0
    """Passages in one prompt; 0: all of them. 1: one prompt per passage (RA-DIT)."""
    labels: Labels = "en"
    """Words before passages, question and answer: "en", "vi" or "zh", or your own three, such as
    ["Kontext", "Frage", "Antwort"]. The answer's is written where the model has no chat template."""
    instruction: str = "auto"
    """First line of the prompt, or its system message where the model has a chat template; auto: "Answer the question
    from the passages. Reply with the shortest answer, copied word for word.", in the language of the labels; without
    passages it does not speak of them."""
    date: DayText = ""
    """Today's date to chat templates that show one, as 2026-01-31; empty: the day on which the run begins."""
    prompt_tokens: Count = 1024
    """Longest prompt, in tokens. Of a passage that does not fit, a window around what was found in it is shown (of a
    chunk that does not fit either, its beginning); of a question that takes more than half of the room, the
    beginning."""
    answer_tokens: Count = 32
    """Longest answer in training and generation, in tokens; a longer one is cut, and does not end there."""
    chunk_tokens: Annotated[int, Field(ge=0)] = 0
    """Most tokens of a chunk, without special tokens and the passages' prompt: long passages are cut into chunks, which
    are indexed, searched and trained on; 0: 256, or as many as the retriever reads if these are fewer."""
    chunk_overlap: Annotated[int, Field(ge=0)] = 32
    """Tokens that neighbouring chunks of a long passage share."""
    include_labelled: bool = False
    """Whether prompts in training show the labelled passages that retrieval missed, in place of the last ones found."""


class LoraSection(Section):
    """Low-rank adapters (Hu et al. 2021)."""

    rank: Count = 16
    """Rank r of the factors A and B."""
    alpha: Positive = 32.0
    """Scale: the update is (alpha / rank) B A."""
    targets: tuple[str, ...] = ()
    """Names of the linear layers to adapt, and of a mixture's expert weights, such as "experts.down_proj"; empty: all
    except the output head."""


class OptimizerSection(Section):
    """AdamW and its schedule, which runs once over all rounds and never restarts."""

    learning_rate: Positive = 1e-3
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Decay of the learning rate from its peak, over all rounds that train the component."""
    warmup: Fraction = 0.05
    """Share of all steps over which the learning rate rises from 0."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """Decoupled weight decay of AdamW."""
    clip_norm: Positive = 1.0
    """Largest L2 norm of a gradient; larger ones are scaled down to it."""
    epochs: Count = 1
    """Passes over a site's questions in one round."""
    batch_size: Count = 8
    """Examples per optimizer step."""


class GeneratorConfig(OptimizerSection):
    """RALT: the generator learns to answer from retrieved passages (Lin et al. 2023)."""

    lora: LoraSection = LoraSection()
    """The adapter that is trained; the base model is frozen."""
    adapter_from: Literal["start", "question"] = "start"
    """Where in a prompt the adapter begins to act. question (activated LoRA, Greenewald et al. 2025): the base model
    alone reads instruction and passages; its keys and values are cached for all epochs and rounds, in at most a quarter
    of the free memory. On a model with a sliding window, prompt_tokens and answer_tokens together must fit into it."""
    generation_settings: Literal["neutral", "model"] = "neutral"
    """Whether answers are generated with the settings that come with the model, such as forbidden repetitions or forced
    first tokens; neutral: without them. Always greedily."""
    micro_batch_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens in one forward pass, padding included; the gradients of a batch accumulate over several passes. 0: 2,048,
    or up to 16,384 on a GPU with enough memory."""
    activation_checkpointing: Literal["auto", "on", "off"] = "auto"
    """on: layers recompute their activations in the backward pass, slower but in far less memory (Chen et al. 2016);
    auto: where a step would need more memory than is free. The numbers are the same."""
    dropout: bool = False
    """Whether the base model's own dropout is on in training, as T5, GPT-2, OPT and BART have it."""
    group_by_passage: bool = True
    """Whether questions on the same passage share a batch, in groups of up to half of it, so that the passage is read
    once; with adapter_from = "question" passages are cached, and this has no effect."""
    raft_drop: Fraction = 0.0
    """Probability of replacing the labelled passages of a training prompt by others (RAFT, Zhang et al. 2024)."""


class ContrastiveConfig(Section):
    """In-batch negatives (InfoNCE) on labelled passages."""

    scale: AutoPositive = "auto"
    """Factor on the similarity, one over the temperature; auto: fits the spread of the base model's similarities, such
    as 20 for all-MiniLM-L6-v2 and 100 for multilingual-e5-small."""
    side: Side = "both"
    """Encoder side that learns."""
    hard_negatives: Annotated[int, Field(ge=0)] = 0
    """Hard negatives per question: passages that its hard_negative_ids name, drawn anew each round where there are
    more, then retrieved ones that are not labelled. 0: none, not even those that are named."""
    hard_negative_margin: Fraction = 0.05
    """Share of the labelled passage's similarity that a hard negative must lie below it (NV-Retriever, Moreira et al.
    2024: passages that are more similar are often right); 0: no limit."""
    guide: Literal["none", "untouched"] = "none"
    """untouched: a passage that the base retriever finds more similar to a question than the labelled passage is no
    negative of it, in-batch or hard (GISTEmbed, Solatorio 2024). RESULTS.md has figures: a weak base makes it worse."""


class LsrConfig(Section):
    """LM-supervised retrieval (REPLUG, Shi et al. 2023): the generator scores how much passages help."""

    candidates: Annotated[int, Field(ge=2)] = 8
    """Passages k scored per question."""
    candidates_from: Literal["untouched", "current"] = "untouched"
    """Retriever that chooses the candidates: the base (they are scored once for all rounds) or this round's."""
    include_labelled: bool = False
    """Whether labelled passages join the candidates."""
    scorer: Literal["current", "untouched"] = "current"
    """Generator that scores: this round's, or the base for the whole run (RA-DIT)."""
    tau_lm: Positive = 0.1
    """Temperature on the mean log-probability of the answer."""
    tau_r: AutoPositive = "auto"
    """Temperature on the similarity; auto: fits the spread of the base model's similarities, such as 0.05 for
    all-MiniLM-L6-v2 and 0.01 for multilingual-e5-small."""
    divergence: Literal["forward", "reverse"] = "forward"
    """forward: KL(target || retriever), as in Atlas; reverse: KL(retriever || target), as in REPLUG."""
    side: Side = "query"
    """Encoder side that learns."""
    max_questions: Annotated[int, Field(ge=0)] = 0
    """Questions scored per site, drawn with the seed; 0: all of them."""
    batch_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens in one scoring pass, padding included; 0: 8,192, or up to 65,536 on a GPU with enough memory."""


class RetrieverConfig(OptimizerSection):
    """How the retriever learns which passages help."""

    weights: Literal["lora", "full"] = "lora"
    """What is trained: a low-rank adapter, or all weights."""
    token_embeddings: bool = False
    """Whether the token embeddings are trained, too, where weights = "full": 96 of the 118 million weights of a
    multilingual encoder."""
    lora: LoraSection = LoraSection()
    """The adapter, where weights = "lora"."""
    loss: Literal["contrastive", "lsr", "both"] = "contrastive"
    """The loss; both: contrastive + lsr_weight * LSR, each on the questions that it can use."""
    lsr_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Weight of LSR where loss = "both"."""
    query_prompt: str = "auto"
    """What stands before every question, such as "query: " for E5; auto: the model's own prompt, if it has one."""
    passage_prompt: str = "auto"
    """What stands before every passage, such as "passage: " for E5; auto: the model's own prompt, if it has one."""
    similarity: Literal["auto", "cosine", "dot"] = "auto"
    """How vectors are compared, in training, search and the exported model; auto: as the model says, else cosine."""
    truncate_dim: Annotated[int, Field(ge=0)] = 0
    """Dimensions of a vector that are kept, in training, search and the exported model (Matryoshka, Kusupati et al.
    2022); 0: all."""
    train_tokens: Annotated[int, Field(ge=0)] = 0
    """Most tokens of a labelled passage or hard negative that the contrastive loss reads, special tokens included; 0:
    the chunks of the index as they are."""
    dropout: bool = False
    """Whether the encoder's own dropout is on in training; off: about 30 % less work."""
    batch_size: Count = 32
    """Examples per optimizer step; it also bounds the in-batch negatives of a question."""
    contrastive: ContrastiveConfig = ContrastiveConfig()
    """Settings of the contrastive loss."""
    lsr: LsrConfig = LsrConfig()
    """Settings of the LSR loss."""

    @property
    def uses_lsr(self) -> bool:
        """Whether training uses the generator's scores."""
        return self.loss in ("lsr", "both")

    @property
    def uses_contrastive(self) -> bool:
        """Whether training uses labelled passages."""
        return self.loss in ("contrastive", "both")

    @property
    def trains_passage_side(self) -> bool:
        """Whether training changes how passages are encoded, so that indexes must be rebuilt."""
        return (self.uses_contrastive and self.contrastive.side == "both") or (
            self.uses_lsr and self.lsr.side == "both"
        )


class FederationConfig(Section):
    """The rounds."""

    rounds: Count = 2
    """Communication rounds."""
    schedule: Schedule = "joint"
    """Components that each round trains; alternate: the generator in odd rounds; staged: see stage_rounds."""
    stage_first: ShippedComponent = "retriever"
    """Component of the first stage, where schedule = "staged"."""
    stage_rounds: Count = 1
    """Rounds of the first stage, where schedule = "staged"; the other rounds train the other component."""
    components: tuple[ComponentName, ...] = ()
    """Names of the components that every round trains, your own among them; empty: those of the schedule."""
    weighting: Literal["examples", "equal"] = "examples"
    """Weight of a site's update: its number of training examples, or the same for all."""
    proximal_mu: Annotated[float, Field(ge=0.0)] = 0.0
    """FedProx (Li et al. 2020): mu of the proximal term; 0: plain FedAvg."""
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the sites asked in each round."""
    quorum: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of the asked sites that must give a valid reply."""
    min_sites: Count = 1
    """Sites that must answer the greeting before the first round."""
    greeting_timeout_s: Positive = 120.0
    """Longest wait for sites to appear, in seconds."""
    deadline_s: Positive = 7200.0
    """Longest wait for the replies of one round, in seconds."""
    wire: Literal["float32", "bfloat16", "int8"] = "bfloat16"
    """Number format of updates and global state in messages; int8: of updates alone, the state is then in bfloat16."""
    max_update_norm: Annotated[float, Field(gt=0.0, le=1e9)] = 1000.0
    """Largest L2 norm of a valid update."""
    keep: Literal["last", "best"] = "last"
    """The result: the last round's tensors, or for each component the best on the sites' validation questions."""
    validate_every: Annotated[int, Field(ge=0)] = 0
    """Rounds between validations at the sites; 0: never, or after each round if keep = "best"."""
    deliver: bool = True
    """Whether the sites receive the result at the end."""


class EvaluationConfig(Section):
    """What is measured at the end of a simulation."""

    split: Literal["train", "validation", "test", "all", "none"] = "test"
    """Questions to measure; none: no final evaluation."""
    sites: Literal["taking-part", "held-out"] = "taking-part"
    """Sites to measure: those that train, or those of data.hold_out."""
    untouched: bool = True
    """Whether the untouched models are measured too."""
    baselines: tuple[Baseline, ...] = ()
    """"local": each site trains alone; "pooled": all data in one place; both make the federation's passes over the same
    questions, each searched among its own site's passages."""
    rates: Rates = ()
    """Learning rates that every arm tries, in place of those of [generator], [retriever] and [evaluation.arms]; for
    each component it takes the one that scores best on the sites' validation questions, by F1 and MRR."""
    arms: ArmsConfig = ArmsConfig()
    """What the baselines train with instead of the scenario's settings."""
    language: LanguageCode = "en"
    """Language of the answers, such as "vi", of sites that name none in their site.json: exact match and F1 know its
    articles and its decimal mark."""
    generate: bool = True
    """Whether answers are generated; false: retrieval only."""
    batch_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens of the prompts in one generation batch, padding included; 0: 16,384, or up to 131,072 on a GPU with
    enough memory."""


class SimulationConfig(Section):
    """How clients share one machine."""

    grid: Literal["in-process", "ray"] = "in-process"
    """in-process: one client after the other in this process; ray: several at a time in Ray actors."""
    actors: Annotated[int, Field(ge=0)] = 0
    """Ray actors; 0: as many as the CPUs allow."""
    cpus_per_actor: Count = 1
    """CPUs of one actor."""
    gpus_per_actor: Fraction = 0.0
    """Share of a GPU that one actor holds; 0: a whole GPU where there is one, or an equal share if `actors` is set."""
    threads: Annotated[int, Field(ge=0)] = 0
    """torch threads per client; 0: cpus_per_actor on Ray, all CPUs in process."""


class Config(Section):
    """A whole scenario."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    """Name of the scenario and of its run folders: small letters, digits and hyphens."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed from which all randomness derives."""
    data: DataConfig
    models: ModelsConfig = ModelsConfig()
    rag: RagConfig = RagConfig()
    generator: GeneratorConfig = GeneratorConfig()
    retriever: RetrieverConfig = RetrieverConfig()
    federation: FederationConfig = FederationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    simulation: SimulationConfig = SimulationConfig()

    @property
    def retrieves(self) -> bool:
        """Whether passages are searched at all: a closed book that trains no retriever needs none."""
        return self.rag.passages > 0 or self._trains_retriever or not self.evaluation.generate

    @property
    def _trains_retriever(self) -> bool:
        own = self.federation.components
        return "retriever" in own if own else self.federation.schedule != "generator"

    @property
    def _trains_generator(self) -> bool:
        return not self.federation.components and self.federation.schedule != "retriever"

    @model_validator(mode="after")
    def _check_combinations(self) -> Config:
        """Refuse combinations that cannot work, and say why."""
        if self.rag.passages_per_prompt > self.rag.passages:
            raise ValueError("rag.passages_per_prompt is larger than rag.passages")
        self._check_closed_book()
        if 0 < self.rag.chunk_tokens <= self.rag.chunk_overlap:
            raise ValueError("rag.chunk_overlap must be smaller than rag.chunk_tokens")
        if self.generator.adapter_from == "question" and self.generator.activation_checkpointing == "on":
            raise ValueError(
                'generator.activation_checkpointing = "on" does not work with generator.adapter_from = "question", '
                "which keeps the activations of question and answer alone"
            )
        federation = self.federation
        if federation.schedule == "staged" and federation.stage_rounds >= federation.rounds:
            raise ValueError("federation.stage_rounds must be smaller than federation.rounds")
        if federation.schedule == "alternate" and federation.rounds < 2:
            raise ValueError('federation.schedule = "alternate" needs federation.rounds of at least 2')
        if self.evaluation.sites == "held-out" and not self.data.hold_out:
            raise ValueError('evaluation.sites = "held-out" needs names in data.hold_out')
        self._check_rates()
        if self.data.only and set(self.data.only) <= set(self.data.hold_out):
            raise ValueError("data.hold_out leaves none of the sites in data.only")
        return self

    def _check_rates(self) -> None:
        """Refuse to choose rates by the questions that they are then measured on, or to choose none."""
        if not self.evaluation.rates:
            return
        if self.evaluation.split == "none":
            raise ValueError('evaluation.rates needs a final evaluation, but evaluation.split is "none"')
        if self.evaluation.sites == "taking-part" and self.evaluation.split in ("validation", "all"):
            raise ValueError(
                "evaluation.rates are chosen by the validation questions, which then cannot be measured; "
                'set evaluation.split = "test"'
            )
        if self._trains_generator and not self.evaluation.generate:
            raise ValueError("evaluation.rates chooses the generator's by F1, which needs evaluation.generate = true")
        if self.federation.components:
            raise ValueError("evaluation.rates works with federation.schedule alone; leave out federation.components")

    def _check_closed_book(self) -> None:
        """Refuse what needs passages in a prompt where there are none."""
        if self.rag.passages:
            return
        needs = {
            f'retriever.loss = "{self.retriever.loss}"': self._trains_retriever and self.retriever.uses_lsr,
            f"generator.raft_drop = {self.generator.raft_drop}": self.generator.raft_drop > 0,
            "rag.include_labelled = true": self.rag.include_labelled,
        }
        for setting, is_set in needs.items():
            if is_set:
                raise ValueError(f"{setting} needs passages in the prompts, but rag.passages is 0")

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
