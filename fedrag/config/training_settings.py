"""The settings of training: adapters, the optimizer, the generator and the retriever with its losses."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedrag.config.section import Section
from fedrag.config.values import AutoPositive, Count, Fraction, Positive

Side = Literal["query", "both"]


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

    @model_validator(mode="after")
    def _check(self) -> GeneratorConfig:
        if self.adapter_from == "question" and self.activation_checkpointing == "on":
            raise ValueError(
                'generator.activation_checkpointing = "on" does not work with generator.adapter_from = "question", '
                "which keeps the activations of question and answer alone"
            )
        return self


class ContrastiveConfig(Section):
    """In-batch negatives (InfoNCE) on labelled passages."""

    scale: AutoPositive = "auto"
    """Factor on the similarity, one over the temperature; auto: fits the spread of the base model's similarities, such
    as 20 for all-MiniLM-L6-v2 and 100 for multilingual-e5-small."""
    side: Side = "both"
    """Encoder side that learns."""
    named_negatives: Annotated[int, Field(ge=0)] = 4
    """Most of the passages that a question's hard_negative_ids name that it learns from in a round, drawn anew each
    round where there are more; 0: none."""
    hard_negatives: Annotated[int, Field(ge=0)] = 0
    """Hard negatives per question, up to which retrieved passages that are not labelled join those that are named; 0:
    named ones alone."""
    hard_negative_margin: Fraction = 0.05
    """Share of the labelled passage's similarity that a retrieved hard negative must lie below it (NV-Retriever,
    Moreira et al. 2024: passages that are more similar are often right); 0: no limit."""
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
    """Temperature on the mean log-probability of the answer, where target = "score"."""
    target: Literal["score", "rank"] = "score"
    """What the retriever learns from the generator. score: the softmax of the answer's mean log-probabilities; rank:
    one over each candidate's rank by them, however far they lie apart."""
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
    mini_batch_size: Annotated[int, Field(ge=0)] = 0
    """Texts that the encoder reads at a time in a step (GradCache, Gao et al. 2021): a large batch takes the memory of
    a small one, each text is read twice, and the gradient is the same. 0: all of a batch at once. With noise it has
    no effect: there each question is clipped by itself."""
    contrastive: ContrastiveConfig = ContrastiveConfig()
    """Settings of the contrastive loss."""
    lsr: LsrConfig = LsrConfig()
    """Settings of the LSR loss."""

    @property
    def uses_lsr(self) -> bool:
        """Whether training uses the generator's scores."""
        return self.loss in ("lsr", "both")

    @property
    def learns_from_scores(self) -> bool:
        """Whether the generator's scores have a part in the loss."""
        return self.loss == "lsr" or (self.loss == "both" and self.lsr_weight > 0.0)

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
