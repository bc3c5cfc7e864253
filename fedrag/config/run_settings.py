"""The settings of a run: its rounds, what is measured at the end, and how clients share a machine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedrag.config.arm_settings import ArmsConfig, Baseline
from fedrag.config.averaging_settings import (
    ComponentAveraging,
    Robust,
    RuleName,
    ServerOptimizer,
    ServerStepConfig,
    Weighting,
)
from fedrag.config.poison_settings import PoisonConfig
from fedrag.config.section import Section
from fedrag.config.site_noise_settings import SiteNoiseConfig
from fedrag.config.values import ComponentName, Count, Fraction, LanguageCode, Positive, Rates
from fedrag.types import ShippedComponent

TrackerName = Literal["tensorboard", "mlflow", "wandb", "trackio"]
Schedule = Literal["generator", "retriever", "joint", "alternate", "staged", "iterate"]


class FederationConfig(Section):
    """The rounds."""

    rounds: Count = 2
    """Communication rounds."""
    schedule: Schedule = "joint"
    """Components that each round trains; alternate: the generator in odd rounds; staged: see stage_rounds. iterate: as
    joint, but first each site searches and answers, with the round's models, the questions of its unanswered.jsonl, and
    learns from the answers that it trusts (pseudo-labels, Lee 2013); nothing of them leaves it."""
    pseudo_confidence: Fraction = 0.5
    """Where schedule = "iterate": the confidence from which an answer is trusted, if it stands in a passage that was
    found: the geometric mean of the probabilities of its tokens and of its end."""
    stage_first: ShippedComponent = "retriever"
    """Component of the first stage, where schedule = "staged"."""
    stage_rounds: Count = 1
    """Rounds of the first stage, where schedule = "staged"; the other rounds train the other component."""
    components: tuple[ComponentName, ...] = ()
    """Names of the components that every round trains, your own among them; empty: those of the schedule."""
    weighting: Weighting = "examples"
    """Weight of a site's update: its number of training examples, or the same for all."""
    rule: RuleName = "fedavg"
    """How adapters are averaged. fedavg: A and B each; ffa (Sun et al. 2024): A stays as it began, B is averaged;
    rolora (Chen et al. 2025): sites train B in a component's odd rounds, A in its even ones; svd (FlexLoRA, Bai et al.
    2024): the best A and B of this rank for the mean of the products B A; exact (FedEx-LoRA, Singhal et al. 2024): A
    and B as by fedavg, and what the mean of the products holds beyond them as a side adapter that nobody trains."""
    robust: Robust = "none"
    """What a bad site cannot carry away, in place of the mean. clipping (Karimireddy et al. 2021): an update counts up
    to clip_distance; geometric-median (Pillutla et al. 2022); mixing (Allouah et al. 2023): each update is replaced by
    the mean of its nearest ones, before the geometric median. Needs more than 2 * bad_sites valid replies, whose
    updates the server keeps in memory until all are there."""
    bad_sites: Count = 1
    """Where robust is not "none": how many of a round's sites may be bad."""
    clip_distance: Positive = 3.0
    """Where robust = "clipping": largest distance from the geometric median, in medians of the distances; an update
    beyond it is drawn in to it."""
    max_norm_of_median: Annotated[float, Field(ge=0.0)] = 0.0
    """An update is left out if its L2 norm is more than so many times the median of the round; 0: none is. The server
    then keeps the updates in memory until all are there."""
    server_optimizer: ServerOptimizer = "none"
    """What the server does with the averaged difference (Reddi et al. 2021): none: adds it; momentum: FedAvgM; adam,
    yogi, adagrad: FedAdam, FedYogi, FedAdagrad. See federation.server."""
    max_weight_ratio: Annotated[float, Field(ge=0.0)] = 10.0
    """No site counts for more than so many times the median number of training examples that the sites of a round told
    of (of an even number of sites, the lower of the two in the middle), nor its validation for more than so many times
    the median count; 0: each counts for what it claims."""
    proximal_mu: Annotated[float, Field(ge=0.0)] = 0.0
    """FedProx (Li et al. 2020): mu of the proximal term; 0: plain FedAvg."""
    secure: bool = False
    """Secure sum (after Bonawitz et al. 2017): the server learns no site's update, counts and losses, but their sum
    over all sites: each hides its own behind masks that cancel in the sum. Needs three sites, and one more short
    message a round."""
    secure_colluding: Annotated[int, Field(ge=0, le=1000)] = 1
    """Where secure = true: how many sites may work together with the server and still not learn what another one sent.
    The more, the fewer sites may vanish in a round."""
    secure_clip_norm: Annotated[float, Field(gt=0.0, le=1e6)] = 30.0
    """Where secure = true: a site draws an update with a greater L2 norm in to it, so that no sum leaves the range of
    the whole numbers that carry it."""
    secure_max_examples: Annotated[int, Field(ge=1, le=2**24)] = 10_000
    """Where secure = true and weighting = "examples": a site counts for at most so many examples, in place of
    max_weight_ratio."""
    secure_bits: Literal[32, 64] = 32
    """Where secure = true: bits of the whole numbers that carry the sum of the updates. With 32 a masked update has the
    bytes of float32; 64 has twice as many, and no rounding that could matter. A round says where it does."""
    secure_repeats: Annotated[int, Field(ge=0, le=100)] = 1
    """Where secure = true: how often a round that was lost is asked for again, from the same state. Each site bounds
    it too, and in one round reveals for one set of sites: the difference of two sums is what the others sent."""
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Share of the sites of a round: so many are asked, and their replies awaited."""
    overselect: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Share of sites that are asked beyond those (Bonawitz et al. 2019, by 30 %): the round closes with the first
    replies, as many as fraction says, and what is late is not used. Fast sites count more often. 0: none beyond."""
    quorum: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Share of the round's sites, not of those beyond them, that must give a valid reply."""
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
    """The result: the last round's tensors, or for each component the best on the sites' validation questions, which
    may be those before the first round."""
    validate_every: Annotated[int, Field(ge=0)] = 0
    """Rounds between validations at the sites; 0: never, or after each round if keep = "best"."""
    diagnose: bool = False
    """Whether sites are asked, before the first round and after the last, why answers to their validation questions are
    wrong: counts of causes, which a site tells where its policy has tell_diagnosis = true."""
    deliver: bool = True
    """Whether the sites receive the result at the end."""
    personalise: Annotated[int, Field(ge=0, le=1000)] = 0
    """In a simulation: passes over its own questions for which each site trains on, after the last round and from the
    result, with settings of its own round (no noise, no proximal term); 0: none. It keeps its own weights of a
    component only where the component's measure on its validation questions rises (MRR of the retriever, mean
    log-probability of the answers' tokens of the generator) and that of no other falls. A deployed site has
    its own setting, personalise in site.toml."""
    server: ServerStepConfig = ServerStepConfig()
    """Settings of server_optimizer."""
    generator: ComponentAveraging = ComponentAveraging()
    """How the generator's differences are averaged, where that is another way."""
    retriever: ComponentAveraging = ComponentAveraging()
    """How the retriever's differences are averaged, where that is another way."""

    @model_validator(mode="after")
    def _check(self) -> FederationConfig:
        if self.schedule == "staged" and self.stage_rounds >= self.rounds:
            raise ValueError("federation.stage_rounds must be smaller than federation.rounds")
        if self.schedule == "alternate" and self.rounds < 2:
            raise ValueError('federation.schedule = "alternate" needs federation.rounds of at least 2')
        if self.overselect and self.fraction == 1:
            raise ValueError(
                f"federation.overselect = {self.overselect:g} asks more sites than a round needs, but "
                "federation.fraction = 1 needs all of them; set a smaller fraction"
            )
        return self


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
    processes: Count = 1
    """Processes that train a client together, each on its share of every batch and on a GPU of its own; with grid =
    "in-process"."""
    canaries: Annotated[int, Field(ge=0)] = 0
    """Made-up questions at each site, of which it trains on those that a fair coin chooses: `fedrag audit RUN` measures
    how well these can be told from the others, which shows whether models remember single questions. They cost a little
    of what the models are good for. 0: none."""
    ranks: dict[str, Count] = {}
    """Ranks of sites that train a smaller part of the adapters, by their names: { north = 4 }. Needs federation.rule =
    "svd" (FlexLoRA), which averages adapters of different ranks."""
    poison: PoisonConfig = PoisonConfig()
    """Sites that play a bad one."""
    site_noise: SiteNoiseConfig = SiteNoiseConfig()
    """Noise that covers whole clients, where there are many."""

    @model_validator(mode="after")
    def _check(self) -> SimulationConfig:
        if self.processes > 1 and self.grid != "in-process":
            raise ValueError('simulation.processes needs simulation.grid = "in-process"; with Ray, set actors')
        return self


class TrackingConfig(Section):
    """Where a run is shown while it goes on, beside its own log and report."""

    to: tuple[TrackerName, ...] = ()
    """Trackers that are given losses, validation, bytes and seconds by round, the final figures and these settings:
    "tensorboard", "mlflow", "wandb", "trackio". Each needs `pip install 'fedrag[NAME]'` where the rounds are run, and
    writes local files: nothing is sent anywhere."""
